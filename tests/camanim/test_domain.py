"""What a network was trained on, images that do not fit, random weights, labels stored as images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data, measure
from torch import nn

import camanim
from camanim import samples
from camanim.images import Preprocess, color_of, why_labels
from camanim.models import domain_note, suggest_model

from .conftest import SHARED, Plain

RNG = np.random.default_rng(0)
PHOTO = data.astronaut()[::4, ::4]
GREY = data.camera()[::4, ::4]
PICTURES = [
    "astronaut", "brick", "camera", "cat", "cell", "checkerboard", "clock", "coffee", "coins",
    "colorwheel", "grass", "gravel", "hubble_deep_field", "immunohistochemistry", "logo",
    "microaneurysms", "moon", "page", "retina", "rocket", "shepp_logan_phantom", "text",
]  # fmt: skip


def pictures() -> list[np.ndarray]:
    shipped = [samples.image(name) for name in samples.names()]
    photographs = [
        camanim.read_image(path)
        for path in sorted((SHARED / "images").glob("*"))
        if "mask" not in path.name
    ]
    return [*(getattr(data, name)() for name in PICTURES), *shipped, *photographs]


def test_no_picture_is_taken_for_labels():
    assert [i for i, image in enumerate(pictures()) if why_labels(image)] == []


def test_pictures_of_more_bits_are_not_taken_for_labels():
    for image in pictures():
        if image.dtype == np.uint8 and image.ndim == 2 and len(np.unique(image)) > 8:
            assert why_labels(image.astype(np.int32)) is None
            assert why_labels((image.astype(np.uint16) << 8) + 3) is None


def test_clinical_pictures_are_not_taken_for_labels():
    paths = sorted((SHARED / "busi").glob("*/*"))[::20]
    if not paths:
        pytest.skip("the images are not here")
    images = [camanim.read_image(path) for path in paths]
    assert not any(map(why_labels, images))
    assert {color_of(image) for image in images} == {"grey"}


def segmentations() -> dict[str, np.ndarray]:
    coins = measure.label(data.coins() > 120)
    disk = np.hypot(*np.mgrid[-40:40, -40:40]) < 20
    cells = measure.label(data.binary_blobs(128, blob_size_fraction=0.1, rng=0))
    return {
        "instances int32": coins.astype(np.int32),
        "instances uint16": coins.astype(np.uint16),
        "cells": cells,
        "few classes in 8 bits": (cells % 5).astype(np.uint8),
        "mask bool": disk,
        "mask 0 1": disk.astype(np.uint8),
        "mask 0 255": disk.astype(np.uint8) * 255,
        "mask int64": disk.astype(np.int64) * 7,
        "one channel": disk.astype(np.uint8)[..., None],
        "volume": np.stack([cells] * 3).astype(np.uint16),
    }


@pytest.mark.parametrize("name", segmentations())
def test_labels_are_refused(name):
    assert why_labels(segmentations()[name])


def test_shipped_masks_are_labels():
    masks = [samples.mask(name) for name in samples.names()]
    assert all(why_labels(mask) for mask in masks if mask is not None)


def test_what_could_be_a_picture_is_kept():
    flat_colors = np.kron(RNG.integers(0, 4, (8, 8, 3)) * 60, np.ones((16, 16, 1))).astype(np.uint8)
    grey_levels = np.kron(RNG.integers(0, 4, (8, 8)) * 60, np.ones((16, 16))).astype(np.uint8)
    for image in (
        flat_colors, grey_levels, np.zeros((30, 30), np.uint8), np.full((30, 30), 5, np.int32),
        RNG.integers(0, 4, (64, 64)).astype(np.int32), grey_levels.astype(np.float32),
        np.zeros((0, 4), np.uint8),
    ):  # fmt: skip
        assert why_labels(image) is None


def test_animate_notes_labels_and_explains_them_nevertheless():
    torch.manual_seed(0)
    model = camanim.Model(Plain().eval())
    animation = camanim.animate(model, segmentations()["instances uint16"])
    assert why_labels(segmentations()["instances uint16"]) in animation.notes


def test_colour():
    assert {
        color_of(getattr(data, name)()) for name in ("astronaut", "hubble_deep_field", "retina")
    } == {"colour"}
    grey = np.stack([GREY] * 3, -1)
    noisy = np.clip(grey + RNG.integers(-6, 7, grey.shape), 0, 255).astype(np.uint8)
    for image in (GREY, grey, noisy, grey / 255, np.stack([GREY] * 5)):
        assert color_of(image) == "grey"
    marked = grey.copy()
    marked[:3, :40] = (255, 255, 0)
    assert color_of(marked) == ""
    assert color_of(PHOTO / 255) == color_of(PHOTO.astype(np.uint16) * 257) == "colour"


def model_of(domain: str, channels: int = 3) -> camanim.Model:
    torch.manual_seed(0)
    net = Plain().eval()
    net[0] = nn.Conv2d(channels, 6, 3, padding=1)
    return camanim.Model(net, Preprocess(channels=channels, size=(32, 32)), domain=domain)


@pytest.mark.parametrize(
    ("domain", "channels", "image", "noted"),
    [
        ("ImageNet photographs", 3, PHOTO, False),
        ("ImageNet photographs", 3, GREY, True),
        ("grey ultrasound", 1, PHOTO, True),
        ("grey ultrasound", 1, GREY, False),
        ("", 1, PHOTO, True),
        ("", 3, PHOTO, False),
        ("", 3, GREY, False),
        ("stained tissue", 3, GREY, False),
        ("photographs in grey", 1, GREY, False),
    ],
)
def test_an_image_that_does_not_fit_is_noted(domain, channels, image, noted):
    model = model_of(domain, channels)
    note = domain_note(model, image)
    assert bool(note) == noted
    if noted:
        assert domain in note
    assert (note in camanim.animate(model, image).notes) == noted


def test_slices_are_no_photographs():
    volume = np.stack([GREY] * 3)
    model = model_of("ImageNet photographs")
    assert domain_note(model, volume, slices=True)
    assert (
        domain_note(model, volume, slices=True) in camanim.animate(model, volume, slices=True).notes
    )


def test_sources_state_the_domain():
    demo = camanim.load_model("demo/ultrasound")
    assert "ultrasound" in demo.domain
    assert not demo.random_weights
    assert domain_note(demo, PHOTO)
    assert not domain_note(demo, samples.image("malignant_1"))
    for name in ("torchvision/resnet18", "timm/resnet18", "demo/ultrasound"):
        model = camanim.load_model(name, weights=None)
        assert model.domain == ""
        assert model.random_weights


def test_a_card_keeps_the_domain(tmp_path):
    model = camanim.load_model("demo/ultrasound")
    model.domain = "ultrasound of phantoms"
    assert (
        camanim.load_model(model.save_card(tmp_path / "card.toml")).domain
        == "ultrasound of phantoms"
    )
    card = tmp_path / "other.toml"
    card.write_text('source = "demo/ultrasound"\ndomain = 3\n')
    with pytest.raises(camanim.ModelError, match="domain"):
        camanim.load_model(card)


def test_random_weights_are_named_wherever_a_result_is_read(tmp_path):
    from camanim.cli.terminal import report
    from camanim.render.frames import FrameRenderer
    from camanim.render.plots import plot

    model = camanim.load_model("torchvision/squeezenet1_1", weights=None)
    assert "random" in repr(model)
    result = camanim.animate(model, PHOTO, layers="blocks")
    assert "random weights" in result.caption(0)
    assert "random weights" in repr(result)
    assert "random weights" in result.plane().provenance["model"]
    assert any("random weights" in note for note in result.notes)
    assert {row["weights"] for row in result.table()} == {"random"}
    result.write_table(tmp_path / "table.csv")
    result.measure("drop")
    assert "random weights" in plot(result).get_suptitle()
    assert FrameRenderer(result)  # its text is that of provenance["model"]
    report(result, [])


def test_trained_and_loaded_weights_are_not_called_random(tmp_path):
    model = camanim.load_model("torchvision/squeezenet1_1", weights=None)
    torch.save(model.net.state_dict(), tmp_path / "weights.pth")
    loaded = camanim.load_model("torchvision/squeezenet1_1", weights=tmp_path / "weights.pth")
    assert not loaded.random_weights
    assert not camanim.load_model(model, weights=tmp_path / "weights.pth").random_weights
    assert model.random_weights
    assert camanim.load_model(model).random_weights
    result = camanim.animate(model, PHOTO, layers="blocks")
    assert model.random_weights
    assert "weights" not in camanim.load_model(model.save_card(tmp_path / "c.toml")).name
    with torch.no_grad():
        next(model.net.parameters()).mul_(2)
    assert not model.random_weights
    assert "random" in result.caption(0)
    assert "random" not in camanim.animate(model, PHOTO, layers="blocks").caption(0)


def test_monai_publishes_no_weights():
    name = "monai/DenseNet121?spatial_dims=2&in_channels=1&out_channels=2"
    model = camanim.load_model(name)
    assert model.random_weights
    assert model.to("meta").random_weights


def test_a_first_network():
    listed = camanim.list_models()
    for image in pictures():
        name = suggest_model(image)
        is_sample = any(np.array_equal(image, samples.image(n)) for n in samples.names())
        assert name == ("demo/ultrasound" if is_sample else "torchvision/mobilenet_v2")
        assert name in listed
    assert suggest_model(Image.fromarray(PHOTO)) == "torchvision/mobilenet_v2"
    assert suggest_model(np.zeros((5, 20, 20), np.uint8)) is None
    assert suggest_model(np.zeros((20, 20, 7), np.uint8)) is None
    assert suggest_model(segmentations()["instances int32"]) is None
