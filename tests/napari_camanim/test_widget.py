"""The dock widget in a window: runs, classes, export, cancel, errors and closing."""

import gc
import subprocess
import sys
import threading
from weakref import ref

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from napari.utils.notifications import notification_manager
from napari.utils.progress import progress as napari_progress
from PIL import Image as PILImage
from pytestqt.exceptions import capture_exceptions
from qtpy.QtCore import QEvent, Qt, QThreadPool
from qtpy.QtWidgets import QApplication

import camanim
from camanim import animation as facade
from camanim.models import Prediction
from napari_camanim.layers.stack import show_index

try:
    from PyQt6.sip import delete
except ImportError:
    from shiboken6 import delete

CONNECTED = ("dims.events.point", "layers.events.inserted", "layers.selection.events.active")


def callbacks(viewer):
    """Return the number of callbacks of events of the viewer."""
    counts = []
    for path in CONNECTED:
        emitter = viewer
        for name in path.split("."):
            emitter = getattr(emitter, name)
        counts.append(len(emitter.callbacks))
    return counts


def menu_texts(menu):
    texts = []
    for action in menu.actions():
        texts.append(action.text())
        if action.menu() is not None:
            texts.extend(menu_texts(action.menu()))
    return texts


def test_widget_and_samples_are_in_the_menus(viewer):
    window = viewer.window
    window.layers_menu.aboutToShow.emit()
    assert any("CAManim" in text for text in menu_texts(window.plugins_menu))
    assert any("CAManim" in text for text in menu_texts(window.layers_menu))
    assert any("malignant 1" in text for text in menu_texts(window.file_menu))


def open_sample(viewer, name="malignant_1"):
    viewer.open_sample("napari-camanim", name)
    viewer.layers.selection.active = viewer.layers[name]


def test_predict_lists_the_classes(viewer, dock):
    open_sample(viewer)
    assert viewer.layers["malignant_1 lesion"].visible is False
    assert dock.form.image.currentText() == "malignant_1"
    assert dock.form.network.currentText() == "demo/ultrasound"
    dock.form.predict_button.click()
    dock.finish()
    texts = [dock.form.classes.itemText(i) for i in range(dock.form.classes.count())]
    assert texts[0] == "likeliest class"
    assert sorted(text.split()[0] for text in texts[1:]) == ["benign", "malignant", "normal"]
    assert texts[1].startswith("malignant")


def test_run_adds_a_stack_with_captions_and_scores(viewer, dock, stacks, has_caption, qtbot):
    open_sample(viewer)
    dock.form.road.setChecked(True)
    dock.form.run_button.click()
    assert dock.form.run_button.text() == "Cancel"
    qtbot.waitUntil(lambda: bool(napari_progress._all_instances), timeout=60_000)
    dock.finish()
    assert not napari_progress._all_instances
    assert dock.form.run_button.text() == "Run"
    [stack] = stacks()
    assert viewer.dims.axis_labels == ("layer", "y", "x")
    assert viewer.layers.index(stack) == viewer.layers.index("malignant_1") + 1

    about = stack.metadata["camanim"]
    best = about["layers"].index(about["shown_first"])
    assert viewer.dims.current_step[0] == best
    qtbot.waitUntil(lambda: stack.loaded, timeout=10_000)
    assert has_caption(about["captions"][best])
    assert (
        f"ROAD {about['findings']['road']['scores'][best]:.2f}"
        in viewer.canvas.overlays["camanim"].text
    )
    first = viewer.screenshot(flash=False)
    show_index(viewer, stack, 0)
    qtbot.waitUntil(lambda: stack.loaded, timeout=10_000)
    assert has_caption(about["captions"][0])
    assert np.abs(viewer.screenshot(flash=False).astype(int) - first).max() > 50
    assert dock.form.curve.isVisible()
    dock.form.curve.moved.emit(2)
    assert viewer.dims.current_step[0] == 2


