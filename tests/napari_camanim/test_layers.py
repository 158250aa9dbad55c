"""Conversion of image layers to inputs and of animations to layers, without a window."""

import copy

import numpy as np
import pytest
import torch
from napari.components import ViewerModel
from napari.layers import Image

import camanim
from napari_camanim import add_animation, animate_layer
from napari_camanim.layers.stack import set_normalization
from napari_camanim.layers.views import take_view
from napari_camanim.session import Session


def shown_slice(viewer, layer):
    return take_view(viewer, layer).read(2)


@pytest.fixture
def viewer():
    return ViewerModel()


def tiny(channels=1):
    torch.manual_seed(0)
    return camanim.Model(
        torch.nn.Sequential(
            torch.nn.Conv2d(channels, 4, 3, padding=1),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(4, 3, 3, padding=1),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
        ),
        camanim.Preprocess(size=(16, 24), channels=channels),
        ["a", "b", "c"],
    )


def edges(layer, axes):
    """Return the world coordinates of the four outer corners of a layer along two axes."""
    shape = [layer.data.shape[a] for a in axes]
    corners = []
    for y in (-0.5, shape[0] - 0.5):
        for x in (-0.5, shape[1] - 0.5):
            index = np.zeros(layer.ndim)
            index[list(axes)] = y, x
            corners.append(np.asarray(layer.data_to_world(index))[list(axes)])
    return np.array(corners)


PLACEMENTS = [
    {},
    {"scale": (0.5, 2), "translate": (10, -7)},
    {"scale": (0.5, 2), "translate": (3, 4), "rotate": 30},
    {"scale": (2, 3), "shear": [0.4], "rotate": 20},
    {"scale": (2, 3), "shear": [[1, 0], [0.4, 1]]},
    {"scale": (2, 3), "affine": [[1, 0.3, 5], [0.1, 2, -4], [0, 0, 1]]},
]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_stack_covers_the_image_whatever_its_transform(viewer, placement):
    image = viewer.add_image(np.random.default_rng(0).random((40, 30)), **placement)
    stack = animate_layer(viewer, image, tiny())
    np.testing.assert_allclose(edges(stack, (1, 2)), edges(image, (0, 1)), atol=1e-6)


def test_a_crop_covers_the_centre_of_the_image(viewer):
    image = viewer.add_image(np.random.default_rng(0).random((40, 30)), scale=(2, 2))
    stack = animate_layer(viewer, image, tiny(), fit="crop")
    top, left, bottom, right = stack.data.animation.geometry.box
    world = np.array([[top, left], [bottom, right]]) * 2 - 1
    np.testing.assert_allclose(edges(stack, (1, 2))[[0, 3]], world, atol=1e-6)


def test_units_and_axis_labels_are_kept(viewer):
    image = viewer.add_image(
        np.zeros((20, 20)), units=("um", "um"), axis_labels=("depth", "lateral")
    )
    stack = animate_layer(viewer, image, tiny())
    assert stack.axis_labels == ("layer", "depth", "lateral")
    assert [str(unit) for unit in stack.units] == ["pixel", "micrometer", "micrometer"]
    assert viewer.dims.axis_labels[0] == "layer"


def test_a_volume_is_explained_at_the_shown_slice(viewer):
    volume = np.random.default_rng(0).random((7, 20, 30))
    image = viewer.add_image(volume, scale=(4, 1, 1), translate=(100, 0, 0))
    viewer.dims.set_point(0, 100 + 4 * 5)
    model = tiny()
    stack = animate_layer(viewer, image, model)
    assert stack.data.shape[1] == 1
    assert stack.data_to_world((0, 0, 0, 0))[1] == 100 + 4 * 5
    low, high = image.contrast_limits
    alone = camanim.animate(model, volume[5], window=(low, high))
    np.testing.assert_array_equal(stack.data.animation.maps[0], alone.maps[0])
    # The slider of the volume keeps its range.
    assert viewer.dims.range[1].stop == 100 + 4 * 6


def test_a_volume_in_another_orientation(viewer):
    volume = np.random.default_rng(0).random((18, 20, 30))
    image = viewer.add_image(volume)
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_point(1, 4)
    shown = shown_slice(viewer, image)
    np.testing.assert_array_equal(shown.pixels, volume[:, 4])
    stack = animate_layer(viewer, image, tiny())
    assert stack.data.shape[1:] == (16, 1, 24)
    assert stack.translate[2] == 4


