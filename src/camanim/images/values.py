"""What an image's numbers mean: intensities from 0 to 1, and what is shown of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError

Window = tuple[float, float]


def as_array(image: Any) -> npt.NDArray[Any]:
    """Take whatever numpy takes.

    Raises
    ------
    ImageError
        When it takes it not, as ragged lists, or tensors that want a gradient.
    """
    try:
        return np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ImageError(f"This is no image: {error}") from error


def unit_image(
    image: Any, window: Window | None = None, *, space: int = 2, channels: int = 3
) -> npt.NDArray[np.float32]:
    """Check an image and bring its intensities to [0, 1].

    Parameters
    ----------
    image : array-like
        (H, W) grey, (H, W, 3) colour, (H, W, 4) colour with alpha, which is dropped, or
        (H, W, `channels`). Boolean, integer or floating; numpy, dask, PIL, or anything that
        ``numpy.asarray`` takes.
    window : (low, high), optional
        Values that become 0 and 1, beyond which is cut off. By default the range of the integer
        type, and [0, 1] for floating images.
    space : {2, 3}
        Axes of the image before its channels: with 3, a volume (Z, Y, X) or (Z, Y, X, C).
    channels : int
        A number of channels that is taken as it is.

    Returns
    -------
    (H, W), (H, W, C), (Z, Y, X) or (Z, Y, X, C) float32 array

    Raises
    ------
    ImageError
        For a wrong rank, an empty image, values that are not finite, a floating image outside
        [0, 1] without a window, or a window that is not increasing.
    """
    array = as_array(image)
    if array.ndim != space and not (
        array.ndim == space + 1 and array.shape[-1] in (1, 3, 4, channels)
    ):
        raise ImageError(_wrong_shape(array.shape, space, channels))
    if array.size == 0:
        raise ImageError(f"The image is empty: its shape is {array.shape}.")
    if array.dtype.kind not in "buif":
        raise ImageError(f"An image holds numbers, this one holds {array.dtype}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ImageError("The image holds NaN or infinite values: replace them first.")
    if array.ndim > space:
        count = array.shape[-1]
        array = array[..., 0] if count == 1 else array[..., : count if count == channels else 3]
    low, high = _full_range(array) if window is None else _checked(window)
    unit = np.empty(array.shape, np.float32)
    for row, values in zip(unit, array, strict=True):
        # In float64, where 64-bit integers and large offsets keep their differences.
        row[...] = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)
    return unit


def _wrong_shape(shape: tuple[int, ...], space: int, channels: int) -> str:
    if space == 2:
        extra = "" if channels in (1, 3, 4) else f" or (H, W, {channels})"
        return (
            f"An image is (H, W), (H, W, 3) or (H, W, 4){extra}; this array has shape {shape}: "
            "pass one slice, with its channels last, or slices=True for all slices of a volume."
        )
    extra = "" if channels in (1, 3, 4) else f" or (Z, Y, X, {channels})"
    return f"A volume is (Z, Y, X) or (Z, Y, X, 3){extra}; this array has shape {shape}."


def is_window(window: Any) -> bool:
    """Return whether a value is a window: two finite numbers, the lower one first."""
    try:
        low, high = (float(value) for value in window)
    except (TypeError, ValueError):
        return False
    # An infinite difference has no fractions.
    return low < high and bool(np.isfinite(high - low))


def _checked(window: Window) -> Window:
    if not is_window(window):
        raise ImageError(f"A window is two finite numbers, the lower one first, not {window!r}.")
    low, high = window
    return float(low), float(high)


def _full_range(array: npt.NDArray[Any]) -> Window:
    if array.dtype.kind == "b":
        return 0.0, 1.0
    if array.dtype.kind in "ui":
        limits = np.iinfo(array.dtype)
        return float(limits.min), float(limits.max)
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise ImageError(
            f"This floating image runs from {low:.4g} to {high:.4g}, not within [0, 1]: "
            "say which values are black and white with window=(low, high)."
        )
    return 0.0, 1.0


def to_display(unit: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Turn intensities in [0, 1] into 8 bits."""
    return np.round(unit * 255).astype(np.uint8)


def shown_image(unit: npt.NDArray[np.float32], space: int) -> npt.NDArray[np.uint8]:
    """Turn intensities into what is displayed: grey, or colour; other channels as their mean."""
    if unit.ndim > space and unit.shape[-1] != 3:
        unit = unit.mean(axis=-1, dtype=np.float32)
    return to_display(unit)
