"""Test whether the maps of layers explain more than the activations they are made of."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt

from camanim.checks.recomputed import recompute_shown
from camanim.checks.sequential import SequentialTest
from camanim.checks.tested_layers import IMAGES_PER_MAP, LEVEL, TestedLayers, tested_indices
from camanim.declarations import Range, Seed
from camanim.errors import Cancelled, LayerError
from camanim.findings import Finding, register_finding
from camanim.plots import Line, Panel
from camanim.progress import Progress, silent
from camanim.road.scores import check_scorable, with_scorer
from camanim.road.settings import ScoringSettings

if TYPE_CHECKING:
    from camanim.result import Result
    from camanim.road.scores import Scorer
    from camanim.stack import FloatMap

Floats = npt.NDArray[np.float64]

#: Added to the seed of the draws, so that none repeats the map of a result by RandomCAM. Below 2**32, as
#: torch's generator on the CPU ignores higher bits.
FIRST_SEED = 1_000_000_007


@dataclass(frozen=True)
class ActivationTest(Finding):
    """Whether the maps of layers have higher ROAD scores than maps without the network's weighting.

    The activation of a layer often lies on the object already, whatever its weights. A layer is *above
    activation* if its score is above those of RandomCAM, which weights the same activation at random,
    with ``p <= 0.05``, and above that of SobelCAM, which shows the edges of the image.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    scores : (L,) array
        ROAD scores with the seed of the test; NaN for layers that are not tested.
    random_mean : (L,) array
        Mean ROAD score of RandomCAM over the draws of a layer.
    sobel : (L,) array
        ROAD score of SobelCAM.
    p_values : (L,) array
        Sequential Monte Carlo p-values, see `camanim.checks.sequential`; NaN if not tested, or not
        settled before a cancel.
    drawn : (L,) int array
        Number of draws of RandomCAM.
    draws : int
        Maximum number of draws; the lowest possible p-value is 1 / (draws + 1).
    seed : int
    """

    kind = "activation_test"
    title = "Activation test"
    order = 4
    derived: ClassVar[tuple[str, ...]] = ("above_activation",)

    scores: Floats
    random_mean: Floats
    sobel: Floats
    p_values: Floats
    drawn: npt.NDArray[np.int_]
    draws: int
    seed: int

    @cached_property
    def above_activation(self) -> npt.NDArray[np.bool_]:
        """Whether a layer is above activation, (L,); False where it is not settled."""
        with np.errstate(invalid="ignore"):
            # An undefined score of SobelCAM, of an image without edges, is no obstacle.
            above: npt.NDArray[np.bool_] = (self.p_values <= LEVEL) & ~(self.scores <= self.sobel)
        return above

    def columns(self) -> dict[str, Any]:
        """Return the differences from RandomCAM and SobelCAM, the p-value, and above activation."""
        known = ~np.isnan(self.p_values)
        above = [bool(a) if k else None for a, k in zip(self.above_activation, known, strict=True)]
        return {
            "ROAD - RandomCAM": self.scores - self.random_mean,
            "ROAD - SobelCAM": self.scores - self.sobel,
            "activation p": self.p_values,
            "above activation": above,
        }

    def listing(self) -> dict[str, list[str]]:
        """Return the p-values, with a star for layers above activation."""
        rows = zip(self.p_values, self.above_activation, strict=True)
        return {
            "p activation": [
                "" if np.isnan(p) else f"{p:.2f}{'*' if above else ''}" for p, above in rows
            ]
        }

    def caption(self, i: int) -> str:
        """Return whether layer `i` is above activation, with its p-value."""
        if np.isnan(self.p_values[i]):
            return ""
        words = "above activation" if self.above_activation[i] else "not above activation"
        return f"{words} (p = {self.p_values[i]:.2f})"

    def summary(self) -> str:
        """Return how many of the tested layers are above activation."""
        settled = int((~np.isnan(self.p_values)).sum())
        tested = int((~np.isnan(self.scores)).sum())
        text = f"{int(self.above_activation.sum())} of {settled} tested layers are above activation"
        if settled < tested:
            text += f" ({tested - settled} not settled)"
        return (
            f"{text}: ROAD above {self.draws} draws of RandomCAM (p <= {LEVEL}) and above SobelCAM."
        )

    def panel(self) -> Panel:
        """Return the panel of the scores of the maps, of RandomCAM and of SobelCAM."""
        lines = [
            Line("RandomCAM", self.random_mean, "reference", "dashed", faint=True),
            Line("SobelCAM", self.sobel, "third", "dotted"),
            Line("ROAD", self.scores),
        ]
        if self.above_activation.any():
            above = np.where(self.above_activation, self.scores, np.nan)
            lines.append(Line("above activation", above, "second", "dotted", marker="o"))
        return Panel.over_layers(
            len(self.layers),
            lines=tuple(lines),
            y_label="ROAD",
            tip="ROAD scores of the maps, of RandomCAM and of SobelCAM.",
        )


def passes(
    result: Result,
    layers: TestedLayers = "blocks",
    draws: Annotated[int, Range(19, 999)] = 19,
) -> int:
    """Return the largest number of images that the test predicts."""
    return len(tested_indices(result, layers)) * (draws + 2) * IMAGES_PER_MAP


@register_finding(ActivationTest, passes=passes)
def check_activation(
    result: Result,
    layers: TestedLayers = "blocks",
    *,
    draws: Annotated[int, Range(19, 999)] = 19,
    seed: Seed = 0,
    progress: Progress = silent,
) -> ActivationTest:
    """Test whether maps explain more than randomly weighted activations and edges.

    RandomCAM's map of the same layer is drawn and scored with ROAD until three draws are at or above the
    layer's score, or `draws` times (Besag & Clifford 1991). Each draw takes a pass of the network and 8
    images for each layer that is still open.

    Parameters
    ----------
    result : Result
        Maps of an image or a volume, computed by `animate`.
    layers : str, iterable or callable
        Layers to test, as for `camanim.animate`, of those with a map.
    draws : int
        Largest number of draws of RandomCAM for a layer.
    seed : int
        Seed of tie-breaks and noise of ROAD, the same for all maps, and of the random weights.
    progress : Progress
        Called after every batch. When it raises `Cancelled`, the layers settled so far are kept.

    Returns
    -------
    ActivationTest

    Raises
    ------
    ScoreError
        If no layer can be tested, or a setting is of the wrong type or out of range.
    """
    check_scorable(result)
    indices = tested_indices(result, layers)
    total = passes(result, layers, draws)
    run = partial(_compare, result, indices, draws, seed, progress, total)
    return with_scorer(result, ScoringSettings(seed), progress, run, total)


def _compare(
    result: Result,
    indices: npt.NDArray[np.intp],
    draws: int,
    seed: int,
    progress: Progress,
    total: int,
    scorer: Scorer,
) -> ActivationTest:
    """Score the layers, SobelCAM, and draws of RandomCAM for the layers that need them."""
    count = len(result.layers)
    scores, sobel, sums = np.full(count, np.nan), np.full(count, np.nan), np.zeros(count)

    def report(stage: str = "", done: int = 0, of: int = 0) -> None:
        # Called within the scoring of a draw too, so that the caller can cancel there.
        progress("activation test", min(scorer.forwards, total), total)

    report()
    scores[indices] = scorer.scores([result.maps[i] for i in indices], report)
    test = SequentialTest(scores, draws)
    with suppress(Cancelled):
        sobel[indices] = _scores_by(result, scorer, "SobelCAM", seed, indices, report)
        while (open_layers := test.open).size:
            draw = int(test.drawn.max())
            drawn_seed = (seed + FIRST_SEED + draw) % 2**63
            values = _scores_by(result, scorer, "RandomCAM", drawn_seed, open_layers, report)
            sums[open_layers] += np.nan_to_num(values)
            test.add(open_layers, values)
        # At the end too, so that the caller sees it.
        progress("activation test", total, total)
    return ActivationTest(
        layers=result.layers,
        scores=scores,
        random_mean=np.divide(sums, test.drawn, out=np.full(count, np.nan), where=test.drawn > 0),
        sobel=sobel,
        p_values=test.p_values,
        drawn=test.drawn,
        draws=draws,
        seed=seed,
    )


def _scores_by(
    result: Result,
    scorer: Scorer,
    method: str,
    seed: int,
    indices: npt.NDArray[np.intp],
    progress: Progress,
) -> Floats:
    """Return the scores of another method's maps of some layers; NaN where it has none."""
    try:
        (other,) = recompute_shown(result, method=method, seed=seed, progress=progress)
    except LayerError:
        return np.full(len(indices), np.nan)
    if other.cancelled:
        raise Cancelled("The test was cancelled.")
    maps: dict[tuple[str, int], FloatMap] = {
        (layer.name, layer.call): raw for layer, raw in zip(other.layers, other.maps, strict=True)
    }
    found = [maps.get((result.layers[i].name, result.layers[i].call)) for i in indices]
    values = np.full(len(indices), np.nan)
    known = [i for i, raw in enumerate(found) if raw is not None]
    values[known] = scorer.scores([raw for raw in found if raw is not None], progress)
    return values