def test_a_volume_in_a_3d_view_is_refused(viewer):
    image = viewer.add_image(np.zeros((5, 20, 30)))
    viewer.dims.ndisplay = 3
    with pytest.raises(camanim.ImageError, match="2-D view"):
        shown_slice(viewer, image)


@pytest.mark.parametrize(
    ("data", "rgb", "window"),
    [
        (np.zeros((9, 9), np.uint8), False, None),
        (np.zeros((9, 9, 3), np.uint8), True, None),
        (np.full((9, 9), 900, np.uint16), False, (100, 1000)),
        (np.full((9, 9), -3, np.int16), False, (-20, 30)),
        (np.full((9, 9), 90, np.int64), False, (0, 255)),
        (np.full((9, 9), -3.5), False, (-10, 10)),
    ],
)
def test_contrast_limits_are_the_window_of_what_has_more_than_8_bits(viewer, data, rgb, window):
    image = viewer.add_image(data, rgb=rgb)
    if window is not None:
        image.contrast_limits = window
    assert shown_slice(viewer, image).window == window


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "uint32"])
def test_integers_of_a_layer_have_its_contrast_limits_as_their_window(viewer, dtype):
    model, data = tiny(), np.arange(9 * 12).reshape(9, 12).astype(dtype)
    image = viewer.add_image(data, contrast_limits=(20, 80))
    about = animate_layer(viewer, image, model).metadata["camanim"]
    expected = camanim.animate(model, data, window=(20, 80))
    assert about["raw_limits"] == [[m.min(), m.max()] for m in expected.maps]
    assert about["notes"] == []


def test_integers_of_a_colour_layer_have_the_window_of_their_values_with_a_note(viewer):
    model, data = tiny(3), np.arange(9 * 12 * 3).reshape(9, 12, 3).astype(np.uint16)
    image = viewer.add_image(data, rgb=True)
    about = animate_layer(viewer, image, model).metadata["camanim"]
    expected = camanim.animate(model, data, window=(0, 323))
    assert about["raw_limits"] == [[m.min(), m.max()] for m in expected.maps]
    assert len(about["notes"]) == 1


def test_masked_values_of_a_layer_are_refused(viewer):
    data = np.ma.masked_equal(np.arange(9 * 12).reshape(9, 12).astype(np.uint8), 5)
    image = viewer.add_image(data)
    with pytest.raises(camanim.ImageError, match="masked"):
        animate_layer(viewer, image, tiny())


def test_two_runs_give_two_stacks(viewer):
    image = viewer.add_image(np.zeros((20, 20)))
    first = animate_layer(viewer, image, tiny())
    second = animate_layer(viewer, image, tiny(), method="HiResCAM")
    third = animate_layer(viewer, image, tiny())
    assert len({first.name, second.name, third.name}) == 3
    assert len(viewer.layers) == 4
    assert first.data.animation.method == "GradCAM"


def test_a_change_of_the_normalisation_does_not_run_the_network(viewer, monkeypatch):
    image = viewer.add_image(np.random.default_rng(0).random((20, 20)))
    stack = animate_layer(viewer, image, tiny())
    animation = stack.data.animation
    monkeypatch.setattr(torch.nn.Module, "__call__", None)
    set_normalization(stack, "global")
    assert stack.data.animation is animation
    np.testing.assert_array_equal(stack.data[:], np.asarray(animation.stack("global")))
    set_normalization(stack, "local")
    np.testing.assert_array_equal(stack.data[1], animation.stack("local")[1])
    assert stack.metadata["camanim"]["normalization"] == "local"


def test_metadata_describes_target_findings_and_provenance(viewer):
    image = viewer.add_image(np.random.default_rng(0).random((20, 20)))
    stack = animate_layer(viewer, image, tiny(), road=True, target="b")
    about = stack.metadata["camanim"]
    assert about["class_name"] == "b"
    assert about["index"] == about["target"]["index"] == 1
    assert about["unit"] == "probability"
    assert about["layouts"] == ["NCHW"] * len(about["layers"])
    assert about["notes"] == []
    assert len(about["findings"]["road"]["scores"]) == len(about["layers"]) == stack.data.shape[0]
    np.testing.assert_array_equal(
        about["findings"]["road"]["scores"], stack.data.animation.road.scores
    )
    assert about["provenance"]["method"] == "GradCAM"
    assert len(about["provenance"]["weights sha256"]) == 64


