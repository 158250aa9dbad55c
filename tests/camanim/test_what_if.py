"""What-if edits: compared with images that are edited by hand, and predicted anew."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.filters import gaussian
from torch import nn
from typer.testing import CliRunner

import camanim
from camanim import EditError, ModelError, ScoreError, WhatIf, samples
from camanim.cli import app
from camanim.declarations import settings_of
from camanim.editing import Replacement, box_mask, superpixel_at, superpixels
from camanim.images import to_display
from camanim.road.imputation import weights

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
NATIVE = camanim.Preprocess(mean=MEAN, std=STD)
WAYS = ["impute", "blur", "zero", "mean", "paste"]
OFFSET = (0, -9)


@pytest.fixture
def net(zoo) -> nn.Module:
    return zoo.shake(zoo.Plain())


@pytest.fixture
def model(net) -> camanim.Model:
    return camanim.Model(net, NATIVE, classes=["a", "b", "c"])


@pytest.fixture
def mask() -> np.ndarray:
    """A region with a hole, so that rows and columns cannot be confused."""
    region = np.zeros((20, 24), bool)
    region[4:9, 11:20] = True
    region[6, 14] = False
    return region


def options(by: str) -> dict[str, object]:
    """Return settings with which the result by hand is known."""
    return {"impute": {"noise": 0.0}, "paste": {"offset": OFFSET}}.get(by, {})


def imputed(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Solve for the pixels of a mask as weighted means of their neighbours, pixel by pixel."""
    unknown = {tuple(p): i for i, p in enumerate(np.argwhere(mask))}
    matrix, right = np.zeros((len(unknown),) * 2), np.zeros((len(unknown), image.shape[-1]))
    for pixel, i in unknown.items():
        near = {
            tuple(np.add(pixel, step)): weight
            for step, weight in weights(mask.ndim).items()
            if all(0 <= q < n for q, n in zip(np.add(pixel, step), mask.shape, strict=True))
        }
        matrix[i, i] = sum(near.values())
        for other, weight in near.items():
            if other in unknown:
                matrix[i, unknown[other]] -= weight
            else:
                right[i] += weight * image[other]
    edited = image.astype(np.float64)
    edited[mask] = np.linalg.solve(matrix, right)
    return edited


def by_hand(image: np.ndarray, mask: np.ndarray, by: str) -> np.ndarray:
    """Edit an image (H, W, C) in [0, 1] with numpy."""
    edited = image.astype(np.float64)
    if by == "impute":
        return imputed(image, mask)
    if by == "zero":
        edited[mask] = 0
    elif by == "mean":
        edited[mask] = image.mean((0, 1))
    elif by == "blur":
        # Beyond the border is nothing: the kernel is renormalised.
        sigma, how = 5 / 224 * max(mask.shape), {"mode": "constant", "truncate": 3.0}
        total = gaussian(image.astype(np.float64), sigma, channel_axis=-1, **how)
        edited[mask] = (total / gaussian(np.ones(mask.shape), sigma, **how)[..., None])[mask]
    else:
        for y, x in np.argwhere(mask):
            edited[y, x] = image[y + OFFSET[0], x + OFFSET[1]]
    return edited


def probabilities(model: camanim.Model, image: np.ndarray, **how) -> dict[int, float]:
    return {p.index: p.probability for p in model.predict(np.clip(image, 0, 1), k=99, **how)}


def after(effect) -> dict[int, float]:
    return {each.index: each.after for each in effect.classes}


def before(effect) -> dict[int, float]:
    return {each.index: each.before for each in effect.classes}


# --- Against images edited by hand ----------------------------------------------------------------


@pytest.mark.parametrize("by", WAYS)
def test_an_edit_predicts_as_for_an_image_edited_by_hand(model, image, mask, by) -> None:
    what_if = WhatIf.of_image(model, image, target="b")
    effect = what_if.edit(mask, by, **options(by))
    expected = probabilities(model, by_hand(image, mask, by))
    assert after(effect) == pytest.approx(expected, abs=2e-5)
    assert before(effect) == pytest.approx(probabilities(model, image), abs=1e-6)
    assert (effect.before, effect.after) == (before(effect)[1], after(effect)[1])
    # The edit is not a small one, which any other would match.
    assert abs(effect.after - effect.before) > 1e-3


