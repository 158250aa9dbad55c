"""Frames, movies and pictures: colours, positions, texts and files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from cmap import Colormap
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

import camanim
from camanim import samples
from camanim.animation import Animation
from camanim.checks import LabelRandomisation, Localisation, Randomisation
from camanim.errors import Cancelled, RenderError
from camanim.images import Geometry, Preprocess
from camanim.layer_info import LayerInfo
from camanim.render import FrameRenderer, encoder, write_grid_movie, write_movie, write_picture
from camanim.render.formats import tags_of
from camanim.render.grid import GridRenderer
from camanim.render.pen import Pen
from camanim.render.tagging import is_complete
from camanim.road import Road
from camanim.targets import ClassTarget
from camanim.targets.functions import FunctionTarget

Box = tuple[float, float, float, float]


def road(layers: list[LayerInfo], scores: np.ndarray, **more) -> Road:
    """Return ROAD scores with one repeat; layers with the score NaN are undefined."""
    lerfs = 2 * np.asarray(scores, float)[None, :, None]
    values = {
        "percentiles": (50.0,),
        "morfs": np.where(np.isnan(lerfs), np.nan, 0.0),
        "lerfs": lerfs,
        "probability": 0.7312,
        "undefined": tuple("constant map" if np.isnan(s) else None for s in scores),
        "random_scores": np.empty((len(layers), 0)),
        "forwards": 0,
        "seed": 0,
        "noise": 0.01,
    }
    return Road(layers=layers, **values | more)


def animation(
    count: int = 6,
    *,
    maps: list[np.ndarray] | None = None,
    image: np.ndarray | None = None,
    geometry: Geometry | None = None,
    scores: np.ndarray | None = None,
    name: str = "Egyptian cat",
    layer: str = "features.{}.conv",
) -> Animation:
    """Return an animation of random maps without a network, by default stretched over the image."""
    random = np.random.default_rng(0)
    if image is None:
        image = random.integers(0, 256, (90, 120, 3)).astype(np.uint8)
    if maps is None:
        sizes = [(2 + i % 5, 3 + i % 4) for i in range(count)]
        maps = [random.normal(size=size).astype(np.float32) for size in sizes]
    layers = [
        LayerInfo(2 * i + 1, layer.format(i), 0, "Conv2d", (1, 8, *m.shape), 10)
        for i, m in enumerate(maps)
    ]
    height, width = image.shape[:2]
    result = Animation(
        maps=maps,
        layers=layers,
        layer_calls=layers,
        method="GradCAM",
        target=ClassTarget(3, name),
        probability=0.7312,
        image=image,
        geometry=geometry or Geometry((64, 64), (height / 64, width / 64)),
        tensor=torch.zeros(1, 3, 64, 64),
        model=None,  # type: ignore[arg-type]
        provenance={"model": "torchvision/mobilenet_v2"},
    )
    if scores is not None:
        result.add(road(layers, scores))
    return result


@contextmanager
def written() -> Iterator[list[tuple[str, Box]]]:
    """Record every drawn text with its bounding box."""
    texts: list[tuple[str, Box]] = []
    original = Pen._draw

    def draw(self, canvas, at, line, style, anchor):
        box = ImageDraw.Draw(canvas).textbbox(at, line, font=self.fonts[style], anchor=anchor)
        texts.append((line, box))
        original(self, canvas, at, line, style, anchor)

    with mock.patch.object(Pen, "_draw", draw):
        yield texts


def texts_of(result: Animation, i: int = 0, **options) -> list[str]:
    with written() as texts:
        FrameRenderer(result, **options).frame(i)
    return [text for text, _ in texts]


def locate(frame: np.ndarray, patch: np.ndarray) -> tuple[int, int]:
    """Return the only position of `patch` in `frame`, in pixels from the top left."""
    windows = np.lib.stride_tricks.sliding_window_view(frame, (1, patch.shape[1], 3))[:, :, 0, 0]
    (y, x), *others = np.argwhere((windows == patch[0]).all(axis=(2, 3))).tolist()
    assert not others
    assert (frame[y : y + patch.shape[0], x : x + patch.shape[1]] == patch).all()
    return y, x


def shown_image(result: Animation, i: int, **options) -> np.ndarray:
    """Return the image part of frame `i`; the image must have its display size."""
    y, x = locate(FrameRenderer(result, **options | {"opacity": 0.0}).frame(i), result.image)
    height, width = result.image.shape[:2]
    return FrameRenderer(result, **options).frame(i)[y : y + height, x : x + width]


def reference_blend(
    result: Animation, unit: np.ndarray, colormap: str, opacity: float
) -> np.ndarray:
    """Blend pixel by pixel, by the geometry; `unit` is the map with values in [0, 1]."""
    (scale_y, scale_x), (move_y, move_x) = result.geometry.affine(unit.shape)
    top, left, bottom, right = result.geometry.box
    picture = result.image.astype(float)
    colors = [np.array(Colormap(colormap)(level / 255).rgba[:3]) * 255 for level in range(256)]
    for y, x in np.ndindex(*result.image.shape[:2]):
        if not (top <= y + 0.5 < bottom and left <= x + 0.5 < right):
            continue
        row = np.clip((y - move_y) / scale_y, 0, unit.shape[0] - 1)
        column = np.clip((x - move_x) / scale_x, 0, unit.shape[1] - 1)
        r, c = int(row), int(column)
        below, beside = min(r + 1, unit.shape[0] - 1), min(c + 1, unit.shape[1] - 1)
        upper = unit[r, c] + (column - c) * (unit[r, beside] - unit[r, c])
        lower = unit[below, c] + (column - c) * (unit[below, beside] - unit[below, c])
        value = upper + (row - r) * (lower - upper)
        picture[y, x] = (1 - opacity) * picture[y, x] + opacity * colors[round(value * 255)]
    return picture


# Colours and positions ------------------------------------------------------------------------


def test_a_frame_is_rgb_of_even_size() -> None:
    renderer = FrameRenderer(animation(), size=97)
    frame = renderer.frame(2)
    assert len(renderer) == 6
    assert frame.dtype == np.uint8
    assert frame.shape == (renderer.size[1], renderer.size[0], 3)
    assert renderer.size[0] % 2 == renderer.size[1] % 2 == 0


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_a_single_cell_is_drawn_at_its_position_in_the_image(fit) -> None:
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (90, 120, 3)).astype(np.uint8)
    # The crop keeps the middle 61 of 75 rows and the middle 60 of 100 columns, 1.2 pixels each.
    prepared = Preprocess(size=(61, 60), resize=75)(image, fit=fit)
    top, left, bottom, right = (0, 0, 90, 120) if fit == "stretch" else (8.4, 24, 81.6, 96)
    hot = np.zeros((6, 6), np.float32)
    hot[1, 4] = 1
    result = animation(maps=[hot], image=image, geometry=prepared.geometry)
    picture = shown_image(result, 0, size=120, colormap="gray", opacity=1.0)[..., 0]
    covered = np.zeros((90, 120), bool)
    covered[round(top) : round(bottom), round(left) : round(right)] = True
    assert (picture[~covered] == image[~covered][:, 0]).all()
    cells = ((bottom - top) / 6, (right - left) / 6)
    y, x = top + 1 * cells[0], left + 4 * cells[1]
    inside = np.zeros((90, 120), bool)
    inside[round(y) : round(y + cells[0]), round(x) : round(x + cells[1])] = True
    # Bilinear: half the height is reached at the cell's edges, and nothing one cell further out.
    assert picture[inside].min() >= 0.2 * 255
    peak = np.unravel_index(np.where(covered, picture, 0).argmax(), picture.shape)
    assert abs(peak[0] - (y + cells[0] / 2)) <= 1
    assert abs(peak[1] - (x + cells[1] / 2)) <= 1
    rows, columns = np.indices(picture.shape)
    far = (abs(rows + 0.5 - y - cells[0] / 2) > cells[0]) | (
        abs(columns + 0.5 - x - cells[1] / 2) > cells[1]
    )
    assert picture[far & covered].max() == 0


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("normalization", ["local", "global"])
@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_colours_are_those_of_a_reference_implementation(fit, normalization, signed) -> None:
    image = np.random.default_rng(2).integers(0, 256, (64, 80, 3)).astype(np.uint8)
    prepared = Preprocess(size=(32, 32), resize=40)(image, fit=fit)
    result = animation(image=image, geometry=prepared.geometry)
    raw = result.maps if normalization == "global" else [result.maps[3]]
    values = np.concatenate([m.ravel() for m in raw])
    if signed:
        unit = (result.maps[3] / np.abs(values).max() + 1) / 2
    else:
        low, high = np.maximum(values, 0).min(), np.maximum(values, 0).max()
        unit = (np.maximum(result.maps[3], 0) - low) / (high - low)
    picture = shown_image(
        result, 3, size=80, normalization=normalization, signed=signed, colormap="vik", opacity=0.4
    )
    expected = reference_blend(result, unit, "vik", 0.4)
    difference = np.abs(picture - expected)
    # Values between two of the 256 levels may be rounded up or down.
    assert difference.max() < 2.5
    assert np.percentile(difference, 99) < 1


def test_the_default_colormaps_are_a_sequential_and_a_diverging_one() -> None:
    result = animation()
    assert (
        FrameRenderer(result).frame(1) == FrameRenderer(result, colormap="turbo").frame(1)
    ).all()
    named = FrameRenderer(result, signed=True, colormap="berlin").frame(1)
    assert (FrameRenderer(result, signed=True).frame(1) == named).all()
    assert Colormap("berlin").category == "diverging"


@pytest.mark.parametrize("shape", [(7, 7), (14, 9), (1, 1), (1, 5), (200, 160)])
def test_maps_are_resized_as_torch_does(shape) -> None:
    random = np.random.default_rng(3)
    raw = random.uniform(0, 1, shape).astype(np.float32)
    raw[0, 0] = 0
    image = random.integers(0, 256, (256, 320, 3)).astype(np.uint8)
    result = animation(maps=[raw], image=image)
    picture = shown_image(result, 0, size=320, colormap="gray", opacity=1.0)[..., 0]
    unit = torch.from_numpy(result.stack().native(0))[None, None]
    large = torch.nn.functional.interpolate(
        unit, size=(256, 320), mode="bilinear", align_corners=False
    )
    assert np.abs(picture - large[0, 0].numpy() * 255).max() <= 0.51


def test_a_map_that_reaches_beyond_the_image_shows_the_part_on_it() -> None:
    image = np.random.default_rng(4).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    ramp = np.linspace(0, 1, 128, dtype=np.float32)[None].repeat(128, axis=0)
    beyond = Geometry((128, 128), (1.0, 1.0), (-32.0, -32.0))
    result = animation(maps=[ramp], image=image, geometry=beyond)
    picture = shown_image(result, 0, size=64, colormap="gray", opacity=1.0)[..., 0]
    assert np.abs(picture - ramp[:64, 32:96] * 255).max() <= 0.51


def test_frames_are_independent_of_each_other() -> None:
    result = animation(scores=np.linspace(0, 0.4, 6))
    renderer = FrameRenderer(result)
    first = renderer.frame(0)
    result.image = None  # type: ignore[assignment]
    frames = [renderer.frame(i) for i in range(5, -1, -1)]
    assert (frames[-1] == first).all()
    assert all((a != b).any() for a, b in zip(frames[1:], frames[:-1], strict=True))


def test_grey_images_are_drawn() -> None:
    grey = np.random.default_rng(5).integers(0, 256, (64, 80)).astype(np.uint8)
    result = animation(image=grey)
    frame = FrameRenderer(result, size=80, opacity=0).frame(0)
    locate(frame, np.repeat(grey[..., None], 3, axis=2))


# Texts ----------------------------------------------------------------------------------------


def test_the_texts_of_a_frame() -> None:
    result = animation(scores=np.linspace(0, 0.4, 6))
    low, high = result.stack().limits(2)
    texts = texts_of(result, 2)
    for text in (
        *("features.2.conv", "Conv2d, map 4 x 5", "Layer 3/6"),
        *("Egyptian cat", "probability 0.731", "GradCAM, torchvision/mobilenet_v2"),
        *(f"{low:.3g}", f"{(low + high) / 2:.3g}", f"{high:.3g}"),
        *(
            "raw values, local scale (this layer)",
            "ROAD 0.16",
            "highest: features.5.conv 0.40",
        ),
    ):
        assert text in texts
    assert "no positive evidence" not in texts


def test_limits_are_those_of_the_scale() -> None:
    result = animation()
    low, high = result.stack("global").limits(0)
    texts = texts_of(result, 4, normalization="global")
    assert {f"{low:.3g}", f"{high:.3g}", "raw values, global scale (all layers)"} <= set(texts)
    extreme = np.abs(result.maps[4]).max()
    texts = texts_of(result, 4, signed=True)
    assert {f"{-extreme:.3g}", "0", f"{extreme:.3g}"} <= set(texts)


@pytest.mark.parametrize(("signed", "value"), [(False, -1.0), (False, 2.0), (True, 0.0)])
def test_a_constant_map_has_one_value_on_the_colour_bar(signed, value) -> None:
    result = animation(maps=[np.full((4, 4), value, np.float32)])
    texts = texts_of(result, signed=signed)
    numbers = [text for text in texts if text.replace(".", "").isdigit()]
    assert numbers == [f"{max(value, 0):.3g}"]
    assert ("no positive evidence" in texts) == (value <= 0)


def test_a_layer_without_positive_evidence_has_a_note() -> None:
    result = animation(maps=[np.float32([[-3, -1], [-2, 0]]), np.float32([[-3, 0.1], [-2, 0]])])
    assert "no positive evidence" in texts_of(result, 0)
    assert "no positive evidence" not in texts_of(result, 1)


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        ("score", -3.2, "score -3.2"),
        ("score", 1234.5, "score 1.23e+03"),
        ("probability", 0.0001, "probability 1.0e-04"),
        ("probability", 0.9996, "probability 1.000"),
    ],
)
def test_a_value_has_the_unit_of_its_target(unit, value, expected) -> None:
    result = replace(
        animation(),
        target=FunctionTarget(lambda output: output, "contrast", unit=unit),
        probability=value,
    )
    assert expected in texts_of(result)
    assert tags_of(result, 1)["Class"] == f"contrast ({expected})"
    others = {"a": result, "b": animation()}
    with written() as texts:
        GridRenderer(others)
    assert any(expected in text for text, _ in texts)


def volume(**more: Any) -> Animation:
    """Return maps of a volume, the first of which is positive in its first plane alone."""
    maps = np.full((2, 3, 4, 4), -1, np.float32)
    maps[0, 0, 1, 1] = 2
    layers = animation(2).layers
    return replace(
        animation(2),
        maps=list(maps),
        layers=layers,
        image=np.random.default_rng(0).integers(0, 256, (9, 90, 90)).astype(np.uint8),
        geometry=Geometry((9, 90, 90)),
        **more,
    )


def test_a_plane_of_a_volume_is_named_and_does_not_speak_for_the_volume(tmp_path) -> None:
    result, path = volume(), tmp_path / "a.png"
    for z, first in ((8, "no positive evidence in this plane"), (None, None), (0, None)):
        with written() as texts:
            write_picture(result, path, 0, z=z)
        lines = [text for text, _ in texts]
        words = f"plane {4 if z is None else z} of 0 to 8"
        assert words in lines
        # The middle plane is a mixture of planes without evidence.
        first = "no positive evidence in this plane" if z is None else first
        assert [line for line in lines if "evidence" in line] == ([first] if first else [])
        with Image.open(path) as file:
            assert words in file.info["Comment"]
        with written() as texts:
            write_picture(result, path, 1, z=z)
        assert "no positive evidence" in [text for text, _ in texts]
    with written() as texts:
        write_grid_movie({"a": result, "b": animation(2)}, tmp_path / "a.mp4", z=None)
    lines = [text for text, _ in texts]
    assert any("plane 4 of 0 to 8" in line for line in lines)
    assert "no positive evidence in this plane" in lines


@pytest.mark.parametrize("what", ["none", "thumbnail"])
@pytest.mark.parametrize("layout", ["overlay", "image | map", "local | global"])
def test_a_result_without_its_image_says_so(tmp_path, what, layout) -> None:
    image = samples.image("malignant_1")
    made = camanim.animate(camanim.load_model("demo/ultrasound"), image, layers="blocks")
    loaded = camanim.load(made.save(tmp_path / "a.camanim.zip", image=what))
    note = loaded.notes[-1]
    with written() as texts:
        loaded.write_picture(tmp_path / "a.png", layout=layout)
    lines = [text for text, _ in texts]
    assert note in " ".join(lines)
    assert_texts_are_apart(loaded, 0, layout=layout)
    with Image.open(tmp_path / "a.png") as file:
        assert note in file.info["Comment"]
    with written() as texts:
        write_grid_movie({"a": loaded, "b": made}, tmp_path / "a.mp4", size=500)
    # A long one is shortened in the middle.
    assert len({text for text, _ in texts if text.startswith(note[:20])}) == 1
    # A real image that is black is none that is missing.
    black = replace(made, image=np.zeros_like(made.image))
    assert not any("file" in text for text in texts_of(black, layout=layout))


def test_characters_that_the_font_lacks_are_replaced() -> None:
    texts = texts_of(animation(name="Ägyptische Mau – 猫\n×2\x00\ud800"))
    assert "Agyptische Mau - ? x2" in texts


def assert_texts_are_apart(result: Animation, i: int, **options) -> None:
    with written() as texts:
        renderer = FrameRenderer(result, **options)
        renderer.frame(i)
    width, height = renderer.size
    for k, (text, (x0, y0, x1, y1)) in enumerate(texts):
        assert x0 >= 0, text
        assert y0 >= 0, text
        assert x1 <= width, text
        assert y1 <= height, text
        for other, (u0, v0, u1, v1) in texts[:k]:
            assert x1 <= u0 or u1 <= x0 or y1 <= v0 or v1 <= y0, (text, other)


LONG = "features.denseblock4.denselayer24.submodule.deeply_nested.attention.projection.relu2:3"


@pytest.mark.parametrize("size", [64, 448, 1000])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("shape", "count", "scores"),
    [
        ((8, 8), 1, [0.3]),
        ((8, 2000), 3, [np.nan, np.nan, np.nan]),
        ((2000, 8, 3), 300, "random"),
        ((300, 400, 3), 4, [-0.1, np.nan, -0.3, -0.2]),
        ((300, 400, 3), 4, [0.0, 0.0, 0.0, 0.0]),
        ((300, 400, 3), 5, None),
    ],
)
def test_texts_do_not_overlap(shape, count, scores, signed, size) -> None:
    random = np.random.default_rng(6)
    values = random.uniform(-0.5, 0.5, count) if scores == "random" else scores
    maps = [
        (10.0 ** random.integers(-30, 30) * random.normal(size=(4, 5)) - 1).astype(np.float32)
        for _ in range(count)
    ]
    for name, layer in (("cat", "x"), (LONG.replace(".", " "), LONG), ("W" * 500, "W" * 500)):
        image = random.integers(0, 256, shape).astype(np.uint8)
        result = animation(
            maps=maps,
            image=image,
            scores=None if values is None else np.array(values),
            name=name,
            layer=layer,
        )
        assert_texts_are_apart(result, count - 1, size=size, signed=signed)


def repeated(layers: list[LayerInfo], scores: list[float], chance: list[float]) -> Road:
    """Return scores with three repeats, 0.1 apart, and two random maps for each layer, 0.02 apart."""
    lerfs = 2 * (np.asarray(scores)[None] + np.array([-0.1, 0, 0.1])[:, None])[..., None]
    morfs = np.where(np.isnan(lerfs), np.nan, 0.0)
    drawn = np.asarray(chance)[:, None] + np.array([-0.01, 0.01])
    return road(layers, np.asarray(scores), lerfs=lerfs, morfs=morfs, random_scores=drawn)


def checked(result: Animation) -> Animation:
    """Add an agreement with a mask of 0.5, and two failed checks."""
    count = len(result)
    same = np.ones((1, count))
    half = np.full(count, 0.5)
    result.add(Localisation(result.layers, half, half, half, half, 0.25, (None,) * count))
    cascade = same[None]
    result.add(
        Randomisation(result.layers, ("permuted",), ("fc",), cascade, cascade, cascade, 0.5, 0)
    )
    result.add(LabelRandomisation(result.layers, ("dog",), same, 0.9))
    return result


@pytest.mark.parametrize("size", [64, 448, 1000])
@pytest.mark.parametrize("shape", [(8, 8), (2000, 8, 3), (300, 400, 3)])
def test_texts_of_all_findings_do_not_overlap(shape, size) -> None:
    image = np.random.default_rng(8).integers(0, 256, shape).astype(np.uint8)
    for name, layer in (("cat", "x"), (LONG.replace(".", " "), LONG), ("W" * 500, "W" * 500)):
        result = checked(animation(3, image=image, name=name, layer=layer))
        result.maps = [-np.abs(m) for m in result.maps]
        result.add(repeated(result.layers, [-0.4, np.nan, 0.5], [0.1, 0.1, -0.2]))
        for i in range(3):
            assert_texts_are_apart(result, i, size=size)


def test_a_frame_has_the_spread_of_scores_and_the_score_of_random_maps() -> None:
    result = animation(4)
    result.add(repeated(result.layers, [0.1, 0.5, 0.4, np.nan], [0.0, 0.45, 0.35, 0.0]))
    first = texts_of(result, 0)
    assert "ROAD 0.10 ± 0.10   random maps 0.00 ± 0.01" in first
    assert any("highest" in text and "0.50" in text for text in first)
    assert not any("best" in text for text in first)
    assert "ROAD undefined (constant map)" in texts_of(result, 3)
    assert not any("random" in text for text in texts_of(animation(scores=np.linspace(0, 0.4, 6))))


def test_a_frame_has_the_agreement_with_a_mask_and_failed_checks() -> None:
    result = checked(animation(3, scores=np.full(3, 0.2)))
    texts = set(texts_of(result, 1))
    assert {"mask: average precision 0.50", "energy inside 0.50", "chance 0.25"} <= texts
    assert {"FAILS the randomisation check", "FAILS the label randomisation check"} <= texts
    assert result.randomisation is not None
    result.add(replace(result.randomisation, finals=np.zeros((1, 1, 3))))
    assert "FAILS the randomisation check" not in texts_of(result, 1)


def test_long_names_keep_both_ends() -> None:
    texts = texts_of(animation(layer="start" + "." * 300 + "end"))
    second = next(text for text in texts if "…" in text)
    assert second.endswith("end")
    assert any(text.startswith("start") for text in texts)


# The curve ------------------------------------------------------------------------------------


WHITE, ORANGE = (242, 245, 250), (255, 184, 92)


def dot(frame: np.ndarray) -> tuple[float, float]:
    """Return the centre of the cursor's dot, (row, column), below the image."""
    rows, columns = np.nonzero((frame[-172:-45] == WHITE).all(axis=2))
    middle = np.median(columns)
    # The line starts at the dot and is at most three pixels wide.
    beside = np.abs(columns - middle) > 1.5
    return float(rows[beside].mean()) - 172, float(columns[beside].mean())


