"""Every method over every network: each layer has a map or a status, and the network is unchanged.

The runs are those of ``docs/make_matrix.py``, which writes the tables. All of them take an hour. So

- every network is run with Grad-CAM over all layers, and with every formula over some;
- with ``CAMANIM_MATRIX=families`` in the environment, one network of every family is run with every
  method, over a few layers;
- with ``CAMANIM_MATRIX=all``, every network is run with every method over all layers.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torchvision.models import get_model_weights, list_models

import camanim
from camanim.cam_methods import find_method
from camanim.errors import NoMap
from camanim.layer_info import Status
from camanim.models.torchvision import CLASSIFIERS

SCRIPT = Path(__file__).parents[2] / "docs" / "make_matrix.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_matrix", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules["make_matrix"] = module
    spec.loader.exec_module(module)
    return module


matrix = _load()

#: Methods that need no more than a layer's activation and gradient.
FORMULAS = [
    name
    for name, method in ((n, find_method(n)) for n in camanim.methods())
    if set(method.needs) <= {"activation", "gradient", "generator"}
    and not (
        method.meta
        or method.averages
        or method.target
        or method.guided
        or method.needs_reevaluation
    )
]


def test_the_matrix_has_all_classifiers_and_its_bounds_are_options() -> None:
    assert set(CLASSIFIERS) == set(list_models(module=sys.modules["torchvision.models"]))
    assert len(CLASSIFIERS) == 80
    for method, options in matrix.OPTIONS.items():
        find_method(method).checked(options)
    assert set(camanim.methods()) >= matrix.COSTLY | matrix.PARTIAL
    assert len(FORMULAS) > 9


def test_the_page_has_all_networks_and_methods() -> None:
    """Written by ``python docs/make_matrix.py``; a method of later than its last run may be missing."""
    text = matrix.PAGE.read_text(encoding="utf-8")
    tables = [line.strip("| ").split(" | ")[0] for line in text.splitlines() if line[:1] == "|"]
    assert set(CLASSIFIERS) <= set(tables)
    assert {"GradCAM", "EigenCAM", "ScoreCAM", "RandomCAM"} <= set(tables)
    listed = text.partition("\n## Methods\n")[2].partition("\n## ")[0].splitlines()
    names = [line.strip("| ").split(" | ")[0] for line in listed if line[:1] == "|"][2:]
    assert set(names) <= set(camanim.methods())


def check_layer_calls(name: str, layer_calls: list[camanim.LayerInfo]) -> None:
    """Check that every call has a map, or a status that agrees with its shape."""
    assert [layer.index for layer in layer_calls] == list(range(len(layer_calls)))
    for layer in layer_calls:
        assert layer.status in matrix.STATUSES, layer
        assert (layer.status == Status.OK) <= bool(layer.layout), layer
        if layer.status == Status.NOT_SPATIAL and "cpb_mlp" not in layer.name:
            # Swin V2's table of positions does not come from the image; the others are a pixel or a
            # vector.
            assert sum(side > 1 for side in layer.shape) < 2, layer
        if layer.same_as is not None:
            earlier = layer_calls[layer.same_as]
            assert (earlier.shape, earlier.status) == (layer.shape, layer.status), layer


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_layer_has_a_map_or_a_status(name: str) -> None:
    """Grad-CAM over all layers, and every other formula over some, in the same pass."""
    net, size = matrix.network(name), matrix.size_of(name)
    model, before = camanim.Model(net, name=name), matrix.checksum(net)
    everything, animation = matrix.run(model, size, "GradCAM")
    assert matrix.complaints(animation, size) == []
    check_layer_calls(name, everything.layer_calls)
    assert everything.maps > 0.5 * len(everything.layer_calls)
    some = matrix.spread(everything.layer_calls, 12)
    ran: list[str] = []

    def every_formula(
        activation: torch.Tensor, gradient: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        given = {"activation": activation, "gradient": gradient, "generator": generator}
        for formula in FORMULAS:
            try:
                raw = find_method(formula).weigh(given)
            except NoMap as reason:
                pytest.fail(f"{formula}: {reason}")
            assert raw.shape == activation.shape[1:], formula
            assert bool(raw.isfinite().all()), formula
            ran.append(formula)
        return gradient.mean(tuple(range(1, gradient.ndim)))

    again = camanim.animate(
        model, matrix.image_of(size), method=every_formula, target=1, fit="native",
        layers=lambda layer: layer.index in some,
    )  # fmt: skip
    assert len(ran) == len(FORMULAS) * len(some)
    # Grad-CAM's weights: the same maps, whichever layers are selected.
    of_all = {layer.index: raw for layer, raw in zip(animation.layers, animation.maps, strict=True)}
    for layer, raw in zip(again.layers, again.maps, strict=True):
        atol = 1e-5 * np.abs(raw).max()
        np.testing.assert_allclose(raw, of_all[layer.index], rtol=1e-4, atol=atol)
    assert matrix.checksum(net) == before


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("CAMANIM_MATRIX") not in ("families", "all"),
    reason="takes minutes: set CAMANIM_MATRIX=families",
)
@pytest.mark.parametrize("name", matrix.FAMILIES)
def test_every_method_over_every_family(name: str) -> None:
    """Over a few layers; only methods of `PARTIAL` leave layers without a map."""
    net, size = matrix.network(name), matrix.size_of(name)
    model, before = camanim.Model(net, name=name), matrix.checksum(net)
    few = matrix.spread(matrix.run(model, size, "GradCAM")[0].layer_calls, 3)
    # The formulas are tested above; a large image is slow.
    methods = camanim.methods() if size < 200 else set(camanim.methods()) - set(FORMULAS)
    for method in methods:
        run, animation = matrix.run(model, size, method, few)
        assert run.maps == len(few) or method in matrix.PARTIAL, (method, run.without)
        assert animation is None or matrix.complaints(animation, size) == []
    assert matrix.checksum(net) == before


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("CAMANIM_MATRIX") != "all", reason="takes an hour: set CAMANIM_MATRIX=all"
)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_method_over_every_layer_of_every_network(name: str) -> None:
    """Also: the layers with a map are the same for all methods but those of `PARTIAL`."""
    row = matrix.row_of(name, every=True)
    spatial = row.runs["GradCAM"]
    for method, run in row.runs.items():
        if method in matrix.COSTLY:
            assert run.maps == run.selected, (method, run.without)
        elif method not in matrix.PARTIAL:
            assert run.without == spatial.without, method


def test_published_sizes_are_no_smaller() -> None:
    """The images of the matrix are never larger than those of the training."""
    for name in CLASSIFIERS:
        assert matrix.size_of(name) <= get_model_weights(name).DEFAULT.transforms().crop_size[0]
