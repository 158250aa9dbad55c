"""Networks with their preprocessing and class names, and the functions that load them."""

from camanim.models.base import Model, Prediction, unwrap
from camanim.models.building import Untrusted
from camanim.models.domain import domain_note, suggest_model
from camanim.models.similarity import similarity_to
from camanim.models.sources import list_models, load_model

__all__ = [
    "Model",
    "Prediction",
    "Untrusted",
    "domain_note",
    "list_models",
    "load_model",
    "similarity_to",
    "suggest_model",
    "unwrap",
]
