"""`SourceImage`: the pixels of a file with their window, spacing and orientation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError
from camanim.images.place import Affine, SourcePlace, axis_codes, plain_affine, reoriented_affine
from camanim.images.values import Window


@dataclass(frozen=True, eq=False, repr=False)
class SourceImage:
    """An image of a file, with what the file says about its intensities and its place.

    It is an array to numpy, and an image to `camanim.animate` and all functions that take one.

    Attributes
    ----------
    pixels : array
        (H, W), (H, W, C), (Z, H, W) or (Z, H, W, C), as stored; of ``.npy`` a memory map, of Zarr a lazy
        array that can be sliced.
    dims : {2, 3}
        Number of spatial axes.
    kind : str
        Format, such as ``"PNG"``, ``"NIfTI"`` or ``"DICOM"``.
    name : str
        Stem of the file's name; of DICOM the modality, since names of files may be those of patients.
    window : (low, high) or None
        Values that the file suggests for black and white, as DICOM's window centre and width.
    spacing : tuple of float or None
        Distance between the centres of neighbouring pixels along the spatial axes, (z, y, x) or (y, x).
    units : {"mm", "um"} or None
        Units of `spacing` and `affine`.
    affine : (4, 4) array or None
        From indices (z, y, x, 1) to coordinates of the patient; see `SourcePlace`.
    space : str or None
        Coordinate system of the affine; see `SourcePlace`.
    notes : tuple of str
        What was assumed about the file, such as missing slices. They become notes of results.
    reference : object
        What `Animation.write_dicom` needs to refer to the files. It may hold data of a patient: it is
        neither printed, nor a part of any result.
    """

    pixels: Any
    dims: int
    kind: str
    name: str = ""
    window: Window | None = None
    spacing: tuple[float, ...] | None = None
    units: str | None = None
    affine: Affine | None = None
    space: str | None = None
    notes: tuple[str, ...] = ()
    reference: Any = field(default=None, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the pixels."""
        return tuple(int(n) for n in self.pixels.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        dtype: np.dtype[Any] = np.dtype(self.pixels.dtype)
        return dtype

    @property
    def ndim(self) -> int:
        """Number of axes of the pixels."""
        return len(self.shape)

    @property
    def orientation(self) -> str:
        """The orientation in words, such as ``axial: slices to superior, ...``; empty if unknown."""
        return self.place.orientation

    @property
    def place(self) -> SourcePlace:
        """Shape, spacing, units and affine as plain data, without anything about a patient."""
        return SourcePlace(
            self.shape[: self.dims], self.spacing, self.units, plain_affine(self.affine), self.space
        )

    def __getitem__(self, key: Any) -> Any:
        return self.pixels[key]

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        return np.asarray(self.pixels, dtype=dtype)

    def __repr__(self) -> str:
        facts = [self.kind, f"{self.shape} {self.dtype}"]
        if self.spacing is not None:
            sizes = " x ".join(f"{value:.4g}" for value in self.spacing)
            facts.append(f"{sizes} {self.units or ''}".rstrip())
        if self.orientation:
            facts.append(self.orientation)
        if self.window is not None:
            facts.append("window {:g} to {:g}".format(*self.window))
        return f"<SourceImage: {'; '.join(facts)}>"

    def reoriented(self, codes: str) -> SourceImage:
        """Return the volume with its axes along given directions, by turning and mirroring it.

        Files store volumes in different orientations; a network has seen one. No value is interpolated:
        an oblique volume stays oblique.

        Parameters
        ----------
        codes : str
            Directions in which z, y and x grow: ``"SPL"`` for axial slices from the feet to the head as
            radiologists see them, ``"RAS"`` for the order (x, y, z) of MONAI's transforms.

        Returns
        -------
        SourceImage
            With the affine of the new axes, so that maps are written to the right place.

        Raises
        ------
        ImageError
            If the image has no affine or no slices, or `codes` does not name each axis once.
        """
        if self.affine is None or self.dims != 3:
            raise ImageError("Only volumes with an orientation can be turned: this image has none.")
        letters = codes.upper() if isinstance(codes, str) else ""
        groups = sorted("RAS"["LRPAIS".index(c) // 2] for c in letters if c in "LRPAIS")
        if len(letters) != 3 or groups != ["A", "R", "S"]:
            raise ImageError(
                f"codes must name three directions such as SPL or RAS, one of each of R/L, A/P and S/I, "
                f"not {codes!r:.50}."
            )
        if letters == axis_codes(self.affine):
            return self
        order, flipped, affine = reoriented_affine(self.affine, self.shape[:3], letters)
        pixels = np.asarray(self.pixels)
        pixels = pixels.transpose(*order, *range(3, pixels.ndim))
        pixels = np.flip(pixels, tuple(i for i, flip in enumerate(flipped) if flip))
        spacing = None if self.spacing is None else tuple(self.spacing[i] for i in order)
        return replace(self, pixels=pixels, spacing=spacing, affine=affine)
