"""Unwinding of the stack on SIGTERM and SIGHUP, so that temporary files are removed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Terminated(BaseException):
    """Raised by SIGTERM and SIGHUP within `unwound_when_terminated`; never leaves it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def unwound_when_terminated() -> Iterator[None]:
    """Leave the context on SIGTERM and SIGHUP, and then end the process by the same signal.

    Python leaves a context on SIGINT only. Signals that are ignored or handled by the caller stay so;
    other threads than the main one cannot handle signals, and the context has no effect in them.
    """
    handled: list[signal.Signals] = []
    if threading.current_thread() is threading.main_thread():
        # SIGHUP does not exist on Windows.
        numbers = [number for number in signal.Signals if number.name in ("SIGTERM", "SIGHUP")]
        handled = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    received = 0
    try:
        try:
            for number in handled:
                signal.signal(number, _raise_terminated)
            yield
        finally:
            for number in handled:
                signal.signal(number, signal.SIG_DFL)
    except Terminated as error:
        # Of a context further out.
        if not handled:
            raise
        received = error.number
    if received:
        signal.raise_signal(received)


def _raise_terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(number)
