"""Image layer to engine input, and `Animation` to layer: the only place that knows axes.

A stack has one axis more than its image, `layer`, in front. What is explained is the shown slice, or
the volume along the image's last three axes: the stack has length 1 along all other axes, and is
translated to the shown position there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image

from camanim.errors import ImageError
from camanim.stack import is_plain
from napari_camanim._metadata import KEY, metadata

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from camanim import Animation
    from camanim.animation import Normalization


@dataclass(frozen=True)
class Shown:
    """The part of an image layer that is explained.

    Attributes
    ----------
    pixels : array
        (H, W) or (H, W, 3|4); a volume (Z, Y, X) or (Z, Y, X, 3|4).
    window : (low, high) or None
        The layer's contrast limits; None for what has 8 bits or colours, which speaks for itself.
    axes : tuple of int
        The layer's axes that `pixels` runs along, two or three.
    position : tuple of float
        The layer's index along all of its axes; 0 along `axes`.
    """

    pixels: npt.NDArray[Any]
    window: tuple[float, float] | None
    axes: tuple[int, ...]
    position: tuple[float, ...]


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
    """

    data: Any
    index: tuple[int, ...]
    displayed: tuple[int, ...]
    own_scale: bool
    limits: tuple[float, float]

    def read(self, space: int) -> Shown:
        """Take the shown slice (2), or the volume along the last three axes (3).

        Raises
        ------
        ImageError
            When the view shows no slice, the image has no depth, or the sliders stand outside of it.
        """
        return self._cut(self._plane() if space == 2 else self._volume())

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

    def _cut(self, axes: tuple[int, ...]) -> Shown:
        sliced = [axis for axis in range(len(self.index)) if axis not in axes]
        if any(not 0 <= self.index[axis] < self.data.shape[axis] for axis in sliced):
            raise ImageError("The sliders stand outside of the image: move them into it first.")
        at = tuple(i if axis in sliced else 0 for axis, i in enumerate(self.index))
        key = tuple(i if axis in sliced else slice(None) for axis, i in enumerate(self.index))
        window = None if self.own_scale else self.limits
        return Shown(np.asarray(self.data[key]), window, axes, tuple(map(float, at)))


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
        index=_index(viewer, layer),
        displayed=tuple(sorted(axis - before for axis in viewer.dims.displayed)),
        own_scale=layer.rgb or data.dtype == np.uint8 or data.dtype == bool,
        limits=(float(low), float(high)),
    )


def _index(viewer: ViewerModel, layer: Layer) -> tuple[int, ...]:
    """Return the layer's index where the sliders stand."""
    inside = layer.world_to_data(viewer.dims.point[-layer.ndim :])
    return tuple(int(i) for i in np.round(inside))


