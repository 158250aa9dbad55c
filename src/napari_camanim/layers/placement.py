"""Transforms from the network's input to the world coordinates of an image layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari.layers import Image

    from camanim import Animation
    from napari_camanim.layers.views import Region


def placement(animation: Animation, image: Image, region: Region) -> dict[str, Any]:
    """Return the transform from pixels of the network's input to world coordinates.

    Parameters
    ----------
    animation : Animation
        Result of the region, or of a box of it.
    image : napari.layers.Image
    region : Region
        Explained region of the image.

    Returns
    -------
    dict
        Arguments of a napari layer: scale, translate, rotate, shear, affine, units and axis_labels.
    """
    # From pixels of the map to pixels of the image.
    cell, start = animation.source_geometry.affine(animation.geometry.size)
    pixel, origin = np.ones(image.ndim), np.array(region.position, float)
    pixel[list(region.axes)], origin[list(region.axes)] = cell, start
    return _to_world(pixel, origin, image, len(region.axes))


def region_placement(image: Image, region: Region) -> dict[str, Any]:
    """Return the transform from pixels of a region of an image to world coordinates; see `placement`."""
    return _to_world(np.ones(image.ndim), np.array(region.position, float), image, len(region.axes))


def _to_world(
    pixel: npt.NDArray[Any], origin: npt.NDArray[Any], image: Image, space: int
) -> dict[str, Any]:
    """Return the transform to world coordinates, from that to pixels of an image."""
    shear = _shear_matrix(image)
    matrix = np.asarray(image.rotate) @ shear @ np.diag(image.scale)
    return {
        "scale": np.asarray(image.scale) * pixel,
        "translate": np.asarray(image.translate) + matrix @ origin,
        "rotate": np.asarray(image.rotate),
        "shear": shear,
        "affine": image.affine.affine_matrix,
        "units": image.units,
        "axis_labels": _labels(image, space),
    }


def with_layer_axis(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a matrix with one more axis in front, which it leaves unchanged."""
    larger = np.eye(len(matrix) + 1)
    larger[1:, 1:] = matrix
    return larger


def _labels(image: Image, space: int) -> tuple[str, ...]:
    labels: tuple[str, ...] = image.axis_labels
    is_default = labels == tuple(f"{i}" for i in range(-image.ndim, 0))
    return (*labels[:-space], *"zyx"[-space:]) if is_default else labels


def _shear_matrix(image: Image) -> npt.NDArray[Any]:
    shear = np.asarray(image.shear)
    if shear.ndim == 2:
        return shear
    matrix = np.eye(image.ndim)
    matrix[np.triu_indices(image.ndim, 1)] = shear
    return matrix
