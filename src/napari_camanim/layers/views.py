"""Conversion of image and Labels layers to inputs of the engine, by the state of the viewer."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError
from camanim.images import LazyImage, as_array, is_box

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer

#: Bytes of the largest region whose pixels are compared; larger ones would block the window.
COMPARED = 2**25


@dataclass(frozen=True)
class Region:
    """The explained region of an image layer: a slice or a volume, or a box of it.

    Attributes
    ----------
    shape : tuple of int
        Shape of the layer, without colours.
    axes : tuple of int
        Axes of the layer along which the region extends, two or three.
    position : tuple of int
        Index of the region along all axes of the layer; 0 along `axes`.
    corners : (n + 1, n) array
        World coordinates of the layer's first pixel, and of the last pixel along each axis.
    labels : tuple of str
        Names of the axes of the layer.
    channel_axis : int or None
        Axis of the layer whose positions are the channels of the network's input.
    box : tuple of (int, int), optional
        First pixel and end of the box along each of `axes`; by default the region is whole.
    is_picture : bool
        Whether the layer is `Result.image` alone, and not the image that this was taken from: pixels of
        the layer are then those of the picture.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    position: tuple[int, ...]
    corners: npt.NDArray[np.float64]
    labels: tuple[str, ...]
    channel_axis: int | None = None
    box: tuple[tuple[int, int], ...] | None = None
    is_picture: bool = False

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """First pixel and end along each of `axes`."""
        return self.box or tuple((0, self.shape[axis]) for axis in self.axes)

    @property
    def size(self) -> tuple[int, ...]:
        """Number of pixels along each of `axes`."""
        return tuple(stop - start for start, stop in self.ranges)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Length of the maps along each axis of the layer, in pixels of the image.

        1 along an axis with a slice; the maps are the same for all channels.
        """
        whole = (*self.axes, self.channel_axis)
        return tuple(n if axis in whole else 1 for axis, n in enumerate(self.shape))

    def cut(self, data: Any) -> npt.NDArray[Any]:
        """Read the region from an array with the axes of the layer, and nothing else of it."""
        along = dict(zip(self.axes, self.ranges, strict=True))
        key: list[Any] = [
            slice(*along[i]) if i in along else slice(None) if i == self.channel_axis else at
            for i, at in enumerate(self.position)
        ]
        pixels: npt.NDArray[Any] = as_array(data[tuple(key)])
        if self.channel_axis is None:
            return pixels
        return np.moveaxis(pixels, sum(axis < self.channel_axis for axis in self.axes), -1)

    def checksum(self, data: Any) -> int | None:
        """Return a checksum of the region's pixels, to notice changes in place.

        None if the array is not in memory, or the region is larger than `COMPARED`.
        """
        if not isinstance(data, np.ndarray):
            return None
        pixels = self.cut(data)
        if pixels.nbytes > COMPARED:
            return None
        return zlib.crc32(np.ascontiguousarray(pixels).data)

    @classmethod
    def of_picture(cls, layer: Image, axes: Sequence[int]) -> Region:
        """Return the region of a layer that shows `Result.image`, along some of its axes."""
        shape = tuple(map(int, layer.data.shape[: layer.ndim]))
        corners, names = _corners(layer, layer.data), axis_names(layer)
        return cls(shape, tuple(axes), (0,) * len(shape), corners, names, is_picture=True)


class RegionPixels:
    """The pixels of a slice or a volume as a lazy array, of which only requested parts are read.

    Parameters
    ----------
    layers : sequence of (array-like, (low, high))
        Data of a layer and its contrast limits; several layers are the channels, scaled to [0, 1].
    region : Region
        Its box is ignored.

    Attributes
    ----------
    shape : tuple of int
        (H, W), (H, W, C), (Z, Y, X) or (Z, Y, X, C), of the whole slice or volume.
    """

    def __init__(self, layers: Sequence[tuple[Any, tuple[float, float]]], region: Region) -> None:
        self._layers, self._region = layers, replace(region, box=None)
        data = layers[0][0]
        colours = tuple(data.shape[len(region.shape) :])
        if region.channel_axis is not None:
            colours = (region.shape[region.channel_axis],)
        if len(layers) > 1:
            colours = (len(layers),)
        self.shape: tuple[int, ...] = (*self._region.size, *map(int, colours))
        self.ndim = len(self.shape)
        self.dtype = np.dtype(np.float32 if len(layers) > 1 else data.dtype)

    def __getitem__(self, key: tuple[slice, ...]) -> npt.NDArray[Any]:
        """Read a range along each spatial axis."""
        spans = zip(key, self._region.size, strict=True)
        box = tuple((part.indices(n)[0], part.indices(n)[1]) for part, n in spans)
        part = replace(self._region, box=box)
        if len(self._layers) == 1:
            return part.cut(self._layers[0][0])
        return np.stack([_scaled(part.cut(data), limits) for data, limits in self._layers], -1)


@dataclass(frozen=True)
class RegionData:
    """Pixels of the explained region.

    Attributes
    ----------
    pixels : array or RegionPixels
        (H, W) or (H, W, 3|4); a volume (Z, Y, X) or (Z, Y, X, 3|4).
    window : (low, high) or None
        Contrast limits of the layer; None for 8-bit and colour images.
    region : Region
    """

    pixels: Any
    window: tuple[float, float] | None
    region: Region


@dataclass(frozen=True)
class View:
    """The view of an image layer in a viewer; `read` loads the pixels and can run in a thread.

    Attributes
    ----------
    data : array-like
        Data of the layer.
    index : tuple of int
        Index of the sliders along all axes of the layer.
    displayed : tuple of int
        Displayed axes of the layer; negative for axes of the viewer that the layer lacks.
    fixed_range : bool
        Whether the range of values is known, as for 8-bit and colour images.
    limits : (low, high)
        Contrast limits of the layer.
    corners, labels, channel_axis
        See `Region`.
    name : str
        Name of the layer.
    others : tuple of (array-like, (low, high))
        Data and contrast limits of layers with further channels.
    box : tuple of ((float, float) or None), optional
        Range of pixels along each axis of the layer, None for all of an axis; rounded, and clipped to
        the image. Ranges along axes of sliders are ignored.
    box_words : str
        How the box was taken from a shape, such as ``"the bounding box of an ellipse"``.
    """

    data: Any
    index: tuple[int, ...]
    displayed: tuple[int, ...]
    fixed_range: bool
    limits: tuple[float, float]
    corners: npt.NDArray[np.float64]
    labels: tuple[str, ...]
    channel_axis: int | None = None
    name: str = ""
    others: tuple[tuple[Any, tuple[float, float]], ...] = ()
    box: tuple[tuple[float, float] | None, ...] | None = None
    box_words: str = ""

    def within(self, box: Sequence[float], space: int) -> View:
        """Return the view of a box of the slice (2) or of the volume (3).

        Parameters
        ----------
        box : sequence of float
            (y0, x0, y1, x1), of a volume also (z0, y0, x0, z1, y1, x1), in pixels, the ends excluded.

        Raises
        ------
        ImageError
            If it is no box, or as of `read`.
        """
        axes = self._axes(space)
        edges = [float(edge) for edge in box] if is_box(box) else []
        count = len(edges) // 2
        if count not in (2, len(axes)):
            names = {2: "(y0, x0, y1, x1)", 3: "(z0, y0, x0, z1, y1, x1)"}[space]
            raise ImageError(f"A box of this image is {names}, lower ends first, not {box!r:.100}.")
        ranges: list[tuple[float, float] | None] = [None] * len(self.index)
        for axis, start, stop in zip(axes[-count:], edges, edges[count:], strict=False):
            ranges[axis] = (start, stop)
        return replace(self, box=tuple(ranges))

    def read(self, space: int) -> RegionData:
        """Return the shown slice (2), or the volume along the last three axes (3).

        Raises
        ------
        ImageError
            If the view shows no slice, the image has no depth, or the sliders are outside of it.
        """
        lazy = self.source(space)
        ranges = lazy.region.ranges
        return replace(lazy, pixels=lazy.pixels[tuple(slice(*each) for each in ranges)])

    def source(self, space: int) -> RegionData:
        """Return what `read` does, with lazy pixels of the whole slice or volume; nothing is read.

        Raises
        ------
        ImageError
            As of `read`.
        """
        region = self.region(space)
        pixels = RegionPixels(((self.data, self.limits), *self.others), region)
        window = (0.0, 1.0) if self.others else None if self.fixed_range else self.limits
        return RegionData(pixels, window, region)

    def region(self, space: int) -> Region:
        """Return the region that `read` returns the pixels of; see there."""
        region = self._region(self._axes(space))
        if self.box is None:
            return region
        edges = self.edges(region.axes)
        # Rounded and clipped as by the engine.
        part = LazyImage(RegionPixels([(self.data, self.limits)], region), len(region.axes), edges)
        ends = (o + n for o, n in zip(part.origin, part.shape, strict=True))
        return replace(region, box=tuple(zip(part.origin, ends, strict=True)))

    def edges(self, axes: Sequence[int]) -> tuple[float, ...] | None:
        """Return the box along some axes of the layer, lower ends first; None without a box."""
        if self.box is None:
            return None
        ranges = [self.box[axis] or (0, self.data.shape[axis]) for axis in axes]
        return (*(float(a) for a, _ in ranges), *(float(b) for _, b in ranges))

    def words(self, space: int) -> str:
        """Return what `read` returns in words, such as ``"slice z = 12 of CT, 512 x 512"``.

        Raises
        ------
        ImageError
            As of `read`.
        """
        region = self.region(space)
        whole = _sides(tuple(region.shape[axis] for axis in region.axes))
        sides = whole if region.box is None else f"{_sides(region.size)} of {whole}"
        fixed = [
            f"{self.labels[axis]} = {at}"
            for axis, at in enumerate(region.position)
            if axis not in (*region.axes, region.channel_axis)
        ]
        what = f"{'slice' if space == 2 else 'volume'} {', '.join(fixed)} of " if fixed else ""
        parts = [f"{what}{self.name}", sides]
        if region.box is not None:
            ranges = ", ".join(f"{start}..{stop}" for start, stop in region.box)
            parts[0] = f"box {ranges} of {parts[0]}"
            parts += [self.box_words] if self.box_words else []
        if region.channel_axis is not None:
            count = region.shape[region.channel_axis]
            parts.append(f"{count} channels along {self.labels[region.channel_axis]}")
        if self.others:
            parts.append(f"{1 + len(self.others)} layers as channels")
        elif not self.fixed_range:
            parts.append(f"shown as {self.limits[0]:.4g}..{self.limits[1]:.4g}")
        return ", ".join(parts)

    def _axes(self, space: int) -> tuple[int, ...]:
        return self._plane() if space == 2 else self._volume()

    def _plane(self) -> tuple[int, ...]:
        if len(self.displayed) != 2:
            raise ImageError("The network explains a slice: switch to the 2-D view first.")
        if len(self.index) == 2:
            return (0, 1)
        if self.displayed[0] < 0 or self.channel_axis in self.displayed:
            raise ImageError("The view shows no slice of the image: roll the dimensions.")
        return self.displayed

    def _volume(self) -> tuple[int, ...]:
        axes = tuple(axis for axis in range(len(self.index)) if axis != self.channel_axis)
        if len(axes) < 3:
            raise ImageError("The network needs a volume (z, y, x), and the image has no depth.")
        return axes[-3:]

    def _region(self, axes: tuple[int, ...]) -> Region:
        shape = tuple(self.data.shape[: len(self.index)])
        whole = (*axes, self.channel_axis)
        sliced = [axis for axis in range(len(shape)) if axis not in whole]
        if any(not 0 <= self.index[axis] < shape[axis] for axis in sliced):
            raise ImageError("The sliders are outside of the image: move them into it first.")
        position = tuple(i if axis in sliced else 0 for axis, i in enumerate(self.index))
        return Region(shape, axes, position, self.corners, self.labels, self.channel_axis)


@dataclass(frozen=True)
class Mask:
    """A Labels layer as a mask; `read` loads it and can run in a thread.

    Attributes
    ----------
    data : array-like
        Data of the layer; values other than 0 are inside the mask.
    name : str
    corners : (n + 1, n) array
        See `Region`.
    """

    data: Any
    name: str
    corners: npt.NDArray[np.float64]

    def read(self, region: Region) -> npt.NDArray[np.bool_]:
        """Return the mask of a region of an image.

        Raises
        ------
        ImageError
            If shape or position of the mask differ from those of the image.
        """
        shape, ndim = tuple(self.data.shape), len(region.shape)
        # If the region extends along the last axes, a mask with only these axes is also valid.
        is_last = region.axes == tuple(range(ndim - len(region.axes), ndim))
        first = ndim - len(region.axes) if is_last and len(shape) == len(region.axes) else 0
        if shape != region.shape[first:]:
            raise ImageError(
                f"The mask {self.name} has the shape {_sides(shape)}, and the image "
                f"{_sides(region.shape)}: choose a Labels layer of the same shape."
            )
        corners = region.corners[:, first:][[0, *range(first + 1, ndim + 1)]]
        pixel = np.linalg.norm(corners[1:] - corners[0], axis=1) / np.maximum(1, shape)
        if not np.allclose(
            self.corners, corners, rtol=0, atol=0.5 * pixel[pixel > 0].min(initial=1)
        ):
            raise ImageError(
                f"The mask {self.name} has another position than the image: set the same scale and "
                "translation for both layers."
            )
        if first:
            inside = self.data[tuple(slice(*each) for each in region.ranges)]
        else:
            inside = region.cut(self.data)
        return np.asarray(np.asarray(inside) != 0)


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _scaled(pixels: npt.NDArray[Any], limits: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Return intensities as shares of the contrast limits, clipped to [0, 1]."""
    low, high = limits
    shares = (pixels.astype(np.float64) - low) / max(high - low, np.finfo(float).tiny)
    return np.clip(shares, 0, 1).astype(np.float32)


