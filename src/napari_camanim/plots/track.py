"""Where the handle of a slider of napari is for its first and last value."""

from __future__ import annotations

from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QMainWindow, QScrollBar, QStyle, QStyleOptionSlider, QWidget


def slider_track(window: QWidget, count: int, widget: QWidget) -> tuple[float, float] | None:
    """Return the centres of the handle at both ends of a slider, in pixels of a widget.

    Parameters
    ----------
    window : QWidget
        The window; only a main window has sliders.
    count : int
        Number of layers. A slider with so many steps is preferred; others begin and end at the same
        places, as napari aligns all sliders.
    widget : QWidget
        Widget in whose coordinates the positions are returned.

    Returns
    -------
    (float, float) or None
        None if the window shows no horizontal slider.
    """
    if not isinstance(window, QMainWindow) or window.centralWidget() is None:
        return None
    bars = window.centralWidget().findChildren(QScrollBar)
    shown = [bar for bar in bars if _is_slider(bar)]
    if not shown:
        return None
    bar = min(shown, key=lambda bar: bar.maximum() != count - 1)
    option = QStyleOptionSlider()
    option.initFrom(bar)
    option.orientation, option.subControls = bar.orientation(), QStyle.SubControl.SC_All
    option.minimum, option.maximum, option.pageStep = 0, bar.maximum(), bar.pageStep()
    option.state |= QStyle.StateFlag.State_Horizontal
    ends = []
    for value in (0, bar.maximum()):
        option.sliderPosition = option.sliderValue = value
        handle = bar.style().subControlRect(
            QStyle.ComplexControl.CC_ScrollBar, option, QStyle.SubControl.SC_ScrollBarSlider, bar
        )
        center = QPoint(handle.left() + handle.width() // 2, 0)
        ends.append(float(widget.mapFromGlobal(bar.mapToGlobal(center)).x()))
    return ends[0], ends[1]


def _is_slider(bar: QScrollBar) -> bool:
    horizontal = bar.orientation() == Qt.Orientation.Horizontal
    return bool(horizontal and bar.isVisible() and bar.maximum() > 0)
