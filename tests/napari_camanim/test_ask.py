"""The section "Ask": what-if edits in a window, and boxes and windows of large layers."""

import threading

import dask.array as da
import numpy as np
import pytest
import torch
from napari.components import ViewerModel
from napari.layers import Image, Labels, Shapes
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

import camanim
from camanim import samples
from camanim.editing import superpixel_at
from camanim.errors import CamError
from napari_camanim import add_animation, animate_layer
from napari_camanim.ask import edits
from napari_camanim.ask.boxes import pixel_ranges
from napari_camanim.layers.stack import is_stack
from napari_camanim.layers.views import take_view

BOX = (40, 60, 104, 140)
PLACEMENTS = [
    {},
    {"scale": (0.5, 2), "translate": (3, 4), "rotate": 30},
    {"scale": (2, 3), "shear": [0.4], "rotate": 20},
    {"scale": (2, 3), "affine": [[1, 0.3, 5], [0.1, 2, -4], [0, 0, 1]]},
]


class Counted:
    """An array that records which shapes were read of it, and cannot be converted as a whole."""

    def __init__(self, array, *, whole=False):
        self.array, self.read, self.whole = array, [], whole
        #: What jobs have read; napari itself reads what it shows.
        self.read_in_thread = []
        self.shape, self.dtype, self.ndim, self.size = (
            array.shape, array.dtype, array.ndim, array.size,
        )  # fmt: skip

    def __getitem__(self, key):
        part = self.array[key]
        self.read.append(key)
        if threading.current_thread() is not threading.main_thread():
            self.read_in_thread.append(key)
        return part

    def __array__(self, *args, **kwargs):
        assert self.whole, "the whole array was read"
        return np.asarray(self.array)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def tiny():
    torch.manual_seed(0)
    return camanim.Model(
        torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3, padding=1),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(4, 3, 3, padding=1),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
        ),
        camanim.Preprocess(size=(16, 24), channels=1),
        ["a", "b", "c"],
    )


def corners(stack):
    """Return the world coordinates of the four outer corners of a stack."""
    height, width = stack.data.shape[-2:]
    index = np.zeros((4, stack.ndim))
    index[:, -2:] = [(y - 0.5, x - 0.5) for y in (0, height) for x in (0, width)]
    return np.array([stack.data_to_world(at) for at in index])[:, 1:]


def box_corners(image, box, before=()):
    y0, x0, y1, x1 = box
    index = [(*before, y - 0.5, x - 0.5) for y in (y0, y1) for x in (x0, x1)]
    return np.array([image.data_to_world(at) for at in index])


# -- A box of a layer, from a script ----------------------------------------------------------------


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_only_the_box_is_read_and_the_stack_lies_on_its_pixels(placement):
    viewer, data = ViewerModel(), Counted(noise(300, 400))
    image = viewer.add_image(data, multiscale=False, contrast_limits=(0, 255), **placement)
    data.read.clear()
    stack = animate_layer(viewer, image, tiny(), box=BOX)
    assert data.read == [(slice(40, 104), slice(60, 140))]
    np.testing.assert_allclose(corners(stack), box_corners(image, BOX), atol=1e-6)
    expected = camanim.animate(tiny(), data.array[40:104, 60:140])
    for raw, same in zip(stack.data.animation.maps, expected.maps, strict=True):
        np.testing.assert_array_equal(raw, same)
    assert list(stack.data.animation.provenance["box"]) == list(BOX)
    assert any("40..104, 60..140" in note for note in stack.metadata["camanim"]["notes"])


def test_the_first_level_of_a_multiscale_layer_is_explained():
    levels = [
        Counted(noise(400, 480)),
        Counted(noise(200, 240)),
        Counted(noise(100, 120), whole=True),
    ]
    viewer = ViewerModel()
    image = viewer.add_image(levels, multiscale=True, contrast_limits=(0, 255), scale=(2, 2))
    for level in levels:
        level.read.clear()
    stack = animate_layer(viewer, image, tiny(), box=BOX)
    assert levels[0].read == [(slice(40, 104), slice(60, 140))]
    assert levels[1].read == levels[2].read == []
    np.testing.assert_allclose(corners(stack), box_corners(image, BOX), atol=1e-6)


