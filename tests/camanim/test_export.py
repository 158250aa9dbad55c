"""Tables, arrays, TIFF, NIfTI, xarray and pandas of results, read by other libraries."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from torch import nn

import camanim
from camanim import LayerError, LayerIndexError, RenderError, samples
from camanim.animation import as_animation

nibabel = pytest.importorskip("nibabel")
pandas = pytest.importorskip("pandas")
parquet = pytest.importorskip("pyarrow.parquet")
xarray = pytest.importorskip("xarray")

RANDOM = np.random.default_rng(0)
MAP_FILES = ("m.tif", "m.npy", "m.npz", "m.nii", "m.nii.gz")
TABLE_FILES = ("t.csv", "t.json", "t.parquet")


@pytest.fixture(scope="module")
def animation():
    model = camanim.load_model("demo/ultrasound")
    made = camanim.animate(model, samples.image("malignant_1"), layers="blocks")
    made.localise(samples.mask("malignant_1"))
    made.score(repeats=1, draws=2)
    return made


@pytest.fixture(scope="module")
def volume_animation():
    net = nn.Sequential(
        nn.Conv3d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
    ).eval()
    volume = RANDOM.random((6, 8, 10)).astype(np.float32)
    model = camanim.Model(net, camanim.Preprocess(channels=1, dims=3), outputs="values")
    return camanim.animate(model, volume, target=1)


def cases(animation, volume_animation):
    """Return results of all kinds."""
    image = samples.image("benign_1")
    model = animation.model

    def cancel(stage, done, total):
        if stage == "windows" and done >= 1:
            raise camanim.Cancelled

    random = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    yield "plain", animation
    yield "volume", volume_animation
    yield "plane", volume_animation.plane(2)
    yield "windows", camanim.animate_windows(model, image, layers="blocks")
    yield "box", camanim.animate(model, image, layers="blocks", box=(30, 40, 150, 170))
    yield "crop", camanim.animate(model, image[:, :200], layers="blocks", fit="crop")
    yield "stripes", camanim.animate(model, image, show_1d=True)
    yield "random", camanim.animate(random.eval(), image / 255, target=0)
    cancelled = camanim.animate_windows(model, image, layers="blocks", target=1, progress=cancel)
    assert cancelled.cancelled
    yield "cancelled", cancelled
    maps = [np.full((3, 4), v, np.float32) for v in (0.0, -2.0, 5.0)]
    yield "constant", replace(animation, maps=maps, layers=animation.layers[:3], findings={})


def test_results_of_all_kinds_are_written_and_read(animation, volume_animation, tmp_path) -> None:
    for name, result in cases(animation, volume_animation):
        result = as_animation(result)
        scales = (None, "local", "global") if name in ("plain", "volume") else (None,)
        for normalization in scales:
            for file in MAP_FILES:
                path = result.write_maps(tmp_path / file, normalization)
                assert path.stat().st_size > 0
            stack = result.stack(normalization, signed=normalization is None)
            np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), np.asarray(stack), name)
            read = tifffile.imread(tmp_path / "m.tif", squeeze=False)
            np.testing.assert_array_equal(read.reshape(stack.shape), np.asarray(stack), name)
            nifti = nibabel.load(tmp_path / "m.nii.gz")
            assert nifti.shape[3] == len(result)
            assert np.isfinite(np.asarray(nifti.dataobj)).all()
            labelled = result.to_xarray(normalization)
            np.testing.assert_array_equal(labelled.values, np.asarray(stack), name)
        for file in TABLE_FILES:
            result.write_table(tmp_path / file)
        frame = result.to_pandas()
        assert list(frame.index) == [layer.label for layer in result.layer_calls]
        assert parquet.read_table(tmp_path / "t.parquet").num_rows == len(frame)


# --- Tables ----------------------------------------------------------------------------------


def test_json_is_strict_and_has_the_rows_of_the_csv(animation, tmp_path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    odd = {"odd": [np.nan, -np.inf, np.float32(0.5), np.int64(3), (1, 2), nn.Identity, None]}
    result = as_animation(replace(animation, provenance=animation.provenance | odd))
    text = result.write_table(tmp_path / "t.json").read_text()
    content = json.loads(text, parse_constant=refuse)
    with result.write_table(tmp_path / "t.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in content["rows"]] == [row["name"] for row in rows]
    for ours, theirs in zip(content["rows"], rows, strict=True):
        assert {k: "" if v is None else str(v) for k, v in ours.items()} == theirs
    assert content["provenance"]["weights sha256"] == result.provenance["weights sha256"]
    assert content["class_name"] == "malignant"
    assert content["findings"].keys() == result.findings.keys()
    assert content["provenance"]["odd"][:-2] == [None, None, 0.5, 3, [1, 2]]


def test_parquet_has_types_and_the_frame_too(animation, tmp_path) -> None:
    frame = animation.to_pandas()
    read = pandas.read_parquet(animation.write_table(tmp_path / "t.parquet"))
    pandas.testing.assert_frame_equal(read, frame)
    assert frame["raw max"].dtype == read["raw max"].dtype == np.float64
    i = list(frame.index).index(animation.layers[3].label)
    assert frame["raw max"].iloc[i] == animation.maps[3].max()
    scores = [c for c in frame.columns if c.startswith("ROAD")]
    shown = [layer.label for layer in animation.layers]
    np.testing.assert_allclose(frame.loc[shown, scores[0]], animation.road.scores)
    metadata = parquet.read_schema(tmp_path / "t.parquet").metadata
    assert json.loads(metadata[b"camanim"])["method"] == "GradCAM"
    assert frame.attrs["provenance"]["method"] == "GradCAM"


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.csv.gz"])
def test_other_suffixes_are_refused(animation, tmp_path, name) -> None:
    for write in (animation.write_table, animation.write_maps):
        with pytest.raises(RenderError, match="must end in"):
            write(tmp_path / name)


def test_missing_libraries_are_named(animation, tmp_path, monkeypatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("camanim.optional.import_module", missing)
    for use, extra in [
        (lambda: animation.to_pandas(), "data"),
        (lambda: animation.to_xarray(), "data"),
        (lambda: animation.write_table(tmp_path / "t.parquet"), "data"),
        (lambda: animation.write_maps(tmp_path / "m.nii"), "medical"),
        (lambda: animation.write_dicom(tmp_path / "m.dcm", tmp_path), "medical"),
    ]:
        with pytest.raises(RenderError, match=rf"\[{extra}\]"):
            use()
    assert list(tmp_path.iterdir()) == []
    for file in ("t.csv", "t.json"):
        animation.write_table(tmp_path / file)
    for file in ("m.tif", "m.npy", "m.npz"):
        animation.write_maps(tmp_path / file)


# --- Maps ------------------------------------------------------------------------------------


def test_npz_has_the_raw_map_of_each_layer(animation, tmp_path) -> None:
    with np.load(animation.write_maps(tmp_path / "m.npz"), allow_pickle=False) as arrays:
        assert set(arrays) == {layer.label for layer in animation.layers} | {"metadata"}
        for layer, raw in zip(animation.layers, animation.maps, strict=True):
            np.testing.assert_array_equal(arrays[layer.label], raw)
        metadata = json.loads(str(arrays["metadata"]))
    assert metadata["layers"] == [layer.label for layer in animation.layers]
    assert metadata["normalization"] is None
    assert metadata["geometry"]["scale"] == list(animation.geometry.scale)
    first = (tmp_path / "m.npz").read_bytes()
    assert animation.write_maps(tmp_path / "m.npz").read_bytes() == first


def test_npz_of_layers_with_awkward_names(animation, tmp_path) -> None:
    names = ["metadata", "file", "a/b", "../x", "a:1", "a"]
    calls = [0, 0, 0, 0, 0, 1]
    layers = [
        replace(info, name=name, call=call)
        for info, name, call in zip(animation.layers, names, calls, strict=False)
    ]
    result = as_animation(replace(animation, layers=layers, maps=animation.maps[:6], findings={}))
    with np.load(result.write_maps(tmp_path / "m.npz")) as arrays:
        assert len(arrays) == 7
        np.testing.assert_array_equal(arrays["a/b"], animation.maps[2])
        json.loads(str(arrays["metadata"]))


def test_tiff_has_the_names_of_the_layers(animation, volume_animation, tmp_path) -> None:
    for result, axes, planes in ((animation, "TYX", 1), (volume_animation, "TZYX", 6)):
        with tifffile.TiffFile(result.write_maps(tmp_path / "m.tif", "local")) as file:
            assert file.is_imagej
            assert file.series[0].axes == axes
            labels = file.imagej_metadata["Labels"]
            expected = [layer.label for layer in result.layers for _ in range(planes)]
            assert labels == expected
            assert json.loads(file.imagej_metadata["Info"])["method"] == "GradCAM"
            assert file.series[0].dtype == np.float32


def test_tiff_has_the_size_of_its_pixels(animation, tmp_path) -> None:
    pixels = samples.image("malignant_1")
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, imagej=True, resolution=(5, 4), metadata={"unit": "mm"}
    )
    source = camanim.open_image(tmp_path / "a.tif")
    assert source.spacing == (0.25, 0.2)
    result = camanim.animate(animation.model, source, layers="blocks")
    result.write_maps(tmp_path / "m.tif")
    read = camanim.open_image(tmp_path / "m.tif")
    height, width = pixels.shape
    expected = (0.25 * height / 128, 0.2 * width / 128)
    assert read.spacing[-2:] == pytest.approx(expected, rel=1e-4)
    assert read.units == "mm"


def test_tiff_of_more_than_4_gb_is_refused(animation, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("camanim.export.maps._LARGEST_TIFF", 100_000)
    with pytest.raises(RenderError, match="layers="):
        animation.write_maps(tmp_path / "m.tif")
    assert list(tmp_path.iterdir()) == []
    animation.write_maps(tmp_path / "m.tif", layers=0)


def test_nifti_is_the_map_on_the_pixels_of_the_image(animation, volume_animation, tmp_path) -> None:
    for result in (animation, volume_animation):
        nifti = nibabel.load(result.write_maps(tmp_path / "m.nii", "local"))
        size = result.image.shape[: len(result.geometry.size)]
        values = np.asarray(nifti.dataobj)
        assert values.shape == (*reversed(size), *[1] * (3 - len(size)), len(result))
        import torch

        for i in range(len(result)):
            native = torch.from_numpy(result.stack("local").native(i))[None, None]
            mode = {2: "bilinear", 3: "trilinear"}[len(size)]
            expected = torch.nn.functional.interpolate(native, size, mode=mode)[0, 0].numpy()
            placed = values[..., i].T.reshape(size)
            if all(n >= m for n, m in zip(size, native.shape[2:], strict=True)):
                np.testing.assert_allclose(placed, expected, atol=1e-5)
        (extension,) = nifti.header.extensions
        comment = json.loads(extension.get_content())
        assert comment["layers"] == [layer.label for layer in result.layers]
        assert int(nifti.header["sform_code"]) == int(nifti.header["qform_code"]) == 0


def test_nifti_of_a_box_is_zero_outside(animation, tmp_path) -> None:
    pixels = np.tile(samples.image("benign_1"), (2, 2))
    np.save(tmp_path / "a.npy", pixels)
    source = camanim.open_image(tmp_path / "a.npy")
    box = (30, 40, 158, 168)
    result = camanim.animate(animation.model, source, layers="blocks", box=box)
    nifti = nibabel.load(result.write_maps(tmp_path / "m.nii", layers=0))
    values = np.asarray(nifti.dataobj)[:, :, 0, 0].T
    assert values.shape == pixels.shape
    covered = np.zeros(pixels.shape, bool)
    covered[30:158, 40:168] = True
    assert not values[~covered].any()
    np.testing.assert_allclose(
        values[30:158, 40:168], result.stack(None, signed=True)[0], atol=1e-6
    )


def test_small_cells_are_averaged_not_skipped(animation, tmp_path) -> None:
    """A point in a map with more cells than the image has pixels stays visible."""
    raw = np.zeros((120, 120), np.float32)
    raw[61, 61] = 1
    result = as_animation(
        replace(animation, maps=[raw], layers=animation.layers[:1], findings={},
                image=np.zeros((15, 15), np.uint8),
                geometry=camanim.Geometry((120, 120), (1 / 8, 1 / 8)))
    )  # fmt: skip
    nifti = nibabel.load(result.write_maps(tmp_path / "m.nii"))
    values = np.asarray(nifti.dataobj)[:, :, 0, 0].T
    assert np.unravel_index(values.argmax(), values.shape) == (7, 7)
    assert values.max() > 0.001


def test_layers_are_chosen(animation, tmp_path) -> None:
    def labels(layers) -> list[str]:
        with np.load(animation.write_maps(tmp_path / "m.npz", layers=layers)) as arrays:
            return list(arrays)[:-1]

    shown = [layer.label for layer in animation.layers]
    assert labels(-1) == shown[-1:]
    assert labels([2, 0]) == [shown[0], shown[2]]
    assert labels(shown[1]) == shown[1:2]
    assert labels("features.*") == [name for name in shown if name.startswith("features.")]
    assert labels(("BatchNorm2d", 0)) == [
        layer.label
        for i, layer in enumerate(animation.layers)
        if i == 0 or layer.kind == "BatchNorm2d"
    ]
    for wrong in ("nothing", [], [0.5], [True], ["", 1]):
        with pytest.raises(LayerError):
            animation.write_maps(tmp_path / "m.npz", layers=wrong)
    with pytest.raises(LayerIndexError):
        animation.write_maps(tmp_path / "m.npz", layers=99)


def test_a_cancelled_write_leaves_the_file_as_it_was(animation, tmp_path) -> None:
    def cancel(stage, done, total):
        raise camanim.Cancelled

    for name in MAP_FILES:
        (tmp_path / name).write_bytes(b"before")
        with pytest.raises(camanim.Cancelled):
            animation.write_maps(tmp_path / name, progress=cancel)
        assert (tmp_path / name).read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == len(MAP_FILES)


# --- xarray ----------------------------------------------------------------------------------


def test_xarray_has_names_positions_and_scores(animation) -> None:
    pixels = samples.image("malignant_1")
    labelled = animation.to_xarray("local")
    assert labelled.dims == ("layer", "y", "x")
    scores = next(name for name in labelled.coords if str(name).startswith("ROAD"))
    np.testing.assert_allclose(labelled[scores], animation.road.scores)
    last = animation.layers[-1].label
    one = labelled.sel(layer=last).sel(y=pixels.shape[0] / 2, x=0, method="nearest")
    at = animation.through_depth(pixels.shape[0] // 2, 0)[-1]
    assert float(one) == pytest.approx(at, abs=0.05)
    scale = pixels.shape[0] / 128
    assert float(labelled.y[0]) == pytest.approx(scale / 2 - 0.5)
    assert labelled.y.attrs["units"] == "pixel"
    assert labelled.attrs["class"] == "malignant"
    assert json.loads(labelled.attrs["camanim"])["method"] == "GradCAM"


def test_xarray_is_computed_on_access(animation, monkeypatch) -> None:
    pytest.importorskip("dask")
    calls = []
    plane = camanim.stack.Stack.plane

    def counted(self, i):
        calls.append(i)
        return plane(self, i)

    monkeypatch.setattr("camanim.stack.Stack.plane", counted)
    labelled = animation.to_xarray()
    assert calls == []
    labelled[2].compute()
    assert calls == [2]


def test_xarray_of_a_volume_has_units_and_is_stored(volume_animation, tmp_path) -> None:
    volume = RANDOM.random((6, 8, 10)).astype(np.float32)
    nifti = nibabel.Nifti1Image(volume.T, np.diag([0.5, 0.6, 2.0, 1]))
    nifti.header.set_xyzt_units("mm")
    nibabel.save(nifti, tmp_path / "a.nii")
    source = camanim.open_image(tmp_path / "a.nii")
    result = camanim.animate(volume_animation.model, source, target=1)
    labelled = result.to_xarray(None)
    assert labelled.dims == ("layer", "z", "y", "x")
    np.testing.assert_allclose(labelled.z, 2.0 * np.arange(6))
    np.testing.assert_allclose(labelled.x, 0.5 * np.arange(10), rtol=1e-6)
    assert labelled.z.attrs["units"] == "mm"
    np.testing.assert_array_equal(labelled[0].values, result.maps[0])
    np.testing.assert_allclose(np.reshape(labelled.attrs["affine"], (4, 4)), source.affine)
    pytest.importorskip("zarr")
    labelled.to_dataset().to_zarr(tmp_path / "maps.zarr")
    opened = xarray.open_zarr(tmp_path / "maps.zarr")["relevance"]
    np.testing.assert_array_equal(opened.values, labelled.values)
