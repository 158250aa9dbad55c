"""How a module's output becomes channels over space: NCHW and NHWC, by looking at the shape."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@lru_cache(maxsize=1024)
def channel_axis(shape: tuple[int, ...], input_size: tuple[int, int]) -> int | None:
    """Find the axis of an output that holds the channels.

    It is read off the shape: a feature map keeps the input's ratio of height to width. Where both
    readings do, channels come first, as is usual in torch.

    Parameters
    ----------
    shape : tuple of int
        Of the output for one image: (1, C, h, w), or (1, h, w, C) as in Swin and ConvNeXt.
    input_size : (H, W)
        Size of the network's input.

    Returns
    -------
    1, 3, or None where the output has no spatial extent.
    """
    if len(shape) != 4 or shape[0] != 1 or 0 in shape:
        return None
    last = _mismatch(shape[1:3], input_size) < _mismatch(shape[2:4], input_size)
    h, w = shape[1:3] if last else shape[2:4]
    if h * w == 1:
        return None
    return 3 if last else 1


def channels_first(output: torch.Tensor, axis: int) -> torch.Tensor:
    """View the output of one image as (C, h, w), with its channels on `axis`."""
    return output[0] if axis == 1 else output[0].movedim(-1, 0)


def _mismatch(size: tuple[int, ...], input_size: tuple[int, int]) -> float:
    """How far h : w is from H : W, where rounding to whole pixels counts as no difference."""
    (height, width), (h, w) = input_size, size
    off = abs(math.log(h / w) - math.log(height / width))
    rounding = 1 / h + 1 / w
    return 0.0 if off <= rounding and min(h, w) > 1 else off
