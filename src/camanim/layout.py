"""How a module's output becomes channels over space: NCHW and NHWC, by looking."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Where torch keeps the modules that put channels first, whatever the shape looks like.
_CHANNELS_FIRST = frozenset(
    f"torch.nn.modules.{name}" for name in ("conv", "batchnorm", "instancenorm", "pooling")
)


class Layout:
    """Finds the channels of a network's outputs, one call after the other.

    Convolutions, their normalisations and pooling have channels first. Any other output is read by
    its shape: its sides are those of an output already known, or have the input's ratio of height to
    width. Where two readings fit, channels come first, as is usual in torch; where none does, the output
    is no map (the windows of a transformer, for instance).

    Parameters
    ----------
    input_size : (H, W)
        Of the network's input.
    """

    def __init__(self, input_size: tuple[int, int]) -> None:
        self.input_size = input_size
        self._known = {input_size}

    def channel_axis(self, module: nn.Module, shape: tuple[int, ...]) -> int | None:
        """Find the axis that holds the channels.

        Parameters
        ----------
        module : torch.nn.Module
            Which gave the output.
        shape : tuple of int
            Of the output for one image: (1, C, h, w), or (1, h, w, C) as in Swin and ConvNeXt.

        Returns
        -------
        1, 3, or None where the output has no spatial extent.
        """
        if len(shape) != 4 or shape[0] != 1 or 0 in shape or shape[2:] == (1, 1):
            return None
        if _puts_channels_first(module):
            axis = 1
        else:
            off = {axis: self._mismatch(_sides(shape, axis)) for axis in (1, 3)}
            axis = min(off, key=lambda candidate: off[candidate])
            if off[axis] == math.inf:
                return None
        self._known.add(_sides(shape, axis))
        return axis

    def _mismatch(self, sides: tuple[int, int]) -> float:
        """How far h : w is from H : W; infinitely far beyond what whole pixels explain."""
        if sides in self._known:
            return 0.0
        (height, width), (h, w) = self.input_size, sides
        off = abs(math.log(h / w) - math.log(height / width))
        # A row or column of single pixels has no ratio to speak of.
        return off if min(h, w) > 1 and off <= 1 / h + 1 / w else math.inf


def channels_first(output: torch.Tensor, axis: int) -> torch.Tensor:
    """View the output of one image as (C, h, w), with its channels on `axis`."""
    return output[0] if axis == 1 else output[0].movedim(-1, 0)


def _sides(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    return (shape[2], shape[3]) if axis == 1 else (shape[1], shape[2])


def _puts_channels_first(module: nn.Module) -> bool:
    return any(base.__module__ in _CHANNELS_FIRST for base in type(module).__mro__)
