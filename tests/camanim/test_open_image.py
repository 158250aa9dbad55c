"""Arrays of NumPy and Zarr, OME-Zarr and TIFF: values, axes, spacing, and files that would run code."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from torch import nn

import camanim
from camanim import ImageError

RANDOM = np.random.default_rng(0)
VOLUME = RANDOM.integers(0, 60000, (5, 6, 7)).astype(np.uint16)


class Ran:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "code ran")


# --- NumPy -----------------------------------------------------------------------------------


def test_npy_is_a_memory_map_and_npz_a_single_array(tmp_path) -> None:
    np.save(tmp_path / "a.npy", VOLUME)
    source = camanim.open_image(tmp_path / "a.npy")
    np.testing.assert_array_equal(source, VOLUME)
    assert isinstance(source.pixels, np.memmap)
    assert (source.dims, source.affine, source.spacing) == (3, None, None)
    assert not isinstance(camanim.read_image(tmp_path / "a.npy"), np.memmap)
    np.savez_compressed(tmp_path / "a.npz", VOLUME)
    np.testing.assert_array_equal(camanim.open_image(tmp_path / "a.npz"), VOLUME)
    np.savez(tmp_path / "two.npz", first=VOLUME, second=VOLUME)
    with pytest.raises(ImageError, match="first, second"):
        camanim.open_image(tmp_path / "two.npz")


def test_objects_are_not_unpickled(tmp_path) -> None:
    trap = np.array([Ran(tmp_path / "ran")], dtype=object)
    np.save(tmp_path / "a.npy", trap)
    np.savez(tmp_path / "a.npz", trap)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Ran(tmp_path / "ran")))
    for name in ("a.npy", "a.npz", "b.npy"):
        with pytest.raises(ImageError):
            camanim.open_image(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def npy_header(shape: tuple[int, ...]) -> bytes:
    from io import BytesIO

    stream = BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def test_a_header_larger_than_the_file_allocates_nothing(tmp_path) -> None:
    (tmp_path / "a.npy").write_bytes(npy_header((10**6, 10**6)) + b"\0" * 80)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", npy_header((10**6, 10**6)) + b"\0" * 80)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ImageError, match="length differ"):
            camanim.open_image(tmp_path / name)


@pytest.mark.parametrize("values", [np.array(["a"]), np.zeros(3, "c8"), np.zeros(2, "f4,i4")])
def test_other_values_than_numbers_are_refused(tmp_path, values) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ImageError):
        camanim.open_image(tmp_path / "a.npy")


def test_what_cannot_be_chosen_is_an_error(tmp_path) -> None:
    np.save(tmp_path / "a.npy", VOLUME)
    tifffile.imwrite(tmp_path / "a.tif", VOLUME[0])
    for name in ("a.npy", "a.tif"):
        for key in ("series", "volume", "channel"):
            with pytest.raises(ImageError, match=f"leave out {key}="):
                camanim.open_image(tmp_path / name, **{key: 0})
    with pytest.raises(ImageError, match="neither"):
        camanim.open_image(tmp_path)
    with pytest.raises(ImageError, match="no file"):
        camanim.open_image(tmp_path / "nothing")


# --- Zarr ------------------------------------------------------------------------------------

zarr = pytest.importorskip("zarr")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("suffix", [".zarr", ""])
def test_a_zarr_array_is_read_lazily(tmp_path, version, suffix) -> None:
    path = tmp_path / f"a{suffix}"
    zarr.save_array(str(path), VOLUME, zarr_format=version)
    source = camanim.open_image(path)
    assert not isinstance(source.pixels, np.ndarray)
    np.testing.assert_array_equal(source[2:4, 1], VOLUME[2:4, 1])
    np.testing.assert_array_equal(camanim.read_image(path), VOLUME)


def ome(
    path: Path, version: str, array: np.ndarray, axes: str, scale: list[float], unit: str
) -> Path:
    """Write an OME-Zarr image by the specification, with two levels."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version < "0.5" else 3)
    for level in range(2):
        values = array[..., :: 2**level, :: 2**level]
        data = group.create_array(str(level), shape=values.shape, dtype=values.dtype)
        data[...] = values
    kinds = {"t": "time", "c": "channel"}
    described = [
        {"name": a, "type": kinds.get(a, "space")} | ({"unit": unit} if a in "zyx" else {})
        for a in axes
    ]
    datasets = [
        {"path": str(k), "coordinateTransformations": [
            {"type": "scale", "scale": [s * (2**k if a in "yx" else 1)
                                        for a, s in zip(axes, scale, strict=True)]}]}
        for k in range(2)
    ]  # fmt: skip
    multiscales = [{"version": version, "axes": described, "datasets": datasets}]
    if version < "0.5":
        group.attrs["multiscales"] = multiscales
    else:
        group.attrs["ome"] = {"version": version, "multiscales": multiscales}
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_has_its_axes_and_units(tmp_path, version) -> None:
    values = RANDOM.integers(0, 255, (2, 3, 4, 6, 8)).astype(np.uint8)
    path = ome(
        tmp_path / "a.ome.zarr", version, values, "tczyx", [1, 1, 2, 0.5, 0.25], "micrometer"
    )
    with pytest.raises(ImageError, match="volume=0"):
        camanim.open_image(path)
    source = camanim.open_image(path, volume=1)
    np.testing.assert_array_equal(source, np.moveaxis(values[1], 0, -1))
    assert (source.spacing, source.units, source.dims) == ((2, 0.5, 0.25), "um", 3)
    assert (source.name, source.kind) == ("a", "OME-Zarr")
    source = camanim.open_image(path, volume=0, channel=2)
    np.testing.assert_array_equal(source, values[0, 2])
    for key in [1, -1, slice(1, 3), (slice(None), 2), (1, 2, 3), (..., 4), (2, ..., slice(0, 8, 3)),
                (slice(None, None, -1), 2), np.array([0, 2])]:  # fmt: skip
        np.testing.assert_array_equal(source[key], values[0, 2][key])


