"""The probe: real mouse events on the canvas of a window, and the values at the clicked point."""

import numpy as np
import pytest
import torch
from napari.layers import Vectors
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication
from torch import nn

import camanim
from napari_camanim import animate_layer
from napari_camanim.canvas.crosshair import is_crosshair
from napari_camanim.canvas.probe import Probe
from napari_camanim.layers.stack import is_input, is_stack
from napari_camanim.session import Session

LEFT, NO_BUTTON = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton


def tiny(dims=2, size=(16, 24)):
    torch.manual_seed(0)
    conv = nn.Conv2d if dims == 2 else nn.Conv3d
    pool = nn.AdaptiveAvgPool2d if dims == 2 else nn.AdaptiveAvgPool3d
    net = nn.Sequential(
        conv(1, 4, 3, padding=1, stride=2),
        nn.ReLU(),
        conv(4, 3, 3, padding=1),
        pool(1),
        nn.Flatten(),
    )
    return camanim.Model(net, camanim.Preprocess(size=size, channels=1, dims=dims), ["a", "b", "c"])


@pytest.fixture
def pixels():
    return np.random.default_rng(0).random((40, 60)).astype(np.float32)


@pytest.fixture
def image(viewer, pixels):
    return viewer.add_image(pixels, name="image")


@pytest.fixture
def stack(viewer, image):
    return animate_layer(viewer, image, tiny(), target=0)


@pytest.fixture
def probe(viewer):
    probe = Probe(Session.of(viewer))
    probe.active = True
    yield probe
    probe.close()


@pytest.fixture
def mouse(viewer, qtbot):
    return Mouse(viewer, qtbot)


class Mouse:
    """Sends events of Qt to the canvas, at world coordinates along the displayed axes."""

    def __init__(self, viewer, qtbot):
        self.viewer, self.qtbot = viewer, qtbot
        self.canvas = viewer.window._qt_viewer.canvas.native

    def place(self, world):
        camera = self.viewer.scene.camera
        center, size = np.array(camera.center)[-2:], np.array(self.viewer.canvas.size)
        y, x = (np.asarray(world)[-2:] - center) * camera.zoom + size / 2
        return QPointF(x, y)

    def send(self, kind, at, button, held):
        everywhere = self.canvas.mapToGlobal(at)
        modifiers = Qt.KeyboardModifier.NoModifier
        event = QMouseEvent(kind, at, everywhere, button, held, modifiers)
        QApplication.sendEvent(self.canvas, event)
        # Moves are throttled by napari.
        self.qtbot.wait(20)

    def click(self, world):
        self.drag(world, (0, 0))

    def drag(self, world, by):
        # Until the canvas has the size that the sliders leave.
        self.qtbot.wait(100)
        start = self.place(world)
        end = start + QPointF(*reversed(by))
        self.send(QEvent.Type.MouseMove, start, NO_BUTTON, NO_BUTTON)
        self.send(QEvent.Type.MouseButtonPress, start, LEFT, LEFT)
        if any(by):
            for share in (0.3, 0.6, 1):
                self.send(QEvent.Type.MouseMove, start + share * (end - start), NO_BUTTON, LEFT)
        self.send(QEvent.Type.MouseButtonRelease, end, LEFT, NO_BUTTON)


def crosshairs(viewer):
    return [layer for layer in viewer.layers if is_crosshair(layer)]


def heard(probe):
    events = []
    probe.probed.connect(lambda point, values: events.append((point, values)))
    probe.events = events
    return events


def expected(stack, row, column, normalization="local", **kwargs):
    """Return the values at a pixel of the image, by the shares of its sides; the image is stretched."""
    height, width = stack.data.animation.image.shape[:2]
    maps = np.asarray(stack.data.animation.stack(normalization, **kwargs))
    _, h, w = maps.shape
    return maps[:, int((row + 0.5) / height * h), int((column + 0.5) / width * w)]


