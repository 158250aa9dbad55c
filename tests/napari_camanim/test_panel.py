"""The panel of scores below the canvas, in a real window."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication, QDockWidget, QMainWindow, QScrollBar

import camanim
from napari_camanim import animate_layer, commands
from napari_camanim.plots.navigation import next_best, next_stage
from napari_camanim.plots.panel import show_panel
from napari_camanim.session import Session

NAN = float("nan")
COUNT = 9


def network(blocks=3):
    """Return an untrained network with a convolution, a normalisation and a ReLU in each block."""
    torch.manual_seed(0)
    parts, channels = torch.nn.Sequential(), 1
    for i in range(blocks):
        block = [
            torch.nn.Conv2d(channels, 4, 3, padding=1),
            torch.nn.BatchNorm2d(4),
            torch.nn.ReLU(),
        ]
        parts.add_module(f"block{i}", torch.nn.Sequential(*block))
        channels = 4
    parts.add_module("pool", torch.nn.AdaptiveAvgPool2d(1))
    parts.add_module("flat", torch.nn.Flatten())
    parts.add_module("head", torch.nn.Linear(4, 2))
    return camanim.Model(parts, camanim.Preprocess(size=(24, 24), channels=1), ["a", "b"])


def is_leaf(layer):
    return layer.name.count(".") == 1


@pytest.fixture
def add_stack(viewer, ramp):
    """Return a function that adds a stack of nine layers, three in each block."""

    def add(blocks=3, method="GradCAM"):
        image = viewer.layers["ramp"] if "ramp" in viewer.layers else viewer.add_layer(ramp)
        return animate_layer(viewer, image, network(blocks), layers=is_leaf, method=method)

    return add


@pytest.fixture
def panel(viewer, qtbot):
    widget = show_panel(viewer)
    qtbot.waitUntil(widget.isVisible)
    return widget


@pytest.fixture
def drawn(qtbot, panel):
    """Return a function that does something, and waits until the panel was drawn after it."""

    def drawn(change, *arguments, **options):
        qtbot.wait(120)
        qtbot.waitUntil(lambda: panel._job is None and not panel._delay.isActive(), timeout=20_000)
        with qtbot.waitSignal(panel.drawn, timeout=20_000):
            change(*arguments, **options)
        qtbot.waitUntil(lambda: panel._job is None and not panel._delay.isActive(), timeout=20_000)
        return panel.drawing

    return drawn


@pytest.fixture
def score(viewer, roads):
    """Return a function that adds known scores to a stack."""

    def score(stack, scores):
        animation = stack.data.animation
        animation.add(roads.road(scores, layers=animation.layers))
        Session.of(viewer).refresh(stack)

    return score


@pytest.fixture
def scored(add_stack, score, drawn):
    """A stack whose layer 5 has the highest score and whose layer 2 has none."""
    stack = add_stack()
    drawn(score, stack, SCORES)
    return stack


SCORES = [0.1, 0.2, NAN, 0.15, 0.3, 0.5, 0.25, 0.4, 0.35]


def mouse(view, kind, index, button=Qt.MouseButton.NoButton):
    """Send a mouse event at a layer."""
    at = QPointF(view.position_of(index) + 1, view.height() / 2)
    buttons = Qt.MouseButton.LeftButton
    pressed = buttons if kind != QEvent.Type.MouseButtonRelease else Qt.MouseButton.NoButton
    if button == Qt.MouseButton.NoButton and kind == QEvent.Type.MouseMove and not view._dragging:
        pressed = Qt.MouseButton.NoButton
    where = view.mapToGlobal(at)
    QApplication.sendEvent(
        view, QMouseEvent(kind, at, where, button, pressed, Qt.KeyboardModifier.NoModifier)
    )


def cursor(panel):
    """Return the position of the cursor's line in pixels; None if it is hidden."""
    line = panel.view.cursor_line
    return line.x() + line.width() // 2 if line.isVisible() else None


def pixels(widget):
    image = widget.grab().toImage()
    image = image.convertToFormat(image.Format.Format_RGB888)
    bits = image.constBits()
    if hasattr(bits, "setsize"):
        # PyQt6's pointer has no size until it is given one; PySide6 returns a memoryview.
        bits.setsize(image.sizeInBytes())
    rows = np.frombuffer(bits, np.uint8)
    rows = rows.reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).astype(int)


# What is shown ------------------------------------------------------------------------------------