def test_the_cursor_is_on_the_curve() -> None:
    """Columns are equidistant, and rows are linear in the score."""
    flat = [np.ones((4, 4), np.float32)] * 9
    scores = np.array([0.1, 0.4, 0.2, 0.35, 0.15, 0.3, 0.25, 0.38, 0.12])
    renderer = FrameRenderer(animation(maps=flat, scores=scores))
    dots = np.array([dot(renderer.frame(i)) for i in range(9)])
    steps = np.diff(dots[:, 1])
    assert steps.min() > 50
    assert np.ptp(steps) <= 1.5
    slope, offset = np.polyfit(scores, dots[:, 0], 1)
    assert slope < -100
    np.testing.assert_allclose(dots[:, 0], slope * scores + offset, atol=1.5)


def test_a_layer_without_score_has_no_dot() -> None:
    flat = [np.ones((4, 4), np.float32)] * 3
    scores = np.array([0.4, np.nan, 0.4])
    renderer = FrameRenderer(animation(maps=flat, scores=scores))
    white = [(renderer.frame(i)[-140:-45] == WHITE).all(axis=2).sum() for i in range(3)]
    # The dot has a diameter of ten pixels, the line is one pixel wide and darker without a score.
    assert white[0] > white[1] + 40
    assert white[2] > white[1] + 40


