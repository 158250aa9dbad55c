"""Masks of kept pixels: exact fractions of the image, with seeded tie-breaking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from camanim.stack import FloatMap

Masks = npt.NDArray[np.bool_]
Ranks = npt.NDArray[np.uint64]


def tie_break(count: int, seed: int) -> Ranks:
    """Return a random ranking that orders pixels of equal value, in all maps.

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
    """Return the pixels kept when the most, or the least, relevant pixels are removed first.

    Pixels are ranked rather than thresholded: with a threshold, a map that is 0 over most of the image
    has the same mask at several percentiles. Exactly ``k = round(p / 100 * N)`` of N pixels are kept,
    at least 1 and at most N - 1.

    Parameters
    ----------
    plane : (*S) float32 array
        Map at the network's input size, without NaN.
    percentiles : sequence of P floats
        Fractions kept, in percent.
    ties : (N,) permutation of all pixels
        See `tie_break`.

    Returns
    -------
    morf, lerf : (P, *S) bool
        True where a pixel is kept. MoRF (most relevant first) keeps the k least relevant pixels, LeRF
        (least relevant first) the k most relevant ones.
    """
    # One integer per pixel: its value in the high bits, its tie-break rank in the low bits. A partition
    # of these is ten times as fast as a sort by two keys.
    keys = (_ordered_bits(plane.reshape(-1)) << np.uint64(32)) | ties
    count = len(keys)
    counts = [min(max(round(p / 100 * count), 1), count - 1) for p in percentiles]
    ranked = np.partition(keys, sorted({k for kept in counts for k in (kept, count - kept)}))
    keys = keys.reshape(plane.shape)
    morf = [keys < ranked[k] for k in counts]
    lerf = [keys >= ranked[count - k] for k in counts]
    return np.stack(morf), np.stack(lerf)


def _ordered_bits(values: FloatMap) -> npt.NDArray[np.uint64]:
    """Return unsigned integers in the same order as the floats."""
    # Adding 0 maps -0 to 0.
    bits = (np.ascontiguousarray(values, np.float32) + np.float32(0)).view(np.uint32)
    negative = bits >> np.uint32(31) == 1
    return np.where(negative, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
