"""Forms of settings: magicgui fields made from the engine's declarations."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit, SpinBox
from magicgui.widgets.bases import ValueWidget
from qtpy.QtWidgets import QComboBox

from camanim.declarations import Setting
from camanim.errors import CamError, SettingError
from napari_camanim.dock.form import Form
from napari_camanim.dock.search_field import narrow

#: A field of any type.
Field = ValueWidget[Any]

#: The largest value of Qt's spin boxes.
MAX_INT = 2**31 - 1


class LiteralEdit(LineEdit):
    """A line with a Python literal, such as ``0.1`` or ``20, 80``; an empty line is the default.

    Parameters
    ----------
    setting : Setting
    placeholder : str
        Shown in the empty line; by default the default value.
    **kwargs
        Of magicgui's widgets.
    """

    def __init__(self, setting: Setting, placeholder: str = "", **kwargs: Any) -> None:
        super().__init__(value="", **kwargs)
        self._setting = setting
        default = "none" if setting.default is None else str(setting.default)
        self.native.setPlaceholderText(placeholder or default)

    def literal(self) -> Any:
        """Return the value; invalid literals are returned as text, and fail the later check."""
        setting, text = self._setting, self.value.strip()
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

    def set_literal(self, value: Any) -> None:
        """Show a value; the default as an empty line."""
        if value is None or value == self._setting.default:
            self.value = ""
        else:
            is_sequence = self._setting.count is not None
            self.value = ", ".join(map(str, value)) if is_sequence else str(value)


class SettingsForm(Form):
    """A form with one field for each setting.

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
        self._settings: dict[str, Setting] = {}
        fields = []
        for name, setting in settings.items():
            label = (labels or {}).get(name, name.replace("_", " ").capitalize())
            options = {"name": name, "label": label, "tooltip": setting.help}
            field: Field | None = None
            if name in lines:
                field = LiteralEdit(setting, placeholder, **options)
            elif name not in hidden:
                field = _field(setting, placeholder, options)
            if field is not None:
                self._settings[name] = setting
                fields.append(field)
        super().__init__(fields)

    @property
    def names(self) -> list[str]:
        """Names of the settings with a field."""
        return list(self._settings)

    def values(self) -> dict[str, Any]:
        """Return the values that differ from their defaults.

        Raises
        ------
        CamError
            If a value is of another type or out of range.
        """
        values = {}
        for name, setting in self._settings.items():
            field: Any = self[name]
            value = field.literal() if isinstance(field, LiteralEdit) else field.value
            if value != setting.default:
                values[name] = setting.checked(value, self._error)
        return values

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Set the values of fields; names without a field are ignored."""
        for name, value in values.items():
            if name in self._settings:
                field: Any = self[name]
                if isinstance(field, LiteralEdit):
                    field.set_literal(value)
                else:
                    field.value = value

    def restore(self, values: Any) -> None:
        """Set values of an earlier session, except those that the fields do not have."""
        for name, value in (values if isinstance(values, Mapping) else {}).items():
            try:
                if name in self._settings:
                    self.set_values({name: self._settings[name].checked(value, self._error)})
            except (CamError, ValueError):
                # The file was written by another version, or edited.
                continue

    def reset(self) -> None:
        """Set all fields to their defaults."""
        self.set_values({name: setting.default for name, setting in self._settings.items()})


def _field(setting: Setting, placeholder: str, options: dict[str, Any]) -> Field | None:
    """Return the field of a setting; None if its type has no field."""
    low, high = setting.range.low, setting.range.high
    single = setting.count is None and not setting.optional
    if setting.kind is bool and single:
        return CheckBox(
            value=bool(setting.default), text=options["label"], **options | {"label": ""}
        )
    if setting.choices:
        field = ComboBox(choices=setting.choices, nullable=setting.optional, **options)
        field.value = setting.default
        for box in _boxes(field):
            narrow(box, 8)
        return field
    if setting.kind is int and single:
        lowest = -MAX_INT if low is None else int(low)
        highest = MAX_INT if high is None else int(min(high, MAX_INT))
        return SpinBox(value=setting.default, min=lowest, max=highest, **options)
    if setting.kind is float and single and high is not None:
        low = low or 0.0
        # Twenty steps over the range, of a round size.
        step = float(f"{(high - low) / 20:.0e}")
        return FloatSpinBox(value=setting.default, min=low, max=high, step=step, **options)
    if setting.kind in (int, float, str):
        return LiteralEdit(setting, placeholder, **options)
    return None


def _boxes(field: ComboBox) -> Iterable[QComboBox]:
    native = field.native
    return [native] if isinstance(native, QComboBox) else native.findChildren(QComboBox)