def test_normalisation_and_export_of_a_stack(viewer, dock, stacks, ramp, tmp_path):
    viewer.add_layer(ramp)
    dock.form.advanced.layers.setCurrentText("blocks")
    dock.run()
    dock.finish()
    [stack] = stacks()
    animation = stack.data.animation
    dock.form.normalization.setCurrentText("global")
    assert stack.data.animation is animation
    np.testing.assert_array_equal(stack.data[0], animation.stack("global")[0])
    movie = tmp_path / "layers.mp4"
    dock.export(movie)
    dock.finish()
    frames = imageio_ffmpeg.count_frames_and_secs(str(movie))[0]
    assert frames == len(animation)
    assert str(movie) in dock.form.message.text()


def test_the_class_can_be_chosen(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.predict()
    dock.finish()
    dock.form.classes.setCurrentIndex(3)
    chosen = dock.form.classes.currentData()
    dock.run()
    dock.finish()
    assert stacks()[0].metadata["camanim"]["index"] == chosen
    # A change of the image clears the list.
    viewer.add_image(np.zeros((64, 64), np.uint8), name="other")
    assert dock.form.image.currentText() == "other"
    assert dock.form.classes.count() == 1


def test_cancel_while_scoring_keeps_what_was_computed(viewer, dock, stacks, ramp, qtbot):
    viewer.add_layer(ramp)
    dock.form.road.setChecked(True)
    dock.run()
    qtbot.waitUntil(lambda: "ROAD" in dock.form.run_button.text(), timeout=60_000)
    dock.form.run_button.click()
    assert not dock.form.run_button.isEnabled()
    dock.finish(30_000)
    assert dock.form.run_button.isEnabled()
    [stack] = stacks()
    road = stack.data.animation.road
    assert road is None or not road.complete
    assert not napari_progress._all_instances


def test_cancel_keeps_the_computed_maps(viewer, dock, stacks, ramp, monkeypatch):
    animate = facade.animate_targets

    def cancelling(*args, progress, **settings):
        def report(stage, done, total):
            if stage == "maps" and done == 5:
                dock.runner.task.cancel()
            progress(stage, done, total)

        return animate(*args, progress=report, **settings)

    monkeypatch.setattr(facade, "animate_targets", cancelling)
    viewer.add_layer(ramp)
    dock.run()
    dock.finish()
    [stack] = stacks()
    assert stack.data.shape[0] == 5
    assert "5 layers" in dock.form.message.text()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "memory"),
        (MemoryError(), "memory"),
        (camanim.ModelError("The weights are missing."), "The weights are missing."),
    ],
)
def test_an_error_is_shown_and_ends_the_run(
    viewer, dock, stacks, ramp, monkeypatch, error, message
):
    def broken(*args, **settings):
        raise error

    monkeypatch.setattr(facade, "animate_targets", broken)
    viewer.add_layer(ramp)
    dock.run()
    dock.finish()
    assert message in notification_manager.records[-1].message
    assert message in dock.form.message.text()
    assert dock.form.run_button.text() == "Run"
    assert not stacks()
    assert not napari_progress._all_instances


@pytest.mark.parametrize(
    "error", [RuntimeError("deep"), RecursionError("deep"), KeyError("deep"), SystemExit("deep")]
)
def test_an_unexpected_error_ends_the_run_too(dock, viewer, ramp, monkeypatch, qtbot, error):
    def broken(*args, **settings):
        raise error

    monkeypatch.setattr(facade, "animate_targets", broken)
    viewer.add_layer(ramp)
    # napari shows the traceback.
    with qtbot.captureExceptions() as raised:
        dock.run()
        dock.finish(20_000)
    assert len(raised) == 1
    assert type(error).__name__ in dock.form.message.text()
    assert "deep" in dock.form.message.text()
    assert dock.form.run_button.text() == "Run"


def test_run_without_an_image_shows_a_message(dock):
    dock.run()
    assert "File > Open Sample" in dock.form.message.text()
    assert not dock.runner.running


