"""The field for the method."""

from __future__ import annotations

from html import escape
from typing import Any

from qtpy.QtCore import Qt

import camanim
from camanim.cam_methods import Method
from napari_camanim.dock.search_field import SearchField


class MethodField(SearchField):
    """Lists the methods; other classes can be entered as ``package.module:Class``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._methods = camanim.methods()
        self.set_items((name, None) for name in self._methods)
        for row, method in enumerate(self._methods.values()):
            self.box.setItemData(row, description(method), Qt.ItemDataRole.ToolTipRole)
        self.box.currentTextChanged.connect(self._set_tooltip)
        self.value = "GradCAM"
        self._set_tooltip()

    def method(self) -> Method | None:
        """Return the chosen method; None if it is not listed."""
        return self._methods.get(self.value)

    def is_free(self, text: str) -> bool:
        """Return whether a text is kept: one that stands for a class elsewhere."""
        return self.first(text) < 0

    def _set_tooltip(self) -> None:
        method = self.method()
        self.tooltip = "Method that computes the maps." if method is None else description(method)


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