def test_only_the_chunks_of_the_box_are_computed():
    read = []

    def block(info):
        read.append(info)
        return np.full((50, 50), sum(info), np.uint8)

    blocks = [
        [da.from_delayed(_delayed(block)((y, x)), (50, 50), np.uint8) for x in range(8)]
        for y in range(6)
    ]
    viewer = ViewerModel()
    image = viewer.add_image(da.block(blocks), contrast_limits=(0, 255), multiscale=False)
    read.clear()
    stack = animate_layer(viewer, image, tiny(), box=BOX)
    assert sorted(set(read)) == [(y, x) for y in (0, 1, 2) for x in (1, 2)]
    np.testing.assert_allclose(corners(stack), box_corners(image, BOX), atol=1e-6)


def _delayed(function):
    import dask

    return dask.delayed(function, pure=False)


def test_a_box_of_a_slice_with_channels(tmp_path):
    data = Counted(noise(5, 3, 300, 400))
    viewer = ViewerModel()
    image = viewer.add_image(data, multiscale=False, contrast_limits=(0, 255))
    viewer.dims.set_point(0, 2)
    data.read.clear()
    view = take_view(viewer, image, 1).within(BOX, 2)
    shown = view.read(2)
    np.testing.assert_array_equal(
        shown.pixels, np.moveaxis(data.array[2, :, 40:104, 60:140], 0, -1)
    )
    assert data.read == [(2, slice(None), slice(40, 104), slice(60, 140))]
    stack = animate_layer(viewer, image, tiny(), box=BOX)
    np.testing.assert_allclose(
        corners(stack), box_corners(image, BOX, tuple(stack.data.region.position[:2])), atol=1e-6
    )


def test_a_volume_has_a_box_along_its_slices_as_well():
    viewer, data = ViewerModel(), Counted(noise(6, 40, 50))
    image = viewer.add_image(data, multiscale=False, contrast_limits=(0, 255), scale=(3, 1, 1))
    data.read.clear()
    stack = animate_layer(viewer, image, tiny(), box=(1, 5, 10, 4, 25, 40), slices=True)
    assert data.read == [(slice(1, 4), slice(5, 25), slice(10, 40))]
    first = stack.data_to_world([0, -0.5, -0.5, -0.5])[1:]
    np.testing.assert_allclose(first, image.data_to_world([0.5, 4.5, 9.5]), atol=1e-6)


def test_a_box_is_clipped_with_a_note_and_refused_outside():
    viewer = ViewerModel()
    image = viewer.add_image(noise(100, 120))
    stack = animate_layer(viewer, image, tiny(), box=(80, 100, 300, 300))
    np.testing.assert_allclose(corners(stack), box_corners(image, (80, 100, 100, 120)), atol=1e-6)
    assert any("clipped" in note for note in stack.data.animation.notes)
    for wrong in ((100, 0, 200, 50), (50, 50, 20, 80), (1, 2, 3), "box"):
        with pytest.raises(CamError):
            animate_layer(viewer, image, tiny(), box=wrong)
    assert [layer for layer in viewer.layers if is_stack(layer)] == [stack]


def test_windows_cover_a_layer_and_read_it_in_parts():
    viewer, data = ViewerModel(), Counted(noise(100, 120))
    image = viewer.add_image(data, multiscale=False, contrast_limits=(0, 255), rotate=10)
    data.read.clear()
    stack = animate_layer(viewer, image, tiny(), windows=True, size=(16, 24), target="b")
    assert max(data.array[key].size for key in data.read) <= 16 * 24
    np.testing.assert_allclose(corners(stack), box_corners(image, (0, 0, 100, 120)), atol=1e-6)
    expected = camanim.animate_windows(tiny(), data.array, size=(16, 24), target="b")
    np.testing.assert_array_equal(stack.data.animation.maps[0], expected.maps[0])
    inside = animate_layer(
        viewer, image, tiny(), windows=True, box=(20, 30, 70, 90), size=(16, 24), target="b"
    )
    np.testing.assert_allclose(corners(inside), box_corners(image, (20, 30, 70, 90)), atol=1e-6)


