"""Runs in a window: maps before scores, export, cancel, errors, removed images and closing."""

import gc
import threading
from weakref import ref

import imageio_ffmpeg
import numpy as np
import pytest
import qtpy
import torch
from PIL import Image as PILImage
from pytestqt.exceptions import capture_exceptions
from qtpy.QtCore import QEvent, QThreadPool
from qtpy.QtWidgets import QApplication

import camanim
from camanim import animation as facade
from napari_camanim.dock.class_field import PROBABILITY
from napari_camanim.layers.stack import is_stack
from napari_camanim.session import Session
from napari_camanim.work import collection

if qtpy.PYSIDE6:
    from shiboken6 import delete
else:
    from PyQt6.sip import delete

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


def open_sample(viewer, name="malignant_1"):
    viewer.open_sample("napari-camanim", name)
    viewer.layers.selection.active = viewer.layers[name]


def test_run_adds_a_stack_with_captions_and_scores(
    viewer, dock, stacks, session, badge, has_caption, qtbot
):
    open_sample(viewer)
    dock.road.value = True
    shown = []
    dock.explainer.progressed.connect(lambda *_: shown.append(dock.status.bar.native.isVisible()))
    dock.run_button.native.click()
    assert dock.run_button.text == "Cancel"
    dock.finish()
    assert any(shown)
    assert not dock.status.bar.native.isVisible()
    assert dock.run_button.text == "Run"
    [stack] = stacks()
    assert viewer.dims.axis_labels == ("layer", "y", "x")
    assert viewer.layers.index(stack) == viewer.layers.index("malignant_1") + 1

    about = stack.metadata["camanim"]
    best = about["layers"].index(about["shown_first"])
    assert viewer.dims.current_step[0] == best
    qtbot.waitUntil(lambda: stack.loaded, timeout=10_000)
    assert f"ROAD {about['findings']['road']['scores'][best]:.2f}" in badge()[0]
    assert has_caption(about["captions"][best])
    first = viewer.screenshot(flash=False)
    session.go_to(0)
    qtbot.waitUntil(lambda: stack.loaded, timeout=10_000)
    assert has_caption(about["captions"][0])
    assert np.abs(viewer.screenshot(flash=False).astype(int) - first).max() > 50


def test_normalisation_and_export_of_a_stack(viewer, dock, stacks, ramp, tmp_path):
    viewer.add_layer(ramp)
    dock.settings.layers.value = "blocks"
    dock.explain()
    [stack] = stacks()
    animation = stack.data.animation
    dock.normalization.value = "global"
    assert stack.data.animation is animation
    np.testing.assert_array_equal(stack.data[0], animation.stack("global")[0])
    movie = tmp_path / "layers.mp4"
    dock.saving.export(movie)
    dock.finish()
    frames = imageio_ffmpeg.count_frames_and_secs(str(movie))[0]
    assert frames == len(animation)
    assert str(movie) in dock.status.text


def test_the_run_is_in_a_thread(viewer, dock, ramp, monkeypatch):
    in_main_thread = []
    animate = facade.animate_targets

    def recording(*args, **settings):
        in_main_thread.append(threading.current_thread() is threading.main_thread())
        return animate(*args, **settings)

    monkeypatch.setattr(facade, "animate_targets", recording)
    viewer.add_layer(ramp)
    dock.explain()
    assert in_main_thread == [False]


def test_nothing_is_written_during_a_run(viewer, small, ramp, notified, tmp_path):
    viewer.add_layer(ramp)
    small.explain()
    saving = small.saving
    assert saving.controls["movie"].isEnabled()
    assert saving.card_action.isEnabled()
    small.method.value = "HiResCAM"
    small.run()
    assert not saving.controls["movie"].isEnabled()
    assert not saving.card_action.isEnabled()
    # Commands have no button.
    for write in (saving.export, saving.save_card):
        write(tmp_path / "file")
        assert "cancel" in notified()
    small.finish()
    assert small.session.animation.method == "HiResCAM"
    assert list(tmp_path.iterdir()) == []
    assert saving.controls["movie"].isEnabled()
    assert saving.card_action.isEnabled()


