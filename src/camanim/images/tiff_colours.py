"""Colours of TIFF that Pillow does not convert: those of 16 bits, and other codes of L*a*b*."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError

if TYPE_CHECKING:
    from tifffile import TiffPage

_PALETTE, _SEPARATED, _CIELAB, _ICCLAB, _ITULAB = 3, 5, 8, 9, 10
_INK_SET, _CMYK = 332, 1
#: Interpretations of 16 bits that are converted here; of 8 bits, Pillow converts all but the last two.
DEEP = {_PALETTE, _SEPARATED, _CIELAB, _ICCLAB}
#: Interpretations of 8 bits that are converted here.
SHALLOW = {_ICCLAB, _ITULAB}


def is_converted(page: TiffPage) -> bool:
    """Return whether `to_rgb` converts the colours of a page."""
    kinds = {8: SHALLOW, 16: DEEP}.get(page.bitspersample, set())
    return page.photometric in kinds and page.dtype is not None and page.dtype.kind in "ui"


def to_rgb(values: npt.NDArray[Any], page: TiffPage) -> npt.NDArray[np.uint8]:
    """Return values as RGB of 8 bits.

    Parameters
    ----------
    values : (..., H, W) or (..., H, W, C) array
        With the samples of a pixel last.
    page : tifffile.TiffPage
        See `is_converted`.

    Returns
    -------
    (..., H, W, 3) uint8 array

    Raises
    ------
    ImageError
        If the inks are not cyan, magenta, yellow and black.
    """
    if page.photometric == _PALETTE:
        colormap = np.asarray(page.colormap)
        return (colormap[:, values] >> 8).astype(np.uint8).transpose(*range(1, values.ndim + 1), 0)
    if page.photometric == _SEPARATED:
        if page.tags.valueof(_INK_SET, _CMYK) != _CMYK or values.shape[-1] < 4:
            raise ImageError("its inks are not cyan, magenta, yellow and black; save it as RGB.")
        light = 1 - values[..., :4].astype(np.float32) / np.iinfo(values.dtype).max
        return _bytes(light[..., :3] * light[..., 3:])
    from skimage.color import lab2rgb

    return _bytes(lab2rgb(_lab(values[..., :3], int(page.photometric))))


def _lab(values: npt.NDArray[Any], photometric: int) -> npt.NDArray[np.float32]:
    """Return L* in [0, 100], and a* and b*, by TIFF 6.0, its ICC supplement and TIFF/FX (RFC 3949)."""
    deep = values.dtype.itemsize == 2
    numbers = values.astype(np.float32)
    if photometric == _CIELAB:
        # a* and b* are signed, in the same bits.
        numbers[..., 1:] = values[..., 1:].view(np.int16) / np.float32(256)
        return numbers * np.array([100 / 65535, 1, 1], np.float32)
    if photometric == _ICCLAB:
        lightness, chroma = (100 / 65280, 1 / 256) if deep else (100 / 255, 1.0)
        factors = np.array([lightness, chroma, chroma], np.float32)
        return numbers * factors - np.array([0, 128, 128], np.float32)
    spans = np.array([100 / 255, 170 / 255, 200 / 255], np.float32)
    return (numbers - np.array([0, 128, 96], np.float32)) * spans


def _bytes(unit: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    rounded: npt.NDArray[np.uint8] = np.round(np.clip(unit, 0, 1) * 255).astype(np.uint8)
    return rounded
