"""A small plot for the dock: lines, bands, marks and a cursor, whatever they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

Floats = npt.NDArray[np.float64]
Band = tuple[Floats, Floats]
Color = Literal["text", "first", "second", "chance", "best"]
Style = Literal["solid", "dashed", "dotted"]

#: On a dark and on a light dock, so that all people can tell them apart (Okabe and Ito 2008).
SHADES = {
    True: {"first": "#e69f00", "second": "#56b4e9", "chance": "#2fbf94", "best": "#ffb454"},
    False: {"first": "#b45309", "second": "#0072b2", "chance": "#00795a", "best": "#d9730d"},
}
STYLES = {
    "solid": Qt.PenStyle.SolidLine, "dashed": Qt.PenStyle.DashLine, "dotted": Qt.PenStyle.DotLine
}  # fmt: skip
#: Pixels between plot and edge; the rest of the room there is for numbers and words.
GAP, DOT = 6, 4.5


@dataclass(frozen=True)
class Line:
    """One curve; NaN makes a gap.

    Attributes
    ----------
    name : str
        In the key above the plot; not listed if empty.
    y : (N,) array
    color : Color
    style : Style
    band : (low, high) or None
        Two (N,) arrays, between which the plot is shaded.
    faint : bool
        Whether it is in the background.
    dots : bool
        Whether each value is marked.
    """

    name: str
    y: Floats
    color: Color = "text"
    style: Style = "solid"
    band: Band | None = None
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A dot on a value: filled, or only its rim."""

    name: str
    at: int
    y: float
    filled: bool = True


@dataclass(frozen=True)
class Plot:
    """What is plotted.

    Attributes
    ----------
    x : (N,) array
        Where the values of all lines stand, in ascending order.
    lines : tuple of Line
        The last one is drawn on top.
    marks : tuple of Mark
    ends : (left, right)
        What stands below the first and the last x.
    limits : (low, high) or None
        Of the y axis; by default what the lines need, and always 0.
    layers : bool
        Whether `x` are layers: with a cursor, and a click leads to one.
    instead : str
        What is said where there is nothing to plot.
    tip : str
    """

    x: Floats
    lines: tuple[Line, ...] = ()
    marks: tuple[Mark, ...] = ()
    ends: tuple[str, str] = ("", "")
    limits: tuple[float, float] | None = None
    layers: bool = True
    instead: str = ""
    tip: str = ""

    def range(self) -> tuple[float, float]:
        """Return the lowest and the highest y; 0 is always between, or one of them."""
        if self.limits is not None:
            low, high = self.limits
        else:
            values = [v for line in self.lines for v in (line.y, *(line.band or ()))]
            known = np.concatenate([np.zeros(1), *values])
            known = known[np.isfinite(known)]
            low, high = float(known.min()), float(known.max())
        return low, high if high > low else low + 1.0


