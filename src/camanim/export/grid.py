"""Maps on the pixels of the image that was passed, to be written with its affine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.errors import RenderError
from camanim.images import Geometry
from camanim.images.place import Affine
from camanim.result import Result
from camanim.stack import FloatMap, Stack

#: Most pixels of one map, 1 GiB.
_LARGEST = 2**28


@dataclass(frozen=True)
class Grid:
    """The pixels of an image, on which maps are placed.

    Attributes
    ----------
    shape : tuple of int
        Size along the spatial axes.
    geometry : Geometry
        Maps coordinates of the network's input to these pixels, or to those that `to_source` leads to.
    affine : (4, 4) array or None
        From indices (z, y, x, 1) to the patient.
    spacing : tuple of float or None
    units : str or None
    space : str or None
        See `SourcePlace`.
    to_source : (n, n + 1) array or None
        Indices of the image that was passed, from indices of this grid, where they differ.
    """

    shape: tuple[int, ...]
    geometry: Geometry
    affine: Affine | None = None
    spacing: tuple[float, ...] | None = None
    units: str | None = None
    space: str | None = None
    to_source: npt.NDArray[np.float64] | None = None

    def place(self, raw: FloatMap) -> FloatMap:
        """Return a map on this grid, interpolated linearly, and 0 where the maps do not cover it.

        Parameters
        ----------
        raw : (h, w) or (d, h, w) float32 array
            At the resolution of its layer; it covers the input of the network.

        Returns
        -------
        float32 array of `shape`
        """
        from scipy.ndimage import affine_transform, gaussian_filter

        axes = len(self.shape)
        scale, translate = (np.array(v) for v in self.geometry.affine(raw.shape))
        to_source = np.eye(axes, axes + 1) if self.to_source is None else self.to_source
        # Cells of the map, from pixels of this grid.
        matrix = to_source[:, :axes] / scale[:, None]
        offset = (to_source[:, axes] - translate) / scale
        values = raw.astype(np.float32)
        # Cells that are smaller than a pixel are averaged first; this is the rule of scikit-image.
        sigma = np.maximum(0, (1 / scale - 1) / 2)
        if sigma.any():
            values = gaussian_filter(values, sigma, mode="nearest")
        placed: FloatMap = affine_transform(
            values, matrix, offset, self.shape, np.float32, order=1, mode="nearest", prefilter=False
        )
        self._clear_outside(placed, to_source)
        return placed

    def _clear_outside(self, placed: FloatMap, to_source: npt.NDArray[np.float64]) -> None:
        """Set the pixels to 0 whose centres the input of the network does not cover."""
        geometry, axes = self.geometry, len(self.shape)
        ends = zip(geometry.offset, geometry.scale, geometry.size, strict=True)
        for axis, (start, scale, count) in enumerate(ends):
            # The axis of this grid that runs along this axis of the image.
            own = int(np.abs(to_source[axis, :axes]).argmax())
            at = to_source[axis, own] * np.arange(self.shape[own]) + to_source[axis, axes]
            outside = (at + 0.5 < start - 1e-6) | (at + 0.5 > start + scale * count + 1e-6)
            placed[(slice(None),) * own + (outside,)] = 0


def grid_of(result: Result) -> Grid:
    """Return the pixels of the image that was passed to a run.

    Those of `Result.image` if the image came without a place.

    Raises
    ------
    RenderError
        If a map on these pixels would be too large.
    """
    source = result.source
    axes = len(result.geometry.size)
    if source is None or len(source.shape) != axes:
        grid = Grid(tuple(result.image.shape[:axes]), result.geometry)
    else:
        grid = Grid(
            source.shape,
            result.source_geometry,
            source.matrix,
            source.spacing,
            source.units,
            source.space,
        )
    if math.prod(grid.shape) > _LARGEST:
        raise RenderError(
            "The image is too large for maps of its size: write the maps of the layers as .npz."
        )
    return grid


def native_map(stack: Stack, i: int, raw_values: bool) -> FloatMap:
    """Return a map at its resolution, normalised as the stack is, or raw and signed."""
    return stack.maps[i] if raw_values else stack.native(i)


def as_float32(values: Any) -> FloatMap:
    """Return values as contiguous float32."""
    return np.ascontiguousarray(values, np.float32)
