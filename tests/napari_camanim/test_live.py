"""Live runs in a window: the last one wins, and results that are kept."""

import threading

import numpy as np
import pytest
import torch

from napari_camanim.work import jobs, networks


@pytest.fixture
def passes(monkeypatch, tiny):
    """The tiny network instead of any other, and a list with the number of images of each pass."""
    counted = []

    def count(module, inputs):
        counted.append(len(inputs[0]))

    tiny.net.register_forward_pre_hook(count)
    monkeypatch.setattr(networks, "_load", lambda spec, progress: tiny)
    return counted


@pytest.fixture
def slices(viewer):
    """A volume with different slices."""
    data = np.random.default_rng(0).integers(0, 255, (6, 24, 32)).astype(np.uint8)
    return viewer.add_image(data, name="slices")


@pytest.fixture
def live(dock, passes, slices, qtbot):
    """The dock, which is live; its `settle` waits until nothing more is to be run."""
    dock.live.value = True

    def settle():
        def quiet():
            return not dock.runner.running and not dock._delay.isActive()

        qtbot.waitUntil(quiet, timeout=60_000)

    dock.settle = settle
    settle()
    return dock


def place(stack):
    return stack.data.run.region.position[0]


def class_of(stack):
    return stack.metadata["camanim"]["class_name"]


def test_it_runs_when_switched_on_and_off_it_does_not(viewer, dock, live, stacks, qtbot):
    [stack] = stacks()
    live.live.value = False
    live.classes.value = "b"
    viewer.dims.set_point(1, 3)
    qtbot.wait(150)
    assert not live.runner.running
    assert (class_of(stack), place(stack)) != ("b", 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda dock: setattr(dock.classes, "value", "c"),
        lambda dock: setattr(dock.method, "value", "HiResCAM"),
        lambda dock: dock.viewer.dims.set_point(1, 4),
        lambda dock: setattr(dock.settings.maps["fit"], "value", "crop"),
        lambda dock: setattr(dock.settings.layers, "value", "0, 3"),
        lambda dock: setattr(dock.network, "value", "torchvision/resnet18"),
    ],
    ids=["class", "method", "slice", "fit", "layers", "network"],
)
def test_every_change_is_shown_in_the_same_stack(live, stacks, change):
    [stack] = stacks()
    before = stack.data.run
    change(live)
    live.settle()
    assert stacks() == [stack]
    assert stack.data.run is not before
    assert stack.data.run.request.key == live.request().key


def test_a_move_along_the_layers_runs_nothing(viewer, live, passes, stacks):
    [stack] = stacks()
    run, count = stack.data.run, len(passes)
    for index in range(4):
        live.session.go_to(index)
        live.settle()
    assert (stack.data.run, len(passes)) == (run, count)


def test_the_last_of_quick_changes_wins(live, stacks, qtbot):
    [stack] = stacks()
    names = []
    live.session.updated.connect(lambda each: names.append(class_of(each)))
    for name in ("a", "b", "c"):
        # A run of this network can be shorter than the interval in which a state is looked at.
        with qtbot.waitSignal(live.runner.started, timeout=5_000):
            live.classes.value = name
    live.settle()
    assert stacks() == [stack]
    assert class_of(stack) == "c"
    assert names[-1] == "c"
    assert stack.name.endswith(" c")
    assert "c" in live.status.text


def test_of_a_replaced_run_nothing_is_shown(viewer, dock, slices, passes, stacks, qtbot, tiny):
    """Neither its maps so far, nor that it was cancelled."""
    dock.explain()
    said = []
    dock.explainer.said.connect(lambda text, error: said.append(text))
    dock.live.value = True
    for z in (1, 2, 3, 4):
        viewer.dims.set_point(1, z)
        dock._run_live()
        qtbot.wait(5)
    qtbot.waitUntil(lambda: not dock.runner.running and not dock._delay.isActive(), timeout=60_000)
    [stack] = stacks()
    assert place(stack) == 4
    assert len(stack.data) == 4
    assert not any("ancel" in text for text in said)


