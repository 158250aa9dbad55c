"""Which tensor of an output is looked at, and how it becomes channels over space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from camanim.errors import LayerError
from camanim.layout import Arrangement, Layout, Override, parse, stripes, tensors_of
from camanim.layout.position_tracing import trace_positions

if TYPE_CHECKING:
    from camanim.execution.forward import Forward


@dataclass(frozen=True)
class FeatureTensor:
    """The tensor of an output that is looked at.

    Attributes
    ----------
    tensor : torch.Tensor or None
        None where the output holds none.
    path : str
        Where in the output it is; empty where it is the output.
    arrangement : Arrangement or None
        None where it has no space, or where its shape alone does not tell.
    open : bool
        Whether `LayoutReader.settle` has the last word on its space.
    """

    tensor: torch.Tensor | None
    path: str = ""
    arrangement: Arrangement | None = None
    open: bool = False

    @property
    def name(self) -> str:
        """How it is read, in words."""
        if self.arrangement is None:
            return ""
        name = self.arrangement.name
        return f"{self.path} {name}" if self.path else name


class LayoutReader:
    """Reads the outputs of a network's modules, one call after the other.

    Parameters
    ----------
    input_shape : (B, C, *S)
    overrides : mapping of str to (str or callable)
        By glob over names (``blocks.*``, ``norm:1`` for a second call): how to read what is named so,
        see `camanim.layout.parse`.
    show_1d : bool
        Whether outputs without space are read as stripes.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        overrides: Mapping[str, Override] | None = None,
        *,
        show_1d: bool = False,
    ) -> None:
        self._layout = Layout(input_shape)
        self._overrides = dict(overrides or {})
        self._show_1d = show_1d

    def fresh(self, input_shape: tuple[int, ...]) -> LayoutReader:
        """Make a reader with the same overrides for an input of another size."""
        return LayoutReader(input_shape, self._overrides, show_1d=self._show_1d)

    def read(self, module: nn.Module, name: str, call: int, output: Any) -> FeatureTensor:
        """Find the tensor that has space, and how it is read."""
        tensors = [("", output)] if isinstance(output, torch.Tensor) else tensors_of(output)
        tensors = [(path, t) for path, t in tensors if t.is_floating_point()]
        override = self._override(name, call) if self._overrides else None
        if len(tensors) == 1:
            return self._read(module, *tensors[0], override)
        parts = [self._read(module, path, tensor, override) for path, tensor in tensors]
        for part in parts:
            if part.arrangement is not None:
                return part
        for part in parts:
            if part.open:
                return part
        return parts[0] if parts else FeatureTensor(None)

    def _read(
        self, module: nn.Module, path: str, tensor: torch.Tensor, override: Override | None
    ) -> FeatureTensor:
        shape = tuple(tensor.shape)
        if override is not None:
            return FeatureTensor(tensor, path, parse(override, shape, self._layout))
        reading = self._layout.look(module, shape)
        arrangement = reading.arrangement
        if arrangement is None and not reading.open and self._show_1d:
            arrangement = stripes(shape, self._layout.dims)
        return FeatureTensor(tensor, path, arrangement, reading.open)

    def _override(self, name: str, call: int) -> Override | None:
        for pattern, override in self._overrides.items():
            if fnmatchcase(name, pattern) or fnmatchcase(f"{name}:{call}", pattern):
                return override
        return None

    def settle(
        self, forward: Forward, tensor: torch.Tensor, wanted: Mapping[tuple[str, int], str]
    ) -> Mapping[tuple[str, int], Arrangement | None]:
        """Find the space of windows, in one more forward pass.

        Parameters
        ----------
        forward : Forward
        tensor : torch.Tensor
            (B, C, *S)
        wanted : mapping from (name, call) to path
            Where in a call's output its tensor is.
        """
        return trace_positions(forward.net, tensor, wanted, run=forward)


def check_names(overrides: Mapping[str, Override], net: nn.Module) -> None:
    """Refuse overrides for what no module of the network is called.

    Raises
    ------
    LayerError
    """
    names = [name for name, _ in net.named_modules()]
    for pattern in overrides:
        if not any(fnmatchcase(name, pattern.partition(":")[0]) for name in names):
            raise LayerError(
                f"The network has no layer {pattern!r} to be read in another way: layouts go by the "
                "names of layers, as Animation.table() lists them."
            )


def pick(output: Any, path: str) -> torch.Tensor:
    """Take the tensor at a path out of an output."""
    return output if isinstance(output, torch.Tensor) else dict(tensors_of(output))[path]
