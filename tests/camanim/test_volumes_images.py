"""Volumes and images with many channels: preprocessing and geometry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from torch import nn

import camanim
from camanim import Geometry, ImageError, ModelError, Preprocess
from camanim.images import unit_image

FITS = ("stretch", "crop", "native")
quickly = settings(max_examples=50, deadline=None)


@st.composite
def volumes(draw) -> np.ndarray:
    """Draw valid volumes."""
    sides = st.integers(1, 7)
    # Three axes of which the last is as long as channels are would be an image.
    shapes = st.tuples(sides, sides, st.sampled_from([2, 5, 6, 7])) | st.tuples(
        sides, sides, sides, st.sampled_from([1, 3, 4])
    )
    dtype = np.dtype(draw(st.sampled_from(["bool", "uint8", "int16", "float32"])))
    elements = {"min_value": 0, "max_value": 1} if dtype.kind == "f" else None
    return draw(hnp.arrays(dtype, shapes, elements=elements))


@pytest.fixture
def volume() -> np.ndarray:
    """Return a small volume, 8 bits, with a different length along each axis."""
    return np.random.default_rng(0).integers(0, 255, (7, 20, 24)).astype(np.uint8)


# --- Values ----------------------------------------------------------------------------------


@quickly
@given(volumes(), st.sampled_from([1, 3]), st.sampled_from(FITS))
def test_prepared_volumes_are_finite_and_of_the_right_shape(array, channels, fit) -> None:
    prepared = Preprocess(size=(4, 6, 5), channels=channels)(array, fit=fit)
    size = array.shape[:3] if fit == "native" else (4, 6, 5)
    assert prepared.tensor.shape == (1, channels, *size)
    assert prepared.tensor.dtype == torch.float32
    assert prepared.tensor.is_contiguous()
    assert bool(prepared.tensor.isfinite().all())
    assert prepared.geometry.size == size
    assert prepared.image.dtype == np.uint8
    colour = array.ndim == 4 and array.shape[3] > 1
    assert prepared.image.shape == ((*array.shape[:3], 3) if colour else array.shape[:3])


@quickly
@given(
    hnp.arrays(
        st.sampled_from(["uint8", "int64", "float32", "float64"]),
        hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5),
    ),
    st.none() | st.tuples(st.floats(), st.floats()),
)
def test_any_array_becomes_a_unit_volume_or_raises_an_image_error(array, window) -> None:
    with np.errstate(all="ignore"):
        try:
            unit = unit_image(array, window, space=3, channels=5)
        except ImageError:
            return
    assert unit.dtype == np.float32
    assert unit.shape[:3] == array.shape[:3]
    assert unit.shape[3:] in ((), (3,), (5,))
    assert 0 <= unit.min() <= unit.max() <= 1


@quickly
@given(volumes(), st.sampled_from([1, 3]), st.sampled_from(FITS))
def test_all_slices_are_prepared_like_single_slices(array, channels, fit) -> None:
    preprocess = Preprocess(size=(6, 5), channels=channels, mean=[0.3], std=[0.2])
    # Without a window, each slice of int16 would have its own.
    window = (-40_000, 40_000) if array.dtype == np.int16 else None
    together = preprocess(array, fit=fit, slices=True, window=window)
    for z, plane in enumerate(array):
        alone = preprocess(plane, fit=fit, window=window)
        torch.testing.assert_close(together.tensor[z], alone.tensor[0], atol=1e-6, rtol=0)
        np.testing.assert_array_equal(together.image[z], alone.image)
    assert together.geometry.size == (len(array), *alone.geometry.size)
    assert together.geometry.scale == (1, *alone.geometry.scale)
    assert together.geometry.offset == (0, *alone.geometry.offset)
    assert together.geometry.box == alone.geometry.box


@pytest.mark.parametrize("channels", [2, 4, 5])
@pytest.mark.parametrize("dims", [2, 3])
def test_many_channels_are_each_prepared_like_grey(channels, dims) -> None:
    shape, size = ((9, 8), (6, 5)) if dims == 2 else ((5, 9, 8), (4, 6, 5))
    array = np.random.default_rng(0).random((*shape, channels)).astype(np.float32)
    mean, std = np.linspace(0.1, 0.5, channels), np.linspace(0.2, 0.4, channels)
    many = Preprocess(size=size, channels=channels, mean=mean.tolist(), std=std.tolist())(array)
    assert many.tensor.shape == (1, channels, *size)
    for c in range(channels):
        grey = Preprocess(size=size, channels=1, mean=[mean[c]], std=[std[c]])(array[..., c])
        torch.testing.assert_close(many.tensor[0, c], grey.tensor[0, 0], atol=1e-5, rtol=0)
    # Other numbers of channels are displayed as their mean.
    np.testing.assert_allclose(many.image, array.mean(-1) * 255, atol=0.51)


def test_a_grey_volume_is_repeated_for_colour_and_colour_becomes_luminance(volume) -> None:
    preprocess = Preprocess(size=(4, 8, 8), channels=3)
    tensor = preprocess(volume).tensor
    assert torch.equal(tensor[:, 0], tensor[:, 2])
    colour = np.stack([volume, volume // 2, volume // 3], -1)
    grey = Preprocess(channels=1, dims=3)(colour).tensor[0, 0]
    np.testing.assert_allclose(grey, colour / 255 @ [0.2989, 0.587, 0.114], atol=1e-5)


# --- Geometry --------------------------------------------------------------------------------


@quickly
@given(
    st.tuples(*[st.integers(1, 200)] * 3),
    st.tuples(*[st.integers(1, 60)] * 3),
    st.tuples(*[st.floats(0.1, 9)] * 3),
    st.tuples(*[st.floats(-50, 50)] * 3),
)
def test_the_cells_of_a_map_tile_the_volume_exactly(size, shape, scale, offset) -> None:
    geometry = Geometry(size, scale, offset)
    cell, centre = geometry.affine(shape)
    for axis in range(3):
        first = centre[axis] + 0.5 - cell[axis] / 2
        last = centre[axis] + 0.5 + cell[axis] * (shape[axis] - 0.5)
        assert first == pytest.approx(offset[axis], abs=1e-6)
        assert last == pytest.approx(offset[axis] + scale[axis] * size[axis], abs=1e-6)
    assert geometry.box == Geometry(size[1:], scale[1:], offset[1:]).box


def test_the_default_geometry_is_that_of_the_image() -> None:
    assert Geometry((5, 30, 40)).affine((5, 30, 40)) == ((1, 1, 1), (0, 0, 0))
    assert Geometry((3, 4)) == Geometry((3, 4), (1.0, 1.0), (0.0, 0.0))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(20, 24, 24), (48, 30, 40), (10, 50, 20)])
@pytest.mark.parametrize("resize", [None, 52])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_geometry_places_a_blob_correctly(fit, size, resize, interpolation) -> None:
    """The geometry maps the centre of mass in the network's input to that in the volume."""
    volume = np.zeros((40, 44, 36))
    volume[19, 24, 17] = volume[20, 23, 17] = 1
    volume = ndimage.gaussian_filter(volume, 2.5)
    volume /= volume.max()
    preprocess = Preprocess(size=size, resize=resize, channels=1, interpolation=interpolation)
    prepared = preprocess(volume, fit=fit)
    resized = prepared.tensor[0, 0].double().numpy()
    scale, translate = prepared.geometry.affine(resized.shape)
    centre = np.multiply(ndimage.center_of_mass(resized), scale) + translate
    if fit == "crop":
        assert prepared.geometry.scale[0] == pytest.approx(prepared.geometry.scale[1], rel=0.05)
        # The centre of a blob that the crop cuts is another.
        edges = [np.take(resized, [0, -1], axis).max() for axis in range(3)]
        if max(edges) > 1e-3:
            return
    np.testing.assert_allclose(centre, ndimage.center_of_mass(volume), atol=0.06)


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "nearest-exact"])
def test_a_constant_volume_stays_constant_up_to_the_borders(value, interpolation) -> None:
    preprocess = Preprocess(size=(5, 40, 9), channels=1, interpolation=interpolation)
    tensor = preprocess(np.full((21, 17, 33), value)).tensor
    np.testing.assert_allclose(tensor, value, atol=1e-6)