def test_mobilenet_predicts_egyptian_cat(
    # First: napari's fixture cannot close a viewer of a test that is skipped after it.
    shared, viewer, dock, stacks, session, has_caption, monkeypatch, qtbot
):  # fmt: skip
    monkeypatch.setenv("TORCH_HOME", str(shared / "torch"))
    pixels = np.asarray(PILImage.open(shared / "images/cat.jpg").convert("RGB"))
    viewer.add_image(pixels, name="cat", scale=(0.5, 0.5), units=("um", "um"))
    dock.network.value = "torchvision/mobilenet_v2"
    dock.predict()
    dock.finish()
    assert dock.classes.box.itemText(1) == "Egyptian cat"
    assert dock.classes.box.count() == 1 + 1000
    listed = [dock.classes.box.itemData(i, PROBABILITY) for i in range(1, 23)]
    assert [share is not None for share in listed] == [True] * 20 + [False] * 2
    dock.explain()
    [stack] = stacks()
    # 210 outputs have spatial axes; 61 of them are the tensor of an earlier layer.
    assert stack.data.shape == (149, 224, 224)
    assert stack.metadata["camanim"]["class_name"] == "Egyptian cat"
    assert [str(unit) for unit in stack.units] == ["pixel", "micrometer", "micrometer"]
    for index in (0, 70, 148):
        session.go_to(index)
        qtbot.waitUntil(lambda: stack.loaded, timeout=10_000)
        assert has_caption(stack.metadata["camanim"]["captions"][index])


def test_the_maps_appear_before_the_scores(viewer, dock, stacks, badge, ramp):
    """And the scores while others are computed."""
    seen = []

    def record(stack):
        seen.append((stack, scored(stack), badge()[0]))

    def on_shown(explained):
        assert scored(stacks()[0]) == 0
        dock.session.go_to(0)
        # After the badge.
        dock.session.updated.connect(record)

    dock.explainer.shown.connect(on_shown)
    viewer.add_layer(ramp)
    dock.road.value = True
    dock.explain()
    [stack] = stacks()
    assert {each for each, _, _ in seen} == {stack}
    counts = [count for _, count, _ in seen]
    assert counts == sorted(counts)
    assert len(set(counts)) > 2
    # Those so far are on the canvas.
    assert any("ROAD" in line for _, count, line in seen if count < counts[-1])


def scored(stack):
    """Return the number of scores in the metadata of a stack."""
    road = stack.metadata["camanim"]["findings"].get("road")
    return 0 if road is None else int(np.isfinite(road["scores"]).sum())


@pytest.mark.parametrize("moved", [False, True])
def test_the_best_layer_is_shown_unless_the_slider_was_moved(
    viewer, small, stacks, ramp, monkeypatch, moved
):
    if moved:
        small.explainer.shown.connect(lambda explained: small.session.go_to(1))
    viewer.add_layer(ramp)
    small.road.value = True
    small.explain()
    [stack] = stacks()
    best = stack.data.animation.initial_index
    assert best not in (1, len(stack.data) - 1)
    assert small.session.index == (1 if moved else best)


def test_cancel_while_scoring_keeps_what_was_computed(viewer, dock, stacks, ramp, qtbot):
    viewer.add_layer(ramp)
    dock.road.value = True
    dock.run_until("scores")
    dock.run_button.native.click()
    assert not dock.run_button.enabled
    dock.finish(30_000)
    assert "cancelled" in dock.status.text
    assert dock.run_button.enabled
    [stack] = stacks()
    road = stack.data.animation.road
    assert road is None or not road.complete
    # Those scored so far.
    assert scored(stack) < len(stack.data)
    assert not dock.status.bar.native.isVisible()


def at_fifth_map(monkeypatch, act):
    """Call a function in the thread of the run when five maps are computed, once."""
    animate, acts = facade.animate_targets, [act]

    def acting(*args, progress, **settings):
        def report(stage, done, total):
            if stage == "maps" and done == 5 and acts:
                acts.pop()()
            progress(stage, done, total)

        return animate(*args, progress=report, **settings)

    monkeypatch.setattr(facade, "animate_targets", acting)


