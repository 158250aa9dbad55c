"""Which pixels are kept: exact shares, with ties broken by a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from camanim.stack import FloatMap

Masks = npt.NDArray[np.bool_]
Ranks = npt.NDArray[np.uint64]


def tie_break(count: int, seed: int) -> Ranks:
    """Draw how equal pixels are ranked among each other; one ranking serves all maps.

    Parameters
    ----------
    count : int
        Number of pixels.
    seed : int

    Returns
    -------
    (count,) permutation
    """
    return np.random.default_rng(seed).permutation(count).astype(np.uint64)


def kept_pixels(plane: FloatMap, percentiles: Sequence[float], ties: Ranks) -> tuple[Masks, Masks]:
    """Mark the pixels that are kept when the most or the least relevant ones are removed first.

    Pixels are ranked, not compared with a threshold: a map that is zero over most of the image would
    otherwise give the same mask at several percentiles. Exactly ``k = round(p / 100 * N)`` of N pixels
    are kept, one at least, and one at least is not.

    Parameters
    ----------
    plane : (*S) float32 array
        The map at the network's input size, without NaN.
    percentiles : sequence of P floats
        Shares kept, in percent.
    ties : (N,) permutation of all pixels
        See `tie_break`.

    Returns
    -------
    morf, lerf : (P, *S) bool
        True where a pixel is kept. MoRF (most relevant first) keeps the k least relevant pixels, LeRF
        (least relevant first) the k most relevant ones.
    """
    # One whole number per pixel, its value above its rank among equals: found ten times as fast as
    # pixels that are sorted by two keys.
    keys = (_ordered_bits(plane.reshape(-1)) << np.uint64(32)) | ties
    count = len(keys)
    counts = [min(max(round(p / 100 * count), 1), count - 1) for p in percentiles]
    ranked = np.partition(keys, sorted({k for kept in counts for k in (kept, count - kept)}))
    keys = keys.reshape(plane.shape)
    morf = [keys < ranked[k] for k in counts]
    lerf = [keys >= ranked[count - k] for k in counts]
    return np.stack(morf), np.stack(lerf)


def _ordered_bits(values: FloatMap) -> npt.NDArray[np.uint64]:
    """Turn floats into whole numbers of the same order."""
    # Minus zero becomes zero: they are equal.
    bits = (np.ascontiguousarray(values, np.float32) + np.float32(0)).view(np.uint32)
    negative = bits >> np.uint32(31) == 1
    return np.where(negative, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
