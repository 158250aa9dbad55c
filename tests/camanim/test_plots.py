"""Plots of findings: drawn values, texts and files; and the measured numbers in the documentation."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from PIL import Image

import camanim
from camanim import samples
from camanim.animation import Animation
from camanim.checks import LabelRandomisation, Localisation, Randomisation
from camanim.errors import RenderError, ScoreError
from camanim.images import Geometry
from camanim.layer_info import LayerInfo
from camanim.render import plot
from camanim.road import Road
from camanim.targets import ClassTarget

NAN = np.nan
COUNT = 6
DOCS = Path(__file__).parents[2] / "docs"


def animation(count: int = COUNT, *, name: str = "Egyptian cat") -> Animation:
    """Return an animation without network and findings."""
    maps = [np.ones((2, 2), np.float32)] * count
    layers = [LayerInfo(i, f"layer{i}.conv", 0, "Conv2d", (1, 8, 2, 2), 10) for i in range(count)]
    return Animation(
        maps=maps,
        layers=layers,
        layer_calls=layers,
        method="GradCAM",
        target=ClassTarget(3, name),
        probability=0.9,
        image=np.zeros((8, 8), np.uint8),
        geometry=Geometry((8, 8), (1, 1)),
        tensor=torch.zeros(1, 1, 8, 8),
        model=None,  # type: ignore[arg-type]
        provenance={"model": "torchvision/mobilenet_v2"},
    )


def road(layers: list[LayerInfo], *, repeats: int = 3, draws: int = 4) -> Road:
    """Return ROAD scores of which the third and fifth are undefined."""
    random = np.random.default_rng(0)
    shape = (repeats, len(layers), 4)
    # The last layer has the highest score.
    gap = np.linspace(0.1, 0.4, len(layers))[None, :, None]
    morfs = 0.4 - gap / 2 + random.uniform(0, 0.02, shape)
    lerfs = 0.4 + gap / 2 + random.uniform(0, 0.02, shape)
    undefined: list[str | None] = [None] * len(layers)
    if len(layers) > 4:
        morfs[:, [2, 4]] = lerfs[:, [2, 4]] = NAN
        undefined[2] = undefined[4] = "constant map"
    return Road(
        layers=layers,
        percentiles=(20, 40, 60, 80),
        morfs=morfs,
        lerfs=lerfs,
        probability=0.9,
        undefined=tuple(undefined),
        random_scores=random.normal(0.02, 0.01, (len(layers), draws)),
        forwards=0,
        seed=0,
        noise=0.01,
    )


def scored(count: int = COUNT, **options) -> Animation:
    result = animation(count)
    result.add(road(result.layers, **options))
    return result


def localised(result: Animation) -> Localisation:
    """Return an agreement with a mask in which all values differ."""
    count = len(result)
    values = np.linspace(0.1, 0.8, 3 * count).reshape(3, count)
    values[:, 1] = NAN
    pointing = np.arange(count) % 2.0
    pointing[1] = NAN
    reasons = tuple("constant map" if i == 1 else None for i in range(count))
    return Localisation(result.layers, pointing, *values, share=0.25, undefined=reasons)


def randomised(result: Animation, **options) -> Randomisation:
    spearman = np.linspace(0.9, -0.2, 4 * len(result)).reshape(4, len(result))
    spearman[1, 0] = NAN
    steps = ("fc", "layer4", "layer3", "layer2")
    # In the first scheme the maps differ more, so that the plot shows the second one.
    both = np.stack([spearman - 0.4, spearman])
    schemes = ("permuted", "reinitialised")
    return Randomisation(
        result.layers, schemes, steps, both, both / 2, both[:, -1:], 0.5, 0, **options
    )


def lines(figure: Figure, axes: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return x and y of the lines of a plot, by label."""
    return {
        str(line.get_label()): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata(), float))
        for line in figure.axes[axes].get_lines()
    }


def bands(figure: Figure, axes: int = 0) -> dict[str, list[tuple[float, float, float]]]:
    """Return x, lower and upper end of the bands of a plot, by label."""
    return {str(band.get_label()): extent(band) for band in figure.axes[axes].collections}


def extent(band: Collection) -> list[tuple[float, float, float]]:
    points = np.concatenate([path.vertices for path in band.get_paths()])
    columns = [(x, points[points[:, 0] == x, 1]) for x in np.unique(points[:, 0])]
    return [(x, y.min(), y.max()) for x, y in columns]


def texts_of(figure: Figure) -> str:
    """Return all texts of a figure."""
    figure.draw_without_rendering()
    texts = [figure.get_suptitle()]
    for axes in figure.axes:
        texts += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title("left")]
        if legend := axes.get_legend():
            texts += [text.get_text() for text in legend.get_texts()]
    return "\n".join(texts)