def test_cancel_keeps_the_computed_maps(viewer, dock, stacks, ramp, monkeypatch):
    at_fifth_map(monkeypatch, lambda: dock.runner._task.cancel())
    viewer.add_layer(ramp)
    dock.explain()
    [stack] = stacks()
    assert stack.data.shape[0] == 5
    assert "5 layers" in dock.status.text
    # They are not kept as the result of the next run, which completes the stack.
    dock.explain()
    assert stacks() == [stack]
    assert len(stack.data) > 5


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "memory"),
        (MemoryError(), "memory"),
        (camanim.ModelError("The weights are missing."), "The weights are missing."),
    ],
)
def test_an_error_is_shown_and_ends_the_run(
    viewer, dock, stacks, ramp, notified, monkeypatch, error, message
):
    def broken(*args, **settings):
        raise error

    monkeypatch.setattr(facade, "animate_targets", broken)
    viewer.add_layer(ramp)
    dock.explain()
    assert message in notified()
    assert message in dock.status.text
    assert dock.run_button.text == "Run"
    assert not stacks()
    assert not dock.status.bar.native.isVisible()


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
    # With PySide6, napari's own listener fails, too.
    assert sum("deep" in str(each) for _, each, _ in raised) == 1
    assert type(error).__name__ in dock.status.text
    assert "deep" in dock.status.text
    assert dock.run_button.text == "Run"


# -- Removed images --------------------------------------------------------------------------------


