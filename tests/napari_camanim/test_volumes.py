"""Volumes: explained regions and positions of stacks, without a window."""

import numpy as np
import pytest
import torch
from napari.components import ViewerModel
from torch import nn

import camanim
from napari_camanim import add_animation, animate_layer
from napari_camanim.canvas.badge import Badge
from napari_camanim.layers.stack import is_input
from napari_camanim.layers.views import take_view
from napari_camanim.session import Session, shown_plane


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def volume():
    return np.random.default_rng(0).random((12, 20, 30)).astype(np.float32)


def tiny(dims, size=None):
    torch.manual_seed(0)
    conv, pool = (nn.Conv2d, nn.MaxPool2d) if dims == 2 else (nn.Conv3d, nn.MaxPool3d)
    net = nn.Sequential(
        conv(1, 4, 3, padding=1),
        nn.ReLU(),
        pool(2),
        conv(4, 3, 3, padding=1),
        (nn.AdaptiveAvgPool2d if dims == 2 else nn.AdaptiveAvgPool3d)(1),
        nn.Flatten(),
    )
    return camanim.Model(net, camanim.Preprocess(size=size, channels=1, dims=dims), ["a", "b", "c"])


def box(layer, axes):
    """Return the world coordinates of the first and last edge of a layer along some axes."""
    ends = []
    for end in (-0.5, 0.5):
        index = np.zeros(layer.ndim)
        for axis in axes:
            index[axis] = end if end < 0 else layer.data.shape[axis] - 0.5
        ends.append(np.asarray(layer.data_to_world(index))[list(axes)])
    return np.array(ends)


@pytest.mark.parametrize("size", [None, (8, 16, 16)])
def test_a_3d_network_explains_a_volume_with_spacing(viewer, volume, size):
    image = viewer.add_image(volume, scale=(4, 0.5, 0.5), translate=(100, 3, -2), units=("mm",) * 3)
    stack = animate_layer(viewer, image, tiny(3, size))
    assert stack.data.shape == (4, *(size or volume.shape))
    np.testing.assert_allclose(box(stack, (1, 2, 3)), box(image, (0, 1, 2)), atol=1e-6)
    assert stack.axis_labels == ("layer", "z", "y", "x")
    assert [str(unit) for unit in stack.units] == ["pixel"] + ["millimeter"] * 3
    alone = camanim.animate(tiny(3, size), volume, window=image.contrast_limits)
    np.testing.assert_array_equal(stack.data.animation.maps[0], alone.maps[0])


