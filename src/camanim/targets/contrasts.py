"""Contrasts: one class against another, or against those that resemble it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from camanim.errors import TargetError
from camanim.precision import as_float64
from camanim.targets.base import Unit
from camanim.targets.classes import ClassTarget, as_target
from camanim.targets.outputs import columns, read_scores
from camanim.targets.segmentation import in_the_same_place

if TYPE_CHECKING:
    import torch

    from camanim.targets.context import Context


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
            second = in_the_same_place(second, first)
        return replace(self, first=first, second=second)


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
