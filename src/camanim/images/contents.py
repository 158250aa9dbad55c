"""What the values of an image tell about it: colour, and labels stored as an image."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from camanim.images.values import as_array

#: A pixel is coloured if its largest and smallest channel differ by more than this, in [0, 1]. JPEG adds
#: less to grey pictures.
CHROMA = 0.1
#: An image is in colour from this share of coloured pixels on, and grey below the second. A few coloured
#: marks on a grey picture are neither. Photographs have 0.05 (Hubble's deep field) to 0.96.
COLOR_SHARE, GREY_SHARE = 0.02, 0.002
#: Share of equal neighbours, among those that are not both background, from which regions are flat.
#: Photographs and ultrasound have up to 0.57, masks and segmentations from 0.85 on.
FLATNESS = 0.75
#: Labels in 8 bits are at most as many, counted from 0: a picture with these values would be black.
FEW = 32
#: Rows, columns and slices of an image that are read, at most, from its middle.
_SIDE, _SLICES = 2048, 8


def color_of(image: Any) -> Literal["colour", "grey", ""]:
    """Return whether an image is in colour or grey; empty for neither, or if there is no telling.

    Parameters
    ----------
    image : array-like
        (H, W), (H, W, C), (Z, Y, X) or (Z, Y, X, C). Without an axis of 3 or 4 channels it is grey.

    Returns
    -------
    {"colour", "grey", ""}
        Of RGB values, by the share of pixels whose channels differ by more than `CHROMA`.
    """
    array = as_array(image)
    if array.ndim < 3 or array.shape[-1] not in (3, 4):
        return "grey" if array.ndim == 2 or array.shape[-1] == 1 or array.ndim == 3 else ""
    if array.size == 0 or array.dtype.kind not in "uif":
        return ""
    part = _middle(array[..., :3], array.ndim - 1).astype(np.float64)
    span = 255.0 if array.dtype == np.uint8 else float(part.max() - min(part.min(), 0))
    chroma = np.ptp(part, axis=-1)
    if not np.isfinite(span) or span <= 0:
        return ""
    share = float((chroma > CHROMA * span).mean())
    return "colour" if share >= COLOR_SHARE else "grey" if share < GREY_SHARE else ""


def why_labels(image: Any) -> str | None:
    """Return one sentence if an image holds labels, such as a segmentation or a mask; None otherwise.

    An image holds labels if its values are integers or boolean in one channel, if they form flat regions
    (at least 75 % of the neighbours along each axis that are not both background are equal), and if they
    cannot be those of a picture: booleans, integers of more than 8 bits, or in 8 bits just 0 and 1, just
    0 and 255, or numbers below 32. Pictures in colour, floating images, and other pictures of 8 bits are
    never taken for labels, however flat they are. Drawings in black and white are.

    Parameters
    ----------
    image : array-like
        (H, W) or (Z, Y, X).
    """
    array = as_array(image)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    is_color = array.ndim == 3 and array.shape[-1] in (3, 4)
    if array.ndim not in (2, 3) or is_color or array.dtype.kind not in "bui" or not array.size:
        return None
    part = _middle(array, array.ndim)
    values, counts = np.unique(part, return_counts=True)
    background = values[counts.argmax()]
    low, high = int(values[0]), int(values[-1])
    if len(values) < 2 or (array.dtype.itemsize == 1 and not _labels_in_8_bits(values)):
        return None
    if len(values) > part.size / 16 or _flatness(part, background) < FLATNESS:
        return None
    if len(values) == 2:
        what = f"two values, {low} and {high}, in flat regions"
    else:
        what = f"{len(values)} different integers from {low} to {high} in flat regions"
    return f"The image has {what}: it is a mask or a segmentation, not a picture."


def _labels_in_8_bits(values: npt.NDArray[Any]) -> bool:
    if values.dtype.kind == "b":
        return True
    return (len(values) == 2 and values.tolist() == [0, 255]) or (
        int(values[0]) >= 0 and int(values[-1]) < FEW
    )


def _flatness(array: npt.NDArray[Any], background: Any) -> float:
    """Return the share of equal neighbours that are not both background, the smallest over the axes."""
    shares = []
    for axis in (-1, -2):
        first = np.moveaxis(array, axis, 0)[1:]
        second = np.moveaxis(array, axis, 0)[:-1]
        counted = ~((first == background) & (second == background))
        if counted.any():
            shares.append(float((first == second)[counted].mean()))
    return min(shares, default=0.0)


def _middle(array: npt.NDArray[Any], space: int) -> npt.NDArray[Any]:
    """Return the middle of a large image, so that the time is bounded."""
    lengths = [_SLICES, _SIDE, _SIDE][-space:]
    for axis, length in enumerate(lengths):
        excess = max(array.shape[axis] - length, 0)
        array = array[(slice(None),) * axis + (slice(excess // 2, excess // 2 + length),)]
    return array