@pytest.mark.parametrize("by", WAYS)
def test_nothing_outside_of_the_region_changes(model, image, mask, by) -> None:
    what_if = WhatIf.of_image(model, image)
    what_if.edit(mask, by, **options(by))
    difference = (what_if.tensor != what_if.result.tensor)[0].any(0).numpy()
    assert not (difference & ~mask).any()
    assert difference[mask].mean() > 0.99
    assert (what_if.cells == mask).all()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_edits_of_any_region_at_any_scale_and_crop(zoo, data) -> None:
    """With the nearest pixel as interpolation, and regions of whole cells, the results are equal."""
    factor = data.draw(st.integers(1, 3))
    crop = data.draw(st.booleans())
    rows, columns = 8, (12 if crop else 8)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    image = rng.random((rows * factor, columns * factor, 3)).astype(np.float32)
    preprocess = camanim.Preprocess(
        (8, 8), resize=8, mean=MEAN, std=STD, interpolation="nearest-exact"
    )
    model = camanim.Model(zoo.shake(zoo.Plain()), preprocess)
    fit = "crop" if crop else "stretch"
    cells = rng.random((rows, columns)) < 0.3
    # One that is in the crop.
    cells[3, columns // 2] = True
    region = cells.repeat(factor, 0).repeat(factor, 1)
    edited = image.copy()
    edited[region] = 0
    effect = WhatIf.of_image(model, image, fit=fit).edit(region, "zero")
    assert after(effect) == pytest.approx(probabilities(model, edited, fit=fit), abs=1e-6)


def test_pasted_pixels_come_from_the_offset_in_pixels_of_the_image(zoo, image) -> None:
    preprocess = camanim.Preprocess((20, 24), interpolation="nearest-exact")
    model = camanim.Model(zoo.shake(zoo.Plain()), preprocess)
    large = image.repeat(2, 0).repeat(3, 1)
    region = box_mask(large.shape[:2], (8, 12, 20, 30))
    edited = large.copy()
    edited[8:20, 12:30] = large[12:24, 36:54]
    effect = WhatIf.of_image(model, large).edit(region, "paste", offset=(4, 24))
    assert after(effect) == pytest.approx(probabilities(model, edited), abs=1e-6)


def test_edits_accumulate_and_are_undone_one_by_one(model, image, mask) -> None:
    what_if = WhatIf.of_image(model, image)
    second = box_mask(what_if.shape, (7, 2, 15, 14))
    edited = by_hand(image, mask, "zero")
    # Imputed from pixels of which some are black now.
    twice = imputed(edited, second)
    once = what_if.edit(mask, "zero")
    effect = what_if.edit(second, "impute", noise=0)
    assert after(effect) == pytest.approx(probabilities(model, twice), abs=2e-5)
    assert before(effect) == before(once)
    assert [edit.replacement.by for edit in what_if.edits] == ["zero", "impute"]
    assert what_if.predict() == effect
    assert what_if.undo().replacement.by == "impute"
    assert what_if.predict() == once
    what_if.edit(second, "mean")
    what_if.clear()
    assert what_if.edits == ()
    assert what_if.undo() is None
    assert torch.equal(what_if.tensor, what_if.result.tensor)
    assert not what_if.cells.any()
    assert (what_if.image == what_if.result.image).all()
    unchanged = what_if.predict()
    assert after(unchanged) == before(unchanged) == before(once)


@pytest.mark.parametrize("by", WAYS)
def test_an_empty_region_changes_nothing(model, image, by) -> None:
    what_if = WhatIf.of_image(model, image)
    effect = what_if.edit(np.zeros(what_if.shape, bool), by, **options(by))
    assert after(effect) == before(effect)
    assert effect.score_after == effect.score_before
    assert torch.equal(what_if.tensor, what_if.result.tensor)
    assert (what_if.image == what_if.result.image).all()
    assert what_if.edits[0].box == ()


def test_a_region_that_the_network_does_not_use_has_no_effect(zoo, image, mask) -> None:
    class Half(zoo.Plain):
        def forward(self, x):
            return super().forward(x[..., :10])

    effect = WhatIf.of_image(camanim.Model(zoo.shake(Half()), NATIVE), image).edit(mask, "zero")
    assert after(effect) == before(effect)


def test_the_effect_is_that_of_the_region_test(model, image, mask) -> None:
    animation = camanim.animate(model, image, layers="blocks")
    small = mask & box_mask(mask.shape, (4, 11, 7, 16))
    finding = animation.check_region(small.astype(np.uint8) * 7, label=7, places=19, seed=3)
    effect = WhatIf(animation).edit(small.astype(np.uint8) * 7, label=7, seed=3)
    assert effect.score_after - effect.score_before == pytest.approx(finding.effect, abs=1e-5)


def test_noise_is_reproduced_by_its_seed(model, image, mask) -> None:
    what_if = WhatIf.of_image(model, image)
    inputs = []
    for setting in ({"seed": 1}, {"seed": 1}, {"seed": 2}, {"noise": 0.0}):
        what_if.edit(mask, **setting)
        inputs.append(what_if.tensor)
        what_if.undo()
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.equal(inputs[0], inputs[2])
    noise = (inputs[0] - inputs[3])[0][:, torch.from_numpy(mask)]
    assert float(noise.std()) == pytest.approx(0.01, rel=0.3)


# --- Outputs of all kinds -------------------------------------------------------------------------


class PerPixel(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))