class PlotWidget(QWidget):
    """Draws a `Plot`; a click or drag points at one of its layers.

    Signals
    -------
    moved : (int,)
        The layer at which the user points.
    """

    moved = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._plot = Plot(np.empty(0))
        self._index: int | None = None
        font = self.font()
        font.setPointSizeF(max(7.0, font.pointSizeF() * 0.8))
        self.setFont(font)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumHeight(110)

    def sizeHint(self) -> QSize:
        return QSize(260, 130)

    @property
    def plot(self) -> Plot:
        """What is plotted."""
        return self._plot

    def set_plot(self, plot: Plot) -> None:
        """Show something else."""
        self._plot = plot
        self.setToolTip(plot.tip)
        self.update()

    def set_index(self, index: int | None) -> None:
        """Put the cursor at a layer; None takes it away."""
        self._index = index
        self.update()

    # -- Places ------------------------------------------------------------------------------------

    def _frame(self) -> QRectF:
        """Return where the curves are: below the key, above the ends, right of the numbers."""
        metrics = self.fontMetrics()
        left = max(metrics.horizontalAdvance(text) for text in self._numbers()) + GAP
        line = metrics.height()
        # Marks at the top must not reach into the key.
        top = line * len(self._key_rows()) + GAP + DOT
        return QRectF(left, top, self.width() - left - GAP, self.height() - top - line - GAP)

    def _numbers(self) -> tuple[str, str]:
        low, high = self._plot.range()
        return _short(high), _short(low)

    def _x(self) -> Floats:
        frame, x = self._frame(), self._plot.x
        first, span = (x[0], (x[-1] - x[0]) or 1.0) if len(x) else (0.0, 1.0)
        placed: Floats = frame.left() + frame.width() * (x - first) / span
        return placed

    def _y(self, values: npt.ArrayLike) -> Floats:
        frame, (low, high) = self._frame(), self._plot.range()
        share = (high - np.asarray(values, np.float64)) / (high - low)
        placed: Floats = frame.top() + frame.height() * share
        return placed

    def _key(self) -> list[tuple[str, Line | Mark]]:
        entries: list[Line | Mark] = [*self._plot.lines, *self._plot.marks]
        return [(entry.name, entry) for entry in entries if entry.name]

    def _key_rows(self) -> list[list[tuple[float, str, Line | Mark]]]:
        """Set the key in rows that fit: (x, name, what it names)."""
        rows: list[list[tuple[float, str, Line | Mark]]] = [[]]
        metrics, x = self.fontMetrics(), 0.0
        for name, entry in self._key():
            width = 18 + metrics.horizontalAdvance(name)
            if rows[-1] and x + width > self.width():
                rows.append([])
                x = 0.0
            rows[-1].append((x, name, entry))
            x += width + 10
        return rows

    # -- Drawing -----------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self._plot.instead or not len(self._plot.x):
            painter.setPen(self._color("text"))
            flags = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
            painter.drawText(QRectF(self.rect()), int(flags), self._plot.instead)
        else:
            self._draw_frame(painter)
            for line in self._plot.lines:
                self._draw_line(painter, line)
            self._draw_cursor(painter)
            for mark in self._plot.marks:
                place = QPointF(self._x()[mark.at], self._y(mark.y))
                self._draw_dot(painter, place, mark.filled)
        painter.end()

    def _color(self, name: Color, alpha: float = 1.0) -> QColor:
        text = self.palette().color(QPalette.ColorRole.WindowText)
        # Light text means a dark dock.
        color = text if name == "text" else QColor(SHADES[text.lightnessF() > 0.5][name])
        return QColor(color.red(), color.green(), color.blue(), round(255 * alpha))

    def _draw_frame(self, painter: QPainter) -> None:
        frame, metrics = self._frame(), self.fontMetrics()
        painter.setPen(QPen(self._color("text", 0.5), 1, Qt.PenStyle.DotLine))
        zero = float(self._y(0.0))
        painter.drawLine(QPointF(frame.left(), zero), QPointF(frame.right(), zero))
        painter.setPen(self._color("text", 0.75))
        high, low = self._numbers()
        half = metrics.ascent() / 2
        painter.drawText(QPointF(0, frame.top() + half), high)
        painter.drawText(QPointF(0, frame.bottom() + half), low)
        below = self.height() - metrics.descent()
        left, right = self._plot.ends
        painter.drawText(QPointF(frame.left(), below), left)
        end = frame.right() - metrics.horizontalAdvance(right)
        painter.drawText(QPointF(end, below), right)
        for row, entries in enumerate(self._key_rows()):
            for x, name, entry in entries:
                self._draw_entry(painter, x, row * metrics.height(), name, entry)

    def _draw_entry(
        self, painter: QPainter, x: float, top: float, name: str, entry: Line | Mark
    ) -> None:
        metrics = self.fontMetrics()
        middle = top + metrics.height() / 2
        if isinstance(entry, Mark):
            self._draw_dot(painter, QPointF(x + 7, middle), entry.filled)
        else:
            painter.setPen(self._pen(entry))
            painter.drawLine(QPointF(x, middle), QPointF(x + 14, middle))
        painter.setPen(self._color("text"))
        painter.drawText(QPointF(x + 18, top + metrics.ascent()), name)

    def _pen(self, line: Line) -> QPen:
        return QPen(
            self._color(line.color, 0.8 if line.faint else 1.0),
            1.2 if line.faint else 1.6,
            STYLES[line.style],
        )

    def _draw_line(self, painter: QPainter, line: Line) -> None:
        x, y = self._x(), self._y(line.y)
        if line.band is not None:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(self._color(line.color, 0.2))
            low, high = (self._y(edge) for edge in line.band)
            for part in _pieces(low + high):
                around = [*zip(x[part], low[part], strict=True)]
                around += [*zip(x[part], high[part], strict=True)][::-1]
                painter.drawPolygon(QPolygonF([QPointF(*point) for point in around]))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for part in _pieces(y):
            points = [QPointF(*point) for point in zip(x[part], y[part], strict=True)]
            painter.setPen(self._pen(line))
            painter.drawPolyline(QPolygonF(points))
            # A value between two gaps would not be seen.
            if line.dots or len(points) == 1:
                self._draw_points(painter, line, points)

    def _draw_points(self, painter: QPainter, line: Line, points: list[QPointF]) -> None:
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self._color(line.color))
        for point in points:
            painter.drawEllipse(point, 2.0, 2.0)
        painter.setBrush(Qt.BrushStyle.NoBrush)

    def _draw_cursor(self, painter: QPainter) -> None:
        if self._plot.layers and self._index is not None and self._index < len(self._plot.x):
            frame, here = self._frame(), float(self._x()[self._index])
            painter.setPen(QPen(self._color("second"), 2))
            painter.drawLine(QPointF(here, frame.top()), QPointF(here, frame.bottom()))

    def _draw_dot(self, painter: QPainter, at: QPointF, filled: bool) -> None:
        painter.setPen(QPen(self._color("best"), 1.6))
        painter.setBrush(self._color("best") if filled else Qt.BrushStyle.NoBrush)
        painter.drawEllipse(at, DOT - 0.8, DOT - 0.8)
        painter.setBrush(Qt.BrushStyle.NoBrush)

    # -- Pointing ----------------------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._point_at(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self._point_at(event)

    def _point_at(self, event: QMouseEvent) -> None:
        if self._plot.layers and len(self._plot.x):
            self.moved.emit(int(np.abs(self._x() - event.position().x()).argmin()))


def _pieces(values: Floats) -> Iterator[slice]:
    """Split a curve where it has no values."""
    known = np.concatenate([[False], np.isfinite(values), [False]])
    edges = np.flatnonzero(np.diff(known))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        yield slice(start, stop)


def _short(value: float) -> str:
    return f"{value:.2g}"