# Scores ---------------------------------------------------------------------------------------


def test_scores_spread_and_random_maps_are_drawn() -> None:
    result = scored()
    assert result.road is not None
    figure = plot(result)
    x, y = lines(figure)["ROAD"]
    repeats = ((result.road.lerfs - result.road.morfs) / 2).mean(axis=2)
    assert x.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(y, repeats.mean(axis=0))
    np.testing.assert_allclose(
        lines(figure)["random maps"][1], result.road.random_scores.mean(axis=1)
    )
    spread = repeats.std(axis=0, ddof=1)
    drawn = bands(figure)["± SD of 3 repeats"]
    for place, low, high in drawn:
        i = round(place) - 1
        assert (low, high) == pytest.approx((y[i] - spread[i], y[i] + spread[i]))
    # A layer without a score is a gap.
    assert {place for place, *_ in drawn} == {1, 2, 4, 6}
    for place, low, high in bands(figure)["95 % of random maps"]:
        i = round(place) - 1
        if np.isfinite(y[i]):
            assert (high - low) / 2 == pytest.approx(result.road.margin[i])


def test_a_layer_between_two_without_scores_has_a_dot() -> None:
    result = animation(5)
    result.add(road(result.layers))
    undefined = np.array([False, True, False, True, False])
    for values in (result.road.morfs, result.road.lerfs):
        values[:] = 0.5
        values[:, undefined] = NAN
    [dots] = [line for line in plot(result).axes[0].get_lines() if line.get_marker() == "."]
    assert np.asarray(dots.get_xdata()).tolist() == [1, 3, 5]


def test_the_highest_score_is_marked_and_no_layer_is_called_best() -> None:
    marks = {label.partition(":")[0][2:]: x for label, (x, _) in lines(plot(scored())).items()}
    assert marks["highest"].tolist() == [6]
    assert "best" not in marks
    assert not any("random maps" in label for label in lines(plot(scored(draws=0))))


def test_a_note_replaces_the_highest_score_if_there_is_none() -> None:
    result = scored()
    assert result.road is not None
    result.add(replace(result.road, morfs=result.road.morfs * NAN))
    assert "no layer has a score" in texts_of(plot(result))


def test_agreement_with_a_mask_is_drawn_below_or_alone() -> None:
    result = scored()
    result.add(localised(result))
    figure = plot(result)
    assert [axes.get_ylabel() for axes in figure.axes] == ["ROAD", "agreement with the mask"]
    drawn = lines(figure, 1)
    for key, name in {
        "average_precision": "average precision",
        "energy": "energy inside",
        "iou": "IoU",
    }.items():
        np.testing.assert_array_equal(drawn[name][1], getattr(result.localisation, key))
    assert drawn["peak inside"][0].tolist() == [4, 6]
    assert drawn["chance (0.25)"][1].tolist() == [0.25, 0.25]
    assert drawn["★ highest: layer5.conv (0.80)"][0].tolist() == [6]
    result.findings.pop("road", None)
    assert [axes.get_ylabel() for axes in plot(result).axes] == ["agreement with the mask"]


def test_one_layer_can_be_marked() -> None:
    without, marked = plot(scored()), plot(scored(), layer=3)
    line = marked.axes[0].get_lines()[-1]
    assert len(marked.axes[0].get_lines()) == len(without.axes[0].get_lines()) + 1
    assert list(line.get_xdata()) == [4, 4]


def test_long_names_do_not_squeeze_the_axes(tmp_path) -> None:
    result = scored()
    result.add(localised(result))
    result.add(randomised(result))
    widths = []
    for name in ("x", "W" * 300):
        result.layers = [replace(layer, name=name) for layer in result.layers]
        result.add(road(result.layers))
        result.add(localised(result))
        for figure in (plot(result), plot(result, "removal"), plot(result, "randomisation", 0)):
            figure.draw_without_rendering()
            # Without the axes of the colour bar.
            widths.append(min(axes.get_position().width for axes in figure.axes[:2]))
    assert np.min(widths) > 0.65
    np.testing.assert_allclose(widths[:3], widths[3:], atol=0.01)


# Removal --------------------------------------------------------------------------------------


def test_removal_is_plotted_over_the_removed_share() -> None:
    result = scored()
    assert result.road is not None
    figure = plot(result, "removal", 1)
    for name, values in {
        "least relevant first (LeRF)": result.road.lerfs,
        "most relevant first (MoRF)": result.road.morfs,
    }.items():
        x, y = lines(figure)[name]
        assert x.tolist() == [0, 20, 40, 60, 80]
        # Percentiles are kept shares, in reverse order of removed shares.
        np.testing.assert_allclose(y, [0.9, *values[:, 1, ::-1].mean(axis=0)])
    [*ends] = [extent(band)[-1] for band in figure.axes[0].collections]
    repeats = result.road.morfs[:, 1, 0]
    assert pytest.approx((80, repeats.min(), repeats.max())) in ends
    assert f"layer1.conv: ROAD {result.road.scores[1]:.2f}" in texts_of(figure)


