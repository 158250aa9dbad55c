"""Movies in all formats, folders of frames, layouts, timings, grids and metadata."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageSequence

import camanim
from camanim import samples
from camanim._version import __version__
from camanim.errors import Cancelled, RenderError
from camanim.layer_info import LayerInfo
from camanim.render import (
    FrameRenderer,
    encoder,
    movie_from_folder,
    write_grid_movie,
    write_picture,
)
from camanim.render.encoder import Yuv420
from camanim.render.folder import folder_writer
from camanim.render.frames import RESOLUTIONS
from camanim.render.grid import GridRenderer
from camanim.render.tagging import is_complete
from camanim.render.timing import timings
from camanim.stages import stages

from .test_render import animation, assert_texts_are_apart, read, road, written

RAMP = np.tile(np.linspace(0, 255, 120).astype(np.uint8)[None, :, None], (90, 1, 3))


def smooth(count: int = 6, **more):
    """Return an animation of a smooth image, since compression removes noise."""
    return animation(count, image=RAMP, scores=np.linspace(0, 0.4, count), **more)


def writers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("camanim-movie")]


def information(path: Path) -> str:
    """Return what ffmpeg says about a file."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path)]
    return subprocess.run(command, capture_output=True, check=False).stderr.decode()


def pictures(path: Path) -> np.ndarray:
    """Read back all frames, with Pillow where it reads the format."""
    if path.suffix in (".gif", ".apng"):
        with Image.open(path) as file:
            return np.stack([np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(file)])
    return read(path)[1]


# Formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "error"), [(".mp4", 3.0), (".webm", 4.0), (".gif", 4.0), (".apng", 0.0)]
)
@pytest.mark.parametrize("quality", ["standard", "high"])
def test_frames_of_all_formats_are_those_that_were_drawn(tmp_path, suffix, error, quality) -> None:
    result = smooth(5)
    path = result.write_movie(tmp_path / f"movie{suffix}", size=120, quality=quality)
    frames, renderer = pictures(path), FrameRenderer(result, size=120)
    assert len(frames) == 5
    for i, frame in enumerate(frames):
        difference = np.abs(frame.astype(int) - renderer.frame(i))
        assert difference.mean() <= error
        # Each is nearer to its layer than to any other.
        others = [np.abs(frame.astype(int) - renderer.frame(k)).mean() for k in range(5) if k != i]
        assert difference.mean() < min(others)
    assert is_complete(path, suffix)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert not writers()


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".apng"])
def test_all_formats_have_the_rate(tmp_path, suffix) -> None:
    path = smooth(10).write_movie(tmp_path / f"movie{suffix}", size=64, fps=8)
    if suffix in (".gif", ".apng"):
        with Image.open(path) as file:
            total = sum(f.info["duration"] for f in ImageSequence.Iterator(file))
            assert file.info["loop"] == 0
        assert total == pytest.approx(10 / 8 * 1000, abs=30)
    else:
        assert read(path)[0]["fps"] == pytest.approx(8, abs=0.05)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_videos_say_which_colours_they_have(tmp_path, suffix) -> None:
    path = smooth(3).write_movie(tmp_path / f"movie{suffix}", size=64)
    assert "yuv420p(tv, bt709" in information(path)


def test_yuv_is_bt709_in_limited_range() -> None:
    """By the formula of ITU-R BT.709, in floats."""
    blocks = np.random.default_rng(0).integers(0, 256, (8, 6, 3)).astype(np.uint8)
    frame = blocks.repeat(2, axis=0).repeat(2, axis=1)
    planes = Yuv420((12, 16)).planes(frame)
    r, g, b = np.moveaxis(blocks / 255, -1, 0)
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    expected = (16 + 219 * luma, 128 + 224 * (b - luma) / 1.8556, 128 + 224 * (r - luma) / 1.5748)
    y, u, v = planes[:192].reshape(16, 12)[::2, ::2], planes[192:240], planes[240:]
    for plane, value in zip((y.ravel(), u, v), expected, strict=True):
        assert np.abs(plane - value.ravel()).max() <= 1.0


