"""Forms of settings, made by magicgui from their declarations."""

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

#: Pixels that a label takes at least, so that forms are aligned with each other.
LABEL = 70
#: The largest number that Qt's spin boxes take.
MOST = 2**31 - 1


class SettingsForm:
    """One field for each setting; an empty one stands for the default, or for None.

    Parameters
    ----------
    settings : mapping of str to Setting
        Those whose type has no field, such as a callable, are left out.
    labels : mapping of str to str, optional
        In place of the settings' names.
    hidden : collection of str
        Settings that get no field.
    lines : collection of str
        Settings of any type that are typed, as Python writes them.
    error : type
        What a wrong value raises.

    placeholder : str
        What an empty line shows; by default the setting's default.

    Attributes
    ----------
    native : QWidget
        The form as a widget of Qt.
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
        """The settings that have a field, in their order."""
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
            When a value is of another type than was declared, or out of range.
        """
        values = {}
        for name, setting in self._settings.items():
            value = _value(setting, self._widgets[name])
            if value != setting.default:
                values[name] = setting.checked(value, self._error)
        return values

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Fill in values; names without a field are passed over."""
        for name, value in values.items():
            if name in self._widgets:
                self._widgets[name].value = _shown(self._settings[name], value)

    def reset(self) -> None:
        """Fill in the defaults."""
        self.set_values({name: setting.default for name, setting in self._settings.items()})


class IgnoreWheel(QObject):
    """Lets the wheel scroll the dock instead of changing the field that it passes."""

    def watch(self, parent: QWidget) -> None:
        """Watch the fields within a widget."""
        for kind in (QComboBox, QAbstractSpinBox):
            for field in parent.findChildren(kind):
                field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                field.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ignore the wheel over a field without focus."""
        if event.type() == QEvent.Type.Wheel and not watched.hasFocus():
            event.ignore()
            return True
        return False


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _field(setting: Setting, label: str) -> Field | None:
    """Make the field of a setting; None where its type has none."""
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
            "min": -MOST if low is None else int(low),
            "max": MOST if high is None else int(min(high, MOST)),
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
    """Keep long choices from widening the dock."""
    box = (
        widget.native
        if isinstance(widget.native, QComboBox)
        else widget.native.findChild(QComboBox)
    )
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)


def _shown(setting: Setting, value: Any) -> Any:
    """Return what a field shows for a value: of a line its text, which is empty for the default."""
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
    """Read a field; a text that is no number stays one, to be refused."""
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
