"""How well a map's values, one per cell, tell the cells inside an object from all others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Inside = npt.NDArray[np.bool_]


def pointing(values: Floats, inside: Inside) -> float:
    """Return the share of the brightest cells that lie inside: 1 or 0 where one is brightest.

    Zhang et al., "Top-down Neural Attention by Excitation Backprop", IJCV 2018, the pointing game; but
    without its tolerance of 15 pixels around the object, which depends on the size of the image.

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
    """Return the share of the sum that lies inside.

    Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR
    Workshops 2020, the energy-based pointing game.

    Parameters
    ----------
    values : (N,) array
        Not negative, and not all 0.
    inside : (N,) bool array

    Returns
    -------
    float
        In [0, 1].
    """
    return float(values[inside].sum() / values.sum())


def overlap(values: Floats, inside: Inside) -> float:
    """Return the intersection over union with as many of the highest cells as lie inside.

    Where equal cells are at the limit, they count with the share of them that there is room for: so many
    hits are expected of a choice by chance.

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
    limit = np.partition(values, -area)[-area]
    above, at = values > limit, values == limit
    hits = float(inside[above].sum() + (area - above.sum()) * inside[at].mean())
    return hits / (2 * area - hits)


def average_precision(values: Floats, inside: Inside) -> float:
    """Return the average precision of finding the cells inside by their values, highest first.

    ``sum((R[n] - R[n - 1]) * P[n])`` over all distinct values n, with precision P and recall R of the
    cells that have at least that value; as scikit-learn has it. By chance it is the share of cells
    inside.

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
    found = hits[ends]
    return float((np.diff(found, prepend=0) * found / (ends + 1)).sum() / found[-1])
