"""Folding sections of the dock."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QWidget
from superqt import QCollapsible

from napari_camanim.timers import single_shot

ICONS = {"expandedIcon": "▼", "collapsedIcon": "▶"}


class Section(QCollapsible):
    """A folding section of the dock; its content is made when it is first opened.

    Parameters
    ----------
    title, tooltip : str
    make : callable
        Returns the content.
    """

    def __init__(self, title: str, tooltip: str, make: Callable[[], QWidget]) -> None:
        super().__init__(title, **ICONS)
        self._make: Callable[[], QWidget] | None = make
        # After the event, when the layouts within are up to date.
        self._adapting = single_shot(0, self.adapt, self)
        button = self.toggleButton()
        button.setToolTip(tooltip)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        button.setStyleSheet(
            "text-align: left; border: none; background: transparent; padding-left: 0"
        )
        # Without an animation, which would still run when tests take a screenshot.
        self.setDuration(0)
        self.layout().setContentsMargins(0, 0, 0, 0)
        self.content().layout().setContentsMargins(0, 0, 0, 0)
        self.toggled.connect(self._fill)

    def fill(self) -> None:
        """Make the content, unless it was made before."""
        if self._make is not None:
            make, self._make = self._make, None
            widget = make()
            widget.installEventFilter(self)
            self.addWidget(widget)

    def _fill(self, opened: bool) -> None:
        if opened and self._make is not None:
            self.fill()
            self.adapt()

    def adapt(self) -> None:
        """Adapt the height to the content, as `QCollapsible` keeps that of its last expansion."""
        if self.isExpanded():
            self.content().layout().activate()
            self.expand(animate=False)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Adapt the height after fields of the content were shown, hidden or changed."""
        if event.type() == QEvent.Type.LayoutRequest:
            self._adapting.start()
        return bool(super().eventFilter(watched, event))

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.StyleChange:
            # The icons have the colour of the text, which the theme changes.
            self.setExpandedIcon(ICONS["expandedIcon"])
            self.setCollapsedIcon(ICONS["collapsedIcon"])
        super().changeEvent(event)
