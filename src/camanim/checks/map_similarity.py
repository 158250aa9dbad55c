"""How alike two maps of one layer are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from camanim.stack import FloatMap

Floats = npt.NDArray[np.float64]

#: Longest side of the window in which structures are compared, for planes (Wang et al. 2004) and
#: volumes; and the standard deviation of its weights, as a share of that side.
_WINDOW = {2: 11, 3: 7}
_SIGMA = 1.5 / 11


def positive_part(raw: FloatMap) -> FloatMap:
    """Cut off what speaks against the target, as it is cut off when a map is shown."""
    return np.maximum(raw, 0)


def is_flat(values: npt.NDArray[Any]) -> bool:
    """Whether there is nothing in it to compare."""
    return not np.isfinite(values).all() or bool(values.max() == values.min())


def spearman(first: FloatMap, second: FloatMap) -> float:
    """Return the rank correlation of two maps, equal cells with their mean rank.

    Parameters
    ----------
    first, second : (*s) arrays

    Returns
    -------
    float
        In [-1, 1], exactly 1 for the same order; NaN where either is constant, or they differ in shape.
    """
    from scipy.stats import rankdata

    if first.shape != second.shape or is_flat(first) or is_flat(second):
        return float("nan")
    a, b = (rankdata(values.reshape(-1)) for values in (first, second))
    if np.array_equal(a, b):
        return 1.0
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def similarity(first: FloatMap, second: FloatMap) -> float:
    """Return the structural similarity of two maps, each scaled from its minimum to its maximum.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP
    2004, by MONAI: a Gaussian window of 11 cells with standard deviation 1.5 (of 7 in volumes), in
    smaller maps the largest odd one that fits, in proportion. The mean is over all windows that lie
    within the map.

    Parameters
    ----------
    first, second : (*s) arrays

    Returns
    -------
    float
        At most 1; NaN where either is constant, a side has fewer than 3 cells, or they differ in shape.
    """
    if first.shape != second.shape or min(first.shape) < 3 or is_flat(first) or is_flat(second):
        return float("nan")
    import torch
    from monai.metrics.regression import compute_ssim_and_cs

    longest = _WINDOW[first.ndim]
    window = [min(longest, side - 1 + side % 2) for side in first.shape]
    both = (torch.from_numpy(_scaled(values))[None, None] for values in (first, second))
    # The user's device is for the network; maps are small.
    with torch.no_grad(), torch.device("cpu"):
        values, _ = compute_ssim_and_cs(
            *both,
            spatial_dims=first.ndim,
            kernel_size=window,
            kernel_sigma=[side * _SIGMA for side in window],
            data_range=1.0,
        )
    return float(values.double().mean())


def _scaled(values: FloatMap) -> FloatMap:
    low, high = float(values.min()), float(values.max())
    scaled: FloatMap = ((values.astype(np.float64) - low) / (high - low)).astype(np.float32)
    return scaled
