"""The commands figure, report and movie: their files, captions, rows and errors."""

from __future__ import annotations

import json
import sys

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

import camanim
from camanim import samples
from camanim.errors import RenderError, ScoreError
from camanim.figures import figure_kinds
from camanim.store import is_result_path

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
        "report", "benign_1.png", "broken.png", saved[0], "--title", "Two <b>lesions</b>", "--json",
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


# -- Options, names and inputs that do not fit -------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("movie", "malignant_1.png", "GradCAM.ozx", "--method", "GradCAM", "--method", "LayerCAM",
          "--out", "{stem}.mp4"), "--method"),
        (("run", "malignant_1.png", "GradCAM.ozx", "--target", "malignant"), "--target"),
        (("run", "LayerCAM.ozx", "--method", "GradCAM"), "--method"),
        (("movie", "LayerCAM.ozx", "--method", "GradCAM"), "--method"),
        (("table", "GradCAM.ozx", "--model", "demo/ultrasound"), "--model"),
        (("report", "malignant_1.png", "GradCAM.ozx", "--layers", "unique"), "--layers"),
        (("run", "GradCAM.ozx", "--batch-size", "2"), "--batch-size"),
        (("run", "GradCAM.ozx", "--device", "cpu"), "--device"),
        (("run", "GradCAM.ozx", "--seed", "3"), "--seed"),
        (("figure", "strip", "GradCAM.ozx", "--model", "torchvision/mobilenet_v2"), "--model"),
        (("figure", "strip", "GradCAM.ozx", "--method", "LayerCAM"), "--method"),
        (("figure", "strip", "GradCAM.ozx", "--target", "benign"), "--target"),
        (("figure", "strip", "GradCAM.ozx", "--layers", "blocks"), "--layers"),
        (("figure", "strip", "GradCAM.ozx", "--find", "road"), "--find"),
        (("figure", "curve", "GradCAM.ozx", "--find", "road:draws=3"), "--find"),
    ],
)  # fmt: skip
def test_options_without_effect_on_a_saved_result_are_refused(
    cli, saved, images, monkeypatch, arguments, option
):
    monkeypatch.setattr(camanim, "load_model", lambda *a, **k: pytest.fail("loaded"))
    before = sorted(images.iterdir())
    code, _, err = cli(*arguments)
    assert code == 2
    assert option in err
    assert "saved result" in err
    assert sorted(images.iterdir()) == before


def test_findings_of_a_saved_result_are_computed_on_the_device_of_the_option(
    cli, saved, monkeypatch
):
    moved = []
    to = camanim.Model.to
    monkeypatch.setattr(camanim.Model, "to", lambda self, d: moved.append(str(d)) or to(self, d))
    code, out, err = cli(
        "run", "GradCAM.ozx", "--device", "cpu", "--find", "layer_test", "--json"
    )  # fmt: skip
    assert code == 0, err
    assert "layer_test" in json.loads(out)[0]["findings"]
    assert moved[0] == "cpu"


