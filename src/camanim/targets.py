"""What is explained: the logit of one class."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from camanim.errors import TargetError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ClassTarget:
    """One class of a classifier, explained through its logit.

    The logit rather than the probability: a softmax near 1 has no gradient left to explain.

    Attributes
    ----------
    index : int
    name : str
    """

    index: int
    name: str

    def score(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the number whose gradient is taken: the logit, from (1, K)."""
        return logits[0, self.index]

    def probability(self, logits: torch.Tensor) -> torch.Tensor:
        """Return this class's probability for each row of (B, K)."""
        return probabilities(logits)[:, self.index]


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Softmax over classes, (B, K); a sigmoid where there is a single logit.

    In float64, so that neighbours of 1 stay apart.
    """
    wide = logits.double()
    return wide.sigmoid() if logits.shape[1] == 1 else wide.softmax(dim=1)


def class_scores(output: Any) -> torch.Tensor:
    """Take the network's output as class scores, (1, K).

    Raises
    ------
    TargetError
        When it is anything else, or not finite.
    """
    import torch

    if not isinstance(output, torch.Tensor):
        raise TargetError(_not_scores(type(output).__name__))
    if output.ndim != 2 or output.shape[0] != 1 or output.shape[1] == 0:
        raise TargetError(_not_scores(f"{tuple(output.shape)}"))
    if not output.is_floating_point():
        raise TargetError(_not_scores(f"{tuple(output.shape)} of {output.dtype}"))
    if not bool(output.isfinite().all()):
        raise TargetError("The network's class scores are not finite: check its weights and input.")
    return output


def _not_scores(what: str) -> str:
    return (
        f"The network gives {what}, not one row of class scores (1, K): "
        "wrap it in a module that returns those."
    )


def choose(
    target: int | str | None, logits: torch.Tensor, classes: Sequence[str] | None
) -> ClassTarget:
    """Turn what the user asked for into a target.

    Parameters
    ----------
    target : int, str or None
        Index (negative ones count from the end), name of the class (its exact name goes before a
        number, and that before a name in other letters), or None for the likeliest class.
    logits : torch.Tensor
        (1, K)
    classes : sequence of str or None

    Raises
    ------
    TargetError
        When there is no such class.
    """
    count = logits.shape[1]
    if target is None:
        index = int(logits[0].argmax())
    elif isinstance(target, str):
        index = _named(target, classes)
    else:
        try:
            index = operator.index(target)
        except TypeError as error:
            raise TargetError(f"A class is a number or a name, not {target!r}.") from error
    if not -count <= index < count:
        raise TargetError(f"The network has the classes 0 to {count - 1}, there is no {index}.")
    index %= count
    return ClassTarget(index, class_name(index, classes))


def class_name(index: int, classes: Sequence[str] | None) -> str:
    """Name a class; by its number where it has no name."""
    return classes[index] if classes is not None and index < len(classes) else f"class {index}"


def _named(name: str, classes: Sequence[str] | None) -> int:
    if name in (classes or ()):
        return list(classes or ()).index(name)
    if re.fullmatch(r"-?[0-9]+", name):
        return int(name)
    folded = [c.casefold() for c in classes or ()]
    if name.casefold() in folded:
        return folded.index(name.casefold())
    near = get_close_matches(name.casefold(), folded, n=3)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    if classes and len(classes) <= 12:
        hint = f" There are {', '.join(classes)}."
    raise TargetError(f"The network has no class named {name!r}.{hint}")