def test_two_boxes_beside_each_other_are_both_seen():
    viewer = ViewerModel()
    image = viewer.add_image(noise(100, 120))
    first = animate_layer(viewer, image, tiny(), box=(0, 0, 50, 50))
    second = animate_layer(viewer, image, tiny(), box=(0, 60, 50, 100))
    assert first.visible
    assert second.visible
    third = animate_layer(viewer, image, tiny(), box=(20, 20, 50, 100))
    assert [first.visible, second.visible, third.visible] == [False, False, True]


def test_a_result_of_a_box_is_added_by_its_placement():
    viewer = ViewerModel()
    image = viewer.add_image(noise(100, 120), rotate=30)
    animation = camanim.animate(tiny(), image.data, box=(20, 30, 70, 90))
    stack = add_animation(viewer, animation, image)
    np.testing.assert_allclose(corners(stack), box_corners(image, (20, 30, 70, 90)), atol=1e-6)
    assert stack.data.region.size == (50, 60)


def test_pixels_of_a_shape_have_their_centres_inside():
    inside = np.array([[2.0, 3.2], [2.0, 7.7], [5.5, 7.7], [5.5, 3.2]])
    (y0, y1), (x0, x1) = pixel_ranges(inside)
    grid = np.arange(20)
    assert list(range(y0, y1)) == list(grid[(grid >= 2) & (grid < 5.5)])
    assert list(range(x0, x1)) == list(grid[(grid >= 3.2) & (grid < 7.7)])
    assert pixel_ranges(np.array([[4.0, 1], [4.0, 3]]))[0] == (4, 5)


# -- In the window ----------------------------------------------------------------------------------


@pytest.fixture
def ask(viewer, dock, qtbot):
    """The opened section, with `settle` and the number of layers before."""
    image = viewer.add_image(samples.image("malignant_1"), name="lesion")
    # Preferences are read in a thread, and set fields.
    qtbot.waitUntil(lambda: not dock._preferences.is_running, timeout=60_000)
    for _ in range(3):
        QApplication.processEvents()
    dock.network.value = "demo/ultrasound"
    dock.settings.layers.value = "blocks"
    dock.method.value = "GradCAM"
    dock.road.value = False
    dock.run()
    dock.finish()
    dock.sections["Ask"].expand()
    section = dock.ask

    def settle():
        # The release is noticed by a timer, which starts further jobs.
        for _ in range(3):
            QApplication.processEvents()
            qtbot.waitUntil(
                lambda: not (dock.runner.running or section.tool.runner.running), timeout=120_000
            )

    section.settle = settle
    section.image = image
    section.dock = dock
    section.effects = []
    section.tool.predicted.connect(section.effects.append)
    return section


def directly(stack, mask, by="impute", **settings):
    return camanim.WhatIf(stack.data.animation).edit(mask, by, **settings)


def approx(effect, other):
    assert effect.after == pytest.approx(other.after, abs=1e-6)
    assert effect.before == pytest.approx(other.before, abs=1e-6)


def test_painted_pixels_are_replaced(viewer, ask):
    ask.buttons["paint"].native.click()
    ask.settle()
    labels = ask.tool.labels
    assert viewer.layers.selection.active is labels
    assert labels.mode == "paint"
    assert ask.effects[-1].before == ask.effects[-1].after
    labels.brush_size = 40
    labels.paint((100, 120), 1)
    ask.settle()
    stack = viewer.layers["lesion GradCAM malignant"]
    assert labels.data.any()
    approx(ask.effects[-1], directly(stack, labels.data))
    assert ask.effects[-1].after != ask.effects[-1].before
    assert ask.effect.value == ask.effects[-1].summary()
    name, before, after, is_target = ask.view.rows[0]
    assert (name, is_target) == ("malignant", True)
    assert (before, after) == (ask.effects[-1].before, ask.effects[-1].after)


@pytest.mark.parametrize(
    ("by", "settings"),
    [("blur", {"sigma": 0.1}), ("zero", {}), ("mean", {}), ("paste", {"offset": (0, 40)})],
)
def test_every_way_to_replace(viewer, ask, by, settings):
    ask.set_mode("paint")
    ask.replacement["by"].value = by
    for name, value in settings.items():
        field = ask.replacement[name]
        assert field.visible
        field.value = ", ".join(map(str, value)) if isinstance(value, tuple) else value
    ask.tool.labels.brush_size = 40
    ask.tool.labels.paint((100, 120), 1)
    ask.settle()
    stack = viewer.layers["lesion GradCAM malignant"]
    approx(ask.effects[-1], directly(stack, ask.tool.labels.data, by, **settings))


