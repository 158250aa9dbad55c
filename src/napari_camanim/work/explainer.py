"""Explains images in the background and shows the results: maps first, then scores."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from camanim.errors import CamError, Cancelled
from camanim.words import duration
from napari_camanim.canvas.badge import Badge
from napari_camanim.layers.metadata import KEY, CamMetadata, metadata
from napari_camanim.layers.placement import picture_placement
from napari_camanim.layers.run import Run
from napari_camanim.layers.views import Region
from napari_camanim.session import Session, unwrapped
from napari_camanim.work import jobs
from napari_camanim.work.jobs import Classes, Explained, Found
from napari_camanim.work.networks import is_stored
from napari_camanim.work.runner import Job, Runner

if TYPE_CHECKING:
    from napari.layers import Image

    from camanim.models import Untrusted
    from camanim.progress import Progress
    from camanim.stack import Normalization
    from napari_camanim.layers.views import Mask
    from napari_camanim.work.request import RunRequest

#: Number of results that are kept, and their memory in bytes.
KEPT, KEPT_BYTES = 64, 2**30

#: Words for stages of the engine; others are shown as they are.
STAGES = {"ROAD": "scores", "import": "starting", "load": "loading the network", "wait": "waiting"}


class Explainer(QObject):
    """Runs requests and shows their results in a session.

    Results are kept, so that a request that was run before, such as for another slice, is shown at once.

    Parameters
    ----------
    session : Session
    runner : Runner

    Signals
    -------
    said : (str, bool)
        A message, and whether it is an error.
    progressed : (str, int, int)
        One line about the progress, done and total.
    shown : (Explained,)
        Maps were added to the viewer.
    listed : (Classes,)
        The likeliest classes were predicted.
    """

    said = Signal(str, bool)
    progressed = Signal(str, int, int)
    shown = Signal(object)
    listed = Signal(object)
    _reported = Signal(object, object)

    def __init__(self, session: Session, runner: Runner) -> None:
        super().__init__()
        self._session = session
        self._runner = runner
        self._kept: OrderedDict[tuple[Any, ...], Explained] = OrderedDict()
        #: Runs whose findings are being computed.
        self._computing: list[Run] = []
        self._began: tuple[str, float] = ("", 0.0)
        #: A result whose image was removed during the run.
        self.unplaced: tuple[Explained, Normalization, dict[str, Any]] | None = None
        self._first_index: int | None = None
        self._abandoned = False
        #: Key of the request whose maps are being computed.
        self.explaining: tuple[Any, ...] | None = None
        runner.failed.connect(self._on_failed)
        runner.finished.connect(self._mark)
        runner.progressed.connect(self._on_progress)
        self._reported.connect(self._on_report)

    # -- Runs --------------------------------------------------------------------------------------

    def run(
        self,
        request: RunRequest,
        image: Image,
        normalization: Normalization = "local",
        into: Image | None = None,
        *,
        signed: bool = False,
    ) -> None:
        """Show the maps of a request, computed or kept from before, and compute its findings.

        Parameters
        ----------
        request : RunRequest
        image : napari.layers.Image
            The image that the request is about.
        normalization : {"local", "global"}
        into : napari.layers.Image, optional
            Stack of the same image that shows the result; by default a new stack is added.
        signed : bool
            Whether a new stack shows negative evidence.
        """
        if self._refuses():
            return
        stack = self._stack_of(request, image) if into is None else None
        kept = self._kept.pop(request.key, None)
        if kept is not None and kept.is_of(request):
            self.drop()
            if stack is not None and not stack.data.animation.cancelled:
                self._kept[request.key] = kept
                self._show_again(stack, request, kept)
                return
            show = partial(self._show, image, normalization, signed, into)
            show(kept.again(request, image, normalization))
            return
        show = partial(self._show, image, normalization, signed, into or stack)
        work = partial(_explain, request, image, normalization, self._runner)
        self.explaining = request.key
        self._start(Job(work, show))

    def _show_again(self, stack: Image, request: RunRequest, kept: Explained) -> None:
        """Show a stack that has the requested maps, and compute findings that it does not have."""
        run: Run = stack.data.run
        run.request = request
        if stack is not self._session.current:
            self._session.show(stack, self._session.index_for(run))
        # The agreement with a mask is that of the mask chosen now; that of a file cannot be had again.
        chosen = request.mask is not None or is_stored(run.animation)
        if not chosen and jobs.drop_mask_findings(run.animation):
            self._session.refresh(stack)
        again = Explained(request, [run], [stack.metadata[KEY]], classes=kept.classes)
        again.checksum = kept.checksum
        self._first_index = None
        self.shown.emit(again)
        self.said.emit(jobs.summary(again), False)
        self._find([again])

    def _stack_of(self, request: RunRequest, image: Image) -> Image | None:
        """Return the stack that shows the maps of a request already."""
        if len(request.targets) > 1:
            return None
        for stack in self._session.stacks:
            run: Run = stack.data.run
            if run.image is image and run.request is not None and run.request.key == request.key:
                return stack
        return None

    def compare(
        self,
        requests: Sequence[RunRequest],
        image: Image,
        normalization: Normalization = "local",
    ) -> None:
        """Run several requests for one image, show them side by side, and compute their findings."""
        if self._refuses():
            return
        work = partial(_explain_all, tuple(requests), image, normalization, self._runner)
        self._start(Job(work, partial(self._show_comparison, normalization)))

    def _show_comparison(self, normalization: Normalization, results: list[Explained]) -> None:
        from napari_camanim.comparison.usual import show_runs

        viewer = self._session.viewer
        if viewer is None or self._abandoned:
            return
        for explained in results:
            self._keep(explained)
        runs = [run for explained in results for run in explained.runs]
        about = [each for explained in results for each in explained.about]
        try:
            show_runs(viewer, runs, normalization, about)
        except CamError as error:
            self.said.emit(str(error), True)
            return
        for explained in results:
            self.shown.emit(explained)
        cancelled = any(explained.cancelled for explained in results)
        self.said.emit(f"{'Cancelled: kept ' if cancelled else ''}{len(runs)} runs.", False)
        self._find(results)

    def predict(self, request: RunRequest) -> None:
        """Predict the likeliest classes; `listed` is emitted with them."""
        if self._refuses():
            return
        work = partial(_predict, request, self._runner)
        self._start(Job(work, self.listed.emit, kept=False))

    def _refuses(self) -> bool:
        """Return whether a file is being written, which another job would cancel; say so."""
        if self._runner.writing:
            self.said.emit("A file is being written: wait for it, or cancel it.", True)
        return self._runner.writing

    def _start(self, job: Job, computing: Sequence[Run] = ()) -> None:
        """Start a job instead of the last one, and mark runs whose findings it computes."""
        self._mark(computing)
        self._runner.start(job)

    def _mark(self, computing: Sequence[Run] = ()) -> None:
        """Mark the runs whose findings are being computed, and no others."""
        for run in self._computing:
            run.computing = False
        before, self._computing = self._computing, list(computing)
        for run in self._computing:
            run.computing = True
        changed = [run for run in {*before, *computing} if run.computing != (run in before)]
        for stack in self._session.stacks:
            if stack.data.run in changed:
                self._session.updated.emit(stack)

    def close(self) -> None:
        """Forget what is kept, and mark nothing as being computed, as the dock was closed."""
        self._mark()
        self.forget_all()

    def drop(self) -> None:
        """Cancel what is running, without its result."""
        self.explaining = None
        self._mark()
        self._runner.drop()

    def cancel(self) -> None:
        """Cancel what is running; what was computed so far is shown."""
        self._runner.cancel()

    def compare_with_mask(self, stack: Image, mask: Mask | None) -> None:
        """Measure the agreement of a stack's maps with a mask."""
        work = partial(_localise, stack.data.run, mask, self._report)
        self._start(Job(work, self._on_localised))

    @property
    def running(self) -> bool:
        """Whether maps or findings are being computed."""
        return self._runner.running

    @property
    def writing(self) -> bool:
        """Whether a file is being written, which should not be cancelled by anything else."""
        return self._runner.writing

    def test_region(
        self,
        stack: Image,
        mask: Callable[[], Any],
        settings: dict[str, Any],
        done: Callable[[Any], None],
    ) -> None:
        """Test whether the network uses a region of the image of a stack.

        Parameters
        ----------
        stack : napari.layers.Image
        mask : callable
            Returns the mask of the explained region; called in the thread.
        settings : dict
            Settings of `camanim.checks.check_region`.
        done : callable
            Called with the finding, or None, and the problem, or an empty text.
        """
        if self._refuses():
            return
        work = partial(_test_region, stack.data.run, mask, settings, self._report)
        self._start(Job(work, done, kept=False))

    def confirm(self, error: Untrusted) -> bool:
        """Return whether the user allows code to run."""
        return self._runner.confirm(error)

    def continue_opened(self, stack: Image, request: RunRequest) -> None:
        """Take a stack that was opened from a file for the result of a request.

        To run this request again then computes its findings, and no maps.
        """
        run: Run = stack.data.run
        run.request = request
        opened = Explained(request, [run], [stack.metadata[KEY]])
        opened.checksum = run.region.checksum(request.view.data)
        self._kept[request.key] = opened

    def forget(self, image: Image) -> None:
        """Drop the results that are kept of an image, as its pixels were changed or it was removed."""
        for key, kept in list(self._kept.items()):
            if kept.runs and kept.runs[0].image is image:
                del self._kept[key]

    def forget_all(self) -> None:
        """Drop all results that are kept."""
        self._kept.clear()
        self.unplaced = None

    def abandon(self) -> None:
        """Drop results that are still computed, as the window was deleted."""
        self._abandoned = True

    # -- Results -----------------------------------------------------------------------------------

    def _show(
        self,
        image: Image,
        normalization: Normalization,
        signed: bool,
        into: Image | None,
        explained: Explained,
    ) -> None:
        viewer = self._session.viewer
        if viewer is None or self._abandoned:
            return
        # After the dock was closed, the session may have been disconnected.
        self._session = Session.of(viewer)
        self.explaining = None
        self._keep(explained)
        if image not in [unwrapped(layer) for layer in viewer.layers]:
            first = explained.runs[0]
            place = picture_placement(first.animation, image, first.region)
            self.unplaced = (explained, normalization, place)
            self.said.emit("The image was removed during the run; its maps are kept.", True)
            return
        self._place(explained, image, normalization, into, signed=signed)

    def _place(
        self,
        explained: Explained,
        image: Image,
        normalization: Normalization,
        into: Image | None = None,
        *,
        signed: bool = False,
    ) -> None:
        runs = explained.runs
        is_first = into is None and self._session.current is None
        if into is not None and into in self._session.stacks and len(runs) == 1:
            if into is not self._session.current:
                self._session.show(into, self._session.index_for(into.data.run))
            self._session.replace(into, runs[0], explained.about[0])
        else:
            # In reverse, as the stack added last remains visible.
            for run, about in reversed(list(zip(runs, explained.about, strict=True))):
                self._session.add(run, image, normalization, signed=signed, about=about)
        Badge.on(self._session)
        # Later runs leave the slider where it is.
        self._first_index = self._session.index if is_first else None
        self.shown.emit(explained)
        self.said.emit(jobs.summary(explained), False)
        self._find([explained])

    def show_unplaced(self) -> None:
        """Add the maps whose image was removed, over a copy of the image as it was explained."""
        viewer = self._session.viewer
        if self.unplaced is None or viewer is None:
            return
        (explained, normalization, place), self.unplaced = self.unplaced, None
        run = explained.runs[0]
        picture, axes = run.animation.image, list(run.region.axes)
        sides = np.ones(len(run.region.shape), int)
        sides[axes] = picture.shape[: len(axes)]
        pixels = picture.reshape(*sides, *picture.shape[len(axes) :])
        rgb = picture.ndim > len(axes)
        image = unwrapped(viewer.add_image(pixels, name=run.image_name, rgb=rgb, **place))
        region = replace(Region.of_picture(image, axes), channel_axis=run.region.channel_axis)
        placed = [Run.of(each.animation, region, image, each.request) for each in explained.runs]
        self._place(
            Explained(explained.request, placed, explained.about, True, explained.classes),
            image,
            normalization,
        )

    def _keep(self, explained: Explained) -> None:
        # Files can be changed while napari is open.
        if explained.cancelled or explained.request.network.from_files or self._runner.closed:
            return
        self._kept[explained.request.key] = explained
        while len(self._kept) > 1 and (
            len(self._kept) > KEPT or sum(map(_size, self._kept.values())) > KEPT_BYTES
        ):
            self._kept.popitem(last=False)

    # -- Findings ----------------------------------------------------------------------------------

    def _find(self, results: list[Explained]) -> None:
        """Compute the findings that the requests of results ask for."""
        if self._runner.cancelled:
            # After the last report of progress: the maps are complete, and nothing follows.
            return
        asking = [each for each in results if each.request.findings or each.request.mask]
        if asking and not any(each.cancelled for each in results) and not self._runner.closed:
            work = partial(_find_all, asking, self._report)
            runs = [run for each in asking for run in each.runs]
            self._start(Job(work, partial(self._on_found, asking)), runs)

    def _report(self, run: Run) -> None:
        """Announce findings of a run; called in the thread."""
        # Metadata takes too long for the thread of the window.
        self._reported.emit(run, metadata(run.animation, "local"))

    def _on_report(self, run: Run, about: CamMetadata) -> None:
        if self._abandoned:
            return
        # A kept result is shown with its findings.
        for stack in self._session.stacks:
            if stack.data.run is run:
                updated = dict(about, normalization=stack.data.normalization)
                self._session.refresh(stack, updated)  # type: ignore[arg-type]
        for kept in self._kept.values():
            if run in kept.runs:
                kept.about[kept.runs.index(run)] = about

    def _on_found(self, results: list[Explained], found: Found) -> None:
        if self._abandoned:
            return
        explained = results[0]
        # Of several runs, the table of runs has the values of each.
        summary = jobs.findings_summary(explained.runs) if len(results) == 1 else ""
        cancelled = "Scores were cancelled." if found.cancelled else ""
        text = " ".join(filter(None, [cancelled, found.problem, summary]))
        if text:
            self.said.emit(text, bool(found.problem))
        animation, index = self._session.animation, self._session.index
        # Only if the slider was not moved in the meantime.
        is_first = index is not None and index == self._first_index
        if animation is explained.runs[0].animation and is_first:
            self._session.go_to(animation.initial_index)

    def _on_localised(self, result: tuple[str, str]) -> None:
        summary, problem = result
        self.said.emit(problem or summary, bool(problem))

    # -- Progress ----------------------------------------------------------------------------------

    def _on_failed(self, error: CamError) -> None:
        self.explaining = None
        self.said.emit(str(error), not isinstance(error, Cancelled))

    def _on_progress(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._began[0]:
            self._began = (stage, now)
        words = STAGES.get(stage, stage)
        if total:
            # Bytes, and thousandths of layers, are no numbers to read.
            share = f"{done}/{total}" if total < 1000 else f"{100 * done // total} %"
            words += f" {share}"
            elapsed = now - self._began[1]
            if done and elapsed > 0.5:
                words += f", {duration(elapsed * (total - done) / done)} left"
        self.progressed.emit(words, done, total)


def _size(explained: Explained) -> int:
    return sum(each.nbytes for run in explained.runs for each in run.animation.maps)


# Functions of a module, which hold no reference to the explainer while napari keeps the worker.


def _explain(
    request: RunRequest,
    image: Image,
    normalization: Normalization,
    runner: Runner,
    progress: Progress,
) -> Explained:
    return jobs.explain(request, image, normalization, runner.networks, progress)


def _predict(request: RunRequest, runner: Runner, progress: Progress) -> Classes:
    return jobs.predict(request, runner.networks, progress)


def _test_region(
    run: Run, mask: Any, settings: dict[str, Any], report: Any, progress: Progress
) -> tuple[Any, str]:
    return jobs.test_region(run, mask, settings, report, progress)


def _localise(run: Run, mask: Mask | None, report: Any, progress: Progress) -> tuple[str, str]:
    return jobs.localise(run, mask, report)


def _explain_all(
    requests: Sequence[RunRequest],
    image: Image,
    normalization: Normalization,
    runner: Runner,
    progress: Progress,
) -> list[Explained]:
    """Return the maps of all requests; after a cancel, those computed so far."""
    results: list[Explained] = []
    for request in requests:
        try:
            results.append(_explain(request, image, normalization, runner, progress))
        except Cancelled:
            if not results:
                raise
            break
        if results[-1].cancelled:
            break
    return results


def _find_all(results: list[Explained], report: jobs.Report, progress: Progress) -> Found:
    """Compute the findings of all results, until one is cancelled."""
    problems = []
    for explained in results:
        found = jobs.find(explained.runs, explained.request, report, progress)
        problems.append(found.problem)
        if found.cancelled:
            return Found(" ".join(filter(None, dict.fromkeys(problems))), True)
    return Found(" ".join(filter(None, dict.fromkeys(problems))))
