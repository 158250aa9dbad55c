"""Image layer to engine input, animation to layer: axes, values and places, without a window."""

import numpy as np
import pytest
import torch
from napari.components import ViewerModel
from napari.layers import Image

import camanim
from napari_camanim import add_animation, animate_layer
from napari_camanim._layers import current_stack, set_normalization, show_index, shown_slice


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
    """The world positions of the four outer corners of a layer, in its two shown axes."""
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
    # The volume's own slider still moves the image, and the stack is seen at its slice only.
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
        (np.full((9, 9), -3.5), False, (-10, 10)),
    ],
)
def test_contrast_limits_are_the_window_of_what_has_more_than_8_bits(viewer, data, rgb, window):
    image = viewer.add_image(data, rgb=rgb)
    if window is not None:
        image.contrast_limits = window
    assert shown_slice(viewer, image).window == window


def test_two_runs_give_two_stacks(viewer):
    image = viewer.add_image(np.zeros((20, 20)))
    first = animate_layer(viewer, image, tiny())
    second = animate_layer(viewer, image, tiny(), method="HiResCAM")
    third = animate_layer(viewer, image, tiny())
    assert len({first.name, second.name, third.name}) == 3
    assert len(viewer.layers) == 4
    assert first.data.animation.method == "GradCAM"


def test_switching_normalisation_computes_nothing_again(viewer, monkeypatch):
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


def test_metadata_is_plain_and_says_what_was_done(viewer):
    image = viewer.add_image(np.random.default_rng(0).random((20, 20)))
    stack = animate_layer(viewer, image, tiny(), road=True, target="b")
    about = stack.metadata["camanim"]
    assert about["class_name"] == "b"
    assert about["target"] == 1
    assert len(about["scores"]) == len(about["layers"]) == stack.data.shape[0]
    np.testing.assert_array_equal(about["scores"], stack.data.animation.road.scores)
    assert about["provenance"]["method"] == "GradCAM"
    assert len(about["provenance"]["weights sha256"]) == 64


def test_the_canvas_names_the_shown_layer_and_forgets_a_removed_stack(viewer):
    before = len(viewer.dims.events.point.callbacks)
    image = viewer.add_image(np.random.default_rng(0).random((20, 20)))
    stack = animate_layer(viewer, image, tiny())
    text = viewer.canvas.overlays["camanim"]
    show_index(viewer, stack, 0)
    assert text.text.startswith("0\nConv2d  1/3")
    show_index(viewer, stack, 1)
    assert text.text.startswith("1\nMaxPool2d  2/3")
    assert current_stack(viewer) is stack
    stack.visible = False
    viewer.layers.selection.active = image
    assert not text.visible
    viewer.layers.remove(stack)
    assert "camanim" not in viewer.canvas.overlays
    assert len(viewer.dims.events.point.callbacks) == before


def test_an_animation_of_a_script_can_be_added(viewer):
    pixels = np.random.default_rng(0).random((20, 20))
    image = viewer.add_image(pixels)
    animation = camanim.animate(tiny(), pixels)
    stack = add_animation(viewer, animation, image, normalization="global")
    assert isinstance(stack, Image)
    assert viewer.layers.index(stack) == viewer.layers.index(image) + 1
    np.testing.assert_array_equal(stack.data[0], animation.stack("global")[0])
