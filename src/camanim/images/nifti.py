"""Read NIfTI volumes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError
from camanim.images.place import Affine
from camanim.images.selection import Selection, chosen
from camanim.images.source import SourceImage
from camanim.images.values import Window, is_window

#: Coordinate systems of an affine, by the code of NIfTI.
SPACES = {1: "scanner", 2: "aligned", 3: "talairach", 4: "mni"}
#: Units of length, by the code of NIfTI: the name here, and how many of them.
_UNITS = {1: ("mm", 1000.0), 2: ("mm", 1.0), 3: ("um", 1.0)}
_NO_UNIT = "The NIfTI file does not say its unit of length: mm is assumed."
_NO_ORIENTATION = "The NIfTI file does not say how its axes lie."
#: Bytes that one byte of a gzip file can become, at most.
_GZIP = 1032


def open_nifti(path: Path, selection: Selection) -> SourceImage:
    """Open a NIfTI file with the axes in reverse, (z, y, x): its arrays are (x, y, z).

    Values are scaled as the header says, and otherwise have their stored type. A volume of one slice is
    (y, x).
    """
    from camanim.optional import library

    selection.allow("A NIfTI file", "volume")
    nibabel = library("nibabel", "medical")
    # Of its content: nothing is read by the name of the file.
    image: Any = nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Image):
        raise ImageError("it holds no voxels, such as CIFTI: convert it to a NIfTI volume.")
    header = image.header
    shape, dtype = tuple(int(n) for n in image.shape), header.get_data_dtype()
    is_color = "".join(dtype.names or ()) in ("RGB", "RGBA")
    if dtype.kind not in "buif" and not is_color:
        raise ImageError(f"it holds {dtype} values, not real numbers.")
    available = path.stat().st_size * (1 if path.suffix.lower() == ".nii" else _GZIP)
    if not shape or math.prod(shape) * dtype.itemsize > available:
        raise ImageError("it is damaged: its header promises more voxels than the file has.")
    values = _volume(image, selection.volume)
    if is_color:
        values = np.stack([values[c] for c in dtype.names or ()], -1)
    pixels = values.transpose(*reversed(range(3)), *range(3, values.ndim))
    dims = 3
    if len(pixels) == 1:
        pixels, dims = pixels[0], 2
    # The lowest three bits; nibabel raises a KeyError for codes that the format does not define.
    unit = _UNITS.get(int(header["xyzt_units"]) & 7)
    units, factor = unit or ("mm", 1.0)
    affine, space = _affine(image)
    notes = [
        *([] if affine is not None else [_NO_ORIENTATION]),
        *([] if unit is not None else [_NO_UNIT]),
    ]
    spacing = tuple(float(v) * factor for v in (*header.get_zooms()[:3], 1.0, 1.0)[:3])[::-1]
    if affine is not None:
        affine[:3] *= factor
        # Lengths of the columns: the zooms of the header can differ from the affine.
        spacing = tuple(float(v) for v in np.linalg.norm(affine[:3, :3], axis=0))
    return SourceImage(
        np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("=")),
        dims,
        "NIfTI",
        path.name.removesuffix(".gz").removesuffix(".nii"),
        window=None if is_color else _window(header),
        spacing=spacing[3 - dims :],
        units=units,
        affine=affine,
        space=space,
        notes=tuple(notes),
    )


def _volume(image: Any, volume: int | None) -> npt.NDArray[Any]:
    """Return the values (x, y, z) of one volume."""
    shape = (*image.shape, 1, 1)[: max(3, image.ndim)]
    count = math.prod(shape[3:])
    index = chosen(volume, count, "volume", f"it holds {count} volumes")
    at = np.unravel_index(index, shape[3:], order="F") if shape[3:] else ()
    # Only this volume is read, and scaled if the header says so.
    values: npt.NDArray[Any] = np.asanyarray(image.dataobj[(..., *(int(i) for i in at))])
    if values.dtype == np.float64 and image.header.get_data_dtype() != np.float64:
        values = values.astype(np.float32)
    return values.reshape(shape[:3])


def _affine(image: Any) -> tuple[Affine | None, str | None]:
    """Return the affine for indices (z, y, x), and its coordinate system."""
    header = image.header
    codes = [int(header[name]) for name in ("sform_code", "qform_code") if name in header]
    code = next((c for c in codes if c > 0), 0)
    if code == 0 or not np.isfinite(image.affine).all():
        return None, None
    affine = np.asarray(image.affine, np.float64)[:, [2, 1, 0, 3]]
    if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        return None, None
    return affine, SPACES.get(code)


def _window(header: Any) -> Window | None:
    window = tuple(float(header[name]) for name in ("cal_min", "cal_max") if name in header)
    return window if len(window) == 2 and is_window(window) else None
