"""Which pixels are kept: exact shares, with ties broken by a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from camanim.stack import FloatMap

Masks = npt.NDArray[np.bool_]


def tie_break(count: int, seed: int) -> npt.NDArray[np.intp]:
    """Draw the order in which equal pixels are ranked; one order serves all maps.

    Parameters
    ----------
    count : int
        Number of pixels.
    seed : int

    Returns
    -------
    (count,) permutation
    """
    return np.random.default_rng(seed).permutation(count)


def kept_pixels(
    plane: FloatMap, percentiles: Sequence[float], order: npt.NDArray[np.intp]
) -> tuple[Masks, Masks]:
    """Mark the pixels that are kept when the most or the least relevant ones are removed first.

    Pixels are ranked, not compared with a threshold: a map that is zero over most of the image would
    otherwise give the same mask at several percentiles. Exactly ``k = round(p / 100 * N)`` of N pixels
    are kept.

    Parameters
    ----------
    plane : (*S) array
        The map at the network's input size.
    percentiles : sequence of P floats
        Shares kept, in percent.
    order : (N,) permutation of all pixels
        See `tie_break`.

    Returns
    -------
    morf, lerf : (P, *S) bool
        True where a pixel is kept. MoRF (most relevant first) keeps the k least relevant pixels, LeRF
        (least relevant first) the k most relevant ones.
    """
    flat = plane.reshape(-1)
    ascending = order[np.argsort(flat[order], kind="stable")]
    ranks = np.empty(plane.shape, np.intp)
    ranks.flat[ascending] = np.arange(flat.size)
    counts = [round(p / 100 * flat.size) for p in percentiles]
    morf = np.stack([ranks < k for k in counts])
    lerf = np.stack([ranks >= flat.size - k for k in counts])
    return morf, lerf
