"""One class of a classifier, or one value of a regression."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from camanim.errors import TargetError
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
        """Return this target with its number, its name and what the scores are."""
        context = context.of_kind(self.kind)
        index = context.likeliest() if self.index is None else context.index(self.index)
        name = self.name or context.name(index)
        return replace(self, index=index, name=name, kind=context.kind)


def as_target(side: Any) -> Target:
    """Take a bare number for a class."""
    target: Target = side if hasattr(side, "score") else ClassTarget(number(side), f"class {side}")
    return target
