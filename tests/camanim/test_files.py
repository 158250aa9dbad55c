"""Image files: each format is read rightly, or refused.

The pictures are known: written by these tests byte by byte, or by a library, most often not the one that
reads them.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.color import lab2rgb

import camanim
from camanim import ImageError
from camanim.images import unit_image

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 9)).astype(np.uint8)
RGB = RANDOM.integers(0, 256, (6, 9, 3)).astype(np.uint8)
DEEP = RANDOM.integers(0, 65536, (6, 9, 4)).astype(np.uint16)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path: Path, samples: np.ndarray, bits: int, colour: int, extra: bytes = b"") -> None:
    """Write a PNG by its specification: rows without filter, packed to `bits` per sample."""

    def row(values: np.ndarray) -> bytes:
        if bits == 16:
            return values.astype(">u2").tobytes()
        places = (values.reshape(-1)[:, None] >> np.arange(bits)[::-1]) & 1
        return np.packbits(places.astype(np.uint8)).tobytes()

    h, w = samples.shape[:2]
    header = struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row(values) for values in samples))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", pixels)
        + png_chunk(b"IEND", b"")
    )


# --- PNG -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (6, 4)])
def test_a_png_of_16_bits_keeps_them(tmp_path: Path, colour, channels) -> None:
    samples = DEEP[..., 0] if channels == 1 else DEEP[..., :channels]
    write_png(tmp_path / "deep.png", samples, 16, colour)
    read = camanim.read_image(tmp_path / "deep.png")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, samples)


def test_a_grey_png_of_16_bits_with_alpha_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "deep.png", DEEP[..., :2], 16, 4)
    with pytest.raises(ImageError, match="16 bits"):
        camanim.read_image(tmp_path / "deep.png")


@pytest.mark.parametrize("colour", [0, 2])
def test_a_png_of_16_bits_is_read_upright(tmp_path: Path, colour) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    samples = DEEP[..., :3] if colour else DEEP[..., 0]
    extra = png_chunk(b"eXIf", exif.tobytes()[6:])
    write_png(tmp_path / "turned.png", samples, 16, colour, extra)
    np.testing.assert_array_equal(
        camanim.read_image(tmp_path / "turned.png"), np.rot90(samples, -1)
    )


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_covers_black_to_white(tmp_path: Path, bits) -> None:
    values = GREY >> (8 - bits)
    write_png(tmp_path / "few.png", values, bits, 0)
    unit = unit_image(camanim.read_image(tmp_path / "few.png"))
    np.testing.assert_allclose(unit, values / (2**bits - 1), atol=1e-6)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_palette_becomes_its_colours(tmp_path: Path, bits) -> None:
    colours = RANDOM.integers(0, 256, (2**bits, 3)).astype(np.uint8)
    indices = GREY >> (8 - bits)
    write_png(tmp_path / "palette.png", indices, bits, 3, png_chunk(b"PLTE", colours.tobytes()))
    np.testing.assert_array_equal(camanim.read_image(tmp_path / "palette.png"), colours[indices])


@pytest.mark.parametrize("opaque", [False, True])
def test_transparency_of_a_palette_is_kept_if_there_is_any(tmp_path: Path, opaque) -> None:
    colours = RANDOM.integers(0, 256, (4, 3)).astype(np.uint8)
    alpha = np.array([255, 255, 255, 255 if opaque else 7], np.uint8)
    indices = GREY >> 6
    extra = png_chunk(b"PLTE", colours.tobytes()) + png_chunk(b"tRNS", alpha.tobytes())
    write_png(tmp_path / "palette.png", indices, 8, 3, extra)
    read = camanim.read_image(tmp_path / "palette.png")
    expected = np.concatenate([colours, alpha[:, None]], 1)[indices]
    np.testing.assert_array_equal(read, expected[..., :3] if opaque else expected)


@pytest.mark.parametrize("alpha", [255, 7])
def test_grey_with_alpha(tmp_path: Path, alpha) -> None:
    samples = np.stack([GREY, np.full_like(GREY, 255)], -1)
    samples[2, 3, 1] = alpha
    write_png(tmp_path / "alpha.png", samples, 8, 4)
    read = camanim.read_image(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read, GREY if alpha == 255 else samples[..., [0, 0, 0, 1]])


# --- Animations ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_an_animation_is_refused_and_a_still_is_read(tmp_path: Path, suffix) -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    path = tmp_path / f"moving.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    with pytest.raises(ImageError, match="2 frames"):
        camanim.read_image(path)
    with pytest.raises(ImageError, match="2 frames"):
        unit_image(Image.open(path))
    frames[0].save(tmp_path / f"still.{suffix}", lossless=True)
    np.testing.assert_array_equal(camanim.read_image(tmp_path / f"still.{suffix}"), RGB)


def test_a_photograph_with_a_preview_is_read(tmp_path: Path) -> None:
    """MPO, as some cameras write it, with the suffix .jpg."""
    photo, preview = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (8, 6), "red")
    photo.save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "photo.jpg") as file:
        assert file.n_frames == 2
    read = camanim.read_image(tmp_path / "photo.jpg")
    assert read.shape == (30, 40, 3)
    np.testing.assert_allclose(read[15, 20], (255, 0, 0), atol=2)


# --- JPEG, PPM -------------------------------------------------------------------------------


def test_a_cmyk_jpeg_has_the_colours_of_the_original(tmp_path: Path) -> None:
    """Colours that ink can show: 255 minus the ink's share, without black."""
    colours = np.zeros((16, 48, 3), np.uint8)
    colours[:, :16], colours[:, 16:32], colours[:, 32:] = (255, 40, 40), (40, 200, 40), (30, 30, 30)
    Image.fromarray(colours).convert("CMYK").save(tmp_path / "ink.jpg", quality=95)
    with Image.open(tmp_path / "ink.jpg") as file:
        assert file.mode == "CMYK"
    read = camanim.read_image(tmp_path / "ink.jpg").astype(int)
    np.testing.assert_allclose(read[8, [8, 24, 40]], colours[8, [8, 24, 40]], atol=4)


