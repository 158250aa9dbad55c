"""Masks of regions, without a window."""

import numpy as np
import pytest
from napari.components import ViewerModel

import camanim
from napari_camanim.layers.views import take_mask, take_view

PLACE = {"scale": (10, 4, 0.5, 0.5), "translate": (5, 100, 3, -2)}


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def film():
    """Three volumes, and their labels from 0 to 4."""
    rng = np.random.default_rng(0)
    return rng.random((3, 6, 8, 10)), rng.integers(0, 5, (3, 6, 8, 10))


def region_of(viewer, image, space):
    return take_view(viewer, image).read(space).region


def test_a_mask_is_cut_like_the_image(viewer, film):
    pixels, labels = film
    image = viewer.add_image(pixels, **PLACE)
    mask = take_mask(viewer.add_labels(labels, **PLACE))
    viewer.dims.set_point(0, 5 + 10 * 2)
    viewer.dims.set_point(1, 100 + 4 * 3)
    np.testing.assert_array_equal(mask.read(region_of(viewer, image, 2)), labels[2, 3] > 0)
    np.testing.assert_array_equal(mask.read(region_of(viewer, image, 3)), labels[2] > 0)


def test_a_mask_of_another_orientation(viewer, film):
    pixels, labels = film[0][0], film[1][0]
    image, layer = viewer.add_image(pixels), viewer.add_labels(labels)
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_point(1, 4)
    inside = take_mask(layer).read(region_of(viewer, image, 2))
    np.testing.assert_array_equal(inside, labels[:, 4] > 0)
    # A 2-D mask has the last two axes, which differ from the displayed ones.
    flat = viewer.add_labels(labels[:, 4])
    with pytest.raises(camanim.ImageError, match=r"6 x 10.* 6 x 8 x 10"):
        take_mask(flat).read(region_of(viewer, image, 2))


def test_a_mask_of_the_last_axes_only(viewer, film):
    pixels, labels = film
    image = viewer.add_image(pixels, **PLACE)
    last = {key: value[1:] for key, value in PLACE.items()}
    mask = take_mask(viewer.add_labels(labels[1], **last))
    viewer.dims.set_point(0, 25)
    np.testing.assert_array_equal(mask.read(region_of(viewer, image, 3)), labels[1] > 0)
    last = {key: value[2:] for key, value in PLACE.items()}
    mask = take_mask(viewer.add_labels(labels[1, 2], **last))
    np.testing.assert_array_equal(mask.read(region_of(viewer, image, 2)), labels[1, 2] > 0)


def test_a_mask_of_a_colour_image(viewer, film):
    labels = film[1][0, 0]
    image = viewer.add_image(np.zeros((8, 10, 3), np.uint8), rgb=True)
    layer = viewer.add_labels(labels)
    np.testing.assert_array_equal(take_mask(layer).read(region_of(viewer, image, 2)), labels > 0)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((8, 11), r"8 x 11.* 8 x 10"), ((10, 8), r"10 x 8.* 8 x 10"), ((2, 8, 10), r"2 x 8 x 10")],
)
def test_a_mask_of_another_shape_is_refused(viewer, shape, message):
    image = viewer.add_image(np.zeros((8, 10)))
    mask = take_mask(viewer.add_labels(np.ones(shape, int), name="lesion"))
    with pytest.raises(camanim.ImageError, match=f"lesion.* {message}"):
        mask.read(region_of(viewer, image, 2))


@pytest.mark.parametrize("place", [{"translate": (0, 1)}, {"scale": (1, 1.2)}, {"rotate": 180}])
def test_a_mask_at_another_position_is_refused(viewer, place):
    image = viewer.add_image(np.zeros((8, 10)))
    mask = take_mask(viewer.add_labels(np.ones((8, 10), int), **place))
    with pytest.raises(camanim.ImageError, match="position"):
        mask.read(region_of(viewer, image, 2))