@pytest.mark.parametrize("layout", ["overlay", "image | map", "local | global"])
@pytest.mark.parametrize(
    "more", [{}, {"resolution": 480}, {"size": 97}, {"normalization": "global"}]
)
@pytest.mark.parametrize("signed", [False, True])
def test_what_a_frame_changes_is_all_that_differs(layout, more, signed) -> None:
    """Planes of which only the changed parts are converted are those of the whole frame."""
    result = animation(9, scores=np.array([0.1, np.nan, 0.3, 0.2, 0.4, -0.1, 0, 0.2, 0.1]),
                       layer="gjy.{}.conv" + "_and_more" * 5)  # fmt: skip
    result.maps[4] = -np.ones((3, 3), np.float32)
    renderer = FrameRenderer(result, layout=layout, signed=signed, **more)
    partial = Yuv420(renderer.size)
    for i in (0, 1, 2, 3, 4, 5, 8, 0, 7):
        canvas = renderer.canvas(i)
        whole = Yuv420(renderer.size).planes(canvas).copy()
        assert (partial.planes(canvas, renderer.changed(i)) == whole).all()


def test_a_rate_that_gif_cannot_show_is_an_error(tmp_path) -> None:
    with pytest.raises(RenderError, match="50"):
        smooth(3).write_movie(tmp_path / "movie.gif", fps=60)
    assert smooth(3).write_movie(tmp_path / "movie.gif", fps=50, size=64).exists()


