"""Similarity of two maps of the same layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from camanim.stack import FloatMap

Floats = npt.NDArray[np.float64]

#: Maximum side of the SSIM window in 2-D (Wang et al. 2004) and 3-D, and the standard deviation of its
#: weights as a fraction of that side.
_WINDOW = {2: 11, 3: 7}
_SIGMA = 1.5 / 11


def positive_part(raw: FloatMap) -> FloatMap:
    """Return the positive part of a map, as it is shown."""
    return np.maximum(raw, 0)


def is_constant(values: npt.NDArray[Any]) -> bool:
    """Return whether values are constant or not finite."""
    return not np.isfinite(values).all() or bool(values.max() == values.min())


def spearman(first: FloatMap, second: FloatMap) -> float:
    """Return the rank correlation of two maps, with mean ranks for ties.

    Parameters
    ----------
    first, second : (*s) arrays

    Returns
    -------
    float
        In [-1, 1], exactly 1 for equal ranks; NaN if either is constant, or the shapes differ.
    """
    from scipy.stats import rankdata

    if first.shape != second.shape or is_constant(first) or is_constant(second):
        return float("nan")
    a, b = (rankdata(values.reshape(-1)) for values in (first, second))
    if np.array_equal(a, b):
        return 1.0
    return float(np.corrcoef(a, b)[0, 1])


def similarity(first: FloatMap, second: FloatMap) -> float:
    """Return the structural similarity of two maps, each scaled to [0, 1].

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP
    2004. The window is Gaussian, with 11 cells and standard deviation 1.5 (7 cells in volumes). Smaller
    maps use the largest odd window that fits, with a proportional standard deviation. The mean is over
    all windows within the map.

    Parameters
    ----------
    first, second : (*s) arrays

    Returns
    -------
    float
        At most 1; NaN if either is constant, a side has fewer than 3 cells, or the shapes differ.
    """
    if (
        first.shape != second.shape
        or min(first.shape) < 3
        or is_constant(first)
        or is_constant(second)
    ):
        return float("nan")
    from skimage.metrics import structural_similarity

    shortest = min(first.shape)
    window = min(_WINDOW[first.ndim], shortest - 1 + shortest % 2)
    value = structural_similarity(
        _scaled(first),
        _scaled(second),
        data_range=1.0,
        gaussian_weights=True,
        sigma=window * _SIGMA,
        use_sample_covariance=False,
    )
    return float(value)


def _scaled(values: FloatMap) -> Floats:
    low, high = float(values.min()), float(values.max())
    scaled: Floats = (values.astype(np.float64) - low) / (high - low)
    return scaled
