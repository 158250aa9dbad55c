"""Transforms from the network's input to the world coordinates of an image layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.images import Geometry

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
    geometry = animation.geometry if region.is_picture else animation.source_geometry
    cell, start = geometry.affine(geometry.size)
    return _placed(cell, start, image, region)


def picture_placement(animation: Animation, image: Image, region: Region) -> dict[str, Any]:
    """Return the transform from pixels of `Result.image` to world coordinates; see `placement`.

    Along an axis of channels, one pixel spans all channels.
    """
    space = len(region.axes)
    placed = None if region.is_picture else animation.placement
    placed = placed or Geometry(tuple(animation.image.shape[:space]))
    cell, start = placed.affine(placed.size)
    return _placed(cell, start, image, region, spanned=region.channel_axis)


def image_placement(image: Image, space: int = 2) -> dict[str, Any]:
    """Return the transform of an image layer, as arguments of another layer with its pixels."""
    return {
        "scale": np.asarray(image.scale),
        "translate": np.asarray(image.translate),
        "rotate": np.asarray(image.rotate),
        "shear": _shear_matrix(image),
        "affine": image.affine.affine_matrix,
        "units": image.units,
        "axis_labels": _labels(image, min(space, image.ndim)),
    }


def _placed(
    cell: tuple[float, ...],
    start: tuple[float, ...],
    image: Image,
    region: Region,
    spanned: int | None = None,
) -> dict[str, Any]:
    # From pixels of the map to pixels of the image ...
    pixel, origin = np.ones(image.ndim), np.array(region.position, float)
    pixel[list(region.axes)], origin[list(region.axes)] = cell, start
    # ... and from these to world coordinates.
    if spanned is not None:
        pixel[spanned], origin[spanned] = region.shape[spanned], (region.shape[spanned] - 1) / 2
    base = image_placement(image, len(region.axes))
    matrix = base["rotate"] @ base["shear"] @ np.diag(base["scale"])
    return base | {
        "scale": base["scale"] * pixel,
        "translate": base["translate"] + matrix @ origin,
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