def take_view(
    viewer: ViewerModel, layer: Image, channels: int | Sequence[Image] | None = None
) -> View:
    """Return the view of an image layer in a viewer.

    Parameters
    ----------
    viewer : napari viewer
    layer : napari.layers.Image
    channels : int or sequence of Image, optional
        Axis of the layer with the channels of the network's input, or layers of the same shape and
        position with further channels.

    Raises
    ------
    ImageError
        If another layer has another shape or position, or is a colour image.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    before = viewer.dims.ndim - layer.ndim
    others = () if channels is None or isinstance(channels, int) else tuple(channels)
    for other in others:
        same = not (layer.rgb or other.rgb) and other.data.shape == layer.data.shape
        if layer.multiscale or other.multiscale or not same:
            raise ImageError(
                f"{other.name} and {layer.name} cannot be channels of one image: choose grey layers of "
                "the same shape."
            )
        if not np.allclose(_corners(other, other.data), _corners(layer, data)):
            raise ImageError(
                f"{other.name} has another position than {layer.name}: set the same scale and "
                "translation for both layers."
            )
    return View(
        data=data,
        index=index_in(viewer, layer),
        displayed=tuple(sorted(axis - before for axis in viewer.dims.displayed)),
        fixed_range=layer.rgb or data.dtype == np.uint8 or data.dtype == bool,
        limits=_limits(layer),
        corners=_corners(layer, data),
        labels=axis_names(layer),
        channel_axis=channels if isinstance(channels, int) else None,
        name=layer.name,
        others=tuple((other.data, _limits(other)) for other in others),
    )


def _limits(layer: Image) -> tuple[float, float]:
    low, high = layer.contrast_limits
    return float(low), float(high)


def axis_names(layer: Layer) -> tuple[str, ...]:
    """Return the names of the axes of a layer; by default t, z, y and x from the last one backwards."""
    labels: tuple[str, ...] = tuple(layer.axis_labels)
    is_default = labels == tuple(f"{i}" for i in range(-layer.ndim, 0))
    if not is_default:
        return labels
    names = ("t", "z", "y", "x")
    return tuple(names[i] if i >= -len(names) else f"axis {i}" for i in range(-layer.ndim, 0))


def take_mask(layer: Labels) -> Mask:
    """Return a Labels layer as a mask."""
    data = layer.data[0] if layer.multiscale else layer.data
    return Mask(data, layer.name, _corners(layer, data))


def index_in(viewer: ViewerModel, layer: Layer) -> tuple[int, ...]:
    """Return the index of the sliders along the axes of a layer."""
    inside = layer.world_to_data(viewer.dims.point[-layer.ndim :])
    return tuple(int(i) for i in np.round(inside))


def _corners(layer: Layer, data: Any) -> npt.NDArray[np.float64]:
    ends = np.diag(np.subtract(data.shape[: layer.ndim], 1))
    return np.array([layer.data_to_world(at) for at in (np.zeros(layer.ndim), *ends)])
