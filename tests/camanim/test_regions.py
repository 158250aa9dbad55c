"""Boxes of images of any size: what is read, where it lies, and that it equals the crop."""

import numpy as np
import pytest
import torch
from torch import nn

import camanim
from camanim.errors import CamError, ImageError, SettingError
from camanim.images import Geometry, LazyImage, take_region


class Counting:
    """An array that counts the elements that are read, and refuses to be read as a whole."""

    def __init__(self, values):
        self.values, self.read = values, 0
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key):
        part = self.values[key]
        self.read += part.size
        return part

    def __array__(self, *args, **kwargs):
        raise AssertionError("the whole array was read")


def network(channels=3):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(4, 3, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2),
    )  # fmt: skip
    return camanim.Model(net, preprocess=camanim.Preprocess((16, 16), channels=channels))


RANDOM = np.random.default_rng(0)
SLIDE = RANDOM.integers(0, 255, (90, 120, 3), np.uint8)
BOX = (20, 30, 60, 90)
CROP = SLIDE[20:60, 30:90]


def sources(folder):
    import dask.array

    path = folder / "slide.npy"
    np.save(path, SLIDE)
    return {
        "numpy": SLIDE,
        "memmap": np.load(path, mmap_mode="r"),
        "dask": dask.array.from_array(SLIDE, chunks=(30, 30, 3)),
        "pyramid": [SLIDE, SLIDE[::2, ::2], SLIDE[::4, ::4]],
        "grey": SLIDE[..., 0],
    }


@pytest.mark.parametrize("name", ["numpy", "memmap", "dask", "pyramid", "grey"])
def test_a_box_has_the_pixels_of_the_image_there(tmp_path, name):
    region = take_region(sources(tmp_path)[name], BOX)
    np.testing.assert_array_equal(region.pixels, CROP[..., 0] if name == "grey" else CROP)
    assert region.placement == Geometry((40, 60), offset=(20.0, 30.0))
    assert region.notes == ()


def test_a_box_of_a_volume(tmp_path):
    volume = RANDOM.random((12, 14, 16))
    region = take_region(volume, (2, 3, 4, 8, 9, 10))
    np.testing.assert_array_equal(region.pixels, volume[2:8, 3:9, 4:10])
    assert region.placement.offset == (2.0, 3.0, 4.0)


def test_only_the_pixels_of_the_box_are_read():
    slide = Counting(SLIDE)
    take_region(slide, BOX)
    assert slide.read == CROP.size
    levels = [Counting(SLIDE), Counting(SLIDE[::2, ::2])]
    camanim.animate(network(), levels, box=BOX)
    assert [level.read for level in levels] == [CROP.size, 0]


def test_dask_computes_only_the_chunks_that_the_box_touches():
    import dask.array

    computed = []

    def block(block_info=None):
        (rows, columns) = block_info[None]["array-location"]
        computed.append((rows[0], columns[0]))
        return np.zeros((30, 30), np.uint8)

    slide = dask.array.map_blocks(block, chunks=((30,) * 10, (30,) * 10), dtype=np.uint8)
    computed.clear()
    take_region(slide, (35, 65, 55, 100))
    assert sorted(set(computed)) == [(30, 60), (30, 90)]


def test_a_box_is_rounded_to_pixels_and_clipped_with_a_note():
    region = take_region(SLIDE, (-5, 29.6, 60.4, 200))
    np.testing.assert_array_equal(region.pixels, SLIDE[:60, 30:])
    assert region.placement.offset == (0.0, 30.0)
    assert len(region.notes) == 1
    animation = camanim.animate(network(), SLIDE, box=(-5, 30, 60, 90))
    assert any("clipped" in note for note in animation.notes)


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 10),
        (0, 0, 0, 10),
        (10, 0, 5, 20),
        (0, 0, float("nan"), 4),
        (200, 0, 220, 10),
        "0000",
        5,
    ],
)
def test_what_is_no_box_of_the_image_is_refused(box):
    with pytest.raises(ImageError):
        take_region(SLIDE, box)
    with pytest.raises((ImageError, SettingError)):
        camanim.animate(network(), SLIDE, box=box)


def test_a_box_of_other_axes_and_levels_of_equal_size_are_refused():
    with pytest.raises(ImageError, match="y0, x0, y1, x1"):
        camanim.animate(network(), SLIDE, box=(0, 0, 0, 5, 5, 5))
    with pytest.raises(ImageError, match="axes"):
        take_region(np.zeros((4, 5, 6, 7)), (0, 0, 2, 2))
    with pytest.raises(ImageError, match="pyramid"):
        take_region([SLIDE, SLIDE], BOX)
    with pytest.raises(ImageError, match="read_image"):
        LazyImage("slide.tif", 2)


@pytest.mark.parametrize("fit", ["stretch", "native", "crop"])
def test_the_maps_of_a_box_are_those_of_the_crop(fit):
    of_box = camanim.animate(network(), SLIDE, box=BOX, fit=fit)
    of_crop = camanim.animate(network(), CROP.copy(), fit=fit)
    for ours, expected in zip(of_box.maps, of_crop.maps, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert of_box.geometry == of_crop.geometry
    np.testing.assert_array_equal(of_box.image, CROP)


def test_a_result_says_where_it_lies():
    animation = camanim.animate(network(), SLIDE, box=BOX)
    # The input of 16 x 16 covers the box of 40 x 60 at (20, 30).
    assert animation.source_geometry == Geometry((16, 16), (40 / 16, 60 / 16), (20.0, 30.0))
    scale, translate = animation.source_geometry.affine((8, 8))
    assert scale == (5.0, 7.5)
    # Index 0 is the centre of a cell of 5 x 7.5 pixels of a map, and that of a pixel of the image.
    assert translate == (20 + 2.5 - 0.5, 30 + 3.75 - 0.5)
    assert animation.provenance["box"] == [20.0, 30.0, 60.0, 90.0]
    whole = camanim.animate(network(), SLIDE)
    assert whole.source_geometry == whole.geometry


def test_findings_of_a_box_are_computed():
    animation = camanim.animate(network(), SLIDE, box=BOX, fit="native", layers="blocks")
    again = camanim.pipeline.recompute(animation)[0]
    assert again.placement == animation.placement
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:50] = True
    animation.localise(mask)
    with pytest.raises(CamError, match="shape"):
        animation.localise(np.ones((90, 120), bool))


def test_a_box_of_slices_keeps_its_place_in_a_plane():
    volume = RANDOM.integers(0, 255, (6, 40, 50), np.uint8)
    box = (1, 10, 20, 5, 30, 44)
    animation = camanim.animate(network(), volume, box=box, slices=True)
    expected = camanim.animate(network(), volume[1:5, 10:30, 20:44], slices=True)
    for ours, theirs in zip(animation.maps, expected.maps, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert animation.source_geometry.offset == (1.0, 10.0, 20.0)
    assert animation.plane(2).source_geometry.offset == (10.0, 20.0)
