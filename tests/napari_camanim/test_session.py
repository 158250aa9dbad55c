"""The session: which stack is seen at which layer, and what changes it, without a window."""

import gc
from weakref import ref

import numpy as np
import pytest
from napari.components import ViewerModel

import camanim
from napari_camanim import animate_layer
from napari_camanim.canvas.badge import Badge
from napari_camanim.layers.run import Run
from napari_camanim.session import Session
from napari_camanim.work import collection


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def image(viewer):
    return viewer.add_image(np.random.default_rng(0).random((5, 20, 30)), name="volume")


@pytest.fixture
def explain(viewer, image, tiny):
    """Return a function that explains a slice."""

    def explain(z, **settings):
        viewer.dims.set_point(viewer.dims.ndim - 3, z)
        return animate_layer(viewer, image, tiny, **settings)

    return explain


@pytest.fixture
def session(viewer):
    return Session.of(viewer)


def record(signal):
    """Return a list to which the arguments of a signal are appended."""
    seen = []
    signal.connect(lambda *args: seen.append(args))
    return seen


def test_one_session_per_viewer(viewer):
    assert Session.of(viewer) is Session.of(viewer)
    assert Session.of(ViewerModel()) is not Session.of(viewer)


def test_the_current_stack_is_the_selected_one_with_a_map_here(viewer, session, explain):
    session.retain()
    changes = record(session.current_changed)
    first, second = explain(1), explain(3)
    assert first.visible
    assert session.current is second
    viewer.dims.set_point(1, 1)
    assert session.current is first
    third = explain(1, method="HiResCAM")
    assert not first.visible
    assert second.visible
    assert session.current is third
    # Of two visible ones, the selected.
    first.visible = True
    viewer.layers.selection.active = first
    assert session.current is first
    viewer.dims.set_point(1, 3)
    assert session.current is second
    viewer.dims.set_point(1, 0)
    assert session.index is None
    for stack in (first, second, third):
        stack.visible = False
    assert session.current is None
    assert [stack for (stack,) in changes][:3] == [first, second, first]


def test_the_slider_moves_by_layer_and_by_step(viewer, session, explain):
    session.retain()
    explain(2)
    session.go_to(0)
    seen = record(session.index_changed)
    session.go_to(3)
    assert (session.index, viewer.dims.point[0]) == (3, 3)
    session.step(-2)
    assert session.index == 1
    session.step(-9)
    assert session.index == 0
    session.step(9)
    assert session.index == 3
    assert [index for (index,) in seen] == [3, 1, 0, 3]


def test_some_layers_can_be_selected(viewer, session, explain):
    stack = explain(2)
    whole = np.asarray(stack.data)
    session.go_to(2)
    updates = record(session.updated)
    session.select_layers([3, 1])
    assert stack.data.indices == (1, 3)
    assert updates == [(stack,)]
    np.testing.assert_array_equal(np.asarray(stack.data), whole[[1, 3]])
    np.testing.assert_array_equal(stack.data[1, 0], whole[3, 0])
    # The nearest of the selected ones; the index is that of the network.
    assert session.index in (1, 3)
    session.go_to(3)
    assert (session.index, viewer.dims.point[0]) == (3, 1)
    assert viewer.dims.range[0].stop == 1
    assert overlay_text(viewer).split()[:2] == ["3", "4/4"]
    session.select_layers(None)
    assert (session.index, viewer.dims.point[0]) == (3, 3)
    np.testing.assert_array_equal(np.asarray(stack.data), whole)


def test_a_global_scale_is_that_of_all_layers(session, explain):
    stack = explain(2)
    session.set_normalization("global")
    whole = np.asarray(stack.data)
    session.select_layers([0, 2])
    np.testing.assert_array_equal(np.asarray(stack.data), whole[[0, 2]])


def overlay_text(viewer):
    return viewer.canvas.overlays["camanim"].text