@pytest.mark.parametrize("at", [(3, 50), (20, 31), (39, 0)])
def test_a_click_reads_the_point_in_all_layers(viewer, stack, probe, mouse, at):
    events = heard(probe)
    mouse.click(at)
    [(point, values)] = events
    assert point is probe.point
    np.testing.assert_allclose(values, expected(stack, *at), atol=1e-6)
    assert np.ptp(values) > 0
    # Within the pixel of the input, which is 2.5 pixels of the image wide.
    np.testing.assert_allclose(point.image, at, atol=1.3)
    assert probe.problem == ""


@pytest.mark.parametrize(
    "place",
    [
        {"scale": (0.3, 0.7), "translate": (100, -20)},
        {"rotate": 30, "scale": (2, 2)},
        {"affine": [[1, 0.4, 5], [0.1, 0.8, 7], [0, 0, 1]]},
    ],
)
def test_points_follow_the_transform_of_the_image(viewer, pixels, probe, mouse, place):
    image = viewer.add_image(pixels, **place)
    stack = animate_layer(viewer, image, tiny(), target=0)
    viewer.reset_view()
    mouse.click(image.data_to_world((11, 41)))
    np.testing.assert_allclose(probe.values, expected(stack, 11, 41), atol=1e-6)
    [crosshair] = crosshairs(viewer)
    # The four lines around the point lie on the lines through it.
    ends = [image.world_to_data(crosshair.data_to_world(line[0])) for line in crosshair.data[:4]]
    np.testing.assert_allclose(np.mean(ends, axis=0), (11, 41), atol=1.5)


def test_the_crosshair_is_no_input_and_leaves_the_selection(viewer, stack, image, probe, mouse):
    seen = []
    Session.of(viewer).current_changed.connect(lambda stack: seen.append(stack))
    before = (viewer.dims.range, viewer.dims.point)
    mouse.click((20, 31))
    [crosshair] = crosshairs(viewer)
    assert isinstance(crosshair, Vectors)
    assert crosshair.name == "probe"
    assert not is_input(crosshair)
    assert not is_stack(crosshair)
    assert viewer.layers.selection.active is stack
    assert set(viewer.layers.selection) == {stack}
    assert (viewer.dims.range, viewer.dims.point) == before
    assert seen == []
    mouse.click((5, 5))
    assert crosshairs(viewer) == [crosshair]


def changed(viewer, qtbot, show):
    """Return which pixels of the canvas are changed by a function."""
    # Until the box of the badge is drawn.
    qtbot.wait(400)
    before = viewer.screenshot(flash=False).astype(int)
    show()
    qtbot.wait(400)
    after = viewer.screenshot(flash=False).astype(int)
    return np.abs(after - before).sum(-1) > 60


@pytest.mark.parametrize("zoom", [1, 8])
def test_the_crosshair_is_drawn_at_the_point(viewer, stack, probe, mouse, qtbot, zoom):
    viewer.scene.camera.zoom *= zoom
    viewer.canvas.overlays["camanim_bar"].visible = False
    at = (21.3, 30.8)
    drawn = changed(viewer, qtbot, lambda: mouse.click(at))
    rows = np.flatnonzero(drawn[:, ::8].mean(1) > 0.3)
    columns = np.flatnonzero(drawn[::8].mean(0) > 0.3)
    # Thin lines of the same width at every zoom, white and dark.
    assert 1 <= np.ptp(rows) <= 4
    assert 1 <= np.ptp(columns) <= 4
    place, ratio = mouse.place(at), drawn.shape[0] / viewer.canvas.size[0]
    # Half a pixel of the input is 1.25 pixels of the image.
    within = 1.3 * viewer.scene.camera.zoom * ratio + 3
    assert abs(rows.mean() - place.y() * ratio) < within
    assert abs(columns.mean() - place.x() * ratio) < within
    # The point itself stays visible.
    y, x = round(rows.mean()), round(columns.mean())
    assert not drawn[y - 3 : y + 3, x - 3 : x + 3].any()