def test_without_scores_the_panel_says_what_to_do(panel, add_stack, drawn):
    drawn(panel._redraw)
    assert panel.view.message
    drawn(add_stack)
    assert panel.drawing.pixels is None
    assert "Run" in panel.view.message
    assert panel.drawing.title == ""


def test_scores_are_drawn_where_the_layers_are(panel, scored):
    drawing = panel.drawing
    assert drawing.title == panel.first.currentText() == "ROAD"
    np.testing.assert_allclose(drawing.panel.lines[-1].y, SCORES)
    assert np.all(np.diff(drawing.x) > 0)
    # Higher scores are higher on the screen, and a layer without a score has no height.
    defined = [i for i in range(COUNT) if i != 2]
    order = sorted(defined, key=lambda i: drawing.y[i])
    assert order == sorted(defined, key=lambda i: -SCORES[i])
    assert np.isnan(drawing.y[2])
    assert panel.words.text() == panel.words.toolTip() == drawing.summary
    assert scored.data.animation.layers[5].label in drawing.summary


def test_the_stages_of_the_network_are_shaded(panel, scored):
    spans = panel.drawing.panel.spans
    assert [(s.name, s.low, s.high) for s in spans] == [
        ("block0", 0.5, 3.5), ("block1", 3.5, 6.5), ("block2", 6.5, 9.5),
    ]  # fmt: skip
    x, middle = panel.drawing.x, round(panel.drawing.bottom) - 3
    picture = panel.drawing.pixels[middle].astype(int)
    shade = [tuple(picture[round((x[i] + x[i + 1]) / 2), :3]) for i in (0, 4, 7)]
    assert shade[0] == shade[2] != shade[1]


def test_second_curves_are_chosen_from_a_list(panel, scored, drawn, roads):
    listed = [panel.second.itemText(i) for i in range(panel.second.count())]
    assert {"none", "parameters", "output size"} <= set(listed)
    assert "ROAD" not in listed
    at = panel.second.findText("parameters")
    panel.second.setCurrentIndex(at)
    drawing = drawn(panel.second.activated.emit, at)
    [twin] = drawing.panel.twins
    counts = [layer.parameters or NAN for layer in scored.data.animation.layers]
    np.testing.assert_array_equal(twin.lines[0].y, counts)
    assert "parameters" in drawing.texts[0]
    assert drawn(panel.choose, second="").panel.twins == ()


def test_a_second_finding_is_a_second_curve_and_can_be_the_first(
    panel, scored, viewer, drawn, roads
):
    animation = scored.data.animation
    mask = roads.localisation(np.linspace(0, 1, COUNT), np.full(COUNT, 0.5))
    animation.add(replace(mask, layers=animation.layers))
    drawn(Session.of(viewer).refresh, scored)
    drawing = drawn(panel.choose, second="Mask")
    np.testing.assert_array_equal(drawing.panel.twins[0].lines[0].y, np.linspace(0, 1, COUNT))
    drawing = drawn(panel.choose, "Mask", "ROAD")
    assert drawing.title == "Mask"
    np.testing.assert_allclose(drawing.panel.twins[0].lines[0].y, SCORES)


def test_plots_of_one_layer_follow_the_slider(panel, scored, viewer, drawn, qtbot):
    session = Session.of(viewer)
    session.go_to(5)
    drawing = drawn(panel.choose, "Removal")
    assert drawing.of_layer
    np.testing.assert_allclose(drawing.panel.lines[0].y[1], 0.4 + 2 * SCORES[5])
    drawing = drawn(session.go_to, 4)
    np.testing.assert_allclose(drawing.panel.lines[0].y[1], 0.4 + 2 * SCORES[4])
    assert cursor(panel) is None
    assert "constant map" in drawn(session.go_to, 2).panel.instead
    # No layer is at the pointer.
    qtbot.mouseClick(panel.view, Qt.MouseButton.LeftButton, pos=panel.view.rect().center())
    assert session.index == 2


def test_an_additional_line_is_drawn_until_it_is_removed(panel, scored, viewer, drawn, add_stack):
    values = np.linspace(0, 1, COUNT)
    drawing = drawn(panel.set_extra, "at (3, 4)", values)
    np.testing.assert_array_equal(drawing.panel.twins[-1].lines[0].y, values)
    assert "at (3, 4) 0.5" in drawing.texts[4]
    assert drawn(panel.clear_extra, "at (3, 4)").panel.twins == ()
    with pytest.raises(ValueError, match="9 values"):
        panel.set_extra("wrong", values[1:])
    drawn(panel.set_extra, "again", values)
    # It belongs to the stack.
    drawn(add_stack, 2)
    assert panel._extras == {}


