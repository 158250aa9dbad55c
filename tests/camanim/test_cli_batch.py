"""The command line over several images, its JSON, its names, and what an interrupt leaves."""

from __future__ import annotations

import csv
import inspect
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import NoneType
from typing import get_args

import imageio_ffmpeg
import numpy as np
import pytest
import typer
from PIL import Image
from rich.console import Console
from typer.models import OptionInfo
from typer.testing import CliRunner

import camanim
from camanim import samples
from camanim.cli import app, naming
from camanim.cli.options import EXTRA_OPTIONS
from camanim.cli.terminal import print_table
from camanim.progress import IMAGES, console
from camanim.render.encoder import is_complete

FEW = ("--layers", "features.norm5", "--layers", "features.conv0")
COMMAND = [sys.executable, "-c", "from camanim.cli import main; main()"]


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder with three images and one file that is none; it is the current folder."""
    for name in ("benign_1", "benign_2", "malignant_1"):
        Image.fromarray(samples.image(name)).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def strict(text):
    """Parse JSON, without the numbers that JSON does not have."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


# -- Several images --------------------------------------------------------------------------------


def test_a_glob_is_expanded_and_a_failing_image_is_a_row(images, cli):
    code, out, err = cli("run", "*.png", *FEW, "--out", "results", "--road", "--no-baseline")
    assert code == 1
    assert "1 of 4 images failed" in err
    with (images / "results" / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [
        "benign_1.png", "benign_2.png", "broken.png", "malignant_1.png",
    ]  # fmt: skip
    assert [bool(row["error"]) for row in rows] == [False, False, True, False]
    assert {p.name for p in (images / "results").iterdir()} == {"summary.csv"} | {
        f"{name}{suffix}"
        for name in ("benign_1", "benign_2", "malignant_1")
        for suffix in (".mp4", ".csv")
    }
    model = camanim.load_model("demo/ultrasound")
    expected = camanim.animate(
        model, samples.image("benign_2"), layers=["features.norm5", "features.conv0"]
    )
    expected.score(baseline=False)
    assert rows[1]["class"] == expected.target.name
    assert float(rows[1]["probability"]) == pytest.approx(expected.probability)
    assert float(rows[1]["ROAD mean"]) == pytest.approx(np.mean(expected.road.scores))
    assert imageio_ffmpeg.count_frames_and_secs("results/benign_2.mp4")[0] == 2
    assert "malignant_1.png" in out


def test_the_network_is_loaded_once(images, cli, monkeypatch):
    loaded = []
    load = camanim.load_model
    monkeypatch.setattr(camanim, "load_model", lambda *a, **k: loaded.append(a) or load(*a, **k))
    code, _, err = cli("table", "benign_*.png", *FEW, "--out", "{stem}.csv")
    assert code == 0, err
    assert len(loaded) == 1
    assert (images / "benign_1.csv").exists()
    assert (images / "benign_2.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "benign_*.png", "--movie", "x.mp4"), 2, "{stem}"),
        (("movie", "benign_*.png", "--out", "x.mp4"), 2, "--out x.mp4"),
        (("run", "benign_1.png", "benign_1.jpg", "--movie", "{stem}.mp4"), 2, "benign_1.mp4"),
        (("run", "benign_*.png", "--movie", "{file}.mp4"), 2, "{file}"),
        (("run", "benign_*.png", "--plot", "{stem}.png", "--road"), 2, "is an image"),
        (("run", "summary.png", "benign_1.png", "--out", "x"), 2, "summary"),
        (("run", "benign_1.png", "--out", "x.mp4"), 2, "--movie"),
        (("run", "nothing*.png",), 1, "nothing*.png"),
        (("run", "-",), 1, "'-'"),
        (("run", "benign_1.png", "--save", "x.tar"), 1, ".zip"),
        (("predict", "benign_1.png", "--top", "0"), 2, "--top"),
        (("table", "benign_1.png", "--mask", "{mask}.png", "--find", "localisation"), 2, "{mask}"),
    ],
)  # fmt: skip
def test_names_are_checked_before_anything_is_computed(
    images, cli, monkeypatch, arguments, code, message
):
    monkeypatch.setattr(camanim, "load_model", lambda *a, **k: pytest.fail("loaded"))
    before = sorted(images.iterdir())
    found, out, err = cli(*arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert sorted(images.iterdir()) == before


def test_both_names_of_a_stem_are_written_with_their_suffix(images, cli):
    Image.fromarray(samples.image("benign_1")).save("benign_1.bmp")
    code, _, err = cli("table", "benign_1.png", "benign_1.bmp", *FEW, "--out", "{name}.csv")
    assert code == 0, err
    assert Path("benign_1.png.csv").read_bytes()
    assert Path("benign_1.bmp.csv").read_bytes()


def test_each_image_has_its_mask(images, cli):
    for name in ("benign_1", "benign_2"):
        Image.fromarray(np.uint8(samples.mask(name)) * 255).save(f"mask_{name}.png")
    code, out, err = cli(
        "run", "benign_1.png", "benign_2.png", *FEW, "--mask", "mask_{stem}.png", "--json"
    )
    assert code == 0, err
    model = camanim.load_model("demo/ultrasound")
    for record, name in zip(strict(out), ("benign_1", "benign_2"), strict=True):
        expected = camanim.animate(
            model, samples.image(name), layers=["features.norm5", "features.conv0"]
        ).localise(samples.mask(name))
        assert record["findings"]["localisation"]["summary"] == expected.summary()


def test_notes_of_several_images_are_printed_once_with_their_images(images, cli):
    deep = samples.image("benign_1").astype(np.uint16) * 4
    Image.fromarray(deep).save("deep.png")
    code, out, _ = cli(
        "table", "benign_1.png", "deep.png", "benign_2.png", *FEW, "--weights", "none"
    )
    assert code == 0
    (note,) = [line for line in out.splitlines() if "uint16" in line]
    assert note.startswith("deep.png: ")


def test_the_price_of_scores_is_printed_once(images, cli):
    arguments = ("table", "benign_*.png", *FEW, "--road", "--no-baseline")
    _, _, err = cli(*arguments)
    assert err.count("forward passes") == 1
    assert cli(*arguments, "--quiet")[2] == ""


def test_globs_quoted_and_expanded_name_the_same_files(images):
    (images / "inner").mkdir()
    Image.fromarray(samples.image("benign_1")).save(images / "inner" / "x.png")
    assert naming.input_paths(["b*.png"]) == [
        Path("benign_1.png"), Path("benign_2.png"), Path("broken.png"),
    ]  # fmt: skip
    # A file that is named twice is explained once, and a name with brackets is not a glob if it exists.
    assert naming.input_paths(["benign_1.png", "./benign_1.png"]) == [Path("benign_1.png")]
    (images / "scan[1].png").write_bytes(b"")
    assert naming.input_paths(["scan[1].png"]) == [Path("scan[1].png")]
    assert naming.input_paths(["**/*.png"])[-2:] == [Path("malignant_1.png"), Path("scan[1].png")]
    assert Path("inner/x.png") in naming.input_paths(["**/*.png"])
    (images / "a.camanim.zarr").mkdir()
    assert naming.input_paths(["*.zarr"]) == [Path("a.camanim.zarr")]


def test_globs_give_images_in_folders_and_not_the_insides_of_images(images):
    (images / "r" / "a.ome.zarr" / "c").mkdir(parents=True)
    (images / "r" / "a.ome.zarr" / "zarr.json").write_text("{}")
    for patient in ("one", "two"):
        (images / "r" / patient).mkdir()
        for name in ("0", "1"):
            (images / "r" / patient / name).write_bytes(bytes(128) + b"DICM")
    (images / "r" / "empty").mkdir()
    expected = [Path("r/a.ome.zarr"), Path("r/one"), Path("r/two")]
    assert naming.input_paths(["r/*"]) == expected
    assert naming.input_paths(["r/**"]) == expected
    assert naming.input_paths(["r/one/**"]) == [Path("r/one")]
    assert naming.input_paths(["r/*/*"]) == [
        Path(f"r/{p}/{n}") for p in ("one", "two") for n in "01"
    ]
    assert naming.input_paths(["r/a.ome.zarr/*.json"]) == [Path("r/a.ome.zarr/zarr.json")]


@pytest.mark.parametrize(
    ("name", "stem", "is_result"),
    [
        ("scan.nii.gz", "scan", False),
        ("a.b.png", "a.b", False),
        ("x.camanim.zarr", "x", True),
        ("x.ozx", "x", True),
        ("x.camanim.zip", "x", True),
        ("x.ome.zarr", "x", False),
        ("x.zip", "x", False),
    ],
)
def test_results_are_known_by_their_names(name, stem, is_result):
    assert naming.stem(Path(name)) == stem
    assert naming.is_result_file(Path(name)) == is_result


# -- Saved results ---------------------------------------------------------------------------------


@pytest.fixture
def saved(images):
    """A saved result, ``kept.camanim.zarr`` and ``kept.zarr``."""
    model = camanim.load_model("demo/ultrasound")
    animation = camanim.animate(model, samples.image("benign_1"), layers="blocks")
    animation.score(baseline=False)
    animation.save("kept.camanim.zarr")
    animation.save("kept.zarr")
    return animation


def test_a_saved_result_takes_the_place_of_an_image(saved, cli, monkeypatch):
    monkeypatch.setattr(camanim, "load_model", lambda *a, **k: pytest.fail("loaded"))
    code, out, err = cli("movie", "kept.camanim.zarr", "--out", "kept.mp4")
    assert code == 0, err
    assert imageio_ffmpeg.count_frames_and_secs("kept.mp4")[0] == len(saved)
    code, out, err = cli("table", "kept.zarr", "--json")
    rows = [row for row in strict(out)[0]["layers"] if row["status"] == "ok"]
    np.testing.assert_allclose(np.array([row["ROAD"] for row in rows], float), saved.road.scores)
    code, _, err = cli("table", "kept.camanim.zarr", "--method", "LayerCAM")
    assert code == 2
    assert "--method" in err
    code, _, err = cli("table", "other.camanim.zarr")
    assert code == 1
    assert "other.camanim.zarr" in err


def test_a_damaged_result_is_a_row(saved, cli, images):
    (images / "damaged.ozx").write_bytes(b"no zip")
    code, out, _ = cli("table", "benign_1.png", "damaged.ozx", "kept.camanim.zarr", "--json")
    assert code == 1
    assert ["error" in record for record in strict(out)] == [False, True, False]


def test_a_folder_of_zarr_is_a_result_by_its_attribute(saved, images):
    assert naming.is_result_file(Path("kept.zarr"))
    (images / "other.zarr").mkdir()
    for content in ("{}", "[]", "no json", '{"attributes": {"ome": {}}}'):
        (images / "other.zarr" / "zarr.json").write_text(content)
        assert not naming.is_result_file(Path("other.zarr"))


@pytest.mark.parametrize("suffix", [".camanim.zarr", ".ozx", ".camanim.zip"])
def test_save_writes_each_result(images, cli, suffix):
    code, out, err = cli("run", "benign_*.png", *FEW, "--save", "{stem}" + suffix, "--json")
    assert code == 0, err
    for record, name in zip(strict(out), ("benign_1", "benign_2"), strict=True):
        assert Path(record["files"][0]).name == name + suffix
        opened = camanim.load(name + suffix)
        assert opened.target.name == record["target"]
        assert [layer.name for layer in opened.layers] == ["features.conv0", "features.norm5"]
        assert naming.is_result_file(Path(name + suffix))


def test_a_result_is_computed_again_and_compared(saved, cli):
    code, out, err = cli("rerun", "kept.camanim.zarr", "--json")
    assert code == 0, err
    verdicts = {each["part"]: each["verdict"] for each in strict(out)["differences"]}
    assert verdicts["maps"] in ("equal", "close")
    assert cli("diff", "kept.camanim.zarr", "kept.zarr")[0] == 0
    saved.maps[-1] = saved.maps[-1] * 2
    saved.save("other.ozx")
    code, out, _ = cli("diff", "kept.zarr", "other.ozx")
    assert code == 1
    assert "maps" in out
    assert cli("diff", "kept.zarr")[0] == 2


# -- JSON ------------------------------------------------------------------------------------------


def test_json_of_runs_is_strict_and_complete(images, cli):
    # The maps of a black image are constant, so that ROAD is not defined.
    Image.fromarray(np.zeros((64, 64), np.uint8)).save("black.png")
    code, out, _ = cli(
        "run", "benign_1.png", "black.png", "broken.png", *FEW, "--road", "--json",
        "--table", "{stem}.csv",
    )  # fmt: skip
    assert code == 1
    first, black, broken = strict(out)
    model = camanim.load_model("demo/ultrasound")
    expected = camanim.animate(
        model, samples.image("benign_1"), layers=["features.norm5", "features.conv0"]
    )
    assert first["target"] == expected.target.name
    assert first["probability"] == pytest.approx(expected.probability)
    assert [row["name"] for row in first["layers"]] == [c.name for c in expected.layer_calls]
    assert first["findings"]["road"]["summary"] == expected.score().summary()
    assert first["files"] == [str(images / "benign_1.csv")]
    assert set(first) <= set(black) | {"error"}
    assert broken["error"]
    assert "target" not in broken


def test_json_of_one_failing_image_is_a_list_and_an_error(images, cli):
    code, out, err = cli("run", "broken.png", "--json")
    assert code == 1
    assert "broken.png" in strict(out)[0]["error"]
    assert err.startswith("Error: ")


def test_json_of_lists(cli):
    assert strict(cli("models", "--json")[1]) == camanim.list_models()
    methods = strict(cli("methods", "--json")[1])
    assert [method["name"] for method in methods] == list(camanim.methods())
    (one,) = strict(cli("methods", "ScoreCAM", "--json")[1])
    assert "channels" in [option["name"] for option in one["options"]]
    kinds = strict(cli("findings", "--json")[1])
    assert [kind["name"] for kind in kinds] == list(camanim.finding_kinds())


def test_json_of_a_comparison(images, cli):
    code, out, err = cli(
        "compare", "benign_1.png", "--method", "GradCAM", "--method", "ScoreCAM", *FEW,
        "--option", "channels=2", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert [run["method"] for run in strict(out)["runs"]] == ["GradCAM", "ScoreCAM"]
    code, _, err = cli("compare", "benign_1.png", "--option", "channels=2")
    assert code == 1
    assert "'channels'" in err


def test_estimates_of_several_images(images, cli):
    code, out, _ = cli("run", "benign_1.png", "broken.png", *FEW, "--estimate", "--json")
    assert code == 1
    first, broken = strict(out)
    assert first["forwards"] >= 1
    assert "error" in broken


# -- predict and layers ----------------------------------------------------------------------------


def test_predict_ranks_the_classes_of_each_image(images, cli):
    code, out, _ = cli("predict", "*.png", "--top", "2", "--json")
    assert code == 1
    records = strict(out)
    model = camanim.load_model("demo/ultrasound")
    expected = model.predict(samples.image("malignant_1"), 2)
    assert [entry["name"] for entry in records[-1]["classes"]] == [e.name for e in expected]
    assert records[-1]["classes"][0]["probability"] == pytest.approx(expected[0].probability)
    assert "error" in records[2]
    code, out, _ = cli("predict", "malignant_1.png", "--box", "0,0,100,100")
    assert code == 0
    expected = model.predict(samples.image("malignant_1")[:100, :100], 1)[0]
    assert f"{expected.probability:.3f}" in out


def test_predict_makes_one_forward_pass_and_no_map(images, cli, monkeypatch):
    model = camanim.load_model("demo/ultrasound")
    passes = []
    model.net.register_forward_hook(lambda *a: passes.append(1))
    monkeypatch.setattr(camanim, "load_model", lambda *a, **k: model)
    monkeypatch.setattr(camanim, "animate", lambda *a, **k: pytest.fail("maps"))
    assert cli("predict", "benign_1.png")[0] == 0
    assert len(passes) == 1


def test_layers_lists_every_call_with_its_shape(cli, images):
    code, out, err = cli("layers", "demo/ultrasound", "--json")
    assert code == 0, err
    rows = strict(out)
    net = camanim.load_model("demo/ultrasound").net
    assert {row["name"] for row in rows} <= {name for name, _ in net.named_modules()}
    by_name = {row["name"]: row for row in rows}
    first = by_name["features.conv0"]
    assert (first["kind"], first["map"], first["output shape"]) == ("Conv2d", True, "1x16x64x64")
    assert first["parameters"] == sum(p.numel() for p in net.features.conv0.parameters())
    assert not by_name["class_layers.out"]["map"]
    assert "1-D" in by_name["class_layers.out"]["status"]
    code, out, _ = cli("layers", "demo/ultrasound", "--filter", "Conv2d", "--size", "64", "--json")
    assert {row["kind"] for row in strict(out)} == {"Conv2d"}
    assert strict(out)[0]["output shape"] == "1x16x32x32"
    code, out, _ = cli("layers", "demo/ultrasound", "--filter", "*conv0")
    assert "grey image of 128 x 128 pixels" in out
    assert "features.conv0" in out
    assert cli("layers", "demo/ultrasound", "--filter", "nothing")[0] == 1


def test_layers_of_a_network_for_volumes_of_any_size_and_four_channels(cli):
    code, out, err = cli(
        "layers", "monai/BasicUNet?spatial_dims=3&in_channels=4&out_channels=2&features=(4,4,4,4,4,4)",
        "--filter", "Conv3d", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert {row["kind"] for row in strict(out)} == {"Conv3d"}


# -- Names of options ------------------------------------------------------------------------------


def test_an_option_has_one_name_type_and_help_in_all_commands():
    commands = typer.main.get_command(app).commands
    assert set(commands) >= {
        "run", "predict", "movie", "table", "view", "models", "methods", "layers", "demo", "doctor",
        "compare", "what-if", "findings",
    }  # fmt: skip
    known: dict[str, tuple] = {}
    by_keyword: dict[str, tuple] = {}
    groups = [group.typer_instance for group in app.registered_groups]
    for command in [c for each in (app, *groups) for c in each.registered_commands]:
        for keyword, parameter in inspect.signature(command.callback).parameters.items():
            if parameter.annotation is typer.Context:
                continue
            kind, declared = get_args(parameter.annotation)
            if not isinstance(declared, OptionInfo):
                continue
            # In an annotation, typer takes the first name for a default.
            names = (declared.default, *(declared.param_decls or ()))
            names = tuple(n for n in names if isinstance(n, str))
            names = names or (f"--{keyword.replace('_', '-')}",)
            # An option that compare takes several times has the type of its values.
            single = [k for k in get_args(kind) if k is not NoneType] or [kind]
            single = [item for k in single for item in get_args(k) or [k]]
            described = (keyword, names, single, declared.help, declared.min, declared.max)
            for name in names:
                assert known.setdefault(name, described) == described, command.callback
            assert by_keyword.setdefault(keyword, names) == names
    assert {"--layers", "--device", "--seed", "--method", "--option", "--json"} <= set(known)
    # Every option that is not a setting is taken by a command.
    assert set(EXTRA_OPTIONS) <= set(by_keyword)
    assert all(described[3] for described in known.values())


# -- Names in narrow terminals and pipes -----------------------------------------------------------

NAME = "features.denseblock1.denselayer1.layers.norm1.and.a.very.long.name"


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("terminal", [True, False])
def test_names_are_never_broken(width, terminal):
    out = io.StringIO()
    rows = [[NAME, "BatchNorm2d", "1x128x56x56", "[red]x", "A sentence " * 9], ["b", *[""] * 4]]
    print_table(
        ["layer", "kind", "output", "class", "text"], rows, prose=("text",),
        console=Console(file=out, width=width, force_terminal=terminal, color_system=None),
    )  # fmt: skip
    for name in (NAME, "BatchNorm2d", "1x128x56x56", "[red]x"):
        assert sum(name in line for line in out.getvalue().splitlines()) == 1
    if not terminal:
        assert any(NAME in line and "1x128x56x56" in line for line in out.getvalue().splitlines())


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
def test_names_of_layers_are_whole_in_a_terminal_of_80_columns_and_in_a_pipe(images):
    name = "features.denseblock2.denselayer1.layers.norm1"
    arguments = [*COMMAND, "run", "benign_1.png", "--layers", "*.norm1", "--road", "--no-baseline"]
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    piped = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=True)
    assert name in piped.stdout
    # Without a terminal there are no bars, only the price of the scores.
    assert len(piped.stderr.splitlines()) == 1
    assert "forward passes" in piped.stderr
    leader, follower = pty.openpty()
    with subprocess.Popen(
        arguments, stdout=follower, stderr=follower, stdin=follower, env=environment
    ) as process:
        os.close(follower)
        text = b""
        while True:
            try:
                chunk = os.read(leader, 65536)
            except OSError:  # the end, on Linux
                break
            if not chunk:
                break
            text += chunk
        assert process.wait(60) == 0
    os.close(leader)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())
    assert name in shown
    # Bars of stages, which are complete in the end.
    for stage in ("maps", "masks", "ROAD"):
        *_, last = re.findall(rf"{stage} .* (\d+/\d+)", shown)
        done, total = last.split("/")
        assert done == total


def test_file_names_in_errors_are_whole(tmp_path, cli):
    path = tmp_path / ("long name " * 12 + ".png")
    _, _, err = cli("run", path)
    assert str(path) in err
    _, _, err = cli("run", path, "--fps", "3")
    assert "--fps needs --movie" in err
    code, _, err = cli("run", path, "--no-such-option")
    assert code == 2
    assert "--no-such-option" in err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of bytes")
def test_file_names_that_are_not_unicode_are_printed(images):
    path = os.fsencode(images) + b"/\xff.png"
    os.rename(images / "benign_1.png", path)
    done = subprocess.run(
        [*COMMAND, "predict", path, "broken.png"], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"udcff.png" in done.stdout
    assert b"Traceback" not in done.stderr
    done = subprocess.run([*COMMAND, "run", b"no\xff.png"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"udcff.png" in done.stderr


# -- Progress --------------------------------------------------------------------------------------


@pytest.fixture
def bars(monkeypatch):
    """Show bars as in a terminal, and return a function that returns them."""
    shown = []
    from rich.progress import Progress

    class Kept(Progress):
        def __init__(self, *columns, console):
            super().__init__(*columns, console=Console(file=io.StringIO(), force_terminal=True))
            shown.append(self)

    monkeypatch.setattr("rich.progress.Progress", Kept)
    monkeypatch.setenv("FORCE_COLOR", "1")
    return lambda: {t.description: (t.completed, t.total) for t in shown[-1].tasks}


def test_stages_end_at_their_totals(bars):
    with console() as progress:
        progress("maps", 10, 100)
        progress("wait", 0, 0)
        assert bars() == {"maps": (100, 100), "wait": (0, None)}
        progress("layer test", 7, 20)
    assert bars() == {"maps": (100, 100), "wait": (1, 1), "layer test": (20, 20)}


def test_bars_of_a_cancelled_stage_stay(bars):
    def work():
        with console() as progress:
            progress("masks", 3, 3)
            progress("maps", 10, 100)
            raise camanim.Cancelled("stop")

    with pytest.raises(camanim.Cancelled):
        work()
    assert bars() == {"masks": (3, 3), "maps": (10, 100)}


def test_each_image_begins_the_stages_anew(bars):
    with console() as progress:
        progress(IMAGES, 0, 2)
        progress("maps", 5, 9)
        assert bars() == {IMAGES: (0, 2), "maps": (5, 9)}
        progress(IMAGES, 1, 2)
        assert bars() == {IMAGES: (1, 2)}
        progress("maps", 1, 9)
        progress(IMAGES, 2, 2)
    assert bars() == {IMAGES: (2, 2)}


def test_quiet_shows_no_bars(bars):
    with console(quiet=True) as progress:
        progress("maps", 1, 2)
    with pytest.raises(IndexError):
        bars()


# -- Interrupt -------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_keeps_what_is_complete_and_leaves_no_half_file(images):
    # The second movie waits at its second frame, where SIGINT arrives.
    code = (
        "import camanim.render.movie as m, time; from camanim.cli import main\n"
        "original, frames = m.FrameRenderer.canvas, []\n"
        "def canvas(*a):\n"
        "    frames.append(a)\n"
        "    if len(frames) == 4:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    return original(*a)\n"
        "m.FrameRenderer.canvas = canvas\n"
        "main()"
    )
    out = images / "out"
    arguments = ["run", "benign_1.png", "benign_2.png", "malignant_1.png", *FEW, "--out", "out"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell ignores SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout.readline() == "ready\n"
        assert any(".part" in path.name for path in out.iterdir())
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert {path.name for path in out.iterdir()} == {"benign_1.mp4", "benign_1.csv", "summary.csv"}
    assert is_complete(out / "benign_1.mp4", ".mp4")
    with (out / "benign_1.csv").open() as file:
        rows = list(csv.DictReader(file))
    # The network itself is the last call.
    assert rows[-1]["name"] == ""
    assert [row["name"] for row in rows if row["status"] == "ok"] == [
        "features.conv0", "features.norm5",
    ]  # fmt: skip
    assert "benign_1.mp4" in shown
    assert "benign_2.mp4" not in shown
    assert "1 of 3 images" in errors
    assert "Traceback" not in errors


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("delay", [0.3, 1.0, 3.0])
def test_ctrl_c_at_any_time_leaves_no_part_file(images, delay):
    arguments = [
        *COMMAND[:1], "-c", "from camanim.cli import main; print('ready', flush=True); main()",
        "movie", "*_*.png", "--road", "--repeats", "9", "--out", "out",
    ]  # fmt: skip
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert not [path for path in images.rglob("*") if ".part" in path.name]


# -- Completion ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("camanim run x.png --model torchvision/mobilenet_v2", "torchvision/mobilenet_v2"),
        ("camanim run x.png --method Grad", "GradCAM"),
        ("camanim compare x.png --method Layer", "LayerCAM"),
        ("camanim run x.png --find loc", "localisation"),
        ("camanim run x.png --layers Conv", "Conv2d"),
        ("camanim layers demo", "demo/ultrasound"),
        ("camanim methods Score", "ScoreCAM"),
        ("camanim models tim", "timm"),
        ("camanim pre", "predict"),
    ],
)
def test_names_are_completed(words, expected):
    done = CliRunner().invoke(
        app,
        env={
            "_CAMANIM_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        prog_name="camanim",
    )
    assert expected in done.output.split()


# -- doctor and view -------------------------------------------------------------------------------


def test_doctor_tries_all_that_is_needed(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path / "cache"))
    code, out, _ = cli("doctor", "--json")
    checks = {check["check"]: check for check in strict(out)}
    assert code == 0, [c for c in checks.values() if c["needed"] and c["status"] != "ok"]
    assert {"torch", "cpu", "cache", "TORCH_HOME", "font", "ffmpeg", "display", "demo"} <= set(
        checks
    )
    assert str(tmp_path / "cache") in checks["cache"]["detail"]


def test_doctor_says_what_failed_and_what_to_do(cli, tmp_path, monkeypatch):
    module = sys.modules["camanim.cli.doctor"]

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "no-ffmpeg"))
    monkeypatch.setattr(module, "ROAD", 0.9)
    monkeypatch.setattr(module, "EXTRAS", {"no-such-package": ("nothing", "gui")})
    monkeypatch.setattr(module, "NEEDED", {})
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    code, out, _ = cli("doctor", "--json")
    assert code == 1
    statuses = {check["check"]: check["status"] for check in strict(out)}
    assert statuses["no-such-package"] == "not installed"
    assert {statuses[name] for name in ("cache", "ffmpeg", "demo")} == {"failed"}
    if sys.platform.startswith("linux"):
        assert statuses["display"] == "failed"
    code, out, _ = cli("doctor")
    assert code == 1
    assert "CAMANIM_CACHE" in out
    assert "3 needed checks failed" in out


def test_view_without_a_display_is_one_sentence(images, cli, monkeypatch):
    monkeypatch.setattr(
        sys.modules["camanim.cli.view"], "missing_window", lambda: "There is no display."
    )
    code, out, err = cli("view", "benign_1.png")
    assert (code, out) == (1, "")
    assert "There is no display." in err
    assert len(err.strip().splitlines()) == 1


def test_view_refuses_what_cannot_be_read_before_a_window_opens(images, cli, monkeypatch):
    monkeypatch.setattr(sys.modules["camanim.cli.view"], "missing_window", lambda: "")
    monkeypatch.setattr(
        sys.modules["camanim.cli.view"], "open_view", lambda *a: pytest.fail("opened")
    )
    code, _, err = cli("view", "broken.png")
    assert code == 1
    assert "broken.png" in err
