"""Figures for print: what is drawn, captions, files, and the results that they refuse."""

from __future__ import annotations

import re
import threading
import tracemalloc
import xml.etree.ElementTree as ET
import zlib
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image
from torch import nn
from torch.nn import functional

import camanim
from camanim import figures, pipeline
from camanim.animation import Animation, as_animation
from camanim.errors import (
    CamError,
    Cancelled,
    LayerError,
    RenderError,
    ScoreError,
    SettingError,
)
from camanim.figures import PrintedFigure, figure_kinds, make_figure
from camanim.figures.page import Page, fitted, width_of, wrapped
from camanim.figures.picking import percentiles, pick
from camanim.images import Geometry
from camanim.layer_info import LayerInfo, Status
from camanim.render import plots
from camanim.render.overlay import Thumbnails, lookup_table
from camanim.road import Road
from camanim.road.measures import Measure
from camanim.targets import ClassTarget, Counterfactual

DOCS = Path(__file__).parents[2] / "docs"
STEM = "features.{}.conv"
LONG = "features.denseblock{}.denselayer16.layers.convolution_of_the_bottleneck"


def result(
    count: int = 6,
    *,
    maps: list[np.ndarray] | None = None,
    method: str = "GradCAM",
    name: str = "Egyptian cat",
    network: str = "torchvision/mobilenet_v2",
    layer: str = STEM,
    image: np.ndarray | None = None,
    probability: float = 0.7312,
    seed: int = 0,
    scores: bool = False,
    **provenance,
) -> Animation:
    """Return a result of random maps without a network, that cover the image."""
    random = np.random.default_rng(seed)
    if image is None:
        rows, columns = np.mgrid[:90, :120]
        image = np.stack([rows * 2, columns * 2, rows + columns], axis=-1).astype(np.uint8)
    if maps is None:
        maps = [random.normal(size=(2 + i % 5, 3 + i % 4)).astype(np.float32) for i in range(count)]
    layers = [
        LayerInfo(
            i, layer.format(i), 0, "Conv2d", (1, 8, *m.shape), 10 * (i + 1) ** 2,
            None, Status.OK, 0.1 * (i + 1), "NCHW",
        )
        for i, m in enumerate(maps)
    ]  # fmt: skip
    target = ClassTarget(3, name)
    size = (64,) * maps[0].ndim
    scale = tuple(side / 64 for side in image.shape[: len(size)])
    made = Animation(
        maps=maps,
        layers=layers,
        layer_calls=layers,
        method=method,
        target=Counterfactual(target) if provenance.get("counterfactual") else target,
        probability=probability,
        image=image,
        geometry=Geometry(size, scale),
        tensor=torch.zeros(1, 3, *size),
        model=None,  # type: ignore[arg-type]
        provenance={"model": network, "seed": 7, **provenance},
    )
    if scores:
        values = random.uniform(-0.1, 0.6, (1, len(maps), 4))
        made.add(
            Road(
                layers,
                percentiles=(20.0, 40.0, 60.0, 80.0),
                morfs=0.7 - values,
                lerfs=0.7 - values / 5,
                probability=probability,
                undefined=(None,) * len(maps),
                random_scores=random.normal(0, 0.02, (len(maps), 8)),
                forwards=0,
                seed=5,
                noise=0.01,
            )
        )
    return made


def one_dimensional() -> Animation:
    """Return a result with a convolution and two fully connected layers."""
    units = np.zeros((1, 50), np.float32)
    units[0, 10], units[0, 40] = 2.0, -4.0
    made = result(maps=[np.ones((3, 4), np.float32), units, np.ones((1, 7), np.float32)])
    made.layers = [
        info if m.shape[0] > 1 else info.with_layout("stripes")
        for info, m in zip(made.layers, made.maps, strict=True)
    ]
    return made


def with_guided(made: Animation) -> Animation:
    made.guided = torch.from_numpy(
        np.random.default_rng(1).normal(size=(1, 3, 64, 64)).astype(np.float32)
    )
    return made


def examples(**more) -> dict[str, list[Animation]]:
    """Return results for every figure."""
    methods = [result(method=m, seed=k, **more) for k, m in enumerate(("GradCAM", "LayerCAM"))]
    classes = [
        result(name=n, probability=p, seed=k, **more)
        for k, (n, p) in enumerate((("tabby", 0.1), ("Egyptian cat", 0.5), ("lynx", 0.0021)))
    ]
    scored = result(scores=True, **more)
    against = result(seed=4, counterfactual=True, **more)
    return {
        "strip": methods,
        "sheet": [result(**more)],
        "stages": methods,
        "matrix": methods,
        "local_global": [result(**more)],
        "classes": classes,
        "counterfactual": [result(**more), against],
        "guided": [*methods, with_guided(result(method="Guided backpropagation", **more))],
        "one_d": [one_dimensional()],
        "curve": [scored],
        "removal": [scored],
        "parameters": [result(**more)],
        "panel": [scored],
    }


def drawn(name: str, given: list[Animation], **settings) -> PrintedFigure:
    return given[0].figure(name, *given[1:], **settings)


def pictures(figure: PrintedFigure) -> dict[str, np.ndarray]:
    """Return all pictures in a figure, by the labels of their artists."""
    found = figure.figure.findobj(AxesImage)
    return {str(each.get_label()): np.asarray(each.get_array()) for each in found}


def texts(figure: PrintedFigure) -> list[Text]:
    """Return all visible texts that are not empty, of visible axes."""
    # The canvas of a new figure draws nothing.
    FigureCanvasAgg(figure.figure).draw()
    outside = {
        label
        for axes in figure.figure.axes
        if axes.axison
        for axis, at in ((axes.xaxis, 0), (axes.yaxis, 1))
        for label in axis.get_ticklabels(which="both")
        if not min(axis.get_view_interval())
        <= label.get_position()[at]
        <= max(axis.get_view_interval())
    }
    shown = []
    for text in figure.figure.findobj(Text):
        axes = text.axes
        # Axes that are switched off show neither ticks nor labels.
        hidden = axes is not None and not axes.axison and text not in axes.texts
        if text.get_visible() and text.get_text().strip() and not hidden and text not in outside:
            shown.append(text)
    return shown


