"""A call of an operation of torch, in the form in which rules get it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from camanim.layout.position_tracing.position_map import PositionMap


@dataclass(frozen=True)
class Operation:
    """A call of an operation of torch.

    Attributes
    ----------
    func : torch._ops.OpOverload
    args, kwargs
    arguments : dict of str to object
        The arguments by their names in the schema.
    outputs : list of torch.Tensor
    position_map_of : callable
        From a tensor to its position map; None for a tensor without a map.
    from_image : callable
        From a tensor to whether it is computed from the image.
    images : int
        Number of images in the network's input.
    dims : int
        Number of spatial axes of the network's input.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    arguments: dict[str, Any]
    outputs: list[torch.Tensor]
    position_map_of: Callable[[Any], PositionMap | None]
    from_image: Callable[[torch.Tensor], bool]
    images: int
    dims: int

    @property
    def name(self) -> str:
        """Qualified name, such as ``aten::roll``."""
        return str(self.func._overloadpacket._qualified_op_name)

    @property
    def output(self) -> torch.Tensor:
        """The first output."""
        return self.outputs[0]

    @property
    def first(self) -> PositionMap | None:
        """Position map of the first operand."""
        return self.position_map_of(self.args[0]) if self.args else None

    def axes(self, name: str) -> list[int]:
        """Return the axes of the first operand in an argument, as non-negative numbers."""
        value = self.arguments.get(name)
        if value is None:
            return []
        axes = value if isinstance(value, list | tuple) else [value]
        return [axis % self.args[0].ndim for axis in axes]


#: The position maps of an operation's outputs, in the order of the outputs.
PositionMaps = list[PositionMap | None]
Rule = Callable[[Operation], PositionMaps]
