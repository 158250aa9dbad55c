"""Linear resizing of channels and maps, and averages over cells of another grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

#: Most values that torch computes in one thread.
SERIAL = 32_768


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


def resize_serially(plane: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize one channel linearly in the calling thread; equal to `resize`.

    torch shares more than 32,768 values among threads. To wake them for one map takes 4 to 8 ms, ten
    times as long as the map itself: a viewer that waits between two maps would notice it.

    Parameters
    ----------
    plane : (h, w) torch.Tensor
    size : (H, W)

    Returns
    -------
    (H, W) torch.Tensor
    """
    import torch

    height, width = size
    # In the order of torch: along rows first. An axis that keeps its length is copied.
    rows = plane.split(max(1, SERIAL // width), 0)
    wide = torch.cat([resize(part, (len(part), width)) for part in rows], 0)
    columns = wide.split(max(1, SERIAL // height), 1)
    return torch.cat([resize(part, (height, part.shape[1])) for part in columns], 1)


def overlap_matrix(cells: int, pixels: int, scale: float, offset: float) -> Any:
    """Return the fraction of each cell that each pixel covers, as a sparse (cells, pixels) matrix.

    Parameters
    ----------
    cells, pixels : int
        Number of cells and of pixels along an axis.
    scale : float
        Pixels per cell.
    offset : float
        Distance from the first edge of the pixels to that of the cells, in pixels.
    """
    from scipy.sparse import csr_array

    edges = offset + scale * np.arange(cells + 1)
    first = np.clip(np.floor(edges[:-1]), 0, pixels).astype(int)
    last = np.clip(np.ceil(edges[1:]), first, pixels).astype(int)
    counts = last - first
    rows = np.repeat(np.arange(cells), counts)
    columns = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - first, counts)
    lengths = np.minimum(edges[rows + 1], columns + 1) - np.maximum(edges[rows], columns)
    return csr_array((np.maximum(lengths, 0) / scale, (rows, columns)), shape=(cells, pixels))
