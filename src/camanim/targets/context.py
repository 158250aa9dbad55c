"""The output, class names and kind of scores against which a target is resolved."""

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
from camanim.targets.outputs import (
    PROBABILITIES,
    check_finite,
    columns,
    detections,
    find_scores,
    kind_of_probabilities,
    probabilities,
    read_scores,
)

if TYPE_CHECKING:
    import torch

    from camanim.targets.base import Kind, Target


def class_name(index: int, classes: Sequence[str] | None) -> str:
    """Return the name of a class, or "class <index>" if it has none."""
    return classes[index] if classes is not None and index < len(classes) else f"class {index}"


@dataclass(frozen=True)
class Context:
    """Output and classes of a network, for resolving targets.

    Attributes
    ----------
    output : object
        Network output for one batch.
    classes : sequence of str or None
    kind : {"auto", "softmax", "sigmoid", "values", "probabilities", "independent probabilities"}
        "probabilities" becomes "independent probabilities" if their sum is not one.
    resolve : callable
        Map a request to a target; see `camanim.targets.resolve`.
    """

    output: Any
    classes: Sequence[str] | None
    kind: Kind
    resolve: Callable[[Any], Target]

    def __post_init__(self) -> None:
        if self.kind == "probabilities":
            scores = find_scores(self.output)
            independent = scores is not None and kind_of_probabilities(scores) != self.kind
            object.__setattr__(self, "kind", PROBABILITIES[independent])

    def with_kind(self, kind: Kind) -> Context:
        """Return the context with another kind of scores; "auto" keeps the current one."""
        return self if kind == "auto" else replace(self, kind=kind)

    @cached_property
    def detections(self) -> list[dict[str, torch.Tensor]] | None:
        """Detached detections of each image; None if the output has none."""
        items = detections(self.output)
        return items and [{key: v.detach() for key, v in item.items()} for item in items]

    @cached_property
    def scores(self) -> torch.Tensor:
        """Detached, finite scores, (B, K) or (B, K, *S)."""
        return check_finite(read_scores(self.output).detach())

    @property
    def per_pixel(self) -> bool:
        """Whether the output has scores for each pixel."""
        return self.detections is None and self.scores.ndim > 2

    @cached_property
    def single_logit(self) -> bool:
        """Whether a single logit or probability encodes two classes."""
        return self.detections is None and self.kind != "values" and self.scores.shape[1] == 1

    @cached_property
    def count(self) -> int | None:
        """Number of classes; None if unknown."""
        if self.detections is not None:
            return None if self.classes is None else len(self.classes)
        return 2 if self.single_logit else int(self.scores.shape[1])

    @cached_property
    def names(self) -> list[str] | None:
        """Class names; a single name of a single logit belongs to the positive class."""
        if self.single_logit and self.classes is not None and len(self.classes) == 1:
            return [f"not {self.classes[0]}", self.classes[0]]
        return None if self.classes is None else list(self.classes)

    def name(self, index: int) -> str:
        """Return the name of a class or value."""
        if self.kind == "values" and index >= len(self.names or ()):
            return f"output {index}"
        return class_name(index, self.names)

    def index(self, request: Any) -> int:
        """Return the index of a class from its index (negative counts from the end) or name.

        An exact name takes precedence over a number, and a number over a name that differs in case.

        Raises
        ------
        TargetError
            If the class does not exist.
        """
        if isinstance(request, str):
            index = _index_of_name(request, self.names)
        else:
            try:
                index = operator.index(request)
            except TypeError as error:
                raise TargetError(f"A class is an index or a name, not {request!r}.") from error
        count = self.count
        if index < 0 if count is None else not -count <= index < count:
            valid = "0 or greater" if count is None else f"0 to {count - 1}"
            raise TargetError(f"Class {index} does not exist: the classes are {valid}.")
        return index if count is None else index % count

    def is_class(self, text: str) -> bool:
        """Return whether a text is the name or index of a class."""
        try:
            self.index(text)
        except TargetError:
            return False
        return True

    def likeliest(self) -> int:
        """Return the class with the highest mean probability; 0 for plain values."""
        if self.kind == "values":
            return 0
        mean = probabilities(self.scores, self.kind).mean(0)
        # Sigmoids saturate: logits break the tie between probabilities that round to 1.
        logits = as_float64(columns(self.scores, self.kind)).mean(0)
        return int(logits.masked_fill(mean < mean.max(), -float("inf")).argmax())


def _index_of_name(name: str, classes: Sequence[str] | None) -> int:
    if name in (classes or ()):
        return list(classes or ()).index(name)
    if re.fullmatch(r"-?[0-9]+", name):
        return int(name)
    folded = [c.casefold() for c in classes or ()]
    if name.casefold() in folded:
        return folded.index(name.casefold())
    word = re.compile(rf"\b{re.escape(name.casefold())}\b")
    with_word = [c for c in folded if word.search(c)]
    near = (with_word or get_close_matches(name.casefold(), folded, n=3))[:5]
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    if classes and len(classes) <= 12:
        hint = f" The classes are {', '.join(classes)}."
    raise TargetError(f"The network has no class named {name!r}.{hint}")
