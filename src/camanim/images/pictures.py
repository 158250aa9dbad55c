"""The values of Pillow's images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError

if TYPE_CHECKING:
    from PIL import Image

#: Modes whose values are grey or RGB intensities as they are.
_INTENSITIES = {"1", "L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N", "RGB", "RGBA"}
#: Modes that can have transparent pixels; some by one transparent colour.
_TRANSPARENT = {"LA", "La", "PA", "RGBa", "P", "1", "L", "RGB"}
_ORIENTATION = 0x0112


def picture_values(image: Image.Image) -> npt.NDArray[Any]:
    """Return the values of a Pillow image.

    Palettes, CMYK, YCbCr, HSV and LAB are converted to RGB, and to RGBA where some pixel is
    transparent; ICC profiles are ignored.

    Parameters
    ----------
    image : PIL.Image.Image

    Returns
    -------
    numpy.ndarray
        (H, W), (H, W, 3) or (H, W, 4).

    Raises
    ------
    ImageError
        If Pillow cannot convert the mode.
    """
    if image.mode in _TRANSPARENT and image.has_transparency_data:
        values = np.asarray(image.convert("RGBA"))
        if values[..., 3].min() < 255:
            return values
        return values[..., 0] if image.mode in ("1", "L", "LA", "La") else values[..., :3]
    if image.mode not in _INTENSITIES:
        try:
            image = image.convert("RGB")
        except ValueError as error:
            raise ImageError(f"The mode {image.mode} of the picture is not supported.") from error
    return np.asarray(image)


def still_picture_values(image: Image.Image) -> npt.NDArray[Any]:
    """Return the values of a Pillow image that a caller passes in place of an array.

    Raises
    ------
    ImageError
        If its EXIF data ask for a rotation, or it has several frames.
    """
    check_still(image)
    # It is not turned here: a custom preprocessing would get the image that is not turned.
    if image.getexif().get(_ORIENTATION, 1) not in (0, 1):
        raise ImageError(
            "The picture's EXIF data ask for a rotation: read its file with camanim.read_image, or "
            "pass numpy.asarray(image) to take the picture as it is stored."
        )
    return picture_values(image)


def check_still(image: Image.Image) -> None:
    """Raise an `ImageError` if an image has several frames."""
    # The second image of MPO, a JPEG of a camera, is a preview or the other eye's view.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise ImageError(
            f"The picture has {frames} frames: save one of them as a PNG or TIFF file."
        )


def frames_at(image: Image.Image, indices: Iterable[int]) -> Iterator[npt.NDArray[Any]]:
    """Yield the values of some frames."""
    for index in indices:
        image.seek(index)
        yield picture_values(image)
