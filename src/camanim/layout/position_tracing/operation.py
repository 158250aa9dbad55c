"""One call of an operation of torch, as the rules see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from camanim.layout.position_tracing.companion import PositionMap


@dataclass(frozen=True)
class Operation:
    """One call of an operation of torch.

    Attributes
    ----------
    func : torch._ops.OpOverload
    args, kwargs
    given : dict of str to object
        The arguments by the names in its schema.
    outputs : list of torch.Tensor
    find : callable
        From a tensor to its companion; None where there is none, or it is not known.
    from_image : callable
        Whether a tensor comes from the image.
    images : int
        In the network's input.
    dims : int
        How many axes the input's space has.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: dict[str, Any]
    outputs: list[torch.Tensor]
    find: Callable[[Any], PositionMap | None]
    from_image: Callable[[torch.Tensor], bool]
    images: int
    dims: int

    @property
    def name(self) -> str:
        """Such as ``aten::roll``."""
        return str(self.func._overloadpacket._qualified_op_name)

    @property
    def output(self) -> torch.Tensor:
        """The first, or only one."""
        return self.outputs[0]

    @property
    def first(self) -> PositionMap | None:
        """The companion of the first operand."""
        return self.find(self.args[0]) if self.args else None

    def axes(self, name: str) -> list[int]:
        """Axes of the first operand, not negative, from the argument of that name."""
        given = self.given.get(name)
        if given is None:
            return []
        axes = given if isinstance(given, list | tuple) else [given]
        return [axis % self.args[0].ndim for axis in axes]


#: The companions of an operation's outputs, in their order.
Found = list[PositionMap | None]
Rule = Callable[[Operation], Found]
