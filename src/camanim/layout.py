"""How a module's output becomes channels over space: NCHW and NHWC, by looking at the shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def channels_first(output: torch.Tensor, input_size: tuple[int, int]) -> torch.Tensor | None:
    """View an output of one image as channels over space.

    Which axis holds the channels is read off the shape: a feature map keeps the input's ratio of
    height to width. Where both readings do, channels come first, as is usual in torch.

    Parameters
    ----------
    output : torch.Tensor
        (1, C, h, w), or (1, h, w, C) as in Swin and ConvNeXt.
    input_size : (H, W)
        Size of the network's input.

    Returns
    -------
    (C, h, w) view of `output`, or None where it has no spatial extent.
    """
    if output.ndim != 4 or output.shape[0] != 1 or 0 in output.shape:
        return None
    first, last = output[0], output[0].movedim(-1, 0)
    view = last if _mismatch(last, input_size) < _mismatch(first, input_size) else first
    return view if view.shape[1] * view.shape[2] > 1 else None


def _mismatch(view: torch.Tensor, input_size: tuple[int, int]) -> float:
    """How far h : w is from H : W, where rounding to whole pixels counts as no difference."""
    (height, width), (h, w) = input_size, view.shape[1:]
    off = abs(math.log(h / w) - math.log(height / width))
    rounding = 1 / h + 1 / w
    return 0.0 if off <= rounding and min(h, w) > 1 else off
