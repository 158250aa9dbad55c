"""A canvas for the plots of findings, with a cursor that moves without redrawing the plot."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from qtpy.QtCore import QEvent, QSize, Signal
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QSizePolicy, QWidget

from camanim.plots import Panel, Plot
from camanim.render.figures import DARK, LIGHT, Theme, draw, dress, themed

#: Size in pixels.
HEIGHT, WIDTH = 170, 260


class PlotCanvas(FigureCanvasQTAgg):
    """Draws the first panel of a `Plot`, with a cursor that is drawn by blitting.

    Signals
    -------
    moved : (int,)
        Index of the layer at a click or drag.
    """

    moved = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        # Before super().__init__(), in which Qt sends changes of the palette.
        self._panel: Panel | None = None
        self._index: int | None = None
        self._background: Any = None
        self._cursor: Any = None
        super().__init__(Figure(layout="constrained", dpi=100))
        self.setParent(parent)
        # The palette of the window instead of matplotlib's white one.
        self.setPalette(QPalette())
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumHeight(HEIGHT)
        self.mpl_connect("button_press_event", self._point_at)
        self.mpl_connect("motion_notify_event", self._point_at)

    def sizeHint(self) -> QSize:
        return QSize(WIDTH, HEIGHT)

    def minimumSizeHint(self) -> QSize:
        # Wide enough to be legible, without widening the dock.
        return QSize(120, HEIGHT)

    @property
    def panel(self) -> Panel | None:
        """The plotted panel."""
        return self._panel

    def set_plot(self, plot: Plot) -> None:
        """Show the first panel of a plot."""
        first = next(panel for panel in plot.panels if isinstance(panel, Panel))
        self._panel = first
        self.setToolTip(first.tip)
        self._compose()

    def set_index(self, index: int | None) -> None:
        """Move the cursor to a layer; None hides it."""
        if index == self._index:
            return
        self._index = index
        if self._background is None or self._cursor is None:
            return
        self.restore_region(self._background)
        self._draw_cursor()
        self.update()

    def theme(self) -> Theme:
        """Return the theme with the colours of the window's palette."""
        palette = self.palette()
        text = palette.color(QPalette.ColorRole.WindowText)
        background = palette.color(QPalette.ColorRole.Window)

        theme = DARK if text.lightnessF() > 0.5 else LIGHT
        return themed(theme, text=text.name(), background=background.name())

    def _compose(self) -> None:
        """Create the artists of the panel, and schedule a draw."""
        self._cursor = self._background = None
        if self._panel is None:
            return
        theme = self.theme()
        self.figure.clear()
        self.figure.set_facecolor(theme.background)
        axes = self.figure.add_subplot()
        dress(axes, theme)
        draw(self.figure, axes, self._panel, theme)
        if self._panel.by_layer and not self._panel.instead:
            # Without a label to save height; the tooltip explains the axis.
            axes.set_xlabel("")
            line = axes.axvline(1, color=theme.colors["third"], linewidth=1.6, visible=False)
            line.set_animated(True)
            self._cursor = line
        self.draw_idle()

    def draw(self) -> None:
        """Draw the panel, and store it without the cursor."""
        super().draw()
        self._background = self.copy_from_bbox(self.figure.bbox)
        self._draw_cursor()

    def _draw_cursor(self) -> None:
        if self._cursor is None or self._panel is None:
            return
        shown = self._index is not None and self._index < len(self._panel.x)
        self._cursor.set_visible(shown)
        if shown and self._index is not None:
            self._cursor.set_xdata([self._panel.x[self._index]] * 2)
            self._cursor.axes.draw_artist(self._cursor)

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self._compose()

    def _point_at(self, event: Any) -> None:
        """Emit `moved` with the layer nearest to a pressed button."""
        if event.button != 1 or self._cursor is None or self._panel is None:
            return
        x, _ = self._cursor.axes.transData.inverted().transform((event.x, event.y))
        self.moved.emit(int(np.abs(self._panel.x - x).argmin()))