def test_a_missing_offset_is_said(ask):
    ask.set_mode("paint")
    ask.settle()
    ask.replacement["by"].value = "paste"
    ask.tool.labels.paint((100, 120), 1)
    ask.settle()
    assert "offset" in ask.words.value
    assert ask.effects[-1] is None
    ask.replacement["offset"].value = "0, 40"
    ask.settle()
    assert ask.words.value == ""
    assert ask.effects[-1] is not None


def test_strokes_with_the_mouse(viewer, ask, qtbot):
    viewer.window._qt_window.resize(1100, 800)
    ask.set_mode("paint")
    ask.settle()
    ask.tool.labels.brush_size = 20
    canvas = viewer.window._qt_viewer.canvas.native
    middle = canvas.rect().center()
    ask.maps.value = True
    # Images of a stroke that is not complete.
    QTest.mouseMove(canvas, middle)
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=middle)
    for step in range(1, 6):
        _move(canvas, middle + QPoint(8 * step, 0))
    ask.settle()
    during = ask.effects[-1]
    assert ask.tool.labels.data.any()
    approx(during, directly(_base(viewer), ask.tool.labels.data))
    assert ask.tool.stack is None
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=middle + QPoint(40, 0))
    ask.settle()
    assert ask.tool.stack is not None
    assert viewer.layers.selection.active is ask.tool.labels


def _move(widget, position):
    """Send a move with the left button held, which QTest cannot."""
    from qtpy.QtCore import QEvent, QPointF
    from qtpy.QtGui import QMouseEvent

    left = Qt.MouseButton.LeftButton
    event = QMouseEvent(
        QEvent.Type.MouseMove,
        QPointF(position),
        QPointF(widget.mapToGlobal(position)),
        Qt.MouseButton.NoButton,
        left,
        Qt.KeyboardModifier.NoModifier,
    )
    QApplication.sendEvent(widget, event)
    QApplication.processEvents()


def _base(viewer):
    return viewer.layers["lesion GradCAM malignant"]


def test_the_last_of_many_changes_wins_and_none_runs_beside_another(viewer, ask, monkeypatch):
    ask.set_mode("paint")
    ask.settle()
    running, most, count = [], [], []
    plain = edits.edit

    def edit(what_if, *args, **kwargs):
        running.append(threading.get_ident())
        most.append(len(running))
        count.append(1)
        try:
            return plain(what_if, *args, **kwargs)
        finally:
            running.pop()

    monkeypatch.setattr(edits, "edit", edit)
    labels = ask.tool.labels
    labels.brush_size = 15
    for x in range(40, 180, 4):
        labels.paint((100, x), 1)
        QApplication.processEvents()
    ask.settle()
    assert max(most) == 1
    assert len(count) <= 36
    approx(ask.effects[-1], directly(_base(viewer), labels.data))


def test_undo_and_clear(viewer, ask):
    ask.set_mode("paint")
    ask.settle()
    labels = ask.tool.labels
    labels.brush_size = 30
    states = []
    for at in ((60, 60), (100, 120)):
        labels.paint(at, 1)
        ask.settle()
        states.append((labels.data.copy(), ask.effects[-1]))
    ask.set_mode("box")
    shapes = ask.tool.shapes
    shapes.add_rectangles([[[10, 10], [10, 50], [40, 50], [40, 10]]])
    ask.settle()
    mask = labels.data != 0
    mask[10:40, 10:50] = True
    approx(ask.effects[-1], directly(_base(viewer), mask))
    ask.undo_button.native.click()
    ask.settle()
    assert shapes.nshapes == 0
    approx(ask.effects[-1], states[1][1])
    # By napari, such as Ctrl+Z on the layer.
    labels.undo()
    ask.settle()
    np.testing.assert_array_equal(labels.data, states[0][0])
    approx(ask.effects[-1], states[0][1])
    shapes.add_rectangles([[[10, 10], [10, 50], [40, 50], [40, 10]]])
    ask.settle()
    both = ask.effects[-1]
    ask.clear_button.native.click()
    ask.settle()
    assert not labels.data.any()
    assert shapes.nshapes == 0
    assert ask.effects[-1].before == ask.effects[-1].after
    ask.undo_button.native.click()
    ask.settle()
    np.testing.assert_array_equal(labels.data, states[0][0])
    assert shapes.nshapes == 1
    approx(ask.effects[-1], both)
    for _ in range(5):
        ask.undo_button.native.click()
    ask.settle()
    assert not labels.data.any()
    assert shapes.nshapes == 0


