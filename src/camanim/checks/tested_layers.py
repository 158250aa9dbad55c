"""The layers that a test of scores covers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt

from camanim.declarations import Check
from camanim.errors import LayerError, ScoreError
from camanim.layer_selection import selector
from camanim.road.settings import ScoringSettings

if TYPE_CHECKING:
    from camanim.result import Result


def _are_layers(value: Any) -> bool:
    return callable(value) or isinstance(value, Iterable)


#: Layers to test, as for `camanim.animate`.
TestedLayers = Annotated[
    Any, Check(_are_layers, '"blocks", "unique", "all", names, kinds, globs, or a function')
]
#: Significance level.
LEVEL = 0.05
#: Images per map: two sides of each of the percentiles of ROAD.
IMAGES_PER_MAP = 2 * len(ScoringSettings().percentiles)


def tested_indices(result: Result, layers: Any) -> npt.NDArray[np.intp]:
    """Return the indices of the shown layers that are selected.

    Raises
    ------
    ScoreError
        If none is.
    """
    try:
        select = selector(layers, result.model.forward().net)
    except LayerError as error:
        raise ScoreError(str(error)) from error
    indices = np.flatnonzero([bool(select(layer)) for layer in result.layers])
    if not indices.size:
        raise ScoreError(
            f"The test covers layers={layers!r}, and none of them has a map: choose others for it, "
            'such as layers="unique".'
        )
    return indices