def test_a_replaced_run_without_a_stack_adds_one_only(dock, slices, passes, stacks, qtbot):
    for name in ("a", "b", "c"):
        dock.classes.value = name
        dock.run()
        qtbot.wait(5)
    dock.finish()
    assert class_of(dock.session.current) == "c"
    assert all(not stack.data.animation.cancelled for stack in stacks())


# -- Kept results ----------------------------------------------------------------------------------


def test_a_slice_that_was_shown_before_needs_no_forward_pass(viewer, live, passes, stacks, badge):
    [stack] = stacks()
    maps = {}
    for z in (2, 4, 5):
        viewer.dims.set_point(1, z)
        live.settle()
        assert place(stack) == z
        maps[z] = [each.copy() for each in stack.data.animation.maps]
    before = len(passes)
    for z in (2, 5, 4):
        viewer.dims.set_point(1, z)
        live.settle()
        assert stacks() == [stack]
        assert place(stack) == z
        assert live.session.index is not None
        assert f"z = {z}" in badge()[0]
        for one, two in zip(stack.data.animation.maps, maps[z], strict=True):
            np.testing.assert_array_equal(one, two)
    assert len(passes) == before
    assert live.run_button.text == "Run"


def test_kept_results_have_their_scores(viewer, live, passes, stacks):
    live.road.value = True
    [stack] = stacks()
    scores = {}
    for z in (1, 4):
        viewer.dims.set_point(1, z)
        live.settle()
        scores[z] = stack.metadata["camanim"]["findings"]["road"]["scores"]
    before = len(passes)
    viewer.dims.set_point(1, 1)
    live.settle()
    about = stack.metadata["camanim"]
    assert len(passes) == before
    assert about["findings"]["road"]["scores"] == scores[1] != scores[4]
    assert any("ROAD" in caption for caption in about["captions"])


def test_a_kept_result_has_the_findings_that_are_asked_for(viewer, dock, slices, passes, stacks):
    dock.road.value = True
    dock.explain()
    [first] = stacks()
    dock.road.value = False
    before = len(passes)
    dock.explain()
    # The same maps are not added again, and keep their scores.
    assert stacks() == [first]
    assert len(passes) == before
    assert "road" in first.metadata["camanim"]["findings"]
    dock.road.value = True
    dock.settings.forms["road"]["repeats"].value = 2
    dock.explain()
    assert stacks() == [first]
    assert len(first.data.animation.road.morfs) == 2


def test_a_kept_result_has_the_scale_of_the_dock(dock, slices, passes, stacks):
    dock.explain()
    dock.normalization.value = "global"
    dock.explain()
    stack = dock.session.current
    assert stack.data.normalization == "global"
    assert stack.metadata["camanim"]["normalization"] == "global"
    dock.signed.value = True
    dock.explain()
    assert dock.session.current.data.signed
    assert dock.signed.value


def test_back_to_a_kept_slice_during_a_run(viewer, live, stacks, qtbot):
    [stack] = stacks()
    viewer.dims.set_point(1, 1)
    live.settle()
    viewer.dims.set_point(1, 3)
    live._run_live()
    assert live.runner.running
    viewer.dims.set_point(1, 1)
    live._run_live()
    live.settle()
    assert stacks() == [stack]
    assert place(stack) == 1
    assert not stack.data.animation.cancelled


@pytest.mark.parametrize("how", ["data", "in place"])
def test_changed_pixels_are_explained_again(viewer, dock, slices, passes, stacks, how):
    dock.explain()
    before = len(passes)
    tensor = dock.session.animation.tensor
    changed = 255 - slices.data
    if how == "data":
        slices.data = changed
    else:
        slices.data[:] = changed
        slices.refresh()
    dock.explain()
    assert len(passes) > before
    assert not torch.equal(dock.session.animation.tensor, tensor)
    # Pixels that were changed in place no longer have the maps of before.
    assert len(stacks()) == (2 if how == "data" else 1)


def test_other_contrast_limits_are_another_request(viewer, dock, slices, passes, stacks):
    slices.data = slices.data.astype(np.float32)
    dock.explain()
    slices.contrast_limits = (50, 100)
    before = len(passes)
    dock.explain()
    assert len(passes) > before


