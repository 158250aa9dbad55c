"""Estimates the cost of what the dock would run, in the background."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_camanim.timers import single_shot
from napari_camanim.work.runner import Runner
from napari_camanim.work.task import Task

if TYPE_CHECKING:
    from camanim import Model
    from camanim.progress import Progress
    from napari_camanim.work.request import RunRequest

#: Milliseconds after the last change until the estimate starts.
DELAY = 300


class Estimator(QObject):
    """Estimates the cost of the last request while no job is running.

    Parameters
    ----------
    runner : Runner
        Its network is used; nothing is loaded for an estimate.

    Signals
    -------
    estimated : (str,)
        The cost in words; empty if it is not known.
    """

    estimated = Signal(str)

    def __init__(self, runner: Runner) -> None:
        super().__init__()
        self._runner = runner
        self._request: RunRequest | None = None
        self._task: Task | None = None
        self._delay = single_shot(DELAY, self._start, self)
        runner.started.connect(self.stop)

    def estimate(self, request: RunRequest) -> None:
        """Estimate a request after a short while, unless another one follows."""
        self._request = request
        self._delay.start()

    def stop(self) -> None:
        """Cancel the estimate, as a job needs the network."""
        self._delay.stop()
        if self._task is not None:
            self._task.cancel()

    def close(self) -> None:
        """Cancel the estimate, and drop its result."""
        self.stop()
        if self._task is not None:
            self._task.succeeded.disconnect()

    def _start(self) -> None:
        request = self._request
        if request is None or self._runner.running:
            return
        if self._task is not None:
            self._task.cancel()
            self._delay.start()
            return
        model = self._runner.networks.loaded(request.network)
        if model is None:
            self.estimated.emit("")
            return
        self._task = Task(partial(_estimate, request, model))
        self._task.succeeded.connect(self._on_result)
        self._task.finished.connect(self._on_finished)
        self._task.start()

    def _on_result(self, words: str) -> None:
        self.estimated.emit(words)

    def _on_finished(self) -> None:
        self._task = None


def _estimate(request: RunRequest, model: Model, progress: Progress) -> str:
    from camanim.cost import estimate

    if request.windows is not None:
        # The image is not read as a whole.
        return ""
    shown, preprocessing = request.input_for(model)
    cost = estimate(
        model,
        shown.pixels,
        method=request.method,
        target=request.targets[0],
        findings=[finding for finding in request.findings if not finding.kind.needs_mask],
        **request.settings | preprocessing,
        progress=progress,
    )
    return cost.words
