"""`Animation` to layer; with `_views` the only place that knows axes.

A stack has one axis more than its image, `layer`, in front. What is explained is the shown slice, or
the volume along the image's last three axes: the stack has length 1 along all other axes, and is
translated to the shown position there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image

from camanim.stack import is_basic_index
from napari_camanim._metadata import KEY, metadata
from napari_camanim._views import Part, Shown, index_in

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from camanim import Animation
    from camanim.stack import Normalization


class StackData:
    """A lazy stack with the axes of its layer, which also carries the animation it shows.

    Parameters
    ----------
    animation : Animation
    normalization : {"local", "global"}
    part : Part
        Of the image that is explained.

    Attributes
    ----------
    axes : tuple of bool
        For each axis of the image, whether the maps run along it (True) or it has length 1.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, animation: Animation, normalization: Normalization, part: Part) -> None:
        self.animation = animation
        self.normalization = normalization
        self.part = part
        self.axes = tuple(axis in part.axes for axis in range(len(part.shape)))
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
        if parts and len(parts) <= self.ndim and all(is_basic_index(part) for part in parts):
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
        return StackData(self.animation, normalization, self.part)


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
    return Image(
        StackData(animation, normalization, shown.part),
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
    others = tuple(axis for axis in range(image.ndim) if axis not in shown.part.axes)
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
    pixel, origin = np.ones(image.ndim), np.array(shown.part.position, float)
    pixel[list(shown.part.axes)], origin[list(shown.part.axes)] = cell, start
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
        "axis_labels": _labels(image, len(shown.part.axes)),
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


def describe_again(layer: Image) -> None:
    """Bring a stack's metadata up to date with what its animation knows by now."""
    data = layer.data
    layer.metadata = {**layer.metadata, KEY: metadata(data.animation, data.normalization)}


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
    index = index_in(viewer, stack)
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
