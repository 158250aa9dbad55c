"""Images: intensities, preprocessing, geometry and files."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import imageio.v3 as iio
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms, ImageOps
from torch import nn

import camanim
from camanim import Geometry, ImageError, Preprocess
from camanim.images import to_display, unit_image

FITS = ("stretch", "crop", "native")
DTYPES = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float16", "float32", "float64",
)  # fmt: skip
quickly = settings(max_examples=60, deadline=None)


@st.composite
def pictures(draw) -> np.ndarray:
    """Draw valid images."""
    sides = st.integers(1, 9)
    shapes = st.tuples(sides, sides) | st.tuples(sides, sides, st.sampled_from([1, 3, 4]))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    elements = {"min_value": 0, "max_value": 1} if dtype.kind == "f" else None
    return draw(hnp.arrays(dtype, shapes, elements=elements))


# --- Values ----------------------------------------------------------------------------------


@quickly
@given(
    hnp.arrays(
        st.sampled_from([*DTYPES, "complex64", "S3", "U2", "O", "datetime64[s]"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    st.none() | st.tuples(st.floats(), st.floats()),
)
def test_any_array_becomes_a_unit_image_or_raises_an_image_error(array, window) -> None:
    with np.errstate(all="ignore"):
        try:
            unit = unit_image(array, window)
        except ImageError:
            return
    assert unit.dtype == np.float32
    assert unit.shape == (array.shape[:2] if array.ndim == 2 or array.shape[2] == 1
                          else (*array.shape[:2], 3))  # fmt: skip
    assert np.isfinite(unit).all()
    assert 0 <= unit.min() <= unit.max() <= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_single_value_that_is_not_finite_is_refused(dtype, bad) -> None:
    array = np.zeros((4, 5, 3), dtype)
    array[2, 3, 1] = bad
    for window in (None, (0, 1)):
        with pytest.raises(ImageError, match="NaN"):
            unit_image(array, window)


@pytest.mark.parametrize(
    "shape", [(), (5,), (0, 5), (5, 0), (0, 0, 3), (4, 4, 0), (4, 4, 2), (4, 4, 5), (2, 4, 4, 3)]
)
def test_the_error_names_a_wrong_shape(shape) -> None:
    with pytest.raises(ImageError, match=r"\(" + ", ".join(map(str, shape))):
        unit_image(np.zeros(shape))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "cat.jpg",
        [[1, 2], [3]],
        [[0, "a"]],
        object(),
        {1: 2},
        [[1j, 0]],
        torch.rand(4, 4, requires_grad=True),
    ],
    ids=["None", "name", "ragged", "text", "object", "dict", "complex", "tensor with gradient"],
)
def test_other_objects_are_refused(value) -> None:
    with pytest.raises(ImageError):
        unit_image(value)


@pytest.mark.parametrize(
    "window",
    [(1, 1), (2, 1), (0, np.inf), (np.nan, 1), (-np.inf, 0), (1,), (0, 1, 2), ("a", "b"), 5,
     (-1.7e308, 1.7e308)],
)  # fmt: skip
def test_an_invalid_window_is_refused(window) -> None:
    with pytest.raises(ImageError, match="window"):
        unit_image(np.array([[-1e308, 1e308]]), window)


@pytest.mark.parametrize("outside", [-0.001, 1.001, 255.0, -1000.0])
def test_a_floating_image_outside_0_to_1_needs_a_window(outside) -> None:
    array = np.full((3, 3), 0.5)
    array[1, 1] = outside
    with pytest.raises(ImageError, match=r"window=\(low, high\)"):
        unit_image(array)
    assert unit_image(array, (-1000, 255)).min() >= 0


def test_bytes_are_scaled_by_the_range_of_their_type() -> None:
    notes: list[str] = []
    unit = unit_image(np.array([[10, 20]], np.uint8), note=notes.append)
    np.testing.assert_allclose(unit, [[10 / 255, 20 / 255]], atol=1e-6)
    assert notes == []


@pytest.mark.parametrize("dtype", [*DTYPES[2:9], ">i2", ">u4"])
def test_other_integers_are_scaled_by_their_own_range_with_a_note(dtype) -> None:
    """Of 16 bits a camera uses 12, and numbers of a list have 64."""
    notes: list[str] = []
    values = np.array([[3, 40, 120]]).astype(dtype)
    unit = unit_image(values, note=notes.append)
    np.testing.assert_allclose(unit, [[0, 37 / 117, 1]], atol=1e-6)
    (note,) = notes
    assert " 3 " in note
    assert " 120" in note
    limits = np.iinfo(dtype)
    assert unit_image(np.array([[limits.min, limits.max]], dtype)).tolist() == [[0, 1]]
    notes.clear()
    unit_image(values, (0, 200), note=notes.append)
    assert notes == []


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int64", "uint64"])
@pytest.mark.parametrize("value", ["lowest", 0, 7, "highest"])
def test_a_constant_integer_image_is_black(dtype, value) -> None:
    limits = np.iinfo(dtype)
    value = {"lowest": limits.min, "highest": limits.max}.get(value, value)
    assert unit_image(np.full((3, 4), value, dtype)).max() == 0


@pytest.mark.parametrize("convert", [
    lambda a: a.astype(np.int16), lambda a: a.astype(np.int32), lambda a: a.astype(np.int64),
    lambda a: a.astype(">i4"), np.ndarray.tolist, lambda a: torch.from_numpy(a.astype(np.int32)),
])  # fmt: skip
def test_a_run_notes_the_window_of_signed_integers(zoo, image, convert) -> None:
    colour = np.round(image * 200).astype(np.uint8)
    model = camanim.Model(zoo.shake(zoo.Plain()))
    animation = camanim.animate(model, convert(colour))
    low, high = int(colour.min()), int(colour.max())
    plain = camanim.animate(model, colour, window=(low, high))
    np.testing.assert_array_equal(animation.tensor, plain.tensor)
    (note,) = animation.notes
    assert f"{low} to {high}" in note
    assert plain.notes == []


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_rounding_errors_beyond_0_and_1_are_clipped(dtype) -> None:
    """A division by the maximum, or a resampling, ends one step of the type too far."""
    one = np.nextafter(np.dtype(dtype).type(1), np.dtype(dtype).type(2))
    for values in ([[0, one]], [[-1e-7, 1.0000001]]):
        unit = unit_image(np.array(values, dtype))
        assert (unit.min(), unit.max()) == (0, 1)


def test_partial_transparency_is_noted(image) -> None:
    notes: list[str] = []
    opaque = np.dstack([image, np.ones(image.shape[:2])])
    unit_image(opaque, note=notes.append)
    assert notes == []
    opaque[3, 4, 3] = 0.5
    np.testing.assert_array_equal(unit_image(opaque, note=notes.append), image)
    (note,) = notes
    assert "transparent" in note
    unit_image(opaque, channels=4, note=notes.append)
    assert len(notes) == 1


@pytest.mark.parametrize("wrap", [
    lambda a: a, da.from_array, lambda a: list(a),
    lambda a: da.ma.masked_equal(da.from_array(a.data), a.data[0, 0]),
], ids=["numpy", "dask", "list", "dask.ma"])  # fmt: skip
def test_masked_values_are_refused(grey, wrap) -> None:
    values = wrap(np.ma.masked_equal(grey, grey[0, 0]))
    with pytest.raises(ImageError, match="mask"):
        unit_image(values)


def test_a_masked_array_without_masked_values_is_an_array(grey) -> None:
    np.testing.assert_array_equal(unit_image(np.ma.masked_array(grey)), unit_image(grey))


@pytest.mark.parametrize("path", ["cat.jpg", b"cat.jpg", Path("cat.jpg"), "a" * 5000])
@pytest.mark.parametrize("custom", [False, True])
def test_a_path_is_not_an_image(zoo, path, custom) -> None:
    preprocess = (lambda image: torch.zeros(1, 3, 8, 8)) if custom else None
    model = camanim.Model(zoo.shake(zoo.Plain()), preprocess)
    for use in (camanim.animate, camanim.Model.predict):
        with pytest.raises(ImageError, match="read_image"):
            use(model, path)


class ArrayLike:
    """As xarray and others: convertible, and no subclass of an array."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.array if dtype is None else self.array.astype(dtype)


