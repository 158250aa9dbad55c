"""One class of a classifier, or one value of a regression."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from camanim.errors import TargetError
from camanim.targets.base import Kind, Of, Target, Unit
from camanim.targets.outputs import columns, no_scores_message, probabilities, read_scores

if TYPE_CHECKING:
    import torch

    from camanim.targets.context import Context


def number(index: Any) -> int:
    """Return a class index as int; raise `TargetError` for a name that has not been resolved."""
    try:
        return operator.index(index)
    except TypeError as error:
        raise TargetError(
            f"The class {index!r} has no index yet: resolve the target first, "
            "see camanim.targets.resolve."
        ) from error


def check_of(of: str, kind: str) -> None:
    """Raise `TargetError` if `of` is invalid, or undefined for scores of this kind."""
    if of not in ("logit", "probability"):
        raise TargetError(f'of= must be "logit" or "probability", not {of!r}.')
    if of == "probability" and kind == "values":
        raise TargetError('Plain values have no probability: use of="logit".')


@dataclass(frozen=True)
class ClassTarget:
    """One class of a classifier, or one value of a regression.

    The default score is the logit: the gradient of a softmax probability vanishes near 1. With a single
    logit l, the score of class 1 is l and that of class 0 is -l.

    Attributes
    ----------
    index : int, str or None
        Class index. A name, or None for the most probable class, before the target is resolved.
    name : str
    kind : {"auto", "softmax", "sigmoid", "values", "probabilities", "independent probabilities"}
        Meaning of the network's scores.
    of : {"logit", "probability"}
        Quantity that is differentiated.
    """

    index: Any
    name: str = ""
    kind: Kind = "auto"
    of: Of = "logit"

    def __post_init__(self) -> None:
        check_of(self.of, self.kind)

    @property
    def unit(self) -> Unit:
        """Unit of `value`."""
        return "score" if self.kind == "values" else "probability"

    def score(self, output: Any) -> torch.Tensor:
        """Return the logit, probability or value, (B,), from (B, K)."""
        return self._column(columns(self._read(output), self.kind, self.of))

    def value(self, output: Any) -> torch.Tensor:
        """Return the probability or value, (B,) float64."""
        return self._column(probabilities(self._read(output).detach(), self.kind))

    def _read(self, output: Any) -> torch.Tensor:
        scores = read_scores(output)
        if scores.ndim > 2:
            raise TargetError(no_scores_message(output))
        return scores

    def _column(self, table: torch.Tensor) -> torch.Tensor:
        index, count = number(self.index), table.shape[1]
        if not -count <= index < count:
            raise TargetError(f"Class {index} does not exist: the classes are 0 to {count - 1}.")
        return table[:, index]

    def describe(self) -> dict[str, Any]:
        """Return the target as plain data for metadata."""
        about = {"index": self.index, "name": self.name}
        return {"kind": "class", **about, "outputs": self.kind, "of": self.of}

    def bind(self, context: Context) -> Target:
        """Return this target with its index, its name and the kind of its scores."""
        context = context.with_kind(self.kind)
        index = context.likeliest() if self.index is None else context.index(self.index)
        name = self.name or context.name(index)
        return replace(self, index=index, name=name, kind=context.kind)


def as_target(side: Any) -> Target:
    """Return `side` if it is a target, else the class with that index."""
    target: Target = side if hasattr(side, "score") else ClassTarget(number(side), f"class {side}")
    return target