def test_maps_of_an_image_that_was_removed_are_offered(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.settings.layers.value = "blocks"
    dock.road.value = True
    dock.run()
    viewer.layers.clear()
    dock.finish()
    assert "removed" in dock.status.text
    assert not stacks()
    assert dock.status.offer.visible
    dock.status.offer.native.click()
    dock.finish()
    assert not dock.status.offer.visible
    [stack] = stacks()
    [image] = [layer for layer in viewer.layers if not is_stack(layer)]
    assert image.name == "ramp"
    np.testing.assert_array_equal(image.data, ramp.data)
    assert viewer.layers.index(image) < viewer.layers.index(stack)
    assert stack.data.run.image is image
    assert dock.session.current is stack


@pytest.mark.parametrize("kind", ["slice", "colour", "float"])
def test_the_copy_of_a_removed_image_is_at_its_place(viewer, dock, stacks, kind):
    rng = np.random.default_rng(0)
    place = {"scale": (4, 0.5, 0.5), "translate": (8, 1, 2)}
    if kind == "colour":
        place = {key: value[1:] for key, value in place.items()}
        viewer.add_image(rng.integers(0, 255, (40, 60, 3), np.uint8), name="image", **place)
    else:
        data = rng.random((5, 40, 60))
        viewer.add_image(
            data if kind == "float" else (255 * data).astype(np.uint8), name="image", **place
        )
        viewer.dims.set_point(0, 8 + 4 * 3)
    dock.settings.layers.value = "blocks"
    removed = viewer.layers["image"]
    extent = np.array(removed.extent.world)
    if kind != "colour":
        extent[:, 0] = 8 + 4 * 3
    dock.run()
    viewer.layers.clear()
    dock.finish()
    dock.status.offer.native.click()
    [stack] = stacks()
    image = viewer.layers["image"]
    assert image.rgb == (kind == "colour")
    np.testing.assert_allclose(image.extent.world, extent)
    half = np.asarray(stack.scale[-2:]) / 2 - np.asarray(image.scale[-2:]) / 2
    np.testing.assert_allclose(stack.extent.world[:, -2:], extent[:, -2:] + np.outer((1, -1), half))
    if kind != "colour":
        viewer.dims.set_point(1, 8 + 4 * 3)
    assert dock.session.index is not None


# -- Closing ---------------------------------------------------------------------------------------


def test_closing_the_dock_disconnects_everything(viewer, make_dock, qtbot, ramp):
    viewer.add_layer(ramp)
    before = callbacks(viewer)
    dock = make_dock()
    assert callbacks(viewer) != before
    dock.explain()
    viewer.layers.remove(viewer.layers[-1])
    # The panel of scores, too.
    viewer.window.remove_dock_widget("all")
    qtbot.waitUntil(lambda: callbacks(viewer) == before, timeout=5_000)
    assert "camanim" not in viewer.canvas.overlays


def test_closing_the_dock_during_a_run_stops_it_and_shows_what_was_computed(
    viewer, dock, stacks, badge, ramp, monkeypatch, qtbot
):
    reached, closed = threading.Event(), threading.Event()
    at_fifth_map(monkeypatch, lambda: (reached.set(), closed.wait(30)))
    viewer.add_layer(ramp)
    dock.road.value = True
    dock.run()
    runner = dock.runner
    qtbot.waitUntil(reached.is_set, timeout=60_000)
    viewer.window.remove_dock_widget(dock.window_dock)
    closed.set()
    qtbot.waitUntil(lambda: not runner.running, timeout=60_000)
    [stack] = stacks()
    assert len(stack.data) == 5
    assert stack.data.animation.road is None
    assert runner.networks.model is None
    # The badge follows the slider without the dock.
    session = Session.of(viewer)
    assert session.current is stack
    for index in (1, 3):
        viewer.dims.set_point(0, index)
        assert f"{index + 1}/5" in badge()[0]


@pytest.mark.parametrize("when", ["maps", "scores"])
def test_closing_napari_during_a_run_raises_nothing(viewer, dock, ramp, qtbot, when):
    viewer.add_layer(ramp)
    dock.road.value = True
    runner = dock.runner
    dock.run_until(when)
    with capture_exceptions() as raised:
        viewer.close()
        qtbot.waitUntil(lambda: not runner.running, timeout=60_000)
        qtbot.wait(50)
    assert raised == []
    assert runner.networks.model is None


def _widgets(qtbot):
    """Return the number of all widgets, once deleted ones are gone."""
    for _ in range(3):
        qtbot.wait(1)
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        collection.include_all()
        gc.collect()
    return len(QApplication.allWidgets())


def test_closed_docks_that_ran_are_deleted(viewer, make_dock, qtbot, ramp):
    viewer.add_layer(ramp)

    def use(predict):
        dock = make_dock()
        dock.settings.layers.value = "features.norm5"
        for section in dock.sections.values():
            section.fill()
        (dock.predict if predict else dock.run)()
        dock.finish(60_000)
        viewer.layers[1:] = []
        viewer.window.remove_dock_widget(dock.window_dock)
        return ref(dock)

    counts = []
    for i in range(4):
        closed = use(i % 2)
        counts.append(_widgets(qtbot))
        assert closed() is None
    # The first run may create what the viewer keeps.
    assert len(set(counts[1:])) == 1


def test_removed_stacks_are_freed(viewer, dock, qtbot, ramp):
    other = viewer.add_image(np.zeros((32, 32), np.uint8), name="other")
    viewer.add_layer(ramp)
    dock.settings.layers.value = "blocks"
    dock.road.value = True
    dock.explain()
    stack = dock.session.current
    # Mesa crashes when napari draws after the larger of two layers is removed.
    dock.native.window().hide()
    gone = [ref(stack), ref(stack.data), ref(stack.data.animation)]
    viewer.layers.remove(stack)
    # What is kept to be shown again ends with its image.
    viewer.layers.remove(ramp)
    del stack
    # napari itself keeps the layer that was selected last, and the last worker.
    for layer in (None, other):
        viewer.layers.selection.active = layer
    dock.predict()
    dock.finish()
    _widgets(qtbot)
    assert [each() for each in gone] == [None] * 3


@pytest.mark.parametrize("action", ["run", "predict", "untrusted"])
def test_a_job_that_ends_while_napari_is_closed_raises_nothing(
    make_dock, viewer, ramp, qtbot, tmp_path, action
):
    viewer.add_layer(ramp)
    widget = make_dock()
    if action == "untrusted":
        (tmp_path / "net.py").write_text("raise Exception")
        widget.network.value = f"{tmp_path}/net.py:build"
    widget.settings.layers.value = "features.norm5"
    runner = widget.runner
    (widget.predict if action == "predict" else widget.run)()
    # The result waits in the queue of events until the widget is deleted.
    assert QThreadPool.globalInstance().waitForDone(60_000)
    assert runner.running
    with capture_exceptions() as raised:
        # As closing napari does, without an event.
        delete(widget.native)
        qtbot.waitUntil(lambda: not runner.running, timeout=10_000)
        viewer.add_image(np.zeros((9, 9)))
    assert raised == []
    assert runner.networks.model is None