def test_an_object_with_the_array_protocol_is_an_image(zoo, grey) -> None:
    model = camanim.Model(zoo.shake(zoo.Plain()))
    np.testing.assert_array_equal(
        camanim.animate(model, ArrayLike(grey)).tensor, camanim.animate(model, grey).tensor
    )
    with pytest.raises(ImageError, match="complex"):
        camanim.animate(model, ArrayLike(grey * 1j))


@quickly
@given(pictures(), st.integers(-50, 300), st.integers(1, 300))
def test_a_window_is_a_clipped_ramp(array, low, width) -> None:
    unit = unit_image(array, (low, low + width))
    planes = np.atleast_3d(array).astype(np.float64)[:, :, :3]
    expected = np.clip((planes - low) / width, 0, 1)
    np.testing.assert_allclose(np.atleast_3d(unit), expected, atol=1e-6)


@quickly
@given(pictures())
def test_alpha_is_dropped_and_a_single_channel_is_grey(array) -> None:
    assume(array.ndim == 3)
    unit = unit_image(array)
    if array.shape[2] == 4:
        np.testing.assert_array_equal(unit, unit_image(array[:, :, :3]))
    elif array.shape[2] == 1:
        np.testing.assert_array_equal(unit, unit_image(array[:, :, 0]))