def test_labels_are_independent_under_a_sigmoid(net, image, mask) -> None:
    model = camanim.Model(net, NATIVE, outputs="sigmoid")
    effect = WhatIf.of_image(model, image, target=2).edit(mask, "zero")
    logits = net(model.prepare(by_hand(image, mask, "zero")).tensor).detach()
    assert [after(effect)[k] for k in range(3)] == pytest.approx(logits.sigmoid()[0].tolist())
    assert effect.score_after == pytest.approx(float(logits[0, 2]), abs=1e-5)


@pytest.mark.parametrize("activation", [nn.Softmax(1), nn.Sigmoid()])
def test_outputs_that_are_probabilities_are_used_as_they_are(net, image, mask, activation) -> None:
    model = camanim.Model(nn.Sequential(*net, activation), NATIVE)
    effect = WhatIf.of_image(model, image).edit(mask, "zero")
    outputs = model.net(model.prepare(by_hand(image, mask, "zero")).tensor).detach()
    assert [after(effect)[k] for k in range(3)] == pytest.approx(outputs[0].tolist(), abs=1e-6)


def test_of_a_segmentation_the_classes_have_fractions_of_pixels(zoo, image, mask) -> None:
    model = camanim.Model(zoo.shake(PerPixel()), NATIVE, classes=["sky", "sea", "land"])
    what_if = WhatIf.of_image(model, image, target="land")
    effect = what_if.edit(mask, "zero")
    tensors = [model.prepare(x).tensor for x in (image, by_hand(image, mask, "zero"))]
    original, edited = (model.net(t).detach() for t in tensors)
    predicted = edited.argmax(1)
    for k in range(3):
        assert after(effect)[k] == pytest.approx(float((predicted == k).float().mean()))
    # The region of the target is that of the image before the edit.
    where = original.argmax(1) == 2
    expected = edited.softmax(1)[:, 2][where if where.any() else ...].mean()
    assert effect.after == pytest.approx(float(expected), abs=1e-6)
    assert effect.measure == "fraction of pixels"


def test_values_and_functions_are_targets(net, image, mask) -> None:
    regression = camanim.Model(net, NATIVE, outputs="values")
    effect = WhatIf.of_image(regression, image).edit(mask, "zero")
    outputs = net(regression.prepare(by_hand(image, mask, "zero")).tensor).detach()[0]
    assert [after(effect)[k] for k in range(3)] == pytest.approx(outputs.tolist(), abs=1e-5)
    assert effect.likeliest is None
    assert effect.unit == "score"

    def difference(output):
        return output[:, 0] - output[:, 2]

    effect = WhatIf.of_image(regression, image, target=difference).edit(mask, "zero")
    assert effect.target == "difference"
    assert effect.after == pytest.approx(float(outputs[0] - outputs[2]), abs=1e-5)


def test_an_output_without_classes_has_the_target_alone(net, image, mask) -> None:
    class Vectors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x):
            return {"tokens": self.net(x)[:, None]}

    model = camanim.Model(Vectors(), NATIVE)
    what_if = WhatIf.of_image(model, image, target=lambda output: output["tokens"][:, 0, 1])
    effect = what_if.edit(mask, "zero")
    expected = net(model.prepare(by_hand(image, mask, "zero")).tensor)[0, 1]
    assert effect.classes == ()
    assert effect.after == pytest.approx(float(expected), abs=1e-5)
    assert effect.summary()