def test_scores_that_come_in_are_drawn(panel, add_stack, score, drawn):
    stack = add_stack()
    for k in range(1, 4):
        scores = [0.1 * i if i < 3 * k else NAN for i in range(COUNT)]
        drawing = drawn(score, stack, scores)
        np.testing.assert_allclose(drawing.panel.lines[-1].y, scores)


# Cursor and pointer -------------------------------------------------------------------------------


def test_the_cursor_is_at_the_shown_layer(panel, scored, viewer):
    session = Session.of(viewer)
    for i in (0, 7, 2, 8):
        session.go_to(i)
        assert abs(cursor(panel) - panel.drawing.x[i]) <= 1
        dot = panel.view.cursor_line.dot
        if i == 2:
            assert dot is None
        else:
            assert abs(panel.view.cursor_line.y() + dot - panel.drawing.y[i]) <= 1


def test_the_cursor_changes_only_pixels_at_its_layer(panel, scored, viewer):
    session = Session.of(viewer)
    session.go_to(0)
    before = pixels(panel.view)
    session.go_to(6)
    changed = np.flatnonzero((np.abs(pixels(panel.view) - before).max(axis=2) > 20).any(axis=0))
    near = np.abs(changed[:, None] - panel.drawing.x[[0, 6]]).min(axis=1)
    assert near.max() <= 6
    assert {int(np.abs(panel.drawing.x - c).argmin()) for c in changed} == {0, 6}


def test_a_step_of_the_slider_draws_nothing_again(panel, scored, viewer, qtbot):
    session = Session.of(viewer)
    with qtbot.assertNotEmitted(panel.drawn, wait=200):
        for i in (1, 4, 8, 0):
            session.go_to(i)
    assert panel._job is None


def test_a_stack_of_some_layers_has_the_cursor_at_the_layer(panel, scored, viewer, drawn):
    session = Session.of(viewer)
    drawn(session.select_layers, [1, 4, 7])
    viewer.dims.set_point(0, 1)
    assert session.index == 4
    assert abs(cursor(panel) - panel.drawing.x[4]) <= 1
    # A click on a layer that is not shown leads to the nearest one.
    mouse(panel.view, QEvent.Type.MouseButtonPress, 8, Qt.MouseButton.LeftButton)
    mouse(panel.view, QEvent.Type.MouseButtonRelease, 8, Qt.MouseButton.LeftButton)
    assert session.index == 7


def test_a_click_moves_the_slider(panel, scored, viewer, qtbot):
    for i in (6, 0, 8):
        at = QPoint(round(panel.view.position_of(i)) + 2, 30)
        qtbot.mouseClick(panel.view, Qt.MouseButton.LeftButton, pos=at)
        assert Session.of(viewer).index == i
        assert viewer.dims.point[0] == i


def test_a_drag_scrubs(panel, scored, viewer):
    session, seen = Session.of(viewer), []
    session.index_changed.connect(seen.append)
    mouse(panel.view, QEvent.Type.MouseButtonPress, 1, Qt.MouseButton.LeftButton)
    for i in (2, 3, 3, 6):
        mouse(panel.view, QEvent.Type.MouseMove, i)
    mouse(panel.view, QEvent.Type.MouseButtonRelease, 6, Qt.MouseButton.LeftButton)
    mouse(panel.view, QEvent.Type.MouseMove, 8)
    session.index_changed.disconnect(seen.append)
    assert seen == [1, 2, 3, 6]


def test_the_pointer_shows_name_kind_value_and_map(panel, scored, viewer):
    layers = scored.data.animation.layers
    pictures = []
    for i in (0, 4):
        mouse(panel.view, QEvent.Type.MouseMove, i)
        assert panel.popup.isVisible()
        lines = panel.popup.text.text().split("\n")
        assert lines[0] == layers[i].label
        assert lines[1].split() == [layers[i].kind, f"{i + 1}/{COUNT}"]
        assert lines[2] == f"ROAD {SCORES[i]:.2f}"
        pictures.append(pixels(panel.popup.picture))
        # The image has 96 x 128 pixels.
        assert pictures[-1].shape[0] / pictures[-1].shape[1] == pytest.approx(0.75, abs=0.03)
    assert np.abs(pictures[0] - pictures[1]).max() > 20
    QApplication.sendEvent(panel.view, QEvent(QEvent.Type.Leave))
    assert not panel.popup.isVisible()


