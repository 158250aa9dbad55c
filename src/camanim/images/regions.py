"""Read parts of images of any size: memory maps, dask, zarr, levels of a pyramid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError
from camanim.images.geometry import Geometry, format_size
from camanim.images.values import as_array, checked_array
from camanim.short_repr import ShortRepr

Ranges = Sequence[tuple[int, int]]


def is_box(box: Any) -> bool:
    """Return whether a value is a box: four or six finite numbers, the lower ends first."""
    try:
        edges = [float(value) for value in box]
    except (TypeError, ValueError):
        return False
    half = len(edges) // 2
    ordered = all(low < high for low, high in zip(edges[:half], edges[half:], strict=False))
    return len(edges) in (4, 6) and all(map(math.isfinite, edges)) and ordered


@dataclass(frozen=True)
class Region(ShortRepr):
    """The pixels of a box of an image, and their position in the image.

    Attributes
    ----------
    pixels : numpy.ndarray
        (h, w), (h, w, C), (d, h, w) or (d, h, w, C), of the image's type.
    placement : Geometry
        Maps coordinates of `pixels` to the image.
    notes : tuple of str
        Whether the box was clipped to the image.
    """

    pixels: npt.NDArray[Any]
    placement: Geometry
    notes: tuple[str, ...] = ()


class LazyImage:
    """An image of which only requested parts are read.

    Parameters
    ----------
    data : array-like
        (H, W), (H, W, C), (Z, Y, X) or (Z, Y, X, C): anything with a shape that can be sliced, such as a
        memory map, a dask or zarr array; or a sequence of these in decreasing size, the levels of a
        pyramid, of which the first is read. Anything else is converted to an array first.
    axes : {2, 3}
        Number of spatial axes.
    box : sequence of float, optional
        Part of the image that this one consists of; see `take_region`.

    Attributes
    ----------
    shape : tuple of int
        Size along the spatial axes, of the box if there is one.
    origin : tuple of int
        Index of the first pixel of the box in the image.
    notes : tuple of str
        Whether the box was clipped to the image.

    Raises
    ------
    ImageError
        If the data has other axes, or the box lies outside of it.
    """

    def __init__(self, data: Any, axes: int, box: Sequence[float] | None = None) -> None:
        self._data = _sliceable(data, axes)
        whole = tuple(int(n) for n in self._data.shape)
        if len(whole) not in (axes, axes + 1):
            expected = {2: "(H, W) or (H, W, C)", 3: "(Z, Y, X) or (Z, Y, X, C)"}[axes]
            raise ImageError(
                f"An image of {axes} spatial axes is {expected}, this one has the shape {whole}."
            )
        if 0 in whole:
            raise ImageError(f"The image is empty: its shape is {whole}.")
        self.shape, self.origin = whole[:axes], (0,) * axes
        self.notes: tuple[str, ...] = ()
        if box is not None:
            ranges = self._clipped(box)
            self.origin = tuple(start for start, _ in ranges)
            self.shape = tuple(stop - start for start, stop in ranges)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        dtype: np.dtype[Any] = np.dtype(self._data.dtype)
        return dtype

    @property
    def placement(self) -> Geometry:
        """Maps coordinates of this image to the data."""
        return Geometry(self.shape, offset=tuple(float(n) for n in self.origin))

    def read(self, ranges: Ranges) -> npt.NDArray[Any]:
        """Return the pixels in a range along each spatial axis, and nothing else of the data.

        Raises
        ------
        ImageError
            If they cannot be read, or are masked.
        """
        shifted = [
            (o + start, o + stop) for o, (start, stop) in zip(self.origin, ranges, strict=True)
        ]
        return checked_array(self._data[tuple(slice(*r) for r in shifted)], "image")

    def _clipped(self, box: Sequence[float]) -> list[tuple[int, int]]:
        axes = len(self.shape)
        if not is_box(box) or len(box) != 2 * axes:
            names = {2: "(y0, x0, y1, x1)", 3: "(z0, y0, x0, z1, y1, x1)"}[axes]
            raise ImageError(f"A box of this image is {names}, lower ends first, not {box!r}.")
        edges = [math.floor(value + 0.5) for value in box]
        wanted = list(zip(edges[:axes], edges[axes:], strict=True))
        ranges = [(max(a, 0), min(b, n)) for (a, b), n in zip(wanted, self.shape, strict=True)]
        if any(start >= stop for start, stop in ranges):
            raise ImageError(
                f"The box {tuple(box)} contains no pixel of the image of {format_size(self.shape)}."
            )
        if ranges != wanted:
            kept = (*(a for a, _ in ranges), *(b for _, b in ranges))
            self.notes = (f"The box was clipped to the image: {kept}.",)
        return ranges


def _sliceable(data: Any, axes: int) -> Any:
    """Return the data, or its first level, as something with a shape that can be sliced."""
    if isinstance(data, Sequence) and not isinstance(data, str | bytes) and len(data):
        shapes = [getattr(level, "shape", None) for level in data]
        if all(shape is not None and len(shape) in (axes, axes + 1) for shape in shapes):
            sizes = [math.prod(shape[:axes]) for shape in shapes if shape is not None]
            if any(finer <= coarser for finer, coarser in pairwise(sizes)):
                raise ImageError(
                    "A list of images is taken for the levels of a pyramid, each smaller than the one "
                    "before: pass a single image, or a volume as one array."
                )
            return data[0]
    known = all(hasattr(data, name) for name in ("shape", "dtype", "ndim", "__getitem__"))
    return data if known else as_array(data)


def take_region(data: Any, box: Iterable[float], axes: int | None = None) -> Region:
    """Read a box of an image at full resolution, and nothing else of it.

    Parameters
    ----------
    data : array-like
        (H, W), (H, W, C), (Z, Y, X) or (Z, Y, X, C) of any size: numpy, a memory map, dask, zarr, or
        anything with a shape that can be sliced; or a list of these, the levels of a pyramid, of which
        the first is read.
    box : sequence of float
        (y0, x0, y1, x1), or (z0, y0, x0, z1, y1, x1) of a volume: edges in pixels, of the first level.
        They are rounded to whole pixels, and clipped to the image with a note.
    axes : {2, 3}, optional
        Number of spatial axes; by default half the length of the box.

    Returns
    -------
    Region

    Raises
    ------
    ImageError
        If the box is no box, contains no pixel, or has another number of axes than the image.

    Examples
    --------
    >>> import numpy as np
    >>> slide = np.zeros((5000, 4000, 3), np.uint8)
    >>> region = take_region(slide, (1000, 500, 1224, 724))
    >>> region.pixels.shape, region.placement.offset
    ((224, 224, 3), (1000.0, 500.0))
    """
    edges = list(box) if isinstance(box, Iterable) else box
    if not is_box(edges):
        raise ImageError(f"A box is (y0, x0, y1, x1), lower ends first, not {box!r:.200}.")
    image = LazyImage(data, len(edges) // 2 if axes is None else axes, edges)
    pixels = image.read([(0, n) for n in image.shape])
    return Region(pixels, image.placement, image.notes)
