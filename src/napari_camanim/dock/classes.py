"""The field for the targets: a class, several classes, or a contrast of two."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox
from superqt import QSearchableComboBox

if TYPE_CHECKING:
    from camanim.models import Prediction

#: The first entry, which is the default.
LIKELIEST = "likeliest class"

_NAME = Qt.ItemDataRole.UserRole + 1
#: Operators of contrasts, as in `camanim.targets.resolve`.
_CONTRAST = re.compile(r"( - | vs\.? )")


def first_listed(field: QSearchableComboBox, text: str) -> int:
    """Return the row that the list of completions shows first; -1 if it is empty."""
    # As the list: in the order of the items, in any case, anywhere in the text.
    row: int = field.findText(text, field.completer().filterMode()) if text else -1
    return row


class ClassField(QSearchableComboBox):
    """Lists the predicted classes; also accepts ``A - B`` and ``A; B``."""

    def __init__(self) -> None:
        super().__init__()
        self.clear_classes()
        self.lineEdit().editingFinished.connect(self.complete_text)
        # Long names must not widen the dock.
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(10)

    def clear_classes(self) -> None:
        """Remove all classes from the list."""
        self.clear()
        self.addItem(LIKELIEST, None)

    def set_classes(self, predictions: Sequence[Prediction], names: Sequence[str] | None) -> None:
        """List the likeliest classes, followed by the others."""
        self.clear_classes()
        for p in predictions:
            self._add(f"{p.name}  {p.probability:.3f}", p.index, p.name)
        likely = {p.index for p in predictions}
        for index, name in enumerate(names or ()):
            if index not in likely:
                self._add(name, index, name)

    def _add(self, text: str, index: int, name: str) -> None:
        self.addItem(text, index)
        self.setItemData(self.count() - 1, name, _NAME)

    def complete_text(self) -> None:
        """Choose the class of this name, or the first that the list shows for the text."""
        text, row = self.currentText().strip(), self.currentIndex()
        if text == self.itemText(row) or self._is_free_text(text):
            return
        exact = self.findData(text, _NAME, Qt.MatchFlag.MatchFixedString)
        match = exact if exact >= 0 else first_listed(self, text)
        # An emptied field shows the default.
        self.setCurrentIndex(match if match >= 0 else row if text else 0)
        self.setEditText(self.itemText(self.currentIndex()))

    def _is_free_text(self, text: str) -> bool:
        """Return whether a text is not one of the items: several classes, a number, or no list yet."""
        several = ";" in text or _CONTRAST.search(text) is not None
        unlisted = self.count() == 1 and text != "" and not LIKELIEST.startswith(text)
        return several or unlisted or re.fullmatch(r"-?\d+", text) is not None

    def requests(self) -> list[Any]:
        """Return the targets, one for each stack; see `camanim.targets.resolve`."""
        text, row = self.currentText().strip(), self.currentIndex()
        if text == self.itemText(row):
            return [self.itemData(row)]
        parts = [part.strip() for part in text.split(";")]
        return [self._request(part) for part in parts if part] or [None]

    def _request(self, text: str) -> Any:
        row = self._row(text)
        if row >= 0:
            return self.itemData(row)
        return "".join(self._name(side) for side in _CONTRAST.split(text))

    def _name(self, side: str) -> str:
        """Return the name of a listed class, whose text also contains its probability."""
        row = self._row(side.strip())
        name = None if row < 0 else self.itemData(row, _NAME)
        return side if name is None else str(name)

    def _row(self, text: str) -> int:
        row: int = self.findText(text, Qt.MatchFlag.MatchFixedString)
        return row
