"""The dock while something runs: progress, cancel, one sentence for what went wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from napari.utils.notifications import show_error

from camanim.errors import CamError, Cancelled
from camanim.models import Untrusted
from camanim.progress import Progress
from napari_camanim._form import Form
from napari_camanim._networks import Networks, ask_trust
from napari_camanim._worker import Task

Job = Callable[[Progress], Any]


class RunningForm(Form):
    """The form, with one job at a time in a thread, which is asked again once its code is trusted."""

    def __init__(self) -> None:
        super().__init__()
        self.networks = Networks()
        self._task: Task | None = None
        self._repeat: Callable[[], None] | None = None
        self._left = False

    def _start(self, job: Job, on_success: Callable[[Any], None]) -> None:
        if self._task is not None:
            return
        self._task = Task(job)
        self._task.progressed.connect(self._on_progress)
        self._task.succeeded.connect(on_success)
        self._task.failed.connect(lambda error: self._on_failure(error, job, on_success))
        self._task.finished.connect(self._on_finished)
        self.predict_button.setEnabled(False)
        self.export_button.setEnabled(False)
        self.advanced.save_button.setEnabled(False)
        self.run_button.setText("Cancel")
        self._say("")
        self._task.start()

    def _on_progress(self, stage: str, done: int, total: int) -> None:
        if self.run_button.isEnabled():
            share = f" {100 * done // total} %" if total else "…"
            self.run_button.setText(f"Cancel ({stage}{share})")

    def _on_failure(self, error: CamError, job: Job, on_success: Callable[[Any], None]) -> None:
        if isinstance(error, Cancelled):
            self._say("Cancelled.")
        elif isinstance(error, Untrusted):
            # ModelSpec when the task has ended, as the dialog lets events through.
            self._repeat = partial(self._ask_and_repeat, error, job, on_success)
        else:
            self._say(str(error), error=True)

    def _ask_and_repeat(
        self, error: Untrusted, job: Job, on_success: Callable[[Any], None]
    ) -> None:
        if not ask_trust(self, error):
            self._say(f"Nothing was run: {error.source} is not trusted.")
        elif not self._left:
            self._start(job, on_success)

    def _on_finished(self) -> None:
        self._task = None
        if self._left:
            self.networks.forget()
            return
        self.run_button.setText("Run")
        self.run_button.setEnabled(True)
        self.predict_button.setEnabled(True)
        self.advanced.save_button.setEnabled(True)
        self.on_end()
        repeat, self._repeat = self._repeat, None
        if repeat is not None:
            repeat()

    def _say(self, text: str, *, error: bool = False) -> None:
        self.message.setText(text)
        if error:
            show_error(text)

    def on_end(self) -> None:
        """Bring up to date what was locked during a run."""

    def stop(self) -> None:
        """Cancel what runs, await no result of it, and let the network go."""
        self._left = True
        self.networks.forget()
        if self._task is not None:
            # Its end is still awaited, its result no more.
            self._task.cancel()
            self._task.succeeded.disconnect()
            self._task.failed.disconnect()
