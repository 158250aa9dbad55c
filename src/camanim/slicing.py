"""One plane of the maps of a volume."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from camanim.errors import ImageError
from camanim.images import Geometry
from camanim.result import Result
from camanim.stack import FloatMap

R = TypeVar("R", bound=Result)


def take_plane(result: R, z: int | None = None) -> R:
    """Return the result for one plane of a volume.

    Parameters
    ----------
    result : Result
    z : int or None
        Index along the image's first axis, by default the middle of what the maps cover.

    Returns
    -------
    Result
        With maps (h, w), scaled as those of the whole volume; `result` itself if it has no depth.

    Raises
    ------
    ImageError
        When there is no such plane, or no map covers it.
    """
    geometry = result.geometry
    if len(geometry.size) == 2:
        if z is not None:
            raise ImageError("The image has no depth: leave z out.")
        return result
    depth, scale, offset = geometry.size[0], geometry.scale[0], geometry.offset[0]
    middle = int(offset + scale * depth / 2)
    at = middle if z is None else range(len(result.image))[_within(z, len(result.image))]
    # Where the plane's centre lies in the network's input, in edges.
    place = (at + 0.5 - offset) / scale
    if not 0 <= place <= depth:
        raise ImageError(f"No map covers plane {at}: fit='stretch' explains all planes.")
    extremes = result.extremes or [(float(m.min()), float(m.max())) for m in result.maps]
    return replace(
        result,
        maps=[_cut(raw, place / depth) for raw in result.maps],
        image=result.image[at],
        geometry=Geometry(geometry.size[1:], geometry.scale[1:], geometry.offset[1:]),
        extremes=extremes,
        findings=dict(result.findings),
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