def test_removal_is_by_default_of_the_layer_with_the_highest_score() -> None:
    assert "layer5.conv: ROAD" in texts_of(plot(scored(), "removal"))


# Randomisation --------------------------------------------------------------------------------


def test_randomisation_shows_the_median_and_every_layer() -> None:
    result = animation()
    result.add(randomised(result))
    figure = plot(result, "randomisation")
    x, y = lines(figure)["Spearman"]
    assert x.tolist() == [0, 1, 2, 3, 4]
    assert y[0] == 1
    worse = result.randomisation.spearman[1]
    rows = [np.median(row[~np.isnan(row)]) for row in worse]
    np.testing.assert_allclose(y[1:], rows)
    [matrix] = [image for axes in figure.axes for image in axes.get_images()]
    values = np.ma.filled(matrix.get_array().astype(float), NAN)
    np.testing.assert_array_equal(values, worse)
    assert (matrix.norm.vmin, matrix.norm.vmax) == (-1, 1)
    # The first step is on top, the first layer on the left.
    assert list(matrix.get_extent()) == [0.5, 6.5, 4.5, 0.5]
    assert result.randomisation.verdict in " ".join(texts_of(figure).splitlines())


def test_randomisation_of_a_single_layer() -> None:
    result = animation()
    result.add(randomised(result))
    figure = plot(result, "randomisation", 2)
    assert "layer2.conv" in texts_of(figure)
    np.testing.assert_allclose(
        lines(figure)["Spearman"][1][1:], result.randomisation.spearman[1, :, 2]
    )


def test_every_plot_has_the_warnings_of_failed_checks() -> None:
    result = scored()
    same = np.ones((1, COUNT))
    result.add(LabelRandomisation(result.layers, ("dog",), same, 0.9, method="EigenCAM"))
    cascade = same[None]
    result.add(
        Randomisation(result.layers, ("permuted",), ("fc",), cascade, cascade, cascade, 0.5, 0)
    )
    for what in ("scores", "removal", "randomisation"):
        text = " ".join(texts_of(plot(result, what)).splitlines())
        assert text.count("FAILS the randomisation check") == 1
        assert text.count("FAILS the label check") == 1
    result.add(replace(result.labels, spearman=same / 2))
    assert "label check" not in texts_of(plot(result))


# Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "starts"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".SVG", b"<?xml")]
)
def test_the_suffix_determines_the_format(tmp_path, suffix, starts) -> None:
    path = scored().write_plot(tmp_path / f"plot{suffix}")
    assert path.read_bytes().startswith(starts)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_picture_shows_the_curve_in_its_colour(tmp_path) -> None:
    picture = np.asarray(Image.open(scored().write_plot(tmp_path / "plot.png")).convert("RGB"))
    assert picture.shape[1] == 1200
    blue, white = ((picture == color).all(axis=2).mean() for color in ((0, 114, 178), (255,) * 3))
    assert blue > 0.0005
    assert white > 0.5


@pytest.mark.parametrize("name", ["$\\frac{1$", "a\nb", "猫 – 犬", "_hidden", "W" * 300])
def test_any_name_can_be_written(tmp_path, name, recwarn) -> None:
    result = animation(name=name)
    result.layers = [replace(layer, name=name) for layer in result.layers]
    result.add(road(result.layers))
    result.add(localised(result))
    result.add(randomised(result, method=name))
    for what in ("scores", "removal", "randomisation"):
        result.write_plot(tmp_path / "plot.png", what)
    assert [str(w.message) for w in recwarn if "Glyph" in str(w.message)] == []