def words(figure: PrintedFigure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


ALL = pytest.mark.parametrize("name", list(examples()))


def test_every_registered_figure_has_an_example() -> None:
    assert set(examples()) == set(figure_kinds())


# What is drawn --------------------------------------------------------------------------------


def test_a_drawn_map_has_the_colours_of_its_normalised_values() -> None:
    made = result()
    figure = made.figure("sheet", colormap="viridis", opacity=1.0)
    colors = lookup_table("viridis")
    for layer, raw in zip(made.layers, made.maps, strict=True):
        picture = pictures(figure)[f"GradCAM, Egyptian cat: {layer.label}"]
        unit = torch.from_numpy(np.maximum(raw, 0) / raw.max())[None, None]
        large = functional.interpolate(unit, picture.shape[:2], mode="bilinear")[0, 0].numpy()
        levels = 255 * large
        low, high = (colors[np.clip(f(levels), 0, 255).astype(int)] for f in (np.floor, np.ceil))
        # A value between two of the 256 colours may be rounded either way.
        near = np.minimum(
            np.abs(picture.astype(int) - low).max(-1), np.abs(picture.astype(int) - high).max(-1)
        )
        assert near.max() <= 1


def test_maps_are_over_the_image_in_grey() -> None:
    made = result(maps=[np.zeros((4, 4), np.float32)])
    [picture] = [p for n, p in pictures(made.figure("sheet", opacity=0.5)).items() if "conv" in n]
    shown = Image.fromarray(made.image).convert("L").resize(picture.shape[1::-1])
    # The lowest colour of inferno is nearly black.
    assert np.abs(picture.mean(axis=-1) - np.asarray(shown) / 2).max() < 6
    assert np.ptp(picture.astype(int), axis=-1).max() <= 3
    colored = pictures(made.figure("sheet", opacity=0.5, grey=False))
    assert (
        np.ptp(next(p for n, p in colored.items() if "conv" in n).astype(int), axis=-1).max() > 20
    )


def test_on_the_global_scale_maps_are_shares_of_the_highest_of_all() -> None:
    flat = [np.array([[0.0, v]], np.float32) for v in (1.0, 2.0, 4.0)]
    figure = result(maps=flat).figure("sheet", normalization="global", opacity=1.0, colormap="gray")
    brightest = [int(p.max()) for n, p in pictures(figure).items() if "conv" in n]
    assert np.abs(np.array(brightest) - 255 * np.array([0.25, 0.5, 1.0])).max() <= 1
    assert "4" in words(figure).split()
    assert "global scale): 4." in figure.caption


def test_local_and_global_differ_in_the_scale_only() -> None:
    flat = [np.array([[0.0, v]], np.float32) for v in (1.0, 4.0)]
    figure = result(maps=flat).figure("local_global", opacity=1.0, colormap="gray")
    shown = figure.figure.findobj(AxesImage)
    brightest = [int(np.asarray(i.get_array()).max()) for i in shown if "conv" in i.get_label()]
    assert np.abs(np.array(brightest) - [255, 255, 63.75, 255]).max() <= 1


def test_the_colour_bar_begins_at_the_minimum_of_positive_maps() -> None:
    positive, mixed = np.array([[2.0, 5.0]], np.float32), np.array([[-1.0, 5.0]], np.float32)
    for maps, low, ends in (
        ([positive], "min. of each map", "2 5"),
        ([positive, mixed], "0 or min. of each map", "0 5"),
        ([mixed], "0", "0 5"),
    ):
        made = result(maps=maps)
        local = made.figure("sheet")
        assert low in words(local).split("\n")
        assert ("from 0 to" in local.caption) == (low == "0")
        common = made.figure("sheet", normalization="global")
        assert set(ends.split()) <= set(words(common).split("\n"))
    assert (
        "global scale): 2 to 5."
        in result(maps=[positive]).figure("sheet", normalization="global").caption
    )
    # The darkest and the brightest pixel are those of the two ends.
    picture = pictures(result(maps=[positive]).figure("sheet", opacity=1.0, colormap="gray"))
    shown = next(p for n, p in picture.items() if "conv" in n)
    assert (shown.min(), shown.max()) == (0, 255)
    # Layers that are not shown have no part in the local scale.
    assert "from 0 to" in result(maps=[positive, mixed]).figure("sheet", layers=1).caption


def test_constant_maps_are_marked_where_they_have_no_scale() -> None:
    made = result(maps=[np.full((3, 3), 2.0, np.float32), np.array([[0.0, 1.0]], np.float32)])
    figure = made.figure("sheet")
    assert words(figure).replace("\n", " ").count("constant map") == 1
    assert "constant map" in figure.caption
    common = made.figure("sheet", normalization="global")
    assert "constant" not in words(common) + common.caption
    assert "constant" not in words(made.figure("sheet", signed=True))
    ones = one_dimensional().figure("one_d")
    assert "constant: 1" in words(ones)


def test_a_signed_scale_ends_at_the_largest_absolute_value() -> None:
    maps = [np.array([[-2.0, 1.0]], np.float32), np.array([[-4.0, 1.0]], np.float32)]
    made = result(maps=maps)
    local = words(made.figure("sheet", signed=True)).split("\n")
    assert {"-max. |value|", "max. |value| of each map"} <= set(local)
    assert {"-4", "4"} <= set(
        words(made.figure("sheet", signed=True, normalization="global")).split("\n")
    )
    both = made.figure("local_global", signed=True)
    assert {"-max. |value|", "max. |value|"} <= set(words(both).split("\n"))
    assert "global, 4 raw" in both.caption


def test_the_caption_of_two_scales_is_true_for_both_rows() -> None:
    text = result().figure("local_global").caption
    assert "(local scale)" not in text
    assert "of each map (above) or of all maps (below)" in text
    assert "in the upper row is its raw maximum" in text


def test_signed_maps_have_zero_in_the_middle_of_the_colours() -> None:
    raw = np.array([[-2.0, 0.0, 1.0]], np.float32)
    figure = result(maps=[raw]).figure("sheet", signed=True, opacity=1.0, colormap="gray")
    row = next(p for n, p in pictures(figure).items() if "conv" in n)[0, :, 0]
    assert abs(int(row[0]) - 0) <= 1
    assert abs(int(row[len(row) // 2]) - 127.5) <= 1.5
    assert abs(int(row[-1]) - 191) <= 1.5


@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_a_map_without_positive_evidence_is_marked(value: float) -> None:
    made = result(maps=[np.full((3, 3), value, np.float32), np.ones((3, 3), np.float32)])
    figure = made.figure("sheet")
    assert words(figure).replace("\n", " ").count("no positive evidence") == 1
    signed = words(made.figure("sheet", signed=True)).replace("\n", " ")
    assert ("zero everywhere" in signed) == (value == 0)


@pytest.mark.parametrize("step", [0.5, 3, 10, 25, 33, 60, 100])
def test_percentiles_are_spread_over_the_layers(step: float) -> None:
    for count in range(1, 150):
        chosen = percentiles(count, step)
        indices = [i for _, i in chosen]
        expected = [round(p / 100 * (count - 1)) for p in np.arange(0, 100 + 1e-9, step)]
        assert indices == sorted(set(expected) | {count - 1})
        assert chosen[-1][0] == 100
        assert indices[0] == 0 or count == 1


def test_a_strip_shows_every_tenth_percentile() -> None:
    figure = result(41).figure("strip")
    labels = [n.rpartition(": ")[2] for n in pictures(figure) if "conv" in n]
    assert labels == [STEM.format(4 * k) for k in range(11)]
    assert "11 of 41 layers" in figure.caption
    assert [f"{10 * k} %" in words(figure) for k in range(11)] == [True] * 11


def test_layers_are_picked_by_name_index_or_percentile() -> None:
    layers = result(9).layers
    assert pick(layers, "features.3.conv") == [3]
    assert pick(layers, [2, -1, "50%", 2]) == [2, 8, 4]
    assert pick(layers, "0%, features.1.conv ,7") == [0, 1, 7]
    assert pick(layers, "", ("100%",)) == [8]
    with pytest.raises(LayerError, match="did you mean"):
        pick(layers, "features.3.con")
    with pytest.raises(LayerError, match="out of range"):
        pick(layers, 9)
    with pytest.raises(RenderError, match="layers by name"):
        result().figure("strip", layers=[None])


def test_a_method_without_a_map_of_a_layer_says_why() -> None:
    full, part = result(4), result(4, method="CAM")
    part.layer_calls = [info.with_status("no bias") for info in part.layers]
    part.maps, part.layers = part.maps[3:], part.layers[3:]
    for name in ("strip", "stages", "matrix"):
        figure = drawn(name, [full, part])
        assert "no bias" in words(figure)
        labels = [n for n in pictures(figure) if n.startswith("CAM")]
        assert labels == ["CAM, Egyptian cat: features.3.conv"]


def test_networks_have_their_own_layers_at_the_same_percentiles() -> None:
    first, second = result(21), result(5, network="demo/ultrasound", layer="block{}")
    figure = drawn("stages", [first, second])
    assert {n.rpartition(": ")[2] for n in pictures(figure)} >= {
        "features.0.conv", "features.10.conv", "features.20.conv", "block0", "block2", "block4"
    }  # fmt: skip
    strip = drawn("strip", [first, second])
    assert sum("block" in n for n in pictures(strip)) == 5


def placed(figure: PrintedFigure, text: str) -> list[float]:
    """Return the x of texts, from left to right."""
    return sorted(t.get_position()[0] for t in texts(figure) if t.get_text() == text)


def columns_of(figure: PrintedFigure, part: str) -> dict[str, float]:
    """Return the middle of pictures by the layer in their labels."""
    images = [i for i in figure.figure.findobj(AxesImage) if part in i.get_label()]
    return {i.get_label().rpartition(": ")[2]: sum(i.get_extent()[:2]) / 2 for i in images}


def test_in_a_matrix_networks_are_aligned_by_percentiles() -> None:
    given = [result(n, network=f"a/net{n}", layer=f"net{n}_{{}}") for n in (13, 18)]
    figure = drawn("matrix", given, rows="network", columns="layer")
    shown = [t for t in words(figure).split("\n") if t.endswith(" %")]
    assert shown == ["0 %", "25 %", "50 %", "75 %", "100 %"]
    for n in (13, 18):
        centres = columns_of(figure, f"net{n}_")
        for share in (0, 25, 50, 75, 100):
            [x] = placed(figure, f"{share} %")
            layer = f"net{n}_{round(share / 100 * (n - 1))}"
            assert centres[layer] == pytest.approx(x, abs=0.1)


def test_the_columns_of_a_matrix_are_ordered_where_a_network_has_few_layers() -> None:
    given = [result(n, network=f"a/net{n}", layer=f"net{n}_{{}}") for n in (3, 18)]
    figure = drawn("matrix", given, rows="network", columns="layer")
    at = [placed(figure, f"{share} %")[0] for share in (0, 25, 50, 75, 100)]
    assert at == sorted(at)
    small = columns_of(figure, "net3_")
    assert small == pytest.approx({"net3_0": at[0], "net3_1": at[2], "net3_2": at[4]}, abs=0.1)


def test_in_a_strip_picked_layers_of_networks_are_below_their_percentiles() -> None:
    given = [result(n, network=f"a/net{n}", layer=f"net{n}_{{}}") for n in (3, 41)]
    figure = drawn("strip", given, layers="0%,10%,100%")
    small, large = columns_of(figure, "net3_"), columns_of(figure, "net41_")
    at = {share: placed(figure, f"{share} %")[0] for share in (0, 10, 100)}
    assert small == pytest.approx({"net3_0": at[0], "net3_2": at[100]}, abs=0.1)
    assert large == pytest.approx(
        {"net41_0": at[0], "net41_4": at[10], "net41_40": at[100]}, abs=0.1
    )
    assert "up to 3 layers of each network" in figure.caption
    assert (
        " of up to 4 layers of each network"
        in drawn("strip", given, layers="0%,10%,50%,99%").caption
    )
    both = drawn("strip", given, layers="0%,100%")
    assert " of 2 layers of each network" in both.caption


def test_the_last_stage_is_the_final_one() -> None:
    two = result(2, network="a/two", layer="two{}")
    figure = two.figure("stages")
    assert {"initial", "final"} <= set(words(figure).split("\n"))
    assert "middle" not in words(figure)
    assert "middle" not in figure.caption
    assert "final" in words(result(1).figure("stages"))
    assert "initial" not in words(result(1).figure("stages"))
    both = drawn("stages", [two, result(9, network="a/nine", layer="nine{}")])
    assert {"initial", "middle", "final"} <= set(words(both).split("\n"))
    rows = {
        i.get_label().rpartition(": ")[2]: sum(i.get_extent()[2:]) / 2
        for i in both.figure.findobj(AxesImage)
        if ": " in i.get_label()
    }
    assert rows["two0"] == pytest.approx(rows["nine0"])
    assert rows["two1"] == pytest.approx(rows["nine8"])
    assert len(rows) == 5


def test_a_matrix_has_its_cells_where_their_names_are() -> None:
    pairs = [(n, c) for n in ("a/one", "a/two") for c in ("GradCAM", "LayerCAM", "EigenCAM")]
    given = [result(2, network=n, method=m, seed=k) for k, (n, m) in enumerate(pairs)]
    figure = drawn("matrix", given[::-1], rows="network", columns="method")
    height = figure.figure.get_figheight()
    placed = {}
    for image in figure.figure.findobj(AxesImage):
        if "conv" in image.get_label():
            placed[np.asarray(image.get_array()).tobytes()] = image.get_extent()
    assert len(placed) == 6
    centres = {
        text.get_text(): text.get_position() for text in texts(figure) if text.get_text() in
        ("one", "two", "GradCAM", "LayerCAM", "EigenCAM")
    }  # fmt: skip
    for made in given:
        alone = made.figure("matrix", rows="network", columns="method")
        [extent] = [
            e
            for pixels, e in placed.items()
            if abs(
                _resized(pixels, figure, placed) - made_levels(made)
            ).max() < 0.05
        ]  # fmt: skip
        column, row = centres[made.method][0], centres[made.provenance["model"][2:]][1]
        assert extent[0] < column < extent[1]
        assert extent[3] < row < extent[2]
        assert alone.caption
    assert height > 0


def _resized(pixels: bytes, figure: PrintedFigure, placed: dict) -> np.ndarray:
    """Return the red channel of a picture, sampled at 3 x 3 points."""
    [array] = [
        np.asarray(i.get_array())
        for i in figure.figure.findobj(AxesImage)
        if np.asarray(i.get_array()).tobytes() == pixels
    ]
    h, w = array.shape[:2]
    points = np.ix_([h // 6, h // 2, 5 * h // 6], [w // 6, w // 2, 5 * w // 6])
    return array[..., 0].astype(float)[points] / 255


def made_levels(made: Animation) -> np.ndarray:
    alone = made.figure("sheet", layers="100%", width=100)
    array = next(p for n, p in pictures(alone).items() if "conv" in n)
    h, w = array.shape[:2]
    points = np.ix_([h // 6, h // 2, 5 * h // 6], [w // 6, w // 2, 5 * w // 6])
    return array[..., 0].astype(float)[points] / 255


def test_classes_are_in_descending_order() -> None:
    figure = drawn("classes", examples()["classes"])
    order = [n.split(", ")[1].split(":")[0] for n in pictures(figure) if "conv" in n]
    assert order == ["Egyptian cat", "tabby", "lynx"]
    assert "0.0021" in words(figure)


def test_stripes_have_one_colour_for_each_unit() -> None:
    figure = one_dimensional().figure("one_d", colormap="gray")
    row = pictures(figure)["stripes: features.1.conv"][0, :, 0]
    assert len(row) == 50
    assert row[10] == 255
    assert np.delete(row, 10).max() == 0
    assert "unit 10" in words(figure)
    signed = pictures(one_dimensional().figure("one_d", colormap="gray", signed=True))
    assert signed["stripes: features.1.conv"][0, [40, 10], 0].tolist() == [0, 191]
    with pytest.raises(RenderError, match="show_1d"):
        result().figure("one_d")


def test_many_outputs_without_space_fit_a_page_or_are_refused() -> None:
    made = result(maps=[np.arange(5, dtype=np.float32)[None] + k for k in range(20)])
    made.layers = [info.with_layout("stripes") for info in made.layers]
    figure = made.figure("one_d")
    labels = [n.rpartition(": ")[2] for n in pictures(figure) if "stripes" in n]
    assert labels == [STEM.format(k) for k in range(20 - len(labels), 20)]
    assert f"The last {len(labels)} of 20 layers: " in figure.caption
    assert figure.figure.get_figheight() * 25.4 <= 240
    # One more would be too many.
    assert len(pictures(made.figure("one_d", layers=list(range(len(labels)))))) == len(labels) + 1
    with pytest.raises(RenderError, match=f"at most {len(labels)}"):
        made.figure("one_d", layers=list(range(len(labels) + 1)))


def test_many_units_keep_their_strongest() -> None:
    made = one_dimensional()
    units = np.full((1, 9000), 0.1, np.float32)
    units[0, 0], units[0, 8999] = 0, 1
    made.maps[1] = units
    row = pictures(made.figure("one_d", colormap="gray"))["stripes: features.1.conv"][0, :, 0]
    assert len(row) <= 2048
    assert row[-1] == 255
    assert set(row[:-1].tolist()) == {26}


def test_a_curve_is_that_of_the_scores() -> None:
    made = result(scores=True)
    axes = made.figure("curve").figure.axes[0]
    lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    assert np.allclose(lines["ROAD"], made.road.scores)
    assert np.allclose(lines["random maps"], made.road.baseline)
    both = [made, result(scores=True, seed=3, method="LayerCAM")]
    axes = drawn("curve", both).figure.axes[0]
    lines = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    assert np.allclose(lines["LayerCAM"], both[1].road.scores)


def measured(made: Animation, values: list[float], name: str = "deletion") -> Animation:
    count = len(values)
    made.add(
        Measure(
            made.layers,
            name,
            "blur",
            np.array(values),
            (None,) * count,
            (0.5,),
            np.zeros((count, 1)),
        )
    )
    return made


@pytest.mark.parametrize(("name", "side", "star"), [("deletion", 0, 0.1), ("insertion", 1, 0.9)])
def test_the_star_is_at_the_better_end(name: str, side: int, star: float) -> None:
    words_of_sides = ("lowest", "highest")
    one = measured(result(3), [0.5, 0.1, 0.6], name)
    other = measured(result(3, method="LayerCAM"), [0.3, 0.9, 0.4], name)
    figure = drawn("curve", [one, other], finding=f"{name} (blur)")
    axes = figure.figure.axes[0]
    stars = [line.get_ydata()[0] for line in axes.get_lines() if line.get_marker() == "*"]
    assert stars == [star]
    marks = [line.get_ydata()[0] for line in axes.get_lines() if line.get_marker() == "D"]
    assert marks == [(0.3, 0.6)[side]]
    assert f"the {words_of_sides[side]} value of each curve" in figure.caption
    assert words_of_sides[1 - side] not in figure.caption
    assert "best" not in figure.caption


def test_removal_curves_are_those_of_the_picked_layers() -> None:
    made = result(scores=True)
    figure = made.figure("removal", layers=[1, 4])
    for axes, i in zip(figure.figure.axes, (1, 4), strict=True):
        lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.get_lines()}
        [lerf] = [y for name, y in lines.items() if "LeRF" in name]
        assert np.allclose(lerf, [made.probability, *made.road.lerf[i][::-1]])
    assert "Seed of the removal: 5." in figure.caption


def test_a_layer_without_a_score_has_an_empty_panel() -> None:
    made = result(scores=True)
    road = made.road
    nan = road.morfs.copy()
    nan[:, 2] = np.nan
    undefined = tuple("constant map" if i == 2 else None for i in range(6))
    made.add(replace(road, morfs=nan, lerfs=nan, undefined=undefined))
    assert "constant map" in words(made.figure("removal", layers=[1, 2]))
    assert made.figure("panel", layers=[1, 2]).caption


def test_scores_that_are_all_undefined_have_no_curve() -> None:
    made = result(scores=True)
    nan = np.full_like(made.road.morfs, np.nan)
    made.add(replace(made.road, morfs=nan, lerfs=nan, undefined=("constant map",) * 6))
    with pytest.raises(ScoreError, match="no value"):
        made.figure("curve")
    assert "constant map" in words(made.figure("removal"))
    # The first curve with values takes its place.
    assert "ROAD over" not in made.figure("panel").caption


def test_parameters_and_times_are_those_of_the_layers() -> None:
    made = result()
    counts, times = [i.parameters for i in made.layers], [i.milliseconds for i in made.layers]
    upper, lower = made.figure("parameters").figure.axes
    assert np.allclose(upper.get_lines()[-1].get_ydata(), counts)
    assert np.allclose(lower.get_lines()[-1].get_ydata(), times)
    [axes] = made.figure("parameters", scatter=True).figure.axes
    assert np.allclose(axes.get_lines()[-1].get_xydata(), np.column_stack([counts, times]))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    # Ranks agree, as both increase with depth.
    assert "1.00 (6 layers)" in made.figure("parameters", scatter=True).caption


def test_a_result_without_parameters_and_times_has_no_plot_of_them() -> None:
    made = result()
    made.layers = [replace(info, parameters=0, milliseconds=0.0) for info in made.layers]
    for scatter in (False, True):
        with pytest.raises(RenderError, match="parameters"):
            made.figure("parameters", scatter=scatter)


def test_letters_mark_the_picked_layers_on_the_curve() -> None:
    made = result(scores=True)
    figure = made.figure("panel", layers=[4, 0])
    axes = next(a for a in figure.figure.axes if a.get_ylabel() == "ROAD")
    marks = [line.get_xydata()[0] for line in axes.get_lines() if line.get_label() == "_picked"]
    assert np.allclose(
        sorted(marks, key=lambda m: m[0]), [(1, made.road.scores[0]), (5, made.road.scores[4])]
    )
    letters = {t.get_text(): t.xy[0] for t in axes.texts if t.get_text() in "AB"}
    assert letters == {"A": 5, "B": 1}
    assert "A: features.4.conv, B: features.0.conv" in figure.caption


# Text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [85.0, 174.0])
@ALL
def test_text_is_legible_and_on_the_page(name: str, width: float) -> None:
    for more in ({}, {"layer": LONG, "count": 30}):
        figure = drawn(name, examples(**more)[name], width=width)
        assert figure.figure.get_figwidth() == pytest.approx(width / 25.4)
        page = figure.figure.bbox
        shown = texts(figure)
        assert min(text.get_fontsize() for text in shown) >= 6
        boxes = [text.get_window_extent() for text in shown]
        for text, box in zip(shown, boxes, strict=True):
            assert box.x0 >= page.x0 - 1, text
            assert box.y0 >= page.y0 - 1, text
            assert box.x1 <= page.x1 + 1, text
            assert box.y1 <= page.y1 + 1, text


@pytest.mark.parametrize("width", [85.0, 174.0])
@pytest.mark.parametrize(
    "name", ["strip", "sheet", "stages", "matrix", "classes", "guided", "one_d", "counterfactual"]
)
def test_texts_do_not_overlap(name: str, width: float) -> None:
    figure = drawn(name, examples(layer=LONG, count=12)[name], width=width)
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for k, (one, a) in enumerate(boxes):
        for other, b in boxes[:k]:
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            along = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across <= 1 or along <= 1, (one, other)


def test_text_is_broken_and_shortened_to_its_width() -> None:
    name = LONG.format(3)
    for width in (10.0, 20.0, 60.0):
        assert width_of(fitted(name, width), 6) <= width
        lines = wrapped(name, width, 6, 3)
        assert len(lines) <= 3
        assert all(width_of(line, 6) <= width for line in lines)
    assert "".join(wrapped(name, 40.0, 6, 4)) == name
    assert wrapped("", 10.0) == [""]


@ALL
def test_captions_name_network_method_class_probability_and_seed(name: str) -> None:
    given = examples()[name]
    text = drawn(name, given).caption
    for each in given:
        assert each.provenance["model"] in text
        assert each.method in text
        assert each.target.name in text
        value = f"{each.probability:.2f}" if each.probability > 0.005 else "0.0021"
        assert f"probability {value}" in text
    assert "Seed: 7." in text
    assert "\n" not in text
    assert text.endswith(".")


def test_captions_pass_warnings_on() -> None:
    made = result(scores=True, weights="random")
    made.notes = ["The device's memory ran out: computed on the CPU."]
    made.layer_calls = [*made.layers, made.layers[0].with_status(Status.CANCELLED)]

    class Failed(Road):
        kind = "failed"

        def warnings(self) -> tuple[str, ...]:
            return ("The check failed.",)

    made.add(Failed(**vars_of(made.road)))
    text = made.figure("strip").caption
    for part in ("random weights", "computed on the CPU", "The check failed.", "cancelled"):
        assert part in text


def vars_of(road: Road) -> dict:
    from dataclasses import fields

    return {f.name: getattr(road, f.name) for f in fields(road) if f.name != "parameters"}


def test_scores_are_not_called_probabilities() -> None:
    made = result(probability=31.456)
    made.target = ClassTarget(0, "age", kind="values")
    assert "age (score 31.46)" in made.figure("strip").caption


def test_small_probabilities_are_not_zero() -> None:
    made = result(probability=0.0021)
    assert "probability 0.0021" in made.figure("strip").caption
    assert "Egyptian cat 0.0021" in made.caption(0)


# Other results --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["strip", "sheet", "stages", "matrix", "local_global", "guided"])
def test_volumes_show_one_plane(name: str) -> None:
    random = np.random.default_rng(0)
    maps = [random.normal(size=(4, 3, 5)).astype(np.float32) for _ in range(3)]
    image = random.integers(0, 256, (8, 30, 40)).astype(np.uint8)
    given = [result(maps=maps, image=image)]
    if name == "guided":
        given.append(result(maps=maps, image=image, method="Guided backpropagation"))
        given[1].guided = torch.randn(1, 1, 64, 64, 64)
    middle, first = (pictures(drawn(name, given, **s)) for s in ({}, {"z": 0}))
    assert any((middle[key] != first[key]).any() for key in middle)
    alone = as_animation(given[0].plane(0))
    if name != "guided":
        expected = pictures(drawn(name, [alone]))
        assert all((first[key] == expected[key]).all() for key in expected)
    with pytest.raises(CamError, match="planes"):
        drawn(name, given, z=8)


def test_the_caption_of_a_volume_names_the_plane() -> None:
    maps = [np.zeros((4, 3, 5), np.float32)]
    maps[0][0] = 1 + np.arange(5)
    image = np.zeros((8, 30, 40), np.uint8)
    made = result(maps=maps, image=image)
    for z, shown in ((None, 4), (0, 0), (-1, 7)):
        figure = made.figure("strip", z=z)
        assert f"Plane {shown} of the planes 0 to 7" in figure.caption
        assert "those of the whole volume" in figure.caption
        # The evidence is in the first planes only, and the number is that of the volume.
        assert ("no positive evidence" in words(figure).replace("\n", " ")) == (shown != 0)
        assert ("without positive evidence" in figure.caption) == (shown != 0)
        assert "5" in words(figure).split("\n")
    alone = as_animation(made.plane(0)).figure("strip")
    assert "A plane of a volume" in alone.caption
    assert "lane" not in result().figure("strip").caption
    assert "Plane 4 of" in drawn("local_global", [made]).caption


def test_guided_figures_take_slices_and_refuse_planes() -> None:
    random = np.random.default_rng(0)
    maps = [random.normal(size=(1, 3, 5)).astype(np.float32)]
    slices = result(maps=maps, image=np.zeros((1, 30, 40), np.uint8))
    slices.geometry = Geometry((1, 64, 64), (1.0, 30 / 64, 40 / 64))
    by_slices = replace(slices, method="Guided backpropagation", guided=torch.randn(1, 3, 64, 64))
    assert drawn("guided", [slices, by_slices]).caption
    maps = [random.normal(size=(4, 3, 5)).astype(np.float32)]
    volume = result(maps=maps, image=np.zeros((8, 30, 40), np.uint8))
    guided = replace(volume, method="Guided backpropagation", guided=torch.randn(1, 1, 64, 64, 64))
    assert drawn("guided", [volume, guided]).caption
    planes = [as_animation(made.plane(0)) for made in (volume, guided)]
    for given in (planes, [volume, planes[1]], [planes[0], guided]):
        with pytest.raises(RenderError, match="volume"):
            drawn("guided", given)


@pytest.mark.parametrize("draw", [lambda made: made.figure("sheet"), Thumbnails])
def test_large_images_are_reduced_before_they_are_grey(draw) -> None:
    image = np.zeros((2048, 2048, 3), np.uint8)
    made = result(1, image=image)
    tracemalloc.start()
    try:
        draw(made)
        assert tracemalloc.get_traced_memory()[1] < image.nbytes
    finally:
        tracemalloc.stop()


def test_a_window_result_is_drawn() -> None:
    demo = camanim.load_model("demo/ultrasound")
    image = np.random.default_rng(0).integers(0, 256, (150, 260)).astype(np.uint8)
    made = camanim.animate_windows(demo, image, layers="blocks")
    assert "windows" in made.figure("strip", step=50).caption or made.windows is not None
    assert made.figure("parameters").caption


def test_many_layers_are_drawn_or_refused() -> None:
    made = result(600)
    assert len(pictures(made.figure("strip"))) == 13
    assert len(pictures(made.figure("strip", step=1))) == 103
    with pytest.raises(RenderError, match="more than a page"):
        made.figure("sheet")
    with pytest.raises(RenderError, match="at most"):
        result(800).figure("sheet")
    assert made.figure("parameters").caption
    scored = result(600, scores=True)
    assert scored.figure("curve").caption
    assert scored.figure("panel").caption


def test_a_single_layer_is_enough() -> None:
    for name in ("strip", "sheet", "stages", "local_global", "matrix", "parameters"):
        figure = result(1).figure(name)
        assert sum("conv" in n for n in pictures(figure)) >= (name != "parameters")
    figure = result(1, scores=True).figure("panel")
    assert "features.0.conv" in figure.caption


def test_a_tall_image_stays_within_its_place() -> None:
    image = np.zeros((400, 40), np.uint8)
    figure = result(12, image=image).figure("sheet", width=85)
    for drawn_image in figure.figure.findobj(AxesImage):
        left, right, bottom, top = drawn_image.get_extent()
        if "conv" in drawn_image.get_label():
            assert (bottom - top) / (right - left) == pytest.approx(10, rel=0.01)


# What is refused ------------------------------------------------------------------------------


def test_wrong_settings_are_refused() -> None:
    made = result()
    with pytest.raises(RenderError, match="did you mean width"):
        made.figure("strip", widht=85)
    with pytest.raises(RenderError, match="width must be a number from 40 to 1000"):
        made.figure("strip", width=10)
    with pytest.raises(RenderError, match="normalization"):
        made.figure("strip", normalization="best")
    with pytest.raises(RenderError, match="step"):
        figures.strip(made, step=0)
    with pytest.raises(RenderError, match="Unknown colour map"):
        made.figure("strip", colormap="infernal")
    with pytest.raises(RenderError, match=r"Unknown figure 'stripe': choose one of .*strip"):
        made.figure("stripe")
    assert made.figure("local-global").name == "local_global"


def test_wrong_results_are_refused() -> None:
    one, other = result(), result(method="LayerCAM")
    with pytest.raises(RenderError, match="one result, not 2"):
        one.figure("sheet", other)
    with pytest.raises(RenderError, match="counterfactual"):
        one.figure("counterfactual", other)
    against = result(counterfactual=True)
    assert one.figure("counterfactual", against).caption
    with pytest.raises(RenderError, match="one target"):
        one.figure("counterfactual", result(name="lynx", counterfactual=True))
    with pytest.raises(RenderError, match="one image"):
        one.figure(
            "counterfactual", result(image=np.zeros((90, 120), np.uint8), counterfactual=True)
        )
    with pytest.raises(RenderError, match="not 1"):
        one.figure("counterfactual")
    with pytest.raises(RenderError, match="two different sides"):
        one.figure("matrix", rows="layer")
    with pytest.raises(RenderError, match="differ in the method"):
        one.figure("matrix", other, rows="network", columns="class")
    with pytest.raises(RenderError, match="leave one out"):
        one.figure("matrix", result())
    with pytest.raises(RenderError, match="differ in the method"):
        one.figure("classes", other)
    with pytest.raises(RenderError, match="Guided backpropagation"):
        one.figure("guided", other)
    with pytest.raises(ScoreError, match="road"):
        one.figure("curve")
    with pytest.raises(ScoreError, match="road"):
        one.figure("removal")
    with pytest.raises(RenderError, match="at least one"):
        figures.strip([])
    empty = result()
    empty.maps, empty.layers = [], []
    for name in ("strip", "sheet", "stages", "matrix", "parameters", "panel"):
        with pytest.raises(CamError):
            empty.figure(name)


def test_a_page_is_not_endless() -> None:
    with pytest.raises(RenderError, match="more than a page"):
        Page(174, 300)


# Files ----------------------------------------------------------------------------------------


@ALL
def test_every_format_is_written_with_its_caption(name: str, tmp_path: Path) -> None:
    figure = drawn(name, examples()[name])
    for suffix in ("pdf", "svg", "png"):
        path = figure.save(tmp_path / f"{name}.{suffix}", dpi=100)
        assert path.stat().st_size > 1000
    assert (tmp_path / f"{name}.txt").read_text() == f"{figure.caption}\n"
    assert len(list(tmp_path.iterdir())) == 4


def test_fonts_are_embedded_in_a_pdf_as_truetype(tmp_path: Path) -> None:
    made = result(scores=True, name="Ägyptische Katze – 猫")
    content = made.write_figure(tmp_path / "a.pdf", "panel").read_bytes()
    fonts = re.findall(rb"/Type /Font\b.*?>>|/Subtype /\w+ /Type /Font\b", content, re.S)
    kinds = set(re.findall(rb"/Subtype /(Type0|Type1|Type3|TrueType|CIDFontType\d)", content))
    assert fonts
    assert kinds
    assert kinds <= {b"Type0", b"TrueType", b"CIDFontType2"}
    files = re.findall(rb"/FontFile2 (\d+) 0 R", content)
    assert files
    for number in files:
        stream = re.search(
            rb"\n" + number + rb" 0 obj\n.*?stream\r?\n(.*?)\r?\nendstream", content, re.S
        )
        # The version of a TrueType font.
        assert zlib.decompress(stream[1])[:4] in (b"\x00\x01\x00\x00", b"true")
    box = [float(v) for v in re.search(rb"/MediaBox \[([^\]]+)\]", content)[1].split()]
    assert box[2] / 72 * 25.4 == pytest.approx(174, abs=0.1)


def test_the_text_of_an_svg_is_text(tmp_path: Path) -> None:
    path = result().write_figure(tmp_path / "a.svg", "strip")
    root = ET.parse(path).getroot()
    shown = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"image", "100 %"} <= set(shown)
    assert result().figure("strip").caption in path.read_text().replace("&gt;", ">")
    assert root.get("width") == f"{174 / 25.4 * 72:g}pt" or float(root.get("width")[:-2]) > 490


def test_a_png_has_its_resolution_and_metadata(tmp_path: Path) -> None:
    figure = result().figure("strip", width=85)
    with Image.open(figure.save(tmp_path / "a.png", dpi=200)) as picture:
        assert abs(picture.width - 85 / 25.4 * 200) <= 1
        assert picture.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        assert picture.text["Description"] == figure.caption
        assert "camanim" in picture.text["Software"]


@pytest.mark.parametrize("suffix", ["pdf", "svg", "png"])
def test_the_same_figure_is_the_same_file(tmp_path: Path, suffix: str) -> None:
    paths = [result().write_figure(tmp_path / f"{k}.{suffix}", "strip") for k in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_configuration_of_matplotlib_is_left_as_it_was(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    result().write_figure(tmp_path / "a.pdf", "strip")
    assert dict(matplotlib.rcParams) == before


def test_errors_leave_files_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = result().figure("strip")
    with pytest.raises(RenderError, match="must end in"):
        figure.save(tmp_path / "a.tif")
    with pytest.raises(RenderError, match="does not exist"):
        figure.save(tmp_path / "none" / "a.png")
    with pytest.raises(RenderError, match="dpi"):
        figure.save(tmp_path / "a.png", dpi=3)
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(RenderError, match="folder"):
        figure.save(tmp_path / "b.png")
    (tmp_path / "a.png").write_bytes(b"old")

    def fail(*args, **kwargs) -> None:
        raise MemoryError

    monkeypatch.setattr(Figure, "savefig", fail)
    before = dict(matplotlib.rcParams)
    with pytest.raises(MemoryError):
        figure.save(tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.txt"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_another_text_is_not_replaced_by_a_caption(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes")
    figure = result().figure("strip")
    with pytest.raises(RenderError, match=r"notes\.txt exists"):
        figure.save(tmp_path / "notes.png", dpi=50)
    assert notes.read_text() == "my notes"
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    # Captions are replaced: of the same figure in another format, of another one, or a user's own.
    figure.save(tmp_path / "a.png", dpi=50)
    result(3).figure("strip").save(tmp_path / "a.pdf", dpi=50)
    own = replace(figure, caption="Mine.")
    for suffix in ("png", "svg"):
        own.save(tmp_path / f"a.{suffix}", dpi=50)
    assert (tmp_path / "a.txt").read_text() == "Mine.\n"


def test_another_thread_writes_with_its_own_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = result(scores=True)
    seen, original = [], Figure.savefig
    # Drawn before, so that nothing but the writing takes time.
    ready = plots.plot(made)
    monkeypatch.setattr(plots, "plot", lambda *args, **kwargs: ready)
    other = threading.Thread(target=plots.write_plot, args=(made, tmp_path / "plot.svg"))

    def save(self, *args, **kwargs) -> None:
        seen.append(matplotlib.rcParams["svg.fonttype"])
        if len(seen) == 1:
            other.start()
            # In this time the other one must wait.
            other.join(0.5)
        original(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", save)
    made.write_figure(tmp_path / "figure.svg", "strip")
    other.join()
    assert seen == ["none", matplotlib.rcParamsDefault["svg.fonttype"]]


def test_notebooks_show_the_picture() -> None:
    assert result().figure("strip")._repr_png_().startswith(b"\x89PNG")


# The registry ---------------------------------------------------------------------------------


@ALL
def test_settings_are_declared_with_their_help(name: str) -> None:
    kind = figure_kinds()[name]
    assert kind.title
    assert kind.needs
    assert kind.help.endswith(".")
    assert "width" in kind.settings
    for setting in kind.settings.values():
        assert setting.is_textual, setting.name
        assert setting.help.endswith("."), setting.name
        setting.checked(setting.default, RenderError)


# From an image --------------------------------------------------------------------------------


@pytest.fixture
def net(zoo) -> camanim.Model:
    return camanim.Model(zoo.shake(zoo.Plain(inplace=False)), classes=["a", "b", "c"], name="plain")


def test_a_figure_is_made_from_an_image(net, grey, tmp_path) -> None:
    seen = []
    figure = make_figure(
        "strip", grey, net, ["GradCAM", "LayerCAM"], run={"layers": "Conv2d"}, step=50,
        progress=lambda *state: seen.append(state),
    )  # fmt: skip
    runs = [camanim.animate(net, grey, method=m, layers="Conv2d") for m in ("GradCAM", "LayerCAM")]
    expected = pictures(figures.strip(runs, step=50))
    assert all((p == expected[n]).all() for n, p in pictures(figure).items())
    assert ("runs", 0, 2) in seen
    assert ("runs", 2, 2) in seen


def test_classes_are_the_likeliest_by_default(net, grey) -> None:
    figure = make_figure("classes", grey, net)
    ranking = [entry.name for entry in net.predict(grey, 5)]
    order = [n.split(", ")[1].split(":")[0] for n in pictures(figure) if ": " in n]
    assert order == ranking
    named = make_figure("classes", grey, net, targets=["b", "a"])
    assert {n.split(", ")[1][0] for n in pictures(named) if ": " in n} == {"a", "b"}


def test_a_counterfactual_explains_the_negated_score(net, grey) -> None:
    figure = make_figure("counterfactual", grey, net, run={"layers": "Conv2d"}, opacity=1.0)
    against = camanim.animate(net, grey, layers="Conv2d", counterfactual=True)
    expected = pictures(against.figure("sheet", layers="100%", opacity=1.0, width=130))
    label = f"GradCAM, {against.target.name}: {against.layers[-1].label}"
    shown, other = pictures(figure)[label], expected[label]
    assert np.abs(shown.mean(axis=(0, 1)) - other.mean(axis=(0, 1))).max() < 3


@pytest.mark.parametrize(
    ("target", "method"),
    [
        ("a - b", "GradCAM"),
        (lambda output: output[:, 1] - 2 * output[:, 0], "GradCAM"),
        (1, "FinerCAM"),
        (None, "FinerCAM"),
    ],
)
def test_a_counterfactual_is_of_the_same_target(
    net, grey, target, method, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, original = [], pipeline.explain

    def recorded(*args, **settings):
        seen.extend(done := original(*args, **settings))
        return done

    monkeypatch.setattr(pipeline, "explain", recorded)
    assert make_figure(
        "counterfactual", grey, net, method, target, run={"layers": "Conv2d"}
    ).caption
    one, other = seen
    assert other.target.describe()["of"] == one.target.describe()
    # GradCAM is linear in the score: its maps are the negatives, before they are rectified.
    assert all(np.allclose(a, -b, atol=1e-6) for a, b in zip(one.maps, other.maps, strict=True))


def test_guided_maps_are_those_of_guided_grad_cam(zoo) -> None:
    network = camanim.Model(zoo.shake(zoo.Plain(inplace=False)))
    image = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    figure = make_figure("guided", image, network, ["GradCAM", "Guided backpropagation"])
    published = camanim.animate(network, image, method="Guided Grad-CAM")
    shared = camanim.animate(network, image)
    values = published.maps[[x.label for x in published.layers].index(shared.layers[-1].label)]
    # Grey is 0; equal up to the scale.
    shown = pictures(figure)["guided GradCAM"][..., 0].astype(float) - 127.5
    step = shown.shape[0] / 64
    centres = (np.arange(64) * step + step / 2).astype(int)
    sampled = shown[np.ix_(centres, centres)]
    inside = np.abs(values) < np.percentile(np.abs(values), 95)
    assert np.corrcoef(sampled[inside], values[inside])[0, 1] > 0.98


def test_findings_are_computed_for_the_figure(net, grey) -> None:
    settings = {"percentiles": (50,), "draws": 2}
    figure = make_figure("curve", grey, net, run={"layers": "Conv2d"}, find=settings)
    made = camanim.animate(net, grey, layers="Conv2d")
    expected = made.score(percentiles=(50,), draws=2)
    [line] = [x for x in figure.figure.axes[0].get_lines() if x.get_label() == "ROAD"]
    assert np.allclose(line.get_ydata(), expected.scores, atol=1e-6)


def test_any_finding_can_be_the_curve(net, grey) -> None:
    run = {"layers": "Conv2d"}
    find = {"name": "deletion", "steps": 4}
    figure = make_figure("curve", grey, net, run=run, find=find, finding="measure")
    made = camanim.animate(net, grey, **run)
    expected = made.measure("deletion", steps=4)
    lines = [line.get_ydata() for line in figure.figure.axes[0].get_lines()]
    assert any(
        len(y) == len(made) and np.allclose(y, expected.main_values(), atol=1e-6) for y in lines
    )
    panel = make_figure("panel", grey, net, run=run, find={"draws": 2}, curve="ROAD", layers=0)
    assert "ROAD over the layers" in panel.caption


def test_a_curve_of_parameters_takes_no_scores(net, grey) -> None:
    seen = set()
    figure = make_figure(
        "panel", grey, net, curve="parameters", progress=lambda stage, *_: seen.add(stage)
    )
    assert "Parameters over the layers" in figure.caption
    assert not any("ROAD" in stage or "score" in stage for stage in seen), seen


def test_outputs_without_space_are_computed_for_their_figure(net, grey) -> None:
    figure = make_figure("one_d", grey, net)
    assert len(pictures(figure)) == 1 + sum(
        layer.layout == "stripes" for layer in camanim.animate(net, grey, show_1d=True).layers
    )


def test_a_stopped_figure_is_not_drawn(net, grey) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage not in ("runs", "wait"):
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        make_figure("strip", grey, net, progress=stop)
    # The network is as it was.
    assert camanim.animate(net, grey).maps


def test_a_stopped_finding_is_not_drawn(net, grey) -> None:
    steps = []

    def stop(stage: str, done: int, total: int) -> None:
        steps.append((stage, done))
        if stage == "confidence" and done:
            raise Cancelled("stopped")

    find = {"name": "increase"}
    with pytest.raises(Cancelled):
        make_figure("curve", grey, net, find=find, finding="measure", progress=stop)
    assert ("confidence", 1) in steps


def test_what_a_figure_cannot_show_is_refused_before_any_run(net, grey) -> None:
    def never(stage: str, done: int, total: int) -> None:
        raise AssertionError

    cases = [
        ("sheet", {"methods": ["GradCAM", "LayerCAM"]}, RenderError),
        ("classes", {"models": [net, net]}, RenderError),
        ("strip", {"models": []}, RenderError),
        ("strip", {"wide": 3}, RenderError),
        ("strip", {"run": {"progress": print}}, SettingError),
        ("strip", {"find": {"draws": 3}}, RenderError),
        ("nothing", {}, RenderError),
    ]
    for name, changes, error in cases:
        arguments = {"models": net, "progress": never, **changes}
        with pytest.raises(error):
            make_figure(name, grey, **arguments)


def test_regions_and_slices_are_explained_as_in_a_run(net, grey) -> None:
    region = make_figure("classes", grey, net, run={"box": (2, 2, 18, 18)})
    inside = [entry.name for entry in net.predict(grey[2:18, 2:18], 3)]
    order = [n.split(", ")[1].split(":")[0] for n in pictures(region) if ": " in n]
    assert order == inside
    volume = np.stack([grey, grey[::-1]])
    assert make_figure("classes", volume, net, run={"slices": True}, z=1).caption


def test_a_module_is_a_network_too(zoo, grey) -> None:
    module: nn.Module = zoo.shake(zoo.Plain())
    assert make_figure("strip", np.stack([grey] * 3, -1), module).caption
    assert module.training is False


# The gallery ----------------------------------------------------------------------------------


def test_the_gallery_shows_every_registered_figure() -> None:
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+)$", text, re.M) == list(figure_kinds())
    for name, section in zip(figure_kinds(), text.split("\n## ")[1:], strict=True):
        linked = re.findall(r"!\[.+\]\((images/gallery/.+\.png)\)", section)
        assert linked, name
        for picture in linked:
            with Image.open(DOCS / picture) as opened:
                opened.verify()
    pictures_there = {f"images/gallery/{p.name}" for p in (DOCS / "images/gallery").iterdir()}
    assert pictures_there == set(re.findall(r"\]\((images/gallery/.+\.png)\)", text))
    size = sum(path.stat().st_size for path in (DOCS / "images/gallery").iterdir())
    assert size < 4_000_000


# Kept pictures --------------------------------------------------------------------------------


@pytest.mark.mpl_image_compare(
    baseline_dir="baseline", tolerance=4, style="default", savefig_kwargs={"dpi": 80}
)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("strip", {"width": 100}),
        ("matrix", {"width": 100, "signed": True}),
        ("local_global", {"width": 100, "step": 25}),
        ("one_d", {"width": 85}),
        ("panel", {"width": 85}),
        ("curve", {"width": 85}),
        ("parameters", {"width": 85, "scatter": True}),
    ],
    ids=["strip", "matrix", "local_global", "one_d", "panel", "curve", "parameters"],
)
def test_kept_pictures(name: str, settings: dict) -> Figure:
    figure = drawn(name, examples()[name], **settings).figure
    FigureCanvasAgg(figure).draw()
    # Texts differ between versions of FreeType; the other tests are about them.
    figure.set_layout_engine("none")
    for text in figure.findobj(Text):
        text.set_visible(False)
    return figure
