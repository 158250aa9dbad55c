"""The ybROAD curve: one score per layer, with a cursor at the shown one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import QPointF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

MARGIN = 8
CURSOR, BEST = QColor("#4da3ff"), QColor("#ffb454")


class RoadCurve(QWidget):
    """A small plot of the scores over the layers; a click or drag moves the cursor.

    It knows no viewer: who owns it sets `set_scores` and `set_index`, and listens to `moved`.

    Signals
    -------
    moved : (int,)
        The layer at which the user points.
    """

    moved = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scores = np.empty(0)
        self._index: int | None = None
        self._best: int | None = None
        self.setMinimumHeight(70)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip("ROAD score of every layer (ybROAD); click to go there.")

    def sizeHint(self) -> QSize:
        return QSize(260, 90)

    def set_scores(self, scores: Sequence[float]) -> None:
        """Show these scores, NaN where a layer has none."""
        self._scores = np.asarray(scores, float)
        known = ~np.isnan(self._scores)
        self._best = int(np.nanargmax(self._scores)) if known.any() else None
        self.update()

    def set_index(self, index: int | None) -> None:
        """Put the cursor at a layer; None takes it away."""
        self._index = index
        self.update()

    def _place(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the points' coordinates in pixels, and the height of score 0."""
        width, height = self.width() - 2 * MARGIN, self.height() - 2 * MARGIN
        # Zero is always on the plot: what lies below it speaks against the map.
        low = min(0.0, float(np.nanmin(self._scores)))
        high = max(0.0, float(np.nanmax(self._scores)))
        span = (high - low) or 1.0
        x = MARGIN + width * np.arange(len(self._scores)) / max(len(self._scores) - 1, 1)
        y = MARGIN + height * (high - self._scores) / span
        return x, y, MARGIN + height * high / span

    def paintEvent(self, event: QPaintEvent) -> None:
        if self._best is None:
            return
        x, y, zero = self._place()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        palette = self.palette()
        text = palette.color(QPalette.ColorRole.WindowText)
        faint = QPen(text, 1, Qt.PenStyle.DotLine)
        painter.setPen(faint)
        painter.drawLine(QPointF(MARGIN, zero), QPointF(self.width() - MARGIN, zero))
        painter.setPen(QPen(text, 1.5))
        for piece in _pieces(x, y):
            painter.drawPolyline(piece)
        if self._index is not None and self._index < len(x):
            here = x[self._index]
            painter.setPen(QPen(CURSOR, 2))
            painter.drawLine(QPointF(here, MARGIN), QPointF(here, self.height() - MARGIN))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(BEST)
        painter.drawEllipse(QPointF(x[self._best], y[self._best]), 4, 4)
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._point_at(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self._point_at(event)

    def _point_at(self, event: QMouseEvent) -> None:
        if self._best is not None:
            x, _, _ = self._place()
            self.moved.emit(int(np.abs(x - event.position().x()).argmin()))


def _pieces(x: np.ndarray, y: np.ndarray) -> list[QPolygonF]:
    """Split a curve where it has no values."""
    pieces: list[list[QPointF]] = [[]]
    for px, py in zip(x, y, strict=True):
        if np.isnan(py):
            pieces.append([])
        else:
            pieces[-1].append(QPointF(px, py))
    return [QPolygonF(piece) for piece in pieces if piece]
