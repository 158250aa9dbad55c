"""Differences between the score of a class and those of other classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from camanim.errors import TargetError
from camanim.precision import as_float64
from camanim.targets.base import Kind, Unit
from camanim.targets.classes import ClassTarget, as_target
from camanim.targets.outputs import columns, read_scores
from camanim.targets.segmentation import with_region_of

if TYPE_CHECKING:
    import torch

    from camanim.targets.context import Context


@dataclass(frozen=True)
class Contrast:
    """Difference of two targets: score of the first minus alpha times score of the second.

    Attributes
    ----------
    first, second : Target
        Class indices or names before the target is resolved.
    alpha : float
    """

    first: Any
    second: Any
    alpha: float = 1.0

    index = None
    unit: Unit = "score"

    @property
    def name(self) -> str:
        """Names of both targets."""
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
        """Return the target as plain data for metadata."""
        first, second = as_target(self.first).describe(), as_target(self.second).describe()
        sides = {"first": first, "second": second, "alpha": self.alpha}
        return {"kind": "contrast", "name": self.name, **sides}

    def bind(self, context: Context) -> Contrast:
        """Return this contrast with resolved targets; segmentations share the region of the first."""
        if context.detections is not None:
            raise TargetError(
                "Contrasts of detections are not defined: pass target=a function of the output."
            )
        first, second = context.resolve(self.first), context.resolve(self.second)
        if context.per_pixel:
            second = with_region_of(second, first)
        return replace(self, first=first, second=second)


@dataclass(frozen=True)
class FinerTarget:
    """Contrast of a class with similar classes, as in Finer-CAM (https://arxiv.org/abs/2501.11309).

    The score is z_c - alpha * mean of z_d over the n classes d whose logits are nearest to z_c. The mean
    is weighted by the probabilities of the d, as in grad-cam, or unweighted, as in the paper.

    Attributes
    ----------
    main : ClassTarget
        A class index or name, or None for the most probable class, before the target is resolved.
    alpha : float
    nearest : int
        Number of classes to compare with, at most all others.
    weighted : bool
        Weight the mean by probability.
    others : tuple of int
        Classes to compare with; by default the nearest, chosen when the target is resolved.
    """

    main: Any = None
    alpha: float = 1.0
    nearest: int = 3
    weighted: bool = True
    others: tuple[int, ...] = ()

    unit: Unit = "probability"

    def __post_init__(self) -> None:
        if self.nearest < 1:
            raise TargetError(f"nearest= must be at least 1, not {self.nearest}.")

    @property
    def index(self) -> int | None:
        """Index of the class."""
        return as_target(self.main).index

    @property
    def name(self) -> str:
        """Name of the class."""
        return as_target(self.main).name

    def score(self, output: Any) -> torch.Tensor:
        """Return the difference, (B,), from (B, K)."""
        if not self.others:
            raise TargetError(
                "The nearest classes are not known yet: resolve the target first, "
                "see camanim.targets.resolve."
            )
        main = as_target(self.main)
        kind: Kind = getattr(main, "kind", "auto")
        logits = columns(read_scores(output), kind)[:, list(self.others)]
        # Softmax over the other classes alone is the ratio of their probabilities, without 0 / 0.
        other = (logits.softmax(1) * logits).sum(1) if self.weighted else logits.mean(1)
        return main.score(output) - self.alpha * other

    def value(self, output: Any) -> torch.Tensor:
        """Return the probability of the class, (B,) float64."""
        return as_target(self.main).value(output)

    def describe(self) -> dict[str, Any]:
        """Return the target as plain data for metadata."""
        settings = {"alpha": self.alpha, "others": list(self.others), "weighted": self.weighted}
        return {**as_target(self.main).describe(), "kind": "finer", **settings}

    def bind(self, context: Context) -> FinerTarget:
        """Return this target with its resolved class and the nearest classes by mean logit."""
        main = context.resolve(self.main)
        if not isinstance(main, ClassTarget) or main.kind == "values" or main.of != "logit":
            raise TargetError(
                f"Only the logit of a class can be compared with its nearest classes, "
                f"not {main.name!r}: use another method or target."
            )
        context = context.with_kind(main.kind)
        logits = as_float64(columns(context.scores, context.kind)).mean(0)
        if self.others:
            others = tuple(context.index(other) for other in self.others)
        else:
            distances = (logits - logits[main.index]).abs()
            order = [int(i) for i in distances.argsort(stable=True) if int(i) != main.index]
            others = tuple(order[: self.nearest])
        return replace(self, main=main, others=others)
