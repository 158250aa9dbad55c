"""Runner of background jobs: one at a time, the last one wins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from qtpy.QtCore import QObject, Signal

from camanim.errors import CamError, Cancelled
from camanim.models import Untrusted
from camanim.progress import Progress
from napari_camanim.work.networks import Networks
from napari_camanim.work.task import Task


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes
    ----------
    work : callable
        ``work(progress) -> result``, run in a thread.
    done : callable
        Called with the result, in the main thread.
    kept : bool
        Whether the result of a job that the user cancelled is passed on, such as maps computed so far.
        That of a job that was replaced by another one never is.
    writes : bool
        Whether the job writes a file.
    """

    work: Callable[[Progress], Any]
    done: Callable[[Any], None]
    kept: bool = True
    writes: bool = False


class Runner(QObject):
    """Runs one job at a time in a thread, and repeats it once the user trusts its code.

    Parameters
    ----------
    confirm : callable
        From an `Untrusted` error to whether the user allows its code to run.

    Signals
    -------
    started : ()
        A job starts.
    progressed : (str, int, int)
        Stage, done, total.
    failed : (CamError,)
        `Cancelled` after a cancel, or if the code is not trusted.
    finished : ()
        No job is running any more.
    """

    started = Signal()
    progressed = Signal(str, int, int)
    failed = Signal(object)
    finished = Signal()

    def __init__(self, confirm: Callable[[Untrusted], bool]) -> None:
        super().__init__()
        self.networks = Networks()
        self.confirm = confirm
        self._task: Task | None = None
        self._job: Job | None = None
        self._next: Job | None = None
        self._untrusted: Untrusted | None = None
        #: Whether the running job was replaced by another one.
        self._replaced = False
        self._cancelled = False
        self._closed = False

    @property
    def running(self) -> bool:
        """Whether a job is running."""
        return self._task is not None

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called during the running job."""
        return self._cancelled

    @property
    def writing(self) -> bool:
        """Whether the running job writes a file, and should not be replaced."""
        return self._job is not None and self._job.writes

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def start(self, job: Job) -> None:
        """Start a job; a running job is cancelled first, and a waiting one is dropped."""
        if self._closed:
            return
        if self._task is not None:
            self._next, self._replaced = job, True
            self._task.cancel()
            return
        self._start(job)

    def _start(self, job: Job) -> None:
        self._job, self._replaced, self._cancelled = job, False, False
        self._task = Task(job.work)
        # Methods of this object, to which Qt holds no reference, unlike to lambdas: these would keep the
        # dock alive, as napari keeps the worker.
        self._task.progressed.connect(self.progressed)
        self._task.succeeded.connect(self._on_result)
        self._task.failed.connect(self._on_failure)
        self._task.finished.connect(self._on_finished)
        self._task.start()
        self.started.emit()

    def cancel(self) -> None:
        """Cancel the running job, and drop a waiting one."""
        self._next = None
        if self._task is not None:
            self._cancelled = True
            self._task.cancel()

    def drop(self) -> None:
        """Cancel as `cancel`, as something else is shown instead: nothing is passed on."""
        self._replaced = True
        self.cancel()
        self._cancelled = False

    def close(self) -> None:
        """Cancel the running job and release the network; what was computed is still passed on."""
        if self._closed:
            return
        self._closed = True
        self._untrusted = None
        self.cancel()
        self.networks.release()
        if self._task is not None:
            self._task.progressed.disconnect(self.progressed)

    def _on_result(self, result: Any) -> None:
        job, task = self._job, self._task
        if job is None or task is None or self._replaced:
            return
        if job.kept or not task.cancelled:
            job.done(result)

    def _on_failure(self, error: CamError) -> None:
        if isinstance(error, Untrusted) and not self._closed and self._next is None:
            # After the end of the task, as the dialog processes events.
            self._untrusted = error
        elif not self._closed and not (self._replaced and isinstance(error, Cancelled)):
            self.failed.emit(error)

    def _on_finished(self) -> None:
        job, self._task, self._job = self._job, None, None
        error, self._untrusted = self._untrusted, None
        if self._closed:
            self.networks.release()
            return
        if error is not None and job is not None:
            self._repeat_if_trusted(error, job)
        following, self._next = self._next, None
        if self._task is None and following is not None:
            self._start(following)
        if self._task is None:
            self.finished.emit()

    def _repeat_if_trusted(self, error: Untrusted, job: Job) -> None:
        if not self.confirm(error):
            self.failed.emit(Cancelled(f"Nothing was run: {error.source} is not trusted."))
        elif not self._closed and self._next is None:
            self._start(replace(job))
