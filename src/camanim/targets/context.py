"""What a request refers to: one network's output, its classes and what its scores are."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any

from camanim.errors import TargetError
from camanim.precision import as_float64
from camanim.targets.outputs import columns, detections, finite, probabilities, read_scores

if TYPE_CHECKING:
    import torch

    from camanim.targets.base import Kind, Target


def class_name(index: int, classes: Sequence[str] | None) -> str:
    """Name a class; by its number where it has no name."""
    return classes[index] if classes is not None and index < len(classes) else f"class {index}"


@dataclass(frozen=True)
class Context:
    """Completes targets: finds classes by name, and what depends on the image.

    Attributes
    ----------
    output : object
        Whatever the network gave.
    classes : sequence of str or None
    kind : {"auto", "softmax", "sigmoid", "values"}
    resolve : callable
        From any request to a target.
    """

    output: Any
    classes: Sequence[str] | None
    kind: Kind
    resolve: Callable[[Any], Target]

    def of_kind(self, kind: Kind) -> Context:
        """Read the scores as a target says; "auto" leaves it to the network."""
        return self if kind == "auto" else replace(self, kind=kind)

    @cached_property
    def detections(self) -> list[dict[str, torch.Tensor]] | None:
        """Per image, detached; None where the network does not detect."""
        found = detections(self.output)
        return found and [{key: v.detach() for key, v in item.items()} for item in found]

    @cached_property
    def scores(self) -> torch.Tensor:
        """(B, K) or (B, K, *S), detached and finite."""
        return finite(read_scores(self.output).detach())

    @property
    def over_space(self) -> bool:
        """Whether there is a score for each pixel."""
        return self.detections is None and self.scores.ndim > 2

    @cached_property
    def single_logit(self) -> bool:
        """Whether one logit stands for two classes."""
        return self.detections is None and self.kind != "values" and self.scores.shape[1] == 1

    @cached_property
    def count(self) -> int | None:
        """How many classes there are; None where that is unknown."""
        if self.detections is not None:
            return None if self.classes is None else len(self.classes)
        return 2 if self.single_logit else int(self.scores.shape[1])

    @cached_property
    def names(self) -> list[str] | None:
        """The names of the classes; the one name of a single logit is that of the positive class."""
        if self.single_logit and self.classes is not None and len(self.classes) == 1:
            return [f"not {self.classes[0]}", self.classes[0]]
        return None if self.classes is None else list(self.classes)

    def name(self, index: int) -> str:
        """Name a class, or a value."""
        if self.kind == "values" and index >= len(self.names or ()):
            return f"output {index}"
        return class_name(index, self.names)

    def index(self, request: Any) -> int:
        """Find a class by its number (negative ones count from the end) or name.

        An exact name goes before a number, and that before a name in other letters.

        Raises
        ------
        TargetError
            When there is no such class.
        """
        if isinstance(request, str):
            index = _named(request, self.names)
        else:
            try:
                index = operator.index(request)
            except TypeError as error:
                raise TargetError(f"A class is a number or a name, not {request!r}.") from error
        count = self.count
        if index < 0 if count is None else not -count <= index < count:
            known = "of its own" if count is None else f"0 to {count - 1}"
            raise TargetError(f"The network has the classes {known}, there is no {index}.")
        return index if count is None else index % count

    def is_class(self, text: str) -> bool:
        """Whether a text names or numbers a class."""
        try:
            self.index(text)
        except TargetError:
            return False
        return True

    def likeliest(self) -> int:
        """Find the class with the highest mean probability; the first of several values."""
        if self.kind == "values":
            return 0
        mean = probabilities(self.scores, self.kind).mean(0)
        # Sigmoids saturate: the logit tells apart what both have rounded to 1.
        logits = as_float64(columns(self.scores, self.kind)).mean(0)
        return int(logits.masked_fill(mean < mean.max(), -float("inf")).argmax())


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
