"""Regions of an image: boxes, superpixels, and the cells of the network's input that they cover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from camanim.checks.mask import OUTSIDE, covered_cells, mask_pixels
from camanim.declarations import Positive, Range, checked
from camanim.errors import EditError
from camanim.images import as_array, unit_image

if TYPE_CHECKING:
    from camanim.images import Geometry, Window

Bools = npt.NDArray[np.bool_]

#: Compactness of superpixels by the axis of channels: of colours in CIELAB, of intensities in [0, 1].
COMPACTNESS = {-1: 10.0, None: 0.1}


def region_of(mask: Any, label: int | None, shape: tuple[int, ...], geometry: Geometry) -> Region:
    """Return the pixels that a mask marks and the cells of the network's input that they cover.

    Raises
    ------
    EditError
        If the mask is invalid, or all pixels that it marks are outside of the network's input.
    """
    pixels = mask_pixels(mask, label, shape, EditError)
    cells = covered_cells(pixels, geometry)
    if pixels.any() and not cells.any():
        raise EditError(OUTSIDE)
    return pixels, cells


#: Pixels of the image, and cells of the network's input.
Region = tuple[Bools, Bools]


def box_mask(shape: Sequence[int], box: Sequence[float]) -> Bools:
    """Return the mask of a box.

    Parameters
    ----------
    shape : (H, W) or (Z, Y, X)
        Spatial shape of the image.
    box : sequence of float
        (y0, x0, y1, x1) or (z0, y0, x0, z1, y1, x1), in indices of pixels, the ends excluded as in
        slices; rounded, and clipped to the image.

    Returns
    -------
    (H, W) or (Z, Y, X) bool array

    Raises
    ------
    EditError
        If the box has another number of axes or is empty within the image.
    """
    count = len(shape)
    try:
        edges = np.asarray(box, np.float64)
    except (TypeError, ValueError) as error:
        raise EditError(f"A box is a sequence of numbers, not {box!r:.100}.") from error
    if edges.shape != (2 * count,) or not np.isfinite(edges).all():
        expected = {2: "(y0, x0, y1, x1)", 3: "(z0, y0, x0, z1, y1, x1)"}.get(count, "two corners")
        raise EditError(f"A box in an image with {count} axes is {expected}, not {edges.tolist()}.")
    rounded = np.clip(np.round(edges), 0, np.tile(shape, 2)).astype(int)
    start, stop = rounded[:count], rounded[count:]
    if (start >= stop).any():
        size = " x ".join(map(str, shape))
        raise EditError(
            f"The box {edges.tolist()} has no pixel in the image of {size}: give the corner with the "
            "lower indices first."
        )
    mask = np.zeros(tuple(shape), bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


@checked(EditError)
def superpixels(
    image: Any,
    count: Positive = 100,
    *,
    compactness: Annotated[float | None, Range(1e-6, 1e6)] = None,
    window: Window | None = None,
    space: Literal["auto", "image", "volume"] = "auto",
) -> npt.NDArray[np.int32]:
    """Divide an image into superpixels by SLIC, as scikit-image does.

    Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", PAMI 2012.

    Parameters
    ----------
    image : array-like
        (H, W), (H, W, 3), (Z, Y, X) or (Z, Y, X, 3); intensities as for `camanim.animate`.
    count : int
        Approximate number of superpixels.
    compactness : float, optional
        Weight of distances in space against those in colour; by default 10 for colours and 0.1 for grey
        values, which differ by at most 1.
    window : (low, high), optional
        Intensities that become black and white.
    space : {"auto", "image", "volume"}
        Whether the array is an image or a volume; by default three axes are a volume unless the last
        has 1, 3 or 4 channels.

    Returns
    -------
    (H, W) or (Z, Y, X) int32 array
        Labels from 1 on, as for a Labels layer of napari.

    Raises
    ------
    ImageError
        If the image cannot be used.
    EditError
        If a setting is wrong.
    """
    from skimage.segmentation import slic

    array = as_array(image)
    if space == "auto":
        volume = array.ndim == 4 or (array.ndim == 3 and array.shape[-1] not in (1, 3, 4))
    else:
        volume = space == "volume"
    axes = 3 if volume else 2
    unit = unit_image(array, window, space=axes)
    channel_axis = -1 if unit.ndim > axes else None
    labels: npt.NDArray[Any] = slic(
        unit,
        n_segments=count,
        compactness=COMPACTNESS[channel_axis] if compactness is None else compactness,
        start_label=1,
        channel_axis=channel_axis,
    )
    return labels.astype(np.int32)


def superpixel_at(labels: npt.NDArray[Any], point: Sequence[float]) -> Bools:
    """Return the mask of the superpixel at a point.

    Parameters
    ----------
    labels : (H, W) or (Z, Y, X) int array
        As of `superpixels`.
    point : (y, x) or (z, y, x)
        In indices of pixels; integers are the centres of pixels, as in napari.

    Returns
    -------
    (H, W) or (Z, Y, X) bool array

    Raises
    ------
    EditError
        If the point is outside of the image.
    """
    try:
        index = np.floor(np.asarray(point, np.float64) + 0.5)
    except (TypeError, ValueError) as error:
        raise EditError(f"A point is a sequence of numbers, not {point!r:.100}.") from error
    # A comparison with NaN is false.
    if index.shape != (labels.ndim,) or not ((index >= 0) & (index < labels.shape)).all():
        size = " x ".join(map(str, labels.shape))
        raise EditError(f"The point {tuple(point)} is not in the image of {size}.")
    inside: Bools = labels == labels[tuple(index.astype(int))]
    return inside
