"""The crosshair at a point of a stack, as a layer of lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from napari.layers import Vectors

from napari_camanim.layers.metadata import KEY

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

#: Name of the layer.
NAME = "probe"
#: Width of a line, and the distance that it keeps from the point, on the screen in pixels.
WIDTH, GAP = 1.2, 7


class Place(Protocol):
    """A point with its pixel of the network's input."""

    @property
    def input(self) -> tuple[int, ...]:
        """Indices along the last axes of the maps."""


def is_crosshair(layer: Layer) -> bool:
    """Return whether a layer is a crosshair."""
    return isinstance(layer, Vectors) and bool(layer.metadata.get(KEY, {}).get("crosshair"))


class Crosshair:
    """Lines through a point along the axes of a stack, with the same width at every zoom.

    Parameters
    ----------
    viewer : napari viewer
    stack : napari.layers.Image
        The lines lie in its coordinates, without the axis `layer`.
    point : Place

    Attributes
    ----------
    layer : napari.layers.Vectors
        Each line is white with a dark one beside it, visible on any image.
    """

    def __init__(self, viewer: ViewerModel, stack: Image, point: Place) -> None:
        self._viewer = viewer
        self._axes = np.flatnonzero(stack.data.axes)
        self._shape = stack.data.shape[1:]
        self._transform = transform_without_layer(stack)
        self._point = point
        vectors, width = self._lines()
        self.layer = Vectors(
            vectors,
            name=NAME,
            edge_width=width,
            edge_color=np.repeat(["white", "black"], len(vectors) // 2),
            vector_style="line",
            opacity=0.8,
            metadata={KEY: {"crosshair": True}},
            **self._transform,
            units=stack.units[1:],
            axis_labels=stack.axis_labels[1:],
        )
        selection = viewer.layers.selection
        selected, active = set(selection), selection.active
        viewer.layers.append(self.layer)
        # napari selects an added layer; the stack keeps the controls and the keys.
        selection.clear()
        selection.update(selected)
        selection.active = active
        self._events = (
            viewer.scene.camera.events.zoom,
            viewer.dims.events.order,
            viewer.dims.events.ndisplay,
        )
        for event in self._events:
            event.connect(self._draw)

    def fits(self, stack: Image) -> bool:
        """Return whether a stack has the same coordinates and axes."""
        new = transform_without_layer(stack)
        return self._shape == stack.data.shape[1:] and all(
            np.allclose(new[name], value) for name, value in self._transform.items()
        )

    def move(self, point: Place) -> None:
        """Show another point."""
        self._point = point
        self._draw()

    def remove(self) -> None:
        """Remove the layer, and disconnect from the viewer."""
        for event in self._events:
            event.disconnect(self._draw)
        if self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)

    def _draw(self, event: Any = None) -> None:
        vectors, width = self._lines()
        self.layer.data = vectors
        self.layer.edge_width = width

    def _lines(self) -> tuple[npt.NDArray[np.float64], float]:
        """Return start and projection of each line, (m, 2, n), and their width; the white ones first."""
        n = len(self._shape)
        shown = [axis - self._viewer.dims.ndim + n for axis in self._viewer.dims.displayed]
        shown = [axis for axis in shown if axis in self._axes] or list(self._axes)
        pixels = self._viewer.scene.camera.zoom * np.abs(self._transform["scale"])
        width = WIDTH / max(pixels[shown].max(), 1e-9)
        white, black = [], []
        # At every position along axes that the maps do not depend on, such as channels.
        others = [1 if axis in self._axes else side for axis, side in enumerate(self._shape)]
        for position in np.ndindex(*others):
            center = np.array(position, float)
            center[self._axes] = self._point.input
            for axis in self._axes:
                beside = np.zeros(n)
                beside[[other for other in shown if other != axis][:1]] = width
                gap = GAP / max(pixels[axis], 1e-9)
                # Not beyond the centres of the last pixels, which would extend the sliders.
                for end in (0.0, self._shape[axis] - 1.0):
                    start, line = center.copy(), np.zeros(n)
                    sign = 1 if end > center[axis] else -1
                    start[axis] += sign * min(gap, abs(end - center[axis]))
                    line[axis] = end - start[axis]
                    white.append((start, line))
                    black.append((start + beside, line))
        return np.array(white + black), float(width)


def transform_without_layer(stack: Image) -> dict[str, Any]:
    """Return the transform of a stack without its first axis, as arguments of a layer."""
    shear = np.asarray(stack.shear)
    return {
        "scale": np.asarray(stack.scale)[1:],
        "translate": np.asarray(stack.translate)[1:],
        "rotate": np.asarray(stack.rotate)[1:, 1:],
        # A matrix, or its upper triangle row by row.
        "shear": shear[1:, 1:] if shear.ndim == 2 else shear[stack.ndim - 1 :],
        "affine": stack.affine.affine_matrix[1:, 1:],
    }
