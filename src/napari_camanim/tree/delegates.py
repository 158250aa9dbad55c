"""How cells of the layer tree are painted."""

from __future__ import annotations

from qtpy.QtCore import QModelIndex, QRectF, QSize, Qt
from qtpy.QtGui import QPainter, QPalette
from qtpy.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from napari_camanim.tree.model import BAR

#: Width in pixels of a column that also shows the value as text, and of that text.
WITH_TEXT, TEXT = 84, 40
MARGIN = 3


class CheckOutline(QStyledItemDelegate):
    """Paints an outline around check boxes, which dark themes leave invisible where they are empty."""

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex) -> QSize:
        hint = super().sizeHint(option, index)
        # All rows have the height of the first one; a margin between the check boxes.
        return QSize(hint.width(), hint.height() + 4)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        super().paint(painter, option, index)
        if index.data(Qt.ItemDataRole.CheckStateRole) is None:
            return
        complete = QStyleOptionViewItem(option)
        self.initStyleOption(complete, index)
        element = QStyle.SubElement.SE_ItemViewItemCheckIndicator
        box = option.widget.style().subElementRect(element, complete, option.widget)
        color = option.palette.color(QPalette.ColorRole.Text)
        color.setAlpha(110)
        painter.save()
        painter.setPen(color)
        painter.drawRect(box.adjusted(0, 0, -1, -1))
        painter.restore()


class ScoreBar(QStyledItemDelegate):
    """Paints a score as a bar that begins at 0; negative ones extend to the left, and are pale."""

    def initStyleOption(self, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        super().initStyleOption(option, index)
        # The text is painted by `paint`, beside the bar.
        option.text = ""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        # The background, also of a selected row.
        super().paint(painter, option, index)
        bar = index.data(BAR)
        if bar is None:
            return
        value, low, high = bar
        area = QRectF(option.rect).adjusted(MARGIN, MARGIN + 1, -MARGIN, -MARGIN - 1)
        selected = bool(option.state & QStyle.StateFlag.State_Selected)
        role = QPalette.ColorRole.HighlightedText if selected else QPalette.ColorRole.Text
        color = option.palette.color(role)
        painter.save()
        if option.rect.width() >= WITH_TEXT:
            text = QRectF(area)
            text.setLeft(area.right() - TEXT)
            area.setRight(area.right() - TEXT - MARGIN)
            painter.setPen(color)
            align = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            painter.drawText(text, align, str(index.data()))
        span = (high - low) or 1.0
        zero = area.left() + area.width() * (0 - low) / span
        end = area.left() + area.width() * (value - low) / span
        color.setAlpha(170 if value > 0 else 80)
        left, width = min(zero, end), max(abs(end - zero), 1.0)
        painter.fillRect(QRectF(left, area.top(), width, area.height()), color)
        if low < 0:
            color.setAlpha(120)
            painter.fillRect(QRectF(zero, area.top() - 2, 1, area.height() + 4), color)
        painter.restore()