def test_a_class_that_is_not_detected_any_more_has_0(image, mask) -> None:
    class Detector(nn.Module):
        """A box of class 1 where the image is bright, and always one of class 2."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 1)

        def forward(self, x):
            items = []
            for item in x:
                level = item[:, 4:9, 11:20].mean().clamp(0, 1) + 0 * self.conv(item[None]).sum()
                found = [(1, level)] if level > 0.3 else []
                found.append((2, 0.2 + 0 * level))
                boxes = torch.tensor([[11.0, 4, 20, 9]] * len(found))
                items.append(
                    {
                        "boxes": boxes,
                        "labels": torch.tensor([label for label, _ in found]),
                        "scores": torch.stack([score for _, score in found]),
                    }
                )
            return items

    model = camanim.Model(Detector(), camanim.Preprocess(), classes=["-", "cat", "dog"])
    effect = WhatIf.of_image(model, image, target="cat").edit(mask, "zero")
    level = float(image[4:9, 11:20].mean())
    assert before(effect) == pytest.approx({1: level, 2: 0.2}, abs=1e-5)
    assert after(effect) == pytest.approx({1: 0.0, 2: 0.2}, abs=1e-5)
    assert effect.measure == "highest detection"
    assert "dog" in effect.summary()


def test_listed_are_the_likeliest_classes_before_and_after_and_the_target(image, mask) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 40)
    )
    net[-1].weight.data *= 30
    model = camanim.Model(net, NATIVE)
    everywhere = np.ones_like(mask)
    everywhere[0, 0] = False
    effect = WhatIf.of_image(model, image, target=7, top=3).edit(everywhere, "zero")
    first = [p.index for p in model.predict(image, 3)]
    last = [p.index for p in model.predict(by_hand(image, everywhere, "zero"), 3)]
    assert {each.index for each in effect.classes} == {*first, *last, 7}
    values = [each.after for each in effect.classes]
    assert values == sorted(values, reverse=True)
    assert effect.likeliest.index == last[0]
    assert effect.likeliest_before.index == first[0]
    assert f"class {last[0]}" in repr(effect)


# --- Volumes --------------------------------------------------------------------------------------


class Volume(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
            nn.Linear(4, 3),
        )  # fmt: skip


class Flat(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(4, 3),
        )  # fmt: skip


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).random((6, 8, 10)).astype(np.float32)


def test_volumes_are_edited_in_three_axes(zoo, volume) -> None:
    preprocess = camanim.Preprocess(channels=1, dims=3)
    model = camanim.Model(zoo.shake(Volume()), preprocess)
    what_if = WhatIf.of_image(model, volume)
    region = box_mask(volume.shape, (1, 2, 3, 4, 5, 8))
    expected = imputed(volume[..., None], region)[..., 0]
    effect = what_if.edit(region, noise=0)
    assert after(effect) == pytest.approx(probabilities(model, expected), abs=2e-5)
    assert np.abs(what_if.image.astype(int) - to_display(expected)).max() <= 1
    what_if.clear()
    shifted = volume.copy()
    shifted[1:4, 2:5, 3:8] = volume[3:6, 1:4, 5:10]
    effect = what_if.edit(region, "paste", offset=(2, -1, 2))
    assert after(effect) == pytest.approx(probabilities(model, shifted), abs=1e-6)
    assert what_if.edits[0].box == (1, 2, 3, 4, 5, 8)


@pytest.mark.parametrize("by", ["impute", "blur", "zero", "mean"])
def test_slices_are_edited_each_by_itself(zoo, volume, by) -> None:
    model = camanim.Model(zoo.shake(Flat()), camanim.Preprocess(channels=1))
    what_if = WhatIf.of_image(model, volume, slices=True)
    region = box_mask(volume.shape, (1, 2, 3, 4, 5, 8))
    edited = volume.copy()
    for z in range(1, 4):
        edited[z] = by_hand(volume[z, ..., None], region[z], by)[..., 0]
    effect = what_if.edit(region, by, **options(by))
    expected = probabilities(model, edited, slices=True)
    assert after(effect) == pytest.approx(expected, abs=2e-5)
    assert np.abs(what_if.image.astype(int) - to_display(edited)).max() <= 1
    one_slice = np.zeros_like(region)
    one_slice[2] = True
    if by == "impute":
        with pytest.raises(EditError, match="whole"):
            what_if.edit(one_slice, by)


# --- The picture, and maps of the edited image ----------------------------------------------------


@pytest.mark.parametrize("colour", [True, False])
def test_the_picture_is_the_edited_image(zoo, image, mask, colour) -> None:
    model = camanim.Model(zoo.shake(zoo.Plain()), NATIVE)
    given = image if colour else image[..., 0]
    what_if = WhatIf.of_image(model, given)
    assert (what_if.image == what_if.result.image).all()
    what_if.edit(mask, "paste", offset=OFFSET)
    expected = by_hand(image if colour else image[..., :1], mask, "paste")
    shown = expected if colour else expected[..., 0]
    assert what_if.image.shape == what_if.result.image.shape
    assert np.abs(what_if.image.astype(int) - np.round(shown * 255)).max() <= 1


def test_colours_become_grey_where_the_network_gets_grey(image, mask) -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    what_if = WhatIf.of_image(camanim.Model(net, camanim.Preprocess(channels=1)), image)
    what_if.edit(mask, "zero")
    assert (what_if.image[mask] == 0).all()
    assert (what_if.image[~mask] == what_if.result.image[~mask]).all()


def test_in_a_crop_only_pixels_of_the_crop_are_edited(zoo) -> None:
    wide = np.random.default_rng(0).random((16, 30, 3)).astype(np.float32)
    model = camanim.Model(zoo.shake(zoo.Plain()), camanim.Preprocess((8, 8), resize=8))
    what_if = WhatIf.of_image(model, wide, fit="crop")
    region = box_mask(what_if.shape, (4, 0, 12, 30))
    what_if.edit(region, "zero")
    _, left, _, right = what_if.result.geometry.box
    expected = what_if.result.image.copy()
    expected[4:12, round(left) : round(right)] = 0
    assert (what_if.image == expected).all()
    with pytest.raises(EditError, match="outside"):
        what_if.edit(box_mask(what_if.shape, (0, 0, 16, 4)), "zero")


def test_with_a_custom_preprocessing_the_picture_is_fitted_with_a_note(net, image, mask) -> None:
    def preprocess(array):
        return (torch.from_numpy(array).movedim(-1, 0) - 0.3) * 7

    what_if = WhatIf.of_image(camanim.Model(net, preprocess), image)
    assert any("custom" in note for note in what_if.notes)
    what_if.edit(mask, "paste", offset=OFFSET)
    expected = by_hand(image, mask, "paste")
    assert np.abs(what_if.image.astype(int) - np.round(expected * 255)).max() <= 1
    with pytest.raises(EditError, match="black"):
        what_if.edit(mask, "zero")


@pytest.mark.parametrize("name", ["edited.png", "edited.tif"])
def test_the_picture_is_written(model, image, mask, tmp_path, name) -> None:
    what_if = WhatIf.of_image(model, image)
    what_if.edit(mask)
    path = what_if.write_image(tmp_path / name)
    assert (camanim.read_image(path) == what_if.image).all()
    with pytest.raises(camanim.RenderError):
        what_if.write_image(tmp_path / "edited.jpg")


def test_a_volume_is_written_as_tiff(zoo, volume, tmp_path) -> None:
    model = camanim.Model(zoo.shake(Volume()), camanim.Preprocess(channels=1, dims=3))
    what_if = WhatIf.of_image(model, volume)
    what_if.edit(box_mask(volume.shape, (1, 2, 3, 4, 5, 8)), "zero")
    written = tifffile.imread(what_if.write_image(tmp_path / "volume.tif"))
    assert (written == what_if.image).all()
    with pytest.raises(camanim.RenderError, match="tif"):
        what_if.write_image(tmp_path / "volume.png")


@pytest.mark.parametrize("from_result", [True, False])
def test_maps_of_the_edited_image_are_those_of_an_image_edited_by_hand(
    model, image, mask, from_result
) -> None:
    how = {"method": "HiResCAM", "target": 1, "layers": "blocks"}
    if from_result:
        what_if = WhatIf(camanim.animate(model, image, **how))
    else:
        what_if = WhatIf.of_image(model, image, **how)
    what_if.edit(mask, "zero")
    explained = what_if.explain()
    expected = camanim.animate(model, by_hand(image, mask, "zero"), **how)
    assert isinstance(explained, camanim.Animation)
    assert [a.label for a in explained.layers] == [a.label for a in expected.layers]
    for left, right in zip(explained.maps, expected.maps, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)
    assert explained.probability == pytest.approx(expected.probability, abs=1e-6)
    assert (explained.image == what_if.image).all()
    assert explained.provenance["edits"] == [edit.describe() for edit in what_if.edits]
    assert explained.provenance["edits"][0]["box"] == [4, 11, 9, 20]
    assert any("edited" in note for note in explained.notes)
    assert "edits" not in what_if.result.provenance
    # Findings about the edited image are computed as about any other.
    assert explained.score(baseline=False).probability == pytest.approx(explained.probability)


def test_without_edits_the_maps_are_those_of_the_image(model, image) -> None:
    animation = camanim.animate(model, image, layers="blocks")
    explained = WhatIf(animation).explain()
    for left, right in zip(explained.maps, animation.maps, strict=True):
        np.testing.assert_array_equal(left, right)
    assert "edits" not in explained.provenance
    assert explained.notes == animation.notes


def test_another_target_and_method_of_the_edited_image(model, image, mask) -> None:
    what_if = WhatIf.of_image(model, image, target="a")
    what_if.edit(mask, "zero")
    other = what_if.explain(target="c", method="LayerCAM", layers="Conv2d")
    assert (other.target.name, other.method) == ("c", "LayerCAM")
    assert {layer.kind for layer in other.layers} == {"Conv2d"}


# --- Faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "settings", "words"),
    [
        (np.zeros((24, 20), bool), {}, "shape"),
        (np.full((20, 24), 0.5), {}, "threshold"),
        (np.ones((20, 24), bool), {}, "whole"),
        ([[1, 2], [3]], {}, "array"),
        ("mask.png", {}, "read_image"),
        (None, {"by": "erase"}, "impute"),
        (None, {"by": "paste"}, "offset"),
        (None, {"by": "blur", "offset": (1, 2)}, "leave it out"),
        (None, {"by": "paste", "offset": (1, 2, 3)}, "dy, dx"),
        (None, {"by": "paste", "offset": "1,2"}, "offset"),
        (None, {"by": "paste", "offset": (0, float("nan"))}, "offset"),
        (None, {"by": "paste", "offset": (0, 15)}, "outside"),
        (None, {"by": "paste", "offset": (-9, 0)}, "outside"),
        (None, {"by": "paste", "offset": (0.2, 0)}, "larger"),
        (None, {"by": "blur", "sigma": 0}, "sigma"),
        (None, {"noise": -1}, "noise"),
        (None, {"nois": 1}, "did you mean noise"),
    ],
)
def test_wrong_edits_are_refused_in_a_sentence(model, image, mask, region, settings, words) -> None:
    what_if = WhatIf.of_image(model, image)
    first = what_if.edit(mask, "zero")
    with pytest.raises(EditError, match=words) as raised:
        what_if.edit(mask if region is None else region, **settings)
    assert str(raised.value)[-1] in ".?"
    assert len(what_if.edits) == 1
    assert what_if.predict() == first


def test_a_plane_is_refused(zoo, volume) -> None:
    model = camanim.Model(zoo.shake(Volume()), camanim.Preprocess(channels=1, dims=3))
    animation = camanim.animate(model, volume)
    with pytest.raises(EditError, match="whole volume"):
        WhatIf(animation.plane(2))
    animation.computed_with = None
    with pytest.raises(ScoreError, match="animate"):
        WhatIf(animation).explain()


def test_the_network_is_left_as_it_was(zoo, image, mask) -> None:
    net = zoo.shake(zoo.Plain()).train()
    model = camanim.Model(net, NATIVE)
    state = zoo.state_of(net)
    what_if = WhatIf.of_image(model, image)
    what_if.edit(mask)
    what_if.explain()
    assert zoo.state_of(net) == state
    assert torch.is_grad_enabled()


def test_a_network_that_fails_on_an_edit_leaves_the_edits_as_before(zoo, image, mask) -> None:
    class Fragile(zoo.Plain):
        def forward(self, x):
            if bool((x[0, :, 5, 12] == x[0, :, 5, 13]).all()):
                raise ValueError("equal neighbours")
            return super().forward(x)

    net = zoo.shake(Fragile()).train()
    state = zoo.state_of(net)
    what_if = WhatIf.of_image(camanim.Model(net, NATIVE), image)
    with pytest.raises(ModelError, match="equal neighbours"):
        what_if.edit(mask, "zero")
    assert what_if.edits == ()
    assert zoo.state_of(net) == state
    assert after(what_if.predict()) == before(what_if.predict())


def test_a_network_that_overwrites_its_input_gets_copies(zoo, image, mask) -> None:
    class Overwrites(zoo.Plain):
        def forward(self, x):
            return super().forward(x.mul_(0.5))

    model = camanim.Model(zoo.shake(Overwrites()), NATIVE)
    what_if = WhatIf.of_image(model, image)
    first = what_if.edit(mask, "zero")
    assert what_if.predict() == first


def test_training_in_between_is_noticed(model, image, mask) -> None:
    what_if = WhatIf.of_image(model, image)
    what_if.edit(mask, "zero")
    # As averaging of weights does; the version of the tensor is unchanged.
    model.net[-1].weight.data.mul_(-3)
    effect = what_if.predict()
    assert before(effect) == pytest.approx(probabilities(model, image), abs=1e-6)
    assert after(effect) == pytest.approx(
        probabilities(model, by_hand(image, mask, "zero")), abs=1e-6
    )


def test_half_precision_and_doubles_are_the_networks(zoo, image, mask) -> None:
    double = camanim.Model(zoo.shake(zoo.Plain()).double(), NATIVE)
    effect = WhatIf.of_image(double, image).edit(mask, noise=0)
    expected = probabilities(double, imputed(image, mask))
    assert after(effect) == pytest.approx(expected, abs=2e-5)
    single = camanim.Model(zoo.shake(zoo.Plain()), NATIVE)
    half = WhatIf.of_image(single, image, precision="bfloat16").edit(mask, noise=0)
    assert after(half) == pytest.approx(expected, abs=2e-2)
    assert after(half) != after(effect)


# --- Regions --------------------------------------------------------------------------------------


def test_a_box_is_that_of_slices() -> None:
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:8] = True
    assert (box_mask((6, 8), (1, 2, 4, 9)) == expected).all()
    assert (box_mask((6, 8), [1.2, 1.9, 4.4, 30]) == expected).all()
    for wrong in [(1, 2, 1, 5), (4, 2, 1, 5), (1, 2, 3), (7, 0, 9, 8), "1,2", (0, 0, np.nan, 4)]:
        with pytest.raises(EditError):
            box_mask((6, 8), wrong)


@pytest.mark.parametrize("kind", ["colour", "grey", "volume"])
def test_superpixels_follow_the_edges_of_the_picture(kind) -> None:
    """Four quadrants of different brightness: no superpixel is in two of them."""
    quadrants = np.kron([[0, 1], [2, 3]], np.ones((24, 24), int))
    levels = np.array([10, 90, 170, 250], np.uint8)[quadrants]
    image = {
        "grey": levels,
        "colour": np.stack([levels, levels[::-1], levels.T], -1),
        "volume": np.stack([levels] * 6),
    }[kind]
    labels = superpixels(image, 16 if kind != "volume" else 40)
    truth = np.stack([quadrants] * 6) if kind == "volume" else quadrants
    assert labels.shape == truth.shape
    assert labels.min() == 1
    assert labels.max() >= 8
    assert set(np.unique(labels)) == set(range(1, labels.max() + 1))
    for label in range(1, labels.max() + 1):
        inside = truth[labels == label]
        assert np.bincount(inside).max() / len(inside) > 0.95
    point = (3, 30, 4) if kind == "volume" else (30.4, 3.6)
    region = superpixel_at(labels, point)
    assert (region == (labels == labels[tuple(np.round(point).astype(int))])).all()


def test_points_outside_and_wrong_settings_are_refused() -> None:
    labels = superpixels(np.zeros((12, 12), np.uint8), 4)
    for point in [(-1, 3), (3, 11.6), (1, 2, 3), (np.nan, 1), "ab"]:
        with pytest.raises(EditError):
            superpixel_at(labels, point)
    assert superpixel_at(labels, (-0.4, 11.4))[0, 11]
    with pytest.raises(EditError, match="count"):
        superpixels(np.zeros((12, 12), np.uint8), 0)


def test_superpixels_of_what_is_explained_are_regions(zoo, volume, model, image) -> None:
    what_if = WhatIf.of_image(model, image)
    labels = what_if.superpixels(12)
    effect = what_if.edit(labels, "zero", label=int(labels[10, 10]))
    assert (what_if.cells == superpixel_at(labels, (10, 10))).all()
    assert effect.after != effect.before
    # Of a volume whose last axis could be that of colours.
    narrow = camanim.Model(zoo.shake(Volume()), camanim.Preprocess(channels=1, dims=3))
    assert WhatIf.of_image(narrow, volume[..., :5]).superpixels(8).shape == (6, 8, 5)


def test_every_setting_has_a_description() -> None:
    assert list(settings_of(Replacement)) == [f.name for f in fields(Replacement)]
    assert all(len(setting.help) > 20 for setting in settings_of(Replacement).values())
    assert list(settings_of(Replacement)["by"].choices) == WAYS


# --- A trained network ----------------------------------------------------------------------------


def test_black_pixels_of_a_photograph(torch_home, shared) -> None:
    model = camanim.load_model("torchvision/mobilenet_v2")
    cat = np.asarray(Image.open(shared / "images" / "cat.jpg").resize((224, 224)))
    face = box_mask((224, 224), (30, 90, 130, 180))
    black = cat.copy()
    black[face] = 0
    effect = WhatIf.of_image(model, cat).edit(face, "zero")
    assert effect.target == "Egyptian cat"
    assert after(effect) == pytest.approx(
        {k: p for k, p in probabilities_of_all(model, black).items() if k in after(effect)},
        abs=1e-5,
    )
    assert effect.likeliest.index == model.predict(black, 1)[0].index


def probabilities_of_all(model: camanim.Model, image: np.ndarray) -> dict[int, float]:
    return {p.index: p.probability for p in model.predict(image, k=1000)}


def test_without_the_object_its_class_is_unlikely_but_without_background_it_is_not(
    torch_home, shared
) -> None:
    model = camanim.load_model("torchvision/mobilenet_v2")
    dog = camanim.read_image(shared / "images" / "samoyed.png")
    mask = camanim.read_image(shared / "images" / "samoyed_mask.png") > 127
    mask = mask if mask.ndim == 2 else mask[..., 0]
    what_if = WhatIf.of_image(model, dog, target="Samoyed")
    without = what_if.edit(mask)
    assert without.after < 0.1 < 0.8 < without.before
    assert without.likeliest.name != "Samoyed"
    what_if.clear()
    assert what_if.edit(~mask).after > 0.3


# --- Command line ---------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(
        app, ["what-if", *map(str, arguments)], env={"COLUMNS": "200", "TERM": "dumb"}
    )


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(samples.image("malignant_1")).save(path)
    return path


def test_the_command_prints_the_effect_and_writes_the_picture(picture, tmp_path) -> None:
    what_if = WhatIf.of_image(
        camanim.load_model("demo/ultrasound"), samples.image("malignant_1"), target="benign"
    )
    effect = what_if.edit(box_mask(what_if.shape, (60, 30, 140, 120)), "paste", offset=(-20, 10))
    out = tmp_path / "edited.png"
    done = run(
        picture, "--target", "benign", "--box", "60,30,140,120", "--by", "paste",
        "--offset", "-20,10", "--out", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert effect.summary() in done.output
    for each in effect.classes:
        row = next(line for line in done.output.splitlines() if each.name in line)
        assert f"{each.before:.3f}" in row
        assert f"{each.after:.3f}" in row
    assert (camanim.read_image(out) == what_if.image).all()


def test_the_command_takes_a_mask_with_labels(picture, tmp_path) -> None:
    mask = samples.mask("malignant_1").astype(np.uint8) * 3
    mask[:9] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    what_if = WhatIf.of_image(camanim.load_model("demo/ultrasound"), samples.image("malignant_1"))
    expected = what_if.edit(mask, label=3).summary()
    done = run(picture, "--mask", tmp_path / "mask.png", "--mask-label", 3)
    assert expected in done.output


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 2),
        (("--box", "0,0,9,9", "--mask", "mask.png"), 2),
        (("--box", "0,0,9,9", "--mask-label", 1), 2),
        (("--box", "0,0,9,9", "--by", "erase"), 2),
        (("--box", "0,0,9"), 1),
        (("--box", "0,0,999,999"), 1),
        (("--box", "0,0,9,9", "--by", "paste"), 1),
        (("--box", "0,0,9,9", "--by", "paste", "--offset", "a,b"), 1),
        (("--box", "0,0,9,9", "--out", "edited.jpg"), 1),
    ],
)
def test_wrong_usage_of_the_command_is_an_error(picture, arguments, code) -> None:
    words = ["what-if", str(picture), *map(str, arguments)]
    done = subprocess.run(
        [sys.executable, "-c", "from camanim.cli import main; main()", *words],
        capture_output=True, text=True, check=False, cwd=picture.parent,
    )  # fmt: skip
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Error" in done.stderr or "Usage" in done.stderr
    assert [path.name for path in picture.parent.iterdir()] == ["picture.png"]
