"""The positions of windows on an image, and the values of a target in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.short_repr import ShortRepr

#: Cells of the maps of most networks, in pixels of the input, are this long or divide it.
_LONGEST_CELL = 32


@dataclass(frozen=True, eq=False)
class Windows(ShortRepr):
    """The windows of `animate_windows`, and the target's value in each.

    Attributes
    ----------
    size : tuple of int
        Size of a window in image pixels, (h, w) or (d, h, w).
    starts : tuple of tuple of int
        First pixels of the windows along each axis.
    blending : {"gaussian", "constant"}
    values : numpy.ndarray
        The target's probability or value in each window, a heat map of (rows, columns) or
        (sections, rows, columns) of windows, float64; NaN for windows that were not computed. Where it
        is low, the target is absent, and the maps say little about it.
    done : numpy.ndarray
        Whether each window was computed, bool, of the shape of `values`.
    """

    size: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    blending: str
    values: npt.NDArray[np.float64]
    done: npt.NDArray[np.bool_]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of windows along each axis."""
        return tuple(map(len, self.starts))

    @property
    def computed(self) -> int:
        """Number of windows that were computed."""
        return int(self.done.sum())

    @property
    def complete(self) -> bool:
        """Whether all windows were computed."""
        return bool(self.done.all())

    def __len__(self) -> int:
        return self.values.size

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """Yield the first pixel of each window, along the last axis first."""
        for index in np.ndindex(self.shape):
            yield tuple(starts[i] for i, starts in zip(index, self.starts, strict=True))

    def record(self) -> dict[str, Any]:
        """Return the windows as plain data."""
        return {
            "size": list(self.size),
            "starts": [list(starts) for starts in self.starts],
            "blending": self.blending,
            "values": self.values.tolist(),
        }


def place_windows(
    image: Sequence[int], size: Sequence[int], overlap: float, blending: str
) -> Windows:
    """Place windows that cover an image.

    MONAI's `dense_patch_slices` places them. The step between them is that of its sliding window
    inference, ``(1 - overlap) * size``, rounded down to a multiple of 32 pixels, or of a smaller power
    of two where the size is no multiple of 32 or the step is short: then windows begin at the edges of
    cells of the maps. The last window along an axis ends at the edge of the image.

    Parameters
    ----------
    image : sequence of int
        Size of the image; where it is smaller than a window, there is one window along the axis.
    size : sequence of int
        Size of the windows.
    overlap : float
        In [0, 1).
    blending : {"gaussian", "constant"}

    Returns
    -------
    Windows
        None of which is computed yet.
    """
    from monai.data.utils import dense_patch_slices

    extent = [max(n, s) for n, s in zip(image, size, strict=True)]
    steps = [_step(s, overlap) for s in size]
    patches = dense_patch_slices(extent, list(size), steps, return_slice=False)
    firsts = [sorted({int(patch[axis][0]) for patch in patches}) for axis in range(len(size))]
    values = np.full(tuple(map(len, firsts)), np.nan)
    done = np.zeros(values.shape, bool)
    return Windows(tuple(size), tuple(map(tuple, firsts)), blending, values, done)


def _step(size: int, overlap: float) -> int:
    step = max(1, int(size * (1 - overlap)))
    cell = _LONGEST_CELL
    while size % cell or (2 * cell > step and cell > 1 and step != size):
        cell //= 2
    return step // cell * cell
