"""Linear resizing of channels and maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def resize(
    channels: torch.Tensor, size: Sequence[int], *, align_corners: bool = False
) -> torch.Tensor:
    """Resize linearly along the last two or three axes.

    Parameters
    ----------
    channels : torch.Tensor
        (..., h, w) or (..., d, h, w)
    size : (H, W) or (D, H, W)
    align_corners : bool
        Whether the centres of the corner pixels keep their positions; otherwise pixels are areas.

    Returns
    -------
    torch.Tensor
        (..., H, W) or (..., D, H, W)
    """
    # Imported here, so that modules which store maps do not import torch.
    from torch.nn.functional import interpolate

    leading, space = channels.shape[: -len(size)], channels.shape[-len(size) :]
    mode = {2: "bilinear", 3: "trilinear"}[len(size)]
    flat = channels.reshape(math.prod(leading), 1, *space)
    resized = interpolate(flat, list(size), mode=mode, align_corners=align_corners)
    return resized.reshape(*leading, *size)