@quickly
@given(pictures())
def test_the_image_is_not_modified(array) -> None:
    before = array.copy()
    Preprocess()(array)
    np.testing.assert_array_equal(array, before)


@quickly
@given(pictures(), st.sampled_from([1, 3]), st.sampled_from(FITS))
def test_prepared_images_are_finite_and_of_the_right_shape(array, channels, fit) -> None:
    prepared = Preprocess(size=(6, 5), resize=7, channels=channels)(array, fit=fit)
    size = array.shape[:2] if fit == "native" else (6, 5)
    assert prepared.tensor.shape == (1, channels, *size)
    assert prepared.tensor.dtype == torch.float32
    assert prepared.tensor.is_contiguous()
    assert bool(prepared.tensor.isfinite().all())
    assert prepared.geometry.size == size
    assert prepared.image.dtype == np.uint8
    assert prepared.image.shape[:2] == array.shape[:2]


def test_a_grey_image_has_the_same_input_in_grey_and_in_colour(grey) -> None:
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    for channels in (1, 3):
        preprocess = Preprocess(channels=channels)
        np.testing.assert_allclose(
            preprocess(grey).tensor, preprocess(colour).tensor, atol=2e-4
        )  # The weights of ITU-R 601 in torchvision add up to 0.9999.


def test_colour_becomes_luminance(image) -> None:
    luminance = Preprocess(channels=1)(image).tensor[0, 0]
    np.testing.assert_allclose(luminance, image @ [0.299, 0.587, 0.114], atol=2e-4)


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_numbers_of_channels_need_a_function(grey, channels) -> None:
    with pytest.raises(ImageError, match="preprocess"):
        Preprocess(channels=channels)(grey)


def test_an_unknown_fit_is_refused(grey) -> None:
    with pytest.raises(ImageError, match="stretch"):
        Preprocess()(grey, fit="squeeze")


@pytest.mark.parametrize("wrap", [da.from_array, np.asfortranarray, np.ndarray.tolist])
def test_array_likes_are_converted_to_numpy(zoo, grey, wrap) -> None:
    model = camanim.Model(zoo.shake(zoo.Plain()))
    window = (0, 255)
    plain = camanim.animate(model, grey, window=window)
    wrapped = camanim.animate(model, wrap(grey), window=window)
    np.testing.assert_array_equal(wrapped.tensor, plain.tensor)
    np.testing.assert_array_equal(wrapped.image, plain.image)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1"])
def test_pillow_images_are_converted_to_numpy(image, mode) -> None:
    picture = Image.fromarray(to_display(image)).convert(mode)
    unit = unit_image(picture)
    values = np.asarray(picture.convert("RGB" if mode == "RGBA" else mode))
    np.testing.assert_allclose(unit, values / (1 if mode == "1" else 255), atol=1e-6)


