"""The field for the method, and the form of its options."""

from __future__ import annotations

from html import escape
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QLabel, QVBoxLayout, QWidget
from superqt import QSearchableComboBox

import camanim
from camanim.cam_methods import Method
from camanim.errors import MethodError
from napari_camanim.dock.classes import first_listed
from napari_camanim.dock.settings_form import SettingsForm


class MethodField(QSearchableComboBox):
    """Lists the methods; other classes can be entered as ``package.module:Class``."""

    def __init__(self) -> None:
        super().__init__()
        self._methods = camanim.methods()
        for row, method in enumerate(self._methods.values()):
            self.addItem(method.name)
            self.setItemData(row, description(method), Qt.ItemDataRole.ToolTipRole)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self.lineEdit().editingFinished.connect(self.complete_text)
        self.currentTextChanged.connect(self._set_tooltip)
        self._set_tooltip()

    def method(self) -> Method | None:
        """Return the chosen method; None if it is not listed."""
        return self._methods.get(self.currentText())

    def complete_text(self) -> None:
        """Choose the method of this name, or the first that the list shows; keep other texts."""
        text = self.currentText().strip()
        exact = self.findText(text, Qt.MatchFlag.MatchFixedString)
        match = exact if exact >= 0 else first_listed(self, text)
        if match >= 0 and self.method() is None:
            self.setCurrentIndex(match)
            self.setEditText(self.itemText(match))

    def _set_tooltip(self) -> None:
        method = self.method()
        self.setToolTip("Method that computes the maps." if method is None else description(method))


def description(method: Method) -> str:
    """Return summary, caveat, cost and paper of a method as rich text."""
    specific = "Class-specific." if method.class_specific else "Not class-specific."
    lines = [
        f"<b>{escape(method.name)}</b>: {escape(method.summary)}",
        escape(method.caveat),
        f"{specific} Cost: {escape(method.cost)}.",
        f"<i>{escape(method.paper)}</i>",
    ]
    # Qt wraps rich text only.
    return "".join(f"<p>{line}</p>" for line in lines)


class OptionsForm(QWidget):
    """Form of the options of a method."""

    def __init__(self) -> None:
        super().__init__()
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self.form = SettingsForm({})
        self._title = heading("")
        self._box.addWidget(self._title)
        self._box.addWidget(self.form.native)
        self.set_method(None)

    def set_method(self, method: Method | None) -> None:
        """Show the fields of a method; hide the form if it has no options."""
        previous = self.form.native
        options = {} if method is None else method.options
        self.form = SettingsForm(options, error=MethodError)
        self._box.replaceWidget(previous, self.form.native)
        previous.deleteLater()
        self._title.setText("" if method is None else f"<b>{escape(method.name)}</b>")
        self.setVisible(len(self.form) > 0)

    def values(self) -> dict[str, Any]:
        """Return the options that differ from their defaults.

        Raises
        ------
        MethodError
            If a value is invalid.
        """
        return self.form.values()


def heading(text: str) -> QLabel:
    """Return a heading for a group of fields."""
    return QLabel(f"<b>{escape(text)}</b>")
