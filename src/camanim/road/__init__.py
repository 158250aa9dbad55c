"""ROAD (Rong et al., ICML 2022): how well a map explains the prediction, for every layer."""

from camanim.road.imputation import DirectImputer, Imputer
from camanim.road.result import Road
from camanim.road.scores import score

__all__ = ["DirectImputer", "Imputer", "Road", "score"]
