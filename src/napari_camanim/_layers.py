"""Image layer to engine input, and `Animation` to layer: the only place that knows axes.

A stack has one axis more than its image, `layer`, in front. An image with more than two axes is
explained where it is shown: its stack has length 1 along the axes that have a slider, and is
translated to the shown position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt
from napari.layers import Image

from camanim.errors import ImageError
from camanim.stack import is_plain

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from camanim import Animation
    from camanim.animation import Normalization

KEY = "camanim"


class CamMetadata(TypedDict):
    """What stands in ``layer.metadata["camanim"]``: plain data, aligned with the slider `layer`."""

    method: str
    model: str
    target: int
    class_name: str
    probability: float
    normalization: str
    layers: list[str]
    kinds: list[str]
    captions: list[str]
    raw_limits: list[tuple[float, float]]
    scores: list[float] | None
    mean: float | None
    max: float | None
    best: str | None
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """The part of an image layer that is shown, and so explained.

    Attributes
    ----------
    pixels : array
        (H, W) or (H, W, 3|4)
    window : (low, high) or None
        The layer's contrast limits; None for what has 8 bits or colours, which speaks for itself.
    axes : (int, int)
        The layer's axes that `pixels` runs along.
    position : tuple of float
        The layer's index along all of its axes; 0 along `axes`.
    """

    pixels: npt.NDArray[Any]
    window: tuple[float, float] | None
    axes: tuple[int, int]
    position: tuple[float, ...]


def shown_slice(viewer: ViewerModel, layer: Image) -> Shown:
    """Take what the viewer shows of an image layer.

    Parameters
    ----------
    viewer : napari viewer
    layer : napari.layers.Image

    Raises
    ------
    ImageError
        In a 3-D view of a volume, or when the sliders stand outside of the image.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    ndim = layer.ndim
    axes, position = (0, 1), (0.0,) * ndim
    if viewer.dims.ndisplay != 2:
        raise ImageError("What is explained is a slice: switch to the 2-D view first.")
    if ndim > 2:
        before = viewer.dims.ndim - ndim
        first, second = sorted(axis - before for axis in viewer.dims.displayed)
        if first < 0:
            raise ImageError("The view shows no slice of the image: roll the axes until it does.")
        axes = (first, second)
        index = np.round(layer.world_to_data(viewer.dims.point[-ndim:])).astype(int)
        sliced = [a for a in range(ndim) if a not in axes]
        if any(not 0 <= index[a] < data.shape[a] for a in sliced):
            raise ImageError("The sliders stand outside of the image: move them into it first.")
        position = tuple(float(index[a]) if a in sliced else 0.0 for a in range(ndim))
        data = data[tuple(int(index[a]) if a in sliced else slice(None) for a in range(ndim))]
    pixels = np.asarray(data)
    own_scale = layer.rgb or pixels.dtype == np.uint8 or pixels.dtype == bool
    low, high = layer.contrast_limits
    return Shown(pixels, None if own_scale else (float(low), float(high)), axes, position)


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
        count, height, width = self._stack.shape
        sides = iter((height, width))
        self.shape = (count, *(next(sides) if along else 1 for along in self.axes))
        self.ndim = len(self.shape)
        self.size = self._stack.size
        self._insert = tuple(i + 1 for i, along in enumerate(self.axes) if not along)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if parts and all(is_plain(part) for part in parts):
            # What napari asks for: only the planes that are looked at are made.
            first, *rest = parts
            chosen = np.arange(len(self))[first]
            planes = np.expand_dims(self._stack[np.atleast_1d(chosen)], self._insert)
            return planes[(slice(None) if isinstance(first, slice) else 0, *rest)]
        return np.expand_dims(np.asarray(self._stack), self._insert)[key]

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
    along = [axis in shown.axes for axis in range(image.ndim)]
    data = StackData(animation, normalization, along)
    # From the map's pixels to the image's ...
    cell, start = animation.geometry.affine(animation.geometry.size)
    pixel, origin = np.ones(image.ndim), np.array(shown.position)
    pixel[list(shown.axes)], origin[list(shown.axes)] = cell, start
    # ... and from there to the world, with one more axis in front.
    matrix = np.asarray(image.rotate) @ _shear_matrix(image) @ np.diag(image.scale)
    labels = image.axis_labels
    default = labels == tuple(f"{i}" for i in range(-image.ndim, 0))
    names = (*labels[:-2], "y", "x") if default else labels
    return Image(
        data,
        name=f"{image.name} {animation.method} {animation.target.name}",
        rgb=False,
        multiscale=False,
        colormap="turbo",
        opacity=0.5,
        contrast_limits=(0, 1),
        interpolation2d="nearest",
        scale=(1, *(np.asarray(image.scale) * pixel)),
        translate=(0, *(np.asarray(image.translate) + matrix @ origin)),
        rotate=_with_layer_axis(np.asarray(image.rotate)),
        shear=_with_layer_axis(_shear_matrix(image)),
        affine=_with_layer_axis(image.affine.affine_matrix),
        units=("pixel", *image.units),
        axis_labels=("layer", *names),
        metadata={KEY: metadata(animation, normalization)},
    )


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


def metadata(animation: Animation, normalization: str) -> CamMetadata:
    """Describe an animation as plain data."""
    road = animation.road
    return CamMetadata(
        method=animation.method,
        model=str(animation.provenance["model"]),
        target=animation.target.index,
        class_name=animation.target.name,
        probability=animation.probability,
        normalization=normalization,
        layers=[layer.label for layer in animation.layers],
        kinds=[layer.kind for layer in animation.layers],
        captions=[animation.caption(i) for i in range(len(animation))],
        raw_limits=[(float(m.min()), float(m.max())) for m in animation.maps],
        scores=None if road is None else [float(s) for s in road.scores],
        mean=None if road is None else road.mean,
        max=None if road is None else road.max,
        best=None if road is None or road.best is None else road.best.label,
        provenance=animation.provenance,
    )


def unwrapped(thing: Any) -> Any:
    """Take a layer or a viewer out of the proxy through which plugins see napari."""
    return getattr(thing, "__wrapped__", thing)


def is_stack(layer: Layer) -> bool:
    """Whether a layer shows an animation."""
    return isinstance(layer, Image) and KEY in layer.metadata and hasattr(layer.data, "animation")


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
    if viewer.dims.ndisplay != 2 or 0 in displayed:
        return None
    index = np.round(stack.world_to_data(viewer.dims.point[-stack.ndim :])).astype(int)
    sliced = [axis for axis in range(stack.ndim) if axis not in displayed]
    if any(not 0 <= index[axis] < stack.data.shape[axis] for axis in sliced):
        return None
    return int(index[0])


def show_index(viewer: ViewerModel, stack: Image, index: int) -> None:
    """Move the slider `layer`."""
    viewer.dims.set_point(viewer.dims.ndim - stack.ndim, index)