@pytest.mark.slow
def test_boxes_of_a_rotated_image(viewer, ask):
    ask.image.rotate = 30
    ask.image.scale = (2, 3)
    ask.set_mode("box")
    ask.settle()
    shapes = ask.tool.shapes
    corner = ask.image.data_to_world((30, 40))
    np.testing.assert_allclose(shapes.data_to_world((30, 40)), corner, atol=1e-6)
    shapes.add_rectangles([[[30, 40], [30, 90], [80, 90], [80, 40]]])
    ask.settle()
    mask = np.zeros(ask.image.data.shape, bool)
    mask[30:80, 40:90] = True
    approx(ask.effects[-1], directly(_base(viewer), mask))


@pytest.mark.slow
def test_a_click_adds_a_superpixel_and_a_drag_pans(viewer, ask, qtbot):
    viewer.window._qt_window.resize(1100, 800)
    ask.superpixels.value = 40
    ask.buttons["superpixel"].native.click()
    ask.settle()
    labels = ask.tool.labels
    canvas = viewer.window._qt_viewer.canvas.native
    middle = canvas.rect().center()
    center = viewer.camera.center
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=middle)
    for step in range(1, 6):
        _move(canvas, middle + QPoint(6 * step, 0))
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=middle + QPoint(30, 0))
    ask.settle()
    assert not labels.data.any()
    assert viewer.camera.center != center
    viewer.camera.center = center
    QApplication.processEvents()
    QTest.mouseMove(canvas, middle)
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=middle)
    ask.settle()
    expected = camanim.WhatIf(_base(viewer).data.animation).superpixels(40)
    at = tuple(np.argwhere(labels.data)[0])
    np.testing.assert_array_equal(labels.data != 0, superpixel_at(expected, at))
    assert superpixel_at(expected, np.array(labels.data.shape) / 2)[at]
    approx(ask.effects[-1], directly(_base(viewer), labels.data))
    # Without the tool, a click paints nothing.
    ask.buttons["superpixel"].native.click()
    layers = list(viewer.layers)
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=middle)
    ask.settle()
    assert list(viewer.layers) == layers


@pytest.mark.slow
def test_maps_and_picture_of_the_edited_image(viewer, ask):
    base = _base(viewer)
    before = list(viewer.layers)
    ask.maps.value = ask.picture.value = True
    ask.set_mode("paint")
    ask.settle()
    labels = ask.tool.labels
    labels.brush_size = 40
    labels.paint((100, 120), 1)
    ask.settle()
    what_if = camanim.WhatIf(base.data.animation)
    what_if.edit(labels.data)
    np.testing.assert_array_equal(ask.tool.picture.data, what_if.image)
    assert "covers" not in viewer.canvas.overlays["camanim"].text
    stack = ask.tool.stack
    assert stack.name.endswith("what if")
    for raw, same in zip(stack.data.animation.maps, what_if.explain().maps, strict=True):
        np.testing.assert_allclose(raw, same, atol=1e-5)
    assert ask.image in dict(ask.dock.source.images()).values()
    assert ask.tool.picture not in dict(ask.dock.source.images()).values()
    order = [viewer.layers.index(each) for each in (ask.image, ask.tool.picture, stack)]
    assert order == sorted(order)
    labels.paint((40, 40), 1)
    ask.settle()
    assert ask.tool.stack is stack
    what_if.clear()
    what_if.edit(labels.data)
    np.testing.assert_allclose(stack.data.animation.maps[-1], what_if.explain().maps[-1], atol=1e-5)
    assert not base.visible
    ask.set_mode("off")
    assert list(viewer.layers) == before
    assert base.visible