def test_the_layer_with_the_highest_score_is_marked() -> None:
    """The star of the layer with the highest score has the position of the cursor at that layer."""
    result = animation(count=11)
    scores = np.full(11, 0.1)
    scores[7] = 0.3
    result.add(road(result.layers, scores))
    renderer = FrameRenderer(result)
    row, column = dot(renderer.frame(7))
    # Below the legend, which also has a star.
    below = int(row) - 6
    rows, columns = np.nonzero((renderer.frame(0)[below:-45] == ORANGE).all(axis=2))
    assert abs(np.median(columns) - column) < 3
    assert abs(np.median(rows) + below - row) < 4


# Movies ---------------------------------------------------------------------------------------


def read(path: Path) -> tuple[dict, np.ndarray]:
    reader = imageio_ffmpeg.read_frames(str(path))
    about = next(reader)
    width, height = about["size"]
    return about, np.stack([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader])


@pytest.mark.parametrize(("quality", "fps"), [("standard", 5), ("high", 23.976)])
def test_a_movie_has_one_frame_for_each_layer(tmp_path, quality, fps) -> None:
    # A smooth image, since compression removes noise.
    ramp = np.linspace(0, 255, 120).astype(np.uint8)[None, :, None]
    result = animation(7, image=np.tile(ramp, (90, 1, 3)), scores=np.linspace(0, 0.4, 7))
    reports = []
    path = result.write_movie(
        tmp_path / "movie.mp4",
        fps=fps,
        size=201,
        quality=quality,
        progress=lambda *a: reports.append(a),
    )
    about, frames = read(path)
    renderer = FrameRenderer(result, size=201)
    assert about["codec"] == "h264"
    assert about["pix_fmt"].startswith("yuv420p(tv, bt709")
    assert about["fps"] == pytest.approx(fps, abs=0.01)
    assert about["size"] == renderer.size
    assert len(frames) == 7
    for i, frame in enumerate(frames):
        # Colour matrix and range are those of the tags in the file.
        assert np.abs(frame.astype(int) - renderer.frame(i)).mean() < 3
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 50
    assert reports == [("movie", i + 1, 7) for i in range(7)]
    assert [file.name for file in tmp_path.iterdir()] == ["movie.mp4"]


