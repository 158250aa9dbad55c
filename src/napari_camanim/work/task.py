"""Computations of the engine in a thread, with progress, cancel and errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal

from camanim.errors import CamError, Cancelled, OutOfMemory
from camanim.progress import Progress
from napari_camanim.work.collection import exclude_existing, release_device_memory
from napari_camanim.work.imports import import_engine

#: Seconds between two reports of progress; more reports would slow the run.
INTERVAL = 0.1


@dataclass(frozen=True)
class Outcome:
    """The result of a job, or its error."""

    result: Any = None
    error: CamError | None = None


class Task(QObject):
    """One job in a thread worker of napari.

    After `cancel`, or when napari quits, the progress callback raises `Cancelled`; the job can return
    a partial result.

    Parameters
    ----------
    job : callable
        ``job(progress) -> result``, run in the thread.

    Signals
    -------
    progressed : (str, int, int)
        Stage, done, total; in the main thread.
    succeeded : (object,)
        The result.
    failed : (CamError,)
    finished : ()
        Last signal of every job.
    """

    progressed = Signal(str, int, int)
    succeeded = Signal(object)
    failed = Signal(object)
    finished = Signal()

    def __init__(self, job: Callable[[Progress], Any]) -> None:
        super().__init__()
        self._job: Callable[[Progress], Any] | None = job
        self._cancel = threading.Event()
        self._ended = False
        self._last: tuple[str, float] = ("", 0.0)
        self._worker = create_worker(self._work)
        self._worker.returned.connect(self._deliver)
        self._worker.errored.connect(self._break)
        self._worker.finished.connect(self._end)

    def start(self) -> None:
        """Start the thread."""
        self._worker.start()

    def cancel(self) -> None:
        """Raise `Cancelled` at the next report of progress."""
        self._cancel.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancel.is_set()

    @property
    def ended(self) -> bool:
        """Whether the last signal was emitted, or is being emitted."""
        return self._ended

    def _work(self) -> Outcome:
        assert self._job is not None
        exclude_existing()
        try:
            self._report("import", 0, 0)
            import_engine()
            return Outcome(self._job(self._report))
        except CamError as error:
            return Outcome(error=_without_frames(error))
        except (MemoryError, RuntimeError, SystemExit) as error:
            # torch.OutOfMemoryError is a RuntimeError, compared by name without importing torch.
            if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
                return Outcome(error=OutOfMemory("There is not enough memory for this run."))
            # napari discards a RuntimeError, and a SystemExit would end the thread without a signal.
            raise _unexpected(error) from error
        finally:
            # napari keeps the worker in its list of tasks, and with it this object, until it is closed.
            self._job = None
            release_device_memory()
            exclude_existing()

    def _report(self, stage: str, done: int, total: int) -> None:
        """Receive a report in the thread; emit it unless the last one was within `INTERVAL`."""
        if self._cancel.is_set() or self._worker.abort_requested:
            raise Cancelled("The run was cancelled.")
        now = time.monotonic()
        is_last = done == total > 0
        if stage != self._last[0] or now - self._last[1] > INTERVAL or is_last:
            self._last = (stage, now)
            self.progressed.emit(stage, done, total)

    def _deliver(self, outcome: Outcome) -> None:
        if outcome.error is None:
            self.succeeded.emit(outcome.result)
        else:
            self.failed.emit(outcome.error)

    def _break(self, error: Exception) -> None:
        # napari shows the traceback.
        self.failed.emit(error if isinstance(error, CamError) else _unexpected(error))

    def _end(self) -> None:
        self._ended = True
        self.finished.emit()


def _unexpected(error: BaseException) -> CamError:
    return CamError(f"The run failed with {type(error).__name__}: {error}")


def _without_frames(error: CamError) -> CamError:
    """Remove traceback and causes of an error, as their frames hold references to tensors."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
