"""Read images from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError
from camanim.images.tiff import read_tiff

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

#: Formats that are read, by Pillow's names; MPO, a camera's JPEG, is opened as JPEG.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")


def read_image(path: str | Path) -> npt.NDArray[Any]:
    """Read an image file: PNG, JPEG, TIFF, BMP, GIF, WebP, PPM, PGM or PBM.

    The image is turned upright, as its EXIF orientation or TIFF tag says. Palettes, CMYK, YCbCr and LAB
    are converted to RGB; ICC profiles are ignored.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    numpy.ndarray
        The stored values, (H, W), (H, W, 3) or (H, W, 4); a TIFF may have more axes.

    Raises
    ------
    ImageError
        If the file does not exist, is not an image, is an animation, or has colours that cannot be read
        as stored.
    """
    try:
        path = Path(path)
        exists = path.is_file()
    except (OSError, TypeError, ValueError) as error:
        raise ImageError(f"{path!r:.200} is not the path of a file: {error}") from error
    if not exists:
        raise ImageError(f"There is no file {path}.")
    try:
        array = READERS.get(path.suffix.lower(), _read_picture)(path)
    except Exception as error:
        # The readers raise different errors for a damaged file.
        raise ImageError(f"{path} cannot be read as an image: {error}") from error
    if array.size == 0:
        raise ImageError(f"{path} cannot be read as an image: it is damaged or empty.")
    return array


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


#: Readers by suffix in lower case; Pillow finds the format of all other files.
READERS: dict[str, Callable[[Path], npt.NDArray[Any]]] = {".tif": read_tiff, ".tiff": read_tiff}