def test_the_finding_of_a_figure_of_saved_results_is_chosen_by_find(cli, images):
    model, image = camanim.load_model("demo/ultrasound"), samples.image("malignant_1")
    animation = camanim.animate(model, image, layers="blocks")
    found = animation.localise(samples.mask("malignant_1"))
    animation.save(images / "kept.ozx")
    code, _, err = cli("figure", "curve", "kept.ozx", "--out", "a.svg", "--find", found.key)
    assert code == 0, err
    assert found.title in (images / "a.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments",
    [
        ("what-if", "malignant_1.png", "--box", "9,9,40,40", "--out", "malignant_1.png"),
        ("what-if", "malignant_1.png", "--mask", "mask.png", "--out", "mask.png"),
        ("compare", "malignant_1.png", "--road", "--plot", "malignant_1.png"),
        ("compare", "malignant_1.png", "--mask", "mask.png", "--plot", "mask.png",
         "--plot-key", "localisation"),
        ("run", "malignant_1.png", "--mask", "mask.png", "--plot", "./mask.png"),
        ("run", "malignant_1.png", "--model", "card.toml", "--save-card", "card.toml"),
        ("figure", "strip", "malignant_1.png", "--out", "malignant_1.png"),
        ("figure", "strip", "malignant_1.png", "--classes", "names.txt", "--out", "names.pdf"),
    ],
)  # fmt: skip
def test_no_input_is_replaced(cli, images, arguments):
    Image.fromarray(np.uint8(samples.mask("malignant_1")) * 255).save("mask.png")
    camanim.load_model("demo/ultrasound").save_card("card.toml")
    (images / "names.txt").write_text("benign\nmalignant\nnormal\n")
    before = {path: path.read_bytes() for path in images.iterdir()}
    code, _, err = cli(*arguments)
    assert code == 2
    assert "would be replaced" in err
    assert {path: path.read_bytes() for path in images.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "malignant_1.png", "--out", "out/{stem}"), "folder"),
        (("movie", "malignant_1.png", "--out", "out/{stem}"), ".mp4"),
        (("table", "malignant_1.png", "--out", "{name}"), ".csv"),
        (("figure", "strip", "malignant_1.png", "--out", "{stem}"), ".pdf"),
    ],
)
def test_an_out_with_a_field_is_no_folder(cli, images, arguments, message):
    before = sorted(images.iterdir())
    code, _, err = cli(*arguments)
    assert code in (1, 2)
    assert message in err
    assert sorted(images.iterdir()) == before


def test_frames_of_several_images_are_in_folders_of_their_names(cli, images):
    code, _, err = cli(
        "movie", "benign_1.png", "malignant_1.png", "--layers", "features.norm5", "--frames",
        "--out", "f-{stem}",
    )  # fmt: skip
    assert code == 0, err
    assert all((images / f"f-{n}").is_dir() for n in ("benign_1", "malignant_1"))


def test_the_place_of_a_saved_result_is_checked_before_the_run(cli, images, monkeypatch):
    monkeypatch.setattr(camanim, "load_model", lambda *a, **k: pytest.fail("loaded"))
    (images / "notes.zarr").mkdir()
    (images / "notes.zarr" / "letter.txt").write_text("kept")
    code, _, err = cli("run", "malignant_1.png", "--save", "notes.zarr")
    assert code == 1
    assert "notes.zarr" in err
    (images / "a.ozx").mkdir()
    assert cli("run", "malignant_1.png", "--save", "a.ozx")[0] == 1


def test_what_outputs_need_is_checked_before_the_run(cli, saved, images, monkeypatch):
    monkeypatch.setattr(camanim, "load_model", lambda *a, **k: pytest.fail("loaded"))
    for argument in ("malignant_1.png", "GradCAM.ozx"):
        code, _, err = cli("run", argument, "--dicom", "maps")
        assert code == 1
        assert "DICOM" in err
    code, _, err = cli("run", "malignant_1.png", "--dicom", "maps.dcm")
    assert code == 2
    assert "folder" in err
    for module, option, file in (
        ("pyarrow", "--table", "a.parquet"),
        ("pandas", "--table", "a.parquet"),
        ("nibabel", "--maps", "a.nii.gz"),
        ("highdicom", "--dicom", "maps"),
    ):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, module, None)
            code, _, err = cli("run", "malignant_1.png", option, file)
        assert code == 1
        assert module in err