@pytest.mark.parametrize("size", [(14, 40, 48), (7, 41, 24), (9, 23, 31)])
def test_enlarging_is_trilinear_with_pixels_as_areas(volume, size) -> None:
    tensor = Preprocess(size=size, channels=1)(volume).tensor
    plain = torch.from_numpy(volume / 255).float()[None, None]
    expected = nn.functional.interpolate(plain, size, mode="trilinear", align_corners=False)
    torch.testing.assert_close(tensor, expected, atol=1e-5, rtol=0)


def test_reducing_a_checkerboard_gives_its_mean() -> None:
    board = np.indices((32, 32, 32)).sum(0) % 2
    tensor = Preprocess(size=(8, 8, 8), channels=1)(board.astype(bool)).tensor
    np.testing.assert_allclose(tensor, 0.5, atol=0.02)


@pytest.mark.parametrize("shape", [(40, 60, 50), (16, 112, 112), (5, 200, 300)])
def test_a_crop_of_a_volume_has_one_scale_and_covers_one_axis(shape) -> None:
    prepared = Preprocess(size=(16, 32, 32), channels=1)(np.ones(shape, bool), fit="crop")
    geometry = prepared.geometry
    assert geometry.size == (16, 32, 32)
    np.testing.assert_allclose(geometry.scale, geometry.scale[0], rtol=0.05)
    ends = np.add(geometry.offset, np.multiply(geometry.scale, geometry.size))
    assert min(geometry.offset) >= 0
    assert all(end <= n + 1e-6 for end, n in zip(ends, shape, strict=True))
    # The crop covers at least one axis completely.
    assert any(end - o == pytest.approx(n) for end, o, n in zip(ends, geometry.offset, shape,
                                                                strict=True))  # fmt: skip


