"""Transforms that bring the images of several runs to one place and size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_camanim.layers.views import Region

Matrix = npt.NDArray[np.float64]


def common_frame(images: Sequence[Image], regions: Sequence[Region]) -> list[Matrix]:
    """Return for each image the transform of world coordinates that brings its region to a common place.

    Regions are scaled, without a change of their aspect ratio, into the largest one, and centred in it;
    slices are moved to its position. The transform of the largest region is the identity.

    Parameters
    ----------
    images : sequence of napari.layers.Image
    regions : sequence of Region
        Explained region of each image.

    Returns
    -------
    list of (n + 1, n + 1) arrays
        Affine matrices of n axes.

    Raises
    ------
    ImageError
        If images differ in their number of axes, or slices are compared with volumes.
    """
    if len({image.ndim for image in images}) > 1:
        raise ImageError(
            "The images have different numbers of axes, and share no sliders: compare images with "
            "images, and volumes with volumes."
        )
    if len({region.axes for region in regions}) > 1:
        raise ImageError(
            "The maps extend along different axes: compare maps of slices, or maps of volumes, "
            "but not both."
        )
    along = list(regions[0].axes)
    boxes = [_box(image, region) for image, region in zip(images, regions, strict=True)]
    largest = max(boxes, key=lambda box: float(np.prod((box[1] - box[0])[along])))
    return [_transform(box, largest, along) for box in boxes]


def _box(image: Image, region: Region) -> Matrix:
    """Return the lowest and highest world coordinates of a region, up to the edges of its pixels."""
    ends = [
        (-0.5, region.shape[axis] - 0.5) if axis in region.axes else (at, at)
        for axis, at in enumerate(region.position)
    ]
    corners = np.array([image.data_to_world(corner) for corner in product(*ends)])
    return np.array([corners.min(axis=0), corners.max(axis=0)])


def _transform(box: Matrix, largest: Matrix, along: list[int]) -> Matrix:
    matrix = np.eye(box.shape[1] + 1)
    factor = ((largest[1] - largest[0])[along] / (box[1] - box[0])[along]).min()
    matrix[along, along] = factor
    scale = matrix.diagonal()[:-1]
    matrix[:-1, -1] = largest.mean(axis=0) - scale * box.mean(axis=0)
    return matrix
