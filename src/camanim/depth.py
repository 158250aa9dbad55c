"""The values of one image pixel through all layers."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError
from camanim.plots import Line, Mark, Panel
from camanim.stack import Normalization, stack_maps

if TYPE_CHECKING:
    from camanim.result import Result


def through_depth(
    result: Result,
    *position: float,
    normalization: Normalization | None = "local",
    signed: bool = False,
) -> npt.NDArray[np.float32]:
    """Return the values of one image pixel in the maps of all layers, from the first to the last.

    Parameters
    ----------
    result : Result
    *position : float
        ``y, x`` or ``z, y, x`` in pixel indices of the image; 0 is the centre of the first pixel.
    normalization, signed
        As for `camanim.stack.stack_maps`.

    Returns
    -------
    (L,) float32 array
        ``stack(normalization)[:, y, x]`` at the pixel of the network's input that covers the position,
        up to rounding; NaN outside of the part of the image that the maps cover.

    Raises
    ------
    ImageError
        If the position has another number of coordinates than the image has axes, or is not finite.
    """
    size = result.geometry.size
    if len(position) != len(size):
        axes = "z, y, x" if len(size) == 3 else "y, x"
        raise ImageError(f"A position in this image is {axes}, not {len(position)} coordinates.")
    if not all(isinstance(value, Real) and np.isfinite(value) for value in position):
        raise ImageError(f"A position is given by finite numbers, not {position!r}.")
    cell = _input_pixel(result, position)
    if cell is None:
        return np.full(len(result), np.nan, np.float32)
    return stack_maps(result, normalization, signed=signed).at(cell)


def _input_pixel(result: Result, position: Sequence[float]) -> tuple[int, ...] | None:
    """Return the pixel of the network's input that covers a position, or None if there is none."""
    geometry = result.geometry
    image = result.image.shape[: len(position)]
    if not all(-0.5 <= value < n - 0.5 for value, n in zip(position, image, strict=True)):
        return None
    sides = zip(position, geometry.offset, geometry.scale, strict=True)
    # In units of pixel edges.
    at = [int(np.floor((value + 0.5 - offset) / scale)) for value, offset, scale in sides]
    inside = all(0 <= index < n for index, n in zip(at, geometry.size, strict=True))
    return tuple(at) if inside else None


def depth_panel(
    result: Result,
    *position: float,
    normalization: Normalization | None = "local",
    signed: bool = False,
) -> Panel:
    """Return the plot of `through_depth`, with the layer of the highest value marked.

    Parameters and errors are those of `through_depth`.
    """
    values = through_depth(result, *position, normalization=normalization, signed=signed)
    where = ", ".join(f"{value:g}" for value in position)
    if np.isnan(values).all():
        return Panel.over_layers(
            len(result), instead=f"The maps do not cover the pixel {where} of the image."
        )
    y = values.astype(np.float64)
    label = "raw value" if normalization is None else f"relevance ({normalization})"
    highest = int(np.argmax(y))
    marks: tuple[Mark, ...] = ()
    if y[highest] > 0:
        words = f"highest: {result.layers[highest].label} ({y[highest]:.2g})"
        marks = (Mark("highest", highest, float(y[highest]), words),)
    return Panel.over_layers(
        len(result),
        lines=(Line(f"pixel {where}", y),),
        marks=marks,
        y_label=label,
        tip="Value of the maps of all layers at one pixel of the image.",
    )