@pytest.mark.parametrize("highest", [1, 15, 255, 4095, 65535])
def test_grey_pgm_files_cover_black_to_white(tmp_path: Path, highest) -> None:
    values = RANDOM.integers(0, highest + 1, (6, 9))
    values[0, :2] = 0, highest
    stored = values.astype(np.uint8 if highest < 256 else ">u2").tobytes()
    (tmp_path / "image.pgm").write_bytes(b"P5\n9 6\n%d\n" % highest + stored)
    unit = unit_image(camanim.read_image(tmp_path / "image.pgm"))
    np.testing.assert_allclose(unit, values / highest, atol=0.5 / 255)


def test_colour_ppm_files_are_read_unless_they_would_be_cut(tmp_path: Path) -> None:
    (tmp_path / "image.ppm").write_bytes(b"P6\n9 6\n255\n" + RGB.tobytes())
    np.testing.assert_array_equal(camanim.read_image(tmp_path / "image.ppm"), RGB)
    deep = DEEP[..., :3].astype(">u2").tobytes()
    (tmp_path / "image.ppm").write_bytes(b"P6\n9 6\n65535\n" + deep)
    with pytest.raises(ImageError, match="16 bits"):
        camanim.read_image(tmp_path / "image.ppm")


# --- TIFF: colours ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "uint32"])
def test_a_tiff_whose_zero_is_white_is_inverted(tmp_path: Path, dtype) -> None:
    values = GREY > 100 if dtype == "bool" else GREY.astype(dtype) * (np.iinfo(dtype).max // 255)
    tifffile.imwrite(tmp_path / "white.tif", values, photometric="miniswhite")
    read = camanim.read_image(tmp_path / "white.tif")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, ~values)  # The complement of unsigned values.


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_white_zeros_of_other_types_are_refused(tmp_path: Path, dtype) -> None:
    tifffile.imwrite(tmp_path / "white.tif", GREY.astype(dtype), photometric="miniswhite")
    with pytest.raises(ImageError, match=dtype):
        camanim.read_image(tmp_path / "white.tif")


@pytest.mark.parametrize("pages", [1, 3])
def test_the_palette_of_a_tiff_becomes_its_colours(tmp_path: Path, pages) -> None:
    colours = RANDOM.integers(0, 256, (3, 256)).astype(np.uint16)
    indices = RANDOM.integers(0, 256, (pages, 6, 9)).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "palette.tif", indices.squeeze(), photometric="palette", colormap=colours * 257
    )
    expected = colours.T.astype(np.uint8)[indices.squeeze()]
    np.testing.assert_array_equal(camanim.read_image(tmp_path / "palette.tif"), expected)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_a_cmyk_tiff_becomes_rgb(tmp_path: Path, planar) -> None:
    inks = RANDOM.integers(0, 256, (6, 9, 4)).astype(np.uint8)
    stored = inks if planar == "contig" else np.moveaxis(inks, -1, 0)
    tifffile.imwrite(tmp_path / "ink.tif", stored, photometric="separated", planarconfig=planar)
    light = 1 - inks / 255
    expected = 255 * light[..., :3] * light[..., 3:]
    np.testing.assert_allclose(camanim.read_image(tmp_path / "ink.tif"), expected, atol=1)


