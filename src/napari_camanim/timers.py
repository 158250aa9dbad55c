"""Timers of the window."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, QTimer


def single_shot(
    milliseconds: int, slot: Callable[[], object], parent: QObject | None = None
) -> QTimer:
    """Return a timer that calls a function once after each start; another start begins anew.

    Parameters
    ----------
    milliseconds : int
        0 for the end of the current event.
    slot : callable
    parent : QObject, optional
        The timer is deleted with it.
    """
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(slot)
    return timer
