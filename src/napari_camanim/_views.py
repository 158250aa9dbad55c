"""Image layer to engine input: which part of an image is explained, and what a mask says about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer


@dataclass(frozen=True)
class Part:
    """Which part of an image layer is explained.

    Attributes
    ----------
    shape : tuple of int
        Of the layer, without colours.
    axes : tuple of int
        The layer's axes that the part runs along, two or three.
    position : tuple of int
        The layer's index along all of its axes; 0 along `axes`.
    corners : (n + 1, n) array
        Where the layer's first pixel, and the last one along each axis, lie in the world.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    position: tuple[int, ...]
    corners: npt.NDArray[np.float64]

    def cut(self, data: Any) -> npt.NDArray[Any]:
        """Take the part out of something that has the layer's axes."""
        key = [slice(None) if i in self.axes else at for i, at in enumerate(self.position)]
        return np.asarray(data[tuple(key)])


@dataclass(frozen=True)
class Shown:
    """The part of an image layer that is explained, as it was read.

    Attributes
    ----------
    pixels : array
        (H, W) or (H, W, 3|4); a volume (Z, Y, X) or (Z, Y, X, 3|4).
    window : (low, high) or None
        The layer's contrast limits; None for what has 8 bits or colours, which speaks for itself.
    part : Part
    """

    pixels: npt.NDArray[Any]
    window: tuple[float, float] | None
    part: Part


@dataclass(frozen=True)
class View:
    """Where a viewer stood in an image layer; pixels are read when asked for, also in a thread.

    Attributes
    ----------
    data : array-like
        The layer's.
    index : tuple of int
        Where the sliders stand, along all of the layer's axes.
    displayed : tuple of int
        The layer's axes that are shown; negative where the view shows one that it has not.
    own_scale : bool
        Whether the values speak for themselves, as 8 bits and colours do.
    limits : (low, high)
        The layer's contrast limits.
    corners : (n + 1, n) array
        See `Part`.
    """

    data: Any
    index: tuple[int, ...]
    displayed: tuple[int, ...]
    own_scale: bool
    limits: tuple[float, float]
    corners: npt.NDArray[np.float64]

    def read(self, space: int) -> Shown:
        """Take the shown slice (2), or the volume along the last three axes (3).

        Raises
        ------
        ImageError
            When the view shows no slice, the image has no depth, or the sliders stand outside of it.
        """
        part = self._part(self._plane() if space == 2 else self._volume())
        return Shown(part.cut(self.data), None if self.own_scale else self.limits, part)

    def _plane(self) -> tuple[int, ...]:
        if len(self.displayed) != 2:
            raise ImageError("What is explained is a slice: switch to the 2-D view first.")
        if len(self.index) == 2:
            return (0, 1)
        if self.displayed[0] < 0:
            raise ImageError("The view shows no slice of the image: roll the axes until it does.")
        return self.displayed

    def _volume(self) -> tuple[int, ...]:
        ndim = len(self.index)
        if ndim < 3:
            raise ImageError("The image has no depth, and a volume (z, y, x) is wanted.")
        return (ndim - 3, ndim - 2, ndim - 1)

    def _part(self, axes: tuple[int, ...]) -> Part:
        shape = tuple(self.data.shape[: len(self.index)])
        sliced = [axis for axis in range(len(shape)) if axis not in axes]
        if any(not 0 <= self.index[axis] < shape[axis] for axis in sliced):
            raise ImageError("The sliders stand outside of the image: move them into it first.")
        at = tuple(i if axis in sliced else 0 for axis, i in enumerate(self.index))
        return Part(shape, axes, at, self.corners)


@dataclass(frozen=True)
class Mask:
    """A Labels layer that says where a map should look; it is read when asked for.

    Attributes
    ----------
    data : array-like
        The layer's; everything but 0 is inside.
    name : str
    corners : (n + 1, n) array
        See `Part`.
    """

    data: Any
    name: str
    corners: npt.NDArray[np.float64]

    def read(self, part: Part) -> npt.NDArray[np.bool_]:
        """Take what lies over a part of an image: its slice, or its volume.

        Raises
        ------
        ImageError
            When the mask is of another shape than the image, or lies elsewhere.
        """
        shape, ndim = tuple(self.data.shape), len(part.shape)
        # A mask without the image's other axes is as good, where the part runs along the last ones.
        flat = part.axes == tuple(range(ndim - len(part.axes), ndim))
        first = ndim - len(part.axes) if flat and len(shape) == len(part.axes) else 0
        if shape != part.shape[first:]:
            raise ImageError(
                f"The mask {self.name} has the shape {_sides(shape)} and the image has "
                f"{_sides(part.shape)}: choose a Labels layer of the image's own shape."
            )
        theirs = part.corners[:, first:][[0, *range(first + 1, ndim + 1)]]
        pixel = np.linalg.norm(theirs[1:] - theirs[0], axis=1) / np.maximum(1, shape)
        if not np.allclose(
            self.corners, theirs, rtol=0, atol=0.5 * pixel[pixel > 0].min(initial=1)
        ):
            raise ImageError(
                f"The mask {self.name} lies elsewhere than the image: give both layers the same "
                "scale and translation."
            )
        return np.asarray((np.asarray(self.data) if first else part.cut(self.data)) != 0)


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def take_view(viewer: ViewerModel, layer: Image) -> View:
    """Note where a viewer stands in an image layer.

    Parameters
    ----------
    viewer : napari viewer
    layer : napari.layers.Image
    """
    data = layer.data[0] if layer.multiscale else layer.data
    before = viewer.dims.ndim - layer.ndim
    low, high = layer.contrast_limits
    return View(
        data=data,
        index=index_in(viewer, layer),
        displayed=tuple(sorted(axis - before for axis in viewer.dims.displayed)),
        own_scale=layer.rgb or data.dtype == np.uint8 or data.dtype == bool,
        limits=(float(low), float(high)),
        corners=_corners(layer, data),
    )


def take_mask(layer: Labels) -> Mask:
    """Note what a Labels layer holds, and where it lies."""
    data = layer.data[0] if layer.multiscale else layer.data
    return Mask(data, layer.name, _corners(layer, data))


def index_in(viewer: ViewerModel, layer: Layer) -> tuple[int, ...]:
    """Return the layer's index where the sliders stand."""
    inside = layer.world_to_data(viewer.dims.point[-layer.ndim :])
    return tuple(int(i) for i in np.round(inside))


def _corners(layer: Layer, data: Any) -> npt.NDArray[np.float64]:
    ends = np.diag(np.subtract(data.shape[: layer.ndim], 1))
    return np.array([layer.data_to_world(at) for at in (np.zeros(layer.ndim), *ends)])
