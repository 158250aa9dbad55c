"""Recomputation of a result's maps for another network or other targets, as sanity checks need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from camanim.checks.map_similarity import positive_part
from camanim.errors import ScoreError
from camanim.pipeline import recompute

if TYPE_CHECKING:
    from camanim.result import Result
    from camanim.stack import FloatMap

#: In place of the map of a layer that has none; its similarity to any map is NaN.
NO_MAP = np.zeros((0,), np.float32)


def check_has_maps(result: Result) -> None:
    """Raise `ScoreError` if a result has no maps."""
    if not result.maps:
        raise ScoreError("None of the selected layers has a map to check.")


def recompute_shown(result: Result, **changes: Any) -> list[Result]:
    """Return the results of `camanim.pipeline.recompute` for the shown layers."""
    shown = [(layer.name, layer.call) for layer in result.layers]
    return recompute(result, layers=lambda info: (info.name, info.call) in shown, **changes)


def positive_maps(result: Result, other: Result) -> list[FloatMap]:
    """Return the positive parts of another result's maps for the layers of `result`."""
    maps = {(a.name, a.call): m for a, m in zip(other.layers, other.maps, strict=True)}
    return [positive_part(maps.get((a.name, a.call), NO_MAP)) for a in result.layers]
