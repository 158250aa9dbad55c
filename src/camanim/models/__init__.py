"""Networks with their preprocessing and class names, and the functions that load them."""

from camanim.models.base import Model, Prediction, unwrap
from camanim.models.building import Untrusted
from camanim.models.similarity import similarity_to
from camanim.models.sources import list_models, load_model

__all__ = [
    "Model",
    "Prediction",
    "Untrusted",
    "list_models",
    "load_model",
    "similarity_to",
    "unwrap",
]
