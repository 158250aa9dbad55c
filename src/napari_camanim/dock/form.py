"""A magicgui container whose labels have one width in all parts of the dock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from magicgui.widgets import Container, Label

#: Width of labels in pixels.
LABEL = 78


class Form(Container[Any]):
    """Fields in a column, with labels of equal width on their left.

    Parameters
    ----------
    widgets : sequence of Widget
    """

    def __init__(self, widgets: Sequence[Any]) -> None:
        super().__init__(widgets=widgets)
        self.margins = (0, 0, 0, 0)
        self.native.layout().setSpacing(2)
        for widget in widgets:
            labelled = widget._labeled_widget()
            if labelled is not None:
                labelled.label_width = LABEL
                labelled.native.layout().setSpacing(4)


class Column(Container[Any]):
    """Widgets in a column, or a row, without labels.

    Parameters
    ----------
    widgets : sequence of Widget
    layout : {"vertical", "horizontal"}
    """

    def __init__(self, widgets: Sequence[Any], layout: str = "vertical") -> None:
        super().__init__(widgets=widgets, layout=layout, labels=False)
        self.margins = (0, 0, 0, 0)
        self.native.layout().setSpacing(4)


def heading(text: str) -> Label:
    """Return a heading for a group of fields."""
    return Label(value=f"<b>{text}</b>")


def fit_width(label: Label) -> None:
    """Let a label be as wide as the dock, which a long line must not widen."""
    policy = label.native.sizePolicy()
    policy.setHorizontalPolicy(policy.Policy.Ignored)
    policy.setVerticalPolicy(policy.Policy.Minimum)
    label.native.setSizePolicy(policy)


def show_words(label: Label, words: str) -> None:
    """Show words in a label, which takes no space without any."""
    label.value = words
    label.visible = bool(words)
