"""Steps from layer to layer by score or by stage, for the panel and for commands."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from camanim.findings import Finding
from camanim.layer_info import LayerInfo
from camanim.stages import stages


def next_best(
    finding: Finding, index: int | None, by: int = 1, among: Collection[int] | None = None
) -> int | None:
    """Return the layer that follows another one in the order from the best to the worst.

    Parameters
    ----------
    finding : Finding
    index : int or None
        Index of the shown layer. If it has no value, the best layer is returned.
    by : int
        Number of ranks; a negative number leads to better layers. After the worst layer comes the best.
    among : collection of int, optional
        Indices of the layers to choose from; by default all.

    Returns
    -------
    int or None
        None if no layer has a value.
    """
    ranked = [i for i in finding.ranking() if among is None or i in among]
    if not ranked:
        return None
    if index not in ranked:
        return ranked[0]
    return ranked[(ranked.index(index) + by) % len(ranked)]


def next_stage(
    layers: Sequence[LayerInfo],
    index: int | None,
    by: int = 1,
    among: Collection[int] | None = None,
) -> int | None:
    """Return the first layer of another stage of the network; see `camanim.stages`.

    Parameters
    ----------
    layers : sequence of LayerInfo
    index : int or None
        Index of the shown layer. With None, the first stage is chosen.
    by : int
        Number of stages. A step back from within a stage leads to its first layer.
    among : collection of int, optional
        Indices of the layers to choose from; by default all.

    Returns
    -------
    int or None
        None beyond the first and the last stage.
    """
    members = [
        [i for i in range(s.first, s.last + 1) if among is None or i in among]
        for s in stages(layers)
    ]
    firsts = [shown[0] for shown in members if shown]
    if index is None:
        return firsts[0] if firsts else None
    # The stage that contains the layer, or the one before it.
    at = sum(first <= index for first in firsts) - 1
    if by < 0 and at >= 0 and firsts[at] < index:
        by += 1
    at += by
    return firsts[at] if 0 <= at < len(firsts) else None
