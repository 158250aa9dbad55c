"""Classes and values: one, one against another, one against those that resemble it."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from camanim.errors import TargetError
from camanim.precision import as_float64
from camanim.targets.base import Kind, Of, Target, Unit
from camanim.targets.outputs import columns, no_scores, probabilities, read_scores

if TYPE_CHECKING:
    import torch

    from camanim.targets.context import Context


def number(index: Any) -> int:
    """Return the number of a class that was looked up already."""
    try:
        return operator.index(index)
    except TypeError as error:
        raise TargetError(
            f"Which number the class {index!r} has is known once the target was resolved: "
            "see camanim.targets.resolve."
        ) from error


def check_of(of: str, kind: str) -> None:
    """Refuse what cannot be explained."""
    if of not in ("logit", "probability"):
        raise TargetError(f'A target is of="logit" or of="probability", not {of!r}.')
    if of == "probability" and kind == "values":
        raise TargetError("Plain values have no probability: leave of= away.")


@dataclass(frozen=True)
class ClassTarget:
    """One class of a classifier, or one value of a regression.

    By default the logit is explained rather than the probability: a softmax near 1 has no gradient left
    to explain. Where there is a single logit l, class 1 has the score l and class 0 the score -l.

    Attributes
    ----------
    index : int
        A name does too, or None for the likeliest, until the target is resolved.
    name : str
    kind : {"auto", "softmax", "sigmoid", "values"}
        What the network's scores are.
    of : {"logit", "probability"}
        What is differentiated.
    """

    index: Any
    name: str = ""
    kind: Kind = "auto"
    of: Of = "logit"

    def __post_init__(self) -> None:
        check_of(self.of, self.kind)

    @property
    def unit(self) -> Unit:
        """What `value` is."""
        return "score" if self.kind == "values" else "probability"

    def score(self, output: Any) -> torch.Tensor:
        """Return the logit (or probability, or value), (B,), from (B, K)."""
        return self._column(columns(self._read(output), self.kind, self.of))

    def value(self, output: Any) -> torch.Tensor:
        """Return the probability (or value), (B,) float64."""
        return self._column(probabilities(self._read(output).detach(), self.kind))

    def _read(self, output: Any) -> torch.Tensor:
        scores = read_scores(output)
        if scores.ndim > 2:
            raise TargetError(no_scores(output))
        return scores

    def _column(self, table: torch.Tensor) -> torch.Tensor:
        index, count = number(self.index), table.shape[1]
        if not -count <= index < count:
            raise TargetError(f"The network has the classes 0 to {count - 1}, there is no {index}.")
        return table[:, index]

    def describe(self) -> dict[str, Any]:
        """Return plain data for records."""
        about = {"index": self.index, "name": self.name}
        return {"kind": "class", **about, "outputs": self.kind, "of": self.of}

    def bound(self, context: Context) -> Target:
        """Return this target with its number, its name and what the scores are.

        For networks with a score per pixel, and for those that detect, it becomes a target of theirs.
        """
        if context.detections is not None:
            from camanim.targets.detection import Detection

            return Detection(self.index, name=self.name).bound(context)
        if context.over_space:
            from camanim.targets.segmentation import Segmentation

            own = Segmentation(self.index, name=self.name, kind=self.kind, of=self.of)
            return own.bound(context)
        context = context.of_kind(self.kind)
        index = context.likeliest() if self.index is None else context.index(self.index)
        name = self.name or context.name(index)
        return replace(self, index=index, name=name, kind=context.kind)


@dataclass(frozen=True)
class Contrast:
    """What speaks for A rather than for B: score of A minus alpha times score of B.

    Attributes
    ----------
    first, second : Target
        Numbers and names of classes do too, until the target is resolved.
    alpha : float
    """

    first: Any
    second: Any
    alpha: float = 1.0

    index = None
    unit: Unit = "score"

    @property
    def name(self) -> str:
        """Both names."""
        factor = "" if self.alpha == 1 else f"{self.alpha:g} "
        names = [getattr(side, "name", side) for side in (self.first, self.second)]
        return f"{names[0]} - {factor}{names[1]}"

    def score(self, output: Any) -> torch.Tensor:
        """Return the difference of the scores, (B,)."""
        first, second = as_target(self.first), as_target(self.second)
        return first.score(output) - self.alpha * second.score(output)

    def value(self, output: Any) -> torch.Tensor:
        """Return the difference of the scores, (B,) float64."""
        return as_float64(self.score(output).detach())

    def describe(self) -> dict[str, Any]:
        """Return plain data for records."""
        first, second = as_target(self.first).describe(), as_target(self.second).describe()
        sides = {"first": first, "second": second, "alpha": self.alpha}
        return {"kind": "contrast", "name": self.name, **sides}

    def bound(self, context: Context) -> Contrast:
        """Return this target with both sides resolved; over space, both where A is looked at."""
        if context.detections is not None:
            raise TargetError("Detections have no contrast: pass target=a function of the output.")
        first, second = context.resolve(self.first), context.resolve(self.second)
        if context.over_space:
            from camanim.targets.segmentation import in_the_same_place

            second = in_the_same_place(second, first)
        return replace(self, first=first, second=second)


def as_target(side: Any) -> Target:
    """Take a bare number for a class."""
    target: Target = side if hasattr(side, "score") else ClassTarget(number(side), f"class {side}")
    return target


@dataclass(frozen=True)
class FinerTarget:
    """A class against those that resemble it, as in Finer-CAM (https://arxiv.org/abs/2501.11309).

    The score is z_c - alpha * mean of z_d over the n classes d whose logits are nearest to z_c. The mean
    is weighted by the probabilities of the d, as in grad-cam, or plain, as in the paper.

    Attributes
    ----------
    main : ClassTarget
        A number or name does too, until the target is resolved; None is the likeliest class.
    alpha : float
    nearest : int
        How many classes; fewer where the network has fewer.
    weighted : bool
    others : tuple of int
        The classes to compare with; found where not given.
    """

    main: Any = None
    alpha: float = 1.0
    nearest: int = 3
    weighted: bool = True
    others: tuple[int, ...] = ()

    unit: Unit = "probability"

    def __post_init__(self) -> None:
        if self.nearest < 1:
            raise TargetError(f"There must be a class to compare with: nearest={self.nearest}.")

    @property
    def index(self) -> int | None:
        """Number of the class."""
        return as_target(self.main).index

    @property
    def name(self) -> str:
        """The class's name."""
        return as_target(self.main).name

    def score(self, output: Any) -> torch.Tensor:
        """Return the difference, (B,), from (B, K)."""
        if not self.others:
            raise TargetError("Which classes are nearest is known once the target was resolved.")
        main = as_target(self.main)
        logits = columns(read_scores(output), "auto")[:, list(self.others)]
        # Softmax over the others alone is their probabilities' ratio, and cannot be 0 / 0.
        other = (logits.softmax(1) * logits).sum(1) if self.weighted else logits.mean(1)
        return main.score(output) - self.alpha * other

    def value(self, output: Any) -> torch.Tensor:
        """Return the class's probability, (B,) float64."""
        return as_target(self.main).value(output)

    def describe(self) -> dict[str, Any]:
        """Return plain data for records."""
        settings = {"alpha": self.alpha, "others": list(self.others), "weighted": self.weighted}
        return {**as_target(self.main).describe(), "kind": "finer", **settings}

    def bound(self, context: Context) -> FinerTarget:
        """Return this target with the class and its nearest ones, by their mean logits."""
        main = context.resolve(self.main)
        if not isinstance(main, ClassTarget) or main.kind == "values" or main.of != "logit":
            raise TargetError(
                f"Only a class, by its logit, can be set against its nearest classes, "
                f"{main.name!r} is none: use another method or target."
            )
        logits = as_float64(columns(context.scores, context.kind)).mean(0)
        if self.others:
            others = tuple(context.index(other) for other in self.others)
        else:
            away = (logits - logits[main.index]).abs()
            order = [int(i) for i in away.argsort(stable=True) if int(i) != main.index]
            others = tuple(order[: self.nearest])
        return replace(self, main=main, others=others)