@pytest.mark.slow
def test_the_region_test_says_whether_the_network_uses_the_region(viewer, ask):
    ask.set_mode("paint")
    ask.settle()
    ask.test_button.native.click()
    assert "region" in ask.words.value
    assert not ask.dock.runner.running
    labels = ask.tool.labels
    labels.data_setitem(np.nonzero(samples.mask("malignant_1")), 1)
    ask.settle()
    ask.test_button.native.click()
    ask.settle()
    stack = _base(viewer)
    found = stack.data.animation.findings["region_test"]
    expected = camanim.animate(
        stack.data.animation.model,
        ask.image.data,
        layers="blocks",
        target="malignant",
    ).check_region(labels.data)
    assert found.effect == pytest.approx(expected.effect, abs=1e-4)
    assert found.p_value == expected.p_value
    assert f"p = {found.p_value:.2g}" in ask.words.value
    assert "region_test" in stack.metadata["camanim"]["findings"]


@pytest.mark.slow
def test_the_tool_follows_another_stack(viewer, ask):
    ask.set_mode("paint")
    ask.settle()
    ask.tool.labels.brush_size = 40
    ask.tool.labels.paint((100, 120), 1)
    ask.settle()
    ask.dock.classes.value = "benign"
    ask.dock.run()
    ask.dock.finish()
    ask.settle()
    assert ask.effects[-1].target == "benign"
    stack = ask.tool._session.current
    assert stack.data.animation.target.name == "benign"
    approx(ask.effects[-1], directly(stack, ask.tool.labels.data))


@pytest.mark.slow
def test_a_slice_of_a_volume(viewer, ask):
    volume = np.stack([samples.image(name) for name in ("malignant_1", "malignant_1")])
    volume[0] = 0
    image = viewer.add_image(volume, name="volume", scale=(5, 1, 1), translate=(0, 300, 0))
    viewer.layers.selection.active = image
    ask.dock.image.value = image
    ask.dock.network.value = "demo/ultrasound"
    viewer.dims.set_point(viewer.dims.ndim - 3, 5)
    ask.dock.run()
    ask.dock.finish()
    stack = ask.tool._session.current
    assert stack.data.run.image is image
    ask.set_mode("paint")
    ask.settle()
    labels = ask.tool.labels
    assert labels.data.shape == (1, *volume.shape[1:])
    np.testing.assert_allclose(
        labels.data_to_world((0, 3, 4)), image.data_to_world((1, 3, 4)), atol=1e-6
    )
    labels.data_setitem(tuple(np.nonzero(samples.mask("malignant_1")[None])), 1)
    ask.settle()
    approx(ask.effects[-1], directly(stack, samples.mask("malignant_1")))


@pytest.mark.slow
def test_channels_of_an_axis_have_one_region(viewer, ask):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 60, 80), dtype=np.uint8)
    image = viewer.add_image(pixels, name="channels", contrast_limits=(0, 255))
    ask.dock.image.value = image
    ask.dock.network.value = "torchvision/mobilenet_v2"
    ask.dock.settings.weights.line_edit.value = "none"
    ask.dock.channels.value = 0
    ask.dock.run()
    ask.dock.finish()
    stack = ask.tool._session.current
    assert stack.data.region.channel_axis == 0
    ask.set_mode("paint")
    ask.settle()
    labels = ask.tool.labels
    assert labels.data.shape == (1, 60, 80)
    for channel in range(3):
        at = np.round(labels.world_to_data(image.data_to_world((channel, 20, 30))))
        np.testing.assert_array_equal(at, (0, 20, 30))
    mask = np.zeros((60, 80), bool)
    mask[10:40, 20:60] = True
    labels.data_setitem(np.nonzero(mask[None]), 1)
    ask.settle()
    approx(ask.effects[-1], directly(stack, mask))


@pytest.mark.slow
def test_the_painted_region_is_no_mask_of_the_settings(ask):
    ask.set_mode("paint")
    assert ask.tool.labels not in dict(ask.dock.source.masks()).values()


