"""The plots in the dock: tabs, canvas and cursor, without a viewer."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor, QPalette

from napari_camanim.plots.curve import Curve

NAN = float("nan")


@pytest.fixture
def curve(qtbot):
    widget = Curve()
    qtbot.addWidget(widget)
    widget.resize(320, 220)
    widget.show()
    return widget


def findings(*items):
    return {item.key: item for item in items}


def shown(curve):
    return [name for name, button in curve.buttons.items() if button.isVisibleTo(curve)]


def line(curve, name):
    return next(line for line in curve.canvas.panel.lines if line.name == name)


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


def test_the_canvas_is_created_with_the_first_plot(curve, roads):
    assert not curve.show_findings({})
    assert curve.canvas is None
    assert curve.show_findings(findings(roads.road([0.1, 0.2])))
    assert curve.canvas is not None


def test_each_plot_of_each_finding_has_a_tab(curve, roads):
    road, mask = roads.road([0.1, 0.2]), roads.localisation([0.2, 0.7], [0.4, 0.5])
    curve.show_findings(findings(road))
    assert shown(curve) == ["ROAD", "Removal"]
    curve.show_findings(findings(road, mask))
    assert shown(curve) == ["ROAD", "Removal", "Mask"]
    curve.buttons["Mask"].click()
    np.testing.assert_array_equal(line(curve, "average precision").y, [0.2, 0.7])
    # The chosen tab is kept while it exists.
    curve.show_findings(findings(road, mask))
    assert curve.view == "Mask"
    curve.show_findings(findings(road))
    assert curve.view == "ROAD"
    # A single plot has no tabs.
    curve.show_findings(findings(mask))
    assert shown(curve) == []


def test_removal_follows_the_shown_layer(curve, roads):
    curve.show_findings(findings(roads.road([0.1, NAN, 0.2])))
    curve.buttons["Removal"].click()
    assert curve.canvas.panel.instead
    curve.set_index(2)
    np.testing.assert_allclose(line(curve, "least relevant first (LeRF)").y[1], 0.4 + 0.4)
    curve.set_index(1)
    assert "constant map" in curve.canvas.panel.instead


def test_every_tab_has_a_tooltip(curve, roads):
    curve.show_findings(findings(roads.road([0.1, 0.2]), roads.localisation([0.2], [0.4])))
    tips = [button.toolTip() for button in curve.buttons.values()]
    assert all(tips)
    assert len(set(tips)) == 3


def test_a_click_moves_to_the_nearest_layer_in_plots_over_layers(curve, roads, qtbot):
    curve.show_findings(findings(roads.road([0.1, NAN, 0.5, -0.2, 0.3])))
    canvas = curve.canvas
    canvas.draw()
    positions = canvas.figure.axes[0].transData.transform([(i + 1, 0) for i in range(5)])
    for i, (x, _) in enumerate(positions / canvas.device_pixel_ratio):
        with qtbot.waitSignal(curve.moved) as signal:
            qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=QPoint(round(x) + 3, 80))
        assert signal.args == [i]
    curve.set_index(0)
    curve.buttons["Removal"].click()
    with qtbot.assertNotEmitted(curve.moved):
        qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=canvas.rect().center())


def test_the_cursor_changes_only_pixels_at_its_layer(curve, roads):
    curve.show_findings(findings(roads.road([0.1, 0.4, 0.2, 0.3])))
    canvas = curve.canvas
    canvas.draw()
    without = pixels(canvas)
    positions = canvas.figure.axes[0].transData.transform([(i + 1, 0) for i in range(4)])[:, 0]
    for i in (2, 0, 3):
        curve.set_index(i)
        changed = np.abs(pixels(canvas) - without).max(axis=2) > 30
        columns = np.flatnonzero(changed.any(axis=0))
        assert abs(columns.mean() - positions[i] / canvas.device_pixel_ratio) < 1.5
        assert np.ptp(columns) <= 3
    curve.set_index(None)
    np.testing.assert_array_equal(pixels(canvas), without)


def test_moving_the_cursor_does_not_redraw_the_figure(curve, roads, monkeypatch):
    curve.show_findings(findings(roads.road(np.linspace(0, 0.4, 50))))
    curve.canvas.draw()
    drawn = []
    monkeypatch.setattr(curve.canvas.figure, "draw", lambda renderer: drawn.append(renderer))
    for i in range(20):
        curve.set_index(i)
    assert drawn == []


@pytest.mark.parametrize(("text", "dark"), [("white", True), ("black", False)])
def test_colours_fit_a_light_and_a_dark_dock(curve, roads, text, dark):
    palette = curve.palette()
    palette.setColor(QPalette.ColorRole.WindowText, QColor(text))
    palette.setColor(QPalette.ColorRole.Window, QColor("#202020" if dark else "#F0F0F0"))
    curve.show_findings(findings(roads.road([0.1, 0.3, 0.2])))
    curve.setPalette(palette)
    curve.canvas.draw()
    picture = pixels(curve.canvas)
    assert (np.median(picture) < 64) == dark
    # Text and curve contrast with the background.
    assert np.abs(picture - np.median(picture)).max() > 120
