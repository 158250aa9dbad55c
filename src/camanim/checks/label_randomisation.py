"""Label randomisation: similarity of the maps to those of other classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from camanim.checks.map_similarity import positive_part, spearman
from camanim.checks.recomputed import check_has_maps, positive_maps, recompute_shown
from camanim.checks.verdict import Check, Correlation, is_below, median_of
from camanim.declarations import Positive, Seed
from camanim.errors import ScoreError
from camanim.findings import register_finding
from camanim.plots import Level, Line, Panel
from camanim.progress import Progress, silent
from camanim.targets import (
    ClassTarget,
    Counterfactual,
    FinerTarget,
    Segmentation,
    Target,
    resolve,
)
from camanim.targets.context import Context
from camanim.targets.segmentation import with_region_of

if TYPE_CHECKING:
    from camanim.result import Result

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelRandomisation(Check):
    """Similarity of each layer's map to the maps of other classes, drawn at random.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    classes : tuple of D str
        Names of the other classes.
    spearman : (D, L) array
        Rank correlation of the map's positive part with that of the other class, at the layer's
        resolution. NaN where either is constant, or the run was cancelled before.
    threshold : float
        Lowest median rank correlation with which the check fails.
    method : str
        Name of the method.
    class_specific : bool
        Whether maps of the method depend on the class at all.
    """

    kind = "label_randomisation"
    title = "Label randomisation"
    order = 40
    derived: ClassVar[tuple[str, ...]] = ("median", "passed", "verdict")

    classes: tuple[str, ...]
    spearman: Floats
    threshold: float
    method: str = "The method"
    class_specific: bool = True

    @cached_property
    def medians(self) -> Floats:
        """Median over the other classes, (L,); NaN where all are undefined."""
        return np.array([median_of(column) for column in self.spearman.T], np.float64)

    @cached_property
    def median(self) -> float:
        """Median over layers and classes; NaN if all are undefined."""
        return median_of(self.spearman)

    @cached_property
    def passed(self) -> bool | None:
        """Whether maps differ between classes; None if the median is undefined."""
        return is_below(self.median, self.threshold)

    @property
    def verdict(self) -> str:
        """Result of the check in one sentence."""
        count = len(self.classes)
        others = f"{count} other classes" if count > 1 else f"the class {self.classes[0]}"
        if self.passed is None:
            return f"The label check of {self.method} is undefined: no maps could be compared."
        median = f"the median rank correlation with maps of {others} is {self.median:.2f}"
        if self.passed:
            return f"{self.method} is class-specific: {median}."
        if not self.class_specific:
            return f"{self.method} FAILS the label check, because it ignores the class: {median}."
        return f"{self.method} FAILS the label check: {median}, so its maps depend little on the class."

    def columns(self) -> dict[str, Floats]:
        """Return the median rank correlation with the maps of the other classes."""
        return {"other labels Spearman": self.medians}

    def listing(self) -> dict[str, list[str]]:
        """Return no columns, because the result applies to the method rather than to layers."""
        return {}

    @property
    def higher_is_better(self) -> bool:
        """False, as low similarities to the maps of other classes are better."""
        return False

    def panel(self) -> Panel:
        """Return the panel of the median rank correlation over the layers, with the threshold."""
        return Panel.over_layers(
            len(self.layers),
            lines=(Line("median over other classes", self.medians),),
            levels=(Level("passes below", self.threshold),),
            y_label="Spearman with the maps\nof other classes",
            tip="Similarity of each layer's map to its maps for other classes.",
        )


@register_finding(LabelRandomisation)
def check_labels(
    result: Result,
    *,
    draws: Positive = 5,
    seed: Seed = 0,
    threshold: Correlation = 0.9,
    progress: Progress = silent,
) -> LabelRandomisation:
    """Compare the maps with those of the same method for other classes.

    All classes share one forward pass. A map that is the same for all classes highlights salient parts
    of the image, but not evidence for this class. For a single logit the other class is its negative.

    Parameters
    ----------
    result : Result
        Maps of a class, for an image or a whole volume.
    draws : int
        Number of other classes, drawn at random without replacement; at most all.
    seed : int
        Seed of the draws.
    threshold : float
        Lowest median rank correlation with which the check fails.
    progress : Progress
        When it raises `Cancelled`, the classes computed so far are kept; if there are none, `Cancelled`
        is raised.

    Returns
    -------
    LabelRandomisation

    Raises
    ------
    ScoreError
        If there are no maps, the target is not a class, the network has no other class, or the maps are
        a plane of a volume.
    """
    check_has_maps(result)
    _check_target(result.target)
    others = recompute_shown(
        result,
        targets=partial(_other_targets, result, draws, seed),
        progress=lambda stage, done, total: progress("labels", done, total),
    )
    originals = [positive_part(raw) for raw in result.maps]
    rows = [
        [spearman(*pair) for pair in zip(originals, positive_maps(result, other), strict=True)]
        for other in others
    ]
    return LabelRandomisation(
        layers=result.layers,
        classes=tuple(other.target.name for other in others),
        spearman=np.array(rows, np.float64),
        threshold=threshold,
        method=result.method,
        class_specific=result.computed_with is None or result.computed_with[0].class_specific,
    )


def _check_target(target: Any) -> None:
    if isinstance(target, Counterfactual):
        _check_target(target.target)
    elif isinstance(target, FinerTarget):
        _check_target(target.main)
    elif not isinstance(target, ClassTarget | Segmentation):
        raise ScoreError(
            f"The check requires the score of a single class as target, not {target.name}."
        )


def _other_targets(result: Result, draws: int, seed: int, output: Any) -> list[Target]:
    """Return the targets of other classes, drawn at random."""
    model, target = result.model, result.target
    resolve_request = partial(resolve, output=output, classes=model.classes, kind=model.outputs)
    context = Context(output, model.classes, model.outputs, resolve_request)
    kind = target.describe().get("outputs")
    count = (context.with_kind(kind) if kind else context).count or 0
    others = [k for k in range(count) if k != target.index]
    if not others:
        raise ScoreError("The check requires a network with at least two classes.")
    drawn = np.random.default_rng(seed).permutation(others)[:draws]
    return [resolve_request(_with_class(target, int(k))) for k in drawn]


def _with_class(target: Any, index: int) -> Any:
    """Return the target of another class; segmentations keep their region."""
    if isinstance(target, Counterfactual):
        return Counterfactual(_with_class(target.target, index))
    if isinstance(target, FinerTarget):
        return replace(target, main=_with_class(target.main, index), others=())
    other = replace(target, index=index, name="")
    return with_region_of(other, target) if isinstance(target, Segmentation) else other