@pytest.mark.parametrize("suffix", [".webm", ".gif", ".apng", ""])
@pytest.mark.parametrize("at", [1, 6])
def test_a_cancel_leaves_no_file_process_or_thread(tmp_path, suffix, at) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == at:
            raise Cancelled

    path = tmp_path / f"movie{suffix}"
    with pytest.raises(Cancelled):
        smooth().write_movie(path, size=64, progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert not writers()


def test_an_error_while_drawing_ends_thread_and_process(tmp_path, monkeypatch) -> None:
    original = FrameRenderer.canvas

    def canvas(self, i):
        if i == 4:
            raise MemoryError
        return original(self, i)

    monkeypatch.setattr(FrameRenderer, "canvas", canvas)
    for name in ("movie.mp4", "movie"):
        with pytest.raises(MemoryError):
            smooth().write_movie(tmp_path / name, size=64)
    assert list(tmp_path.iterdir()) == []
    assert not writers()


def test_few_frames_wait_for_a_slow_encoder(tmp_path, monkeypatch) -> None:
    drawn, waiting, begun = [], [], threading.Event()
    original = FrameRenderer.canvas
    write = encoder.Encoder.write

    def canvas(self, i):
        drawn.append(i)
        return original(self, i)

    def slow(self, frame, count=1, changed=None):
        if not begun.is_set():
            begun.set()
            threading.Event().wait(0.5)
            waiting.append(len(drawn))
        write(self, frame, count, changed)

    monkeypatch.setattr(FrameRenderer, "canvas", canvas)
    monkeypatch.setattr(encoder.Encoder, "write", slow)
    smooth(40).write_movie(tmp_path / "movie.mp4", size=64)
    assert waiting[0] <= 6


# Metadata -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".apng"])
def test_the_file_says_what_it_shows(tmp_path, suffix) -> None:
    path = smooth(3, name="Katze ü").write_movie(tmp_path / f"movie{suffix}", size=64)
    if suffix in (".gif", ".apng"):
        with Image.open(path) as file:
            file.load()
            about = file.info
        comment = about.get("comment", b"")
        text = comment.decode() if comment else "\n".join(f"{k}: {v}" for k, v in about.items())
    else:
        text = information(path)
    for words in (
        "Katze ü (probability 0.731), GradCAM, torchvision/mobilenet_v2",
        "torchvision/mobilenet_v2", "GradCAM", "Katze ü (probability 0.731)", "3 layers",
        f"napari-camanim {__version__}",
    ):  # fmt: skip
        assert words in text
    titled = smooth(3).write_movie(tmp_path / f"titled{suffix}", size=64, title="A title")
    assert b"A title" in titled.read_bytes()


def test_a_picture_says_what_it_shows(tmp_path) -> None:
    with Image.open(write_picture(smooth(3), tmp_path / "picture.png", 1, size=64)) as file:
        assert file.info["Method"] == "GradCAM"
        assert file.info["Software"] == f"napari-camanim {__version__}"


# Layouts --------------------------------------------------------------------------------------


def test_image_and_map_are_side_by_side() -> None:
    image = np.random.default_rng(4).integers(0, 256, (100, 120, 3)).astype(np.uint8)
    ramp = np.linspace(0, 1, 120, dtype=np.float32)[None].repeat(100, axis=0)
    result = animation(maps=[ramp], image=image)
    frame = FrameRenderer(result, size=120, layout="image | map", colormap="gray").frame(0)
    # The image as it is, and right of it the map alone, at full opacity.
    windows = np.lib.stride_tricks.sliding_window_view(frame, (1, 120, 3))[:, :, 0, 0]
    [(y, x)] = np.argwhere((windows == image[0]).all(axis=(2, 3))).tolist()
    assert (frame[y : y + 100, x : x + 120] == image).all()
    space = round(22 * 336 / 448)
    shown = frame[y : y + 100, x + 120 + space :][:, :120]
    np.testing.assert_allclose(shown[..., 0], np.round(ramp * 255), atol=1)
    assert (shown[..., 0] == shown[..., 2]).all()


def test_both_scales_are_side_by_side() -> None:
    result, size = animation(4), 120
    both = FrameRenderer(result, size=size, layout="local | global").frame(1)
    for scale in ("local", "global"):
        alone = FrameRenderer(result, size=size, normalization=scale)
        (left, top), (width, height) = alone._views[0].corner, alone._image
        picture = alone.frame(1)[top : top + height, left : left + width]
        windows = np.lib.stride_tricks.sliding_window_view(both, (1, width, 3))[:, :, 0, 0]
        found = np.argwhere((windows == picture[50]).all(axis=(2, 3)))
        assert len(found) == 1
        y, x = found[0]
        assert (both[y - 50 : y - 50 + height, x : x + width] == picture).all()
        limits = [f"{v:.3g}" for v in result.stack(scale).limits(1)]
        with written() as texts:
            FrameRenderer(result, size=size, layout="local | global").frame(1)
        assert set(limits) <= {text for text, _ in texts}


@pytest.mark.parametrize("layout", ["overlay", "image | map", "local | global"])
@pytest.mark.parametrize("shape", [(90, 120, 3), (300, 40), (30, 400, 3)])
@pytest.mark.parametrize("resolution", [None, *RESOLUTIONS])
def test_texts_fit_in_all_layouts_and_resolutions(layout, shape, resolution) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    result = animation(4, image=image, scores=np.linspace(0, 0.4, 4), name="A rather long name " * 4,
                       layer="a.module.with.a.long.name.{}.conv")  # fmt: skip
    options = {"layout": layout, "resolution": resolution}
    assert_texts_are_apart(result, 3, **options)
    frame = FrameRenderer(result, **options).frame(3)
    if resolution is not None:
        width = round(resolution * 16 / 9)
        assert frame.shape == (resolution, width + width % 2, 3)


def test_a_resolution_enlarges_the_image_as_far_as_it_fits() -> None:
    sizes = [FrameRenderer(smooth(3), resolution=r)._image_size for r in RESOLUTIONS]
    assert sizes == sorted(set(sizes))
    frames = [FrameRenderer(smooth(3), resolution=r).frame(1) for r in (720, 1440)]
    reduced = np.asarray(Image.fromarray(frames[1]).resize((1280, 720), Image.Resampling.BOX))
    assert np.abs(reduced.astype(int) - frames[0]).mean() < 6


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 500}, {"resolution": "720"}, {"layout": "side"}, {"fade": -1}, {"fade": 0.01},
        {"stage_seconds": -1}, {"stage_seconds": 0}, {"stage_seconds": 0.1}, {"title": 3},
    ],
)  # fmt: skip
def test_invalid_settings_of_layout_and_time(tmp_path, options) -> None:
    with pytest.raises(RenderError, match=next(iter(options))):
        smooth().write_movie(tmp_path / "movie.mp4", **options)
    assert list(tmp_path.iterdir()) == []


# Time -----------------------------------------------------------------------------------------


def named(*names: str) -> list[LayerInfo]:
    return [LayerInfo(i, name, 0, "Conv2d", (1, 1, 4, 4), 1) for i, name in enumerate(names)]


