"""The position and scale of the network's input on the image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


def format_size(sides: Iterable[int]) -> str:
    """Format the sides of an image or a grid as ``3 x 4``."""
    return " x ".join(str(side) for side in sides)


@dataclass(frozen=True)
class Geometry:
    """The position and scale of the network's input on the image.

    Attributes
    ----------
    size : (H, W) or (D, H, W)
        Size of the network's input, in input pixels; (Z, H, W) for all slices of a volume in a 2-D
        network.
    scale : (y, x) or (z, y, x)
        Image pixels per input pixel; 1 by default.
    offset : (y, x) or (z, y, x)
        Distance from the first *edges* of the image to those of the input, in image pixels; 0 by
        default.
    """

    size: tuple[int, ...]
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        # A frozen dataclass can set its defaults only in this way.
        object.__setattr__(self, "scale", self.scale or (1.0,) * len(self.size))
        object.__setattr__(self, "offset", self.offset or (0.0,) * len(self.size))

    def affine(self, shape: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the scale and translation per axis that place a map of `shape` on the image.

        The map covers the whole input. Pixel (i, j) of the map has its centre at
        ``scale * (i, j) + translate`` in pixel indices of the image. As in napari, index 0 is the
        *centre* of the first pixel.
        """
        per_cell = [s * n / m for s, n, m in zip(self.scale, self.size, shape, strict=True)]
        translate = [o + c / 2 - 0.5 for o, c in zip(self.offset, per_cell, strict=True)]
        return tuple(per_cell), tuple(translate)

    def within(self, outer: Geometry) -> Geometry:
        """Return this geometry on the larger image in which `outer` places its image.

        Parameters
        ----------
        outer : Geometry
            Position and scale of the image in a larger one.
        """
        axes = list(zip(outer.scale, outer.offset, self.scale, self.offset, strict=True))
        return Geometry(
            self.size,
            tuple(factor * scale for factor, _, scale, _ in axes),
            tuple(start + factor * offset for factor, start, _, offset in axes),
        )

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Top, left, bottom and right edge of the input on the last two axes of the image, in pixels."""
        (top, left), (sy, sx), (h, w) = self.offset[-2:], self.scale[-2:], self.size[-2:]
        return top, left, top + sy * h, left + sx * w