def test_a_2d_network_explains_all_slices_or_the_shown_one(viewer, volume):
    image = viewer.add_image(volume, scale=(4, 1, 1))
    viewer.dims.set_point(0, 4 * 7)
    every = animate_layer(viewer, image, tiny(2, (16, 24)), slices=True, target="b")
    one = animate_layer(viewer, image, tiny(2, (16, 24)), target="b")
    assert every.data.shape == (4, 12, 16, 24)
    assert one.data.shape == (4, 1, 16, 24)
    np.testing.assert_allclose(box(every, (1, 2, 3)), box(image, (0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(
        every.data.animation.maps[0][7], one.data.animation.maps[0], rtol=1e-4, atol=1e-7
    )


def test_the_shown_volume_of_a_time_series_is_explained(viewer, volume):
    frames = np.stack([volume, volume[::-1], 1 - volume])
    image = viewer.add_image(frames, scale=(10, 2, 1, 1), translate=(5, 0, 0, 0))
    viewer.dims.set_point(0, 5 + 10 * 2)
    stack = animate_layer(viewer, image, tiny(3))
    assert stack.data.shape == (4, 1, 12, 20, 30)
    assert stack.data_to_world((0,) * 5)[1] == 25
    alone = camanim.animate(tiny(3), frames[2], window=image.contrast_limits)
    np.testing.assert_array_equal(stack.data.animation.maps[0], alone.maps[0])
    np.testing.assert_array_equal(stack.data[1, 0, 3], alone.stack()[1, 3])
    viewer.dims.set_point(viewer.dims.ndim - 4, 1000)
    assert take_view(viewer, image).read(3).pixels.shape == volume.shape


def test_captions_and_sliders_of_a_volume(viewer, volume):
    image = viewer.add_image(volume, scale=(4, 1, 1))
    stack = animate_layer(viewer, image, tiny(3))
    session = Session.of(viewer)
    Badge.on(session).whole = True
    text = viewer.canvas.overlays["camanim"]
    assert viewer.dims.axis_labels == ("layer", "z", "y", "x")
    for index in range(4):
        session.go_to(index)
        assert text.visible
        assert text.text == stack.metadata["camanim"]["captions"][index]
    viewer.dims.ndisplay = 3
    assert text.visible
    viewer.dims.ndisplay = 2
    viewer.dims.order = (1, 0, 2, 3)
    assert text.visible
    viewer.dims.order = (1, 2, 0, 3)
    assert not text.visible
    session.set_normalization("global")
    np.testing.assert_array_equal(stack.data[2], stack.data.animation.stack("global")[2])


def test_the_shown_plane_is_that_of_the_image(viewer, volume):
    image = viewer.add_image(volume, scale=(4, 1, 1), translate=(100, 0, 0))
    stack = animate_layer(viewer, image, tiny(3, (6, 16, 16)))
    for z in (0, 5, 11):
        viewer.dims.set_point(1, 100 + 4 * z)
        assert shown_plane(viewer, stack) == z
    viewer.dims.ndisplay = 3
    assert shown_plane(viewer, stack) is None
    viewer.dims.ndisplay = 2
    flat = viewer.add_image(volume[0])
    assert shown_plane(viewer, animate_layer(viewer, flat, tiny(2))) is None


def test_only_indexed_planes_are_computed(viewer, volume, monkeypatch):
    stack = animate_layer(viewer, viewer.add_image(volume), tiny(3))
    computed = []
    section = camanim.animation.Animation.stack(stack.data.animation).__class__.section
    monkeypatch.setattr(
        "camanim.stack.Stack.section", lambda *key: computed.append(key[1:]) or section(*key)
    )
    monkeypatch.setattr("camanim.stack.Stack.plane", None)
    assert stack.data[2, 5].shape == (20, 30)
    assert stack.data[(np.int64(1), 3, slice(None), slice(None))].shape == (20, 30)
    assert computed == [(2, 5), (1, 3)]


def test_a_volume_is_indexed_as_numpy_does(viewer, volume):
    image = viewer.add_image(np.stack([volume, volume]))
    data = animate_layer(viewer, image, tiny(3)).data
    whole = np.asarray(data)
    assert whole.shape == data.shape == (4, 1, 12, 20, 30)
    keys = [
        0, -1, (0, 0), (0, -1, 5), (slice(1, 3), 0, -2), (2, slice(None), 4, slice(3, 9), 7),
        (..., 3), (1, slice(1, 2)), (slice(None), slice(0, 1), slice(2, 5)), ([0, 2], 0),
    ]  # fmt: skip
    for key in keys:
        np.testing.assert_allclose(data[key], whole[key], atol=1e-6, err_msg=str(key))
    with pytest.raises(IndexError):
        data[0, 1]


def test_an_image_without_depth_is_refused(viewer, volume):
    flat = viewer.add_image(volume[0])
    with pytest.raises(camanim.ImageError, match="no depth"):
        animate_layer(viewer, flat, tiny(3))
    with pytest.raises(camanim.ImageError, match="no depth"):
        animate_layer(viewer, flat, tiny(2), slices=True)


def test_an_animation_of_a_volume_can_be_added(viewer, volume):
    image = viewer.add_image(volume, scale=(4, 1, 1))
    animation = camanim.animate(tiny(3), volume)
    stack = add_animation(viewer, animation, image)
    np.testing.assert_allclose(box(stack, (1, 2, 3)), box(image, (0, 1, 2)), atol=1e-6)
    with pytest.raises(camanim.ImageError, match=r"\(12, 20, 30\)"):
        add_animation(viewer, animation, viewer.add_image(volume[:5]))


@pytest.mark.parametrize(
    ("dims", "settings", "shape"),
    [(3, {}, (12, 20, 30)), (2, {"slices": True}, (12, 20, 30)), (2, {}, (1, 20, 30))],
)
def test_the_guided_image_is_a_separate_layer(viewer, volume, dims, settings, shape):
    image = viewer.add_image(volume, scale=(4, 1, 1), translate=(8, 0, 0))
    stack = animate_layer(viewer, image, tiny(dims), method="Guided Grad-CAM", **settings)
    [guided] = [layer for layer in viewer.layers if layer not in (image, stack)]
    animation = stack.data.animation
    assert guided.data.shape == shape
    np.testing.assert_array_equal(guided.data.ravel(), animation.guided.sum(1).numpy().ravel())
    low, high = guided.contrast_limits
    assert -low == high == np.abs(guided.data).max()
    np.testing.assert_allclose(guided.translate, stack.translate[1:])
    np.testing.assert_allclose(guided.scale, stack.scale[1:])
    assert not guided.visible
    assert not is_input(guided)
    assert is_input(image)


def test_targets_without_a_class_are_described(viewer, volume):
    image = viewer.add_image(volume[0])
    about = animate_layer(viewer, image, tiny(2), target="a - b").metadata["camanim"]
    assert about["index"] is None
    assert about["class_name"] == "a - b"
    assert about["target"]["kind"] == "contrast"
    assert about["unit"] == "score"


def test_options_and_layouts_are_passed_on(viewer, volume):
    image = viewer.add_image(volume[0])
    stack = animate_layer(
        viewer, image, tiny(2), method="ScoreCAM", options={"channels": 2}, show_1d=True
    )
    about = stack.metadata["camanim"]
    assert about["provenance"]["options"] == {"channels": 2}
    assert "NCHW" in about["layouts"]
    assert len(about["layers"]) == len(about["layouts"]) > 4
