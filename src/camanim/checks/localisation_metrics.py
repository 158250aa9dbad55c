"""Measures of the agreement of a map with a mask, from one value per cell."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Inside = npt.NDArray[np.bool_]


def pointing(values: Floats, inside: Inside) -> float:
    """Return the fraction of the maximal cells that are inside; 0 or 1 if the maximum is unique.

    The pointing game of Zhang et al., "Top-down Neural Attention by Excitation Backprop", IJCV 2018,
    without its tolerance of 15 pixels around the object, which depends on the image size.

    Parameters
    ----------
    values : (N,) array
    inside : (N,) bool array

    Returns
    -------
    float
        In [0, 1].
    """
    return float(inside[values == values.max()].mean())


def energy(values: Floats, inside: Inside) -> float:
    """Return the fraction of the sum that is inside.

    The energy-based pointing game of Wang et al., "Score-CAM: Score-Weighted Visual Explanations for
    Convolutional Neural Networks", CVPR Workshops 2020.

    Parameters
    ----------
    values : (N,) array
        Non-negative, and not all 0.
    inside : (N,) bool array

    Returns
    -------
    float
        In [0, 1].
    """
    return float(values[inside].sum() / values.sum())


def overlap(values: Floats, inside: Inside) -> float:
    """Return the intersection over union with an equal number of the highest cells.

    Cells tied at the threshold count fractionally: with the expected number of hits of a random choice
    among them.

    Parameters
    ----------
    values : (N,) array
    inside : (N,) bool array
        Not all False.

    Returns
    -------
    float
        In [0, 1].
    """
    area = int(inside.sum())
    threshold = np.partition(values, -area)[-area]
    above, tied = values > threshold, values == threshold
    hits = float(inside[above].sum() + (area - above.sum()) * inside[tied].mean())
    return hits / (2 * area - hits)


def average_precision(values: Floats, inside: Inside) -> float:
    """Return the average precision of the values as a classifier of the cells inside.

    ``sum((R[n] - R[n - 1]) * P[n])`` over the distinct values n, with precision P and recall R of the
    cells with at least that value, as in scikit-learn. The value expected by chance is the fraction of
    cells inside.

    Parameters
    ----------
    values : (N,) array
    inside : (N,) bool array
        Not all False.

    Returns
    -------
    float
        In (0, 1].
    """
    order = np.argsort(-values, kind="stable")
    ranked, hits = values[order], np.cumsum(inside[order])
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    recalled = hits[ends]
    return float((np.diff(recalled, prepend=0) * recalled / (ends + 1)).sum() / recalled[-1])
