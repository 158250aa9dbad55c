"""From a mask on the image to the cells of the network's input that belong to the object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ScoreError

if TYPE_CHECKING:
    from camanim.images import Geometry

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

#: Areas are sums of fractions: what is half of a cell up to this is half of it.
_ROUNDING = 1e-9


def object_cells(mask: Any, label: int | None, shape: tuple[int, ...], geometry: Geometry) -> Bools:
    """Mark the cells of the network's input that an object covers by half of their area or more.

    Where no cell is covered so far, the fullest ones are marked, so that a small object is not lost.

    Parameters
    ----------
    mask : array-like
        (H, W) or (Z, Y, X), bool or integer.
    label : int or None
        Which value is the object; all but 0 by default.
    shape : tuple of int
        Of the image.
    geometry : Geometry
        Where the network's input lies on the image.

    Returns
    -------
    (*S) bool array
        At the network's input size, neither all True nor all False.

    Raises
    ------
    ScoreError
        When the mask cannot be used, or leaves nothing to compare.
    """
    covered = shares(_read(mask, label, shape), geometry)
    most = covered.max()
    if most <= _ROUNDING:
        raise ScoreError(
            "The mask lies outside of what the network saw: use fit='stretch', or mark what is inside."
        )
    inside: Bools = covered >= min(0.5, most) - _ROUNDING
    if inside.all():
        raise ScoreError(
            "The mask covers all that the network saw, so every map lies inside: mark the object alone."
        )
    return inside


def _read(mask: Any, label: int | None, shape: tuple[int, ...]) -> Bools:
    """Find the object's pixels."""
    if hasattr(mask, "detach"):
        mask = mask.detach().cpu()
    try:
        values = np.asarray(mask)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ScoreError(f"A mask is an array over the image: {error}") from error
    if values.shape != shape:
        raise ScoreError(
            f"The mask has the shape {values.shape}, the image {shape}: "
            "pass one with a value for each of the image's pixels."
        )
    whole = values.dtype.kind in "bui" or (
        values.dtype.kind == "f" and bool((values == np.round(values)).all())
    )
    if not whole:
        raise ScoreError("A mask holds True and False, or whole numbers: compare with a threshold.")
    found: Bools = values != 0 if label is None else values == label
    if not found.any():
        there = [str(v) for v in np.unique(values)[:12]]
        wanted = "no pixel that is not 0" if label is None else f"no {label}"
        raise ScoreError(f"The mask has {wanted}, only {', '.join(there)}: mark the object.")
    return found


def shares(mask: Bools, geometry: Geometry) -> Floats:
    """Average a mask over the cells of the network's input, by area.

    Parameters
    ----------
    mask : (H, W) or (Z, Y, X) bool array
    geometry : Geometry

    Returns
    -------
    (*S) array
        Which share of each cell is covered; beyond the image there is nothing.
    """
    areas: npt.NDArray[Any] = mask
    for axis, cells in enumerate(geometry.size):
        weights = _weights(cells, areas.shape[axis], geometry.scale[axis], geometry.offset[axis])
        front = np.moveaxis(areas, axis, 0)
        averaged = weights @ front.reshape(len(front), -1)
        areas = np.moveaxis(averaged.reshape(cells, *front.shape[1:]), 0, axis)
    return areas


def _weights(cells: int, pixels: int, scale: float, offset: float) -> Any:
    """Say which share of each cell each pixel is, as a sparse (cells, pixels) matrix."""
    from scipy.sparse import csr_array

    edges = offset + scale * np.arange(cells + 1)
    first = np.clip(np.floor(edges[:-1]), 0, pixels).astype(int)
    last = np.clip(np.ceil(edges[1:]), first, pixels).astype(int)
    counts = last - first
    rows = np.repeat(np.arange(cells), counts)
    columns = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - first, counts)
    lengths = np.minimum(edges[rows + 1], columns + 1) - np.maximum(edges[rows], columns)
    return csr_array((np.maximum(lengths, 0) / scale, (rows, columns)), shape=(cells, pixels))