def test_the_run_is_in_a_thread(viewer, dock, ramp, monkeypatch):
    in_main_thread = []
    animate = facade.animate_targets

    def recording(*args, **settings):
        in_main_thread.append(threading.current_thread() is threading.main_thread())
        return animate(*args, **settings)

    monkeypatch.setattr(facade, "animate_targets", recording)
    viewer.add_layer(ramp)
    dock.run()
    dock.finish()
    assert in_main_thread == [False]


def test_an_image_removed_while_it_is_explained(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.run()
    viewer.layers.clear()
    dock.finish()
    assert "removed" in dock.form.message.text()
    assert not stacks()


def test_closing_the_dock_disconnects_everything(viewer, qtbot, ramp):
    viewer.add_layer(ramp)
    before = callbacks(viewer)
    window_dock, widget = viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")
    assert callbacks(viewer) != before
    widget.run()
    qtbot.waitUntil(lambda: not widget.runner.running, timeout=60_000)
    stack = viewer.layers[-1]
    viewer.layers.remove(stack)
    viewer.window.remove_dock_widget(window_dock)
    qtbot.waitUntil(lambda: callbacks(viewer) == before, timeout=5_000)
    assert "camanim" not in viewer.canvas.overlays


def test_closing_the_dock_during_a_run_stops_it(viewer, qtbot, ramp):
    viewer.add_layer(ramp)
    window_dock, widget = viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")
    widget.form.road.setChecked(True)
    widget.run()
    task = widget.runner.task
    with qtbot.waitSignal(task.finished, timeout=60_000):
        viewer.window.remove_dock_widget(window_dock)


def test_closing_the_dock_during_a_run_adds_nothing(viewer, qtbot, stacks, ramp):
    viewer.add_layer(ramp)
    window_dock, widget = viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")
    widget.run()
    task = widget.runner.task
    with qtbot.waitSignal(task.finished, timeout=60_000):
        viewer.window.remove_dock_widget(window_dock)
    assert not stacks()
    assert widget.runner.networks.model is None


def _widgets(qtbot):
    """Return the number of all widgets, once deleted ones are gone."""
    for _ in range(3):
        qtbot.wait(1)
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        gc.collect()
    return len(QApplication.allWidgets())


def test_closed_docks_that_ran_are_deleted(viewer, qtbot, ramp):
    viewer.add_layer(ramp)
    counts = []
    for i in range(4):
        window_dock, widget = viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")
        widget.form.advanced.layers.setCurrentText("features.norm5")
        (widget.predict if i % 2 else widget.run)()
        qtbot.waitUntil(lambda runner=widget.runner: not runner.running, timeout=60_000)
        viewer.layers[1:] = []
        viewer.window.remove_dock_widget(window_dock)
        closed = ref(widget)
        del window_dock, widget
        counts.append(_widgets(qtbot))
        assert closed() is None
    # The first run may create what the viewer keeps.
    assert len(set(counts[1:])) == 1


@pytest.mark.parametrize("action", ["run", "predict", "untrusted"])
def test_a_job_that_ends_while_napari_is_closed_raises_nothing(
    make_dock, viewer, ramp, qtbot, tmp_path, action
):
    viewer.add_layer(ramp)
    widget = make_dock()
    if action == "untrusted":
        (tmp_path / "net.py").write_text("raise Exception")
        widget.form.network.setCurrentText(f"{tmp_path}/net.py:build")
    widget.form.advanced.layers.setCurrentText("features.norm5")
    runner = widget.runner
    (widget.predict if action == "predict" else widget.run)()
    # The result waits in the queue of events until the widget is deleted.
    assert QThreadPool.globalInstance().waitForDone(60_000)
    assert runner.running
    with capture_exceptions() as raised:
        # As closing napari does, without an event.
        delete(widget)
        qtbot.waitUntil(lambda: not runner.running, timeout=10_000)
        viewer.add_image(np.zeros((9, 9)))
    assert raised == []
    assert runner.networks.model is None


def test_the_curve_is_that_of_a_visible_stack(viewer, dock, stacks, ramp, qtbot):
    viewer.add_layer(ramp)
    dock.form.advanced.layers.setCurrentText("blocks")
    dock.form.road.setChecked(True)
    dock.run()
    dock.finish()
    scored = stacks()[0]
    dock.form.advanced.layers.setCurrentText("unique")
    dock.form.road.setChecked(False)
    dock.run()
    dock.finish()
    assert not scored.visible
    assert not dock.form.curve.isVisible()
    scored.visible = True
    viewer.layers.selection.active = scored
    assert dock.form.curve.isVisible()
    # The scored stack is shorter than the other one.
    viewer.dims.set_point(0, 40)
    qtbot.wait(100)
    for stack in stacks():
        stack.visible = False
    assert not dock.form.curve.isVisible()
    assert not dock.form.export_button.isEnabled()


def test_predictions_of_another_network_are_discarded(viewer, dock, ramp):
    viewer.add_layer(ramp)
    dock.predict()
    dock.form.network.setCurrentText("torchvision/resnet18")
    dock.finish()
    assert dock.form.classes.count() == 1
    assert "Predict" in dock.form.message.text()


def test_a_typed_prefix_chooses_a_class(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.predict()
    dock.finish()
    dock.form.classes.setCurrentIndex(
        dock.form.classes.findText("malig", Qt.MatchFlag.MatchStartsWith)
    )
    dock.form.classes.lineEdit().setText("norm")
    dock.run()
    dock.finish()
    assert stacks()[0].metadata["camanim"]["class_name"] == "normal"
    assert dock.form.classes.currentText().startswith("normal")
    dock.form.classes.lineEdit().setText("no such class")
    dock.run()
    assert dock.form.classes.currentText().startswith("normal")
    dock.finish()


ANIMALS = ["catamaran", "Egyptian cat", "lynx", "Cat", "bobcat", "norm", "tabby cat"]
LIKELY = [Prediction(1, "Egyptian cat", 0.6), Prediction(2, "lynx", 0.2)]


@pytest.mark.parametrize(
    ("typed", "index"),
    [
        ("egy", 1), ("ca", 1), ("  bby", 6), ("LYN", 2),
        # The name of a class is that class.
        ("cat", 3), ("norm", 5), ("catamaran", 0),
        # Without a match, the choice is unchanged.
        ("xyz", 2), ("", None),
    ],
)  # fmt: skip
def test_what_is_typed_commits_what_the_list_shows_first(dock, qtbot, typed, index):
    field = dock.form.classes
    field.set_classes(LIKELY, ANIMALS)
    field.setCurrentIndex(2)
    line = field.lineEdit()
    line.setFocus()
    line.selectAll()
    qtbot.keyClicks(line, typed) if typed else qtbot.keyClick(line, Qt.Key.Key_Delete)
    shown = field.completer().completionModel()
    first = shown.index(0, 0).data() if typed and shown.rowCount() else None
    qtbot.keyClick(line, Qt.Key.Key_Tab)
    dock.form.run_button.setFocus()
    line.editingFinished.emit()
    assert field.requests() == [index]
    committed = field.currentText()
    assert committed == field.itemText(field.currentIndex()) != ""
    names = [name.casefold() for name in ANIMALS]
    if first is not None and typed.casefold() not in names:
        assert committed == first


def test_the_message_names_the_explained_class_and_its_probability(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.predict()
    dock.finish()
    # The least likely of the three.
    dock.form.classes.setCurrentIndex(3)
    text = dock.form.classes.currentText()
    name, probability = text.split()
    assert float(probability) < 0.5
    dock.run()
    dock.finish()
    message = dock.form.message.text()
    assert name in message
    assert probability in message


def test_export_is_disabled_during_a_run(viewer, dock, ramp):
    viewer.add_layer(ramp)
    dock.run()
    assert not dock.form.export_button.isEnabled()
    dock.finish()
    assert dock.form.export_button.isEnabled()


def test_changes_of_other_layers_keep_the_chosen_class(viewer, dock, ramp):
    viewer.add_layer(ramp)
    other = viewer.add_image(np.zeros((9, 9)), name="other")
    viewer.layers.selection.active = ramp
    dock.predict()
    dock.finish()
    dock.form.classes.setCurrentIndex(2)
    chosen = dock.form.classes.currentText()
    viewer.add_labels(np.zeros((9, 9), int))
    viewer.layers.remove(other)
    ramp.name = "renamed"
    assert dock.form.classes.currentText() == chosen
    assert dock.form.image.currentText() == "renamed"


def test_the_chosen_image_follows_the_selection(viewer, dock):
    viewer.add_image(np.zeros((9, 9)), name="a")
    viewer.add_image(np.zeros((9, 9)), name="b")
    assert dock.form.image.currentText() == "b"
    viewer.layers.selection.active = viewer.layers["a"]
    assert dock.form.image.currentText() == "a"
    viewer.add_labels(np.zeros((9, 9), int), name="labels")
    assert dock.form.image.currentText() == "a"
    viewer.layers["a"].name = "renamed"
    assert dock.form.image.currentText() == "renamed"
    del viewer.layers["renamed"]
    assert dock.form.image.currentText() == "b"


def test_mobilenet_predicts_egyptian_cat(
    # First: napari's fixture cannot close a viewer of a test that is skipped after it.
    shared, viewer, dock, stacks, has_caption, monkeypatch, qtbot
):  # fmt: skip
    monkeypatch.setenv("TORCH_HOME", str(shared / "torch"))
    pixels = np.asarray(PILImage.open(shared / "images/cat.jpg").convert("RGB"))
    viewer.add_image(pixels, name="cat", scale=(0.5, 0.5), units=("um", "um"))
    dock.form.network.setCurrentText("torchvision/mobilenet_v2")
    dock.predict()
    dock.finish()
    assert dock.form.classes.itemText(1).startswith("Egyptian cat")
    dock.run()
    dock.finish()
    [stack] = stacks()
    # 210 outputs have spatial axes; 61 of them are the tensor of an earlier layer.
    assert stack.data.shape == (149, 224, 224)
    assert stack.metadata["camanim"]["class_name"] == "Egyptian cat"
    assert [str(unit) for unit in stack.units] == ["pixel", "micrometer", "micrometer"]
    for index in (0, 70, 148):
        show_index(viewer, stack, index)
        qtbot.waitUntil(lambda: stack.loaded, timeout=10_000)
        assert has_caption(stack.metadata["camanim"]["captions"][index])


OPEN_DOCK = """
import sys
import napari
from qtpy.QtWidgets import QApplication
from napari_camanim._demo import show_demo

viewer = napari.Viewer()
viewer.open_sample("napari-camanim", "benign_1")
viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")
QApplication.processEvents()
assert "torch" not in sys.modules, "the dock imports torch before it is needed"
assert "triton" not in sys.modules
viewer.screenshot(canvas_only=False, flash=False)
"""
RUN = """
widget = show_demo(viewer)
while widget.runner.running:
    QApplication.processEvents()
print(widget.form.message.text())
viewer.close()
"""
IMPORT = """
import torch
try:
    import triton
except ImportError:
    pass
print("ybROAD: mean", torch.zeros(1).item())
viewer.close()
"""


@pytest.mark.parametrize("then", [RUN, IMPORT], ids=["run", "import in a script"])
def test_torch_is_imported_after_drawing(viewer, then):
    """In a subprocess, since torch is already imported here.

    When the window is drawn first, Mesa's LLVM is loaded before triton's.
    """
    viewer.close()
    done = subprocess.run(
        [sys.executable, "-c", OPEN_DOCK + then],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ybROAD: mean" in done.stdout