def test_an_animation_can_be_added(viewer):
    pixels = np.random.default_rng(0).random((20, 20))
    image = viewer.add_image(pixels)
    animation = camanim.animate(tiny(), pixels)
    stack = add_animation(viewer, animation, image, normalization="global")
    assert isinstance(stack, Image)
    assert viewer.layers.index(stack) == viewer.layers.index(image) + 1
    np.testing.assert_array_equal(stack.data[0], animation.stack("global")[0])


def test_a_new_stack_hides_the_others(viewer):
    image = viewer.add_image(np.random.default_rng(0).random((20, 20)))
    first = animate_layer(viewer, image, tiny())
    second = animate_layer(viewer, image, tiny(), method="HiResCAM")
    assert (first.visible, second.visible) == (False, True)
    viewer.layers.selection.active = first
    assert Session.of(viewer).current is second


@pytest.mark.parametrize("shape", [(20, 30), (5, 20, 30)])
def test_a_stack_is_indexed_as_numpy_does(viewer, shape):
    image = viewer.add_image(np.random.default_rng(0).random(shape))
    data = animate_layer(viewer, image, tiny()).data
    whole = np.asarray(data)
    assert whole.shape == data.shape
    assert len(data) == len(whole)
    assert data.size == whole.size
    keys = [0, -1, slice(1, 3), Ellipsis, (), (..., 0), (0, ..., 1), None, [0, 2], (slice(None), 0)]
    for key in keys:
        np.testing.assert_array_equal(data[key], whole[key], err_msg=str(key))


def test_a_duplicate_shares_the_animation_and_not_the_normalisation(viewer):
    image = viewer.add_image(np.random.default_rng(0).random((20, 20)))
    stack = animate_layer(viewer, image, tiny())
    data = copy.deepcopy(stack.data)
    assert data.animation is stack.data.animation
    twin = Image(data, metadata=stack.metadata)
    set_normalization(twin, "global")
    assert stack.data.normalization == stack.metadata["camanim"]["normalization"] == "local"


def test_an_animation_of_another_image_is_refused(viewer):
    image = viewer.add_image(np.zeros((20, 20)))
    animation = camanim.animate(tiny(), np.zeros((10, 20)))
    with pytest.raises(camanim.ImageError, match=r"\(10, 20\)"):
        add_animation(viewer, animation, image)
    with pytest.raises(camanim.ImageError, match="viewer"):
        animate_layer(viewer, Image(np.zeros((9, 9))), tiny())
    with pytest.raises(camanim.ImageError, match="viewer"):
        animate_layer(viewer, "image", tiny())


def test_a_view_without_a_slice_of_the_image_is_refused(viewer):
    image = viewer.add_image(np.random.default_rng(0).random((20, 30)))
    animate_layer(viewer, image, tiny())
    volume = viewer.add_image(np.random.default_rng(0).random((3, 4, 20, 30)))
    viewer.dims.order = (1, 2, 0, 3)
    shown_slice(viewer, volume)
    flat = viewer.add_image(np.random.default_rng(0).random((4, 20, 30)))
    with pytest.raises(camanim.ImageError, match="roll"):
        shown_slice(viewer, flat)
    viewer.dims.ndisplay = 3
    with pytest.raises(camanim.ImageError, match="2-D view"):
        shown_slice(viewer, image)


def test_progress_includes_road(viewer):
    image = viewer.add_image(np.random.default_rng(0).random((20, 20)))
    stages = []
    animate_layer(viewer, image, tiny(), road=True, progress=lambda s, d, n: stages.append(s))
    assert {"forward", "maps", "masks", "ROAD"} <= set(stages)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_stack_of_a_box_lies_on_its_pixels_of_the_image(viewer, placement):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 80), np.uint8)
    image = viewer.add_layer(Image(pixels, **placement))
    box = (10, 20, 42, 68)
    expected = [image.data_to_world((y - 0.5, x - 0.5)) for y in (10, 42) for x in (20, 68)]
    of_box = animate_layer(viewer, image, tiny(), box=box)
    np.testing.assert_allclose(edges(of_box, (1, 2)), expected, atol=1e-6)
    animation = camanim.animate_windows(tiny(), pixels, box=box, target=0)
    of_windows = add_animation(viewer, animation, image)
    np.testing.assert_allclose(edges(of_windows, (1, 2)), expected, atol=1e-6)
    assert of_windows.metadata["camanim"]["provenance"]["windows"]["size"] == [16, 24]
    smaller = viewer.add_layer(Image(pixels[:30, :40]))
    with pytest.raises(camanim.ImageError, match="shape"):
        add_animation(viewer, animation, smaller)
