"""Whether maps depend on the class: the same method for other classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from camanim.checks.map_similarity import positive_part, spearman
from camanim.checks.verdict import Check, Correlation, is_below, median_of
from camanim.declarations import Positive, Seed, checked
from camanim.errors import ScoreError
from camanim.findings import register_finding
from camanim.pipeline import recompute
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
    """Similarity of each layer's map to those of other classes, drawn at random.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    classes : tuple of D str
        The other classes.
    spearman : (D, L) array
        Rank correlation of the map's positive part with that of the other class, at the layer's
        resolution; NaN where either is constant, or the run was cancelled before.
    threshold : float
        The median rank correlation from which on the check is failed.
    method : str
        For the verdict.
    class_specific : bool
        Whether the method knows of classes at all.
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
        """(L,) median over the other classes; NaN where nothing could be compared."""
        return np.array([median_of(column) for column in self.spearman.T], np.float64)

    @cached_property
    def median(self) -> float:
        """Median over layers and classes; NaN where nothing could be compared."""
        return median_of(self.spearman)

    @cached_property
    def passed(self) -> bool | None:
        """Whether other classes give other maps; None where nothing could be compared."""
        return is_below(self.median, self.threshold)

    @property
    def verdict(self) -> str:
        """What that says of the method, in one sentence."""
        count = len(self.classes)
        others = f"{count} other classes" if count > 1 else f"the class {self.classes[0]}"
        if self.passed is None:
            return f"The label check of {self.method} says nothing: no map could be compared."
        how = f"median rank correlation with the maps of {others} is {self.median:.2f}"
        if self.passed:
            return f"{self.method} tells classes apart: the {how}."
        if not self.class_specific:
            return f"{self.method} FAILS the label check, as it knows no class: the {how}."
        return f"{self.method} FAILS the label check: the {how}, so its maps say little about the class."

    def columns(self) -> dict[str, Floats]:
        """Return the median rank correlation with the maps of the other classes."""
        return {"other labels Spearman": self.medians}

    def listing(self) -> dict[str, list[str]]:
        """Return nothing: what the check says is of the method, not of a layer."""
        return {}

    def panel(self) -> Panel:
        """Return the median rank correlation over the layers, and the limit."""
        return Panel.over_layers(
            len(self.layers),
            lines=(Line("median over other classes", self.medians),),
            levels=(Level("passes below", self.threshold),),
            y_label="Spearman with the maps\nof other classes",
            tip="How much of every layer's map is the same for other classes.",
        )


@register_finding(LabelRandomisation)
@checked(ScoreError)
def check_labels(
    result: Result,
    *,
    draws: Positive = 5,
    seed: Seed = 0,
    threshold: Correlation = 0.9,
    progress: Progress = silent,
) -> LabelRandomisation:
    """Explain other classes with the same method, and compare their maps with the original ones.

    All classes share one forward pass. A map that is the same for any label says what the network looks
    at, not why it chose this class. Where a single logit stands for two classes, the other is explained.

    Parameters
    ----------
    result : Result
        About a class, of an image or of a whole volume.
    draws : int
        How many other classes, drawn at random without putting back; fewer where there are fewer.
    seed : int
        Of the draws.
    threshold : float
        The median rank correlation from which on the check is failed.
    progress : Progress
        When it raises `Cancelled`, the classes done so far are kept; where there is none, `Cancelled` is
        raised.

    Returns
    -------
    LabelRandomisation

    Raises
    ------
    ScoreError
        When there is nothing to compare, the target is no class, the network has no other one, or the
        maps are a plane of a volume's.
    """
    if not result.maps:
        raise ScoreError("There is no map to check: no selected layer has one.")
    _check_target(result.target)
    shown = [(layer.name, layer.call) for layer in result.layers]
    made = recompute(
        result,
        targets=partial(_others, result, draws, seed),
        layers=lambda info: (info.name, info.call) in shown,
        progress=lambda stage, done, total: progress("labels", done, total),
    )
    rows = []
    for one in made:
        found = {(a.name, a.call): m for a, m in zip(one.layers, one.maps, strict=True)}
        rows.append(
            [
                spearman(positive_part(own), positive_part(found[call]))
                if call in found
                else np.nan
                for call, own in zip(shown, result.maps, strict=True)
            ]
        )
    return LabelRandomisation(
        layers=result.layers,
        classes=tuple(one.target.name for one in made),
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
            f"{target.name} is not the score of one class, so no other label can take its place: "
            "explain a class."
        )


def _others(result: Result, draws: int, seed: int, output: Any) -> list[Target]:
    """Draw classes other than the one that was explained."""
    model, own = result.model, result.target
    resolved = partial(resolve, output=output, classes=model.classes, kind=model.outputs)
    context = Context(output, model.classes, model.outputs, resolved)
    kind = own.describe().get("outputs")
    count = (context.with_kind(kind) if kind else context).count or 0
    others = [k for k in range(count) if k != own.index]
    if not others:
        raise ScoreError(
            "The network has no other class to compare with: this check is for networks with two "
            "classes or more."
        )
    chosen = np.random.default_rng(seed).permutation(others)[:draws]
    return [resolved(_of_class(own, int(k))) for k in chosen]


def _of_class(target: Any, index: int) -> Any:
    """Ask the same about another class; a segmentation, in the same place."""
    if isinstance(target, Counterfactual):
        return Counterfactual(_of_class(target.target, index))
    if isinstance(target, FinerTarget):
        return replace(target, main=_of_class(target.main, index), others=())
    other = replace(target, index=index, name="")
    return with_region_of(other, target) if isinstance(target, Segmentation) else other