def test_a_zoom_keeps_the_width_of_the_lines(viewer, stack, probe, mouse):
    mouse.click((20, 31))
    [crosshair] = crosshairs(viewer)
    width = crosshair.edge_width * viewer.scene.camera.zoom
    viewer.scene.camera.zoom *= 5
    assert crosshair.edge_width * viewer.scene.camera.zoom == pytest.approx(width)


def test_a_drag_pans_and_does_not_probe(viewer, stack, probe, mouse):
    events = heard(probe)
    center, zoom = viewer.scene.camera.center, viewer.scene.camera.zoom
    mouse.drag((20, 31), (30, -20))
    np.testing.assert_allclose(
        viewer.scene.camera.center, np.add(center, (0, -30 / zoom, 20 / zoom)), atol=0.1
    )
    assert events == []
    assert crosshairs(viewer) == []


def test_a_click_with_an_unsteady_hand_probes(viewer, stack, probe, mouse):
    mouse.drag((20, 31), (2, -1))
    np.testing.assert_allclose(probe.values, expected(stack, 20, 31), atol=1e-6)


def test_nothing_is_probed_unless_it_is_on(viewer, stack, probe, mouse):
    callbacks = len(viewer.mouse_drag_callbacks)
    mouse.click((20, 31))
    events = heard(probe)
    probe.active = False
    assert events == [(None, None)]
    assert crosshairs(viewer) == []
    assert len(viewer.mouse_drag_callbacks) == callbacks - 1
    mouse.click((20, 31))
    assert len(events) == 1
    assert probe.point is None
    probe.active = True
    mouse.click((20, 31))
    assert probe.point is not None


def test_values_follow_the_normalisation(viewer, stack, probe, mouse):
    session = Session.of(viewer)
    mouse.click((20, 31))
    events = heard(probe)
    session.set_normalization("global")
    session.set_signed(True)
    [(_, first), (_, second)] = events
    np.testing.assert_allclose(first, expected(stack, 20, 31, "global"), atol=1e-6)
    np.testing.assert_allclose(second, expected(stack, 20, 31, "global", signed=True), atol=1e-6)
    # A selection of layers changes no value, and all layers stay in the curve.
    session.select_layers([0])
    assert len(events) == 2
    assert len(probe.values) == len(stack.data.animation) > 1


@pytest.mark.slow
def test_values_follow_the_current_stack(viewer, stack, image, probe, mouse):
    mouse.click((20, 31))
    first = probe.values
    other = animate_layer(viewer, image, tiny(), target=1)
    np.testing.assert_allclose(probe.values, expected(other, 20, 31), atol=1e-6)
    assert np.abs(probe.values - first).max() > 0.01
    viewer.layers.remove(other)
    stack.visible = True
    np.testing.assert_array_equal(probe.values, first)
    viewer.layers.remove(stack)
    assert probe.values is None
    assert probe.problem


@pytest.mark.slow
def test_another_run_in_the_stack_is_read_again(viewer, stack, image, probe, mouse):
    session = Session.of(viewer)
    other = animate_layer(viewer, image, tiny(), target=1)
    viewer.layers.selection.active = stack
    other.visible, stack.visible = False, True
    mouse.click((20, 31))
    session.replace(stack, other.data.run)
    np.testing.assert_allclose(probe.values, expected(other, 20, 31), atol=1e-6)


@pytest.mark.slow
def test_outside_of_the_maps_a_sentence_says_so(viewer, stack, probe, mouse):
    mouse.click((20, 31))
    point = probe.point
    events = heard(probe)
    viewer.scene.camera.zoom *= 0.5
    mouse.click((-3, 10))
    assert "do not cover" in probe.problem
    assert probe.point is point
    assert events == []
    # The network sees the square centre only.
    assert not probe.choose((0, 45, 31))


@pytest.mark.slow
def test_without_maps_a_sentence_says_so(viewer, image, probe, mouse):
    mouse.click((20, 31))
    assert probe.point is None
    assert "no maps" in probe.problem
    assert crosshairs(viewer) == []


