"""Filters of Qt's events in the dock."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QWidget


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


class Closing(QObject):
    """Notices that napari closes the dock: by a close event, or by removing its parent.

    Parameters
    ----------
    close : callable
        Called before the widgets are deleted, after each event.
    abandon : callable
        Called when they are deleted already, as by closing napari.
    """

    def __init__(self, close: Callable[[], None], abandon: Callable[[], None]) -> None:
        super().__init__()
        self._close, self._abandon = close, abandon

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Close the dock after its last event."""
        parted = event.type() == QEvent.Type.ParentChange and watched.parent() is None
        if parted or event.type() == QEvent.Type.Close:
            self._close()
        return False

    def abandon(self, *_: object) -> None:
        """Close the dock without its widgets, which are deleted."""
        self._abandon()
