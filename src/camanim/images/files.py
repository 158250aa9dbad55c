"""Images from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError


def read_image(path: str | Path) -> npt.NDArray[Any]:
    """Read an image file (TIFF, PNG, JPEG, ... whatever Pillow reads), upright if it is a photograph.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    array as stored, (H, W) or (H, W, C)

    Raises
    ------
    ImageError
        When there is no such file or it is no image.
    """
    import tifffile
    from PIL import Image, ImageOps

    path = Path(path)
    if not path.is_file():
        raise ImageError(f"There is no file {path}.")
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            array = np.asarray(tifffile.imread(path))
        else:
            with Image.open(path) as file:
                picture = ImageOps.exif_transpose(file)
                # Palettes and inks are ways of storing colours.
                stored = {"LA": "L", "La": "L", "P": "RGB", "PA": "RGB", "CMYK": "RGB"}
                array = np.asarray(picture.convert(stored.get(picture.mode, picture.mode)))
    except Exception as error:
        # Each reader has errors of its own for a damaged file.
        raise ImageError(f"{path} cannot be read as an image: {error}") from error
    if array.size == 0:
        raise ImageError(f"{path} cannot be read as an image: it is damaged or empty.")
    return array
