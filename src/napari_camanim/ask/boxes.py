"""Boxes of pixels from shapes that are drawn over an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers.base import ActionType

from napari_camanim.layers.placement import image_placement

if TYPE_CHECKING:
    from napari.layers import Image, Layer, Shapes

#: One range of pixels for each axis: the first one, and the end.
Ranges = tuple[tuple[int, int], ...]

#: Actions of the event `data` of a Shapes layer after which a shape is complete.
FINAL = (ActionType.ADDED, ActionType.CHANGED, ActionType.REMOVED)
#: Colour of drawn boxes.
COLOUR = "yellow"


def pixel_ranges(vertices: npt.NDArray[Any]) -> Ranges:
    """Return the pixels that a shape spans along each axis.

    Parameters
    ----------
    vertices : (N, n) array
        In indices of pixels, of which integers are the centres.

    Returns
    -------
    tuple of (int, int)
        The first pixel and the end, at least one pixel.
    """
    low, high = vertices.min(0), vertices.max(0)
    # Pixels with their centre inside; a transform to the world and back rounds.
    starts, stops = (np.ceil(v - 1e-6).astype(int) for v in (low, high))
    # Along the axis of a slider, all vertices have the index of one pixel.
    starts = np.where(np.isclose(low, high), np.floor(low + 0.5).astype(int), starts)
    stops = np.maximum(stops, starts + 1)
    return tuple((int(a), int(b)) for a, b in zip(starts, stops, strict=True))


def vertices_in(layer: Shapes, index: int, other: Layer) -> npt.NDArray[np.float64]:
    """Return the vertices of a shape in pixels of another layer, along the last axes of both."""
    vertices = np.array([layer.data_to_world(at) for at in layer.data[index]])
    missing = max(0, other.ndim - layer.ndim)
    vertices = np.pad(vertices, ((0, 0), (missing, 0)))[:, -other.ndim :]
    return np.array([other.world_to_data(at) for at in vertices])


def box_words(layer: Shapes, index: int, vertices: npt.NDArray[np.float64]) -> str:
    """Return how a box differs from the shape that it is taken from; empty for a rectangle."""
    kind = layer.shape_type[index]
    sides = np.abs(np.diff(np.concatenate([vertices, vertices[:1]]), axis=0))
    is_upright = bool(((sides > 1e-3 * sides.max()).sum(axis=1) <= 1).all())
    words = []
    if kind != "rectangle":
        words.append(f"the bounding box of {'an' if kind == 'ellipse' else 'a'} {kind}")
    elif not is_upright:
        words.append("the bounding box of a rotated rectangle")
    if layer.nshapes > 1 and index not in layer.selected_data:
        words.append(f"the last of {layer.nshapes} shapes")
    return ", ".join(words)


def box_layer(image: Image, name: str, **options: Any) -> Shapes:
    """Return an empty Shapes layer over an image, to draw rectangles in."""
    from napari.layers import Shapes

    shape = image.data.shape[: image.ndim]
    return Shapes(
        ndim=image.ndim,
        name=name,
        edge_color=COLOUR,
        face_color="transparent",
        edge_width=max(1.0, max(shape[-2:]) / 200),
        **image_placement(image),
        **options,
    )
