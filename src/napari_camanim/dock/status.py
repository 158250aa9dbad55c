"""The bottom line of the dock: progress of a job, and messages."""

from __future__ import annotations

import re

from magicgui.widgets import Label, ProgressBar, PushButton
from napari.utils.notifications import show_error
from qtpy.QtCore import Qt

from napari_camanim.canvas.badge import shortened
from napari_camanim.dock.form import Column, fit_width

#: Characters of a line of the dock.
WORD = 32


class Status(Column):
    """One line of progress with a bar, and the last message with an optional button.

    Attributes
    ----------
    text : str
        The whole last message; in the label, names that are longer than a line are shortened.
    running : bool
        Whether progress is shown.
    offer : PushButton
        Button that adds a result without a place; hidden unless there is one.
    """

    def __init__(self) -> None:
        self.running = False
        self.text = ""
        self.bar = ProgressBar(visible=False)
        self.line = Label(visible=False)
        self.message = Label()
        self.offer = PushButton(text="Show the result", visible=False)
        self.offer.tooltip = "Add the maps over a copy of the image as it was explained."
        super().__init__([self.bar, self.line, self.message, self.offer])
        self.message.native.setWordWrap(True)
        fit_width(self.message)
        fit_width(self.line)
        self.message.native.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
            | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.bar.native.setMaximumHeight(6)
        self.bar.native.setTextVisible(False)

    def show_progress(self, words: str, done: int, total: int) -> None:
        """Show the progress of a job; without a total, the bar moves to and fro.

        Nothing changes before `set_running`.
        """
        if not self.running:
            return
        self.line.value = words
        self.bar.native.setRange(0, total)
        self.bar.native.setValue(done)

    def set_running(self, running: bool) -> None:
        """Show or hide the progress."""
        self.running = running
        self.bar.visible = self.line.visible = running
        if running:
            self.show_progress("", 0, 0)

    def show_message(self, text: str, error: bool = False) -> None:
        """Show a message; an error also as a notification, whose text can be copied."""
        self.text = text
        # A label breaks lines between words only, and cuts off what is longer than a line.
        self.message.value = re.sub(r"\S+", lambda word: shortened(word[0], WORD), text)
        self.message.tooltip = text
        if error:
            show_error(text)
