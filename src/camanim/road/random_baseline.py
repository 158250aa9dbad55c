"""What chance would score: random maps of a layer's own resolution."""

from __future__ import annotations

from math import prod

import numpy as np

from camanim.stack import FloatMap


def random_maps(shape: tuple[int, ...], draws: int, seed: int) -> list[FloatMap]:
    """Draw random maps, uniform in [-1, 1] like the weights of RandomCAM.

    They go through the same steps as a layer's map: negative values are cut off and tie, and the rest
    is enlarged from the layer's resolution, so that they are as blurred as it is.

    Parameters
    ----------
    shape : tuple of int
        Of the layer's map.
    draws : int
    seed : int
        With the shape it fixes the maps: layers of one resolution share them.

    Returns
    -------
    list of (*shape) float32 arrays
        Those that are constant once negative values are cut off are drawn again; none where all would
        be, as of a single cell.
    """
    generator = np.random.default_rng([seed, *shape])
    drawn: list[FloatMap] = []
    while prod(shape) > 1 and len(drawn) < draws:
        raw = generator.uniform(-1, 1, shape).astype(np.float32)
        if np.maximum(raw, 0).min() < raw.max():
            drawn.append(raw)
    return drawn