def test_all_slices_of_another_time_are_another_request(viewer, dock, passes, stacks):
    data = np.random.default_rng(0).integers(0, 255, (3, 4, 24, 32)).astype(np.uint8)
    viewer.add_image(data, name="film")
    dock.settings.maps["slices"].value = True
    dock.explain()
    viewer.dims.set_point(viewer.dims.ndim - 4, 2)
    dock.explain()
    stack = dock.session.current
    assert place(stack) == 2
    # Another slice of the same volume is the same request.
    before = len(passes)
    viewer.dims.set_point(viewer.dims.ndim - 3, 1)
    dock.explain()
    assert len(passes) == before


def test_a_removed_image_is_forgotten(viewer, dock, slices, passes):
    dock.explain()
    data = slices.data
    assert dock.explainer._kept
    viewer.layers.clear()
    assert not dock.explainer._kept
    viewer.add_image(data, name="again")
    before = len(passes)
    dock.explain()
    assert len(passes) > before


def test_other_layers_that_are_removed_forget_nothing(viewer, dock, slices, passes, stacks):
    other = viewer.add_image(np.zeros((9, 9)), name="other")
    viewer.layers.selection.active = slices
    dock.explain()
    before = len(passes)
    viewer.layers.remove(other)
    viewer.layers.remove(stacks()[0])
    dock.explain()
    assert len(stacks()) == 1
    assert len(passes) == before


def test_the_memory_of_kept_results_is_limited(viewer, live, passes, stacks, monkeypatch):
    monkeypatch.setattr("napari_camanim.work.explainer.KEPT", 2)
    for z in (1, 2, 3):
        viewer.dims.set_point(1, z)
        live.settle()
    assert len(live.explainer._kept) == 2
    before = len(passes)
    viewer.dims.set_point(1, 1)
    live.settle()
    assert len(passes) > before


# -- Cancel, and files that are being written ------------------------------------------------------


@pytest.fixture
def hold(monkeypatch, qtbot):
    """Return a function that lets a function wait for `set`; `begun` waits until it was called."""
    held = []

    def hold(owner, name):
        release, begun, function = threading.Event(), threading.Event(), getattr(owner, name)

        def waiting(*args, **options):
            begun.set()
            assert release.wait(60)
            return function(*args, **options)

        monkeypatch.setattr(owner, name, waiting)
        release.begun = lambda: qtbot.waitUntil(begun.is_set, timeout=60_000)
        held.append(release)
        return release

    yield hold
    for release in held:
        release.set()


def test_a_change_after_a_cancel_can_be_cancelled_too(viewer, live, hold, qtbot):
    explain = hold(jobs, "explain")
    live.classes.value = "b"
    explain.begun()
    qtbot.waitUntil(lambda: live.run_button.text == "Cancel")
    live.run_or_cancel()
    assert not live.run_button.enabled
    # The key has no disabled button.
    live.run_or_cancel()
    assert live.run_button.text != "Cancel"
    live.classes.value = "c"
    qtbot.waitUntil(lambda: not live._delay.isActive())
    explain.set()
    live.settle()
    assert class_of(live.session.current) == "c"
    assert live.run_button.enabled
    assert live.run_button.text == "Run"


def test_a_cancel_at_the_end_of_the_maps_starts_no_scores(
    viewer, dock, passes, slices, monkeypatch
):
    explain = jobs.explain

    def cancelled_at_the_end(*args):
        result = explain(*args)
        dock.explainer.cancel()
        return result

    monkeypatch.setattr(jobs, "explain", cancelled_at_the_end)
    dock.road.value = True
    dock.explain()
    assert len(dock.session.animation) == 4
    assert not dock.session.animation.findings


def test_a_file_is_completed_before_a_live_dock_goes_on(viewer, live, hold, tmp_path, notified):
    animation = live.session.animation
    write = hold(type(animation), "write_movie")
    live.saving.export(tmp_path / "movie.mp4")
    write.begun()
    live.classes.value = "b"
    live.predict()
    assert "written" in notified()
    live._run_live()
    live.run()
    assert live.session.animation is animation
    assert live.runner.writing
    write.set()
    live.settle()
    assert (tmp_path / "movie.mp4").stat().st_size > 0
    live.settle()
    assert class_of(live.session.current) == "b"
