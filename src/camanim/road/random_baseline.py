"""Random maps of the same resolution as a layer's map, for the baseline of ROAD."""

from __future__ import annotations

from math import prod

import numpy as np

from camanim.stack import FloatMap


def random_maps(shape: tuple[int, ...], draws: int, seed: int) -> list[FloatMap]:
    """Return random maps, uniform in [-1, 1] like the weights of RandomCAM.

    They are processed like a layer's map: negative values are clipped, and the result is upsampled from
    the layer's resolution, so that it is equally smooth.

    Parameters
    ----------
    shape : tuple of int
        Shape of the layer's map.
    draws : int
        Number of maps.
    seed : int
        Seed and shape determine the maps, so that layers of equal resolution share them.

    Returns
    -------
    list of (*shape) float32 arrays
        Maps that are constant after clipping are drawn again. Empty for maps of a single cell.
    """
    generator = np.random.default_rng([seed, *shape])
    drawn: list[FloatMap] = []
    while prod(shape) > 1 and len(drawn) < draws:
        raw = generator.uniform(-1, 1, shape).astype(np.float32)
        if np.maximum(raw, 0).min() < raw.max():
            drawn.append(raw)
    return drawn
