"""Which layer each of several stacks shows at each position of one slider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from camanim.result import Result


def align(results: Sequence[Result], shown: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return the layer of each result at each position of a common slider.

    Results of the same network show the same layer, or where one of them has no map of it, the layer
    with the nearest place in the order of execution. Other networks are stretched to the same number
    of positions, so that the relative depth is the same. Every layer of every result is shown.

    Parameters
    ----------
    results : sequence of Result
    shown : sequence of sequences of int
        For each result, the indices of the layers that are to be shown, in ascending order.

    Returns
    -------
    list of tuple of int
        For each result, N indices in ascending order, with repeats. N is the number of layers of the
        network with the most of them.
    """
    networks = [tuple(call.label for call in result.layer_calls) for result in results]
    # Places in the order of execution of the layers that any result of a network shows.
    calls = [
        [result.layers[i].index for i in indices]
        for result, indices in zip(results, shown, strict=True)
    ]
    places: dict[tuple[str, ...], set[int]] = {}
    for network, own in zip(networks, calls, strict=True):
        places.setdefault(network, set()).update(own)
    count = max(map(len, places.values()))
    aligned = []
    for network, own, indices in zip(networks, calls, shown, strict=True):
        axis = np.array(sorted(places[network]))
        stretched = axis[_stretched(len(axis), count)]
        nearest = np.abs(stretched[:, None] - np.array(own)).argmin(axis=1)
        aligned.append(tuple(int(indices[i]) for i in nearest))
    return aligned


def _stretched(length: int, count: int) -> np.ndarray:
    """Return `count` indices below `length`, evenly spaced, from the first to the last one."""
    if count == 1:
        return np.zeros(1, int)
    # In integers: half a step is rounded up in every position.
    steps = np.arange(count) * (length - 1)
    rounded: np.ndarray = (2 * steps + count - 1) // (2 * (count - 1))
    return rounded