@pytest.mark.parametrize("mode", ["P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "LA", "RGBX", "I", "F"])
def test_modes_of_pillow_have_their_colours(mode) -> None:
    """Each mode holds the same picture as RGB, up to the precision of its colours."""
    colours = np.zeros((8, 16, 3), np.uint8)
    colours[:, 4:], colours[:, 8:], colours[:, 12:] = (200, 40, 60), (90, 160, 60), (220, 220, 220)
    picture = Image.fromarray(colours)
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        converted = ImageCms.applyTransform(picture, to_lab)
    elif mode == "PA":
        converted = picture.convert("P", palette=Image.Palette.ADAPTIVE).convert("PA")
    elif mode == "P":
        converted = picture.convert("P", palette=Image.Palette.ADAPTIVE)
    else:
        converted = picture.convert(mode)
    assert converted.mode == mode
    grey = np.asarray(picture.convert("L"))
    expected = grey if mode in ("LA", "I", "F") else colours
    window = (0, 255) if mode in ("I", "F") else None
    np.testing.assert_allclose(unit_image(converted, window) * 255, expected, atol=4)


def test_a_picture_that_is_to_be_turned_is_refused(tmp_path: Path, image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    picture = Image.fromarray(to_display(image))
    picture.save(tmp_path / "photo.png", exif=exif)
    stored = Image.open(tmp_path / "photo.png")
    with pytest.raises(ImageError, match="EXIF"):
        unit_image(stored)
    np.testing.assert_array_equal(unit_image(np.asarray(stored)), unit_image(picture))
    upright = camanim.read_image(tmp_path / "photo.png")
    np.testing.assert_array_equal(unit_image(ImageOps.exif_transpose(stored)), unit_image(upright))


# --- Geometry --------------------------------------------------------------------------------


@quickly
@given(
    st.tuples(st.integers(1, 500), st.integers(1, 500)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)),
    st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
)
def test_the_cells_of_a_map_tile_the_box_exactly(size, shape, scale, offset) -> None:
    """The outer edges of the corner cells are the edges of the box."""
    geometry = Geometry(size, scale, offset)
    cell, centre = geometry.affine(shape)
    top, left, bottom, right = geometry.box
    for axis, (near, far) in enumerate([(top, bottom), (left, right)]):
        first = centre[axis] + 0.5 - cell[axis] / 2
        last = centre[axis] + 0.5 + cell[axis] * (shape[axis] - 1) + cell[axis] / 2
        assert first == pytest.approx(near, abs=1e-6)
        assert last == pytest.approx(far, abs=1e-6)
    assert (top, left) == offset


def test_a_map_of_the_size_of_the_image_has_the_same_pixels() -> None:
    assert Geometry((30, 40)).affine((30, 40)) == ((1, 1), (0, 0))
    assert Geometry((30, 40)).box == (0, 0, 30, 40)
    # Two cells of 15 by 20 pixels: the centre of the first is that of pixel 7, between 9 and 10.
    assert Geometry((30, 40)).affine((2, 2)) == ((15, 20), (7, 9.5))


SHAPES = [(60, 90), (90, 60), (64, 64), (200, 33), (31, 47)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("size", "resize"), [((48, 48), 56), ((40, 64), None), ((48, 32), 60)])
def test_the_geometry_places_a_ramp_correctly(shape, fit, size, resize) -> None:
    """The intensity of each pixel is its coordinate, and resizing keeps a ramp linear.

    So each pixel of the network's input holds the coordinate at which the image was sampled, with an
    error below 0.1 pixels, and below 0.005 on average. The borders are excluded, as the filter is
    truncated there.
    """
    preprocess = Preprocess(size=size, resize=resize, channels=1)
    for axis in (0, 1):
        coordinate = np.indices(shape)[axis].astype(np.float64)
        window = (0, max(shape))
        prepared = preprocess(coordinate, fit=fit, window=window)
        h, w = prepared.tensor.shape[-2:]
        (sy, sx), (ty, tx) = prepared.geometry.affine((h, w))
        step, start, count = [(sy, ty, h), (sx, tx, w)][axis]
        expected = start + step * np.arange(count)
        sampled = prepared.tensor[0, 0].double().numpy() * window[1]
        errors = sampled.mean(1 - axis) - expected
        inner = (expected > 2 * step + 1) & (expected < shape[axis] - 2 * step - 2)
        assert inner.sum() > 5
        assert np.abs(errors[inner]).max() < 0.1
        assert abs(errors[inner].mean()) < 5e-3


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(96, 144), (152, 88), (64, 64)])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("method", ["GradCAM", "HiResCAM"])
def test_the_map_of_a_peak_detector_is_highest_at_the_dot(zoo, fit, shape, colour, method) -> None:
    model = camanim.Model(
        zoo.Peak(8), Preprocess(size=(64, 48), resize=72, channels=3 if colour else 1)
    )
    for fraction in ((0.31, 0.42), (0.5, 0.5), (0.7, 0.36), (0.62, 0.66)):
        dot = [int(f * n) for f, n in zip(fraction, shape, strict=True)]
        picture = np.zeros((*shape, 3) if colour else shape, np.uint8)
        picture[dot[0] - 1 : dot[0] + 2, dot[1] - 1 : dot[1] + 2] = 255
        animation = camanim.animate(model, picture, method=method, target=0, fit=fit)
        (raw,) = animation.maps
        peak = np.unravel_index(raw.argmax(), raw.shape)
        scale, translate = animation.geometry.affine(raw.shape)
        for axis in (0, 1):
            position = translate[axis] + scale[axis] * peak[axis]
            assert abs(position - dot[axis]) <= scale[axis] / 2 + 1e-6
        if method == "HiResCAM":
            assert (raw > 0).sum() == 1


