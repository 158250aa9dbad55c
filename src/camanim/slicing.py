"""Planes of the maps of a volume."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from typing import TypeVar

from camanim.errors import ImageError
from camanim.images import Geometry
from camanim.result import Result
from camanim.stack import plane_at

R = TypeVar("R", bound=Result)


def take_plane(result: R, z: int | None = None) -> R:
    """Return the result for one plane of a volume.

    Parameters
    ----------
    result : Result
    z : int or None
        Index along the image's first axis, by default the middle of the range that the maps cover.

    Returns
    -------
    Result
        With maps (h, w), normalised as those of the whole volume; `result` itself if it has no depth.

    Raises
    ------
    ImageError
        If the index is out of range, or the maps do not cover the plane.
    """
    geometry = result.geometry
    if len(geometry.size) == 2:
        if z is not None:
            raise ImageError("The image has no depth: leave z out.")
        return result
    depth, scale, offset = geometry.size[0], geometry.scale[0], geometry.offset[0]
    at = plane_index(result, z)
    # The plane's centre in the network's input, in units of pixel edges.
    center = (at + 0.5 - offset) / scale
    if not 0 <= center <= depth:
        raise ImageError(f"The maps do not cover plane {at}: use fit='stretch' for all planes.")
    source, placed = result.source, result.placement
    if source is not None and len(source.shape) == 3:
        # The plane's centre in the image that was passed.
        source = source.plane(
            at if placed is None else placed.offset[0] + placed.scale[0] * (at + 0.5) - 0.5
        )
    extremes = result.extremes or [(float(m.min()), float(m.max())) for m in result.maps]
    return replace(
        result,
        maps=[plane_at(raw, center / depth) for raw in result.maps],
        image=result.image[at],
        geometry=_without_depth(geometry),
        placement=None if result.placement is None else _without_depth(result.placement),
        extremes=extremes,
        findings=dict(result.findings),
        source=source,
    )


def plane_index(result: Result, z: int | None = None) -> int:
    """Return the index of a plane of a volume from 0 on, as `take_plane` takes it.

    Raises
    ------
    ImageError
        If the index is out of range.
    """
    if z is not None:
        return range(len(result.image))[_checked_index(z, len(result.image))]
    geometry = result.geometry
    return int(geometry.offset[0] + geometry.scale[0] * geometry.size[0] / 2)


def _without_depth(geometry: Geometry) -> Geometry:
    return Geometry(geometry.size[1:], geometry.scale[1:], geometry.offset[1:])


def _checked_index(z: int, count: int) -> int:
    if isinstance(z, bool) or not isinstance(z, Integral):
        raise ImageError(f"z must be the index of a plane, not {z!r}.")
    if not -count <= z < count:
        raise ImageError(f"The volume has planes 0 to {count - 1}, not {z}.")
    return int(z)