@pytest.mark.parametrize("count", [1, 2, 400])
def test_any_number_of_layers_can_be_drawn(tmp_path, count) -> None:
    result = scored(count)
    half = np.full(count, 0.5)
    result.add(Localisation(result.layers, half, half, half, half, 0.25, (None,) * count))
    result.add(randomised(result))
    for what in ("scores", "removal", "randomisation"):
        result.write_plot(tmp_path / "plot.png", what)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("scores", ScoreError, "score"),
        ("removal", ScoreError, "road"),
        ("randomisation", ScoreError, "randomisation"),
        ("curve", RenderError, '"scores", "removal", "randomisation"'),
    ],
)
def test_a_plot_of_a_missing_finding_is_an_error(tmp_path, what, error, message) -> None:
    with pytest.raises(error, match=message):
        animation().write_plot(tmp_path / "plot.png", what)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [("plot.jpg", ".png, .pdf or .svg"), ("plot", ".svg"), ("nowhere/plot.png", "nowhere")],
)
def test_invalid_paths_are_render_errors(tmp_path, name, message) -> None:
    with pytest.raises(RenderError, match=message):
        scored().write_plot(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_without_score_or_out_of_range_is_an_error() -> None:
    with pytest.raises(ScoreError, match=r"layer2.conv .*constant map"):
        plot(scored(), "removal", 2)
    for layer in (-1, 6):
        with pytest.raises(IndexError, match="0 to 5"):
            plot(scored(), layer=layer)


def test_a_plot_does_not_change_the_state_of_matplotlib(tmp_path) -> None:
    """In a subprocess, as other tests may have loaded pyplot."""
    code = (
        "import sys; sys.path.insert(0, 'tests/camanim')\n"
        "import test_plots\n"
        "sys.modules.pop('matplotlib.pyplot', None)\n"
        "from matplotlib import rcParams\n"
        # Reading the backend would load pyplot.
        "read = lambda: {key: rcParams[key] for key in rcParams if key != 'backend'}\n"
        "before = read()\n"
        f"test_plots.scored().write_plot({str(tmp_path / 'plot.png')!r})\n"
        "assert read() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "plot.png").stat().st_size > 1000


# Measured numbers in the documentation --------------------------------------------------------


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """Return the script that fills in the numbers."""
    spec = importlib.util.spec_from_file_location("make_trust", DOCS / "make_trust.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["trust.md", "road.md"])
def test_the_numbers_in_the_pages_are_up_to_date(make: ModuleType, page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text.count("<!-- measured: ") > 1
    assert make.filled(text) == text, "run: python docs/make_trust.py --tables"


def test_measurements_of_one_image_are_reproduced(make: ModuleType) -> None:
    rows, (differences, *_) = make.measured.read()
    model = camanim.load_model("demo/ultrasound")
    name = differences["sample"]
    result = camanim.animate(model, samples.image(name))
    assert differences["labels"] == [layer.label for layer in result.layers]
    ties = make.measured.ties(result)
    for side in ("MoRF", "LeRF"):
        np.testing.assert_allclose(ties[side], differences["ties"][side], atol=0.1)
    [row] = [row for row in rows if row["image"] == name]
    localisation = result.localise(samples.mask(name))
    precision = localisation.average_precision
    assert row["mask's best"] == localisation.best.label
    assert row["mask's best, AP"] == pytest.approx(np.nanmax(precision), abs=1e-3)
    assert row["last, AP"] == pytest.approx(precision[-1], abs=1e-3)
    assert row["random, AP"] == pytest.approx(np.nanmean(precision), abs=1e-3)
    assert row["share"] == pytest.approx(localisation.share, abs=1e-4)


def test_the_table_holds_means_of_all_phantoms(make: ModuleType) -> None:
    rows, _ = make.measured.read()
    phantoms = [row for row in rows if row["network"] == "demo/ultrasound"]
    assert len({row["image"] for row in phantoms}) == len(phantoms) >= 36
    first = next(line for line in make.agreement_table(rows).splitlines() if "mask's" in line)
    mean = sum(row["mask's best, AP"] for row in phantoms) / len(phantoms)
    assert first.split(" | ")[1] == f"{mean:.2f}"


def test_statements_without_numbers_hold(make: ModuleType) -> None:
    groups = make.groups(make.measured.read()[0])
    phantoms = next(iter(groups.values()))
    photographs = [groups[name] for name in make.measured.PHOTOGRAPHS]

    def ap(part, choice: str) -> float:
        return make.mean(part, f"{choice}, AP")

    assert all(row["rho"] > 0 for part in (phantoms, *photographs) for row in part)
    assert 2 * ap(phantoms, "random") < ap(phantoms, "highest excess") < ap(phantoms, "mask's best")
    assert ap(phantoms, "last") < ap(phantoms, "highest excess")
    assert abs(ap(phantoms, "highest excess") - ap(phantoms, "highest score")) < 0.03
    assert sum(row["highest excess"] == row["mask's best"] for row in phantoms) < len(phantoms) / 4
    for part in photographs:
        assert ap(part, "highest excess") < ap(part, "last")


def test_figures_of_the_pages_are_small(make: ModuleType) -> None:
    pictures = [*make.IMAGES.glob("trust-*.png"), *make.IMAGES.glob("road-*.png")]
    assert len(pictures) >= 9
    assert {p.name: p.stat().st_size for p in pictures if p.stat().st_size > 150_000} == {}
