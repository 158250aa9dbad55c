"""The field of methods, each with what is known about it, and the form of the chosen one's options."""

from __future__ import annotations

import ast
from html import escape
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QLabel, QLineEdit, QSpinBox, QWidget
from superqt import QSearchableComboBox

import camanim
from camanim.cam_methods import Method
from camanim.declarations import Setting

#: The largest number that Qt's spin boxes take.
_MOST = 2**31 - 1


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
    """One field for each option of a method; an empty one stands for the default, or for None."""

    def __init__(self) -> None:
        super().__init__()
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._options: dict[str, Setting] = {}
        self.fields: dict[str, QWidget] = {}
        self.show_for(None)

    def show_for(self, method: Method | None) -> None:
        """Show the fields of a method; nothing for one without options."""
        while self._form.rowCount():
            self._form.removeRow(0)
        self._options = {} if method is None else dict(method.options)
        self.fields = {name: _field(option) for name, option in self._options.items()}
        if method is not None and self.fields:
            self._form.addRow(heading(method.name))
        for name, widget in self.fields.items():
            widget.setToolTip(self._options[name].help)
            self._form.addRow(name.replace("_", " ").capitalize(), widget)
        self.setVisible(bool(self.fields))

    def values(self) -> dict[str, Any]:
        """Return what differs from the defaults; a text that is no number stays one, to be refused."""
        values = {name: _value(self._options[name], w) for name, w in self.fields.items()}
        return {name: v for name, v in values.items() if v != self._options[name].default}


def heading(text: str) -> QLabel:
    """Make the line above a group of fields."""
    return QLabel(f"<b>{escape(text)}</b>")


def _field(option: Setting) -> QWidget:
    if option.kind is bool and not option.optional:
        box = QCheckBox()
        box.setChecked(bool(option.default))
        return box
    if option.choices:
        choices = QComboBox()
        choices.addItems([""] * option.optional + list(option.choices))
        choices.setCurrentText(option.default or "")
        return choices
    if option.kind is int and not option.optional:
        number = QSpinBox()
        number.setRange(-_MOST if option.range.low is None else int(option.range.low), _MOST)
        number.setValue(option.default)
        return number
    line = QLineEdit()
    line.setPlaceholderText("none" if option.default is None else str(option.default))
    return line


def _value(option: Setting, widget: QWidget) -> Any:
    if isinstance(widget, QCheckBox):
        return widget.isChecked()
    if isinstance(widget, QSpinBox):
        return widget.value()
    if isinstance(widget, QComboBox):
        return widget.currentText() or None
    text = widget.text().strip()
    if not text or option.kind is str:
        return text or option.default
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
