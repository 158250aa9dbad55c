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
    2004, by scikit-image: a Gaussian window of 11 cells with standard deviation 1.5 (of 7 in volumes),
    in smaller maps the largest odd one that fits, in proportion. The mean is over all windows within
    the map.

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
