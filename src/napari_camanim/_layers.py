"""Conversion of an `Animation` to a napari layer, and functions of such layers (stacks).

A stack has the axes of its image after a first axis `layer`. If the explained region is a slice, or the
volume along the last three axes, the stack has length 1 along the other axes, and is translated to the
position of the region.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image

from camanim.stack import is_basic_index
from napari_camanim._metadata import KEY, metadata
from napari_camanim._views import Region, RegionData, index_in

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from camanim import Animation
    from camanim.stack import Normalization


class StackData:
    """Lazy array of a stack with all axes of its layer, and the animation.

    Parameters
    ----------
    animation : Animation
    normalization : {"local", "global"}
    region : Region
        Explained region of the image.

    Attributes
    ----------
    axes : tuple of bool
        For each axis of the image, whether the maps extend along it (True) or it has length 1.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, animation: Animation, normalization: Normalization, region: Region) -> None:
        self.animation = animation
        self.normalization = normalization
        self.region = region
        self.axes = tuple(axis in region.axes for axis in range(len(region.shape)))
        self._stack = animation.stack(normalization)
        count, *lengths = self._stack.shape
        remaining = iter(lengths)
        self.shape = (count, *(next(remaining) if along else 1 for along in self.axes))
        self.ndim = len(self.shape)
        self.size = self._stack.size
        self._insert = tuple(i + 1 for i, along in enumerate(self.axes) if not along)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if parts and len(parts) <= self.ndim and all(is_basic_index(part) for part in parts):
            # The indexing of napari, which computes only the displayed planes.
            return self._section((*parts, *[slice(None)] * (self.ndim - len(parts))))
        return np.expand_dims(np.asarray(self._stack), self._insert)[key]

    def _section(self, parts: tuple[Any, ...]) -> Any:
        """Return a section by an integer or a slice along every axis."""
        along = (True, *self.axes)
        section = self._stack[tuple(p for p, a in zip(parts, along, strict=True) if a)]
        new_axes: list[slice | None] = []
        slices: list[slice] = []
        for part, is_along in zip(parts, along, strict=True):
            if isinstance(part, slice):
                new_axes.append(slice(None) if is_along else None)
                slices.append(slice(None) if is_along else part)
            elif not is_along:
                # Raises an IndexError unless the index is 0 or -1, as in numpy.
                range(1)[part]
        return section[tuple(new_axes)][tuple(slices)]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Any:
        return np.asarray(self[:], dtype=dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> StackData:
        # A duplicated layer shares the animation, so that the network is not copied.
        return self.normalized(self.normalization)

    def normalized(self, normalization: Normalization) -> StackData:
        """Return the same stack with another normalisation."""
        return StackData(self.animation, normalization, self.region)


def stack_layer(
    animation: Animation, image: Image, shown: RegionData, normalization: Normalization
) -> Image:
    """Return the layer that shows an animation over its image.

    Parameters
    ----------
    animation : Animation
    image : napari.layers.Image
        Scale, translation, rotation, shear, affine transform, units and axis labels are copied from it.
    shown : RegionData
        The explained region.
    normalization : {"local", "global"}

    Returns
    -------
    napari.layers.Image
    """
    place = _placement(animation, image, shown.region)
    return Image(
        StackData(animation, normalization, shown.region),
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


def guided_layer(animation: Animation, image: Image, shown: RegionData) -> Image | None:
    """Return a hidden layer of the guided gradient, summed over channels.

    Parameters
    ----------
    animation, image, shown
        See `stack_layer`.

    Returns
    -------
    napari.layers.Image or None
        None if the method is not a guided one.
    """
    from cmap import Colormap

    if animation.guided is None:
        return None
    # The batch axis holds the slices of a volume, or a single image.
    pixels = animation.guided.sum(1).numpy().reshape(animation.geometry.size)
    others = tuple(axis for axis in range(image.ndim) if axis not in shown.region.axes)
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
        **_placement(animation, image, shown.region),
    )


def _placement(animation: Animation, image: Image, region: Region) -> dict[str, Any]:
    """Return the transform from pixels of the network's input to world coordinates."""
    # From pixels of the map to pixels of the image ...
    cell, start = animation.source_geometry.affine(animation.geometry.size)
    pixel, origin = np.ones(image.ndim), np.array(region.position, float)
    pixel[list(region.axes)], origin[list(region.axes)] = cell, start
    # ... and from these to world coordinates.
    shear = _shear_matrix(image)
    matrix = np.asarray(image.rotate) @ shear @ np.diag(image.scale)
    return {
        "scale": np.asarray(image.scale) * pixel,
        "translate": np.asarray(image.translate) + matrix @ origin,
        "rotate": np.asarray(image.rotate),
        "shear": shear,
        "affine": image.affine.affine_matrix,
        "units": image.units,
        "axis_labels": _labels(image, len(region.axes)),
    }


def _labels(image: Image, space: int) -> tuple[str, ...]:
    labels: tuple[str, ...] = image.axis_labels
    is_default = labels == tuple(f"{i}" for i in range(-image.ndim, 0))
    return (*labels[:-space], *"zyx"[-space:]) if is_default else labels


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


def unwrapped(proxied: Any) -> Any:
    """Return the layer or viewer behind the proxy that napari passes to plugins."""
    return getattr(proxied, "__wrapped__", proxied)


def is_stack(layer: Layer) -> bool:
    """Return whether a layer shows an animation."""
    return isinstance(layer, Image) and KEY in layer.metadata and hasattr(layer.data, "animation")


def is_input(layer: Layer) -> bool:
    """Return whether a layer is an image that was not added by the plugin."""
    return isinstance(layer, Image) and KEY not in layer.metadata


def set_normalization(layer: Image, normalization: Normalization) -> None:
    """Set the normalisation of a stack without computing the maps again."""
    if layer.data.normalization != normalization:
        layer.data = layer.data.normalized(normalization)
        # A new dictionary, as duplicated layers share theirs.
        updated = {**layer.metadata[KEY], "normalization": normalization}
        layer.metadata = {**layer.metadata, KEY: updated}


def update_metadata(layer: Image) -> None:
    """Update the metadata of a stack after its animation has changed."""
    data = layer.data
    layer.metadata = {**layer.metadata, KEY: metadata(data.animation, data.normalization)}


def current_stack(viewer: ViewerModel) -> Image | None:
    """Return the stack for caption, curve and buttons.

    Of the visible stacks, this is the selected one, or otherwise the topmost.
    """
    visible = [layer for layer in viewer.layers if layer.visible and is_stack(layer)]
    active = viewer.layers.selection.active
    if active in visible:
        return active
    return visible[-1] if visible else None


def shown_index(viewer: ViewerModel, stack: Image) -> int | None:
    """Return the index of the shown layer of a stack; None if none or several are shown."""
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
    """Return the index of the shown plane of a volume; None for images, or if several are shown."""
    geometry = stack.data.animation.geometry
    if len(geometry.size) == 2:
        return None
    axis = 1 + stack.data.axes.index(True)
    if axis + viewer.dims.ndim - stack.ndim in viewer.dims.displayed:
        return None
    position = stack.world_to_data(viewer.dims.point[-stack.ndim :])[axis]
    cell, start = geometry.affine(geometry.size)
    return round(float(cell[0] * position + start[0]))


def show_index(viewer: ViewerModel, stack: Image, index: int) -> None:
    """Move the slider `layer` to an index."""
    viewer.dims.set_point(viewer.dims.ndim - stack.ndim, index)