def test_a_movie_of_one_layer_and_an_unusual_name(tmp_path) -> None:
    path = write_movie(animation(1), str(tmp_path / "a 'name' with % and ü.MP4"), size=64)
    assert len(read(path)[1]) == 1


def test_a_movie_can_be_streamed_and_has_a_title(tmp_path) -> None:
    content = write_movie(animation(), tmp_path / "movie.mp4", size=64).read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert b"Egyptian cat (probability 0.731), GradCAM, torchvision/mobilenet_v2" in content


def test_high_quality_has_a_smaller_error(tmp_path) -> None:
    result = animation(20)
    expected = np.stack([FrameRenderer(result, size=200).frame(i) for i in range(20)]).astype(int)
    errors = []
    for quality in ("standard", "high"):
        path = result.write_movie(tmp_path / f"{quality}.mp4", size=200, quality=quality)
        errors.append(np.square(read(path)[1] - expected).mean())
    assert errors[1] < errors[0]


@contextmanager
def processes() -> Iterator[list[subprocess.Popen]]:
    """Record started processes."""
    started = []
    original = subprocess.Popen

    def start(*args, **kwargs):
        started.append(original(*args, **kwargs))
        return started[-1]

    with mock.patch.object(subprocess, "Popen", start):
        yield started


@pytest.mark.parametrize(
    "error", [Cancelled("stop"), ValueError("x"), OSError("y"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("at", [1, 6])
def test_an_error_of_the_callback_leaves_no_file(tmp_path, error, at) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == at:
            assert [p.name for p in tmp_path.iterdir() if ".part." in p.name]
            raise error

    with processes() as started, pytest.raises(type(error)) as caught:
        animation().write_movie(tmp_path / "movie.mp4", size=64, progress=stop)
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []
    assert [process.poll() is not None for process in started] == [True]


def test_an_existing_movie_is_unchanged_after_an_error(tmp_path) -> None:
    def stop(*_: object) -> None:
        raise Cancelled

    path = tmp_path / "movie.mp4"
    path.write_bytes(b"older")
    with pytest.raises(Cancelled):
        animation().write_movie(path, size=64, progress=stop)
    with pytest.raises(RenderError):
        animation().write_movie(path, size=1)
    assert path.read_bytes() == b"older"
    animation().write_movie(path, size=64)
    assert len(read(path)[1]) == 6
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Return a function that replaces ffmpeg by a shell script."""
    if sys.platform == "win32":
        pytest.skip("shell scripts stand in for ffmpeg")

    def replace_ffmpeg(script: str) -> None:
        program = tmp_path / "ffmpeg"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(program))

    return replace_ffmpeg


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("exit 1", "exit code 1"),
        ("head -c 1000 > /dev/null; echo broken pipes >&2; exit 1", "broken pipes"),
        ("cat > /dev/null", "exit code 0"),
        ("head -c 1000 > /dev/null; kill -SEGV $$", "SIGSEGV"),
        ("cat > /dev/null; kill -KILL $$", "SIGKILL"),
        (
            "cat > /dev/null; echo av_interleaved: No space left on device >&2; exit 228",
            "disk is full",
        ),
        # More than a pipe holds.
        ("yes | head -c 300000 >&2; exit 3", "'y'"),
    ],
)
def test_the_error_names_why_ffmpeg_failed(tmp_path, stand_in, script, cause) -> None:
    folder = tmp_path / "movies"
    folder.mkdir()
    stand_in(script)
    with pytest.raises(RenderError, match=rf"movie\.mp4.*{cause}"):
        animation().write_movie(folder / "movie.mp4", size=64)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "script",
    ["sleep 1000", "head -c 1000 > /dev/null; sleep 1000", "cat > /dev/null; sleep 1000"],
    ids=["at once", "while reading", "at the end"],
)
def test_a_silent_ffmpeg_is_ended(tmp_path, monkeypatch, stand_in, script) -> None:
    monkeypatch.setattr(encoder, "SILENCE", 0.2)
    folder = tmp_path / "movies"
    folder.mkdir()
    stand_in(script)
    with processes() as started, pytest.raises(RenderError, match=r"movie\.mp4.*0\.2 s"):
        # More than a pipe holds.
        animation().write_movie(folder / "movie.mp4", size=200)
    assert [process.poll() is not None for process in started] == [True]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("alive", [True, False])
def test_an_ffmpeg_that_still_writes_is_awaited(
    tmp_path, tmp_path_factory, monkeypatch, alive
) -> None:
    elapsed = 0.0
    if not alive:
        # The real one may end before it is awaited.
        program = tmp_path_factory.mktemp("bin") / "ffmpeg"
        program.write_text("#!/bin/sh\ncat > /dev/null\nexec sleep 100\n")
        program.chmod(0o755)
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(program))

    def sleep(_: float) -> None:
        nonlocal elapsed
        elapsed += encoder.SILENCE / 2
        if alive:
            [part] = tmp_path.iterdir()
            os.utime(part, (elapsed, elapsed))

    clock = SimpleNamespace(monotonic=lambda: elapsed, sleep=sleep)
    monkeypatch.setattr(encoder, "time", clock)
    if alive:
        path = animation().write_movie(tmp_path / "movie.mp4", size=64)
        assert len(read(path)[1]) == 6
    else:
        with pytest.raises(RenderError, match="did nothing"):
            animation().write_movie(tmp_path / "movie.mp4", size=64)


def test_an_ffmpeg_that_is_missing_or_no_program_is_a_render_error(tmp_path, monkeypatch) -> None:
    for name in ("nothing", "text"):
        program = tmp_path / name
        (tmp_path / "text").write_text("no program")
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda path=program: str(path))
        with pytest.raises(RenderError, match="IMAGEIO_FFMPEG_EXE"):
            animation().write_movie(tmp_path / "movie.mp4", size=64)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_an_incomplete_movie_is_noticed(tmp_path, share) -> None:
    path = animation().write_movie(tmp_path / "movie.mp4", size=64)
    assert is_complete(path, ".mp4")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert not is_complete(path, ".mp4")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "fps"),
        ({"fps": -5}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"fps": float("inf")}, "fps"),
        ({"fps": 1e9}, "fps"),
        ({"size": 63}, "64 to 4096"),
        ({"size": 4097}, "64 to 4096"),
        ({"size": 100.5}, "64 to 4096"),
        ({"opacity": -0.1}, "opacity"),
        ({"opacity": 1.1}, "opacity"),
        ({"opacity": float("nan")}, "opacity"),
        ({"colormap": "virids"}, "viridis"),
        ({"colormap": "no such thing at all"}, "cmap"),
        ({"colormap": 7}, "colormap"),
        ({"quality": "best"}, "quality"),
        ({"normalization": "layer"}, "normalization"),
        ({"normalization": None}, "normalization"),
    ],
)
def test_invalid_settings_raise_before_encoding(tmp_path, options, message) -> None:
    with processes() as started, pytest.raises(RenderError, match=message):
        animation().write_movie(tmp_path / "movie.mp4", **options)
    assert started == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("movie.avi", ".mp4"),
        ("nowhere/movie.mp4", "nowhere"),
        ("folder.mp4", "folder.mp4"),
    ],
)
def test_invalid_paths_are_render_errors(tmp_path, name, message) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(RenderError, match=message):
        animation().write_movie(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["folder.mp4"]


def test_a_result_without_maps_cannot_be_drawn(tmp_path) -> None:
    with pytest.raises(RenderError, match="no map"):
        animation(maps=[]).write_movie(tmp_path / "movie.mp4")


# Pictures -------------------------------------------------------------------------------------


def test_a_picture_is_the_frame(tmp_path) -> None:
    result = animation(scores=np.linspace(0, 0.4, 6))
    path = write_picture(result, tmp_path / "picture.png", 3, size=100, signed=True)
    assert (iio.imread(path) == FrameRenderer(result, size=100, signed=True).frame(3)).all()
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("i", [-1, 6])
def test_an_index_out_of_range_is_an_error(tmp_path, i) -> None:
    with pytest.raises(IndexError, match="0 to 5"):
        write_picture(animation(), tmp_path / "picture.png", i)
    assert list(tmp_path.iterdir()) == []


# Properties -----------------------------------------------------------------------------------


def finite_scores(count: int) -> st.SearchStrategy[list[float]]:
    score = st.one_of(st.just(float("nan")), st.floats(-0.5, 0.5))
    return st.lists(score, min_size=count, max_size=count)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    color=st.booleans(),
    size=st.integers(64, 320),
    signed=st.booleans(),
    normalization=st.sampled_from(["local", "global"]),
    name=st.text(max_size=60),
    scores=st.one_of(st.none(), st.integers(1, 4).flatmap(finite_scores)),
    inset=st.tuples(st.floats(-0.2, 0.45), st.floats(-0.2, 0.45)),
)
def test_frames_of_any_shape_have_an_even_size_and_separate_texts(
    shape, color, size, signed, normalization, name, scores, inset
) -> None:
    random = np.random.default_rng(7)
    image = random.integers(0, 256, (*shape, 3) if color else shape).astype(np.uint8)
    scale = tuple(n * (1 - 2 * i) / 64 for n, i in zip(shape, inset, strict=True))
    offset = tuple(n * i for n, i in zip(shape, inset, strict=True))
    result = animation(
        len(scores) if scores else 2,
        image=image,
        geometry=Geometry((64, 64), scale, offset),
        scores=None if scores is None else np.array(scores),
        name=name,
        layer=name.translate({ord("{"): "(", ord("}"): ")"}) + ".{}",
    )
    assert_texts_are_apart(
        result, len(result) - 1, size=size, signed=signed, normalization=normalization
    )
    renderer = FrameRenderer(result, size=size, signed=signed, normalization=normalization)
    assert renderer.size[0] % 2 == renderer.size[1] % 2 == 0
    for i in range(len(result)):
        frame = renderer.frame(i)
        assert frame.shape == (renderer.size[1], renderer.size[0], 3)