def test_a_single_slice_is_an_image_and_lengths_are_converted(tmp_path) -> None:
    values = RANDOM.integers(0, 255, (1, 1, 6, 8)).astype(np.uint8)
    path = ome(tmp_path / "a.zarr", "0.4", values, "czyx", [1, 2, 500, 250], "nanometer")
    group = zarr.open_group(str(path))
    group.attrs["omero"] = {
        "channels": [{"window": {"start": 20, "end": 200, "min": 0, "max": 255}}]
    }
    source = camanim.open_image(path)
    np.testing.assert_array_equal(source, values[0, 0])
    assert (source.spacing, source.units, source.dims) == ((0.5, 0.25), "um", 2)
    assert source.window == (20, 200)
    path = ome(tmp_path / "b.zarr", "0.4", values, "czyx", [1, 2, 3, 4], "parsec")
    assert (camanim.open_image(path).spacing, camanim.open_image(path).units) == ((3, 4), None)


def test_images_written_by_other_programs(tmp_path) -> None:
    writer = pytest.importorskip("ome_zarr.writer")
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    writer.write_image(VOLUME, group, axes="zyx", coordinate_transformations=None)
    np.testing.assert_array_equal(camanim.open_image(tmp_path / "a.zarr"), VOLUME)
    ngff = pytest.importorskip("ngff_zarr")
    image = ngff.to_ngff_image(
        VOLUME, dims=["z", "y", "x"], scale={"z": 2.0, "y": 0.5, "x": 0.25},
        axes_units={"z": "millimeter", "y": "millimeter", "x": "millimeter"},
    )  # fmt: skip
    scales = ngff.to_multiscales(image, scale_factors=[])
    for version in ("0.4", "0.5"):
        ngff.to_ngff_zarr(str(tmp_path / f"{version}.zarr"), scales, version=version)
        source = camanim.open_image(tmp_path / f"{version}.zarr")
        np.testing.assert_array_equal(source, VOLUME)
        assert (source.spacing, source.units) == ((2.0, 0.5, 0.25), "mm")