@pytest.mark.parametrize("fps", [5, 8, 23.976])
@pytest.mark.parametrize("fade", [0.0, 0.3])
def test_every_stage_gets_the_same_time(fps, fade) -> None:
    layers = named("stem.a", "stem.b", *(f"layer1.{i}" for i in range(7)), "layer2.0", "head.x")
    times = timings(layers, fps, 2.0, fade)
    lengths = [sum(map(len, times[s.first : s.last + 1])) for s in stages(layers)]
    assert len(lengths) == 4
    assert set(lengths) == {round(2 * fps)}
    assert min(time.still for time in times) >= 1
    in_one = [len(time) for time in times[2:9]]
    assert max(in_one) - min(in_one) <= 1


def test_a_stage_with_more_layers_than_frames_is_an_error() -> None:
    layers = named("stem.a", *(f"layer1.{i}" for i in range(20)), "layer2.0", *["layer3.1"] * 9)
    with pytest.raises(RenderError, match="layer1 has 20 layers"):
        timings(layers, 5, 2.0)
    # The remedies of the message.
    assert timings(layers, 5, 4.0)
    assert timings(layers, 10, 2.0)


def test_frames_between_two_layers_are_blended(tmp_path) -> None:
    result = smooth(3)
    folder = result.write_movie(tmp_path / "frames", size=100, fps=10, fade=0.3)
    frames = [np.asarray(Image.open(p)).astype(float) for p in sorted(folder.glob("*.png"))]
    assert len(frames) == 3 + 2 * 3
    renderer = FrameRenderer(result, size=100)
    for k in range(4):
        expected = (1 - k / 4) * renderer.frame(0) + k / 4 * renderer.frame(1)
        assert np.abs(frames[k] - expected).max() <= 1
    with (folder / "frames.csv").open() as file:
        shares = [float(row["fade"]) for row in csv.DictReader(file)]
    assert shares == [0, 0.25, 0.5, 0.75, 0, 0.25, 0.5, 0.75, 0]


def test_a_movie_repeats_frames_for_the_time_of_a_stage(tmp_path) -> None:
    result = smooth(4, layer="stage{}.conv")
    path = result.write_movie(tmp_path / "movie.mp4", size=64, fps=5, stage_seconds=1)
    about, frames = read(path)
    count = round(len(stages(result.layers)) * 5)
    assert len(frames) == count
    assert about["fps"] == pytest.approx(5, abs=0.01)


# Folders --------------------------------------------------------------------------------------


def test_a_folder_has_frames_a_table_and_the_rate(tmp_path) -> None:
    result = smooth(4)
    folder = result.write_movie(f"{tmp_path}/frames/", size=100, fps=7)
    assert folder == tmp_path / "frames"
    with (folder / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == [layer.label for layer in result.layers]
    assert [float(row["ROAD"]) for row in rows] == pytest.approx(result.road.scores.tolist())
    assert rows[0]["kind"] == "Conv2d"
    renderer = FrameRenderer(result, size=100)
    for i, row in enumerate(rows):
        assert row["file"] == f"{i + 1:04}_features.{i}.conv.png"
        with Image.open(folder / row["file"]) as file:
            assert (np.asarray(file) == renderer.frame(i)).all()
            assert file.info["Model"] == "torchvision/mobilenet_v2"
    about = json.loads((folder / "movie.json").read_text())
    assert about["fps"] == 7
    assert about["tags"]["Title"].startswith("Egyptian cat")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frames"]


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".apng"])
def test_the_movie_of_a_folder_is_that_of_the_result(tmp_path, suffix) -> None:
    result = smooth(5)
    folder = result.write_movie(tmp_path / "frames", size=100, fps=7)
    direct = result.write_movie(tmp_path / f"direct{suffix}", size=100, fps=7)
    again = movie_from_folder(folder, tmp_path / f"again{suffix}")
    assert (pictures(direct) == pictures(again)).all()
    if suffix != ".webm":
        # Which has a random number.
        assert direct.read_bytes() == again.read_bytes()


