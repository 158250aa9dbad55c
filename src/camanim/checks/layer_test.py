"""Test whether the maps of layers lie where they explain the target, over all layers at once."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt

from camanim.checks.tested_layers import IMAGES_PER_MAP, LEVEL, TestedLayers, tested_indices
from camanim.checks.transforms import Transform, random_transforms
from camanim.declarations import Range, Seed
from camanim.errors import Cancelled
from camanim.findings import Finding, register_finding
from camanim.layer_info import LayerInfo
from camanim.plots import Level, Line, Panel
from camanim.progress import Progress, silent
from camanim.road.scores import check_scorable, with_scorer
from camanim.road.settings import ScoringSettings

if TYPE_CHECKING:
    from camanim.result import Result
    from camanim.road.scores import Scorer
    from camanim.stack import FloatMap

Floats = npt.NDArray[np.float64]

#: Number of transforms that are scored between two decisions whether to go on.
ROUND = 10


@dataclass(frozen=True)
class LayerTest(Finding):
    """Whether the place of each layer's map matters, corrected for the number of layers (max-T).

    All maps are shifted around the image, turned and mirrored together, and scored again with ROAD. With
    the scores standardised over the transforms within each layer, ``z[l, d]``, the p-value of layer l is
    the share of transforms, the identity included, with ``max_m z[m, d] >= z[l, 0]``. The maximum over
    the layers makes 0.05 the probability that *any* layer is found where no layer explains the target
    (Westfall & Young, "Resampling-Based Multiple Testing", 1993). The test presumes that the score of a
    map that explains nothing does not depend on its place, which objects in the centre violate.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    transformed : (L, D + 1) array
        ROAD score of each layer's map under each transform, the identity first; NaN for layers that are
        not tested.
    p_values : (L,) array
        NaN where not tested.
    transforms : int
        Number D of transforms that was asked for; the lowest possible p-value is 1 / (D + 1).
    seed : int
    cancelled : bool
        Whether the caller stopped the test before it was settled.
    """

    kind = "layer_test"
    title = "Layer test"
    order = 5
    derived: ClassVar[tuple[str, ...]] = ("significant",)

    transformed: Floats
    p_values: Floats
    transforms: int
    seed: int
    cancelled: bool = False

    @property
    def scores(self) -> Floats:
        """ROAD scores with the seed of the test, (L,)."""
        return self.transformed[:, 0]

    @cached_property
    def significant(self) -> npt.NDArray[np.bool_]:
        """Whether the p-value is at most 0.05, (L,)."""
        with np.errstate(invalid="ignore"):
            significant: npt.NDArray[np.bool_] = self.p_values <= LEVEL
        return significant

    @cached_property
    def best(self) -> LayerInfo | None:
        """The best layer: the highest score among those with ``p <= 0.05``; None without any."""
        if not self.significant.any():
            return None
        return self.layers[int(np.nanargmax(np.where(self.significant, self.scores, np.nan)))]

    @property
    def shown_first(self) -> LayerInfo | None:
        """The best layer."""
        return self.best

    @property
    def done(self) -> int:
        """Number of transforms that were scored."""
        return int(self.transformed.shape[1]) - 1

    @property
    def lowest(self) -> float:
        """The lowest p-value that the transforms allow."""
        return 1 / (self.done + 1)

    def columns(self) -> dict[str, Any]:
        """Return the p-values over all layers."""
        return {"layer p": self.p_values}

    def listing(self) -> dict[str, list[str]]:
        """Return the p-values, with a star for significant layers."""
        rows = zip(self.p_values, self.significant, strict=True)
        return {"p layer": ["" if np.isnan(p) else f"{p:.2f}{'*' if s else ''}" for p, s in rows]}

    def caption(self, i: int) -> str:
        """Return whether layer `i` is the best or significant, with its p-value."""
        if np.isnan(self.p_values[i]):
            return ""
        p = f"p = {self.p_values[i]:.2f} over all tested layers"
        if self.best is self.layers[i]:
            return f"the best layer ({p})"
        return f"{'significant' if self.significant[i] else 'not significant'} ({p})"

    def summary(self) -> str:
        """Return the best layer, or that none is significant, and the number of transforms."""
        tested = int((~np.isnan(self.scores)).sum())
        early = ", stopped early" if self.done < self.transforms else ""
        of = (
            f"{tested} tested {'layer' if tested == 1 else 'layers'}, {self.done} transforms{early}, "
            f"lowest possible p = {self.lowest:.2g}"
        )
        if self.cancelled:
            return f"Layer test: cancelled ({of})."
        if self.best is None:
            return f"Layer test: no layer is significant ({of})."
        i = self.layers.index(self.best)
        count = int(self.significant.sum())
        return (
            f"Layer test: best {self.best.label} with ROAD {self.scores[i]:.2f}, p = "
            f"{self.p_values[i]:.2f}; {count} significant ({of})."
        )

    @property
    def higher_is_better(self) -> bool:
        """False, as low p-values are better."""
        return False

    def panel(self) -> Panel:
        """Return the panel of the p-values with the significance level."""
        mark = self.mark(self.best, self.p_values, "best")
        return Panel.over_layers(
            len(self.layers),
            lines=(Line("p over all layers", self.p_values, marker="o"),),
            levels=(Level("significant", LEVEL),),
            marks=() if mark is None else (mark,),
            y_label="p-value",
            tip="Share of shifted, turned and mirrored maps whose best layer scores as high.",
        )


def passes(
    result: Result,
    layers: TestedLayers = "blocks",
    transforms: Annotated[int, Range(19, 9999)] = 99,
) -> int:
    """Return the largest number of images that the test predicts."""
    return len(tested_indices(result, layers)) * (transforms + 1) * IMAGES_PER_MAP


@register_finding(LayerTest, passes=passes)
def check_layers(
    result: Result,
    layers: TestedLayers = "blocks",
    *,
    transforms: Annotated[int, Range(19, 9999)] = 99,
    seed: Seed = 0,
    progress: Progress = silent,
) -> LayerTest:
    """Test which layers explain the target better than their own maps elsewhere in the image.

    Every transform takes 8 images for each layer. The test stops early once no layer can become
    significant.

    Parameters
    ----------
    result : Result
        Maps of an image or a volume, computed by `animate`.
    layers : str, iterable or callable
        Layers to test, as for `camanim.animate`, of those with a map.
    transforms : int
        Number of random shifts, turns and reflections; 19 give at best p = 0.05, 99 give 0.01.
    seed : int
        Seed of the transforms, and of tie-breaks and noise of ROAD.
    progress : Progress
        Called after every batch. When it raises `Cancelled`, the p-values of the transforms scored so
        far are kept, if there are 19 or more.

    Returns
    -------
    LayerTest

    Raises
    ------
    ScoreError
        If no layer can be tested, or a setting is of the wrong type or out of range.
    """
    check_scorable(result)
    indices = tested_indices(result, layers)
    total = passes(result, layers, transforms)
    size = tuple(result.tensor.shape[2:])
    drawn = [Transform.identity(len(size)), *random_transforms(size, transforms, seed)]
    maps = [result.maps[i] for i in indices]
    run = partial(_scores_of_moved, maps, drawn, progress, total)
    tested, cancelled = with_scorer(result, ScoringSettings(seed), progress, run, total)
    transformed = np.full((len(result.layers), tested.shape[1]), np.nan)
    transformed[indices] = tested
    p_values = np.full(len(result.layers), np.nan)
    p_values[indices] = max_t_p_values(tested)
    return LayerTest(
        layers=result.layers,
        transformed=transformed,
        p_values=p_values,
        transforms=transforms,
        seed=seed,
        cancelled=cancelled,
    )


def _scores_of_moved(
    maps: list[FloatMap], drawn: list[Transform], progress: Progress, total: int, scorer: Scorer
) -> tuple[Floats, bool]:
    """Return the score of each map under each transform until the test is settled, (L, D + 1).

    Returns also whether the caller cancelled before.
    """
    rows: list[Floats] = []

    def report(stage: str = "", done: int = 0, of: int = 0) -> None:
        progress("layer test", min(scorer.forwards, total), total)

    try:
        while len(rows) < len(drawn) and not _is_settled(rows, len(drawn) - 1):
            batch = drawn[len(rows) : len(rows) + ROUND]
            moved = [transform(raw) for transform in batch for raw in maps]
            rows += list(scorer.scores(moved, report).reshape(len(batch), len(maps)))
    except Cancelled:
        if len(rows) < ROUND * 2:
            raise
        return np.array(rows).T, True
    with suppress(Cancelled):
        # At the end too, so that the caller sees it.
        progress("layer test", total, total)
    return np.array(rows).T, False


def max_t_p_values(scores: Floats) -> Floats:
    """Return the p-values of layers, corrected for their number.

    Parameters
    ----------
    scores : (L, D + 1) array
        Score of each layer under each transform, the identity first; NaN where undefined.

    Returns
    -------
    (L,) array
        ``#{d : max_m z[m, d] >= z[l, 0]} / (D + 1)`` with scores z standardised within each layer over
        the transforms, the identity included; NaN for layers without a score or with equal scores.
    """
    known = ~np.isnan(scores)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean = np.nansum(scores, axis=1, keepdims=True) / count
    deviation = np.sqrt(np.nansum((scores - mean) ** 2, axis=1, keepdims=True) / count)
    z = np.divide(scores - mean, deviation, out=np.full(scores.shape, np.nan), where=deviation > 0)
    highest = np.where(np.isnan(z), -np.inf, z).max(axis=0)
    p = (highest[None] >= z[:, :1]).mean(axis=1)
    p[np.isnan(z[:, 0])] = np.nan
    return np.asarray(p)


def _is_settled(rows: list[Floats], transforms: int) -> bool:
    """Return whether no layer can become significant with the transforms that are left."""
    if len(rows) < 2 * ROUND:
        return False
    at_or_above = max_t_p_values(np.array(rows).T) * len(rows)
    at_or_above = at_or_above[~np.isnan(at_or_above)]
    return not at_or_above.size or bool(at_or_above.min() > LEVEL * (transforms + 1) + 1e-9)