def edit(path: Path, **changes) -> None:
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps(metadata | changes))


@pytest.mark.parametrize("place", ["filters", "compressor", "dtype", "consolidated"])
def test_codecs_that_run_code_are_refused(tmp_path, place) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(
        str(path), shape=(1, 1), chunks=(1, 1), dtype="u2", zarr_format=2, compressors=None
    )
    array[...] = 7
    (chunk,) = (p for p in path.iterdir() if not p.name.startswith("."))
    chunk.write_bytes(pickle.dumps(Ran(tmp_path / "ran")))
    if place == "filters":
        edit(path / ".zarray", filters=[{"id": "pickle", "protocol": 5}])
    elif place == "compressor":
        edit(path / ".zarray", compressor={"id": "pickle", "protocol": 5})
    elif place == "dtype":
        edit(
            path / ".zarray", dtype="|O", filters=[{"id": "pickle", "protocol": 5}], fill_value=None
        )
    else:
        # Zarr would take the metadata from this file, whatever the others say.
        array = json.loads((path / ".zarray").read_text())
        array |= {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}], "fill_value": None}
        consolidated = {"zarr_consolidated_format": 1, "metadata": {".zarray": array}}
        (path / ".zmetadata").write_text(json.dumps(consolidated))
    if place == "consolidated":
        with pytest.raises(ImageError):
            camanim.read_image(path)
    else:
        with pytest.raises(ImageError, match=r"run code|not real numbers"):
            camanim.open_image(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "codecs",
    [
        [{"name": "numcodecs.pickle"}],
        [{"name": "bytes"}, {"name": "any.package"}],
        [{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "pickle"}]}}],
    ],
)
def test_unknown_codecs_of_version_3_are_refused(tmp_path, codecs) -> None:
    zarr.save_array(str(tmp_path / "a.zarr"), VOLUME, zarr_format=3)
    edit(tmp_path / "a.zarr" / "zarr.json", codecs=codecs)
    with pytest.raises(ImageError, match="run code"):
        camanim.open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize("name", ["../outside", "/etc", "", ".."])
def test_a_level_outside_of_the_folder_is_refused(tmp_path, name) -> None:
    zarr.save_array(str(tmp_path / "outside"), VOLUME)
    path = ome(tmp_path / "a.zarr", "0.4", VOLUME, "zyx", [1, 1, 1], "micrometer")
    multiscales = json.loads((path / ".zattrs").read_text())["multiscales"]
    multiscales[0]["datasets"][0]["path"] = name
    edit(path / ".zattrs", multiscales=multiscales)
    with pytest.raises(ImageError):
        camanim.open_image(path)


@pytest.mark.parametrize(
    "change",
    [
        {"multiscales": []},
        {"multiscales": [{"datasets": []}]},
        {"multiscales": [{"datasets": [{"path": "5"}]}]},
        {"multiscales": [{"axes": ["q", "y", "x"], "datasets": [{"path": "0"}]}]},
        {"multiscales": [{"axes": ["x", "y", "z"], "datasets": [{"path": "0"}]}]},
        {"multiscales": 5},
    ],
)
def test_damaged_metadata_are_image_errors(tmp_path, change) -> None:
    path = ome(tmp_path / "a.zarr", "0.4", VOLUME, "zyx", [1, 1, 1], "micrometer")
    edit(path / ".zattrs", **change)
    with pytest.raises(ImageError):
        camanim.open_image(path)
    (path / ".zattrs").write_text("{")
    with pytest.raises(ImageError):
        camanim.open_image(path)


