"""Plots: what is drawn is what was measured, and nothing is written where there is nothing to say."""

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
    """Make an animation that has no network and no scores yet."""
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
    """Make scores of which the third is undefined and the last stands alone."""
    random = np.random.default_rng(0)
    shape = (repeats, len(layers), 4)
    # The gap between both grows from layer to layer: the last has the highest score.
    gap = np.linspace(0.1, 0.4, len(layers))[None, :, None]
    morfs = 0.4 - gap / 2 + random.uniform(0, 0.02, shape)
    lerfs = 0.4 + gap / 2 + random.uniform(0, 0.02, shape)
    undefined: list[str | None] = [None] * len(layers)
    if len(layers) > 4:
        morfs[:, [2, 4]] = lerfs[:, [2, 4]] = NAN
        undefined[2] = undefined[4] = "constant map"
    chance = random.normal(0.02, 0.01, (len(layers), draws))
    if draws:
        # The last layer is no better than chance, so that the one before it is the best.
        chance[-1] += 0.2
    return Road(
        layers=layers,
        percentiles=(20, 40, 60, 80),
        morfs=morfs,
        lerfs=lerfs,
        probability=0.9,
        undefined=tuple(undefined),
        chance=chance,
        forwards=0,
        seed=0,
        noise=0.01,
    )


def scored(count: int = COUNT, **options) -> Animation:
    made = animation(count)
    made.add(road(made.layers, **options))
    return made


def localised(made: Animation) -> Localisation:
    """Make an agreement with a mask in which every number is another one."""
    count = len(made)
    values = np.linspace(0.1, 0.8, 3 * count).reshape(3, count)
    values[:, 1] = NAN
    pointing = np.arange(count) % 2.0
    pointing[1] = NAN
    reasons = tuple("constant map" if i == 1 else None for i in range(count))
    return Localisation(made.layers, pointing, *values, share=0.25, undefined=reasons)


def randomised(made: Animation, **options) -> Randomisation:
    spearman = np.linspace(0.9, -0.2, 4 * len(made)).reshape(4, len(made))
    spearman[1, 0] = NAN
    steps = ("fc", "layer4", "layer3", "layer2")
    return Randomisation(made.layers, steps, spearman, spearman / 2, 0.5, 0, **options)