def test_thumbnails_follow_the_normalisation(panel, scored, viewer):
    def picture():
        mouse(panel.view, QEvent.Type.MouseMove, 0)
        shown = pixels(panel.popup.picture)
        QApplication.sendEvent(panel.view, QEvent(QEvent.Type.Leave))
        return shown

    local = picture()
    np.testing.assert_array_equal(picture(), local)
    Session.of(viewer).set_signed(True)
    assert np.abs(picture() - local).max() > 20


@pytest.mark.slow
def test_keys_step_by_layer_stage_and_score(panel, scored, viewer, qtbot):
    session = Session.of(viewer)
    session.go_to(4)
    expected = (
        (Qt.Key.Key_Right, 5),
        (Qt.Key.Key_Left, 4),
        # To the first layers of stages: back to that of its own stage, then to others.
        (Qt.Key.Key_PageUp, 3),
        (Qt.Key.Key_PageUp, 0),
        (Qt.Key.Key_PageUp, 0),
        (Qt.Key.Key_PageDown, 3),
        (Qt.Key.Key_End, 8),
        # Scores 0.35, 0.4, 0.5.
        (Qt.Key.Key_Up, 7),
        (Qt.Key.Key_Up, 5),
        (Qt.Key.Key_Down, 7),
        (Qt.Key.Key_Home, 0),
    )
    for key, index in expected:
        qtbot.keyClick(panel.view, key)
        assert session.index == index


# Navigation without a window ----------------------------------------------------------------------


@pytest.mark.slow
def test_next_best_follows_the_ranking_among_the_shown_layers(roads):
    road = roads.road(SCORES)
    best = sorted((i for i in range(COUNT) if i != 2), key=lambda i: -SCORES[i])
    at, visited = best[0], []
    for _ in best:
        visited.append(at)
        at = next_best(road, at)
    assert visited == best
    assert at == best[0]
    # The layer without a score has no rank.
    assert next_best(road, 2) == next_best(road, None) == best[0]
    assert next_best(road, 7, among=(0, 7, 8)) == 8
    assert next_best(roads.road([NAN, NAN]), 0) is None


@pytest.mark.slow
def test_next_stage_among_the_shown_layers(roads):
    layers = roads.road(SCORES).layers
    assert [layer.label for layer in layers[:2]] == ["part.0", "part.1"]
    # One stage.
    assert next_stage(layers, 3) is None
    assert next_stage(layers, 3, -1) == 0
    named = [replace(layer, name=f"block{i // 3}.{i}") for i, layer in enumerate(layers)]
    assert [next_stage(named, i) for i in (0, 2, 3, 8, None)] == [3, 3, 6, None, 0]
    assert [next_stage(named, i, -1) for i in (8, 6, 1, 0)] == [6, 3, 0, None]
    assert next_stage(named, 0, among=(0, 5, 7)) == 5


# Several runs -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_curves_of_all_runs(panel, scored, viewer, drawn, add_stack, score):
    assert not panel.all_runs.isVisible()
    other = add_stack(method="LayerCAM")
    drawn(score, other, SCORES[::-1])
    assert panel.all_runs.isVisible()
    drawing = drawn(panel.all_runs.setChecked, True)
    lines = {line.name: line for line in drawing.panel.lines}
    assert set(lines) == {scored.name, other.name}
    np.testing.assert_allclose(lines[scored.name].y, SCORES)
    # The current one is on top, and the cursor is on its curve.
    assert drawing.panel.lines[-1].name == other.name
    Session.of(viewer).go_to(1)
    assert abs(cursor(panel) - drawing.x[1]) <= 1
    # Removed from the list, removed from the plot.
    drawing = drawn(viewer.layers.remove, scored)
    assert [line.name for line in drawing.panel.lines] == [other.name]


