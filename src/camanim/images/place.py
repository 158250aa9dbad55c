"""The physical place of an image as plain data: spacing, units, and the affine to the patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

#: Directions of the patient, by the axis of the affine and the sign of a step.
_CODES = ("LR", "PA", "IS")
_WORDS = {
    "L": "left", "R": "right", "P": "posterior", "A": "anterior", "I": "inferior", "S": "superior",
}  # fmt: skip
#: Planes of the body, by the axis of the patient that they are perpendicular to.
_PLANES = ("sagittal", "coronal", "axial")
#: Largest angle between the axes of an image and those of the patient, in degrees, that is not oblique.
_STRAIGHT = 1.0

Affine = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SourcePlace:
    """The physical place of the image that was passed to a run.

    Attributes
    ----------
    shape : tuple of int
        Size of the image along its spatial axes, (H, W) or (Z, H, W).
    spacing : tuple of float or None
        Distance between the centres of neighbouring pixels along these axes.
    units : {"mm", "um"} or None
        Units of `spacing` and `affine`.
    affine : tuple of tuple of float or None
        Matrix (4, 4) from indices (z, y, x, 1) of pixels, whose index is that of their centre, to
        coordinates (x, y, z, 1) of the patient or scanner, which grow to the right, to anterior and to
        superior (RAS, as in nibabel). The z of an image without slices is 0.
    space : {"scanner", "aligned", "talairach", "mni"} or None
        Coordinate system of the affine; DICOM's is the scanner's.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    units: str | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    space: str | None = None

    @property
    def matrix(self) -> Affine | None:
        """The affine as an array (4, 4)."""
        return None if self.affine is None else np.array(self.affine)

    @property
    def orientation(self) -> str:
        """The orientation in words, such as ``axial: rows to posterior``; empty without an affine."""
        matrix = self.matrix
        return "" if matrix is None else orientation_words(matrix, len(self.shape))

    def plane(self, z: float) -> SourcePlace:
        """Return the place of one plane of a volume, at index `z`."""
        matrix = self.matrix
        if matrix is not None:
            matrix[:, 3] += matrix[:, 0] * z
        return replace(
            self,
            shape=self.shape[1:],
            spacing=None if self.spacing is None else self.spacing[1:],
            affine=plain_affine(matrix),
        )

    def record(self) -> dict[str, Any]:
        """Return the place as JSON data."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SourcePlace:
        """Return the place of a record; see `record`."""
        values = {key: record.get(key) for key in ("spacing", "affine")}
        spacing, affine = values["spacing"], values["affine"]
        return cls(
            tuple(int(n) for n in record["shape"]),
            None if spacing is None else tuple(float(v) for v in spacing),
            record.get("units"),
            None if affine is None else plain_affine(np.array(affine, float)),
            record.get("space"),
        )


def plain_affine(matrix: Affine | None) -> tuple[tuple[float, ...], ...] | None:
    """Return a matrix as tuples."""
    return None if matrix is None else tuple(tuple(map(float, row)) for row in matrix)


def axis_codes(matrix: Affine) -> str:
    """Return the directions of growing z, y and x, such as ``SPL``.

    The letters are those of R, L, A, P, S and I; each axis of the patient appears once.
    """
    directions, _ = _dominant(matrix)
    return "".join(_CODES[axis][int(sign > 0)] for axis, sign in directions)


def orientation_words(matrix: Affine, dims: int = 3) -> str:
    """Return the orientation of an image in words.

    Parameters
    ----------
    matrix : (4, 4) array
        See `SourcePlace.affine`.
    dims : {2, 3}
        Number of spatial axes of the image.
    """
    directions, angle = _dominant(matrix)
    plane = _PLANES[directions[0][0]]
    oblique = f", oblique by {angle:.0f} degrees" if angle > _STRAIGHT else ""
    names = ("slices", "rows", "columns")[3 - dims :]
    steps = [
        f"{name} to {_WORDS[code]}"
        for name, code in zip(names, axis_codes(matrix)[3 - dims :], strict=True)
    ]
    return f"{plane}{oblique}: {', '.join(steps)}"


def reoriented_affine(
    matrix: Affine, shape: Sequence[int], codes: str
) -> tuple[list[int], list[bool], Affine]:
    """Return how a volume (Z, Y, X) is turned so that its axes grow in given directions.

    Parameters
    ----------
    matrix : (4, 4) array
        See `SourcePlace.affine`.
    shape : (Z, Y, X)
    codes : str
        Directions of the new z, y and x, such as ``SPL``.

    Returns
    -------
    order : list of int
        Old axis of each new one.
    flipped : list of bool
        Whether each new axis runs backwards along the old one.
    affine : (4, 4) array
        Of the new axes.
    """
    present = axis_codes(matrix)
    order, flipped = [], []
    for code in codes:
        pair = next(pair for pair in _CODES if code in pair)
        old = next(i for i, c in enumerate(present) if c in pair)
        order.append(old)
        flipped.append(present[old] != code)
    # From new indices to old ones.
    to_old = np.zeros((4, 4))
    to_old[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flipped, strict=True)):
        to_old[old, new] = -1 if flip else 1
        to_old[old, 3] = shape[old] - 1 if flip else 0
    return order, flipped, matrix @ to_old


def _dominant(matrix: Affine) -> tuple[list[tuple[int, float]], float]:
    """Return the patient's axis and sign of z, y and x, and the largest angle to them in degrees."""
    columns = matrix[:3, :3] / np.maximum(np.linalg.norm(matrix[:3, :3], axis=0), 1e-12)
    left = np.abs(columns)
    axes: list[tuple[int, float]] = [(0, 1.0)] * 3
    cosines = []
    for _ in range(3):
        # The closest pair of axes first, so that two axes of the image never get the same direction.
        patient, image = np.unravel_index(int(left.argmax()), left.shape)
        cosines.append(left[patient, image])
        axes[int(image)] = (int(patient), float(columns[patient, image]))
        left[patient, :] = left[:, image] = -1
    return axes, float(np.degrees(np.arccos(np.clip(min(cosines), 0, 1))))