def test_a_lab_tiff_becomes_rgb(tmp_path: Path) -> None:
    """Against scikit-image; the two libraries adapt the white point in ways that differ slightly."""
    a, b = np.meshgrid(np.linspace(-14, 14, 9), np.linspace(-14, 14, 6))
    lab = np.stack([np.linspace(50, 85, 54).reshape(6, 9), a, b], -1)
    codes = np.round(lab * (2.55, 1, 1)).astype(np.int16).astype(np.uint8)
    tifffile.imwrite(tmp_path / "lab.tif", codes, photometric="cielab")
    read = camanim.read_image(tmp_path / "lab.tif")
    np.testing.assert_allclose(read, 255 * lab2rgb(lab), atol=7)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_inks_of_16_bits_become_rgb(tmp_path: Path, planar) -> None:
    stored = DEEP if planar == "contig" else np.moveaxis(DEEP, -1, 0)
    tifffile.imwrite(tmp_path / "ink.tif", stored, photometric="separated", planarconfig=planar)
    light = 1 - DEEP / 65535
    expected = 255 * light[..., :3] * light[..., 3:]
    read = camanim.read_image(tmp_path / "ink.tif")
    np.testing.assert_allclose(read, expected, atol=0.51)
    assert read.dtype == np.uint8


def test_other_inks_are_refused(tmp_path: Path) -> None:
    extra = [(332, "H", 1, 2, True)]
    tifffile.imwrite(tmp_path / "ink.tif", DEEP, photometric="separated", extratags=extra)
    with pytest.raises(ImageError, match="inks"):
        camanim.read_image(tmp_path / "ink.tif")


@pytest.mark.parametrize("pages", [1, 3])
def test_a_palette_of_16_bits_becomes_its_colours(tmp_path: Path, pages) -> None:
    colours = RANDOM.integers(0, 256, (3, 65536)).astype(np.uint16)
    indices = RANDOM.integers(0, 65536, (pages, 6, 9)).astype(np.uint16).squeeze()
    tifffile.imwrite(
        tmp_path / "palette.tif", indices, photometric="palette", colormap=colours * 257
    )
    read = camanim.read_image(tmp_path / "palette.tif")
    np.testing.assert_array_equal(read, colours.T.astype(np.uint8)[indices])


@pytest.mark.parametrize(
    ("kind", "dtype", "scale", "offset"),
    [
        ("cielab", np.uint16, (655.35, 256, 256), (0, 0, 0)),
        ("icclab", np.uint8, (2.55, 1, 1), (0, 128, 128)),
        ("icclab", np.uint16, (652.8, 256, 256), (0, 32768, 32768)),
        ("itulab", np.uint8, (2.55, 1.5, 1.275), (0, 128, 96)),
    ],
)
def test_other_codes_of_lab_become_rgb(tmp_path: Path, kind, dtype, scale, offset) -> None:
    a, b = np.meshgrid(np.linspace(-30, 30, 9), np.linspace(-40, 40, 6))
    lab = np.stack([np.linspace(30, 85, 54).reshape(6, 9), a, b], -1)
    codes = np.round(lab * scale + offset).astype(np.int64).astype(dtype)
    tifffile.imwrite(tmp_path / "lab.tif", codes, photometric=tifffile.PHOTOMETRIC[kind.upper()])
    read = camanim.read_image(tmp_path / "lab.tif")
    np.testing.assert_allclose(read, 255 * np.clip(lab2rgb(lab), 0, 1), atol=4)


@pytest.mark.parametrize("photometric", ["mask", "depth_map", "semantic_mask"])
def test_masks_and_depths_are_grey(tmp_path: Path, photometric) -> None:
    values = GREY > 100 if photometric == "mask" else DEEP[..., 0]
    kind = tifffile.PHOTOMETRIC[photometric.upper()]
    tifffile.imwrite(tmp_path / "grey.tif", values, photometric=kind)
    np.testing.assert_array_equal(camanim.read_image(tmp_path / "grey.tif"), values)


