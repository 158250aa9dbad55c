"""A map in colours over its image, at display size."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from cmap import Catalog, Colormap
from PIL import Image

from camanim.errors import RenderError
from camanim.opencv import import_with_opencv
from camanim.stack import Normalization, stack_maps

if TYPE_CHECKING:
    from camanim.images import Geometry
    from camanim.result import Result
    from camanim.stack import FloatMap

#: Default colour maps, by `signed`. Both are dark at zero, so that the image remains visible.
COLORMAPS = {False: "turbo", True: "berlin"}


class Overlay:
    """Blends maps with an image; what all maps share is computed once.

    Parameters
    ----------
    pixels : (H, W) or (H, W, 3) uint8 array
        The image as shown.
    geometry : Geometry
        Position of the network's input on the image.
    size : int
        Length of the longer side in pixels.
    colors : (256, 3) uint8 array
        See `lookup_table`.
    opacity : float
        Opacity of the map, 0 to 1.
    grey : bool
        Whether the image is in grey.

    Attributes
    ----------
    image : PIL.Image.Image
        The resized image.
    corner : (x, y)
        Left and top of the part that maps cover.
    """

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        geometry: Geometry,
        size: int,
        colors: npt.NDArray[np.uint8],
        opacity: float = 0.5,
        *,
        grey: bool = False,
    ) -> None:
        self.image = image = _display_image(pixels, size, grey=grey)
        self._cv2, self._lut, self._opacity = import_with_opencv(), colors[:, None], opacity
        top, left, bottom, right = geometry.box
        height, width = pixels.shape[:2]
        x0, x1, *columns = _span(left, right, image.width / width, image.width)
        y0, y1, *rows = _span(top, bottom, image.height / height, image.height)
        self._part = np.array([columns[0], rows[0], columns[1], rows[1]])
        self._covered = np.asarray(image.crop((x0, y0, x1, y1)))
        self.corner = (x0, y0)

    @property
    def covered(self) -> tuple[int, int]:
        """Width and height of the part that maps cover."""
        height, width = self._covered.shape[:2]
        return width, height

    def blend(self, levels: FloatMap) -> Image.Image:
        """Return the covered part of the image, blended with a map.

        Parameters
        ----------
        levels : (h, w) float32 array
            Positions on the colour bar, in [0, 1].
        """
        colors = self._cv2.applyColorMap(self._indices(levels), self._lut)
        if self._opacity < 1:
            colors = self._cv2.addWeighted(
                self._covered, 1 - self._opacity, colors, self._opacity, 0.0
            )
        return Image.fromarray(colors)

    def _indices(self, levels: FloatMap) -> npt.NDArray[np.uint8]:
        """Return the index of the colour of each covered pixel, (H, W)."""
        height, width = self._covered.shape[:2]
        whole = np.array_equal(self._part, (0, 0, 1, 1))
        if whole and levels.shape[0] <= height and levels.shape[1] <= width:
            # Ten times as fast as Pillow; the values are the same, as nothing is reduced.
            large = self._cv2.resize(levels, (width, height), interpolation=self._cv2.INTER_LINEAR)
            indices: npt.NDArray[np.uint8] = self._cv2.convertScaleAbs(large, alpha=255)
            return indices
        size = np.array(levels.shape[::-1] * 2)
        # Padded by one, as the edges of display pixels may lie outside of the map.
        left, top, right, bottom = np.clip(1 + self._part * size, 0, size + 2).tolist()
        # Pillow truncates on conversion to 8 bits; adding 0.5 rounds.
        native = Image.fromarray(np.pad(levels, 1, "edge") * np.float32(255) + np.float32(0.5))
        box = (left, top, right, bottom)
        return np.asarray(
            native.resize((width, height), Image.Resampling.BILINEAR, box).convert("L")
        )

    def picture(self, levels: FloatMap) -> npt.NDArray[np.uint8]:
        """Return the whole image with a map, (H, W, 3); see `blend`."""
        picture = self.image.copy()
        picture.paste(self.blend(levels), self.corner)
        return np.asarray(picture)


class Thumbnails:
    """Small pictures of the maps of a result, over the image in grey.

    Parameters
    ----------
    result : Result
        Of an image, or of a plane of a volume (see `camanim.slicing.take_plane`).
    size : int
        Length of the longer side in pixels.
    normalization : {"local", "global"}
    signed : bool
        See `camanim.stack.stack_maps`.
    """

    def __init__(
        self,
        result: Result,
        size: int = 96,
        normalization: Normalization = "local",
        *,
        signed: bool = False,
    ) -> None:
        self._stack = stack_maps(result, normalization, signed=signed)
        colors = lookup_table(COLORMAPS[signed])
        self._overlay = Overlay(result.image, result.geometry, size, colors, grey=True)

    def picture(self, i: int) -> npt.NDArray[np.uint8]:
        """Return the picture of layer `i`, (H, W, 3)."""
        levels = self._stack.native(i)
        if self._stack.signed:
            levels = np.float32(0.5) * levels + np.float32(0.5)
        return self._overlay.picture(levels)


def lookup_table(colormap: str) -> npt.NDArray[np.uint8]:
    """Return the colours of a colour map of `cmap`, (256, 3).

    Raises
    ------
    RenderError
        If the name is unknown.
    """
    try:
        colors = Colormap(colormap).lut(256)
    except (ValueError, TypeError) as error:
        near = get_close_matches(str(colormap), list(Catalog().short_keys()), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see the catalog of cmap."
        raise RenderError(f"Unknown colour map {colormap!r}: {hint}") from error
    return np.round(colors[:, :3] * 255).astype(np.uint8)


def display_size(image: npt.NDArray[np.uint8], size: int) -> tuple[int, int]:
    """Return width and height of an image whose longer side is shown with `size` pixels."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _display_image(image: npt.NDArray[np.uint8], size: int, *, grey: bool = False) -> Image.Image:
    """Return the image in RGB, resized so that its longer side has `size` pixels."""
    kind = Image.Resampling.LANCZOS if size < max(image.shape[:2]) else Image.Resampling.BICUBIC
    # Resized first: whole slides have many pixels.
    resized = Image.fromarray(image).resize(display_size(image, size), kind)
    # The grey values are the luma of ITU-R BT.601.
    return (resized.convert("L") if grey else resized).convert("RGB")


def _span(low: float, high: float, scale: float, count: int) -> tuple[int, int, float, float]:
    """Return the range of display pixels between two image edges, and its ends as shares of the range.

    Parameters
    ----------
    low, high : float
        Edges of the map in image pixels.
    scale : float
        Display pixels per image pixel.
    count : int
        Number of display pixels.
    """
    start = min(max(round(low * scale), 0), count - 1)
    stop = min(max(round(high * scale), start + 1), count)
    first, last = ((edge / scale - low) / (high - low) for edge in (start, stop))
    return (start, stop, first, last) if first < 1 and last > 0 else (start, stop, 0.0, 1.0)
