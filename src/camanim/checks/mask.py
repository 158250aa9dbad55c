"""Conversion of a mask on the image to cells of the network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import CamError, ImageError, ScoreError
from camanim.images import checked_array
from camanim.resampling import overlap_matrix

if TYPE_CHECKING:
    from camanim.images import Geometry

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

#: Message for a mask that marks no pixel within the network's input.
OUTSIDE = "The mask is outside of the network's input: use fit='stretch', or mark an object inside."
#: Tolerance for rounding errors in sums of area fractions.
_ROUNDING = 1e-9


def object_cells(mask: Any, label: int | None, shape: tuple[int, ...], geometry: Geometry) -> Bools:
    """Return the cells of the network's input of which an object covers at least half of the area.

    If no cell is covered by half, those with the largest covered area are returned, so that small
    objects are not lost.

    Parameters
    ----------
    mask : array-like
        (H, W) or (Z, Y, X), bool or integer.
    label : int or None
        Value that marks the object; by default any value except 0.
    shape : tuple of int
        Shape of the image.
    geometry : Geometry
        Position of the network's input in the image.

    Returns
    -------
    (*S) bool array
        Neither all True nor all False.

    Raises
    ------
    ScoreError
        If the mask is invalid, or empty or full within the network's input.
    """
    values = _mask_values(mask, shape, ScoreError)
    pixels = _marked(values, label)
    if not pixels.any():
        present = ", ".join(str(v) for v in np.unique(values)[:12])
        missing = "values other than 0" if label is None else f"the label {label}"
        raise ScoreError(f"The mask does not contain {missing}, only {present}.")
    inside = covered_cells(pixels, geometry)
    if not inside.any():
        raise ScoreError(OUTSIDE)
    if inside.all():
        raise ScoreError("The mask covers the whole input of the network: mark only the object.")
    return inside


def covered_cells(pixels: Bools, geometry: Geometry) -> Bools:
    """Return the cells of which at least half is covered, or else those that are covered most.

    Parameters
    ----------
    pixels : (H, W) or (Z, Y, X) bool array
    geometry : Geometry

    Returns
    -------
    (*S) bool array
        All False if no pixel is within the network's input.
    """
    covered = covered_fractions(pixels, geometry)
    most = covered.max()
    if most <= _ROUNDING:
        return np.zeros(covered.shape, bool)
    inside: Bools = covered >= min(0.5, most) - _ROUNDING
    return inside


def mask_pixels(
    mask: Any, label: int | None, shape: tuple[int, ...], error: type[CamError] = ScoreError
) -> Bools:
    """Return the pixels that a mask marks, which may be none.

    Parameters
    ----------
    mask, label, shape
        As for `object_cells`.
    error : type
        Class of the error for an invalid mask.
    """
    return _marked(_mask_values(mask, shape, error), label)


def _marked(values: npt.NDArray[Any], label: int | None) -> Bools:
    pixels: Bools = values != 0 if label is None else values == label
    return pixels


def _mask_values(mask: Any, shape: tuple[int, ...], error: type[CamError]) -> npt.NDArray[Any]:
    """Return the values of a mask, checked."""
    if hasattr(mask, "detach"):
        mask = mask.detach().cpu()
    try:
        values = checked_array(mask, "mask")
    except ImageError as unreadable:
        raise error(str(unreadable)) from unreadable
    if values.shape != shape:
        raise error(
            f"The mask has the shape {values.shape}, the image {shape}: pass a mask of equal shape."
        )
    integral = values.dtype.kind in "bui" or (
        values.dtype.kind == "f"
        and bool((np.isfinite(values) & (values == np.round(values))).all())
    )
    if not integral:
        raise error(
            f"A mask must be boolean or have integer values, not {values.dtype} values: "
            "apply a threshold."
        )
    return values


def covered_fractions(mask: Bools, geometry: Geometry) -> Floats:
    """Return the fraction of the area of each cell of the network's input that a mask covers.

    Parameters
    ----------
    mask : (H, W) or (Z, Y, X) bool array
    geometry : Geometry

    Returns
    -------
    (*S) array
        In [0, 1]; pixels beyond the image count as not covered.
    """
    if not mask.any():
        return np.zeros(geometry.size)
    areas: npt.NDArray[Any] = mask
    for axis, cells in enumerate(geometry.size):
        # Most of the mask is empty.
        occupied = np.flatnonzero(areas.any(axis=tuple(a for a in range(areas.ndim) if a != axis)))
        first, last = (int(occupied[0]), int(occupied[-1]) + 1) if len(occupied) else (0, 1)
        areas = np.moveaxis(np.moveaxis(areas, axis, 0)[first:last], 0, axis)
        weights = overlap_matrix(
            cells, last - first, geometry.scale[axis], geometry.offset[axis] - first
        )
        front = np.moveaxis(areas, axis, 0)
        averaged = weights @ front.reshape(len(front), -1)
        areas = np.moveaxis(averaged.reshape(cells, *front.shape[1:]), 0, axis)
    return areas
