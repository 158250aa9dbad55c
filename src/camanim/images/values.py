"""Convert the values of images to intensities in [0, 1], and to 8 bits for display."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError
from camanim.images.pictures import still_picture_values

Window = tuple[float, float]

#: Far less than a step of 8 bits.
_ROUNDING = 1e-5


def as_array(image: Any) -> npt.NDArray[Any]:
    """Convert an image to a numpy array; the colours of a Pillow image become grey or RGB values.

    Raises
    ------
    ImageError
        As `checked_array`; or if a Pillow image has several frames or asks for a rotation.
    """
    from PIL import Image

    if isinstance(image, Image.Image):
        return still_picture_values(image)
    return checked_array(image, "image")


def checked_array(value: Any, name: str) -> npt.NDArray[Any]:
    """Convert an array-like to a numpy array; `name` is that of the value in messages.

    Raises
    ------
    ImageError
        If numpy cannot convert it, such as ragged lists or tensors that require a gradient; if it is a
        path; or if some of its values are masked.
    """
    if isinstance(value, str | bytes | os.PathLike):
        raise ImageError(
            f"The {name} must be an array, not a path: read {os.fspath(value)!r:.200} with "
            "camanim.read_image."
        )
    if hasattr(value, "__dask_graph__"):
        # Computed first, since dask drops the mask of a masked array when numpy converts it.
        value = value.compute()
    try:
        array = np.asanyarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ImageError(f"The {name} cannot be converted to an array: {error}") from error
    parts = value if isinstance(value, list | tuple) else [array]
    if any(np.ma.is_masked(part) for part in parts):
        raise ImageError(
            f"The {name} has masked values, which no network can skip: replace them with filled()."
        )
    return np.asarray(array)


def unit_image(
    image: Any,
    window: Window | None = None,
    *,
    space: int = 2,
    channels: int = 3,
    note: Callable[[str], object] = lambda text: None,
) -> npt.NDArray[np.float32]:
    """Check an image and scale its intensities to [0, 1].

    Parameters
    ----------
    image : array-like
        (H, W) grey, (H, W, 3) colour, (H, W, 4) colour with alpha, which is dropped, or
        (H, W, `channels`), of boolean, integer or floating type. Anything that ``numpy.asarray``
        takes.
    window : (low, high), optional
        Values that become 0 and 1; values outside are clipped. By default 0 and 255 for uint8, the
        lowest and highest value of the image for all other integers, and [0, 1] for floating images.
    space : {2, 3}
        Number of spatial axes: with 3, a volume (Z, Y, X) or (Z, Y, X, C).
    channels : int
        A further number of channels that is valid, and returned without conversion.
    note : callable
        Called with a sentence if the window is taken from the values of an integer image, or a
        transparency is dropped.

    Returns
    -------
    numpy.ndarray
        (H, W), (H, W, C), (Z, Y, X) or (Z, Y, X, C), float32.

    Raises
    ------
    ImageError
        If the image has another number of axes, is empty, has masked values or values that are not
        finite, or is floating with values outside [0, 1] and no window; or if the window is not
        increasing.
    """
    array = as_array(image)
    if array.ndim != space and not (
        array.ndim == space + 1 and array.shape[-1] in (1, 3, 4, channels)
    ):
        raise ImageError(_wrong_shape(array.shape, space, channels))
    if space == 3 and array.ndim == 3 and array.shape[-1] in (1, 3, 4):
        raise ImageError(
            f"An array of shape {array.shape} is taken for an image with channels, not for a volume: "
            "for a volume as narrow as this, add an axis of channels, as in volume[..., None]."
        )
    if array.size == 0:
        raise ImageError(f"The image is empty: its shape is {array.shape}.")
    if array.dtype.kind not in "buif":
        raise ImageError(f"The image must hold real numbers, not {array.dtype}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ImageError("The image holds NaN or infinite values: replace them first.")
    if array.ndim > space:
        count = array.shape[-1]
        if count == 4 != channels and array[..., 3].min() != array[..., 3].max():
            note("The image is partly transparent: its colours were used without the transparency.")
        array = array[..., 0] if count == 1 else array[..., : count if count == channels else 3]
    low, high = _default_window(array, note) if window is None else _check_window(window)
    unit = np.empty(array.shape, np.float32)
    for row, values in zip(unit, array, strict=True):
        # float64 keeps differences of 64-bit integers and of values with large offsets.
        row[...] = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)
    return unit


def _wrong_shape(shape: tuple[int, ...], space: int, channels: int) -> str:
    if space == 2:
        extra = "" if channels in (1, 3, 4) else f" or (H, W, {channels})"
        return (
            f"An image is (H, W), (H, W, 3) or (H, W, 4){extra}; this array has shape {shape}: "
            "pass one slice with channels last, or slices=True for all slices of a volume."
        )
    extra = "" if channels in (1, 3, 4) else f" or (Z, Y, X, {channels})"
    return f"A volume is (Z, Y, X) or (Z, Y, X, 3){extra}; this array has shape {shape}."


def is_window(window: Any) -> bool:
    """Return whether a value is a window: two finite numbers, the lower one first."""
    try:
        low, high = (float(value) for value in window)
    except (TypeError, ValueError):
        return False
    # The difference overflows for windows that are too wide.
    return low < high and bool(np.isfinite(high - low))


def _check_window(window: Window) -> Window:
    if not is_window(window):
        raise ImageError(f"window must be two finite numbers, the lower one first, not {window!r}.")
    low, high = window
    return float(low), float(high)


def _default_window(array: npt.NDArray[Any], note: Callable[[str], object]) -> Window:
    """Return the window of an image without one; `note` is called where it depends on the image."""
    if array.dtype.kind == "b":
        return 0.0, 1.0
    if array.dtype == np.uint8:
        return 0.0, 255.0
    return intensity_window(array.dtype, float(array.min()), float(array.max()), note)


def intensity_window(
    dtype: np.dtype[Any], low: float, high: float, note: Callable[[str], object]
) -> Window:
    """Return the window of an image whose values have a type and extremes.

    Parameters
    ----------
    dtype : numpy.dtype
        Floating, or an integer type other than uint8.
    low, high : float
        Lowest and highest value of the image.
    note : callable
        Called where the window depends on the values.

    Raises
    ------
    ImageError
        If the values are floating and outside [0, 1].
    """
    if dtype.kind == "f":
        # Division by the maximum can end above 1, by as much as the type rounds.
        tolerance = max(_ROUNDING, 2 * float(np.finfo(dtype).eps))
        if low < -tolerance or high > 1 + tolerance:
            raise ImageError(
                f"The floating image has values from {low:.4g} to {high:.4g}, outside [0, 1]: pass "
                "the values of black and white as window=(low, high)."
            )
        return 0.0, 1.0
    # The range of the type says nothing: 16 bits hold 12 of a camera, 64 bits those of a list.
    note(
        f"The {dtype.name} image has values from {low:.15g} to {high:.15g}, which became black "
        "and white: set a window for other limits."
    )
    # A constant image is black.
    return low, max(high, low + 1, float(np.nextafter(low, np.inf)))


def to_display(unit: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Convert intensities in [0, 1] to 8 bits."""
    return np.round(unit * 255).astype(np.uint8)


def display_image(unit: npt.NDArray[np.float32], space: int) -> npt.NDArray[np.uint8]:
    """Convert intensities to 8 bits, in grey or colour; other numbers of channels are averaged."""
    if unit.ndim > space and unit.shape[-1] != 3:
        unit = unit.mean(axis=-1, dtype=np.float32)
    return to_display(unit)
