"""Recording of the canvas: frames read back, the slider, cancelling, and closing."""

from __future__ import annotations

import itertools
import threading

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from qtpy.QtWidgets import QFileDialog

from camanim import samples
from camanim.render.tagging import is_complete
from napari_camanim.commands import record_canvas
from napari_camanim.work import recording


@pytest.fixture
def recorder(viewer, small):
    """The dock with a stack of few layers."""
    viewer.add_image(samples.image("malignant_1"), name="my: image.png")
    small.explain()
    return small


def read(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in reader])


def writers():
    return [t for t in threading.enumerate() if t.name.startswith("camanim-movie")]


def canvas(viewer):
    return np.asarray(viewer.screenshot(canvas_only=True, flash=False))[..., :3]


def test_the_recording_is_what_the_canvas_shows_at_each_layer(viewer, recorder, tmp_path):
    stack = recorder.session.current
    recorder.session.go_to(3)
    recorder.saving.record(tmp_path / "canvas.mp4")
    assert recorder.run_button.text == "Cancel"
    recorder.finish()
    assert recorder.session.index == 3
    frames = read(tmp_path / "canvas.mp4").astype(int)
    assert len(frames) == len(stack.data)
    for i, frame in enumerate(frames):
        recorder.session.go_to(i)
        shown = canvas(viewer)
        height, width = shown.shape[:2]
        difference = np.abs(frame[:height, :width] - shown)
        # Compression alone: other layers differ more.
        assert difference.mean() < 4
        others = [
            np.abs(other[:height, :width] - shown).mean() for other in np.delete(frames, i, 0)
        ]
        assert difference.mean() < min(others)
    assert not writers()
    assert [path.name for path in tmp_path.iterdir()] == ["canvas.mp4"]


def test_a_recording_into_a_folder_is_the_canvas_exactly(viewer, recorder, tmp_path):
    recorder.saving.record(tmp_path / "frames")
    recorder.finish()
    files = sorted((tmp_path / "frames").glob("*.png"))
    assert len(files) == len(recorder.session.animation)
    recorder.session.go_to(2)
    shown = canvas(viewer)
    frame = np.asarray(Image.open(files[2]))[: shown.shape[0], : shown.shape[1]]
    # Antialiasing of the driver may differ in single levels.
    assert np.abs(frame.astype(int) - shown).max() <= 2
    assert recorder.session.animation.layers[2].label in files[2].name


def test_the_window_stays_alive_and_a_recording_can_be_cancelled(
    viewer, recorder, qtbot, tmp_path, notified
):
    recorder.session.go_to(4)
    before = viewer.dims.point
    recorder.saving.record(tmp_path / "canvas.mp4")
    with qtbot.waitSignal(recorder.session.index_changed, timeout=10_000):
        pass
    recorder.run_or_cancel()
    recorder.finish()
    assert viewer.dims.point == before
    assert list(tmp_path.iterdir()) == []
    assert not writers()
    assert recorder.run_button.text == "Run"
    # Another one after it.
    recorder.saving.record(tmp_path / "canvas.gif")
    recorder.finish()
    assert is_complete(tmp_path / "canvas.gif", ".gif")


def test_a_slider_that_the_user_moves_is_moved_back(viewer, recorder, qtbot, tmp_path):
    recorder.saving.record(tmp_path / "canvas")
    moved = recorder.session.index_changed
    with qtbot.waitSignal(moved, timeout=10_000):
        pass
    viewer.dims.set_point(0, 0)
    recorder.finish()
    frames = [np.asarray(Image.open(p)) for p in sorted((tmp_path / "canvas").glob("*.png"))]
    assert len(frames) == len(recorder.session.animation)
    assert all((a != b).any() for a, b in itertools.pairwise(frames))


def test_errors_are_shown_and_leave_nothing(viewer, recorder, tmp_path, notified):
    for path, word in (("x.avi", ".mp4"), ("missing/x.mp4", "missing")):
        recorder.saving.record(tmp_path / path)
        recorder.finish()
        assert word in recorder.status.text
    recorder.saving.record(tmp_path / "x.mp4")
    viewer.layers.remove(recorder.session.current)
    recorder.finish()
    assert "removed" in recorder.status.text
    assert list(tmp_path.iterdir()) == []
    assert recorder.saving._recording is None


def test_closing_the_dock_midway_leaves_nothing(viewer, recorder, qtbot, tmp_path):
    before = viewer.dims.point
    recorder.saving.record(tmp_path / "canvas.mp4")
    with qtbot.waitSignal(recorder.session.index_changed, timeout=10_000):
        pass
    timer = recorder.saving._recording._timer
    viewer.window.remove_dock_widget(recorder.window_dock)
    qtbot.waitUntil(lambda: not writers() and not any(tmp_path.iterdir()), timeout=10_000)
    assert not timer.isActive()
    assert viewer.dims.point == before


def test_closing_the_window_midway_leaves_nothing(viewer, recorder, qtbot, tmp_path):
    recorder.saving.record(tmp_path / "canvas.mp4")
    with qtbot.waitSignal(recorder.session.index_changed, timeout=10_000):
        pass
    timer = recorder.saving._recording._timer
    viewer.close()
    qtbot.waitUntil(lambda: not writers() and not any(tmp_path.iterdir()), timeout=10_000)
    assert not timer.isActive()


def test_a_canvas_that_shows_all_layers_cannot_be_recorded(viewer, recorder, tmp_path):
    viewer.dims.ndisplay = 3
    recorder.saving.record(tmp_path / "canvas.mp4")
    assert recorder.status.text
    assert not recorder.runner.running


def test_the_dialog_suggests_a_name_and_the_command_opens_it(
    viewer, recorder, tmp_path, monkeypatch
):
    asked = []

    def choose(parent, title, name, pattern):
        asked.append(name)
        return str(tmp_path / "chosen"), "WebM, VP9 (*.webm)"

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    # Few frames.
    recorder.session.select_layers([0, 1])
    record_canvas(viewer)
    recorder.finish()
    [name] = asked
    assert name.startswith("my-image_ultrasound_GradCAM_")
    assert name.endswith(".mp4")
    assert is_complete(tmp_path / "chosen.webm", ".webm")
    assert len(read(tmp_path / "chosen.webm")) == 2
    recorder.saving.choose("movie")
    recorder.finish()
    assert len(asked) == 2


def test_frames_of_a_resized_canvas_keep_the_first_size(viewer, recorder, tmp_path, monkeypatch):
    screenshots = iter([(60, 81), (80, 60)] + [(60, 81)] * 100)

    def screenshot(self, **_):
        height, width = next(screenshots)
        return np.full((height, width, 4), 200, np.uint8)

    monkeypatch.setattr(type(viewer), "screenshot", screenshot)
    recorder.saving.record(tmp_path / "canvas")
    recorder.finish()
    sizes = {Image.open(path).size for path in (tmp_path / "canvas").glob("*.png")}
    assert sizes == {(82, 60)}


def test_few_frames_wait(viewer, recorder, qtbot, tmp_path, monkeypatch):
    """A slow encoder must not collect screenshots in memory."""
    go_on = threading.Event()
    original = recording.Recording.work

    def slow(self, progress):
        go_on.wait(20)
        return original(self, progress)

    monkeypatch.setattr(recording.Recording, "work", slow)
    recorder.saving.record(tmp_path / "canvas.mp4")
    qtbot.wait(1000)
    waiting = recorder.saving._recording._frames.qsize()
    go_on.set()
    recorder.finish()
    assert waiting == recording.WAITING
    assert len(read(tmp_path / "canvas.mp4")) == len(recorder.session.animation)