@pytest.mark.slow
def test_a_point_of_a_volume_has_the_depth_of_the_slider(viewer, probe, mouse):
    volume = np.random.default_rng(0).random((12, 20, 30)).astype(np.float32)
    image = viewer.add_image(volume, scale=(4, 1, 1), translate=(10, 0, 0))
    stack = animate_layer(viewer, image, tiny(3, (6, 10, 15)), target=0)
    viewer.reset_view()
    viewer.dims.set_point(1, 10 + 4 * 7)
    before = viewer.dims.range
    mouse.click((8, 25))
    maps = np.asarray(stack.data.animation.stack("local"))
    # All sides are halved by the network's input.
    assert probe.point.input == (3, 4, 12)
    np.testing.assert_allclose(probe.values, maps[:, 3, 4, 12], atol=1e-6)
    # The crosshair has not changed the sliders.
    assert viewer.dims.range == before
    viewer.dims.ndisplay = 3
    mouse.click((8, 25))
    assert "3-D" in probe.problem
    assert probe.point.input == (3, 4, 12)


@pytest.mark.slow
def test_a_point_in_another_view_of_a_volume(viewer, probe, mouse):
    volume = np.random.default_rng(0).random((12, 20, 30)).astype(np.float32)
    image = viewer.add_image(volume)
    stack = animate_layer(viewer, image, tiny(3, (6, 10, 15)), target=0)
    viewer.dims.order = (0, 2, 1, 3)
    viewer.dims.set_point(2, 9)
    viewer.reset_view()
    mouse.click((8, 25))
    assert probe.point.input == (4, 4, 12)
    maps = np.asarray(stack.data.animation.stack("local"))
    np.testing.assert_allclose(probe.values, maps[:, 4, 4, 12], atol=1e-6)


@pytest.mark.slow
def test_a_point_of_a_slice_that_was_not_explained(viewer, pixels, probe, mouse):
    movie = np.stack([pixels, pixels[::-1]])
    image = viewer.add_image(movie)
    viewer.dims.set_point(0, 1)
    stack = animate_layer(viewer, image, tiny(), target=0)
    mouse.click((20, 31))
    np.testing.assert_allclose(probe.values, expected(stack, 20, 31), atol=1e-6)
    viewer.dims.set_point(1, 0)
    assert not probe.choose(viewer.dims.point)
    assert "= 1" in probe.problem


@pytest.mark.slow
def test_tools_of_layers_keep_their_clicks(viewer, stack, probe, mouse):
    labels = viewer.add_labels(np.zeros((40, 60), np.uint8))
    labels.mode = "paint"
    labels.brush_size = 1
    mouse.click((20, 31))
    assert labels.data[20, 31] == 1
    assert probe.point is None
    labels.mode = "pan_zoom"
    mouse.click((20, 31))
    assert probe.point is not None


@pytest.mark.slow
def test_a_crosshair_removed_by_hand_ends_the_point(viewer, stack, probe, mouse):
    mouse.click((20, 31))
    events = heard(probe)
    viewer.layers.remove(crosshairs(viewer)[0])
    assert events == [(None, None)]
    viewer.scene.camera.zoom *= 2
    mouse.click((20, 31))
    assert len(crosshairs(viewer)) == 1


@pytest.mark.slow
def test_the_dock_switches_the_probe_and_closes_it(viewer, dock, ramp, qtbot):
    viewer.add_layer(ramp)
    dock.settings.layers.value = "features.norm5"
    dock.explain()
    dock.sections["Layers"].expand()
    probe = dock.layers.probe
    dock.layers.button.native.click()
    assert probe.active
    probe.active = False
    assert not dock.layers.button.value
    dock.layers.button.native.click()
    viewer.window.remove_dock_widget(dock.window_dock)
    assert not probe.active
    assert not any(is_crosshair(layer) for layer in viewer.layers)