@pytest.mark.parametrize("shape", [(37, 53), (80, 41), (50, 50)])
def test_crop_equals_the_preprocessing_of_torchvision(shape, monkeypatch) -> None:
    """For each distinct preprocessing of the classifiers of torchvision."""
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, **settings: nn.Identity())
    picture = np.random.default_rng(0).random((*shape, 3)).astype(np.float32)
    planes = torch.from_numpy(picture).permute(2, 0, 1)
    tested = set()
    for name in torchvision.models.list_models(module=torchvision.models):
        weights = torchvision.models.get_model_weights(name).DEFAULT
        transforms = weights.transforms()
        if str(transforms) in tested:
            continue
        tested.add(str(transforms))
        preprocess = camanim.load_model(f"torchvision/{name}", weights=None).preprocess
        ours = preprocess(picture, fit="crop").tensor[0]
        assert (ours - transforms(planes)).abs().max() < 1e-5, name
    assert len(tested) >= 10


def test_a_crop_larger_than_the_resized_image_is_refused(grey) -> None:
    with pytest.raises(ImageError, match='fit="stretch"'):
        Preprocess(size=(64, 64), resize=32, channels=1)(grey, fit="crop")


def test_stretching_and_cropping_a_square_without_margin_are_the_same(image) -> None:
    square = image[:20, :20]
    stretched, cropped = (Preprocess(size=(12, 12))(square, fit=fit) for fit in ("stretch", "crop"))
    np.testing.assert_array_equal(stretched.tensor, cropped.tensor)
    assert stretched.geometry == cropped.geometry


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3)])
def test_the_smallest_images_are_resized(shape) -> None:
    prepared = Preprocess(size=(16, 16), channels=1)(np.ones(shape, bool))
    np.testing.assert_allclose(prepared.tensor, torch.ones(1, 1, 16, 16), atol=1e-6)
    assert prepared.geometry.box == pytest.approx((0, 0, *shape))


# --- Files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "bmp"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_files_are_read_as_stored(tmp_path: Path, suffix, dtype, shape) -> None:
    if dtype == "uint16" and (suffix == "bmp" or (suffix == "png" and len(shape) == 3)):
        pytest.skip("Pillow has no such image")
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    iio.imwrite(tmp_path / f"image.{suffix}", array)
    read = camanim.read_image(tmp_path / f"image.{suffix}")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == dtype


def test_a_floating_tiff_is_read(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((5, 7)).astype(np.float32)
    iio.imwrite(tmp_path / "image.tif", array)
    np.testing.assert_array_equal(camanim.read_image(str(tmp_path / "image.tif")), array)


def test_a_photograph_is_read_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 20))
    exif = picture.getexif()
    exif[0x0112] = 6  # The orientation of a camera turned by 90 degrees.
    picture.save(tmp_path / "photo.jpg", exif=exif)
    assert camanim.read_image(tmp_path / "photo.jpg").shape == (40, 20, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "xyz", ""])
@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"II*\0" + b"\xff" * 9]
)
def test_a_file_without_an_image_is_refused(tmp_path: Path, suffix, content) -> None:
    path = tmp_path / f"file.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"file\."):
        camanim.read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix, share) -> None:
    path = tmp_path / f"file.{suffix}"
    iio.imwrite(path, np.random.default_rng(0).integers(0, 255, (60, 60, 3)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError):
        camanim.read_image(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ImageError, match=str(path)):
            camanim.read_image(path)