def test_removed_and_edited_frames_are_as_the_user_left_them(tmp_path) -> None:
    folder = smooth(5).write_movie(tmp_path / "frames", size=100, fps=7)
    files = sorted(folder.glob("*.png"))
    files[1].unlink()
    red = Image.new("RGBA", Image.open(files[2]).size, (255, 0, 0, 128))
    red.save(files[2])
    (folder / "frames.csv").unlink()
    (folder / "notes.txt").write_text("mine")
    path = movie_from_folder(folder, tmp_path / "movie.apng", fps=3)
    frames = pictures(path)
    assert len(frames) == 4
    assert (frames[0] == np.asarray(Image.open(files[0]))).all()
    # Half transparent over the background of frames.
    assert np.abs(frames[1][0, 0].astype(int) - (135, 9, 12)).max() <= 1
    with Image.open(path) as file:
        assert file.info["duration"] == pytest.approx(1000 / 3, abs=1)


def test_a_folder_without_our_files_has_frames_of_odd_size(tmp_path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (3, 31, 45, 3)).astype(np.uint8)
    for i, frame in enumerate(rows):
        Image.fromarray(frame).save(folder / f"{i}.png")
    path = movie_from_folder(folder, tmp_path / "movie.apng")
    frames = pictures(path)
    assert frames.shape == (3, 32, 46, 3)
    assert (frames[:, :31, :45] == rows).all()


@pytest.mark.parametrize("case", ["missing", "empty", "file", "sizes", "broken", "json"])
def test_a_folder_that_is_no_movie_is_an_error(tmp_path, case) -> None:
    folder = tmp_path / "frames"
    words = {"missing": "not a folder", "empty": "no PNG", "file": "not a folder",
             "sizes": "same size", "broken": "cannot be read", "json": "movie.json"}  # fmt: skip
    if case == "file":
        folder.write_text("x")
    elif case != "missing":
        folder.mkdir()
    if case in ("sizes", "broken", "json"):
        Image.new("RGB", (64, 64)).save(folder / "1.png")
    if case == "sizes":
        Image.new("RGB", (64, 62)).save(folder / "2.png")
    if case == "broken":
        (folder / "2.png").write_bytes((folder / "1.png").read_bytes()[:40])
    if case == "json":
        (folder / "movie.json").write_text("{")
    with pytest.raises(RenderError, match=words[case]):
        movie_from_folder(folder, tmp_path / "movie.mp4")
    assert not (tmp_path / "movie.mp4").exists()
    assert not [p for p in tmp_path.iterdir() if ".part" in p.name]


def test_a_folder_replaces_frames_and_nothing_else(tmp_path) -> None:
    folder = smooth(6).write_movie(tmp_path / "frames", size=64)
    smooth(3).write_movie(folder, size=64)
    assert len(list(folder.glob("*.png"))) == 3
    (folder / "diary.txt").write_text("mine")
    with pytest.raises(RenderError, match=r"diary\.txt"):
        smooth(2).write_movie(folder, size=64)
    assert len(list(folder.iterdir())) == 3 + 3
    (tmp_path / "file").write_text("x")
    with pytest.raises(RenderError, match="not a folder"):
        smooth(2).write_movie(tmp_path / "file", size=64)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "frames"]


@pytest.mark.parametrize("names", [("0001.png", "0002_x.png"), ("0001.png", "frames.csv")])
def test_numbered_pictures_of_the_user_stay(tmp_path, names) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"mine")
    with pytest.raises(RenderError, match=r"0001\.png"):
        smooth(2).write_movie(folder, size=64)
    # Also where they appear while the movie is drawn.
    rows = [{"layer": "a"}]
    with pytest.raises(RenderError, match=r"0001\.png"), folder_writer(folder, 5, rows) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == dict.fromkeys(names, b"mine")
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from camanim.render.folder import checked_folder, folder_writer
rows = [{"layer": "a"}, {"layer": "b"}]
with folder_writer(checked_folder(Path(sys.argv[1])), 5, rows) as writer:
    writer.write(np.zeros((64, 64, 3), np.uint8))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("exists", [False, True])
def test_a_killed_process_leaves_nothing_after_the_next_write(tmp_path, exists) -> None:
    folder, before = tmp_path / "frames", {}
    if exists:
        smooth(4).write_movie(folder, size=64)
        before = {p.name: p.read_bytes() for p in folder.iterdir()}
    ended = subprocess.run([sys.executable, "-c", KILLED, folder], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [p for p in tmp_path.iterdir() if ".part" in p.name]
    assert {p.name: p.read_bytes() for p in folder.glob("*")} == before
    smooth(3).write_movie(folder, size=64)
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]
    assert len(list(folder.glob("*.png"))) == 3