def lines(figure: Figure, axes: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the lines of a plot, by what the legend calls them."""
    found = figure.axes[axes].get_lines()
    return {
        str(line.get_label()): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata(), float))
        for line in found
    }


def bands(figure: Figure, axes: int = 0) -> dict[str, list[tuple[float, float, float]]]:
    """Read the bands of a plot: place, lower and upper end."""
    found = {}
    for band in figure.axes[axes].collections:
        points = np.concatenate([path.vertices for path in band.get_paths()])
        places = np.unique(points[:, 0])
        found[str(band.get_label())] = [
            (x, points[points[:, 0] == x, 1].min(), points[points[:, 0] == x, 1].max())
            for x in places
        ]
    return found


def said(figure: Figure) -> str:
    """All words of a figure."""
    figure.draw_without_rendering()
    texts = [figure.get_suptitle()]
    for axes in figure.axes:
        texts += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title("left")]
        if legend := axes.get_legend():
            texts += [text.get_text() for text in legend.get_texts()]
    return "\n".join(texts)


# Scores ---------------------------------------------------------------------------------------


def test_scores_spread_and_chance_are_drawn_where_they_are() -> None:
    made = scored()
    assert made.road is not None
    figure = plot(made)
    x, y = lines(figure)["ROAD"]
    # By hand: mean over percentiles and repeats of half the difference.
    by_hand = ((made.road.lerfs - made.road.morfs) / 2).mean(axis=2)
    assert x.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(y, by_hand.mean(axis=0))
    np.testing.assert_allclose(lines(figure)["chance"][1], made.road.chance.mean(axis=1))
    spread = by_hand.std(axis=0, ddof=1)
    drawn = bands(figure)["± SD of 3 repeats"]
    for place, low, high in drawn:
        i = round(place) - 1
        assert (low, high) == pytest.approx((y[i] - spread[i], y[i] + spread[i]))
    # Nothing is drawn across a layer that has no score.
    assert {place for place, *_ in drawn} == {1, 2, 4, 6}
    for place, low, high in bands(figure)["95 % of chance"]:
        i = round(place) - 1
        if np.isfinite(y[i]):
            assert (high - low) / 2 == pytest.approx(made.road.margin[i])


def test_a_layer_between_two_without_scores_has_a_dot() -> None:
    made = animation(5)
    made.add(road(made.layers))
    undefined = np.array([False, True, False, True, False])
    for values in (made.road.morfs, made.road.lerfs):
        values[:] = 0.5
        values[:, undefined] = NAN
    [dots] = [line for line in plot(made).axes[0].get_lines() if line.get_marker() == "."]
    assert np.asarray(dots.get_xdata()).tolist() == [1, 3, 5]


def test_best_is_by_excess_and_the_highest_score_has_a_mark_of_its_own() -> None:
    made = scored()
    assert made.road is not None
    marks = {label.partition(":")[0][2:]: x for label, (x, _) in lines(plot(made)).items()}
    assert marks["best"].tolist() == [4]
    assert marks["highest score"].tolist() == [6]
    alone = lines(plot(scored(draws=0)))
    assert [label for label in alone if label.startswith("★ best: layer5.conv")]
    assert not any("highest" in label or "chance" in label for label in alone)


def test_it_is_said_where_no_layer_is_above_chance_or_none_has_a_score() -> None:
    made = scored()
    assert made.road is not None
    made.add(replace(made.road, chance=made.road.chance + 1))
    assert "no layer is above chance" in said(plot(made))
    made.add(replace(made.road, morfs=made.road.morfs * NAN))
    assert "no layer has a score" in said(plot(made))


def test_agreement_with_a_mask_is_drawn_below_or_alone() -> None:
    made = scored()
    made.add(localised(made))
    figure = plot(made)
    assert [axes.get_ylabel() for axes in figure.axes] == ["ROAD", "agreement with the mask"]
    drawn = lines(figure, 1)
    for key, name in {
        "average_precision": "average precision",
        "energy": "energy inside",
        "iou": "IoU",
    }.items():
        np.testing.assert_array_equal(drawn[name][1], getattr(made.localisation, key))
    assert drawn["peak inside"][0].tolist() == [4, 6]
    assert drawn["chance (0.25)"][1].tolist() == [0.25, 0.25]
    assert drawn["★ best: layer5.conv (0.80)"][0].tolist() == [6]
    made.findings.pop("road", None)
    assert [axes.get_ylabel() for axes in plot(made).axes] == ["agreement with the mask"]


def test_one_layer_can_be_pointed_at() -> None:
    without, pointed = plot(scored()), plot(scored(), layer=3)
    fresh = pointed.axes[0].get_lines()[-1]
    assert len(pointed.axes[0].get_lines()) == len(without.axes[0].get_lines()) + 1
    assert list(fresh.get_xdata()) == [4, 4]


def test_long_names_do_not_squeeze_the_axes(tmp_path) -> None:
    made = scored()
    made.add(localised(made))
    made.add(randomised(made))
    widths = []
    for name in ("x", "W" * 300):
        made.layers = [replace(layer, name=name) for layer in made.layers]
        made.add(road(made.layers))
        made.add(localised(made))
        for figure in (plot(made), plot(made, "removal"), plot(made, "randomisation", 0)):
            figure.draw_without_rendering()
            # But for the colour bar.
            widths.append(min(axes.get_position().width for axes in figure.axes[:2]))
    assert np.min(widths) > 0.65
    np.testing.assert_allclose(widths[:3], widths[3:], atol=0.01)


# Removal --------------------------------------------------------------------------------------


def test_removal_begins_at_the_image_itself_and_goes_by_the_share_removed() -> None:
    made = scored()
    assert made.road is not None
    figure = plot(made, "removal", 1)
    for name, values in {
        "least relevant first (LeRF)": made.road.lerfs,
        "most relevant first (MoRF)": made.road.morfs,
    }.items():
        x, y = lines(figure)[name]
        assert x.tolist() == [0, 20, 40, 60, 80]
        # Kept are 20, 40, 60, 80 %: the first that is removed is the last that is kept.
        np.testing.assert_allclose(y, [0.9, *values[:, 1, ::-1].mean(axis=0)])
    ends = sorted(
        (round(x), low, high) for each in figure.axes[0].collections for x, low, high in
        bands_of(each)
    )  # fmt: skip
    repeats = made.road.morfs[:, 1, 0]
    assert (80, pytest.approx(repeats.min()), pytest.approx(repeats.max())) in ends
    assert f"layer1.conv: ROAD {made.road.scores[1]:.2f}" in said(figure)


def bands_of(band) -> list[tuple[float, float, float]]:
    points = np.concatenate([path.vertices for path in band.get_paths()])
    places = np.unique(points[:, 0])
    return [(x, *(f(points[points[:, 0] == x, 1]) for f in (np.min, np.max))) for x in places]


def test_removal_is_of_the_best_layer_unless_told() -> None:
    assert "layer3.conv: ROAD" in said(plot(scored(), "removal"))


# Randomisation --------------------------------------------------------------------------------


def test_randomisation_shows_the_median_and_every_layer() -> None:
    made = animation()
    made.add(randomised(made))
    figure = plot(made, "randomisation")
    x, y = lines(figure)["Spearman"]
    assert x.tolist() == [0, 1, 2, 3, 4]
    assert y[0] == 1
    rows = [np.median(row[~np.isnan(row)]) for row in made.randomisation.spearman]
    np.testing.assert_allclose(y[1:], rows)
    [matrix] = [image for axes in figure.axes for image in axes.get_images()]
    values = np.ma.filled(matrix.get_array().astype(float), NAN)
    np.testing.assert_array_equal(values, made.randomisation.spearman)
    assert (matrix.norm.vmin, matrix.norm.vmax) == (-1, 1)
    # The first step on top, the first layer at the left.
    assert list(matrix.get_extent()) == [0.5, 6.5, 4.5, 0.5]
    assert made.randomisation.verdict in " ".join(said(figure).splitlines())
    assert "median of the layers, and quartiles" in said(figure)
    assert "layer2.conv" in said(plot(made, "randomisation", 2))
    single = lines(plot(made, "randomisation", 2))["Spearman"][1]
    np.testing.assert_allclose(single[1:], made.randomisation.spearman[:, 2])


def test_a_method_that_fails_a_check_says_so_on_every_plot() -> None:
    made = scored()
    same = np.ones((1, COUNT))
    made.add(LabelRandomisation(made.layers, ("dog",), same, 0.9, method="EigenCAM"))
    made.add(Randomisation(made.layers, ("fc",), same, same, 0.5, 0))
    for what in ("scores", "removal", "randomisation"):
        words = " ".join(said(plot(made, what)).splitlines())
        assert words.count("FAILS the randomisation check") == 1
        assert words.count("FAILS the label check") == 1
    made.add(replace(made.labels, spearman=same / 2))
    assert "label check" not in said(plot(made))


# Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "starts"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".SVG", b"<?xml")]
)
def test_a_file_is_of_its_kind(tmp_path, suffix, starts) -> None:
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
    made = animation(name=name)
    made.layers = [replace(layer, name=name) for layer in made.layers]
    made.add(road(made.layers))
    made.add(localised(made))
    made.add(randomised(made, method=name))
    for what in ("scores", "removal", "randomisation"):
        made.write_plot(tmp_path / "plot.png", what)
    assert [str(w.message) for w in recwarn if "Glyph" in str(w.message)] == []


@pytest.mark.parametrize("count", [1, 2, 400])
def test_any_number_of_layers_can_be_drawn(tmp_path, count) -> None:
    made = scored(count)
    made.add(localised_all(made))
    made.add(randomised(made))
    for what in ("scores", "removal", "randomisation"):
        made.write_plot(tmp_path / "plot.png", what)


def localised_all(made: Animation) -> Localisation:
    half = np.full(len(made), 0.5)
    return Localisation(made.layers, half, half, half, half, 0.25, (None,) * len(made))


@pytest.mark.parametrize(
    ("what", "error", "says"),
    [
        ("scores", ScoreError, "score"),
        ("removal", ScoreError, "road"),
        ("randomisation", ScoreError, "randomisation"),
        ("curve", RenderError, '"scores", "removal", "randomisation"'),
    ],
)
def test_what_is_not_there_is_told(tmp_path, what, error, says) -> None:
    with pytest.raises(error, match=says):
        animation().write_plot(tmp_path / "plot.png", what)
    assert list(tmp_path.iterdir()) == []


def test_wrong_paths_and_layers_are_told(tmp_path, monkeypatch) -> None:
    made = scored()
    for name, says in {
        "plot.jpg": "must end in .png, .pdf or .svg",
        "plot": "must end in",
        "nowhere/plot.png": "no folder",
    }.items():
        with pytest.raises(RenderError, match=says):
            made.write_plot(tmp_path / name)
    with pytest.raises(ScoreError, match=r"layer2.conv has no ROAD score \(constant map\)"):
        made.write_plot(tmp_path / "plot.png", "removal", 2)
    for layer in (-1, 6):
        with pytest.raises(IndexError, match="0 to 5"):
            made.write_plot(tmp_path / "plot.png", layer=layer)

    def fail(self, path, **options) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(RenderError, match="No space left"):
        made.write_plot(tmp_path / "plot.png")
    assert list(tmp_path.iterdir()) == []


def test_a_plot_leaves_matplotlib_as_it_was(tmp_path) -> None:
    """In a process of its own, as other tests may have loaded pyplot."""
    code = (
        "import sys; sys.path.insert(0, 'tests/camanim')\n"
        "import test_plots\n"
        "sys.modules.pop('matplotlib.pyplot', None)\n"
        "from matplotlib import rcParams\n"
        # Asking for the backend would load pyplot.
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


# The pages about trust ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """The script that fills in their numbers."""
    spec = importlib.util.spec_from_file_location("make_trust", DOCS / "make_trust.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["trust.md", "road.md"])
def test_numbers_on_the_pages_are_those_measured(make: ModuleType, page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text.count("<!-- measured: ") > 1
    assert make.filled(text) == text, "run: python docs/make_trust.py --tables"


def test_what_was_measured_is_what_comes_out(make: ModuleType) -> None:
    """The part of the measurements that takes one pass through the demo network."""
    rows, differences = make.measured.read()
    model = camanim.load_model("demo/ultrasound")
    name = differences["sample"]
    made = camanim.animate(model, samples.image(name))
    assert differences["labels"] == [layer.label for layer in made.layers]
    ties = make.measured.ties(made)
    for side in ("MoRF", "LeRF"):
        np.testing.assert_allclose(ties[side], differences["ties"][side], atol=0.1)
    [row] = [row for row in rows if row["image"] == name]
    found = made.localise(samples.mask(name))
    assert row["mask's best"] == found.best.label
    assert row["mask's best, AP"] == pytest.approx(np.nanmax(found.average_precision), abs=1e-3)
    assert row["last, AP"] == pytest.approx(found.average_precision[-1], abs=1e-3)
    assert row["random, AP"] == pytest.approx(np.nanmean(found.average_precision), abs=1e-3)
    assert row["share"] == pytest.approx(found.share, abs=1e-4)


def test_enough_was_measured_and_the_table_is_its_mean(make: ModuleType) -> None:
    rows, _ = make.measured.read()
    phantoms = [row for row in rows if row["network"] == "demo/ultrasound"]
    assert len({row["image"] for row in phantoms}) == len(phantoms) >= 36
    first = next(line for line in make.agreement_table(rows).splitlines() if "mask's" in line)
    by_hand = sum(row["mask's best, AP"] for row in phantoms) / len(phantoms)
    assert first.split(" | ")[1] == f"{by_hand:.2f}"


def test_what_the_page_says_of_the_measurements_holds(make: ModuleType) -> None:
    """The words below the table, which have no numbers."""
    phantoms, *photographs = make.groups(make.measured.read()[0]).values()

    def ap(part, choice: str) -> float:
        return make.mean(part, f"{choice}, AP")

    assert all(row["rho"] > 0 for part in (phantoms, *photographs) for row in part)
    assert 2 * ap(phantoms, "random") < ap(phantoms, "ROAD's best") < ap(phantoms, "mask's best")
    assert ap(phantoms, "last") < ap(phantoms, "ROAD's best")
    assert abs(ap(phantoms, "ROAD's best") - ap(phantoms, "highest score")) < 0.03
    assert sum(row["ROAD's best"] == row["mask's best"] for row in phantoms) < len(phantoms) / 4
    for part in photographs:
        assert ap(part, "ROAD's best") < ap(part, "last")


def test_figures_of_the_pages_are_small(make: ModuleType) -> None:
    pictures = [*make.IMAGES.glob("trust-*.png"), *make.IMAGES.glob("road-*.png")]
    assert len(pictures) >= 9
    assert {p.name: p.stat().st_size for p in pictures if p.stat().st_size > 150_000} == {}
