"""Networks: what they are, and the one door through which they come."""

from camanim.models.base import Model, Prediction
from camanim.models.sources import list_models, load_model

__all__ = ["Model", "Prediction", "list_models", "load_model"]