@pytest.mark.parametrize("photometric", ["cfa", "linear_raw", "logl"])
def test_other_colours_are_refused(tmp_path: Path, photometric) -> None:
    kind = tifffile.PHOTOMETRIC[photometric.upper()]
    samples = DEEP[..., :3] if photometric == "linear_raw" else DEEP[..., 0]
    tifffile.imwrite(tmp_path / "raw.tif", samples, photometric=kind)
    with pytest.raises(ImageError, match="colours"):
        camanim.read_image(tmp_path / "raw.tif")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("pages", [1, 2])
def test_colours_are_last_however_a_tiff_stores_them(tmp_path: Path, dtype, planar, pages) -> None:
    colours = (RANDOM.random((pages, 6, 9, 3)) * 255).astype(dtype)
    stored = colours if planar == "contig" else np.moveaxis(colours, -1, 1)
    stored = stored[0] if pages == 1 else stored
    tifffile.imwrite(tmp_path / "rgb.tif", stored, photometric="rgb", planarconfig=planar)
    read = camanim.read_image(tmp_path / "rgb.tif")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, colours.squeeze())


# --- TIFF: orientation, types, compression, pages --------------------------------------------

#: From the stored rows to the upright image, by the words of the TIFF specification for the place of the
#: 0th row and the 0th column.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["grey", "rgb", "planar", "palette", "stack", "white"])
def test_a_tiff_is_read_upright(tmp_path: Path, orientation, kind) -> None:
    path = tmp_path / "turned.tif"
    turn = UPRIGHT[orientation]
    tags = {"extratags": [(274, "H", 1, orientation, True)]}
    if kind == "palette":
        colours = RANDOM.integers(0, 256, (3, 256)).astype(np.uint16)
        tifffile.imwrite(path, GREY, photometric="palette", colormap=colours * 257, **tags)
        expected = turn(colours.T[GREY])
    elif kind == "stack":
        tifffile.imwrite(path, np.stack([GREY, ~GREY]), photometric="minisblack", **tags)
        expected = np.stack([turn(GREY), turn(~GREY)])
    elif kind == "white":
        tifffile.imwrite(path, ~GREY, photometric="miniswhite", **tags)
        expected = turn(GREY)
    elif kind == "planar":
        stored = np.moveaxis(RGB, -1, 0)
        tifffile.imwrite(path, stored, photometric="rgb", planarconfig="separate", **tags)
        expected = turn(RGB)
    else:
        tifffile.imwrite(path, GREY if kind == "grey" else RGB, **tags)
        expected = turn(GREY if kind == "grey" else RGB)
    np.testing.assert_array_equal(camanim.read_image(path), expected)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_the_table_of_orientations_is_that_of_exif(tmp_path: Path, orientation, suffix) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    corner = np.zeros((48, 64, 3), np.uint8)
    corner[:16, :16] = 255
    Image.fromarray(corner).save(tmp_path / f"turned.{suffix}", exif=exif, quality=95)
    read = camanim.read_image(tmp_path / f"turned.{suffix}")
    expected = UPRIGHT[orientation](corner)
    assert read.shape == expected.shape
    np.testing.assert_allclose(read[8::16, 8::16], expected[8::16, 8::16], atol=9)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint32", "uint64",
                                   "float16", "float32", "float64"])  # fmt: skip
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_values_of_a_tiff_are_those_that_were_written(tmp_path: Path, dtype, order) -> None:
    values = (GREY.astype(np.float64) - 100).astype(dtype)
    tifffile.imwrite(tmp_path / "typed.tif", values, byteorder=order)
    read = camanim.read_image(tmp_path / "typed.tif")
    np.testing.assert_array_equal(read, values)
    assert read.dtype.kind == values.dtype.kind


def test_a_complex_tiff_is_refused_as_an_image(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "complex.tif", GREY.astype(np.complex64))
    with pytest.raises(ImageError, match="complex64"):
        unit_image(camanim.read_image(tmp_path / "complex.tif"))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("kind", ["bool", "uint8", "rgb", "uint16", "float32", "stack"])
