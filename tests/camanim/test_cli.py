"""The command line in a subprocess: exit codes, output and files."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

import camanim
from camanim import samples

SHARED = Path(__file__).parents[3] / "shared"


def camanim_cli(*arguments, stdout=subprocess.PIPE, **environment):
    done = subprocess.run(
        [sys.executable, "-c", "from camanim.cli import main; main()", *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"COLUMNS": "200", "TERM": "dumb"} | environment,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(samples.image("benign_1")).save(path)
    return path


def test_run_writes_a_movie_and_a_table(picture, tmp_path):
    movie, table = tmp_path / "out.mp4", tmp_path / "layers.csv"
    code, out, _ = camanim_cli(
        "run", picture, "--layers", "blocks", "--layers", "*relu2", "--method", "hirescam",
        "--target", "malignant", "--road", "--movie", movie, "--table", table,
        "--normalization", "global",
    )  # fmt: skip
    assert code == 0
    assert "malignant, with probability" in out
    assert "ybROAD: mean" in out
    assert str(movie) in out
    assert str(table) in out
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "index", "name", "call", "kind", "output shape", "layout", "parameters", "status",
        "raw min", "raw max", "milliseconds",
        "ROAD", "ROAD spread", "ROAD baseline", "ROAD excess", "ROAD above noise", "ROAD undefined",
    ]  # fmt: skip

    animation = camanim.animate(
        camanim.load_model("demo/ultrasound"), samples.image("benign_1"),
        method="HiResCAM", target="malignant", layers=["blocks", "*relu2"],
    )  # fmt: skip
    assert [row["name"] for row in rows] == [layer.name for layer in animation.layer_calls]
    shown = [row for row in rows if row["status"] == "ok"]
    assert [float(row["raw max"]) for row in shown] == [float(m.max()) for m in animation.maps]
    np.testing.assert_allclose(
        [float(row["ROAD"]) for row in shown], animation.score().scores, atol=1e-6
    )
    assert imageio_ffmpeg.count_frames_and_secs(str(movie))[0] == len(shown)


def test_run_without_files_lists_the_layers(picture):
    code, out, _ = camanim_cli("run", picture, "--layers", "Conv2d")
    assert code == 0
    assert "features.denseblock1.denselayer1.layers.conv1" in out
    assert "benign, with probability" in out


def parse_table(out):
    """Return the header of the table in the terminal, and the cells by layer."""
    lines = [[c.strip() for c in x.strip("│┃").replace("┃", "│").split("│")] for x in
             out.splitlines() if x[:1] in ("│", "┃")]  # fmt: skip
    return lines[0], {row[0]: dict(zip(lines[0], row, strict=True)) for row in lines[1:]}


@pytest.fixture
def mask(tmp_path):
    """A label image with the lesion (7) and another object (1)."""
    labels = np.uint8(samples.mask("benign_1")) * 7
    labels[:20, :20] = 1
    path = tmp_path / "mask.png"
    # In colour, as some programs store grey images.
    Image.fromarray(np.stack([labels] * 3, axis=2)).save(path)
    return path


def test_scores_checks_mask_and_plot(picture, mask, tmp_path):
    plot = tmp_path / "plot.svg"
    code, out, err = camanim_cli(
        "run", picture, "--layers", "*.norm1", "--layers", "*norm5", "--road", "--repeats", "3",
        "--draws", "5", "--checks", "--mask", mask, "--mask-label", "7", "--plot", plot,
    )  # fmt: skip
    assert code == 0, err
    animation = camanim.animate(
        camanim.load_model("demo/ultrasound"), samples.image("benign_1"),
        layers=["*.norm1", "*norm5"],
    )  # fmt: skip
    road = animation.score(0, repeats=3, draws=5)
    localisation = animation.localise(samples.mask("benign_1"))
    head, rows = parse_table(out)
    assert head == ["layer", "kind", "output", "raw max", "ROAD", "random maps", "AP"]
    assert list(rows) == [layer.label for layer in animation.layers]
    for i, row in enumerate(rows.values()):
        assert row["ROAD"] == f"{road.scores[i]:.3f} ± {road.spread[i]:.3f}"
        assert row["random maps"] == f"{road.baseline[i]:.3f}"
        assert row["AP"] == f"{localisation.average_precision[i]:.3f}"
    assert road.summary() in out
    assert localisation.summary() in out
    assert out.count(animation.check_randomisation().verdict) == 1
    assert out.count(animation.check_labels().verdict) == 1
    assert str(plot) in out
    assert "agreement with the mask" in plot.read_text()


def test_scores_without_baseline_and_a_plot_of_a_finding(picture, tmp_path):
    table = tmp_path / "layers.csv"
    code, out, err = camanim_cli(
        "run", picture, "--layers", "*.norm1", "--layers", "*norm5", "--road", "--no-baseline",
        "--table", table, "--plot", tmp_path / "removal.pdf", "--plot-kind", "removal",
    )  # fmt: skip
    assert code == 0, err
    assert "random maps" not in out
    with table.open() as file:
        shown = [row for row in csv.DictReader(file) if row["status"] == "ok"]
    assert [row["ROAD spread"] + row["ROAD baseline"] for row in shown] == [""] * len(shown)
    assert (tmp_path / "removal.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "plot.png"], "--road, --mask or --find"),
        (["--plot", "plot.png", "--plot-kind", "removal", "--checks"], "--find road"),
        (["--plot", "plot.png", "--plot-kind", "randomisation", "--road"], "--find randomisation"),
        (["--repeats", "3"], "--road"),
        (["--no-baseline"], "--road"),
        (["--road", "--repeats", "0"], "--repeats"),
        (["--mask-label", "7"], "--mask"),
        (["--fps", "3"], "--movie"),
        (["--road", "--plot-kind", "removal"], "--plot"),
        (["--road", "--plot-second", "parameters"], "--plot"),
    ],
)
def test_inconsistent_options_for_scores_are_wrong_usage(picture, tmp_path, arguments, message):
    code, _, err = camanim_cli("run", picture, *arguments)
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["picture.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PICTURE", "--mask", "missing.png"], "missing.png"),
        (["PICTURE", "--road", "--plot", "plot.gif"], ".png, .pdf or .svg"),
        (["missing.png"], "missing.png"),
        (["PICTURE", "--model", "torchvision/resnet5"], "torchvision/resnet5"),
        (["PICTURE", "--method", "GradCAM+"], "GradCAM+"),
        (["PICTURE", "--target", "cat"], "'cat'"),
        (["PICTURE", "--target", "3"], "0 to 2"),
        (["PICTURE", "--layers", "nothing"], "'nothing'"),
        (["PICTURE", "--movie", "out.avi"], ".mp4"),
        (["PICTURE", "--table", "out.txt"], ".csv"),
        (["a" * 300 + ".png"], "a" * 100),
        (["PICTURE", "--mask", "mask.jpg"], "JPEG"),
        (["moving.gif"], "frames"),
        (["photo.png", "--slices"], "volume"),
    ],
)
def test_an_error_is_a_message_without_traceback_and_exit_code_1(picture, arguments, message):
    frame = Image.new("RGB", (40, 30))
    frame.save(picture.with_name("photo.png"))
    frame.save(
        picture.with_name("moving.gif"),
        save_all=True,
        append_images=[Image.new("RGB", (40, 30), 9)],
    )
    places = {"PICTURE": picture} | {n: picture.with_name(n) for n in ("photo.png", "moving.gif")}
    code, _, err = camanim_cli("run", *(places.get(a, a) for a in arguments))
    assert code == 1
    assert message in err
    assert "Traceback" not in err


def test_a_window_from_the_values_is_reported(tmp_path):
    deep = samples.image("benign_1").astype(np.uint16) * 4
    Image.fromarray(deep).save(tmp_path / "deep.png")
    arguments = ("run", tmp_path / "deep.png", "--layers", "*norm5")
    code, out, _ = camanim_cli(*arguments)
    assert code == 0
    assert f"uint16 image has values from {deep.min()} to {deep.max()}" in out
    code, out, _ = camanim_cli(*arguments, "--window", "0", "1020")
    assert code == 0
    assert "uint16" not in out


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["models", "demo"], ["methods"], ["run", "--table"]])
def test_a_full_standard_output_is_an_error_and_loses_no_file(picture, tmp_path, arguments):
    table = tmp_path / "layers.csv"
    if "run" in arguments:
        arguments = ["run", picture, "--layers", "features.norm5", "--table", table]
    with open("/dev/full", "w") as full:
        code, _, err = camanim_cli(*arguments, stdout=full)
    assert code == 1
    assert "No space left" in err.strip().splitlines()[-1]
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert table.exists() == ("run" in arguments)


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize(
    ("option", "name"),
    [("--movie", "x.mp4"), ("--plot", "x.pdf"), ("--table", "x.csv"), ("--save-card", "x.toml")],
)
def test_places_are_checked_before_anything_is_read(tmp_path, option, name):
    scores = ["--road"] if option == "--plot" else []
    code, _, err = camanim_cli(
        "run", tmp_path / "nothing.png", *scores, option, f"/proc/self/{name}"
    )
    assert code == 1
    assert f"/proc/self/{name}" in err
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGHUP", 0)])
def test_an_ended_command_leaves_no_file(picture, tmp_path, number):
    folder = tmp_path / "out"
    folder.mkdir()
    code = (
        "import camanim.render.movie as m, time; from camanim.cli import main\n"
        "def frame(*a):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "m.FrameRenderer.canvas = frame\n"
        "main()"
    )
    arguments = [
        "run",
        str(picture),
        "--layers",
        "features.norm5",
        "--movie",
        str(folder / "x.mp4"),
    ]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        assert len(list(folder.iterdir())) == 1
        process.send_signal(number)
        assert process.wait(60) == -number
    assert list(folder.iterdir()) == []


def test_wrong_usage_is_exit_code_2(picture):
    assert camanim_cli("run")[0] == 2
    assert camanim_cli("run", picture, "--no-such-option")[0] == 2
    code, _, err = camanim_cli("run", picture, "--fit", "squeeze")
    assert code == 2
    assert "stretch" in err


def test_help_names_the_options():
    code, out, _ = camanim_cli("run", "--help")
    assert code == 0
    for option in ("--model", "--method", "--target", "--layers", "--road", "--movie", "--table",
                   "--repeats", "--checks", "--mask", "--plot"):  # fmt: skip
        assert option in out


def test_models_and_methods_are_listed():
    code, out, _ = camanim_cli("models")
    assert (code, out.split()) == (0, camanim.list_models())
    code, out, _ = camanim_cli("methods")
    assert code == 0
    assert all(name in out for name in camanim.methods())


def test_demo_without_a_display_writes_files(tmp_path):
    code, out, _ = camanim_cli("demo", "--out", tmp_path / "new", DISPLAY="", WAYLAND_DISPLAY="")
    assert code == 0
    for name in ("demo.mp4", "demo.png", "demo.csv"):
        assert str(tmp_path / "new" / name) in out
        assert (tmp_path / "new" / name).stat().st_size > 1000
    assert "ybROAD: mean" in out
    assert len(list((tmp_path / "new").iterdir())) == 3


def test_random_weights_and_a_window(tmp_path):
    path = tmp_path / "ct.tif"
    Image.fromarray(np.linspace(-1000, 1000, 64 * 64).reshape(64, 64).astype(np.float32)).save(path)
    run = ["run", path, "--model", "torchvision/squeezenet1_1", "--weights", "none"]
    code, _, err = camanim_cli(*run)
    assert code == 1
    assert "window" in err
    code, out, _ = camanim_cli(*run, "--window", "-200", "300", "--layers", "blocks")
    assert code == 0
    assert "class " in out


def test_weights_from_a_file(picture, tmp_path):
    model = camanim.load_model("demo/ultrasound", weights=None)
    torch.save(model.net.state_dict(), tmp_path / "weights.pth")
    code, out, _ = camanim_cli(
        "run", picture, "--weights", tmp_path / "weights.pth", "--layers", "blocks"
    )
    assert code == 0
    expected = model.predict(samples.image("benign_1"), 1)[0]
    assert f"{expected.name}, with probability {expected.probability:.3f}" in out


@pytest.mark.skipif(not SHARED.exists(), reason="the shared images and weights are not here")
def test_mobilenet_finds_the_macaw():
    code, out, _ = camanim_cli(
        "run", SHARED / "images/macaw.jpg", "--model", "torchvision/mobilenet_v2",
        TORCH_HOME=str(SHARED / "torch"),
    )  # fmt: skip
    assert code == 0
    assert "macaw, with probability" in out
    assert "149 layers with GradCAM" in out


def test_a_test_takes_several_layers_and_its_price_is_printed_first(picture):
    code, out, err = camanim_cli(
        "run", picture, "--layers", "*.norm1", "--find",
        "layer_test:transforms=19,layers=[features.denseblock1.denselayer1.layers.norm1,"
        "features.denseblock2.denselayer1.layers.norm1]",
    )  # fmt: skip
    assert code == 0, err
    assert f"{2 * 20 * 8:,} forward passes" in err
    assert "2 tested layers" in out


def test_a_test_without_a_layer_is_refused_before_the_scores(picture):
    code, out, err = camanim_cli(
        "run",
        picture,
        "--layers",
        "*.norm1",
        "--road",
        "--find",
        "layer_test:layers=features.conv0",
    )
    assert code == 1
    assert "features.conv0" in err
    assert "ROAD" not in out


def test_a_box_and_windows_on_the_command_line(picture, tmp_path):
    table = tmp_path / "layers.csv"
    box = "10,20,140,160"
    code, out, err = camanim_cli(
        "run", picture, "--layers", "blocks", "--box", box, "--table", table
    )
    assert code == 0, err
    expected = camanim.animate(
        camanim.load_model("demo/ultrasound"), samples.image("benign_1")[10:140, 20:160],
        layers="blocks",
    )  # fmt: skip
    with table.open() as file:
        highest = [float(row["raw max"]) for row in csv.DictReader(file) if row["status"] == "ok"]
    assert highest == [float(m.max()) for m in expected.maps]

    code, out, err = camanim_cli(
        "run", picture, "--layers", "blocks", "--windows", "--windows-size", "128", "--overlap", "0.5",
        "--blending", "constant", "--target", "benign", "--table", table,
    )  # fmt: skip
    assert code == 0, err
    expected = camanim.animate_windows(
        camanim.load_model("demo/ultrasound"), samples.image("benign_1"), layers="blocks", size=128,
        overlap=0.5, blending="constant", target="benign",
    )  # fmt: skip
    assert len(expected.windows) > 1
    with table.open() as file:
        highest = [float(row["raw max"]) for row in csv.DictReader(file) if row["status"] == "ok"]
    assert highest == [float(m.max()) for m in expected.maps]
    assert f"probability {expected.probability:.3f}" in out


@pytest.mark.parametrize(
    ("arguments", "expected_code", "message"),
    [
        (["--box", "1,2,3"], 1, "y0, x0, y1, x1"),
        (["--box", "here"], 1, "y0, x0, y1, x1"),
        (["--box", "9000,0,9100,50"], 1, "contains no pixel"),
        (["--overlap", "0.5"], 2, "needs --windows"),
        (["--windows", "--road"], 1, "--box"),
        (["--windows", "--windows-size", "0"], 1, "positive integer"),
    ],
)
def test_wrong_boxes_and_windows_are_refused(picture, arguments, expected_code, message):
    code, _, err = camanim_cli("run", picture, *arguments)
    assert code == expected_code
    assert message in err
