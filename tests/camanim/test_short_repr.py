"""Representations of results and of all that they hold have a bounded length."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
import torch

import camanim
from camanim import samples
from camanim.animation import Animation
from camanim.findings import Finding
from camanim.images import Prepared
from camanim.layer_info import LayerInfo
from camanim.short_repr import short_repr
from camanim.targets import Detection, Segmentation, Similarity
from camanim.window_grid import Windows

#: A few lines of a terminal.
MOST = 600


@pytest.fixture(scope="module")
def animation() -> Animation:
    model = camanim.load_model("demo/ultrasound")
    animation = camanim.animate(model, samples.image("malignant_1"))
    animation.score(repeats=2)
    animation.check_labels()
    animation.localise(samples.mask("malignant_1"))
    animation.measure("drop")
    return animation


def test_findings_have_short_representations_with_shapes(animation: Animation) -> None:
    assert len(animation.findings) == 4
    for finding in animation.findings.values():
        assert len(repr(finding)) < MOST
        assert repr(finding).startswith(type(finding).__name__)
    shape = " x ".join(map(str, animation.road.morfs.shape))
    assert f"morfs=<float64 array, {shape}>" in repr(animation.road)
    assert len(repr(animation.findings)) < 4 * MOST


def test_the_result_and_its_parts_are_short(animation: Animation) -> None:
    assert len(repr(animation)) < MOST
    long = ("maps", "layers", "layer_calls", "findings", "computed_with", "provenance")
    for field in fields(animation):
        if field.name not in long:
            assert len(repr(getattr(animation, field.name))) < 1000, field.name
    assert all(len(repr(layer)) < 120 for layer in animation.layer_calls)
    assert len(repr(animation.stack())) < MOST


@pytest.mark.parametrize(
    "value",
    [
        Prepared(torch.zeros(1, 3, 99, 99), camanim.Geometry((99, 99)), np.zeros((99, 99), np.uint8)),
        Segmentation(1, mask=np.ones((64, 64), bool)),
        Similarity(torch.ones(2048)),
        Detection(boxes=np.zeros((300, 4)), labels=[1] * 300),
        Windows((9, 9), (tuple(range(5000)),) * 2, "gaussian", np.zeros((50, 50)), np.ones((50, 50))),
        LayerInfo(0, "a", 0, "Conv2d", (1, 2, 3, 3), 5),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_objects_with_arrays_are_short(value: Any) -> None:
    assert len(repr(value)) < MOST


def test_a_representation_that_a_subclass_defines_is_kept() -> None:
    @dataclass(frozen=True)
    class Own(Finding):
        def __repr__(self) -> str:
            return "own"

    @dataclass(frozen=True)
    class Inherited(Own):
        values: Any = None

    assert repr(Own([])) == "own"
    assert repr(Inherited([], np.zeros(9999))) == "own"


def test_nested_and_long_values() -> None:
    assert short_repr((1, "a", None)) == "(1, 'a', None)"
    assert short_repr({"x": np.zeros((2, 3), np.uint8)}) == "{'x': <uint8 array, 2 x 3>}"
    assert short_repr(list(range(99))) == "<99 items>"
    assert len(short_repr("x" * 9999)) < 100
    assert short_repr(np.float64(2.0)) == repr(np.float64(2.0))
