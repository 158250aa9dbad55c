"""ROAD scores (Rong et al., ICML 2022) and related measures for the map of every layer.

Names are imported on first access, because imputers import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camanim.road.imputation import DirectImputer, Imputer
    from camanim.road.multigrid import MultigridImputer
    from camanim.road.result import Road
    from camanim.road.scores import score
    from camanim.road.simple_imputers import BlurImputer, MeanImputer

__all__ = [
    "BlurImputer",
    "DirectImputer",
    "Imputer",
    "MeanImputer",
    "MultigridImputer",
    "Road",
    "score",
]

_MODULES = {
    "BlurImputer": "simple_imputers",
    "DirectImputer": "imputation",
    "Imputer": "imputation",
    "MeanImputer": "simple_imputers",
    "MultigridImputer": "multigrid",
    "Road": "result",
    "score": "scores",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
