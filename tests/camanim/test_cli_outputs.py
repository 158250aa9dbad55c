"""The commands figure, report and movie: their files, captions, rows and errors."""

from __future__ import annotations

import json

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

import camanim
from camanim import samples
from camanim.figures import figure_kinds

FEW = ("--layers", "features.norm5", "--layers", "features.conv0", "--layers", "blocks")


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Two images and a file that is none, in the current folder."""
    for name in ("benign_1", "malignant_1"):
        Image.fromarray(samples.image(name)).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def saved(images):
    """Results of two methods in files."""
    model, image = camanim.load_model("demo/ultrasound"), samples.image("malignant_1")
    paths = []
    for method in ("GradCAM", "LayerCAM"):
        animation = camanim.animate(model, image, method=method, layers="blocks")
        animation.score(draws=2)
        paths.append(animation.save(images / f"{method}.ozx"))
    return paths


def frames(path):
    read = imageio_ffmpeg.read_frames(str(path))
    width, height = next(read)["size"]
    return [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in read]


@pytest.mark.parametrize("name", [n for n, k in figure_kinds().items() if k.takes != "pair"])
def test_every_figure_is_drawn_of_saved_results(cli, saved, images, name):
    kind = figure_kinds()[name]
    given = saved if "method" in kind.varies else saved[:1]
    option = name.replace("_", "-")
    code, out, err = cli("figure", option, *given, "--out", "figure.png", "--dpi", 60, "--json")
    if name in ("one_d", "guided"):
        # These results have no outputs without space, and no guided gradient.
        assert code == 1
        assert not (images / "figure.png").exists()
        return
    assert code == 0, err
    [row] = json.loads(out)
    assert np.asarray(Image.open("figure.png").convert("L")).std() > 5
    assert (images / "figure.txt").read_text(encoding="utf-8").strip() == row["caption"].strip()
    assert "demo/ultrasound" in row["caption"]
    assert "GradCAM" in row["caption"]


def test_figures_of_images_are_computed_with_the_settings_of_the_options(cli, images):
    code, out, err = cli(
        "figure", "counterfactual", "*ign*_1.png", "--out", "figures", "--target", "malignant",
        "--layers", "features.norm5", "--figure-layers", "features.norm5", "--json",
    )  # fmt: skip
    assert code == 0, err
    rows = json.loads(out)
    assert [row["image"] for row in rows] == ["benign_1.png", "malignant_1.png"]
    for row in rows:
        assert "against malignant" in row["caption"].lower() or "malignant" in row["caption"]
        assert "features.norm5" in row["caption"]
    files = sorted(path.name for path in (images / "figures").iterdir())
    assert files == [
        "benign_1-counterfactual.pdf",
        "benign_1-counterfactual.txt",
        "malignant_1-counterfactual.pdf",
        "malignant_1-counterfactual.txt",
    ]


def test_methods_and_findings_of_a_figure(cli, images):
    code, out, err = cli(
        "figure", "curve", "malignant_1.png", "--method", "GradCAM", "--method", "EigenCAM",
        "--layers", "blocks", "--find", "road:draws=2", "--out", "curve.svg", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert "EigenCAM" in json.loads(out)[0]["caption"]
    assert "EigenCAM" in (images / "curve.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["strip", "broken.png"], 1),
        (["strip", "missing.png"], 1),
        (["strip", "malignant_1.png", "--out", "a.txt"], 1),
        (["strip", "malignant_1.png", "--step", "0"], 2),
        (["strip", "*_1.png", "--out", "one.pdf"], 2),
        (["sheet", "malignant_1.png", "--method", "GradCAM", "--method", "EigenCAM"], 1),
        (["matrix", "malignant_1.png", "--rows", "colour"], 2),
        (["curve", "malignant_1.png", "--find", "road", "--find", "layer_test"], 2),
        (["unknown", "malignant_1.png"], 2),
    ],
)
def test_wrong_figures_leave_no_file(cli, images, arguments, code):
    before = sorted(images.iterdir())
    ended, _, err = cli("figure", *arguments, *FEW)
    assert ended == code
    assert err.strip()
    assert sorted(images.iterdir()) == before


def test_a_failing_image_is_a_row_among_figures(cli, images):
    code, out, _ = cli(
        "figure", "strip", "malignant_1.png", "broken.png", *FEW, "--out", ".", "--json"
    )
    assert code == 1
    good, bad = json.loads(out)
    assert good["file"].endswith("malignant_1-strip.pdf")
    assert "broken.png" in bad["error"]
    assert "file" not in bad


def test_a_report_of_images_and_results_has_a_row_for_a_failure(cli, images, saved):
    code, out, _ = cli(
        "report", "benign_1.png", "broken.png", saved[0], *FEW, "--title", "Two <b>lesions</b>",
        "--json",
    )  # fmt: skip
    assert code == 1
    rows = json.loads(out)
    assert [row.get("error", "") != "" for row in rows] == [False, True, False]
    page = (images / "report.html").read_text(encoding="utf-8")
    assert "benign_1" in page
    assert "broken" in page
    assert "Two &lt;b&gt;lesions" in page
    assert str(images) not in page
    assert all(row["files"] == [str(images / "report.html")] for row in rows)


def test_no_report_is_written_of_nothing(cli, images):
    code, _, err = cli("report", "broken.png", "--out", "a.html")
    assert code == 1
    assert "broken.png" in err
    code, _, _ = cli("report", "malignant_1.png", "--out", "a.pdf")
    assert code == 1
    assert not (images / "a.html").exists()


def test_several_methods_are_one_movie(cli, images):
    arguments = ("--layers", "features.norm5", "--layers", "features.conv0", "--fps", 10)
    code, _, err = cli(
        "movie", "malignant_1.png", "--method", "GradCAM", "--method", "EigenCAM", *arguments,
        "--out", "both.mp4",
    )  # fmt: skip
    assert code == 0, err
    both = frames("both.mp4")
    code, _, err = cli("movie", "malignant_1.png", *arguments, "--out", "one.mp4")
    assert code == 0, err
    assert len(both) == len(frames("one.mp4")) == 2
    assert both[0].shape != frames("one.mp4")[0].shape
    code, _, _ = cli(
        "movie", "malignant_1.png", "--method", "GradCAM", "--method", "EigenCAM",
        "--movie-layout", "image | map",
    )  # fmt: skip
    assert code == 2


def test_a_folder_of_frames_becomes_a_movie_again(cli, images):
    code, out, err = cli("movie", "malignant_1.png", *FEW, "--frames", "--fps", 4, "--out", "v1.0")
    assert code == 0, err
    pictures = sorted((images / "v1.0").glob("*.png"))
    assert len(pictures) > 3
    pictures[0].unlink()
    code, out, err = cli("movie", "v1.0", "--out", "again.mp4", "--json")
    assert code == 0, err
    assert json.loads(out)[0]["files"] == [str(images / "again.mp4")]
    again = frames("again.mp4")
    assert len(again) == len(pictures) - 1
    expected = np.asarray(Image.open(pictures[1]).convert("RGB")).astype(int)
    assert np.abs(again[0].astype(int) - expected).mean() < 4
    code, _, _ = cli("movie", "v1.0", "--opacity", 0.2)
    assert code == 2


def test_maps_and_results_are_outputs_of_run(cli, images):
    code, _, err = cli(
        "run", "malignant_1.png", *FEW, "--maps", "maps.npz", "--save", "a.camanim.zarr",
        "--table", "t.json", "--movie", "m.gif",
    )  # fmt: skip
    assert code == 0, err
    opened = camanim.load("a.camanim.zarr")
    with np.load("maps.npz") as maps:
        for layer, values in zip(opened.layers, opened.maps, strict=True):
            assert np.array_equal(maps[layer.label], values)
    assert json.loads((images / "t.json").read_text())["rows"]
    assert Image.open("m.gif").n_frames > 2
    code, out, _ = cli("rerun", "a.camanim.zarr", "--json")
    assert code == 0
    assert json.loads(out)["equal"]


def test_maps_of_a_dicom_image_are_parametric_maps_beside_it(cli, images):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    from pydicom.data import get_testdata_file

    source = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    source.save_as(images / "ct.dcm")
    code, out, err = cli("run", "ct.dcm", "--layers", "features.norm5", "--dicom", "maps", "--json")
    assert code == 0, err
    [file] = json.loads(out)[0]["files"]
    written = pydicom.dcmread(file)
    assert written.SOPClassUID == "1.2.840.10008.5.1.4.1.1.30"
    assert written.FrameOfReferenceUID == source.FrameOfReferenceUID
    code, _, err = cli("run", "malignant_1.png", "--layers", "features.norm5", "--dicom", "others")
    assert code == 1
    assert "DICOM" in err


def test_several_targets_are_one_movie(cli, images):
    code, _, err = cli(
        "movie", "malignant_1.png", "--target", "malignant", "--target", "benign",
        "--layers", "features.norm5", "--out", "targets.gif",
    )  # fmt: skip
    assert code == 0, err
    assert Image.open("targets.gif").n_frames == 1
    comment = Image.open("targets.gif").info["comment"]
    assert b"malignant" in comment
    assert b"benign" in comment