# --- Errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4, 2), (4, 4, 4, 0), (2, 4, 4, 4, 3), (0, 4, 4)])
def test_the_error_names_a_wrong_shape(shape) -> None:
    with pytest.raises(ImageError, match=r"\(" + ", ".join(map(str, shape))):
        Preprocess(dims=3, channels=1)(np.zeros(shape))


def test_a_volume_for_a_2d_network_needs_slices(volume) -> None:
    with pytest.raises(ImageError, match="slices=True"):
        Preprocess(channels=1)(volume)
    with pytest.raises(ImageError, match="slices=True"):
        Preprocess(channels=1, dims=3)(volume, slices=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", (3,)), ("size", (0, 3)), ("size", (1, 2, 3, 4)), ("resize", 0),
        ("mean", (0.1, 0.2)), ("mean", (float("nan"),)), ("mean", ()), ("std", (0.0,)),
        ("std", (1.0, float("inf"), 1.0)), ("interpolation", "lanczos"), ("dims", 4),
    ],
)  # fmt: skip
def test_the_error_names_an_invalid_field(field, value) -> None:
    with pytest.raises(ModelError, match="dims|size" if field == "size" else field):
        Preprocess(**{field: value})


# --- Preprocess functions --------------------------------------------------------------------


def test_a_callable_may_return_a_volume(volume) -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    model = camanim.Model(
        net, preprocess=lambda v: torch.from_numpy(v[:, ::2, ::4] / 255).float()[None, None]
    )
    prepared = model.prepare(volume)
    assert prepared.tensor.shape == (1, 1, 7, 10, 6)
    assert prepared.geometry == Geometry((7, 10, 6), (1.0, 2.0, 4.0), (0.0, 0.0, 0.0))
    np.testing.assert_array_equal(prepared.image, volume)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_photograph_is_not_a_volume(channels, dims) -> None:
    """Three axes, the last of them channels: 133 slices of a photograph mean nothing."""
    photograph = np.random.default_rng(0).integers(0, 255, (13, 20, channels)).astype(np.uint8)
    preprocess = Preprocess(dims=dims, channels=1)
    with pytest.raises(ImageError, match="volume"):
        preprocess(photograph, slices=dims == 2)
    narrow = preprocess(photograph[..., None], slices=dims == 2)
    assert narrow.image.shape == photograph.shape


def test_the_window_of_a_volume_is_that_of_all_its_slices() -> None:
    volume = np.arange(-60, 60).reshape(5, 4, 6).astype(np.int16)
    prepared = Preprocess(channels=1)(volume, slices=True)
    expected = ((volume.astype(float) + 60) / 119)[:, None]
    np.testing.assert_allclose(prepared.tensor, expected, atol=1e-6)
    assert len(prepared.notes) == 1


def test_a_callable_may_return_all_slices(volume) -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    slices = torch.ones(7, 3, 10, 12)
    model = camanim.Model(net, preprocess=lambda v: slices)
    prepared = model.prepare(volume, slices=True)
    assert prepared.tensor.shape == slices.shape
    assert prepared.geometry == Geometry((7, 10, 12), (1.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    slices = torch.ones(6, 3, 10, 12)
    with pytest.raises(ImageError, match=r"\(Z, C, H, W\)"):
        model.prepare(volume, slices=True)


def test_a_callable_may_take_any_channels() -> None:
    model = camanim.Model(
        nn.Conv2d(6, 1, 1),
        preprocess=lambda a: torch.from_numpy(a).float().permute(2, 0, 1)[None] / 7,
    )
    array = np.random.default_rng(0).integers(0, 99, (5, 8, 6))
    prepared = model.prepare(array, window=(0, 99))
    assert prepared.tensor.shape == (1, 6, 5, 8)
    assert prepared.image.shape == (5, 8)


def test_the_input_has_the_dtype_of_the_network(volume) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        model = camanim.Model(nn.Conv3d(1, 2, 3).to(dtype))
        assert model.prepare(volume).tensor.dtype == dtype
