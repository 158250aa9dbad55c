"""Curves over the layers: values, second axes, stages, several results, ranking."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import camanim
from camanim import samples
from camanim.curves import find_curve, layer_curves, overlaid, with_stages
from camanim.errors import RenderError
from camanim.render import plot
from camanim.render.overlay import Thumbnails


@pytest.fixture(scope="module")
def shared() -> ModuleType:
    """The helpers of the tests of plots."""
    path = Path(__file__).with_name("test_plots.py")
    spec = importlib.util.spec_from_file_location("plots_helpers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def animation() -> camanim.Animation:
    model = camanim.load_model("demo/ultrasound")
    return camanim.animate(model, samples.image("malignant_1"), layers="all")


def test_curves_are_those_of_the_network_and_its_maps(animation) -> None:
    curves = layer_curves(animation)
    modules = dict(animation.model.net.named_modules())
    counts = [sum(p.numel() for p in modules[x.name].parameters()) for x in animation.layers]
    np.testing.assert_array_equal(np.nan_to_num(curves["parameters"].values), counts)
    heights = [m.shape[0] for m in animation.maps]
    np.testing.assert_allclose(curves["output size"].values, heights)
    assert curves["time"].values.tolist() == [x.milliseconds for x in animation.layers]


def test_findings_are_curves_by_their_titles(shared) -> None:
    result = shared.scored()
    mask = shared.localised(result)
    result.add(mask)
    curves = layer_curves(result)
    np.testing.assert_array_equal(curves["ROAD"].values, result.road.scores)
    np.testing.assert_array_equal(curves["Mask"].values, mask.average_precision)
    # Not measured in this result.
    assert "time" not in curves
    with pytest.raises(RenderError, match="ROAD"):
        find_curve(result, "time")


def test_a_second_curve_has_an_axis_on_the_right(shared) -> None:
    result = shared.scored()
    first, second = plot(result, second="output size").axes
    [line] = second.get_lines()
    assert line.get_ydata().tolist() == [2.0] * shared.COUNT
    assert line.get_linestyle() == "--"
    assert second.yaxis.get_ticks_position() == "right"
    # The scale of the first curve is unchanged, and its lines are on top.
    np.testing.assert_allclose(first.get_ylim(), plot(result).axes[0].get_ylim())
    assert first.get_zorder() > second.get_zorder()
    assert "output size" in shared.texts_of(first.figure)


def test_a_second_curve_needs_a_plot_over_the_layers(shared) -> None:
    with pytest.raises(RenderError, match="over the layers"):
        plot(shared.scored(), "removal", 0, second="parameters")


def test_a_plot_with_a_second_curve_on_the_command_line(tmp_path) -> None:
    from typer.testing import CliRunner

    from camanim.cli import app

    sample = samples.SAMPLE_DATA / "images" / "malignant_1.png"
    options = ["--layers", "blocks", "--find", "measure:name=drop", "--plot-second", "output size"]
    path = tmp_path / "plot.svg"
    done = CliRunner().invoke(app, ["run", str(sample), *options, "--plot", str(path)])
    assert done.exit_code == 0, done.output
    assert "output size" in path.read_text(encoding="utf-8")


def test_stages_are_shaded_and_named(animation) -> None:
    panel = with_stages(camanim.plots.Panel.over_layers(len(animation)), animation.layers)
    low, high = panel.spans[0].low, panel.spans[-1].high
    assert (low, high) == panel.x_limits
    for before, after in zip(panel.spans, panel.spans[1:], strict=False):
        assert before.high == after.low


def test_every_second_stage_is_shaded(shared) -> None:
    # Six layers, layer0.conv to layer5.conv: a stage each.
    axes = plot(shared.scored()).axes[0]
    shaded = sorted((p.get_x(), p.get_width()) for p in axes.patches)
    assert shaded == [(1.5, 1.0), (3.5, 1.0), (5.5, 1.0)]
    assert [t.get_text() for t in axes.texts] == [f"layer{i}" for i in range(6)]


def test_results_of_equal_layers_are_plotted_over_the_layers(shared) -> None:
    one, two = shared.scored(), shared.scored(repeats=1)
    panel = overlaid({"one": one.road, "two": two.road})
    assert panel.by_layer
    # The first is on top.
    assert [line.name for line in panel.lines] == ["two", "one"]
    np.testing.assert_array_equal(panel.lines[1].y, one.road.scores)
    assert len({(line.color, line.style) for line in panel.lines}) == 2


def test_results_of_other_layers_are_plotted_over_the_relative_depth(shared) -> None:
    panel = overlaid({"six": shared.scored().road, "three": shared.scored(3).road})
    assert not panel.by_layer
    three, six = panel.lines
    assert three.x.tolist() == [0, 0.5, 1]
    np.testing.assert_allclose(six.x, [0, 0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_array_equal(panel.x, six.x)


def test_layers_are_ranked_from_the_best(shared) -> None:
    result = shared.scored()
    scores = result.road.scores
    defined = [i for i in range(len(scores)) if np.isfinite(scores[i])]
    assert result.road.ranking() == sorted(defined, key=lambda i: -scores[i])
    # For a similarity to maps of random weights, low is good.
    similarities = shared.randomised(result).main_values()
    ranked = shared.randomised(result).ranking()
    assert np.all(np.diff(similarities[ranked]) >= 0)
    assert ranked[0] == int(np.nanargmin(similarities))


def test_a_thumbnail_is_bright_where_the_map_is(animation) -> None:
    last = len(animation) - 1
    raw = np.zeros_like(animation.maps[last])
    raw[0, 0] = 1
    changed = camanim.Animation(**{**vars(animation), "maps": [*animation.maps[:-1], raw]})
    picture = Thumbnails(changed, 48).picture(last).astype(int)
    height, width = animation.image.shape[:2]
    assert max(picture.shape[:2]) == 48
    assert picture.shape[0] / picture.shape[1] == pytest.approx(height / width, abs=0.05)
    # Turbo is dark blue at 0 and red at 1.
    red = picture[..., 0] - picture[..., 2]
    assert np.unravel_index(red.argmax(), red.shape) < (12, 12)
    assert red[24:, 24:].max() < red.max() / 2
