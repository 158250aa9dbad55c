"""Where the network's input lies on the image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """Where the network's input lies on the image.

    Attributes
    ----------
    size : (H, W) or (D, H, W)
        The network's input, in its own pixels. All slices of a volume that go through a 2-D network
        are (Z, H, W).
    scale : (y, x) or (z, y, x)
        Image pixels per input pixel; 1 by default.
    offset : (y, x) or (z, y, x)
        Where the input's first *edges* lie, in image pixels from the image's first edges; 0 by
        default.
    """

    size: tuple[int, ...]
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        # The dataclass is frozen for its users; here it is still being made.
        object.__setattr__(self, "scale", self.scale or (1.0,) * len(self.size))
        object.__setattr__(self, "offset", self.offset or (0.0,) * len(self.size))

    def affine(self, shape: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return scale and translation, per axis, that put a map of `shape` onto the image.

        The map covers the whole input, whatever its resolution. Pixel (i, j) of the map has its
        centre at ``scale * (i, j) + translate`` in the image's pixel indices (the convention of
        napari: index 0 is the *centre* of the first pixel).
        """
        per_cell = [s * n / m for s, n, m in zip(self.scale, self.size, shape, strict=True)]
        translate = [o + c / 2 - 0.5 for o, c in zip(self.offset, per_cell, strict=True)]
        return tuple(per_cell), tuple(translate)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The explained part of the image's last two axes: top, left, bottom, right edge in pixels."""
        (top, left), (sy, sx), (h, w) = self.offset[-2:], self.scale[-2:], self.size[-2:]
        return top, left, top + sy * h, left + sx * w
