"""Lazy array of all maps; rectification, normalisation and upsampling happen on access."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from camanim.errors import RenderError
from camanim.resampling import resize, resize_serially

if TYPE_CHECKING:
    from camanim.result import Result

Normalization = Literal["local", "global"]
#: Most pixels, and longest side, of planes that are resized in one thread.
PLANE, SIDE = 2**20, 2**12
FloatMap = npt.NDArray[np.float32]


def upsample(maps: FloatMap, size: tuple[int, ...]) -> FloatMap:
    """Resize maps linearly; pixels are areas, not points (``align_corners=False``).

    Parameters
    ----------
    maps : (..., h, w) or (..., d, h, w) float32 array
    size : (H, W) or (D, H, W)

    Returns
    -------
    (..., H, W) or (..., D, H, W) float32 array
    """
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(maps))
    is_plane = tensor.ndim == 2 and max(size) <= SIDE and math.prod(size) <= PLANE
    resized = resize_serially(tensor, size) if is_plane else resize(tensor, size)
    array: FloatMap = resized.numpy()
    return array


def relevance(raw: FloatMap, size: tuple[int, ...]) -> FloatMap:
    """Upsample the positive part of a map to the network's input size, as shares of its maximum.

    The division comes first: raw maps of deep networks come close to the smallest numbers of float32.

    Parameters
    ----------
    raw : (h, w) or (d, h, w) float32 array
        Finite.
    size : (H, W) or (D, H, W)

    Returns
    -------
    (H, W) or (D, H, W) float32 array
        All zero for a map without positive values.
    """
    positive = np.maximum(raw, 0).astype(np.float64)
    highest = positive.max()
    shares = positive / highest if highest > 0 else positive
    return upsample(shares.astype(np.float32), size)


def plane_at(volume: FloatMap, share: float) -> FloatMap:
    """Return the plane of a volume at a share of its depth, interpolated linearly.

    Parameters
    ----------
    volume : (d, h, w) float32 array
    share : float
        In [0, 1]; voxels are volumes, not points, so that the first plane lies at ``0.5 / d``.

    Returns
    -------
    (h, w) float32 array
    """
    at = float(np.clip(share * len(volume) - 0.5, 0, len(volume) - 1))
    below = int(at)
    plane: FloatMap = volume[below]
    if at > below:
        plane = ((1 - (at - below)) * plane + (at - below) * volume[below + 1]).astype(np.float32)
    return plane


class Stack:
    """Lazy float32 array (L, H, W) or (L, D, H, W) of the maps; slices are computed on access.

    Supports the array protocol of napari, numpy and dask: ``shape``, ``dtype``, ``ndim``, ``size``,
    ``len``, basic and advanced indexing, ``numpy.asarray``. Limits for the normalisation are taken
    over the *raw* maps at their native resolution, after the ReLU.

    Parameters
    ----------
    maps : sequence of (h, w) or (d, h, w) float32 arrays
        Raw maps of any resolution.
    size : (H, W) or (D, H, W)
        Size of the upsampled maps, that of the network's input.
    normalization : {"local", "global", None}
    signed : bool
        See `stack_maps`.
    extremes : sequence of (min, max), optional
        Extremes of the raw maps, if `maps` are planes of volumes.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        maps: Sequence[FloatMap],
        size: tuple[int, ...],
        normalization: Normalization | None = "local",
        *,
        signed: bool = False,
        extremes: Sequence[tuple[float, float]] | None = None,
    ) -> None:
        if normalization not in ("local", "global", None):
            raise RenderError(f'normalization is "local", "global" or None, not {normalization!r}.')
        self.maps = maps
        self.normalization = normalization
        self.signed = signed
        self.shape = (len(maps), *size)
        self.ndim = len(self.shape)
        self.size = math.prod(self.shape)
        self._extremes = extremes

    def __repr__(self) -> str:
        sides = " x ".join(map(str, self.shape))
        signed = ", signed" if self.signed else ""
        return f"<Stack {sides}, {self.normalization or 'raw'}{signed}>"

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def _global_limits(self) -> tuple[float, float]:
        limits = [self._local_limits(i) for i in range(len(self))]
        return min(low for low, _ in limits), max(high for _, high in limits)

    def _local_limits(self, i: int) -> tuple[float, float]:
        if self._extremes is None:
            low, high = float(self.maps[i].min()), float(self.maps[i].max())
        else:
            low, high = self._extremes[i]
        if self.signed:
            return 0.0, max(abs(low), abs(high))
        return max(low, 0.0), max(high, 0.0)

    def limits(self, i: int) -> tuple[float, float]:
        """Return the raw values that are normalised to 0 and 1 in layer `i`."""
        if self.normalization == "global":
            return self._global_limits
        return self._local_limits(i)

    def native(self, i: int) -> FloatMap:
        """Return the normalised map of layer `i` at its native resolution."""
        raw = self.maps[i] if self.signed else np.maximum(self.maps[i], 0)
        if self.normalization is None:
            return raw
        # In float64: raw maps of deep networks come close to the smallest numbers of float32.
        return self._normalized(i, raw.astype(np.float64)).astype(np.float32)

    def plane(self, i: int) -> FloatMap:
        """Return the map of layer `i`, (H, W) or (D, H, W)."""
        return upsample(self.native(i), self.shape[1:])

    def section(self, i: int, z: int) -> FloatMap:
        """Return plane `z` of layer `i` of a volume, (H, W), without computing the others."""
        return upsample(plane_at(self.native(i), (z + 0.5) / self.shape[1]), self.shape[2:])

    def at(self, position: Sequence[int]) -> FloatMap:
        """Return the values of all layers at one pixel of the network's input, (L,).

        Equal to ``stack[:, y, x]`` up to rounding, from the cells around the pixel alone.

        Parameters
        ----------
        position : (y, x) or (z, y, x)
            Indices in the upsampled maps.
        """
        values = np.empty(len(self), np.float64)
        for i, raw in enumerate(self.maps):
            cells: npt.NDArray[Any] = raw
            for index, count in zip(position, self.shape[1:], strict=True):
                # The interpolation of `upsample` along one axis, which removes it.
                at = max((index + 0.5) * len(cells) / count - 0.5, 0.0)
                below = min(int(at), len(cells) - 1)
                above = min(below + 1, len(cells) - 1)
                # Rectified before they are mixed, as in `native`.
                low, high = (cells[k].astype(np.float64) for k in (below, above))
                if not self.signed:
                    low, high = np.maximum(low, 0), np.maximum(high, 0)
                cells = (1 - (at - below)) * low + (at - below) * high
            values[i] = self._normalized(i, cells)
        return values.astype(np.float32)

    def _normalized(self, i: int, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.normalization is None:
            return values
        low, high = self.limits(i)
        # A constant map becomes 0, not 1.
        return (values - low) / (high - low if high > low else np.inf)

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) and key else (key,)
        if all(is_basic_index(part) for part in rest):
            # The indexing of viewers and loops: compute only the planes that it needs.
            if is_basic_index(first) and not isinstance(first, slice):
                layer = range(len(self))[first]
                if self.ndim == 4 and rest and not isinstance(rest[0], slice):
                    z = range(self.shape[1])[rest[0]]
                    return self.section(layer, z)[tuple(rest[1:])]
                return self.plane(layer)[tuple(rest)]
            if isinstance(first, slice) or _is_list(first):
                return self._planes(np.arange(len(self))[first])[(slice(None), *rest)]
        return self._planes(np.arange(len(self)))[key]

    def _planes(self, indices: npt.NDArray[np.intp]) -> FloatMap:
        planes = np.empty((len(indices), *self.shape[1:]), np.float32)
        for row, i in zip(planes, indices, strict=True):
            row[:] = self.plane(int(i))
        return planes

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)


def stack_maps(
    result: Result, normalization: Normalization | None = "local", *, signed: bool = False
) -> Stack:
    """Return all maps of a result as one lazy array, at the network's input size.

    Parameters
    ----------
    result : Result
    normalization : {"local", "global", None}
        ``(c - min) / (max - min)`` over the raw map of each layer, or over those of all layers;
        None for raw values.
    signed : bool
        Keep negative evidence: divide by the largest absolute value, so that 0 stays 0 and
        values lie in [-1, 1]. Otherwise negative values are set to 0 (ReLU), and values lie in [0, 1].

    Returns
    -------
    Stack
        (L, H, W) or (L, D, H, W); slices are computed on access.
    """
    size, extremes = result.geometry.size, result.extremes
    return Stack(result.maps, size, normalization, signed=signed, extremes=extremes)


def is_basic_index(part: Any) -> bool:
    """Return whether an index is an integer or a slice; numpy treats booleans as masks."""
    return isinstance(part, int | np.integer | slice) and not isinstance(part, bool)


def _is_list(part: Any) -> bool:
    """Return whether an index is a list of integers."""
    return (
        isinstance(part, list | np.ndarray)
        and np.ndim(part) == 1
        and np.asarray(part).dtype.kind in "iu"
    )
