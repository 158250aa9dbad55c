"""All maps as one lazy array: ReLU, normalisation and upsampling happen when somebody looks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.animation import Normalization

FloatMap = npt.NDArray[np.float32]


def upsample(maps: FloatMap, size: tuple[int, int]) -> FloatMap:
    """Resize maps bilinearly; pixels are areas, not points (``align_corners=False``).

    Parameters
    ----------
    maps : (..., h, w) float32 array
    size : (H, W)

    Returns
    -------
    (..., H, W) float32 array
    """
    import torch
    from torch.nn.functional import interpolate

    planes = torch.from_numpy(np.ascontiguousarray(maps)).reshape(-1, 1, *maps.shape[-2:])
    large = interpolate(planes, size=size, mode="bilinear", align_corners=False)
    array: FloatMap = large.reshape(*maps.shape[:-2], *size).numpy()
    return array


class Stack:
    """The maps as an array (L, H, W) of float32 that costs no more memory than the native maps.

    Supports what napari, numpy and dask ask of an array: ``shape``, ``dtype``, ``ndim``, ``size``,
    ``len``, basic and advanced indexing, ``numpy.asarray``. Limits for the normalisation are taken
    over the *raw* maps at their native resolution, after the ReLU.

    Parameters
    ----------
    maps : sequence of (h, w) float32 arrays
        Raw maps, each at its own resolution.
    size : (H, W)
        The network's input size, to which a slice is brought.
    normalization : {"local", "global", None}
    signed : bool
        See `Animation.stack`.
    """

    dtype = np.dtype(np.float32)
    ndim = 3

    def __init__(
        self,
        maps: Sequence[FloatMap],
        size: tuple[int, int],
        normalization: Normalization | None = "local",
        *,
        signed: bool = False,
    ) -> None:
        if normalization not in ("local", "global", None):
            raise ValueError(f'normalization is "local", "global" or None, not {normalization!r}.')
        self.maps = maps
        self.normalization = normalization
        self.signed = signed
        self.shape = (len(maps), *size)
        self.size = len(maps) * size[0] * size[1]

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def _global_limits(self) -> tuple[float, float]:
        limits = [self._own_limits(m) for m in self.maps]
        return min(low for low, _ in limits), max(high for _, high in limits)

    def _own_limits(self, raw: FloatMap) -> tuple[float, float]:
        if self.signed:
            return 0.0, float(np.abs(raw).max())
        return max(float(raw.min()), 0.0), max(float(raw.max()), 0.0)

    def limits(self, i: int) -> tuple[float, float]:
        """Return the raw values that become 0 and 1 in slice `i`."""
        if self.normalization == "global":
            return self._global_limits
        return self._own_limits(self.maps[i])

    def native(self, i: int) -> FloatMap:
        """Return slice `i` normalised, at the layer's own resolution."""
        raw = self.maps[i] if self.signed else np.maximum(self.maps[i], 0)
        if self.normalization is None:
            return raw
        low, high = self.limits(i)
        # A flat map shows as nothing at all rather than as everything.
        span = high - low if high > low else np.inf
        # In float64: raw maps of deep networks come close to float32's smallest numbers.
        return ((raw.astype(np.float64) - low) / span).astype(np.float32)

    def plane(self, i: int) -> FloatMap:
        """Return slice `i`, (H, W)."""
        return upsample(self.native(i), (self.shape[1], self.shape[2]))

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) and key else (key,)
        if all(is_plain(part) for part in rest):
            # What viewers and loops ask for: only the planes that are looked at are made.
            if is_plain(first) and not isinstance(first, slice):
                return self.plane(range(len(self))[first])[tuple(rest)]
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
