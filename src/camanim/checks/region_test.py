"""Test whether the network uses a region of the image, such as a label or a ruler."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt

from camanim.checks.localisation import localise
from camanim.checks.mask import object_cells
from camanim.declarations import Range, Seed
from camanim.errors import ScoreError
from camanim.findings import Finding, register_finding
from camanim.plots import Level, Line, Panel
from camanim.progress import Progress, silent
from camanim.road.scores import check_scorable, with_scorer
from camanim.road.settings import ScoringSettings
from camanim.targets.functions import FunctionTarget

if TYPE_CHECKING:
    from camanim.result import Result
    from camanim.road.scores import Scorer

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Images that are imputed and predicted at once.
BATCH = 16
#: Mean overlap of the copies with the region above which a remark is added.
MAX_OVERLAP = 0.3
#: The fewest places that allow p = 0.05.
MIN_PLACES = 19


@dataclass(frozen=True)
class RegionTest(Finding):
    """Whether removing a region changes the target's score more than removing it elsewhere.

    The region is imputed as by ROAD, and so are copies of it at other places inside the image. The
    p-value is ``(1 + #{copies with a change at or below that of the region}) / (1 + copies)``: a low one
    says that the region is evidence for the target. Each layer's map adds how much of its positive
    evidence lies in the region, over the region's share of the image.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    effect : float
        Change of the target's score (of a class, its logit) without the region.
    elsewhere : (N,) array
        Changes of the score without copies of the region at other places.
    energy : (L,) array
        Fraction of the positive evidence inside the region; NaN where undefined.
    share : float
        Fraction of the image inside the region.
    overlap : float
        Mean fraction of the region that a copy covers.
    target : str
        Name of the target.
    seed : int
    """

    kind = "region_test"
    title = "Region test"
    order = 25
    derived: ClassVar[tuple[str, ...]] = ("p_value", "concentration")

    effect: float
    elsewhere: Floats
    energy: Floats
    share: float
    overlap: float
    target: str
    seed: int

    @property
    def p_value(self) -> float:
        """Share of places, the region's included, whose removal lowers the score as much."""
        return float((1 + (self.elsewhere <= self.effect).sum()) / (1 + len(self.elsewhere)))

    @property
    def concentration(self) -> Floats:
        """Energy in the region over the region's share of the image, (L,); 1 by chance."""
        return self.energy / self.share

    def columns(self) -> dict[str, Any]:
        """Return the concentration of each layer's evidence in the region."""
        return {"region energy / area": self.concentration}

    def caption(self, i: int) -> str:
        """Return the concentration of layer `i`, and the p-value of the region."""
        effect = f"region: score {self.effect:+.2f} without it (p = {self.p_value:.2f})"
        if np.isnan(self.concentration[i]):
            return effect
        return f"{effect}   energy {self.concentration[i]:.1f} x its area"

    def summary(self) -> str:
        """Return the effect of the region beside that of its copies, and the p-value."""
        spread = f"{self.elsewhere.mean():+.2f} ± {self.elsewhere.std(ddof=1):.2f}"
        return (
            f"Region test: without the region, the output for {self.target} changes by "
            f"{self.effect:+.2f}; without copies of it at {len(self.elsewhere)} other places, by "
            f"{spread} (p = {self.p_value:.2g}).{self._overlap_in_words()}"
        )

    def _overlap_in_words(self) -> str:
        if self.overlap <= MAX_OVERLAP:
            return ""
        return (
            f" The copies cover {self.overlap:.0%} of the region, so that the comparison says little: "
            "the region is too large."
        )

    def panel(self) -> Panel:
        """Return the panel of the concentration over the layers."""
        return Panel.over_layers(
            len(self.layers),
            lines=(Line("energy in the region / its area", self.concentration),),
            levels=(Level("chance", 1.0),),
            y_label="energy / area",
            tip="Positive evidence inside the region over the region's share of the image.",
        )


@register_finding(RegionTest)
def check_region(
    result: Result,
    mask: Any,
    *,
    label: int | None = None,
    places: Annotated[int, Range(MIN_PLACES, 9999)] = 99,
    seed: Seed = 0,
    progress: Progress = silent,
) -> RegionTest:
    """Test whether the network uses a region, by removing it and copies of it at other places.

    Takes one image for each place. The removed pixels are replaced by the weighted mean of their
    neighbours, with noise, as by ROAD.

    Parameters
    ----------
    result : Result
        Maps of an image or a volume.
    mask : array-like
        Region, as for `camanim.checks.localise`.
    label : int, optional
        Value of the mask that marks the region; by default any value except 0.
    places : int
        Number of other places, at random, at which the whole region lies inside the image.
    seed : int
        Seed of the places and of the noise.
    progress : Progress
        Called after every batch.

    Returns
    -------
    RegionTest

    Raises
    ------
    ScoreError
        If the mask is invalid, the region has fewer than 19 other places in the image, or the maps
        cannot be scored.
    Cancelled
        If the caller cancels.
    """
    check_scorable(result)
    size = tuple(result.tensor.shape[2:])
    agreement = localise(result, mask, label=label)
    inside = object_cells(mask, label, result.image.shape[: len(size)], result.geometry)
    shifts = _shifts(inside, places, seed)
    regions = [inside, *(np.roll(inside, shift, range(inside.ndim)) for shift in shifts)]
    before, after = _scores_without(result, regions, seed, progress)
    changes = after - before
    if not np.isfinite(changes).all():
        raise ScoreError(
            "The target's score is not finite without a region: choose another target."
        )
    return RegionTest(
        layers=result.layers,
        effect=float(changes[0]),
        elsewhere=changes[1:],
        energy=agreement.energy,
        share=agreement.share,
        overlap=float(np.mean([region[inside].mean() for region in regions[1:]])),
        target=result.target.name,
        seed=seed,
    )


def _shifts(inside: Bools, places: int, seed: int) -> list[tuple[int, ...]]:
    """Return distinct shifts, other than none, that keep the whole region inside the image."""
    ranges = []
    for axis in range(inside.ndim):
        others = tuple(a for a in range(inside.ndim) if a != axis)
        occupied = np.flatnonzero(inside.any(axis=others))
        ranges.append(np.arange(-occupied[0], inside.shape[axis] - occupied[-1]))
    count = int(np.prod([len(steps) for steps in ranges]))
    if count - 1 < MIN_PLACES:
        raise ScoreError(
            f"The region fits at {count - 1} other places in the image, but the test needs "
            f"{MIN_PLACES}: mark a smaller region."
        )
    generator = np.random.default_rng(seed)
    drawn = generator.choice(count, min(places + 1, count), replace=False)
    shape = [len(steps) for steps in ranges]
    shifts = [
        tuple(int(steps[k]) for steps, k in zip(ranges, position, strict=True))
        for position in zip(*np.unravel_index(drawn, shape), strict=True)
    ]
    return [shift for shift in shifts if any(shift)][:places]


def _scores_without(
    result: Result, regions: list[Bools], seed: int, progress: Progress
) -> tuple[float, Floats]:
    """Return the target's score for the image, and without each region, (N,)."""
    # A probability near 1 hardly changes: the values are those of the score.
    target = FunctionTarget(result.target.score, result.target.name)

    def run(scorer: Scorer) -> tuple[float, Floats]:
        scores: list[Floats] = []
        for start in range(0, len(regions), BATCH):
            progress("region test", start, len(regions))
            scores.append(scorer.values_without(np.stack(regions[start : start + BATCH]), seed))
        progress("region test", len(regions), len(regions))
        return scorer.probability, np.concatenate(scores)

    return with_scorer(replace(result, target=target), ScoringSettings(seed), progress, run)