@pytest.mark.slow
def test_layers_of_the_user_are_never_removed(viewer, ask):
    own = viewer.add_labels(np.zeros((10, 10), int), name="mine")
    shapes = viewer.add_shapes([[[1, 1], [5, 5]]], shape_type="rectangle", name="boxes")
    ask.set_mode("box")
    ask.settle()
    ask.set_mode("paint")
    ask.settle()
    ask.set_mode("off")
    assert own in viewer.layers
    assert shapes in viewer.layers
    ask.set_mode("paint")
    ask.settle()
    viewer.layers.remove(ask.tool.labels)
    assert ask.tool.mode == "off"
    assert own in viewer.layers


@pytest.mark.slow
def test_windows_are_no_input_of_an_edit(viewer, ask):
    ask.region.region.value = "windows"
    ask.region.settings["size"].value = "100"
    ask.dock.classes.value = "malignant"
    ask.dock.run()
    ask.dock.finish()
    ask.set_mode("paint")
    ask.settle()
    assert "box" in ask.words.value
    assert ask.tool.what_if is None


@pytest.mark.slow
@pytest.mark.parametrize("state", ["preparing", "painting", "maps", "drawing a box"])
def test_closing_the_dock_leaves_nothing(viewer, ask, state):
    before = list(viewer.layers)
    callbacks = len(viewer.mouse_drag_callbacks)
    ask.maps.value = ask.picture.value = True
    if state == "drawing a box":
        ask.dock._draw_box()
    else:
        ask.set_mode("paint")
    if state in ("painting", "maps"):
        ask.settle()
        ask.tool.labels.paint((100, 120), 1)
    if state == "maps":
        ask.settle()
    assert len(viewer.layers) > len(before)
    viewer.window.remove_dock_widget(ask.dock.native)
    QApplication.processEvents()
    assert list(viewer.layers) == before
    assert len(viewer.mouse_drag_callbacks) == callbacks
    ask.settle()
    assert list(viewer.layers) == before


# -- The field "Region" -----------------------------------------------------------------------------


@pytest.fixture
def slide(viewer, ask):
    """A large layer that counts what is read of it, chosen in the dock."""
    data = Counted(np.tile(samples.image("malignant_1"), (5, 6))[:1000, :1200])
    layer = viewer.add_image(
        data, name="slide", multiscale=False, contrast_limits=(0, 255), rotate=20, scale=(2, 2)
    )
    ask.dock.image.value = layer
    # Another network may be proposed for another image.
    ask.dock.network.value = "demo/ultrasound"
    return layer


@pytest.mark.slow
def test_a_drawn_box_is_explained(viewer, ask, slide):
    dock, field = ask.dock, ask.region
    assert dock.view_words.value == "slide, 1000 x 1200"
    field.draw_button.native.click()
    assert field.region.value == "box"
    assert dock.view_words.value.startswith("There is no box")
    drawn = field.shapes.value
    assert viewer.layers.selection.active is drawn
    assert drawn.mode == "add_rectangle"
    drawn.add_rectangles([[[200, 300], [200, 456], [350, 456], [350, 300]]])
    assert dock.view_words.value == "box 200..350, 300..456 of slide, 150 x 156 of 1000 x 1200"
    slide.data.read_in_thread.clear()
    dock.run()
    dock.finish()
    stack = ask.tool._session.current
    # Once more for an estimate of the cost.
    assert slide.data.read_in_thread
    for key in slide.data.read_in_thread:
        assert key == (slice(200, 350), slice(300, 456))
    np.testing.assert_allclose(corners(stack), box_corners(slide, (200, 300, 350, 456)), atol=1e-6)
    expected = camanim.animate(
        stack.data.animation.model, slide.data.array[200:350, 300:456], layers="blocks"
    )
    np.testing.assert_array_equal(stack.data.animation.maps[-1], expected.maps[-1])
    # Another box is another request, the same one is kept.
    first = dock.request().key
    assert dock.request().key == first
    drawn.add_rectangles([[[0, 0], [0, 100], [100, 100], [100, 0]]])
    assert "the last of 2 shapes" in dock.view_words.value or drawn.selected_data
    assert dock.request().key != first


