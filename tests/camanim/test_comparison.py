"""Comparison of results: table, difference, plot; each against a formula."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import camanim
from camanim.cli import app
from camanim.comparison import MOST, comparison_table, difference, overlaid, write_comparison
from camanim.images import Preprocess
from camanim.render.plots import write_described
from camanim.stack import upsample

from .conftest import Plain, Residual

RNG = np.random.default_rng(1)
IMAGE = RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8)


def network(cls=Plain, seed=0, size=(24, 24), **kwargs) -> camanim.Model:
    torch.manual_seed(seed)
    return camanim.Model(
        cls(**kwargs).eval(), Preprocess(size=size), ["a", "b", "c"], name=f"{cls.__name__} {seed}"
    )


def run(method="GradCAM", model=None, **settings) -> camanim.Animation:
    return camanim.animate(model or network(), IMAGE, method=method, target="b", **settings)


def mask() -> np.ndarray:
    inside = np.zeros((32, 40), bool)
    inside[8:20, 10:30] = True
    return inside


# -- Table -----------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_run(tmp_path):
    first, second, third = run(), run("LayerCAM"), run(model=network(Residual))
    road = first.score()
    second.score()
    agreement = first.localise(mask())
    results = {"one": first, "two": second, "three": third}
    rows = comparison_table(results)
    assert [row["name"] for row in rows] == list(results)
    assert [row["method"] for row in rows] == ["GradCAM", "LayerCAM", "GradCAM"]
    assert [row["network"] for row in rows] == ["Plain 0", "Plain 0", "Residual 0"]
    assert [row["layers"] for row in rows] == [len(first), len(second), len(third)]
    assert len({tuple(row) for row in rows}) == 1, "the same keys in each row"
    for row, result in zip(rows, results.values(), strict=True):
        assert row["value"] == result.probability
        assert row["target"] == "b"
    best = int(np.nanargmax(road.scores))
    assert rows[0]["ROAD max"] == pytest.approx(np.nanmax(road.scores))
    assert rows[0]["ROAD mean"] == pytest.approx(np.nanmean(road.scores))
    assert rows[0]["ROAD max layer"] == first.layers[best].label
    highest = int(np.nanargmax(agreement.average_precision))
    assert rows[0]["average precision"] == agreement.average_precision[highest]
    assert rows[0]["average precision layer"] == first.layers[highest].label
    assert rows[2]["ROAD max"] is rows[1]["average precision"] is None
    write_comparison(results, tmp_path / "runs.csv")
    with (tmp_path / "runs.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [row["name"] for row in read] == list(results)
    assert float(read[0]["ROAD max"]) == rows[0]["ROAD max"]


def test_any_finding_is_in_the_table():
    result = run()
    finding = result.measure("insertion")
    (row,) = comparison_table({"run": result})
    i = int(np.nanargmax(finding.values))
    assert row[f"{finding.label}, best"] == finding.values[i]
    assert row[f"{finding.label}, best layer"] == result.layers[i].label


def test_no_runs():
    assert comparison_table({}) == []
    with pytest.raises(camanim.RenderError):
        write_comparison({}, "runs.csv")


# -- Difference ------------------------------------------------------------------------------------


def scaled(maps, normalization, signed):
    """The normalisation, written out."""
    kept = [m.astype(float) if signed else np.where(m > 0, m, 0).astype(float) for m in maps]
    tops = [np.abs(m).max() for m in kept]
    return [
        m / (t if normalization == "local" else max(tops)) if t > 0 else m
        for m, t in zip(kept, tops, strict=True)
    ]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("normalization", ["local", "global"])
def test_the_difference_is_that_of_normalised_maps(normalization, signed):
    first, second = run(), run("XGradCAM", network(seed=1))
    result = difference(first, second, normalization, signed=signed)
    expected = zip(
        scaled(first.maps, normalization, signed), scaled(second.maps, normalization, signed),
        strict=True,
    )  # fmt: skip
    assert len(result) == len(first) == len(second)
    for got, (a, b) in zip(result.maps, expected, strict=True):
        np.testing.assert_allclose(got, a - b, atol=1e-6)
    assert min(m.min() for m in result.maps) < 0 < max(m.max() for m in result.maps)
    opposite = difference(second, first, normalization, signed=signed)
    for a, b in zip(result.maps, opposite.maps, strict=True):
        np.testing.assert_allclose(a, -b, atol=1e-6)
    assert isinstance(result, camanim.Animation)
    assert result.probability == pytest.approx(first.probability - second.probability)


def test_a_difference_can_be_shown(tmp_path):
    result = difference(run(), run("LayerCAM"))
    shown = np.asarray(result.stack(signed=True))
    assert np.abs(shown).max() <= 1
    assert "LayerCAM" in result.method
    assert result.target.name == "b"
    assert result.probability == run().probability
    assert result.caption(0)
    assert len(result.table()) == len(result.layer_calls)
    assert result.write_movie(tmp_path / "difference.mp4", signed=True, size=64).exists()
    assert result.write_picture(tmp_path / "difference.png", signed=True).exists()
    with pytest.raises(camanim.CamError):
        result.check_randomisation()


def test_a_result_minus_itself_is_zero():
    assert not any(m.any() for m in difference(run(), run()).maps)


def test_layers_of_one_result_are_left_out_with_a_note():
    first, second = run(layers="unique"), run(layers=["Conv2d"])
    result = difference(first, second)
    assert [layer.label for layer in result.layers] == [layer.label for layer in second.layers]
    left_out = {layer.label for layer in first.layers} - {layer.label for layer in second.layers}
    assert left_out
    (note,) = [note for note in result.notes if note.startswith("Left out")]
    assert all(label in note for label in left_out)
    with pytest.raises(camanim.LayerError):
        difference(run(model=network(Residual), layers=["stem"]), run())


def test_maps_of_other_resolution_are_resized():
    class Strided(Plain):
        def __init__(self) -> None:
            super().__init__()
            self[4] = nn.Conv2d(6, 8, 3, padding=1, stride=2)

    first, second = run(layers=["Conv2d"]), run(model=network(Strided), layers=["Conv2d"])
    result = difference(first, second)
    a, b = (scaled(r.maps, "local", False)[-1] for r in (first, second))
    assert a.shape != b.shape
    np.testing.assert_allclose(
        result.maps[-1], a - upsample(b.astype(np.float32), a.shape), atol=1e-6
    )


def test_what_cannot_be_subtracted():
    first = run()
    other = camanim.animate(network(), IMAGE[::-1].copy(), target="b")
    with pytest.raises(camanim.ImageError):
        difference(first, other)
    with pytest.raises(camanim.ImageError):
        difference(first, run(model=network(size=(20, 24))))
    with pytest.raises(camanim.ImageError):
        difference(first, run(fit="crop"))
    with pytest.raises(camanim.RenderError):
        difference(first, run(), None)


# -- Plot ------------------------------------------------------------------------------------------


def test_runs_with_the_same_layers_are_plotted_over_the_layers(tmp_path):
    results = {"one": run(), "two": run("LayerCAM"), "none": run("XGradCAM")}
    roads = [results[name].score() for name in ("one", "two")]
    (panel,) = overlaid(results).panels
    assert panel.by_layer
    assert [line.name for line in panel.lines] == ["one", "two"]
    for line, road in zip(panel.lines, roads, strict=True):
        np.testing.assert_array_equal(line.y, road.scores)
    for mark, road in zip(panel.marks, roads, strict=True):
        assert mark.at == np.nanargmax(road.scores)
        assert mark.y == np.nanmax(road.scores)
    assert [m.filled for m in panel.marks] == [
        m.y == max(n.y for n in panel.marks) for m in panel.marks
    ]
    path = write_described(overlaid(results), tmp_path / "scores.png")
    with Image.open(path) as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20


def test_runs_with_other_layers_are_plotted_over_the_relative_depth():
    results = {
        "deep": run(),
        "shallow": run(layers=["Conv2d"]),
        "other": run(model=network(Residual)),
    }
    roads = {name: result.score() for name, result in results.items()}
    (panel,) = overlaid(results).panels
    assert not panel.by_layer
    assert panel.x[0] == 0
    assert panel.x[-1] == 1
    for line in panel.lines:
        scores = roads[line.name].scores
        np.testing.assert_array_equal(line.x, np.linspace(0, 1, len(scores)))
        np.testing.assert_array_equal(line.y, scores)
    for mark, name in zip(panel.marks, roads, strict=True):
        scores = roads[name].scores
        assert panel.x[mark.at] == np.linspace(0, 1, len(scores))[np.nanargmax(scores)]
        assert mark.y == np.nanmax(scores)


def test_lines_can_be_told_apart():
    result = run()
    result.score()
    (panel,) = overlaid({str(i): result for i in range(MOST)}).panels
    assert len({(line.color, line.style) for line in panel.lines}) == MOST
    with pytest.raises(camanim.ScoreError):
        overlaid({str(i): result for i in range(MOST + 1)})


def test_random_weights_are_named_beside_the_lines():
    model = camanim.load_model("torchvision/squeezenet1_1", weights=None)
    random = camanim.animate(model, IMAGE, layers="blocks")
    random.measure("drop")
    trained = run()
    trained.measure("drop")
    (panel,) = overlaid({"random": random, "trained": trained}, next(iter(random.findings))).panels
    assert len(panel.words) == 1
    assert "random weights" in panel.words[0]


def test_a_plot_needs_the_finding():
    with pytest.raises(camanim.ScoreError, match="road"):
        overlaid({"one": run()})


# -- Command line ----------------------------------------------------------------------------------


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_the_command(tmp_path):
    Image.fromarray(IMAGE[..., 0]).save(tmp_path / "image.png")
    Image.fromarray(mask().astype(np.uint8) * 255).save(tmp_path / "mask.png")
    table, plot = tmp_path / "runs.csv", tmp_path / "scores.png"
    done = invoke(
        tmp_path / "image.png", "--method", "GradCAM", "--method", "LayerCAM", "--layers", "blocks",
        "--mask", tmp_path / "mask.png", "--table", table, "--plot", plot, "--plot-key", "localisation",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["GradCAM", "LayerCAM"]
    assert float(rows[0]["average precision"]) > 0
    assert plot.stat().st_size > 1000


def test_the_command_checks_its_options_first(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "image.png")
    assert invoke(tmp_path / "image.png", "--plot", tmp_path / "plot.png").exit_code == 2
    assert isinstance(
        invoke(tmp_path / "image.png", "--table", tmp_path / "plot.png").exception,
        camanim.RenderError,
    )
