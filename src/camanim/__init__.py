"""Class activation maps of all layers of a network, by most methods in one forward and backward pass.

This module lists the public names. They are imported on first use, so that ``import camanim`` does
not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from camanim._version import __version__
from camanim.errors import (
    CamError,
    Cancelled,
    EditError,
    ImageError,
    InternalError,
    LayerError,
    LayerIndexError,
    MethodError,
    ModelError,
    NoMap,
    OutOfMemory,
    RenderError,
    ScoreError,
    SettingError,
    StoreError,
    TargetError,
)

if TYPE_CHECKING:
    from camanim import targets
    from camanim.animation import Animation, animate, animate_targets, animate_windows, load
    from camanim.cam_methods import Method, methods
    from camanim.catalogue import finding_kinds
    from camanim.checks import (
        ActivationTest,
        LabelRandomisation,
        LayerTest,
        Localisation,
        Randomisation,
        RegionTest,
    )
    from camanim.comparison import comparison_table, difference, overlaid
    from camanim.cost import Cost, estimate
    from camanim.editing import WhatIf
    from camanim.figures import PrintedFigure, figure_kinds, make_figure
    from camanim.file_names import suggested_name
    from camanim.findings import Finding, register_finding
    from camanim.images import (
        Geometry,
        Preprocess,
        SourceImage,
        SourcePlace,
        open_image,
        read_image,
        take_region,
    )
    from camanim.layer_info import LayerInfo
    from camanim.models import (
        Model,
        Untrusted,
        domain_note,
        list_models,
        load_model,
        similarity_to,
        suggest_model,
    )
    from camanim.progress import console
    from camanim.render import movie_from_folder, write_grid_movie
    from camanim.report import write_report
    from camanim.road import Road
    from camanim.settings import Settings
    from camanim.store import diff, rerun
    from camanim.window_grid import Windows

_MODULES = {
    "RegionTest": "camanim.checks",
    "LayerTest": "camanim.checks",
    "ActivationTest": "camanim.checks",
    "Animation": "camanim.animation",
    "Cost": "camanim.cost",
    "comparison_table": "camanim.comparison",
    "difference": "camanim.comparison",
    "overlaid": "camanim.comparison",
    "estimate": "camanim.cost",
    "Geometry": "camanim.images",
    "LabelRandomisation": "camanim.checks",
    "LayerInfo": "camanim.layer_info",
    "Localisation": "camanim.checks",
    "Method": "camanim.cam_methods",
    "Model": "camanim.models",
    "Preprocess": "camanim.images",
    "PrintedFigure": "camanim.figures",
    "Randomisation": "camanim.checks",
    "Road": "camanim.road",
    "Settings": "camanim.settings",
    "Untrusted": "camanim.models",
    "WhatIf": "camanim.editing",
    "animate": "camanim.animation",
    "animate_targets": "camanim.animation",
    "animate_windows": "camanim.animation",
    "load": "camanim.animation",
    "rerun": "camanim.store",
    "diff": "camanim.store",
    "take_region": "camanim.images",
    "Windows": "camanim.window_grid",
    "figure_kinds": "camanim.figures",
    "make_figure": "camanim.figures",
    "finding_kinds": "camanim.catalogue",
    "register_finding": "camanim.findings",
    "Finding": "camanim.findings",
    "console": "camanim.progress",
    "list_models": "camanim.models",
    "load_model": "camanim.models",
    "methods": "camanim.cam_methods",
    "movie_from_folder": "camanim.render",
    "suggested_name": "camanim.file_names",
    "write_grid_movie": "camanim.render",
    "SourceImage": "camanim.images",
    "SourcePlace": "camanim.images",
    "open_image": "camanim.images",
    "read_image": "camanim.images",
    "similarity_to": "camanim.models",
    "write_report": "camanim.report",
    "suggest_model": "camanim.models",
    "domain_note": "camanim.models",
}

__all__ = [
    "ActivationTest",
    "Animation",
    "CamError",
    "Cancelled",
    "Cost",
    "EditError",
    "Finding",
    "Geometry",
    "ImageError",
    "InternalError",
    "LabelRandomisation",
    "LayerError",
    "LayerIndexError",
    "LayerInfo",
    "LayerTest",
    "Localisation",
    "Method",
    "MethodError",
    "Model",
    "ModelError",
    "NoMap",
    "OutOfMemory",
    "Preprocess",
    "PrintedFigure",
    "Randomisation",
    "RegionTest",
    "RenderError",
    "Road",
    "ScoreError",
    "SettingError",
    "Settings",
    "SourceImage",
    "SourcePlace",
    "StoreError",
    "TargetError",
    "Untrusted",
    "WhatIf",
    "Windows",
    "__version__",
    "animate",
    "animate_targets",
    "animate_windows",
    "comparison_table",
    "console",
    "diff",
    "difference",
    "domain_note",
    "estimate",
    "figure_kinds",
    "finding_kinds",
    "list_models",
    "load",
    "load_model",
    "make_figure",
    "methods",
    "movie_from_folder",
    "open_image",
    "overlaid",
    "read_image",
    "register_finding",
    "rerun",
    "similarity_to",
    "suggest_model",
    "suggested_name",
    "take_region",
    "targets",
    "write_grid_movie",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name == "targets":
        return import_module("camanim.targets")
    if name not in _MODULES:
        raise AttributeError(f"module 'camanim' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
