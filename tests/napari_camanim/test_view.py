"""``camanim view``: saved results and images in napari."""

import numpy as np
import pytest
from PIL import Image

import camanim
from camanim import samples
from camanim.models.domain import suggest_model
from napari_camanim._view import show_view
from napari_camanim.layers.stack import is_stack


@pytest.fixture(scope="module")
def model():
    return camanim.load_model("demo/ultrasound")


@pytest.mark.parametrize("box", [None, (10, 20, 140, 160)])
def test_a_result_is_shown_over_its_picture(viewer, model, box):
    animation = camanim.animate(model, samples.image("benign_1"), layers="blocks", box=box)
    show_view(viewer, [("kept", animation)], [], "demo/ultrasound")
    np.testing.assert_array_equal(viewer.layers["kept"].data, animation.image)
    (stack,) = [layer for layer in viewer.layers if is_stack(layer)]
    assert len(stack.data) == len(animation)
    # Aligned with the picture: both have the same extent in the plane.
    np.testing.assert_allclose(
        stack.extent.world[:, 1:], viewer.layers["kept"].extent.world, atol=0.51
    )
    # What is exported from the window lies where it lay in the image.
    assert stack.data.animation.source_geometry == animation.source_geometry


def test_an_image_is_shown_and_selected_with_the_dock(viewer, tmp_path):
    Image.fromarray(samples.image("benign_1")).save(tmp_path / "scan.png")
    dock = show_view(viewer, [], [tmp_path / "scan.png"], "torchvision/mobilenet_v2")
    np.testing.assert_array_equal(viewer.layers["scan.png"].data, samples.image("benign_1"))
    assert viewer.layers.selection.active is viewer.layers["scan.png"]
    assert dock.network.value == "torchvision/mobilenet_v2"


def test_the_dock_suggests_a_network_unless_one_is_given(viewer, tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "photo.png")
    dock = show_view(viewer, [], [tmp_path / "photo.png"], None)
    assert dock.network.value == suggest_model(colours)
    assert dock.network.value != "demo/ultrasound"


def test_a_volume_is_shown(viewer):
    net = camanim.load_model("monai/BasicUNet?spatial_dims=3&in_channels=1&features=(4,4,4,4,4,4)")
    volume = np.random.default_rng(0).integers(0, 255, (16, 32, 32), np.uint8)
    animation = camanim.animate(net, volume, layers="blocks")
    show_view(viewer, [("volume", animation)], [], "demo/ultrasound")
    (stack,) = [layer for layer in viewer.layers if is_stack(layer)]
    assert stack.data.ndim == 4
