"""The widget that shows a drawn plot, with a cursor that moves without drawing the plot again."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QPointF, QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QKeyEvent, QMouseEvent, QPainter, QPixmap
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_camanim.plots.drawing import Drawing

#: Preferred and lowest size in pixels.
WIDTH, HEIGHT, LEAST_WIDTH, LEAST_HEIGHT = 600, 92, 120, 40
#: Radius of the cursor's dot, and width of its line, in pixels.
RADIUS, STROKE = 4, 1


class Cursor(QWidget):
    """A vertical line with a dot at the value of the shown layer."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.color = QColor("white")
        #: Height of the dot above the lower end, as `y` of the widget; None without a value.
        self.dot: float | None = None
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setFixedWidth(2 * RADIUS + 1)
        self.hide()

    def paintEvent(self, event: Any) -> None:
        painter = QPainter(self)
        painter.fillRect(QRect(RADIUS, 0, STROKE, self.height()), self.color)
        if self.dot is not None:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(self.color)
            painter.drawEllipse(QPointF(RADIUS + STROKE / 2, self.dot), RADIUS - 0.5, RADIUS - 0.5)
        painter.end()


class CurveView(QWidget):
    """Shows a drawing, and reports which of its layers is clicked, dragged to or hovered over.

    Signals
    -------
    moved : (int,)
        Index of the layer at a click, or while a button is pressed.
    hovered : (int or None,)
        Index of the layer below the pointer; None if there is none.
    stepped : (str,)
        Key that asks for another layer: "next", "previous", "first", "last", "next stage", "previous
        stage", "better", "worse".
    resized : ()
    """

    moved = Signal(int)
    hovered = Signal(object)
    stepped = Signal(str)
    resized = Signal()

    _KEYS = {  # noqa: RUF012
        Qt.Key.Key_Right: "next",
        Qt.Key.Key_Left: "previous",
        Qt.Key.Key_Home: "first",
        Qt.Key.Key_End: "last",
        Qt.Key.Key_PageDown: "next stage",
        Qt.Key.Key_PageUp: "previous stage",
        Qt.Key.Key_Up: "better",
        Qt.Key.Key_Down: "worse",
    }

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.drawing = Drawing()
        self.index: int | None = None
        #: Text in place of a drawing.
        self.message = ""
        self._pixmap = QPixmap()
        self._hovered: int | None = None
        self._dragging = False
        self.cursor_line = Cursor(self)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(LEAST_WIDTH, LEAST_HEIGHT)

    def sizeHint(self) -> QSize:
        return QSize(WIDTH, HEIGHT)

    def show_drawing(self, drawing: Drawing, color: str) -> None:
        """Show a drawing, with a cursor of the given colour."""
        self.drawing = drawing
        if drawing.pixels is None:
            self._pixmap = QPixmap()
        else:
            height, width = drawing.pixels.shape[:2]
            kind = QImage.Format.Format_RGBA8888
            image = QImage(drawing.pixels.data, width, height, 4 * width, kind)
            # Copies the pixels.
            self._pixmap = QPixmap.fromImage(image)
        self.cursor_line.color = QColor(color)
        self.update()
        self._place_cursor()

    def set_index(self, index: int | None) -> None:
        """Move the cursor to a layer; None hides it."""
        if index != self.index:
            self.index = index
            self._place_cursor()

    def layer_at(self, x: float) -> int | None:
        """Return the index of the layer nearest to a position in pixels; None without layers."""
        positions = self.drawing.x * self._scale()
        return int(np.abs(positions - x).argmin()) if positions.size else None

    def position_of(self, index: int) -> float:
        """Return the position of a layer in pixels."""
        return float(self.drawing.x[index]) * self._scale()

    def _scale(self) -> float:
        """Return by how much the drawing is stretched until it is drawn at the widget's new size."""
        pixels = self.drawing.pixels
        if pixels is None:
            return 1.0
        return float(self.width() / (pixels.shape[1] / self.devicePixelRatioF()))

    def _place_cursor(self) -> None:
        drawing, index, line = self.drawing, self.index, self.cursor_line
        if index is None or index >= len(drawing.x):
            line.hide()
            return
        top, bottom = round(drawing.top) - RADIUS, round(drawing.bottom)
        x = round(self.position_of(index)) - RADIUS
        y = float(drawing.y[index])
        line.dot = y - top if np.isfinite(y) else None
        if line.height() != bottom - top:
            line.setFixedHeight(max(bottom - top, 1))
        line.move(x, top)
        # The height of the dot can change without a move.
        line.update()
        line.show()

    # -- Events of Qt ------------------------------------------------------------------------------

    def paintEvent(self, event: Any) -> None:
        painter = QPainter(self)
        if self._pixmap.isNull():
            flags = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
            painter.drawText(self.rect(), int(flags), self.message)
            painter.end()
            return
        painter.drawPixmap(self.rect(), self._pixmap)
        if self.hasFocus():
            painter.setPen(self.cursor_line.color)
            painter.setOpacity(0.5)
            painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        painter.end()

    def resizeEvent(self, event: Any) -> None:
        super().resizeEvent(event)
        self._place_cursor()
        self.resized.emit()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self._dragging = True
            self._hover(None)
            self._move_to(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._dragging:
            self._move_to(event)
        else:
            self._hover(self.layer_at(event.position().x()))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self._dragging = False

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self._hover(None)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        step = self._KEYS.get(event.key())
        if step is None:
            # For napari.
            event.ignore()
        else:
            self.stepped.emit(step)

    def _move_to(self, event: QMouseEvent) -> None:
        layer = self.layer_at(event.position().x())
        if layer is not None and layer != self.index:
            self.moved.emit(layer)

    def _hover(self, layer: int | None) -> None:
        if layer != self._hovered:
            self._hovered = layer
            self.hovered.emit(layer)
