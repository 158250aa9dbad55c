"""The curves: what is plotted, and how it is drawn, without a viewer."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor, QPalette

from napari_camanim._curve import LAYERS, MASK, REMOVAL, Curve, mask_plot, removal_plot, scores_plot
from napari_camanim._plot import SHADES, Line, Mark, Plot, PlotWidget

NAN = float("nan")


@pytest.fixture
def curve(qtbot):
    widget = Curve()
    qtbot.addWidget(widget)
    widget.resize(300, 160)
    widget.show()
    return widget


@pytest.fixture
def draw(qtbot):
    """Draw a plot on white, and give its pixels, (H, W, 3), and the widget."""

    def draw(plot, size=(300, 140), text="black", index=None):
        widget = PlotWidget()
        qtbot.addWidget(widget)
        palette = widget.palette()
        palette.setColor(QPalette.ColorRole.WindowText, QColor(text))
        palette.setColor(QPalette.ColorRole.Window, QColor("white" if text == "black" else "black"))
        widget.setPalette(palette)
        widget.resize(*size)
        widget.set_plot(plot)
        widget.set_index(index)
        image = widget.grab().toImage()
        image = image.convertToFormat(image.Format.Format_RGB888)
        lines = image.constBits().asstring(image.sizeInBytes())
        rows = np.frombuffer(lines, np.uint8).reshape(image.height(), image.bytesPerLine())
        pixels = rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3)
        return pixels.astype(int), widget

    return draw


def near(pixels, color, within=40):
    """Where pixels have a colour."""
    wanted = QColor(color)
    wanted = np.array([wanted.red(), wanted.green(), wanted.blue()])
    return np.abs(pixels - wanted).max(axis=-1) < within


def line(plot, name):
    return next(line for line in plot.lines if line.name == name)


# -- What is plotted -------------------------------------------------------------------------------


def test_scores_without_more_are_one_line_and_its_best(roads):
    plot = scores_plot(roads.road([0.1, NAN, 0.3, -0.2]))
    [scored] = plot.lines
    np.testing.assert_allclose(scored.y, [0.1, NAN, 0.3, -0.2])
    assert scored.band is None
    [mark] = plot.marks
    assert (mark.name, mark.at, mark.filled) == ("best", 2, True)
    assert mark.y == pytest.approx(0.3)
    assert "chance" not in plot.tip


def test_repeats_and_chance_become_bands(roads):
    rng = np.random.default_rng(0)
    chance = rng.normal([[0.05], [0.25], [0.02]], 0.01, (3, 8))
    road = roads.road([0.2, 0.3, 0.1], spread=0.02, chance=chance)
    plot = scores_plot(road)
    low, high = line(plot, "score").band
    # Of s - d, s and s + d the standard deviation is d.
    np.testing.assert_allclose(low, [0.18, 0.28, 0.08])
    np.testing.assert_allclose(high, [0.22, 0.32, 0.12])
    baseline = line(plot, "chance")
    np.testing.assert_allclose(baseline.y, chance.mean(axis=1))
    # The band's upper edge is what a score has to pass to be above chance.
    np.testing.assert_array_equal(road.scores > baseline.band[1], road.above_chance)
    assert baseline.color != line(plot, "score").color
    # The second has the highest score, and the first is furthest above chance.
    assert [(m.name, m.at, m.filled) for m in plot.marks] == [
        ("best", 0, True),
        ("highest score", 1, False),
    ]
    assert "chance" in plot.tip


def test_where_no_layer_is_above_chance_none_is_filled(roads):
    plot = scores_plot(roads.road([0.1, 0.2], chance=[[0.1, 0.3, 0.2]] * 2))
    assert [(m.at, m.filled) for m in plot.marks] == [(1, False)]


def test_nothing_is_marked_where_nothing_has_a_score(roads):
    plot = scores_plot(roads.road([NAN, NAN]))
    assert plot.marks == ()
    assert plot.range() == (0, 1)


def test_removal_starts_at_the_image_itself_and_goes_on_by_what_is_removed(roads):
    road = roads.road([0.1, 0.05], percentiles=(80, 20, 50))
    plot = removal_plot(road, 0, "probability")
    np.testing.assert_allclose(plot.x, [0, 20, 50, 80])
    np.testing.assert_allclose(line(plot, "MoRF, most relevant").y, [0.5, 0.4, 0.25, 0.1])
    np.testing.assert_allclose(line(plot, "LeRF, least relevant").y, [0.5, 0.6, 0.45, 0.3])
    assert line(plot, "MoRF, most relevant").band is None
    assert plot.ends == ("0 %", "80 % removed")
    assert not plot.layers
    # All layers are drawn on one scale, so that they can be compared.
    assert plot.range() == removal_plot(road, 1, "probability").range() == (0, pytest.approx(0.6))


def test_repeats_of_a_removal_become_bands(roads):
    plot = removal_plot(roads.road([0.1], spread=0.02), 0, "probability")
    low, high = line(plot, "LeRF, least relevant").band
    np.testing.assert_allclose(high - low, [0, 0.08, 0.08, 0.08, 0.08])


def test_a_layer_without_a_score_has_no_removal_but_a_reason(roads):
    road = roads.road([0.1, NAN])
    assert removal_plot(road, 1, "probability").instead == "No curve: constant map."
    assert removal_plot(road, None, "probability").instead == "No layer is shown."
    assert "score" in removal_plot(road, 0, "score").tip


def test_the_mask_is_plotted_beside_what_chance_gives(roads):
    plot = mask_plot(roads.localisation([0.2, NAN, 0.7], [0.4, NAN, 0.5], share=0.15))
    np.testing.assert_allclose(line(plot, "average precision").y, [0.2, NAN, 0.7])
    np.testing.assert_allclose(line(plot, "energy inside").y, [0.4, NAN, 0.5])
    np.testing.assert_allclose(line(plot, "chance").y, 0.15)
    assert [(m.at, m.y) for m in plot.marks] == [(2, 0.7)]


# -- How it is drawn -------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "dark"), [("black", False), ("white", True)])
def test_colours_are_those_of_a_light_or_a_dark_dock(draw, text, dark):
    line = Line("", np.ones(2), "first", dots=True)
    pixels, _ = draw(Plot(np.arange(2.0), (line,)), text=text)
    assert near(pixels, SHADES[dark]["first"], 3).any()
    assert not near(pixels, SHADES[not dark]["first"], 3).any()


@pytest.mark.parametrize("text", ["black", "white"])
def test_a_gap_is_left_where_there_is_no_value(draw, text):
    y = np.array([0.5, 0.5, NAN, 0.5, 0.5])
    pixels, widget = draw(Plot(np.arange(5.0), (Line("", y, "first"),)), text=text)
    # Numbers and rules are grey; a thin line between two rows of pixels is paler than its colour.
    columns = (np.ptp(pixels, axis=-1) > 60).any(axis=0)
    x = widget._x()
    for i, seen in enumerate([True, True, False, True, True]):
        here = round(x[i])
        assert columns[max(0, here - 2) : here + 3].any() == seen
    assert columns[int(x[0]) + 2 : int(x[1])].all()
    assert not columns[int(x[1]) + 3 : int(x[3]) - 2].any()


def test_a_value_between_two_gaps_is_seen(draw):
    y = np.array([NAN, 0.5, NAN])
    pixels, widget = draw(Plot(np.arange(3.0), (Line("", y, "first"),)))
    rows, columns = np.nonzero(near(pixels, SHADES[False]["first"]))
    assert np.abs(columns - widget._x()[1]).max() < 4
    assert np.abs(rows - widget._y(0.5)).max() < 4


def test_a_band_is_shaded_between_its_edges_and_nowhere_else(draw):
    n = np.arange(4.0)
    band = (np.array([0.4, 0.4, NAN, 0.4]), np.array([0.8, 0.8, NAN, 0.8]))
    plot = Plot(n, (Line("", np.full(4, 0.6), "second", band=band),), limits=(0, 1))
    pixels, widget = draw(plot)
    x, y = widget._x(), widget._y
    middle = round((x[0] + x[1]) / 2)
    shaded = np.abs(pixels - 255).max(axis=-1) > 20
    assert shaded[round(float(y(0.5))), middle]
    assert shaded[round(float(y(0.7))), middle]
    assert not shaded[round(float(y(0.3))), middle]
    assert not shaded[round(float(y(0.9))), middle]
    assert not shaded[round(float(y(0.7))), round((x[1] + x[2]) / 2)]


def test_a_mark_is_filled_or_only_a_rim(draw):
    y = np.full(3, 0.5)
    marks = (Mark("", 0, 0.5, filled=False), Mark("", 2, 0.5))
    pixels, widget = draw(Plot(np.arange(3.0), (Line("", np.full(3, NAN)),), marks, limits=(0, 1)))
    row = round(float(widget._y(y[0])))
    best = near(pixels, SHADES[False]["best"])
    left, right = (round(widget._x()[i]) for i in (0, 2))
    assert best[row - 1 : row + 2, right - 1 : right + 2].all()
    assert not best[row, left]
    assert best[row - 5 : row + 6, left - 5 : left + 6].any()


def test_the_cursor_stands_at_its_layer_and_only_over_layers(draw):
    y = np.full(5, 0.5)
    for of_layers in (True, False):
        plot = Plot(np.arange(5.0), (Line("", y),), layers=of_layers)
        pixels, widget = draw(plot, index=3)
        blue = near(pixels, SHADES[False]["second"]).sum(axis=0)
        if of_layers:
            assert abs(int(blue.argmax()) - widget._x()[3]) <= 1.5
        assert bool(blue.max() > 40) is of_layers


def test_numbers_and_key_stay_inside(draw):
    """Nothing is drawn into the last column, where it would be cut off."""
    plot = Plot(
        np.arange(200.0),
        (
            Line("average precision", np.linspace(-123456.0, 1, 200)),
            Line("energy inside", np.zeros(200), "first"),
            Line("chance", np.zeros(200), "chance"),
        ),
        (Mark("highest score", 5, 0.0, filled=False), Mark("best", 199, 1.0)),
        ends=("layer 1", "200"),
    )
    for width in (180, 260, 600):
        pixels, widget = draw(plot, (width, 140))
        written = np.abs(pixels - 255).max(axis=-1) > 40
        assert not written[:, -1].any()
        # The key takes more lines where it is narrow, and the curves begin below it.
        assert len(widget._key_rows()) == {180: 3, 260: 2, 600: 1}[width]
        assert 0 < widget._frame().top() < widget._frame().bottom() < 140


def test_a_reason_is_written_instead(draw):
    empty, _ = draw(Plot(np.empty(0)))
    said, _ = draw(Plot(np.empty(0), instead="No curve: constant map."))
    assert (empty == 255).all()
    assert (said != 255).any()


# -- The switch ------------------------------------------------------------------------------------


def shown(curve):
    return [name for name, button in curve.buttons.items() if button.isVisible()]


def test_the_switch_offers_what_there_is(curve, roads):
    road, found = roads.road([0.1, 0.2]), roads.localisation([0.2, 0.7], [0.4, 0.5])
    assert not curve.show_results(None)
    assert curve.show_results(road)
    assert shown(curve) == [LAYERS, REMOVAL]
    assert curve.show_results(road, found)
    assert shown(curve) == [LAYERS, REMOVAL, MASK]
    curve.buttons[MASK].click()
    assert line(curve.plot.plot, "average precision")
    # What is chosen stays chosen, for as long as there is one.
    curve.show_results(road, found)
    assert curve.view == MASK
    curve.show_results(road)
    assert curve.view == LAYERS
    assert line(curve.plot.plot, "score")
    # A single plot needs no switch.
    curve.show_results(None, found)
    assert shown(curve) == []
    assert line(curve.plot.plot, "average precision")


def test_removal_follows_the_shown_layer(curve, roads):
    curve.show_results(roads.road([0.1, NAN, 0.2]))
    curve.buttons[REMOVAL].click()
    assert curve.plot.plot.instead == "No layer is shown."
    curve.set_index(2)
    np.testing.assert_allclose(line(curve.plot.plot, "LeRF, least relevant").y[1], 0.4 + 0.4)
    curve.set_index(1)
    assert "constant map" in curve.plot.plot.instead


def test_every_switch_and_every_plot_explains_itself(curve, roads):
    curve.show_results(roads.road([0.1, 0.2]), roads.localisation([0.2, 0.7], [0.4, 0.5]))
    tips = set()
    for button in curve.buttons.values():
        button.click()
        tips |= {button.toolTip(), curve.plot.toolTip()}
    assert "" not in tips
    assert len(tips) == 6


def test_a_click_leads_to_the_nearest_layer_and_in_a_removal_nowhere(curve, roads, qtbot):
    curve.show_results(roads.road([0.1, NAN, 0.5, -0.2, 0.3]))
    for i, x in enumerate(curve.plot._x()):
        with qtbot.waitSignal(curve.moved) as signal:
            qtbot.mouseClick(curve.plot, Qt.MouseButton.LeftButton, pos=QPoint(round(x) + 3, 60))
        assert signal.args == [i]
    curve.set_index(0)
    curve.buttons[REMOVAL].click()
    with qtbot.assertNotEmitted(curve.moved):
        qtbot.mouseClick(curve.plot, Qt.MouseButton.LeftButton, pos=curve.plot.rect().center())
