"""Stitch the maps of windows to maps of a whole image, each layer at its resolution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.resampling import overlap_matrix
from camanim.window_grid import Windows

Key = tuple[str, int]
"""Name of a layer, and number of its call."""
FloatMap = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

#: Part of a cell that rounding errors may cover.
_ROUNDING = 1e-9


class Stitcher:
    """Weighted means of the maps of windows, on one grid for each layer.

    The grid of a layer covers the image with cells of the layer's own size, or of the nearest size that
    divides the image. Where the cells of a window coincide with those of the grid, its values are added
    unchanged; where they do not, each cell of the grid gets the mean of the window's cells that it
    overlaps, by area. A map of more than `max_cells` cells has cells that are a whole number of times
    longer.

    Each cell is the mean over the windows that cover it, weighted by MONAI's importance map at the
    layer's resolution. Running means are stored, in float32: equal values remain the same to the last
    bit, and a part of the windows gives the right means of these. The memory is 4 bytes for each cell
    of all maps, and as much for the weights of each *different* size of maps.

    Parameters
    ----------
    image : sequence of int
        Size of the image.
    windows : Windows
    max_cells : int
    """

    def __init__(self, image: Sequence[int], windows: Windows, max_cells: int) -> None:
        self._image, self._windows, self._max_cells = tuple(image), windows, max_cells
        self._grids: dict[tuple[int, ...], _Grid] = {}
        self._maps: dict[Key, tuple[_Grid, FloatMap]] = {}

    @property
    def keys(self) -> set[Key]:
        """Layers with a map in all windows so far."""
        return set(self._maps)

    @property
    def maps(self) -> dict[Key, FloatMap]:
        """The stitched map of each layer; 0 where no window was added."""
        return {key: stitched for key, (_, stitched) in self._maps.items()}

    @property
    def reduced(self) -> int:
        """Number of layers whose maps have longer cells than in the windows."""
        return sum(grid.factor > 1 for grid, _ in self._maps.values())

    @property
    def resampled(self) -> int:
        """Number of layers whose cells did not coincide with the grid in some window."""
        return sum(grid.resampled and grid.factor == 1 for grid, _ in self._maps.values())

    def start(self, maps: Mapping[Key, FloatMap]) -> None:
        """Set the layers, and the resolution of each, by the maps of one window."""
        for key, raw in maps.items():
            grid = self._grids.get(raw.shape)
            if grid is None:
                grid = _Grid(raw.shape, self._image, self._windows, self._max_cells)
                self._grids[raw.shape] = grid
            self._maps[key] = (grid, np.zeros(grid.cells, np.float32))

    def add(self, corner: Sequence[int], maps: Mapping[Key, FloatMap] | None) -> set[Key]:
        """Add the maps of a window, and return the layers that have none there and were left out.

        Parameters
        ----------
        corner : sequence of int
            First pixel of the window.
        maps : mapping
            By layer; None for maps that are 0.
        """
        missing = set()
        if maps is not None:
            shapes = {key: grid.shape for key, (grid, _) in self._maps.items()}
            missing = {
                key for key, shape in shapes.items() if key not in maps or maps[key].shape != shape
            }
        for key in missing:
            del self._maps[key]
        patches = {shape: grid.patch(corner) for shape, grid in self._grids.items()}
        for key, (grid, stitched) in self._maps.items():
            patch = patches[grid.shape]
            part = stitched[patch.region]
            values = 0.0 if maps is None else patch.values(maps[key])
            part += (values - part) * patch.share
        for shape, patch in patches.items():
            self._grids[shape].weights[patch.region] += patch.weights
        return missing


@dataclass
class _Patch:
    """A window on the grid of a layer: the cells that it covers, and its weights in them."""

    region: tuple[slice, ...]
    #: From the cells of the window to those of the grid along each axis; None where they coincide.
    matrices: list[Any] | None
    importance: Floats
    weights: Floats
    share: Floats

    def values(self, raw: FloatMap) -> FloatMap | Floats:
        """Return the values of a map in the cells of the grid."""
        if self.matrices is None:
            return raw
        sums = _along_axes(self.matrices, raw * self.importance)
        return np.divide(
            sums, self.weights, out=np.zeros_like(sums), where=self.weights > _ROUNDING
        )


@dataclass
class _Grid:
    """The cells of the stitched maps of layers that have maps of one size in a window."""

    shape: tuple[int, ...]
    image: tuple[int, ...]
    windows: Windows
    max_cells: int
    resampled: bool = False
    _matrices: dict[tuple[int, int], tuple[slice, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pairs = zip(self.image, self.windows.size, self.shape, strict=True)
        counts = [max(1, round(n * cells / side)) for n, side, cells in pairs]
        self.factor = 1
        while math.prod(-(-n // self.factor) for n in counts) > self.max_cells:
            self.factor += 1
        self.cells = tuple(-(-n // self.factor) for n in counts)
        self.weights = np.zeros(self.cells, np.float32)

    @cached_property
    def importance(self) -> Floats:
        """Weights of the cells of a window, by MONAI."""
        from monai.data.utils import compute_importance_map

        weights = compute_importance_map(self.shape, mode=self.windows.blending, device="cpu")
        return np.asarray(weights, np.float64)

    def patch(self, corner: Sequence[int]) -> _Patch:
        """Return the part of the grid that a window covers."""
        regions, matrices = zip(
            *(self._along(axis, start) for axis, start in enumerate(corner)), strict=True
        )
        coincide = all(matrix is None for matrix in matrices)
        if coincide:
            used, weights = None, self.importance
        else:
            used = [
                m if m is not None else _identity(n)
                for m, n in zip(matrices, self.shape, strict=True)
            ]
            weights = _along_axes(used, self.importance)
            self.resampled = True
        before = self.weights[regions].astype(np.float64)
        total = before + weights
        some = weights > _ROUNDING
        share = np.divide(weights, total, out=np.zeros_like(total), where=some)
        return _Patch(regions, used, self.importance, np.where(some, weights, 0.0), share)

    def _along(self, axis: int, start: int) -> tuple[slice, Any]:
        if (axis, start) not in self._matrices:
            self._matrices[axis, start] = self._cells_along(axis, start)
        return self._matrices[axis, start]

    def _cells_along(self, axis: int, start: int) -> tuple[slice, Any]:
        """Return the cells of the grid that a window covers, and the matrix to them."""
        cell = self.image[axis] / self.cells[axis]
        side, count = self.windows.size[axis], self.shape[axis]
        first = max(0, math.floor(start / cell + _ROUNDING))
        last = min(self.cells[axis], math.ceil((start + side) / cell - _ROUNDING))
        scale, offset = cell * count / side, (first * cell - start) * count / side
        region = slice(first, last)
        if last - first == count and abs(scale - 1) < _ROUNDING and abs(offset) < _ROUNDING:
            return region, None
        return region, overlap_matrix(last - first, count, scale, offset)


def _identity(count: int) -> Any:
    from scipy.sparse import eye_array

    return eye_array(count, format="csr")


def _along_axes(matrices: Sequence[Any], values: npt.NDArray[Any]) -> Floats:
    """Multiply each axis of an array with a matrix."""
    for axis, matrix in enumerate(matrices):
        front = np.moveaxis(values, axis, 0)
        product = matrix @ front.reshape(len(front), -1)
        values = np.moveaxis(product.reshape(-1, *front.shape[1:]), 0, axis)
    return np.asarray(values, np.float64)
