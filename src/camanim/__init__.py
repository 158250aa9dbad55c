"""See what every layer of a network looks at: class activation maps of all layers in one pass.

The public names stand here and nowhere else. They are imported when first used, so that
``import camanim`` costs no import of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from camanim.errors import (
    CamError,
    Cancelled,
    ImageError,
    LayerError,
    MethodError,
    ModelError,
    OutOfMemory,
    RenderError,
    ScoreError,
    TargetError,
)

if TYPE_CHECKING:
    from camanim.animation import Animation, LayerInfo
    from camanim.cams import methods
    from camanim.images import Geometry, Preprocess, read_image
    from camanim.models import Model, list_models, load_model
    from camanim.pipeline import animate
    from camanim.progress import console
    from camanim.road import Road

__version__ = "0.1.0"

_HOMES = {
    "Animation": "camanim.animation",
    "Geometry": "camanim.images",
    "LayerInfo": "camanim.animation",
    "Model": "camanim.models",
    "Preprocess": "camanim.images",
    "Road": "camanim.road",
    "animate": "camanim.pipeline",
    "console": "camanim.progress",
    "list_models": "camanim.models",
    "load_model": "camanim.models",
    "methods": "camanim.cams",
    "read_image": "camanim.images",
}

__all__ = [
    "Animation",
    "CamError",
    "Cancelled",
    "Geometry",
    "ImageError",
    "LayerError",
    "LayerInfo",
    "MethodError",
    "Model",
    "ModelError",
    "OutOfMemory",
    "Preprocess",
    "RenderError",
    "Road",
    "ScoreError",
    "TargetError",
    "animate",
    "console",
    "list_models",
    "load_model",
    "methods",
    "read_image",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'camanim' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