def test_a_cancel_leaves_the_older_folder(tmp_path) -> None:
    folder = smooth(6).write_movie(tmp_path / "frames", size=64)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def stop(*_: object) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        smooth(3).write_movie(folder, size=64, progress=stop)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]


def test_a_full_disk_in_a_folder_is_a_render_error(tmp_path, monkeypatch) -> None:
    original = Path.write_bytes

    def full(self, content):
        if self.name.startswith("0003"):
            raise OSError(28, "No space left on device")
        return original(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RenderError, match=r"frames.*No space"):
        smooth(6).write_movie(tmp_path / "frames", size=64)
    assert list(tmp_path.iterdir()) == []


# Grids ----------------------------------------------------------------------------------------


def grid(count: int = 3, layers: int = 5, **more) -> dict[str, camanim.Animation]:
    results = {}
    for k in range(count):
        result = smooth(layers, **more)
        result.maps = [m[::-1] * (k + 1) for m in result.maps]
        result.add(road(result.layers, np.linspace(0, 0.1 * (k + 1), layers)))
        results[f"method {k}"] = result
    return results


@pytest.mark.parametrize("normalization", ["local", "global"])
def test_each_picture_of_a_grid_is_that_of_its_result(normalization) -> None:
    results = grid(3)
    renderer = GridRenderer(results, size=120, normalization=normalization)
    frame = np.asarray(renderer.canvas(2))
    for k, result in enumerate(results.values()):
        alone = FrameRenderer(result, size=120, normalization=normalization)
        (left, top), (width, height) = alone._views[0].corner, alone._image
        picture = alone.frame(2)[top : top + height, left : left + width]
        x, y = renderer._overlays[k][1]
        assert (frame[y : y + height, x : x + width] == picture).all()


def test_a_movie_of_a_grid_has_one_frame_for_each_layer(tmp_path) -> None:
    results = grid(4)
    path = write_grid_movie(results, tmp_path / "grid.mp4", size=100)
    _, frames = read(path)
    renderer = GridRenderer(results, size=100)
    assert renderer.aligned == "layer"
    assert len(frames) == 5
    for i, frame in enumerate(frames):
        assert np.abs(frame.astype(int) - np.asarray(renderer.canvas(i))).mean() < 4
    assert "method 0, method 1, method 2, method 3" in information(path)


