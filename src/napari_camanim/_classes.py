"""The field of what is explained: a class, several, or one against another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox
from superqt import QSearchableComboBox

if TYPE_CHECKING:
    from camanim.models import Prediction

#: The first entry: what is explained when nothing is chosen.
LIKELIEST = "likeliest class"

_NAME = Qt.ItemDataRole.UserRole + 1
#: What stands between the sides of a contrast, as `camanim.targets.resolve` reads it.
_AGAINST = re.compile(r"( - | vs\.? )")


class ClassField(QSearchableComboBox):
    """Lists the classes that Predict found; takes ``A - B`` and ``A; B`` too."""

    def __init__(self) -> None:
        super().__init__()
        self.forget()
        self.lineEdit().editingFinished.connect(self.settle)
        # Long names must not widen the dock.
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(10)

    def forget(self) -> None:
        """List no class."""
        self.clear()
        self.addItem(LIKELIEST, None)

    def offer(self, predictions: Sequence[Prediction], names: Sequence[str] | None) -> None:
        """List the likeliest classes, and the others after them."""
        self.forget()
        for p in predictions:
            self._add(f"{p.name}  {p.probability:.3f}", p.index, p.name)
        likely = {p.index for p in predictions}
        for index, name in enumerate(names or ()):
            if index not in likely:
                self._add(name, index, name)

    def _add(self, text: str, index: int, name: str) -> None:
        self.addItem(text, index)
        self.setItemData(self.count() - 1, name, _NAME)

    def settle(self) -> None:
        """Let what was typed be the item it begins, so that the field shows what will be explained."""
        text, row = self.currentText().strip(), self.currentIndex()
        if text == self.itemText(row) or self._is_free(text):
            return
        found = self.findText(text, Qt.MatchFlag.MatchStartsWith)
        self.setCurrentIndex(found if text and found >= 0 else row)
        self.setEditText(self.itemText(self.currentIndex()))

    def _is_free(self, text: str) -> bool:
        """Whether a text is for the network to understand: several classes, or none are listed yet."""
        several = ";" in text or _AGAINST.search(text) is not None
        unlisted = self.count() == 1 and text != "" and not LIKELIEST.startswith(text)
        return several or unlisted or re.fullmatch(r"-?\d+", text) is not None

    def requests(self) -> list[Any]:
        """Return what is to be explained, one for each stack; see `camanim.targets.resolve`."""
        text, row = self.currentText().strip(), self.currentIndex()
        if text == self.itemText(row):
            return [self.itemData(row)]
        parts = [part.strip() for part in text.split(";")]
        return [self._request(part) for part in parts if part] or [None]

    def _request(self, text: str) -> Any:
        row = self._row(text)
        if row >= 0:
            return self.itemData(row)
        return "".join(self._name(side) for side in _AGAINST.split(text))

    def _name(self, side: str) -> str:
        """Take the name out of a listed class, whose text also tells how likely it is."""
        row = self._row(side.strip())
        name = None if row < 0 else self.itemData(row, _NAME)
        return side if name is None else str(name)

    def _row(self, text: str) -> int:
        row: int = self.findText(text, Qt.MatchFlag.MatchFixedString)
        return row