@pytest.mark.slow
def test_runs_of_other_layers_are_over_the_relative_depth(
    panel, scored, viewer, drawn, add_stack, score
):
    smaller = add_stack(2)
    drawn(score, smaller, SCORES[:6])
    drawing = drawn(panel.all_runs.setChecked, True)
    below, top = drawing.panel.lines
    np.testing.assert_allclose(top.x, np.linspace(0, 1, 6))
    np.testing.assert_allclose(below.x, np.linspace(0, 1, COUNT))
    assert len(drawing.x) == 6
    mouse(panel.view, QEvent.Type.MouseButtonPress, 4, Qt.MouseButton.LeftButton)
    mouse(panel.view, QEvent.Type.MouseButtonRelease, 4, Qt.MouseButton.LeftButton)
    assert Session.of(viewer).index == 4


# The dock -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_panel_is_as_wide_as_the_canvas(panel, scored, viewer, qtbot):
    window = panel.window()
    center = window.centralWidget()
    assert isinstance(window, QMainWindow)
    dock = panel.parentWidget()
    qtbot.waitUntil(lambda: abs(dock.width() - center.width()) <= 2)
    assert dock.mapToGlobal(QPoint(0, 0)).x() == center.mapToGlobal(QPoint(0, 0)).x()
    assert dock.height() < 200


@pytest.mark.slow
def test_layers_are_above_the_handle_of_the_slider(panel, scored, viewer, drawn):
    drawing = drawn(panel._redraw)
    bar = next(
        bar
        for bar in panel.window().centralWidget().findChildren(QScrollBar)
        if bar.isVisible() and bar.maximum() == COUNT - 1
    )
    # The blue handle, in a picture of the slider.
    for i in (0, COUNT - 1):
        Session.of(viewer).go_to(i)
        picture = pixels(bar)
        saturation = (picture.max(axis=2) - picture.min(axis=2)).mean(axis=0)
        handle = np.flatnonzero(saturation > saturation.max() / 2)
        center = bar.mapToGlobal(QPoint(round(handle.mean()), 0)).x()
        assert abs(panel.view.mapToGlobal(QPoint(round(drawing.x[i]), 0)).x() - center) <= 4


@pytest.mark.slow
def test_the_panel_is_drawn_at_its_new_size(panel, scored, viewer, drawn):
    dock = panel.parentWidget()
    width = panel.drawing.pixels.shape[1]
    drawn(dock.setFloating, True)
    drawing = drawn(dock.resize, 500, 260)
    ratio = panel.devicePixelRatioF()
    assert drawing.pixels.shape[1] == round(panel.view.width() * ratio) != width
    assert drawing.pixels.shape[0] == round(panel.view.height() * ratio)
    assert np.all((drawing.x > 0) & (drawing.x < panel.view.width()))
    dock.setFloating(False)


@pytest.mark.slow
def test_the_summary_has_its_own_line_in_a_narrow_panel(panel, scored, drawn):
    dock = panel.parentWidget()
    drawn(dock.setFloating, True)
    for width, below in ((480, True), (900, False), (480, True)):
        drawn(dock.resize, width, 200)
        assert (panel.words.y() >= panel.first.geometry().bottom()) == below
        assert panel.words.isVisible()
        assert panel.words.width() > 200
    dock.setFloating(False)


@pytest.mark.slow
def test_a_hidden_panel_is_drawn_when_it_is_shown(panel, scored, viewer, drawn, score, qtbot):
    dock = panel.parentWidget()
    dock.hide()
    with qtbot.assertNotEmitted(panel.drawn, wait=200):
        score(scored, SCORES[::-1])
    drawing = drawn(dock.show)
    np.testing.assert_allclose(drawing.panel.lines[-1].y, SCORES[::-1])


@pytest.mark.slow
def test_colours_follow_the_theme(panel, scored, viewer, drawn):
    viewer.theme = "dark"
    for theme, dark in (("light", False), ("dark", True)):
        drawing = drawn(setattr, viewer, "theme", theme)
        assert (np.median(drawing.pixels[..., :3]) < 90) == dark
        # Text and curve contrast with the background.
        assert np.ptp(drawing.pixels[..., :3]) > 120


@pytest.mark.slow
def test_there_is_one_panel(panel, viewer):
    assert show_panel(viewer) is panel
    panel.parentWidget().hide()
    assert show_panel(viewer) is panel
    assert panel.isVisible()


