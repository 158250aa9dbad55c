"""Runner of background jobs: one at a time, with progress, cancel and a dialog about trust."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import QObject, Signal

from camanim.errors import CamError, Cancelled
from camanim.models import Untrusted
from camanim.progress import Progress
from napari_camanim.work.networks import Networks
from napari_camanim.work.task import Task

Job = Callable[[Progress], Any]


class Runner(QObject):
    """Runs one job at a time in a thread, and repeats it once the user trusts its code.

    Parameters
    ----------
    confirm : callable
        From an `Untrusted` error to whether the user allows its code to run.

    Signals
    -------
    started : ()
    progressed : (str, int, int)
        Stage, done, total.
    failed : (CamError,)
        `Cancelled` after a cancel, or if the code is not trusted.
    finished : ()
        After every job, also after an error.
    """

    started = Signal()
    progressed = Signal(str, int, int)
    failed = Signal(object)
    finished = Signal()

    def __init__(self, confirm: Callable[[Untrusted], bool]) -> None:
        super().__init__()
        self.networks = Networks()
        self.task: Task | None = None
        self._confirm = confirm
        self._job: Job | None = None
        self._on_success: Callable[[Any], None] | None = None
        self._retry: Callable[[], None] | None = None
        self._closed = False

    @property
    def running(self) -> bool:
        """Whether a job is running."""
        return self.task is not None

    def start(self, job: Job, on_success: Callable[[Any], None]) -> None:
        """Start a job unless one is running; `on_success` is called with its result."""
        if self.task is not None:
            return
        self._job, self._on_success = job, on_success
        self.task = Task(job)
        # Methods of this object, to which Qt holds no reference, unlike to lambdas: these would keep the
        # dock alive, as napari keeps the worker.
        self.task.progressed.connect(self.progressed)
        self.task.succeeded.connect(self._on_result)
        self.task.failed.connect(self._on_failure)
        self.task.finished.connect(self._on_finished)
        self.started.emit()
        self.task.start()

    def cancel(self) -> None:
        """Cancel the running job."""
        if self.task is not None:
            self.task.cancel()

    def close(self) -> None:
        """Cancel the running job, discard its result, and release the network."""
        self._closed = True
        self._retry = None
        self.networks.release()
        if self.task is not None:
            # `finished` stays connected, to release a network that the job still loads.
            self.task.cancel()
            self.task.progressed.disconnect(self.progressed)
            self.task.succeeded.disconnect()
            self.task.failed.disconnect()

    def _on_result(self, result: Any) -> None:
        if self._on_success is not None:
            self._on_success(result)

    def _on_failure(self, error: CamError) -> None:
        job, on_success = self._job, self._on_success
        if isinstance(error, Untrusted) and job is not None and on_success is not None:
            # After the end of the task, as the dialog processes events.
            self._retry = partial(self._retry_if_trusted, error, job, on_success)
        else:
            self.failed.emit(error)

    def _retry_if_trusted(
        self, error: Untrusted, job: Job, on_success: Callable[[Any], None]
    ) -> None:
        if not self._confirm(error):
            self.failed.emit(Cancelled(f"Nothing was run: {error.source} is not trusted."))
        elif not self._closed:
            self.start(job, on_success)

    def _on_finished(self) -> None:
        self.task = self._job = self._on_success = None
        if self._closed:
            self.networks.release()
            return
        self.finished.emit()
        retry, self._retry = self._retry, None
        if retry is not None:
            retry()
