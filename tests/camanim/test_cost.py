"""Costs before a run, compared with the passes that the run makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import camanim
from camanim.cli import app
from camanim.cost import PREPARATION, Cost
from camanim.execution.forward import Forward
from camanim.words import duration, rounded

from .conftest import Plain, Residual

IMAGE = np.random.default_rng(3).integers(0, 256, (24, 24, 3), dtype=np.uint8)
#: RefineCAM and SESS combine maps of another method.
METHODS = list(camanim.methods())


@dataclass
class Passes:
    """Images through the network, and calls of autograd."""

    forwards: int = 0
    backwards: int = 0


@pytest.fixture
def passes(monkeypatch) -> Passes:
    counted, nested = Passes(), []
    call, grad = Forward.__call__, torch.autograd.grad

    def counting_call(self, batch):
        counted.forwards += len(batch)
        return call(self, batch)

    def counting_grad(*args, **kwargs):
        # Operations with a gradient of their own call it within a pass.
        counted.backwards += not nested
        nested.append(True)
        try:
            return grad(*args, **kwargs)
        finally:
            nested.pop()

    monkeypatch.setattr(Forward, "__call__", counting_call)
    monkeypatch.setattr(torch.autograd, "grad", counting_grad)
    return counted


def network(cls=Plain) -> camanim.Model:
    torch.manual_seed(0)
    return camanim.Model(cls().eval(), classes=["a", "b", "c"])


def options_of(method: str) -> dict[str, int]:
    return {"scales": 3} if method == "SESS" else {}


@pytest.mark.parametrize("cls", [Plain, Residual])
@pytest.mark.parametrize("method", METHODS)
def test_the_passes_are_those_of_the_run(method, cls, passes):
    model, settings = network(cls), {"options": options_of(method)}
    cost = camanim.estimate(model, IMAGE, method=method, **settings)
    passes.forwards = passes.backwards = 0
    try:
        animation = camanim.animate(model, IMAGE, method=method, **settings)
    except camanim.LayerError:
        assert method == "CAM", "the class's map exists for one layer, if any"
        return
    assert cost.forwards <= passes.forwards <= cost.forwards + PREPARATION
    if cost.at_most:
        assert passes.backwards <= cost.backwards
    else:
        # CAM takes the gradient in the last linear layer, too, which passes nothing else.
        assert passes.backwards == cost.backwards + (method == "CAM")
    if method not in ("CAM", "FullGrad"):
        assert cost.layers == len(animation)


@pytest.mark.parametrize("method", ["ScoreCAM", "AblationCAM", "IS-CAM"])
@pytest.mark.parametrize("layers", ["unique", "all", "blocks", ["Conv2d"]])
def test_layers_and_options_count(method, layers, passes):
    model, settings = network(), {"layers": layers, "options": {"channels": 3}}
    cost = camanim.estimate(model, IMAGE, method=method, **settings)
    passes.forwards = 0
    animation = camanim.animate(model, IMAGE, method=method, **settings)
    assert cost.forwards <= passes.forwards <= cost.forwards + PREPARATION
    assert cost.layers == len(animation)


@pytest.mark.parametrize("method", ["GradCAM", "EigenCAM", "ScoreCAM"])
def test_slices_and_variants_multiply(method, passes):
    model = network()
    for image, settings in (
        (np.stack([IMAGE[..., 0]] * 5), {"slices": True}),
        (IMAGE, {"augment": True}),
    ):
        cost = camanim.estimate(model, image, method=method, **settings)
        passes.forwards = passes.backwards = 0
        camanim.animate(model, image, method=method, **settings)
        # Each part of the run prepares itself.
        assert abs(passes.forwards - cost.forwards) <= 6 * PREPARATION
        assert passes.forwards >= 0.9 * cost.forwards
        if settings.get("augment"):
            assert passes.backwards == cost.backwards


@pytest.mark.parametrize(
    ("findings", "requested"),
    [(["road"], {}), ({"road": {"repeats": 2, "draws": 3}}, {"repeats": 2, "draws": 3})],
)
def test_road_predicts_at_most_as_many_images(findings, requested):
    model = network()
    cost = camanim.estimate(model, IMAGE, findings=findings)
    road = camanim.animate(model, IMAGE).score(**requested)
    (of_road,) = cost.findings
    assert 0.3 * of_road.forwards <= road.forwards <= of_road.forwards
    assert cost.total_seconds == cost.seconds + of_road.seconds


def test_an_estimate_leaves_the_network_as_it_was():
    model = network()
    model.net.train()
    before = {key: value.clone() for key, value in model.net.state_dict().items()}
    for method in ("ScoreCAM", "AblationCAM", "GradCAM"):
        camanim.estimate(model, IMAGE, method=method)
    assert model.net.training
    assert all(torch.equal(value, before[key]) for key, value in model.net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.net.modules())
    assert all(parameter.grad is None for parameter in model.net.parameters())


def test_arguments_are_checked_as_in_the_run():
    model = network()
    with pytest.raises(camanim.SettingError):
        camanim.estimate(model, IMAGE, layer="all")
    with pytest.raises(camanim.MethodError):
        camanim.estimate(model, IMAGE, method="Nothing")
    with pytest.raises(camanim.TargetError):
        camanim.estimate(model, IMAGE, target="d")
    with pytest.raises(camanim.ScoreError):
        camanim.estimate(model, IMAGE, findings=["rode"])
    with pytest.raises(camanim.ScoreError):
        camanim.estimate(model, IMAGE, findings={"road": {"repeat": 3}})


def test_a_shape_is_enough():
    cost = camanim.estimate(network(), IMAGE.shape, method="AblationCAM")
    assert cost.forwards == pytest.approx(
        camanim.estimate(network(), IMAGE, method="AblationCAM").forwards, rel=0.2
    )


def test_a_function_that_calls_the_network_has_no_known_cost():
    def custom(activation, score, net):
        return activation.mean(0)

    cost = camanim.estimate(network(), IMAGE, method=custom)
    assert cost.forwards is None
    assert np.isnan(cost.total_seconds)
    assert "known" in cost.words


def test_a_cheaper_alternative_is_named_where_a_run_is_slow(monkeypatch):
    monkeypatch.setattr("camanim.cost.SLOW", 0.0)
    monkeypatch.setattr("camanim.cost.CHEAPER", 100.0)
    model = network(Residual)
    cost = camanim.estimate(model, IMAGE, method="SS-CAM")
    blocks = camanim.estimate(model, IMAGE, method="SS-CAM", layers="blocks")
    assert {c.title for c in cost.cheaper} >= {"blocks"}
    by_title = {c.title: c for c in cost.cheaper}
    assert by_title["blocks"].forwards == blocks.forwards
    assert "blocks" in cost.words


def test_words_are_of_two_digits():
    assert [rounded(n) for n in (0, 7, 99, 101, 33_812, 1_766_110)] == [
        "0", "7", "99", "100", "34,000", "1,800,000",
    ]  # fmt: skip
    assert [duration(s) for s in (0.01, 0.23, 40.2, 99.4, 840, 9_000, 32_400)] == [
        "0.1 s", "0.2 s", "40 s", "99 s", "14 min", "2.5 h", "9.0 h",
    ]  # fmt: skip
    cost = Cost("ScoreCAM over 149 layers", 149, 33_812, 0, 840.0)
    assert "34,000 forward passes" in cost.words
    assert "14 min" in str(cost)


def test_the_command_prints_the_cost_and_stops(tmp_path):
    picture = tmp_path / "image.png"
    from PIL import Image

    Image.fromarray(IMAGE).save(picture)
    table = tmp_path / "table.csv"
    done = CliRunner().invoke(
        app,
        ["run", str(picture), "--method", "ScoreCAM", "--layers", "blocks", "--road", "--estimate",
         "--table", str(table)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "ScoreCAM over" in done.stdout
    assert "ROAD" in done.stdout
    assert not table.exists()