def test_the_result_is_saved_before_other_outputs(cli, images, monkeypatch):
    def fail(*arguments, **settings):
        raise RenderError("The movie cannot be written.")

    monkeypatch.setattr(camanim.Animation, "write_movie", fail)
    code, _, _ = cli(
        "run",
        "malignant_1.png",
        "--layers",
        "features.norm5",
        "--movie",
        "a.mp4",
        "--save",
        "a.ozx",
    )
    assert code == 1
    assert len(camanim.load("a.ozx")) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "GradCAM.ozx", "--estimate"),
        ("predict", "GradCAM.ozx"),
        ("compare", "GradCAM.ozx"),
        ("what-if", "GradCAM.ozx", "--box", "0,0,9,9"),
        ("layers", "demo/ultrasound", "--image", "GradCAM.ozx"),
    ],
)
def test_a_saved_result_in_place_of_an_image_is_one_sentence(cli, saved, arguments):
    code, _, err = cli(*arguments)
    assert code == 1
    assert "saved result" in err
    assert len(err.strip().splitlines()) == 1


def test_results_in_zip_files_are_known_by_their_content(cli, saved, images):
    import zipfile

    camanim.load("GradCAM.ozx").save("kept.zip")
    with zipfile.ZipFile("other.zip", "w") as archive:
        archive.writestr("a.txt", "")
    assert is_result_path("kept.zip")
    assert not is_result_path("other.zip")
    code, out, err = cli("table", "kept.zip", "--json")
    assert code == 0, err
    assert json.loads(out)[0]["method"] == "GradCAM"
    assert cli("diff", "kept.zip", "GradCAM.ozx")[0] == 0
    code, _, err = cli("run", "malignant_1.png", "--layers", "features.norm5", "--save", "b.zip")
    assert code == 0, err


def test_variants_share_a_network_and_keep_errors_and_notes(cli, images, monkeypatch):
    loaded = []
    load = camanim.load_model
    monkeypatch.setattr(camanim, "load_model", lambda *a, **k: loaded.append(a) or load(*a, **k))
    find = camanim.Animation.find

    def failing(self, name, **settings):
        if self.method == "EigenCAM":
            raise ScoreError("EigenCAM has no score.")
        return find(self, name, **settings)

    monkeypatch.setattr(camanim.Animation, "find", failing)
    code, out, err = cli(
        "movie", "malignant_1.png", "--method", "GradCAM", "--method", "EigenCAM",
        "--layers", "features.norm5", "--layers", "features.conv0", "--road", "--no-baseline",
        "--weights", "none", "--out", "a.gif", "--json",
    )  # fmt: skip
    assert code == 1
    assert (images / "a.gif").exists()
    assert "EigenCAM has no score." in err
    assert len(loaded) == 1
    assert err.count("forward passes") == 1
    [row] = json.loads(out)
    assert row["files"] == [str(images / "a.gif")]
    assert "EigenCAM has no score." in row["error"]
    assert any(note.startswith("EigenCAM: ") for note in row["notes"])


@pytest.mark.parametrize("option", [("--target", "benign"), ("--fps", "4"), ("--frames",)])
def test_options_of_a_folder_of_frames(cli, images, option):
    code, _, err = cli(
        "movie", "malignant_1.png", *FEW[:4], "--frames", "--fps", 4, "--out", "frames"
    )
    assert code == 0, err
    code, _, err = cli("movie", "frames", *option, "--out", "a.mp4")
    assert code == (0 if option[0] == "--fps" else 2)
    if code:
        assert option[0] in err


def test_the_default_speed_is_a_speed_where_it_is_given(cli, images):
    cli("movie", "malignant_1.png", *FEW[:4], "--frames", "--fps", 2, "--out", "frames")
    default = str(camanim.cli.options.MOVIE_OPTIONS.defaults["fps"])
    for arguments, fps in (((), 2.0), (("--fps", default), float(default))):
        code, _, err = cli("movie", "frames", "--out", "a.mp4", *arguments)
        assert code == 0, err
        read = imageio_ffmpeg.read_frames("a.mp4")
        assert next(read)["fps"] == pytest.approx(fps)
        read.close()