def test_huge_chunks_are_refused(tmp_path) -> None:
    zarr.save_array(str(tmp_path / "a.zarr"), VOLUME, zarr_format=2)
    edit(tmp_path / "a.zarr" / ".zarray", chunks=[10**5, 10**5, 10**5])
    with pytest.raises(ImageError, match="chunks"):
        camanim.open_image(tmp_path / "a.zarr")


def test_a_group_of_several_images_is_chosen_from(tmp_path) -> None:
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    for k in range(2):
        ome(tmp_path / "a.zarr" / str(k), "0.4", VOLUME + k, "zyx", [1, 1, 1], "micrometer")
    with pytest.raises(ImageError, match="series=0"):
        camanim.open_image(tmp_path / "a.zarr")
    np.testing.assert_array_equal(camanim.open_image(tmp_path / "a.zarr", series=1), VOLUME + 1)


# --- TIFF ------------------------------------------------------------------------------------


def test_tiff_of_imagej_and_ome_has_a_spacing(tmp_path) -> None:
    tifffile.imwrite(tmp_path / "ij.tif", VOLUME, imagej=True, resolution=(4, 2),
                     metadata={"axes": "ZYX", "unit": "um", "spacing": 1.5})  # fmt: skip
    source = camanim.open_image(tmp_path / "ij.tif")
    assert (source.spacing, source.units, source.dims) == ((1.5, 0.5, 0.25), "um", 3)
    sizes = {"PhysicalSizeX": 0.2, "PhysicalSizeY": 300, "PhysicalSizeZ": 2}
    tifffile.imwrite(tmp_path / "ome.tif", VOLUME, ome=True, metadata={"axes": "ZYX"} | sizes | {
        "PhysicalSizeXUnit": "nm", "PhysicalSizeYUnit": "nm", "PhysicalSizeZUnit": "nm"})  # fmt: skip
    source = camanim.open_image(tmp_path / "ome.tif")
    assert source.units == "um"
    assert source.spacing == pytest.approx((0.002, 0.3, 0.0002))
    tifffile.imwrite(tmp_path / "print.tif", VOLUME[0], resolution=(300, 300), resolutionunit=2)
    assert camanim.open_image(tmp_path / "print.tif").spacing is None


@pytest.mark.parametrize(
    ("units", "expected", "name"),
    [
        (("mm", "µm", "µm"), (2000.0, 300.0, 0.2), "um"),
        (("nm", "mm", "mm"), (2e-6, 300.0, 0.2), "mm"),
        (("µm", "mm", "nm"), (2.0, 300_000.0, 2e-4), "um"),
        (("pixel", "µm", "µm"), None, None),
    ],
)
def test_each_axis_of_an_ome_tiff_has_its_own_unit(tmp_path, units, expected, name) -> None:
    sizes = dict(
        zip(("PhysicalSizeZ", "PhysicalSizeY", "PhysicalSizeX"), (2, 300, 0.2), strict=True)
    )
    names = {f"{key}Unit": unit for key, unit in zip(sizes, units, strict=True)}
    path = tmp_path / "ome.tif"
    tifffile.imwrite(path, VOLUME, ome=True, metadata={"axes": "ZYX", **sizes, **names})
    source = camanim.open_image(path)
    assert source.units == name
    assert source.spacing == (expected if expected is None else pytest.approx(expected))


def test_what_cannot_be_read_is_an_image_error(tmp_path) -> None:
    unreadable = Path("/proc/self/mem")
    if not unreadable.exists():
        pytest.skip("there is no file here that can be opened and not read")
    with pytest.raises(ImageError, match="mem"):
        camanim.open_image(unreadable)
    # A file of a series may have the name of a patient.
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "Doe_Jane").symlink_to(unreadable)
    with pytest.raises(ImageError) as caught:
        camanim.open_image(tmp_path / "series")
    assert "Jane" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_without_permission_is_an_image_error(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    original = Path.open

    # Root may read every file.
    def refuse(self, *arguments, **keywords):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match="Permission denied"):
        camanim.open_image(path)


