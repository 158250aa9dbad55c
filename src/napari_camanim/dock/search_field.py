"""A magicgui field that completes what is typed from a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from magicgui.backends._qtpy.widgets import QBaseStringWidget
from magicgui.widgets.bases import ValueWidget
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox
from superqt import QSearchableComboBox

#: Data role of the text that stands for an item in a request.
KEY = Qt.ItemDataRole.UserRole + 1


class _Box(QBaseStringWidget):
    """Backend of magicgui for superqt's combo box with a search."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            QSearchableComboBox, "currentText", "setEditText", "currentTextChanged", **kwargs
        )

    def _mgui_set_value(self, value: str) -> None:
        super()._mgui_set_value(value)
        # Of a long text, the beginning is seen.
        self._qwidget.lineEdit().setCursorPosition(0)


class SearchField(ValueWidget[str]):
    """A text field with a list that can be searched; its value is the text.

    Parameters
    ----------
    free : bool
        Whether texts that are not listed are kept.
    **kwargs
        Of magicgui's widgets: name, label, tooltip.
    """

    def __init__(self, *, free: bool = True, **kwargs: Any) -> None:
        super().__init__(widget_type=_Box, **kwargs)
        self._free = free
        # With a button on its right, and a scroll bar, within the width of the dock.
        narrow(self.box, 8)
        self.box.lineEdit().editingFinished.connect(self.complete)

    @property
    def box(self) -> QSearchableComboBox:
        """The combo box."""
        return self.native

    def set_items(self, items: Iterable[tuple[str, Any]]) -> None:
        """Set texts and data of the list, and keep the text."""
        box, text = self.box, self.value
        blocked = box.blockSignals(True)
        box.clear()
        for shown, data in items:
            box.addItem(shown, data)
        box.setEditText(text)
        box.blockSignals(blocked)

    def add_item(self, text: str) -> None:
        """Add a text to the list, unless it is listed."""
        if self.box.findText(text) < 0:
            rows = range(self.box.count())
            items = [(self.box.itemText(row), self.box.itemData(row)) for row in rows]
            self.set_items([*items, (text, None)])

    def row(self, text: str) -> int:
        """Return the row of an item by its text or key, in any case; -1 if it is not listed."""
        row = int(self.box.findText(text, Qt.MatchFlag.MatchFixedString))
        return row if row >= 0 else int(self.box.findData(text, KEY, Qt.MatchFlag.MatchFixedString))

    def first(self, text: str) -> int:
        """Return the row that the list of completions shows first; -1 if it is empty."""
        # As the list: in the order of the items, in any case, anywhere in the text.
        return int(self.box.findText(text, self.box.completer().filterMode())) if text else -1

    def is_free(self, text: str) -> bool:
        """Return whether a text is kept although it is not listed."""
        return self._free

    def complete(self) -> None:
        """Choose the item of the typed text, or the first that the list shows for it."""
        text = self.value.strip()
        row = self.row(text)
        if row < 0 and not self.is_free(text):
            row = self.first(text)
        if row < 0 and not self.is_free(text):
            row = max(self.box.currentIndex(), 0) if text else 0
        if row >= 0 and self.box.itemText(row) != text:
            self.box.setCurrentIndex(row)
            self.box.setEditText(self.box.itemText(row))


def narrow(box: QComboBox, length: int) -> None:
    """Limit the width of a combo box to a number of characters, as long items would widen the dock."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(length)
