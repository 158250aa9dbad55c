"""Networks: what they are, and the one door through which they come."""

from camanim.models.base import Model, Prediction, bare
from camanim.models.building import Untrusted
from camanim.models.similarity import similarity_to
from camanim.models.sources import list_models, load_model

__all__ = [
    "Model",
    "Prediction",
    "Untrusted",
    "bare",
    "list_models",
    "load_model",
    "similarity_to",
]
