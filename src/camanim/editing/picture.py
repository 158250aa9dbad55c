"""The edited input of the network as a picture of the image's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from camanim.images import to_display

if TYPE_CHECKING:
    from camanim.images import Geometry, Preprocess

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Intensities:
    """Conversion of the network's input to intensities, ``factor * input + shift`` for each channel.

    Attributes
    ----------
    factor, shift : (C,) array
    """

    factor: Floats
    shift: Floats

    @classmethod
    def of_preprocess(cls, preprocess: Preprocess) -> Intensities:
        """Return the inverse of the normalisation."""
        factor, shift = (
            np.broadcast_to(np.asarray(values, np.float32).reshape(-1), preprocess.channels)
            for values in (preprocess.std, preprocess.mean)
        )
        return cls(factor, shift)

    @classmethod
    def fitted(cls, values: Floats, image: Picture, geometry: Geometry) -> Intensities:
        """Fit the conversion of each channel to the displayed image, by least squares.

        Parameters
        ----------
        values : (C, *S)
            The network's input for the image.
        image : (*N) or (*N, 3) uint8 array
        geometry : Geometry
        """
        indices = [
            np.clip((o + s * (np.arange(n) + 0.5)).astype(int), 0, length - 1)
            for n, s, o, length in zip(
                geometry.size, geometry.scale, geometry.offset, image.shape, strict=False
            )
        ]
        shown = image[np.ix_(*indices)].astype(np.float32) / 255
        colours = shown.ndim > len(indices)
        factors, shifts = [], []
        for c, channel in enumerate(values):
            if colours:
                reference = shown[..., c] if len(values) == 3 else shown.mean(axis=-1)
            else:
                reference = shown
            spread = float(channel.var())
            factor = (
                float(((channel - channel.mean()) * reference).mean()) / spread if spread else 0.0
            )
            factors.append(factor)
            shifts.append(float(reference.mean() - factor * channel.mean()))
        return cls(np.array(factors, np.float32), np.array(shifts, np.float32))

    def __call__(self, values: Floats) -> Floats:
        """Return the intensities of (C, *S) values, in [0, 1]."""
        factor, shift = (v.reshape(-1, *[1] * (values.ndim - 1)) for v in (self.factor, self.shift))
        unit: Floats = np.clip(factor * values + shift, 0, 1)
        return unit


def edited_picture(
    image: Picture, values: Floats, cells: Bools, geometry: Geometry, intensities: Intensities
) -> Picture:
    """Return the image with the cells of the network's input that were replaced.

    Each pixel within such a cell has the value of that cell; all others are those of the image.

    Parameters
    ----------
    image : (*N) or (*N, 3) uint8 array
    values : (C, *S)
        The edited input.
    cells : (*S) bool array
        Cells that were replaced.
    geometry : Geometry
    intensities : Intensities
    """
    picture = image.copy()
    if not cells.any():
        return picture
    box, indices = [], []
    for axis, (n, s, o) in enumerate(
        zip(geometry.size, geometry.scale, geometry.offset, strict=True)
    ):
        index = np.floor((np.arange(image.shape[axis]) + 0.5 - o) / s).astype(int)
        occupied = np.asarray(np.moveaxis(cells, axis, 0).reshape(n, -1).any(axis=1))
        inside = np.flatnonzero((index >= 0) & (index < n) & occupied[np.clip(index, 0, n - 1)])
        if not len(inside):
            # Cells that are smaller than a pixel, and hold no centre of one.
            return picture
        first, last = int(inside[0]), int(inside[-1]) + 1
        box.append(slice(first, last))
        indices.append(index[first:last])
    at = np.ix_(*indices)
    unit = intensities(values)
    if image.ndim > cells.ndim:
        colours = unit if len(unit) == 3 else np.repeat(unit.mean(axis=0)[None], 3, axis=0)
        shown, replaced = to_display(np.moveaxis(colours, 0, -1)), cells[at][..., None]
    else:
        shown, replaced = to_display(unit.mean(axis=0)), cells[at]
    np.copyto(picture[tuple(box)], shown[at], where=replaced)
    return picture
