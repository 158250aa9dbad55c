"""The effect of edits on the network's output, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from camanim.precision import as_float64
from camanim.targets import likeliest
from camanim.targets.outputs import detections, find_scores
from camanim.words import short_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from camanim.targets import Kind, Target
    from camanim.targets.base import Unit

#: What `ClassEffect.before` and `after` are.
Measure = Literal["probability", "fraction of pixels", "highest detection", "value"]


@dataclass(frozen=True)
class ClassEffect:
    """A class before and after the edits.

    Attributes
    ----------
    index : int
    name : str
    before, after : float
        See `Effect.measure`.
    """

    index: int
    name: str
    before: float
    after: float


@dataclass(frozen=True, repr=False)
class Effect:
    """The network's output before and after the edits.

    Attributes
    ----------
    target : str
        Name of the explained target.
    unit : {"probability", "score"}
        Unit of `before` and `after`.
    before, after : float
        The target's value, as `Result.probability`.
    score_before, score_after : float
        The target's score, such as the logit of a class, which does not saturate.
    classes : tuple of ClassEffect
        The likeliest classes before or after, and that of the target, in descending order after the
        edits; empty if the network has no class scores. Of a regression, its first values in order.
    measure : {"probability", "fraction of pixels", "highest detection", "value"}
        What the values of `classes` are: of a segmentation, the fraction of pixels on which each class
        is predicted; of a detection, the highest score of each class, 0 if it is not detected.
    """

    target: str
    unit: Unit
    before: float
    after: float
    score_before: float
    score_after: float
    classes: tuple[ClassEffect, ...]
    measure: Measure

    @property
    def likeliest_before(self) -> ClassEffect | None:
        """The first class before the edits; None without classes, or of a regression."""
        if not self.classes or self.measure == "value":
            return None
        return max(self.classes, key=lambda each: each.before)

    @property
    def likeliest(self) -> ClassEffect | None:
        """The first class after the edits; None without classes, or of a regression."""
        return self.classes[0] if self.classes and self.measure != "value" else None

    def summary(self) -> str:
        """Return the change of the target, and the class that is the likeliest now."""
        text = f"{self.target} {_change(self.before, self.after)}"
        if short_value(self.before) == short_value(self.after) and self.unit == "probability":
            text += f" (output {self.score_before:+.2f} -> {self.score_after:+.2f})"
        now, then = self.likeliest, self.likeliest_before
        if now is None or then is None:
            return f"{text}."
        word = {"probability": "likeliest", "fraction of pixels": "largest"}.get(
            self.measure, "highest"
        )
        if now.index == then.index:
            return f"{text}; still {word}: {now.name} {short_value(now.after)}."
        return f"{text}; now {word}: {now.name} {short_value(now.after)}."

    def __repr__(self) -> str:
        return f"<Effect: {self.summary().rstrip('.')}>"

    __str__ = summary


def _change(before: float, after: float) -> str:
    return f"{short_value(before)} -> {short_value(after)}"


@dataclass(frozen=True)
class Predicted:
    """What is read from one output of the network.

    Attributes
    ----------
    value, score : float
        Of the target; means over the slices of a volume.
    ranking : list of (index, name, value)
        All classes, as of `camanim.targets.likeliest`.
    measure : str
        See `Effect`.
    """

    value: float
    score: float
    ranking: list[tuple[int, str, float]]
    measure: Measure


def read_output(
    output: Any, target: Target, classes: Sequence[str] | None, kind: Kind
) -> Predicted:
    """Read the target and the classes from an output, within `Forward.evaluating`."""
    from camanim.model_state import run_callback

    value, score = (
        float(as_float64(run_callback(function, output)).mean())
        for function in (target.value, target.score)
    )
    scores = find_scores(output)
    measure: Measure = "probability"
    if detections(output) is not None:
        measure = "highest detection"
    elif kind == "values":
        measure = "value"
    elif scores is not None and scores.ndim > 2:
        measure = "fraction of pixels"
    has_classes = scores is not None or measure == "highest detection"
    count = 2 if scores is None else max(2, scores.shape[1])
    if measure == "highest detection":
        count = sum(len(item["labels"]) for item in detections(output) or [])
    ranking = likeliest(output, classes, kind, count) if has_classes else []
    return Predicted(value, score, ranking, measure)


def effect_of(target: Target, before: Predicted, after: Predicted, top: int) -> Effect:
    """Return the effect as the difference of two outputs.

    Parameters
    ----------
    target : Target
    before, after : Predicted
    top : int
        Number of classes that are listed, of each output.
    """
    names = {index: name for index, name, _ in (*before.ranking, *after.ranking)}
    values_before, values_after = (
        {index: value for index, _, value in predicted.ranking} for predicted in (before, after)
    )
    ranked = [index for index, _, _ in after.ranking]
    ranked += [index for index in values_before if index not in values_after]
    listed = {index for p in (before, after) for index, _, _ in p.ranking[:top]}
    if target.index is not None:
        listed.add(target.index)
    shown = [index for index in ranked if index in listed]
    one = partial(_class_effect, names, values_before, values_after)
    return Effect(
        target=target.name,
        unit=target.unit,
        before=before.value,
        after=after.value,
        score_before=before.score,
        score_after=after.score,
        classes=tuple(map(one, shown)),
        measure=after.measure,
    )


def _class_effect(
    names: dict[int, str], before: dict[int, float], after: dict[int, float], index: int
) -> ClassEffect:
    return ClassEffect(index, names[index], before.get(index, 0.0), after.get(index, 0.0))