@pytest.mark.slow
def test_closing_the_panel_disconnects_it(panel, scored, viewer, qtbot):
    session = Session.of(viewer)
    window = panel.window()
    corner = window.corner(Qt.Corner.BottomRightCorner)
    assert corner == Qt.DockWidgetArea.RightDockWidgetArea
    signals = (session.current_changed, session.index_changed, session.updated, session.listed)
    connected = [len(signal) for signal in signals]
    viewer.window.remove_dock_widget(panel.parentWidget())
    assert [len(signal) for signal in signals] == [n - 1 for n in connected]
    assert session._users == 0
    assert window.corner(Qt.Corner.BottomRightCorner) == Qt.DockWidgetArea.BottomDockWidgetArea
    session.go_to(3)
    qtbot.wait(100)
    assert not [d for d in window.findChildren(QDockWidget) if d.objectName() == "Scores"]
    # Again.
    again = show_panel(viewer)
    assert again is not panel
    qtbot.waitUntil(lambda: again.drawing.pixels is not None, timeout=20_000)


@pytest.mark.slow
def test_a_closed_panel_is_deleted(viewer, add_stack, score, qtbot):
    widget = show_panel(viewer)
    score(add_stack(), SCORES)
    qtbot.waitUntil(lambda: widget.drawing.pixels is not None, timeout=20_000)
    mouse(widget.view, QEvent.Type.MouseMove, 3)
    references = [weakref.ref(widget), weakref.ref(widget.popup), weakref.ref(widget.view)]
    viewer.window.remove_dock_widget(widget.parentWidget())
    widget = None
    qtbot.wait(100)
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


@pytest.mark.slow
def test_removing_all_stacks_empties_the_panel(panel, scored, viewer, drawn):
    drawing = drawn(viewer.layers.remove, scored)
    assert drawing.pixels is None
    assert panel.view.message
    assert cursor(panel) is None


# -- Around the panel ------------------------------------------------------------------------------


def camera(viewer):
    return (*viewer.scene.camera.center, viewer.scene.camera.zoom)


@pytest.mark.parametrize("zoomed", [False, True])
def test_the_view_is_fitted_again_unless_the_user_has_zoomed(viewer, ramp, qtbot, zoomed):
    viewer.add_layer(ramp)
    qtbot.wait(300)
    viewer.reset_view()
    if zoomed:
        viewer.scene.camera.zoom *= 1.7
    before, height = camera(viewer), viewer.canvas.size[0]
    panel = show_panel(viewer)
    qtbot.waitUntil(lambda: viewer.canvas.size[0] < height)
    qtbot.wait(700)
    after = camera(viewer)
    viewer.reset_view()
    if zoomed:
        assert after == pytest.approx(before)
        assert camera(viewer) != pytest.approx(before)
    else:
        assert camera(viewer) == pytest.approx(after)
        assert after != pytest.approx(before)
    # The user's zoom is kept from then on, also when the panel is removed.
    viewer.scene.camera.zoom *= 3
    zoom, height = viewer.scene.camera.zoom, viewer.canvas.size[0]
    viewer.window.remove_dock_widget(panel)
    qtbot.waitUntil(lambda: viewer.canvas.size[0] != height)
    assert viewer.scene.camera.zoom == zoom


def test_a_view_that_is_set_after_the_panel_was_opened_is_kept(viewer, ramp, qtbot):
    viewer.add_layer(ramp)
    qtbot.wait(300)
    viewer.reset_view()
    height = viewer.canvas.size[0]
    show_panel(viewer)
    viewer.scene.camera.zoom *= 3
    zoom = viewer.scene.camera.zoom
    qtbot.waitUntil(lambda: viewer.canvas.size[0] < height)
    qtbot.wait(700)
    assert viewer.scene.camera.zoom == zoom


def test_a_panel_that_is_removed_at_once_leaves_the_view_to_the_user(viewer, ramp, qtbot):
    viewer.add_layer(ramp)
    qtbot.wait(300)
    viewer.reset_view()
    viewer.window.remove_dock_widget(show_panel(viewer))
    qtbot.wait(700)
    viewer.scene.camera.zoom *= 3
    zoom, size = viewer.scene.camera.zoom, viewer.canvas.size
    viewer.window.resize(900, 600)
    qtbot.waitUntil(lambda: viewer.canvas.size != size)
    assert viewer.scene.camera.zoom == zoom


def test_commands_without_maps_or_scores_say_what_is_missing(viewer, add_stack, notified):
    for command in (commands.next_best_layer, commands.next_stage):
        command(viewer)
        assert "Run" in notified()
    stack = add_stack()
    index = Session.of(viewer).index
    commands.next_best_layer(viewer)
    assert "score" in notified()
    assert Session.of(viewer).index == index
    assert stack in viewer.layers
