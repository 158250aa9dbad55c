"""ROAD (Rong et al., ICML 2022): how well a map explains the prediction, for every layer."""

from camanim.road.imputation import DirectImputer, Imputer
from camanim.road.multigrid import MultigridImputer
from camanim.road.result import Road
from camanim.road.scores import Scoring, score
from camanim.road.simple_imputers import BlurImputer, MeanImputer

__all__ = [
    "BlurImputer",
    "DirectImputer",
    "Imputer",
    "MeanImputer",
    "MultigridImputer",
    "Road",
    "Scoring",
    "score",
]