def test_an_interrupted_figure_lists_what_is_complete(cli, images, monkeypatch):
    make = camanim.make_figure
    made = []

    def interrupted(*arguments, **settings):
        if made:
            raise KeyboardInterrupt
        made.append(1)
        return make(*arguments, **settings)

    monkeypatch.setattr(camanim, "make_figure", interrupted)
    code, out, err = cli("figure", "strip", "*ign*_1.png", *FEW, "--out", "figures", "--json")
    assert code == 130
    [row] = json.loads(out)
    assert row["file"] == str(images / "figures" / "benign_1-strip.pdf")
    assert "1 of 2" in err


def test_an_interrupted_batch_writes_its_summary_also_with_json(cli, images, monkeypatch):
    animate = camanim.animate
    made = []

    def interrupted(*arguments, **settings):
        if made:
            raise KeyboardInterrupt
        made.append(1)
        return animate(*arguments, **settings)

    monkeypatch.setattr(camanim, "animate", interrupted)
    code, out, _ = cli(
        "run", "*ign*_1.png", "--layers", "features.norm5", "--out", "out", "--table", "{stem}.csv",
        "--json",
    )  # fmt: skip
    assert code == 130
    assert len(json.loads(out)) == 1
    assert "benign_1.png" in (images / "out" / "summary.csv").read_text()


@pytest.mark.parametrize("after", [0, 1])
def test_an_interrupted_predict_prints_what_it_has(cli, images, monkeypatch, after):
    predict = camanim.Model.predict
    made = []

    def interrupted(*arguments, **settings):
        if len(made) == after:
            raise KeyboardInterrupt
        made.append(1)
        return predict(*arguments, **settings)

    monkeypatch.setattr(camanim.Model, "predict", interrupted)
    code, out, _ = cli("predict", "benign_1.png", "malignant_1.png")
    assert code == 130
    assert ("benign_1.png" in out) == bool(after)
    assert "malignant_1.png" not in out
    assert bool(out.strip()) == bool(after)


def test_dicom_files_of_an_interrupted_run_are_listed(cli, images, monkeypatch):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    from pydicom.data import get_testdata_file

    pydicom.dcmread(get_testdata_file("CT_small.dcm")).save_as(images / "ct.dcm")
    (images / "maps").mkdir()
    (images / "maps" / "0002_older.dcm").write_bytes(b"")
    module = sys.modules["camanim.export.dicom"]
    write = module.write_file
    made = []

    def interrupted(*arguments):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(arguments[0])
        return write(*arguments)

    monkeypatch.setattr(module, "write_file", interrupted)
    code, out, _ = cli("run", "ct.dcm", *FEW, "--dicom", "maps", "--json")
    assert code == 130
    assert json.loads(out)[0]["files"] == list(map(str, made))


def test_the_words_of_diff_are_true(cli, saved):
    assert cli("diff", *saved)[0] == 1
    kept = camanim.load(saved[0])
    kept.provenance["torch"] = "0.1"
    kept.save("older.ozx")
    code, out, _ = cli("diff", saved[0], "older.ozx")
    assert code == 1
    assert "torch" in out
    assert "Numbers differ" not in out
    assert "numbers are equal" in out.lower()
    code, out, _ = cli("rerun", "older.ozx")
    assert code == 0


def test_a_demo_with_out_writes_files_where_there_is_a_display(cli, images, monkeypatch):
    module = sys.modules["camanim.cli.demo"]
    monkeypatch.setattr(module, "missing_window", lambda: "")
    monkeypatch.setattr(module, "open_demo", lambda: pytest.fail("opened"))
    code, _, err = cli("demo", "--out", "made")
    assert code == 0, err
    assert (images / "made" / "demo.csv").exists()


def test_view_sets_the_network_that_is_given(cli, images, monkeypatch):
    module = sys.modules["camanim.cli.view"]
    opened = []
    monkeypatch.setattr(module, "missing_window", lambda: "")
    monkeypatch.setattr(module, "open_view", lambda *a: opened.append(a[2]))
    assert cli("view", "malignant_1.png")[0] == 0
    assert cli("view", "malignant_1.png", "--model", "demo/ultrasound")[0] == 0
    assert opened == [None, "demo/ultrasound"]
