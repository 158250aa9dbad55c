"""All maps as one lazy array: ReLU, normalisation and upsampling happen when somebody looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from camanim.resampling import resize

if TYPE_CHECKING:
    from camanim.result import Result

Normalization = Literal["local", "global"]
FloatMap = npt.NDArray[np.float32]


def upsample(maps: FloatMap, size: tuple[int, ...]) -> FloatMap:
    """Resize maps linearly along each axis; pixels are areas, not points (``align_corners=False``).

    Parameters
    ----------
    maps : (..., h, w) or (..., d, h, w) float32 array
    size : (H, W) or (D, H, W)

    Returns
    -------
    (..., H, W) or (..., D, H, W) float32 array
    """
    import torch

    array: FloatMap = resize(torch.from_numpy(np.ascontiguousarray(maps)), size).numpy()
    return array


def relevance(raw: FloatMap, size: tuple[int, ...]) -> FloatMap:
    """Bring a map's positive part to the network's input size, as shares of its maximum.

    Shares first: raw maps of deep networks come close to float32's smallest numbers.

    Parameters
    ----------
    raw : (h, w) or (d, h, w) float32 array
        Finite.
    size : (H, W) or (D, H, W)

    Returns
    -------
    (H, W) or (D, H, W) float32 array
        Zero everywhere where there is nothing positive.
    """
    positive = np.maximum(raw, 0).astype(np.float64)
    highest = positive.max()
    shares = positive / highest if highest > 0 else positive
    return upsample(shares.astype(np.float32), size)


class Stack:
    """The maps as an array (L, H, W) or (L, D, H, W) of float32 that costs no more memory than they do.

    Supports what napari, numpy and dask ask of an array: ``shape``, ``dtype``, ``ndim``, ``size``,
    ``len``, basic and advanced indexing, ``numpy.asarray``. Limits for the normalisation are taken
    over the *raw* maps at their native resolution, after the ReLU.

    Parameters
    ----------
    maps : sequence of (h, w) or (d, h, w) float32 arrays
        Raw maps, each at its own resolution.
    size : (H, W) or (D, H, W)
        The network's input size, to which a layer's map is brought.
    normalization : {"local", "global", None}
    signed : bool
        See `stack_maps`.
    extremes : sequence of (min, max), optional
        Of the raw maps, where `maps` are parts of larger ones.
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
            raise ValueError(f'normalization is "local", "global" or None, not {normalization!r}.')
        self.maps = maps
        self.normalization = normalization
        self.signed = signed
        self.shape = (len(maps), *size)
        self.ndim = len(self.shape)
        self.size = math.prod(self.shape)
        self._given = extremes

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def _global_limits(self) -> tuple[float, float]:
        limits = [self._own_limits(i) for i in range(len(self))]
        return min(low for low, _ in limits), max(high for _, high in limits)

    def _own_limits(self, i: int) -> tuple[float, float]:
        raw = self.maps[i]
        low, high = (float(raw.min()), float(raw.max())) if self._given is None else self._given[i]
        if self.signed:
            return 0.0, max(abs(low), abs(high))
        return max(low, 0.0), max(high, 0.0)

    def limits(self, i: int) -> tuple[float, float]:
        """Return the raw values that become 0 and 1 in layer `i`."""
        if self.normalization == "global":
            return self._global_limits
        return self._own_limits(i)

    def native(self, i: int) -> FloatMap:
        """Return the map of layer `i` normalised, at the layer's own resolution."""
        raw = self.maps[i] if self.signed else np.maximum(self.maps[i], 0)
        if self.normalization is None:
            return raw
        low, high = self.limits(i)
        # A flat map shows as nothing at all rather than as everything.
        span = high - low if high > low else np.inf
        # In float64: raw maps of deep networks come close to float32's smallest numbers.
        return ((raw.astype(np.float64) - low) / span).astype(np.float32)

    def plane(self, i: int) -> FloatMap:
        """Return the map of layer `i`, (H, W) or (D, H, W)."""
        return upsample(self.native(i), self.shape[1:])

    def section(self, i: int, z: int) -> FloatMap:
        """Return one plane of layer `i` of a volume, (H, W), without making the others."""
        native, depth = self.native(i), self.shape[1]
        at = np.clip((z + 0.5) * len(native) / depth - 0.5, 0, len(native) - 1)
        below, share = int(at), at - int(at)
        plane = native[below]
        if share:
            plane = (1 - share) * plane + share * native[below + 1]
        return upsample(plane.astype(np.float32), self.shape[2:])

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) and key else (key,)
        if all(is_plain(part) for part in rest):
            # What viewers and loops ask for: only the planes that are looked at are made.
            if is_plain(first) and not isinstance(first, slice):
                layer = range(len(self))[first]
                if self.ndim == 4 and rest and not isinstance(rest[0], slice):
                    z = range(self.shape[1])[rest[0]]
                    return self.section(layer, z)[tuple(rest[1:])]
                return self.plane(layer)[tuple(rest)]
            if isinstance(first, slice) or _is_list(first):
                return self._planes(np.arange(len(self))[first])[(slice(None), *rest)]
        return self._planes(np.arange(len(self)))[key]

    def _planes(self, chosen: npt.NDArray[np.intp]) -> FloatMap:
        planes = np.empty((len(chosen), *self.shape[1:]), np.float32)
        for row, i in zip(planes, chosen, strict=True):
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
        ``(c - min) / (max - min)`` over one layer's raw map, or over those of all layers;
        None leaves the raw values.
    signed : bool
        Keep negative evidence: divide by the largest absolute value, so that 0 stays 0 and
        values lie in [-1, 1]. Otherwise negative values are cut off (ReLU) first, and values
        lie in [0, 1].

    Returns
    -------
    Stack
        (L, H, W) or (L, D, H, W), with ``shape``, ``dtype``, ``ndim``, ``size``; a slice is made when
        it is read.
    """
    size, extremes = result.geometry.size, result.extremes
    return Stack(result.maps, size, normalization, signed=signed, extremes=extremes)


def is_plain(part: Any) -> bool:
    """Whether it is an integer or a slice; True and False are masks to numpy."""
    return isinstance(part, int | np.integer | slice) and not isinstance(part, bool)


def _is_list(part: Any) -> bool:
    """Whether it is a list of indices."""
    return (
        isinstance(part, list | np.ndarray)
        and np.ndim(part) == 1
        and np.asarray(part).dtype.kind in "iu"
    )
