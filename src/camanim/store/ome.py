"""The stack and the image of a result as images of OME-Zarr 0.5, for any viewer.

The stack has an axis `layer`, whose type is none of the specification, and axes of space. Its values
are those of the local normalisation, in 8 bits. Coordinates are pixels of the image that was explained,
with 0 at the centre of the first pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.result import Result
from camanim.stack import stack_maps, upsample
from camanim.store.container import Planes

#: Most pixels of a plane, or voxels of a volume, of the stack for viewers.
LARGEST = 2**20


def stack_planes(result: Result) -> tuple[Planes, dict[str, Any]]:
    """Return the stack in 8 bits, and the attributes of its group.

    Parameters
    ----------
    result : Result

    Returns
    -------
    planes : Planes
        (L, H, W) or (L, D, H, W) uint8: 255 is the highest value of each layer. At the network's input
        size, or smaller by a whole factor along every axis.
    attributes : dict
        Under ``ome``.
    """
    size = result.geometry.size
    factor = 1
    while np.prod([-(-n // factor) for n in size]) > LARGEST:
        factor += 1
    size = tuple(-(-n // factor) for n in size)
    stack = stack_maps(result, "local")

    def plane(i: int) -> npt.NDArray[np.uint8]:
        values = upsample(stack.native(i), size)
        return np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)

    planes = Planes((len(result), *size), np.uint8, plane)
    scale, start = result.source_geometry.affine(size)
    name = f"{result.method} of {result.target.name}"
    space = "zyx"[-len(size) :]
    axes = [
        {"name": "layer", "type": "layer"},
        *({"name": axis, "type": "space"} for axis in space),
    ]
    attributes = ome_attributes("stack", planes, axes, [1.0, *scale], [0.0, *start], name)
    return planes, attributes


def image_array(result: Result) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
    """Return the image with channels first, and the attributes of its group.

    Parameters
    ----------
    result : Result

    Returns
    -------
    image : (Y, X), (Z, Y, X), (3, Y, X) or (3, Z, Y, X) uint8 array
    attributes : dict
        Under ``ome``.
    """
    space = len(result.geometry.size)
    image, placed = result.image, result.placement
    is_color = image.ndim > space
    if is_color:
        image = np.moveaxis(image, -1, 0)
    sides = image.shape[-space:]
    scale, start = ((1.0,) * space, (0.0,) * space) if placed is None else placed.affine(sides)
    axes = [{"name": axis, "type": "space"} for axis in "zyx"[-space:]]
    if is_color:
        axes = [{"name": "c", "type": "channel"}, *axes]
        scale, start = (1.0, *scale), (0.0, *start)
    attributes = ome_attributes("0", image, axes, scale, start, "image")
    colors = ("FF0000", "00FF00", "0000FF") if is_color else ("FFFFFF",)
    attributes["ome"]["omero"] = {
        "channels": [
            {"color": color, "window": {"min": 0, "max": 255, "start": 0, "end": 255}}
            for color in colors
        ]
    }
    return image, attributes


def ome_attributes(
    path: str,
    array: Any,
    axes: Sequence[dict[str, str]],
    scale: Sequence[float],
    start: Sequence[float],
    name: str,
) -> dict[str, Any]:
    """Return the attributes of a group with one image, checked by ome-zarr-models.

    Parameters
    ----------
    path : str
        Path of the array in the group.
    array : array
        Its shape and type are used.
    axes : sequence of dict
        Name and type of each axis.
    scale, start : sequence of float
        Size of a pixel, and coordinate of the centre of the first one, along each axis.
    name : str
    """
    from ome_zarr_models.v05.axes import Axis
    from ome_zarr_models.v05.image import Image
    from pydantic_zarr.v3 import ArraySpec

    spec: Any = ArraySpec.from_array(
        np.broadcast_to(np.zeros((), array.dtype), array.shape),
        dimension_names=[axis["name"] for axis in axes],
    )
    image = Image.new(
        array_specs=[spec],
        paths=[path],
        axes=[Axis(**axis) for axis in axes],
        scales=[[float(v) for v in scale]],
        translations=[[float(v) for v in start]],
        name=name,
    )
    # The specification has no empty entries.
    attributes: dict[str, Any] = image.attributes.model_dump(mode="json", exclude_none=True)
    return attributes
