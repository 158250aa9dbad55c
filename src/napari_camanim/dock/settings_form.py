"""Forms of settings, generated from their declarations with widgets of magicgui."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Mapping
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit, SpinBox
from magicgui.widgets.bases import ValueWidget
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QSizePolicy,
    QWidget,
)

from camanim.declarations import Setting
from camanim.errors import CamError, SettingError

#: A field of any type.
Field = ValueWidget[Any]

#: Minimum width of labels in pixels, which aligns the forms.
LABEL = 70
#: The largest value of Qt's spin boxes.
MAX_INT = 2**31 - 1


class SettingsForm:
    """A form with one field for each setting; an empty field stands for the default.

    Parameters
    ----------
    settings : mapping of str to Setting
        Settings of types without a field, such as callables, are omitted.
    labels : mapping of str to str, optional
        Labels that replace the names of settings.
    hidden : collection of str
        Settings without a field.
    lines : collection of str
        Settings that are entered as Python literals in a line.
    error : type
        Class of the error for an invalid value.
    placeholder : str
        Placeholder of empty lines; by default the default value.

    Attributes
    ----------
    native : QWidget
        The widget.
    """

    def __init__(
        self,
        settings: Mapping[str, Setting],
        labels: Mapping[str, str] | None = None,
        hidden: Collection[str] = (),
        lines: Collection[str] = (),
        error: type[CamError] = SettingError,
        placeholder: str = "",
    ) -> None:
        self._error = error
        labels = labels or {}
        self._settings: dict[str, Setting] = {}
        widgets: dict[str, Field] = {}
        for name, setting in settings.items():
            label = labels.get(name, _label(name))
            widget = None
            if name in lines:
                widget = _line(setting, label)
            elif name not in hidden:
                widget = _field(setting, label)
            if widget is not None:
                self._settings[name], widgets[name] = setting, widget
        self._widgets = widgets
        self.native = QWidget()
        form = QFormLayout(self.native)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for widget in widgets.values():
            widget.native.setToolTip(widget.tooltip)
            if isinstance(widget, CheckBox):
                form.addRow(widget.native)
                continue
            label = QLabel(widget.label)
            label.setMinimumWidth(LABEL)
            form.addRow(label, widget.native)
            if isinstance(widget, LineEdit) and placeholder:
                widget.native.setPlaceholderText(placeholder)
        self._wheel = IgnoreWheel()
        self._wheel.watch(self.native)

    def __getitem__(self, name: str) -> Field:
        return self._widgets[name]

    def __len__(self) -> int:
        return len(self._widgets)

    @property
    def names(self) -> list[str]:
        """Names of the settings with a field."""
        return list(self._widgets)

    def connect(self, slot: Callable[[], Any]) -> None:
        """Call a function whenever a field changes."""
        for widget in self._widgets.values():
            widget.changed.connect(lambda *_: slot())

    def values(self) -> dict[str, Any]:
        """Return the values that differ from their defaults.

        Raises
        ------
        CamError
            If a value is of another type or out of range.
        """
        values = {}
        for name, setting in self._settings.items():
            value = _value(setting, self._widgets[name])
            if value != setting.default:
                values[name] = setting.checked(value, self._error)
        return values

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Set the values of fields; names without a field are ignored."""
        for name, value in values.items():
            if name in self._widgets:
                self._widgets[name].value = _shown(self._settings[name], value)

    def reset(self) -> None:
        """Set all fields to their defaults."""
        self.set_values({name: setting.default for name, setting in self._settings.items()})


class IgnoreWheel(QObject):
    """Event filter that scrolls the dock instead of changing a field below the mouse wheel."""

    def watch(self, parent: QWidget) -> None:
        """Install the filter for all fields within a widget."""
        for kind in (QComboBox, QAbstractSpinBox):
            for field in parent.findChildren(kind):
                field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                field.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ignore wheel events of a field without focus."""
        if event.type() == QEvent.Type.Wheel and not watched.hasFocus():
            event.ignore()
            return True
        return False


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _field(setting: Setting, label: str) -> Field | None:
    """Return the field of a setting; None if its type has no field."""
    options: dict[str, Any] = {"name": setting.name, "label": label, "tooltip": setting.help}
    low, high = setting.range.low, setting.range.high
    if setting.count is None and setting.kind is bool and not setting.optional:
        return CheckBox(value=bool(setting.default), text=label, **{**options, "label": ""})
    if setting.choices:
        choices = [*([""] if setting.optional else []), *setting.choices]
        widget = ComboBox(value=setting.default or choices[0], choices=choices, **options)
        _narrow(widget)
        return widget
    if setting.count is None and not setting.optional and setting.kind is int:
        options |= {
            "min": -MAX_INT if low is None else int(low),
            "max": MAX_INT if high is None else int(min(high, MAX_INT)),
        }
        return SpinBox(value=setting.default, **options)
    if (
        setting.count is None
        and not setting.optional
        and setting.kind is float
        and high is not None
    ):
        return FloatSpinBox(value=setting.default, min=low or 0.0, max=high, step=0.05, **options)
    return _line(setting, label) if setting.kind in (int, float, str) else None


def _line(setting: Setting, label: str) -> Field:
    line = LineEdit(value="", name=setting.name, label=label, tooltip=setting.help)
    line.native.setPlaceholderText("none" if setting.default is None else str(setting.default))
    return line


def _narrow(widget: ComboBox) -> None:
    """Limit the width of a combo box, as long choices would widen the dock."""
    box = (
        widget.native
        if isinstance(widget.native, QComboBox)
        else widget.native.findChild(QComboBox)
    )
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)


def _shown(setting: Setting, value: Any) -> Any:
    """Return the value of the field's widget; for a line its text, which is empty for the default."""
    if setting.choices:
        return value or ""
    is_line = setting.optional or setting.count is not None or setting.kind is str
    is_line |= setting.kind is float and setting.range.high is None
    if not is_line or setting.kind is bool:
        return value
    if value is None or value == setting.default:
        return ""
    return ", ".join(map(str, value)) if setting.count is not None else str(value)


def _value(setting: Setting, widget: Field) -> Any:
    """Return the value of a field; invalid literals are returned as text and fail the later check."""
    if not isinstance(widget, LineEdit):
        return widget.value or None if isinstance(widget, ComboBox) else widget.value
    text = widget.value.strip()
    if not text:
        return setting.default
    if setting.count is None and setting.kind is str:
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    single = setting.count is not None and not isinstance(value, tuple)
    return (value,) if single else value
