"""The field of methods, each with what is known about it, and the form of the chosen one's options."""

from __future__ import annotations

from html import escape
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QLabel, QVBoxLayout, QWidget
from superqt import QSearchableComboBox

import camanim
from camanim.cam_methods import Method
from camanim.errors import MethodError
from napari_camanim._settings_form import SettingsForm


class MethodField(QSearchableComboBox):
    """The methods by name; a class of one's own can be typed as ``package.module:Class``."""

    def __init__(self) -> None:
        super().__init__()
        self._methods = camanim.methods()
        for row, method in enumerate(self._methods.values()):
            self.addItem(method.name)
            self.setItemData(row, about(method), Qt.ItemDataRole.ToolTipRole)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self.lineEdit().editingFinished.connect(self.settle)
        self.currentTextChanged.connect(self._explain)
        self._explain()

    def method(self) -> Method | None:
        """Return what is known about the chosen method; None for one that was typed."""
        return self._methods.get(self.currentText())

    def settle(self) -> None:
        """Let what was typed be the method it begins; what begins none is for the engine to find."""
        found = self.findText(self.currentText(), Qt.MatchFlag.MatchStartsWith)
        if self.currentText() and found >= 0 and self.method() is None:
            self.setCurrentIndex(found)
            self.setEditText(self.itemText(found))

    def _explain(self) -> None:
        method = self.method()
        self.setToolTip("How activations become a map." if method is None else about(method))


def about(method: Method) -> str:
    """Say what a method shows, what it cannot say, what it costs and where it comes from."""
    knows = "Knows the class." if method.class_specific else "Does not know the class."
    lines = [
        f"<b>{escape(method.name)}</b>: {escape(method.summary)}",
        escape(method.caveat),
        f"{knows} Cost: {escape(method.cost)}.",
        f"<i>{escape(method.paper)}</i>",
    ]
    # As rich text, which Qt breaks into lines.
    return "".join(f"<p>{line}</p>" for line in lines)


class OptionsForm(QWidget):
    """The options of a method, one field each."""

    def __init__(self) -> None:
        super().__init__()
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self.form = SettingsForm({})
        self._title = heading("")
        self._box.addWidget(self._title)
        self._box.addWidget(self.form.native)
        self.show_for(None)

    def show_for(self, method: Method | None) -> None:
        """Show the fields of a method; nothing for one without options."""
        before = self.form.native
        options = {} if method is None else method.options
        self.form = SettingsForm(options, error=MethodError)
        self._box.replaceWidget(before, self.form.native)
        before.deleteLater()
        self._title.setText("" if method is None else f"<b>{escape(method.name)}</b>")
        self.setVisible(len(self.form) > 0)

    def values(self) -> dict[str, Any]:
        """Return what differs from the defaults.

        Raises
        ------
        MethodError
            When a value is wrong.
        """
        return self.form.values()


def heading(text: str) -> QLabel:
    """Make the line above a group of fields."""
    return QLabel(f"<b>{escape(text)}</b>")