@pytest.mark.slow
def test_what_if_in_a_box(viewer, ask, slide):
    ask.region.draw_button.native.click()
    ask.region.shapes.value.add_rectangles([[[200, 300], [200, 456], [350, 456], [350, 300]]])
    ask.dock.run()
    ask.dock.finish()
    stack = ask.tool._session.current
    ask.set_mode("paint")
    ask.settle()
    labels = ask.tool.labels
    assert labels.data.shape == (150, 156)
    np.testing.assert_allclose(
        labels.data_to_world((0, 0)), slide.data_to_world((200, 300)), atol=1e-6
    )
    ask.set_mode("box")
    ask.tool.shapes.add_rectangles([[[220, 310], [220, 360], [260, 360], [260, 310]]])
    ask.settle()
    mask = np.zeros((150, 156), bool)
    mask[20:60, 10:60] = True
    approx(ask.effects[-1], directly(stack, mask))


@pytest.mark.slow
def test_other_shapes_count_by_their_bounding_box(viewer, ask, slide):
    shapes = viewer.add_shapes(ndim=2, name="mine")
    ask.region.region.value = "box"
    ask.region.shapes.value = shapes
    shapes.add_ellipses([[[20, 20], [20, 60], [80, 60], [80, 20]]])
    assert "bounding box of an ellipse" in ask.dock.view_words.value
    # Upright in the world, and therefore not over the rotated image.
    shapes.add_rectangles([[[20, 20], [20, 60], [80, 60], [80, 20]]])
    shapes.selected_data = {1}
    assert "bounding box of a rotated rectangle" in ask.dock.view_words.value
    inside = np.array([slide.world_to_data(at) for at in shapes.data[1]])
    view = ask.dock.source.view()
    for (start, stop), low, high in zip(
        view.box, np.ceil(inside.min(0)), np.ceil(inside.max(0)), strict=True
    ):
        assert (start, stop) == (low, high)
    viewer.layers.remove(shapes)
    assert ask.dock.view_words.value.startswith("There is no box")


@pytest.mark.slow
def test_windows_over_a_large_layer_and_a_cancel_keeps_what_was_computed(viewer, ask, slide, qtbot):
    dock = ask.dock
    ask.region.region.value = "windows"
    assert dock.view_words.value == "slide, 1000 x 1200, window by window"
    dock.classes.value = "malignant"
    # Thousands, so that it is not done before the cancel.
    ask.region.settings["size"].value = "48"
    ask.region.settings["overlap"].value = 0.6
    stages = []
    dock.runner.progressed.connect(lambda *report: stages.append(report))
    slide.data.read_in_thread.clear()
    dock.run()
    qtbot.waitUntil(lambda: any(s == "windows" and d >= 5 for s, d, _ in stages), timeout=60_000)
    dock.run_or_cancel()
    dock.finish()
    stack = ask.tool._session.current
    windows = stack.data.animation.windows
    assert 5 <= windows.computed < len(windows)
    assert stack.data.animation.cancelled
    np.testing.assert_allclose(corners(stack), box_corners(slide, (0, 0, 1000, 1200)), atol=1e-6)
    assert max(slide.data.array[key].size for key in slide.data.read_in_thread) < 300**2
    assert {(s, t) for s, _, t in stages if s == "windows" and t} == {("windows", len(windows))}


@pytest.mark.slow
def test_live_runs_leave_the_maps_of_the_edited_image(viewer, ask):
    ask.maps.value = True
    ask.set_mode("paint")
    ask.settle()
    ask.tool.labels.paint((100, 120), 1)
    ask.settle()
    edited = ask.tool.stack
    shown = edited.data.run
    ask.dock.live.value = True
    ask.dock._run_live()
    ask.settle()
    assert edited.data.run is shown
    ask.dock.live.value = False


@pytest.mark.slow
def test_everything_can_be_reached(ask):
    fields = [ask.superpixels, ask.maps, ask.picture, ask.undo_button, ask.clear_button]
    fields += [ask.test_button, *ask.buttons.values(), ask.region.region, ask.region.shapes]
    fields += [ask.region.draw_button, *ask.replacement, *ask.region.settings]
    for field in fields:
        assert field.tooltip, field.name
    assert ask.native.minimumSizeHint().width() <= 280


@pytest.mark.slow
def test_types_of_layers(ask):
    ask.set_mode("paint")
    ask.set_mode("box")
    assert isinstance(ask.tool.labels, Labels)
    assert isinstance(ask.tool.shapes, Shapes)
    assert isinstance(ask.image, Image)
