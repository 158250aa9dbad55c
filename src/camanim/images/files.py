"""Read images from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError
from camanim.images.arrays import open_npy, open_npz, spatial_axes
from camanim.images.dicom import is_dicom, open_dicom
from camanim.images.nifti import open_nifti
from camanim.images.ome_zarr import is_zarr, open_zarr
from camanim.images.selection import Selection
from camanim.images.source import SourceImage
from camanim.images.tiff import open_tiff, read_tiff

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

#: Formats that are read, by Pillow's names; MPO, a camera's JPEG, is opened as JPEG.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")


def read_image(
    path: str | Path,
    *,
    series: int | str | None = None,
    volume: int | None = None,
    channel: int | None = None,
) -> npt.NDArray[Any]:
    """Read the pixels of an image file; see `open_image` for the formats and for more than the pixels.

    Parameters
    ----------
    path : path-like
    series, volume, channel
        As for `open_image`.

    Returns
    -------
    numpy.ndarray
        (H, W), (H, W, 3) or (H, W, 4); a volume (Z, H, W). A TIFF or an array may have more axes.

    Raises
    ------
    ImageError
        As of `open_image`.
    """
    source = open_image(path, series=series, volume=volume, channel=channel)
    return np.array(source.pixels) if source.kind == "NumPy" else np.asarray(source)


def open_image(
    path: str | Path,
    *,
    series: int | str | None = None,
    volume: int | None = None,
    channel: int | None = None,
) -> SourceImage:
    """Open an image file with its pixels, window, spacing and orientation.

    Read are PNG, JPEG, TIFF, BMP, GIF, WebP, PPM, PGM and PBM; arrays of NumPy (``.npy``, ``.npz``) and
    of Zarr, OME-Zarr; NIfTI; DICOM files, and the folder of a DICOM series. See docs/guide.md for each.

    Pictures are turned upright, as their EXIF orientation or TIFF tag says. Palettes, CMYK, YCbCr and
    LAB are converted to RGB; ICC profiles are ignored. Volumes keep the order in which they are stored,
    (z, y, x), and `SourceImage.affine` says where they lie.

    Parameters
    ----------
    path : path-like
        A file, or the folder of a Zarr array or of a DICOM series.
    series : int or str, optional
        Which series of a folder of DICOM files, by number or SeriesInstanceUID; which image of an
        OME-Zarr folder with several.
    volume : int, optional
        Which volume or point in time.
    channel : int, optional
        Which channel of an OME-Zarr image; by default all of them, as the last axis.

    Returns
    -------
    SourceImage
        An image for `camanim.animate`. Data of a patient is in none of its printed or copied fields.

    Raises
    ------
    ImageError
        If the file does not exist, is damaged or is not an image; if it holds several images, none of
        which was chosen; or if it is an animation, or has colours that cannot be read as stored. Nothing
        in a file is run.
    """
    try:
        path = Path(path)
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, TypeError, ValueError) as error:
        raise ImageError(f"{path!r:.200} is not the path of a file: {error}") from error
    if not (is_file or is_folder):
        raise ImageError(f"There is no file {path}.")
    selection = Selection(series, volume, channel)
    try:
        opener = _opener(path)
    except OSError as error:
        # Its message may name a file within the folder, and files of DICOM may have names of patients.
        reason = error.strerror or type(error).__name__
        raise ImageError(f"{path} cannot be read ({reason}): check its permissions.") from None
    if opener is None:
        raise ImageError(f"The folder {path} holds neither a DICOM series nor a Zarr array.")
    if opener is open_dicom:
        # Its errors name no file, since names of files may be those of patients.
        return open_dicom(path, selection)
    try:
        source = opener(path, selection)
    except Exception as error:
        # The readers raise different errors for a damaged file.
        raise ImageError(f"{path} cannot be read as an image: {error}") from error
    if 0 in source.shape or not source.shape:
        raise ImageError(f"{path} cannot be read as an image: it is damaged or empty.")
    return source


def _opener(path: Path) -> Opener | None:
    """Return the reader of a file, by its suffix, or by its content; None for any other folder."""
    if is_zarr(path):
        return open_zarr
    if path.is_dir():
        return open_dicom if is_dicom(path) else None
    name = path.name.lower()
    for suffix, opener in OPENERS.items():
        if name.endswith(suffix):
            return opener
    return open_dicom if is_dicom(path) else _open_picture


def _open_picture(path: Path, selection: Selection) -> SourceImage:
    """Open a file that Pillow reads."""
    selection.allow("A picture")
    pixels = _read_picture(path)
    kind = path.suffix.lstrip(".").upper() or "picture"
    return SourceImage(pixels, spatial_axes(pixels.shape), kind, path.stem)


def _read_picture(path: Path) -> npt.NDArray[Any]:
    """Read a file that Pillow supports; the format is that of its content."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    from camanim.images.pictures import check_still, picture_values

    try:
        file = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(f"it is none of {', '.join(FORMATS)}, or damaged.") from error
    with file:
        if file.format == "TIFF":
            return read_tiff(path)
        check_still(file)
        # Pillow cuts colours of 16 bits to 8; grey values are kept.
        if (bits := _bits(file)) > 8 and file.mode in ("RGB", "RGBA", "LA"):
            if file.format == "PNG":
                return _read_deep_png(path)
            raise ImageError(f"its colours have {bits} bits; save it as PNG or TIFF.")
        return picture_values(ImageOps.exif_transpose(file))


def _bits(file: ImageFile) -> int:
    """Return the number of bits of a channel in a file that Pillow has opened and not yet read."""
    encoding = file.tile[0].args if file.tile else ""
    if file.format == "PPM" and isinstance(encoding, tuple):
        return int(encoding[1]).bit_length()
    return 16 if ";16" in str(encoding) else 8


def _read_deep_png(path: Path) -> npt.NDArray[Any]:
    """Read a PNG with several channels of 16 bits.

    Pillow decodes one byte of each sample: the higher one, or the lower one if it takes the order of
    bytes to be the reverse.
    """
    from PIL import Image, ImageOps

    halves = []
    for order in ("B", "L"):
        with Image.open(path, formats=("PNG",)) as file:
            ((codec, extents, offset, encoding),) = file.tile
            if encoding not in ("RGB;16B", "RGBA;16B"):
                raise ImageError("it is grey of 16 bits with transparency; save it without.")
            file.tile = [(codec, extents, offset, f"{file.mode};16{order}")]  # type: ignore[list-item]
            halves.append(np.asarray(ImageOps.exif_transpose(file)).astype(np.uint16))
    high, low = halves
    return high << 8 | low


Opener = Callable[[Path, Selection], SourceImage]

#: Readers by suffix in lower case; Zarr, DICOM and what Pillow reads are known by their content.
OPENERS: dict[str, Opener] = {
    ".tif": open_tiff,
    ".tiff": open_tiff,
    ".nii": open_nifti,
    ".nii.gz": open_nifti,
    ".npy": open_npy,
    ".npz": open_npz,
}