class StackData:
    """A lazy stack with the axes of its layer, which also carries the animation it shows.

    Parameters
    ----------
    animation : Animation
    normalization : {"local", "global"}
    axes : sequence of int
        For each axis of the image, whether the maps run along it (True) or it has length 1.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self, animation: Animation, normalization: Normalization, axes: Sequence[bool]
    ) -> None:
        self.animation = animation
        self.normalization = normalization
        self.axes = tuple(axes)
        self._stack = animation.stack(normalization)
        count, *lengths = self._stack.shape
        sides = iter(lengths)
        self.shape = (count, *(next(sides) if along else 1 for along in self.axes))
        self.ndim = len(self.shape)
        self.size = self._stack.size
        self._insert = tuple(i + 1 for i, along in enumerate(self.axes) if not along)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if parts and len(parts) <= self.ndim and all(is_plain(part) for part in parts):
            # What napari asks for: only the planes that are looked at are made.
            return self._section((*parts, *[slice(None)] * (self.ndim - len(parts))))
        return np.expand_dims(np.asarray(self._stack), self._insert)[key]

    def _section(self, parts: tuple[Any, ...]) -> Any:
        """Index with an integer or a slice along every axis."""
        along = (True, *self.axes)
        section = self._stack[tuple(p for p, a in zip(parts, along, strict=True) if a)]
        opened: list[slice | None] = []
        cut: list[slice] = []
        for part, is_along in zip(parts, along, strict=True):
            if isinstance(part, slice):
                opened.append(slice(None) if is_along else None)
                cut.append(slice(None) if is_along else part)
            elif not is_along:
                # As numpy does: there is only one.
                range(1)[part]
        return section[tuple(opened)][tuple(cut)]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Any:
        return np.asarray(self[:], dtype=dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> StackData:
        # A duplicated layer shows the same animation; the network is not copied for it.
        return self.normalized(self.normalization)

    def normalized(self, normalization: Normalization) -> StackData:
        """Return the same stack with another normalisation."""
        return StackData(self.animation, normalization, self.axes)


def stack_layer(
    animation: Animation, image: Image, shown: Shown, normalization: Normalization
) -> Image:
    """Make the layer that shows an animation over its image.

    Parameters
    ----------
    animation : Animation
    image : napari.layers.Image
        Whose scale, translation, rotation, shear, affine transform, units and axis labels it takes.
    shown : Shown
        What was explained.
    normalization : {"local", "global"}

    Returns
    -------
    napari.layers.Image
    """
    place = _placement(animation, image, shown)
    along = [axis in shown.axes for axis in range(image.ndim)]
    return Image(
        StackData(animation, normalization, along),
        name=f"{image.name} {animation.method} {animation.target.name}",
        rgb=False,
        multiscale=False,
        colormap="turbo",
        opacity=0.5,
        contrast_limits=(0, 1),
        interpolation2d="nearest",
        scale=(1, *place["scale"]),
        translate=(0, *place["translate"]),
        rotate=_with_layer_axis(place["rotate"]),
        shear=_with_layer_axis(place["shear"]),
        affine=_with_layer_axis(place["affine"]),
        units=("pixel", *place["units"]),
        axis_labels=("layer", *place["axis_labels"]),
        metadata={KEY: metadata(animation, normalization)},
    )


def guided_layer(animation: Animation, image: Image, shown: Shown) -> Image | None:
    """Make the layer of a guided method's own image: the guided gradient, summed over channels.

    It is hidden at first, as two pictures at once would blend into one that is neither.

    Parameters
    ----------
    animation, image, shown
        See `stack_layer`.

    Returns
    -------
    napari.layers.Image or None
        None where the method is not a guided one.
    """
    from cmap import Colormap

    if animation.guided is None:
        return None
    # Slices lie along the batch's axis; a whole image is a batch of one.
    pixels = animation.guided.sum(1).numpy().reshape(animation.geometry.size)
    others = tuple(axis for axis in range(image.ndim) if axis not in shown.axes)
    highest = float(np.abs(pixels).max()) or 1.0
    return Image(
        np.expand_dims(pixels, others),
        name=f"{image.name} guided {animation.target.name}",
        rgb=False,
        multiscale=False,
        visible=False,
        colormap=Colormap("berlin").to_napari(),
        contrast_limits=(-highest, highest),
        interpolation2d="nearest",
        metadata={KEY: {"guided": True, "method": animation.method}},
        **_placement(animation, image, shown),
    )


def _placement(animation: Animation, image: Image, shown: Shown) -> dict[str, Any]:
    """Lead from pixels of the network's input to the world, along the image's axes."""
    # From the map's pixels to the image's ...
    cell, start = animation.geometry.affine(animation.geometry.size)
    pixel, origin = np.ones(image.ndim), np.array(shown.position)
    pixel[list(shown.axes)], origin[list(shown.axes)] = cell, start
    # ... and from there to the world.
    shear = _shear_matrix(image)
    matrix = np.asarray(image.rotate) @ shear @ np.diag(image.scale)
    return {
        "scale": np.asarray(image.scale) * pixel,
        "translate": np.asarray(image.translate) + matrix @ origin,
        "rotate": np.asarray(image.rotate),
        "shear": shear,
        "affine": image.affine.affine_matrix,
        "units": image.units,
        "axis_labels": _labels(image, len(shown.axes)),
    }


def _labels(image: Image, space: int) -> tuple[str, ...]:
    labels: tuple[str, ...] = image.axis_labels
    default = labels == tuple(f"{i}" for i in range(-image.ndim, 0))
    return (*labels[:-space], *"zyx"[-space:]) if default else labels


def _with_layer_axis(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    larger = np.eye(len(matrix) + 1)
    larger[1:, 1:] = matrix
    return larger


def _shear_matrix(image: Image) -> npt.NDArray[Any]:
    shear = np.asarray(image.shear)
    if shear.ndim == 2:
        return shear
    matrix = np.eye(image.ndim)
    matrix[np.triu_indices(image.ndim, 1)] = shear
    return matrix


def unwrapped(thing: Any) -> Any:
    """Take a layer or a viewer out of the proxy through which plugins see napari."""
    return getattr(thing, "__wrapped__", thing)


def is_stack(layer: Layer) -> bool:
    """Whether a layer shows an animation."""
    return isinstance(layer, Image) and KEY in layer.metadata and hasattr(layer.data, "animation")


def is_input(layer: Layer) -> bool:
    """Whether a layer is an image that can be explained, and none that was made here."""
    return isinstance(layer, Image) and KEY not in layer.metadata


def set_normalization(layer: Image, normalization: Normalization) -> None:
    """Switch a stack between local and global normalisation; nothing is computed again."""
    if layer.data.normalization != normalization:
        layer.data = layer.data.normalized(normalization)
        # A dictionary of its own: a duplicated layer shares that of its original.
        about = {**layer.metadata[KEY], "normalization": normalization}
        layer.metadata = {**layer.metadata, KEY: about}


def current_stack(viewer: ViewerModel) -> Image | None:
    """Choose the stack that captions, curve and buttons are about.

    Of those that are visible the selected one, else the topmost.
    """
    visible = [layer for layer in viewer.layers if layer.visible and is_stack(layer)]
    active = viewer.layers.selection.active
    if active in visible:
        return active
    return visible[-1] if visible else None


def shown_index(viewer: ViewerModel, stack: Image) -> int | None:
    """Return which of the stack's layers is shown; None where the view shows none, or many."""
    before = viewer.dims.ndim - stack.ndim
    displayed = [axis - before for axis in viewer.dims.displayed]
    if 0 in displayed:
        return None
    index = _index(viewer, stack)
    sliced = [axis for axis in range(stack.ndim) if axis not in displayed]
    if any(not 0 <= index[axis] < stack.data.shape[axis] for axis in sliced):
        return None
    return index[0]


def shown_plane(viewer: ViewerModel, stack: Image) -> int | None:
    """Return which plane of its volume a stack shows; None where it shows many, or has no planes."""
    geometry = stack.data.animation.geometry
    if len(geometry.size) == 2:
        return None
    axis = 1 + stack.data.axes.index(True)
    if axis + viewer.dims.ndim - stack.ndim in viewer.dims.displayed:
        return None
    place = stack.world_to_data(viewer.dims.point[-stack.ndim :])[axis]
    cell, start = geometry.affine(geometry.size)
    return round(float(cell[0] * place + start[0]))


def show_index(viewer: ViewerModel, stack: Image, index: int) -> None:
    """Move the slider `layer`."""
    viewer.dims.set_point(viewer.dims.ndim - stack.ndim, index)
