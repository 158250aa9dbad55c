"""The demo network of the package, trained on synthetic ultrasound; not for diagnosis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camanim.images import Preprocess
from camanim.models.base import Model
from camanim.models.building import build
from camanim.samples import SAMPLE_DATA

if TYPE_CHECKING:
    from camanim.progress import Progress

NAMES = ("ultrasound",)


def has_network(name: str) -> bool:
    """Return whether `name` is a demo network."""
    return name in NAMES


def load(
    name: str, arguments: dict[str, Any], weights: str | Path | None, progress: Progress
) -> Model:
    """Load a demo network; see `camanim.load_model` for the parameters."""
    from monai.networks.nets import DenseNet
    from safetensors import safe_open

    from camanim.models.files import load_into, read_weights

    path = SAMPLE_DATA / f"{name}.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    net = build(f"demo/{name}", DenseNet, json.loads(metadata["architecture"]) | arguments)
    if weights is not None:
        path = path if weights == "DEFAULT" else Path(weights)
        load_into(net, read_weights(path), path, f"demo/{name}")
    domain = "synthetic breast ultrasound, in grey (a teaching aid)" if weights == "DEFAULT" else ""
    height, width = json.loads(metadata["size"])
    preprocess = Preprocess(
        size=(height, width),
        mean=json.loads(metadata["mean"]),
        std=json.loads(metadata["std"]),
        channels=1,
    )
    classes = json.loads(metadata["classes"])
    return Model(net, preprocess, classes, name=f"demo/{name}", domain=domain)
