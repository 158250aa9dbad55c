"""One plane of an animated volume, as an animation of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from camanim.errors import ImageError

if TYPE_CHECKING:
    from camanim.animation import Animation
    from camanim.stack import FloatMap


def take_plane(animation: Animation, z: int | None) -> Animation:
    """Take one plane out of a volume; see `Animation.plane`."""
    from camanim.images import Geometry

    geometry = animation.geometry
    if len(geometry.size) == 2:
        if z is not None:
            raise ImageError("The image has no depth: leave z out.")
        return animation
    depth, scale, offset = geometry.size[0], geometry.scale[0], geometry.offset[0]
    middle = int(offset + scale * depth / 2)
    at = middle if z is None else range(len(animation.image))[_within(z, len(animation.image))]
    # Where the plane's centre lies in the network's input, in edges.
    place = (at + 0.5 - offset) / scale
    if not 0 <= place <= depth:
        raise ImageError(f"No map covers plane {at}: fit='stretch' explains all planes.")
    extremes = animation.extremes or [(float(m.min()), float(m.max())) for m in animation.maps]
    return replace(
        animation,
        maps=[_cut(raw, place / depth) for raw in animation.maps],
        image=animation.image[at],
        geometry=Geometry(geometry.size[1:], geometry.scale[1:], geometry.offset[1:]),
        extremes=extremes,
    )


def _within(z: int, count: int) -> int:
    if not -count <= z < count:
        raise ImageError(f"The volume has planes 0 to {count - 1}, there is no {z}.")
    return z


def _cut(raw: FloatMap, share: float) -> FloatMap:
    """Interpolate the plane at a share of the depth; cells are areas, not points."""
    at = float(np.clip(share * len(raw) - 0.5, 0, len(raw) - 1))
    below = int(at)
    if at == below:
        own: FloatMap = raw[below]
        return own
    mixed = (1 - (at - below)) * raw[below] + (at - below) * raw[below + 1]
    plane: FloatMap = mixed.astype(np.float32)
    return plane
