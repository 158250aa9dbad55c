"""Read images from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError


def read_image(path: str | Path) -> npt.NDArray[Any]:
    """Read an image file: of a suffix in `READERS`, or of any format that Pillow supports.

    Pillow's images are turned as their EXIF orientation says.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    numpy.ndarray
        The stored values, (H, W) or (H, W, C); a TIFF may have more axes.

    Raises
    ------
    ImageError
        If the file does not exist or is not an image.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"There is no file {path}.")
    try:
        array = READERS.get(path.suffix.lower(), _read_picture)(path)
    except Exception as error:
        # The readers raise different errors for a damaged file.
        raise ImageError(f"{path} cannot be read as an image: {error}") from error
    if array.size == 0:
        raise ImageError(f"{path} cannot be read as an image: it is damaged or empty.")
    return array


def _read_tiff(path: Path) -> npt.NDArray[Any]:
    import tifffile

    return np.asarray(tifffile.imread(path))


def _read_picture(path: Path) -> npt.NDArray[Any]:
    """Read any file that Pillow supports."""
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        # Palettes and CMYK are converted to grey or RGB values.
        modes = {"LA": "L", "La": "L", "P": "RGB", "PA": "RGB", "CMYK": "RGB"}
        return np.asarray(image.convert(modes.get(image.mode, image.mode)))


#: Readers by suffix in lower case; Pillow reads all others.
READERS: dict[str, Callable[[Path], npt.NDArray[Any]]] = {".tif": _read_tiff, ".tiff": _read_tiff}
