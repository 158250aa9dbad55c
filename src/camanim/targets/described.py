"""A target of which only the description is known, as in the file of a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from camanim.errors import TargetError
from camanim.targets.base import Target, Unit

if TYPE_CHECKING:
    import torch

    from camanim.targets.context import Context


@dataclass(frozen=True)
class DescribedTarget:
    """Name and description of a target that was a function, which a file does not hold.

    Attributes
    ----------
    name : str
    index : int or None
    unit : {"probability", "score"}
    description : mapping
        What `describe` of the target returned.
    """

    name: str
    index: int | None = None
    unit: Unit = "score"
    description: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, target: Target) -> DescribedTarget:
        """Return name and description of a target."""
        return cls(target.name, target.index, target.unit, target.describe())

    def score(self, output: Any) -> torch.Tensor:
        """Raise `TargetError`."""
        raise TargetError(
            f"The target {self.name} is a function that the file does not hold: explain the image "
            "again with this function."
        )

    def value(self, output: Any) -> torch.Tensor:
        """Raise `TargetError`."""
        return self.score(output)

    def describe(self) -> dict[str, Any]:
        """Return the target as plain data for metadata."""
        return dict(self.description)

    def bind(self, context: Context) -> DescribedTarget:
        """Return this target; it does not depend on the context."""
        return self