def test_a_channel_of_a_tiff_is_chosen(tmp_path) -> None:
    tifffile.imwrite(tmp_path / "ij.tif", VOLUME[:4].reshape(2, 2, 6, 7), imagej=True,
                     metadata={"axes": "ZCYX"})  # fmt: skip
    with pytest.raises(ImageError, match="channel=0"):
        camanim.open_image(tmp_path / "ij.tif")
    read = camanim.read_image(tmp_path / "ij.tif", channel=1)
    np.testing.assert_array_equal(read, VOLUME[:4].reshape(2, 2, 6, 7)[:, 1])
    with pytest.raises(ImageError, match="0 to 1"):
        camanim.open_image(tmp_path / "ij.tif", channel=2)


# --- In a run --------------------------------------------------------------------------------


def test_a_source_image_is_an_image_with_its_window(zoo, tmp_path) -> None:
    path = ome(tmp_path / "a.zarr", "0.4", VOLUME[:, None], "zcyx", [2, 1, 0.5, 0.25], "micrometer")
    zarr.open_group(str(path)).attrs["omero"] = {
        "channels": [{"window": {"start": 100, "end": 50000}}]
    }
    source = camanim.open_image(path)
    model = camanim.Model(zoo.shake(zoo.Plain()))
    settings = {"slices": True, "layers": "blocks"}
    animation = camanim.animate(model, source, **settings)
    plain = camanim.animate(model, VOLUME, window=(100, 50000), **settings)
    np.testing.assert_array_equal(animation.tensor, plain.tensor)
    assert animation.provenance == plain.provenance
    assert animation.source == source.place
    assert plain.source is None
    assert len(animation.notes) == len(plain.notes) + 1
    other = camanim.animate(model, source, window=(0, 60000), **settings)
    assert other.provenance["window"] == [0, 60000]
    assert other.notes == plain.notes
    assert animation.plane(1).source == camanim.SourcePlace((6, 7), (0.5, 0.25), "um")
    assert model.predict(source, slices=True) == model.predict(
        VOLUME, slices=True, window=(100, 50000)
    )
    windowed = camanim.animate_windows(model, source[1], size=6)
    assert windowed.source is None


def test_windows_of_a_lazy_image_have_its_place(zoo, tmp_path) -> None:
    values = RANDOM.integers(0, 255, (40, 50)).astype(np.uint8)
    path = ome(tmp_path / "a.zarr", "0.5", values, "yx", [0.5, 0.25], "micrometer")
    model = camanim.Model(zoo.shake(zoo.Plain()))
    source = camanim.open_image(path)
    animation = camanim.animate_windows(model, source, size=20, target=0)
    plain = camanim.animate_windows(model, values, size=20, target=0)
    for one, other in zip(animation.maps, plain.maps, strict=True):
        np.testing.assert_array_equal(one, other)
    assert animation.source == source.place


def test_a_result_that_is_computed_again_keeps_its_place(zoo, tmp_path) -> None:
    from camanim.pipeline import recompute

    values = RANDOM.integers(0, 255, (40, 50)).astype(np.uint8)
    path = ome(tmp_path / "a.zarr", "0.5", values, "yx", [0.5, 0.25], "micrometer")
    animation = camanim.animate(camanim.Model(zoo.shake(zoo.Plain())), camanim.open_image(path))
    assert recompute(animation)[0].source == animation.source
    assert camanim.SourcePlace.from_record(animation.source.record()) == animation.source


def test_networks_with_a_function_get_an_array(tmp_path) -> None:
    import torch

    values = RANDOM.integers(0, 255, (12, 12)).astype(np.uint8)
    path = ome(tmp_path / "a.zarr", "0.5", values, "yx", [0.5, 0.25], "micrometer")
    kinds = []

    def preprocess(image):
        kinds.append(type(image))
        return torch.as_tensor(np.asarray(image) / 255, dtype=torch.float32)[None]

    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    camanim.animate(camanim.Model(net, preprocess), camanim.open_image(path))
    assert kinds == [np.ndarray]
