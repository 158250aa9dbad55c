"""Shows how an edit changes the probabilities: one row for each class, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.theme import get_theme
from qtpy.QtCore import QRect, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPalette
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from camanim.editing import Effect

#: Classes that are shown.
ROWS = 5
#: Parts of the width for the name and the bar; the rest is for the values.
NAME, BAR = 0.38, 0.22


class EffectView(QWidget):
    """Bars of the target and of the likeliest classes; the line in each bar is the value before.

    Parameters
    ----------
    viewer : napari viewer
        Its theme has the colour of the bars.

    Attributes
    ----------
    rows : list of (str, float, float, bool)
        Name, value before and after, and whether it is the target.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self.rows: list[tuple[str, float, float, bool]] = []
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def set_effect(self, effect: Effect | None) -> None:
        """Show an effect; None for none."""
        self.rows = [] if effect is None else _rows(effect)
        self.setToolTip("" if effect is None else "Filled: after the edit. Line: before it.")
        self.setAccessibleName("" if effect is None else effect.summary())
        self.setFixedHeight(self.sizeHint().height())
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(120, len(self.rows) * self._row_height())

    def _row_height(self) -> int:
        return int(self.fontMetrics().height()) + 6

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        filled, track = QColor(get_theme(self._viewer.theme).current.as_hex()), QColor(text)
        track.setAlphaF(0.15)
        largest = max((abs(v) for row in self.rows for v in row[1:3]), default=1.0)
        # Probabilities fill the bar at 1.
        largest = max(1.0, largest)
        height, width = self._row_height(), self.width()
        name_width, bar_width = int(NAME * width), int(BAR * width)
        for i, (name, before, after, is_target) in enumerate(self.rows):
            y = i * height
            font = painter.font()
            font.setBold(is_target)
            painter.setFont(font)
            painter.setPen(text)
            shown = painter.fontMetrics().elidedText(
                name, Qt.TextElideMode.ElideRight, name_width - 6
            )
            middle = Qt.AlignmentFlag.AlignVCenter
            painter.drawText(QRect(0, y, name_width - 6, height), middle, shown)
            bar = QRectF(name_width, y + 4, bar_width, height - 8)
            painter.fillRect(bar, track)
            share = abs(after) / largest
            painter.fillRect(QRectF(bar.x(), bar.y(), bar.width() * share, bar.height()), filled)
            mark = bar.x() + (bar.width() - 2) * abs(before) / largest
            painter.fillRect(QRectF(mark, bar.y() - 2, 2, bar.height() + 4), text)
            font.setBold(False)
            painter.setFont(font)
            left = name_width + bar_width + 6
            values = QRect(left, y, width - left, height)
            painter.drawText(
                values, middle | Qt.AlignmentFlag.AlignRight, f"{_short(before)} → {_short(after)}"
            )


def _rows(effect: Effect) -> list[tuple[str, float, float, bool]]:
    """Return the target, and the likeliest classes before or after."""
    targets = [each for each in effect.classes if each.name == effect.target]
    rows = [(effect.target, effect.before, effect.after, True)]
    if targets and effect.measure != "probability":
        # In the same unit as the others.
        rows = [(targets[0].name, targets[0].before, targets[0].after, True)]
    others = [each for each in effect.classes if each not in targets]
    if effect.measure != "value":
        others.sort(key=lambda each: max(each.before, each.after), reverse=True)
    rows += [(each.name, each.before, each.after, False) for each in others]
    return rows[:ROWS]


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.3g}"
