"""Text and colour bar on the canvas, each painted by Qt into one picture.

napari draws each character of a text and each tick of a colour bar with OpenGL: with both, a step of the
slider takes 10 ms longer than without (``benchmarks/slider.py``), and the first use of each character 10
to 20 ms. A picture takes less than 2 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.components.overlays import CanvasOverlay, TextOverlay

if TYPE_CHECKING:
    import numpy.typing as npt
    from napari.layers import Image

#: Number of colours of a bar.
COLORS = 45


class PaintedText(TextOverlay):
    """Text of one or several lines."""


class PaintedColorBar(CanvasOverlay):
    """Colours of a layer of maps, and the raw values at both ends.

    Attributes
    ----------
    colors : tuple of (red, green, blue)
        From the lowest to the highest value, 0 to 255.
    low, high : str
        Raw values that have the first and the last colour.
    font_size : float
        In points.
    """

    colors: tuple[tuple[int, int, int], ...] = ()
    low: str = ""
    high: str = ""
    font_size: float = 8


def colors_of(layer: Image) -> tuple[tuple[int, int, int], ...]:
    """Return the colours of a layer, from its lower to its upper contrast limit."""
    shares: npt.NDArray[np.float64] = np.linspace(0, 1, COLORS) ** layer.gamma
    colors = np.round(255 * np.asarray(layer.colormap.map(shares))[:, :3]).astype(int)
    return tuple((int(r), int(g), int(b)) for r, g, b in colors)