def test_other_networks_are_aligned_by_relative_depth(tmp_path) -> None:
    results = {"long": smooth(9), "short": smooth(5, layer="other.{}")}
    renderer = GridRenderer(results)
    assert renderer.aligned == "relative depth"
    assert len(renderer) == 9
    assert renderer.indices[0] == tuple(range(9))
    assert renderer.indices[1][::2] == tuple(range(5))
    with written() as texts:
        renderer.canvas(8)
    shown = [text for text, _ in texts]
    assert "aligned by relative depth" in shown
    assert {"features.8.conv", "other.4"} <= set(shown)
    folder = write_grid_movie(results, tmp_path / "grid")
    with (folder / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[8]["layer of short"] == "other.4"


def test_results_with_other_layers_of_one_network_show_the_same_layer() -> None:
    results = grid(2)
    few = results["method 1"]
    few.maps, few.layers = few.maps[:1] + few.maps[2:], few.layers[:1] + few.layers[2:]
    few.findings.clear()
    renderer = GridRenderer(results)
    assert renderer.aligned == "layer"
    shown = [
        [r.layers[i].label for i in at]
        for r, at in zip(results.values(), renderer.indices, strict=True)
    ]
    assert shown[0][0] == shown[1][0]
    assert shown[0][2:] == shown[1][2:]


def test_the_cursor_of_a_grid_has_a_dot_on_each_curve() -> None:
    renderer = GridRenderer(grid(3), size=100)
    assert [len(dots) for dots in renderer._curve._dots] == [3] * 5
    xs = [renderer._curve._lines[i] for i in range(5)]
    assert max(np.diff(xs)) - min(np.diff(xs)) <= 1
    for i, dots in enumerate(renderer._curve._dots):
        assert {round(x) for x, _ in dots} == {xs[i]}
    # Higher scores are further up, in proportion.
    heights = -np.array([y for _, y in renderer._curve._dots[4]])
    assert np.diff(heights)[0] == pytest.approx(np.diff(heights)[1], rel=0.01)
    assert (np.diff(heights) > 5).all()


@pytest.mark.parametrize("count", range(2, 10))
@pytest.mark.parametrize("resolution", [None, 480, 1080])
def test_texts_of_grids_fit(count, resolution) -> None:
    results = {f"{name} {'of a network ' * (count % 3)}": r for name, r in grid(count).items()}
    with written() as texts:
        renderer = GridRenderer(results, resolution=resolution)
        renderer.canvas(3)
    width, height = renderer.size
    assert width % 2 == height % 2 == 0
    for k, (text, (x0, y0, x1, y1)) in enumerate(texts):
        assert x0 >= 0, text
        assert y0 >= 0, text
        assert x1 <= width, text
        assert y1 <= height, text
        for other, (u0, v0, u1, v1) in texts[:k]:
            apart = x1 <= u0 or u1 <= x0 or y1 <= v0 or v1 <= y0
            assert apart, (text, other)


def test_a_grid_without_findings_or_with_signed_maps(tmp_path) -> None:
    results = grid(2)
    for result in results.values():
        result.findings.clear()
    lower = GridRenderer(results).size[1]
    assert GridRenderer(grid(2)).size[1] > lower
    assert write_grid_movie(results, tmp_path / "grid.mp4", signed=True, size=64).exists()


def test_few_or_many_results_are_no_grid(tmp_path) -> None:
    for count in (0, 1, 10):
        with pytest.raises(RenderError, match="2 to 9"):
            write_grid_movie(grid(count), tmp_path / "grid.mp4")
    empty = {**grid(2), "empty": animation(maps=[])}
    with pytest.raises(RenderError, match="empty has no map"):
        write_grid_movie(empty, tmp_path / "grid.mp4")
    assert list(tmp_path.iterdir()) == []


# Real results ---------------------------------------------------------------------------------


def test_a_volume_and_windows_are_written_too(tmp_path) -> None:
    model = camanim.load_model("demo/ultrasound")
    image = samples.image("malignant_1")
    volume = np.stack([image[..., 0] if image.ndim == 3 else image] * 3)
    sliced = camanim.animate(model, volume, slices=True, layers="blocks")
    windows = camanim.animate_windows(model, image, size=96, layers="blocks", target="malignant")
    for k, result in enumerate((sliced, windows)):
        path = result.write_movie(tmp_path / f"{k}.mp4", size=100, layout="local | global")
        assert len(read(path)[1]) == len(result)
    path = write_grid_movie({"volume": sliced, "windows": windows}, tmp_path / "grid.mp4", size=100)
    assert path.exists()


# Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("", "mobilenet_v2_GradCAM_Egyptian-cat.mp4"),
        ("cat.jpg", "cat_mobilenet_v2_GradCAM_Egyptian-cat.mp4"),
        ("/home/me/my cat.final.png", "my-cat-final_mobilenet_v2_GradCAM_Egyptian-cat.mp4"),
        ("C:\\photos\\cat.jpg", "cat_mobilenet_v2_GradCAM_Egyptian-cat.mp4"),
        ("scan 1.2", "scan-1-2_mobilenet_v2_GradCAM_Egyptian-cat.mp4"),
    ],
)
def test_names_say_image_network_method_and_class(image, expected) -> None:
    assert camanim.suggested_name(animation(), ".mp4", image) == expected


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", 'a:b*c?"<>|', "猫", "x" * 500, "", "\0\n", "CON"]
)
def test_names_are_valid_everywhere(tmp_path, name) -> None:
    result = animation(name=name)
    result.provenance["model"] = f"monai/{name}?spatial_dims=2&out_channels=2"
    result.method = name
    suggested = camanim.suggested_name(result, ".mp4", name)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.mp4", suggested)
    assert len(suggested) <= 140
    (tmp_path / suggested).write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == [suggested]
    shutil.rmtree(tmp_path)


def test_the_rate_is_exact(tmp_path) -> None:
    path = smooth(3).write_movie(tmp_path / "movie.mp4", size=64, fps=24000 / 1001)
    text = information(path)
    rate = float(re.search(r"([\d.]+) fps", text)[1])
    assert rate == pytest.approx(float(Fraction(24000, 1001)), abs=0.01)
