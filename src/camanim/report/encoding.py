"""Images and maps as text within a page."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from camanim.stack import Stack

if TYPE_CHECKING:
    from camanim.images import Geometry

#: Maps are not reduced below this length of the longer side.
_SMALLEST = 16


def data_uri(image: Image.Image, quality: int | None = None) -> str:
    """Return an image as the text of its file: PNG, or JPEG if a quality is given."""
    content = BytesIO()
    if quality is None:
        image.save(content, "PNG", optimize=True)
    else:
        # Without subsampled colours, which blur thin red lines.
        image.convert("RGB").save(content, "JPEG", quality=quality, subsampling=0, optimize=True)
    kind = "png" if quality is None else "jpeg"
    return f"data:image/{kind};base64,{as_text(content.getvalue())}"


def as_text(content: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(content).decode("ascii")


def picture(pixels: npt.NDArray[np.uint8], size: int) -> tuple[str, tuple[int, int]]:
    """Return an image for display, and the size at which it is shown.

    Parameters
    ----------
    pixels : (H, W) or (H, W, 3) uint8 array
    size : int
        Length of the longer side in pixels. A larger image is reduced, a smaller one is enlarged by the
        browser.

    Returns
    -------
    text : str
        PNG of a grey image, which is lossless, and JPEG of a colour image.
    shown : (width, height)
    """
    height, width = pixels.shape[:2]
    scale = size / max(height, width)
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(pixels)
    if scale < 1:
        image = image.resize(shown, Image.Resampling.LANCZOS)
    grey = pixels.ndim == 2 or bool((pixels == pixels[..., :1]).all())
    return data_uri(image.convert("L") if grey else image, None if grey else 92), shown


def covered(pixels: npt.NDArray[np.uint8], geometry: Geometry) -> list[float]:
    """Return left, top, right and bottom of the maps as fractions of the image's width and height."""
    (top, left, bottom, right), (height, width) = geometry.box, pixels.shape[:2]
    return [left / width, top / height, right / width, bottom / height]


@dataclass(frozen=True)
class LayerLevels:
    """What a page needs to know about the encoded map of one layer.

    Attributes
    ----------
    index : int
        Index in `Result.layers`.
    shape : (h, w)
        Of the encoded map.
    native : tuple of int
        Of the map of the layer, (h, w) or (d, h, w).
    low, high : float
        Raw values of the lowest and highest level.
    """

    index: int
    shape: tuple[int, int]
    native: tuple[int, ...]
    low: float
    high: float


def longest_side(shapes: Sequence[tuple[int, int]], longest: int, budget: int) -> int:
    """Return the length of the longer side to which maps are reduced so that all fit into a budget.

    Parameters
    ----------
    shapes : sequence of (h, w)
    longest : int
        Upper limit.
    budget : int
        Largest number of cells of all maps.
    """
    low, high = min(_SMALLEST, longest), longest
    while low < high:
        middle = (low + high + 1) // 2
        if sum(np.prod(_reduced(shape, middle)) for shape in shapes) <= budget:
            low = middle
        else:
            high = middle - 1
    return low


def evenly(count: int, most: int, wanted: int) -> list[int]:
    """Return at most `most` indices from 0 to ``count - 1`` at equal distances, and among them one."""
    if count <= most:
        return list(range(count))
    chosen = np.floor(np.linspace(0, count - 1, most) + 0.5).astype(int)
    chosen[np.abs(chosen - wanted).argmin()] = wanted
    return [int(i) for i in chosen]


def levels(stack: Stack, i: int, longest: int) -> npt.NDArray[np.uint8]:
    """Return the map of a layer as 8-bit levels of its range, reduced by area where it is larger.

    Parameters
    ----------
    stack : Stack
        Of maps (h, w), with local normalisation.
    i : int
    longest : int
        Largest length of the longer side.

    Returns
    -------
    (h, w) uint8 array
        0 to 255 for the limits of the layer; with signed maps, 127.5 is 0.
    """
    shares = stack.native(i)
    if stack.signed:
        shares = np.float32(0.5) * shares + np.float32(0.5)
    height, width = _reduced(shares.shape, longest)
    if (height, width) != shares.shape:
        reduced = Image.fromarray(shares).resize((width, height), Image.Resampling.BOX)
        shares = np.asarray(reduced)
    return np.round(shares * np.float32(255)).astype(np.uint8)


def packed(maps: Sequence[npt.NDArray[np.uint8]]) -> str:
    """Return maps one after the other, compressed (zlib, as of ``DecompressionStream("deflate")``)."""
    # Neither PNG nor differences of neighbours are smaller, as most cells are 0.
    return as_text(zlib.compress(b"".join(m.tobytes() for m in maps), 9))


def _reduced(shape: Sequence[int], longest: int) -> tuple[int, int]:
    height, width = shape[-2:]
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