def test_the_signed_view_shows_negative_evidence(session, explain):
    stack = explain(2, target="c")
    before = stack.colormap.name
    animation = stack.data.animation
    session.set_signed(True)
    shown = np.asarray(stack.data)[:, 0]
    np.testing.assert_array_equal(shown, np.asarray(animation.stack("local", signed=True)))
    assert shown.min() < 0
    assert tuple(stack.contrast_limits) == (-1, 1)
    assert stack.colormap.name != before
    session.set_signed(False)
    assert np.asarray(stack.data).min() >= 0
    assert tuple(stack.contrast_limits) == (0, 1)
    assert stack.colormap.name == before
    assert stack.data.animation is animation


def test_a_stack_can_show_another_run_at_the_same_layer(viewer, session, image, explain, tiny):
    stack = explain(2)
    session.set_normalization("global")
    session.select_layers([1, 3])
    session.go_to(3)
    pixels = np.asarray(image.data[4])
    animation = camanim.animate(tiny, pixels, target="c", layers=["1", "3"])
    region = stack.data.region
    position = tuple(4 if axis not in region.axes else 0 for axis in range(3))
    moved = type(region)(region.shape, region.axes, position, region.corners, region.labels)
    session.replace(stack, Run.of(animation, moved, image))
    assert stack.data.animation is animation
    assert stack.data.normalization == "global"
    assert animation.layers[session.index or 1].label == "3"
    assert stack.metadata["camanim"]["class_name"] == "c"
    assert stack.name.endswith("c")
    assert stack.data_to_world((0, 0, 0, 0))[1] == 4
    viewer.dims.set_point(1, 4)
    assert session.index == 1
    assert "z = 4" in overlay_text(viewer)


def test_findings_that_were_added_are_shown(viewer, session, explain):
    stack = explain(2)
    updates = record(session.updated)
    stack.data.animation.score()
    assert stack.metadata["camanim"]["findings"] == {}
    session.refresh(stack)
    assert updates == [(stack,)]
    assert "road" in stack.metadata["camanim"]["findings"]
    assert "ROAD" in overlay_text(viewer)


def test_without_stacks_and_users_it_is_disconnected(viewer, tiny):
    events = (viewer.dims.events.point, viewer.layers.events.inserted, viewer.layers.events.removed)
    before = [len(event.callbacks) for event in events]
    session = Session.of(viewer)
    session.retain()
    image = viewer.add_image(np.zeros((20, 30)))
    watched = len(image.events.visible.callbacks)
    stack = animate_layer(viewer, image, tiny)
    session.release()
    # The stack keeps it connected.
    assert Session.of(viewer) is session
    viewer.layers.remove(stack)
    assert [len(event.callbacks) for event in events] == before
    assert len(image.events.visible.callbacks) == watched - 1
    assert Session.of(viewer) is not session


def test_a_removed_stack_is_freed(viewer, image, session, explain):
    explain(2, method="HiResCAM")
    session.retain()
    stack = explain(2)
    session.set_signed(True)
    session.select_layers([0, 2])
    gone = [ref(stack), ref(stack.data), ref(stack.data.animation)]
    viewer.layers.remove(stack)
    # napari itself keeps the layer that was selected last.
    for layer in list(viewer.layers):
        viewer.layers.selection.active = layer
    del stack
    collection.include_all()
    gc.collect()
    assert [each() for each in gone] == [None] * 3


def test_session_and_badge_are_freed_with_the_viewer(tiny):
    # napari reads the variables of its caller, which keeps them for as long as the caller runs.
    def use():
        viewer = ViewerModel()
        animate_layer(viewer, viewer.add_image(np.zeros((20, 30))), tiny)
        session = Session.of(viewer)
        return [ref(viewer), ref(session), ref(Badge.on(session))]

    gone = use()
    collection.include_all()
    gc.collect()
    assert [each() for each in gone] == [None] * 3