def test_compressed_tiff_files_are_read(tmp_path: Path, compression, kind) -> None:
    values = {
        "bool": GREY > 100,
        "uint8": GREY,
        "rgb": RGB,
        "uint16": DEEP[..., 0],
        "float32": RANDOM.random((6, 9)).astype(np.float32),
        "stack": np.stack([GREY, ~GREY, GREY // 2]),
    }[kind]
    first, *others = map(Image.fromarray, values if kind == "stack" else [values])
    path = tmp_path / "packed.tif"
    first.save(path, compression=compression, save_all=True, append_images=others)
    read = camanim.read_image(path)
    np.testing.assert_array_equal(read, values)
    assert read.dtype == values.dtype


def test_a_fax_is_read(tmp_path: Path) -> None:
    Image.fromarray(GREY > 100).save(tmp_path / "fax.tif", compression="group4")
    np.testing.assert_array_equal(camanim.read_image(tmp_path / "fax.tif"), GREY > 100)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("white", [False, True])
def test_a_tiff_of_few_bits_covers_black_to_white(tmp_path: Path, bits, white) -> None:
    """Written by the specification: a header, one directory, one strip."""
    values = GREY[:, :8] >> (8 - bits)
    places = (values.reshape(-1)[:, None] >> np.arange(bits)[::-1]) & 1
    strip = np.packbits(places.astype(np.uint8)).tobytes()
    tags = [
        (256, 8), (257, 6), (258, bits), (259, 1), (262, 0 if white else 1), (273, 8), (277, 1),
        (278, 6), (279, len(strip)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(tags))
    for tag, value in tags:
        directory += struct.pack("<HHIHH", tag, 3, 1, value, 0)
    header = b"II*\0" + struct.pack("<I", 8 + len(strip))
    (tmp_path / "few.tif").write_bytes(header + strip + directory + struct.pack("<I", 0))
    unit = unit_image(camanim.read_image(tmp_path / "few.tif"))
    expected = values / (2**bits - 1)
    np.testing.assert_allclose(unit, 1 - expected if white else expected, atol=1e-6)


def test_pages_of_different_size_are_refused_and_previews_are_not(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "two.tif") as file:
        file.write(GREY)
        file.write(GREY[:3, :4])
    with pytest.raises(ImageError, match="2 separate images"):
        camanim.read_image(tmp_path / "two.tif")
    with tifffile.TiffWriter(tmp_path / "preview.tif") as file:
        file.write(GREY)
        file.write(GREY[:3, :4], subfiletype=1)
    np.testing.assert_array_equal(camanim.read_image(tmp_path / "preview.tif"), GREY)


@pytest.mark.parametrize("kind", [{"imagej": True}, {"ome": True}])
@pytest.mark.parametrize("count", [2, 3])
def test_channels_are_not_taken_for_slices(tmp_path: Path, kind, count) -> None:
    stack = np.stack([GREY] * count)
    tifffile.imwrite(tmp_path / "c.tif", stack, metadata={"axes": "CYX"}, **kind)
    with pytest.raises(ImageError, match="channels"):
        camanim.read_image(tmp_path / "c.tif")
    tifffile.imwrite(tmp_path / "z.tif", stack, metadata={"axes": "ZYX"}, **kind)
    np.testing.assert_array_equal(camanim.read_image(tmp_path / "z.tif"), stack)


# --- Names and formats -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["PNG", "TIF", "Tiff", "BMP", "WebP", "GIF"])
def test_suffixes_in_capitals(tmp_path: Path, suffix) -> None:
    path = tmp_path / f"IMAGE.{suffix}"
    if suffix in ("TIF", "Tiff"):
        tifffile.imwrite(path, RGB)
    else:
        Image.fromarray(RGB).save(path, suffix.lower(), lossless=True)
    read = camanim.read_image(path)
    if suffix == "GIF":
        assert read.shape == RGB.shape
    else:
        np.testing.assert_array_equal(read, RGB)


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "stack.lsm", np.stack([GREY, ~GREY, GREY]), photometric="minisblack"
    )
    assert camanim.read_image(tmp_path / "stack.lsm").shape == (3, 6, 9)
    Image.fromarray(RGB).save(tmp_path / "image.jpg", "PNG")
    np.testing.assert_array_equal(camanim.read_image(tmp_path / "image.jpg"), RGB)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "JPEG2000", "TGA"])
def test_formats_that_are_not_tested_are_refused(tmp_path: Path, kind) -> None:
    Image.fromarray(RGB).save(tmp_path / "file.img", kind)
    with pytest.raises(ImageError, match="PNG"):
        camanim.read_image(tmp_path / "file.img")


@pytest.mark.parametrize(
    "path", ["a" * 300 + ".png", "nul\0.png", "a/" * 3000, None, 5, ["a.png"]],
    ids=["long", "NUL", "deep", "None", "number", "list"],
)  # fmt: skip
def test_impossible_paths_are_refused(path) -> None:
    with pytest.raises(ImageError):
        camanim.read_image(path)
