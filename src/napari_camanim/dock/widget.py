"""The dock widget: connects form, runner and viewer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from napari.layers import Image, Labels
from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from camanim.errors import CamError, Cancelled
from camanim.writing import checked_path
from napari_camanim.canvas.badge import Caption
from napari_camanim.dock.form import DockForm
from napari_camanim.dock.networks import confirm_trust
from napari_camanim.layers.stack import (
    current_stack,
    is_input,
    is_stack,
    set_normalization,
    show_index,
    shown_index,
    shown_plane,
    unwrapped,
    update_metadata,
)
from napari_camanim.layers.views import Mask, take_mask, take_view
from napari_camanim.work import jobs
from napari_camanim.work.jobs import RunRequest, RunResult
from napari_camanim.work.networks import ModelSpec
from napari_camanim.work.runner import Runner
from napari_camanim.work.task import Task

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from camanim.findings import FindingRequest
    from camanim.models import Prediction
    from camanim.progress import Progress
    from camanim.stack import Normalization


#: An event of the viewer and the connected slot.
Connection = tuple[Any, Callable[..., None]]


class CamWidget(QWidget):
    """The dock widget: explains the active image layer with a network.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Passed by napari.

    Attributes
    ----------
    form : DockForm
    runner : Runner
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.form = DockForm()
        self.runner = Runner(partial(confirm_trust, self))
        self._device_search: Task | None = None
        self._image: Image | None = None
        #: Incremented when inputs of Predict change, to discard outdated results.
        self._input_version = 0
        self._mask_changed = False
        self._images: WeakKeyDictionary[Image, ref[Image]] = WeakKeyDictionary()
        self._connections: list[Connection] = []
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self.form)
        self._connect_form()
        self._connect_runner()
        self._connect_viewer()
        # Closing napari deletes the widget without an event; results of a job can still arrive.
        self.destroyed.connect(self.runner.close)
        self.destroyed.connect(partial(_disconnect, self._connections))
        self._refresh()

    # -- Connections -----------------------------------------------------------------------------

    def _connect_form(self) -> None:
        form = self.form
        form.predict_button.clicked.connect(self.predict)
        form.run_button.clicked.connect(self._run_or_cancel)
        form.export_button.clicked.connect(self._choose_and_export)
        form.network.currentTextChanged.connect(self._on_network)
        form.image.currentIndexChanged.connect(self._on_image)
        form.method.currentTextChanged.connect(self._on_method)
        form.advanced.network_changed.connect(self._on_network)
        form.advanced.maps.connect(self._on_input)
        form.advanced.toggled.connect(self._list_devices)
        form.advanced.save_button.clicked.connect(self._choose_and_save)
        form.advanced.scoring.mask.chosen.connect(self._on_mask)
        form.advanced.scoring.checked.connect(self._show_price)
        form.normalization.currentTextChanged.connect(self._on_normalization)
        form.curve.moved.connect(self._on_curve)

    def _connect_runner(self) -> None:
        self.runner.started.connect(self._on_started)
        self.runner.progressed.connect(self.form.show_progress)
        self.runner.failed.connect(self._on_failed)
        self.runner.finished.connect(self._on_finished)

    def _connect_viewer(self) -> None:
        layers = self.viewer.layers
        for event, slot in (
            (layers.events.inserted, self._refresh),
            (layers.events.removed, self._refresh),
            (layers.events.reordered, self._refresh),
            (layers.events.renamed, self._refresh),
            (layers.selection.events.active, self._on_active),
            (self.viewer.dims.events.point, self._on_slider),
            (self.viewer.dims.events.ndisplay, self._on_slider),
        ):
            self._listen(event, slot)

    def _listen(self, event: Any, slot: Callable[..., None]) -> None:
        event.connect(slot)
        self._connections.append((event, slot))

    # -- Layers of the viewer ----------------------------------------------------------------------

    def _refresh(self, event: Any = None) -> None:
        """Update the lists of images and masks, keeping the choices."""
        layers = [unwrapped(layer) for layer in self.viewer.layers]
        self._list_images([layer for layer in layers if is_input(layer)])
        labels = [layer for layer in layers if isinstance(layer, Labels)]
        self.form.advanced.scoring.mask.set_layers(labels)
        self._watch_stacks()
        self._on_stack()

    def _list_images(self, images: list[Image]) -> None:
        field = self.form.image
        # Without signals, as clearing the list is not a change of the choice.
        field.blockSignals(True)
        field.clear()
        for layer in images:
            field.addItem(layer.name, layer)
        if self._image in images:
            field.setCurrentIndex(images.index(self._image))
        field.blockSignals(False)
        self._on_image()
        self._follow_selection()

    def _follow_selection(self) -> None:
        """Choose the selected layer, if it is one of the listed images."""
        active = unwrapped(self.viewer.layers.selection.active)
        for row in range(self.form.image.count()):
            if self.form.image.itemData(row) is active:
                self.form.image.setCurrentIndex(row)

    def _watch_stacks(self) -> None:
        """Connect to the visibility of stacks, as a hidden stack is never the current one."""
        watched = [event for event, _ in self._connections]
        for layer in self.viewer.layers:
            if is_stack(layer) and layer.events.visible not in watched:
                self._listen(layer.events.visible, self._on_visible)

    def _on_active(self, event: Any = None) -> None:
        self._follow_selection()
        self._on_stack()

    def _on_visible(self, event: Any = None) -> None:
        self._on_stack()

    def _on_stack(self) -> None:
        """Show findings and normalisation of the current stack."""
        stack = current_stack(self.viewer)
        self.form.export_button.setEnabled(stack is not None and not self.runner.running)
        has_plots = False
        if stack is not None:
            self.form.normalization.setCurrentText(stack.data.normalization)
            has_plots = self.form.curve.show_findings(stack.data.animation.findings)
        self.form.curve.setVisible(has_plots)
        self._on_slider()

    def _on_slider(self, event: Any = None) -> None:
        stack = current_stack(self.viewer)
        self.form.curve.set_index(None if stack is None else shown_index(self.viewer, stack))

    # -- Changes of fields -------------------------------------------------------------------------

    def _on_image(self, row: int = -1) -> None:
        image = self.form.image.currentData()
        if image is not self._image:
            self._image = image
            self._on_network()
            self.form.advanced.set_depth(image is not None and image.ndim > 2)

    def _on_network(self) -> None:
        self.form.classes.clear_classes()
        self._on_input()

    def _on_input(self) -> None:
        self._input_version += 1

    def _on_method(self) -> None:
        self.form.advanced.set_method(self.form.method.method())

    def _on_curve(self, index: int) -> None:
        stack = current_stack(self.viewer)
        if stack is not None:
            show_index(self.viewer, stack, index)

    def _on_normalization(self, normalization: Normalization) -> None:
        stack = current_stack(self.viewer)
        if stack is not None:
            set_normalization(stack, normalization)

    def _on_mask(self) -> None:
        self._mask_changed = True
        self._localise()

    def _show_price(self, request: FindingRequest) -> None:
        """Show what a finding would cost for the current stack."""
        stack = current_stack(self.viewer)
        if stack is None or self.runner.running:
            return
        try:
            price = request.kind.price(stack.data.animation, request.settings)
        except CamError as error:
            price = str(error)
        if price:
            self.form.show_message(price)

    def _list_devices(self, expanded: bool) -> None:
        """List the devices when the advanced fields are first shown, as this imports torch."""
        if expanded and self._device_search is None:
            self._device_search = Task(lambda progress: jobs.devices())
            self._device_search.succeeded.connect(self.form.advanced.set_devices)
            self._device_search.start()

    # -- State of the runner -----------------------------------------------------------------------

    def _on_started(self) -> None:
        self.form.set_running(True)
        self.form.export_button.setEnabled(False)
        self.form.show_message("")

    def _on_failed(self, error: CamError) -> None:
        self.form.show_message(str(error), error=not isinstance(error, Cancelled))

    def _on_finished(self) -> None:
        self.form.set_running(False)
        self._on_stack()
        if self._mask_changed:
            self._localise()

    # -- Actions -----------------------------------------------------------------------------------

    def predict(self) -> None:
        """List the five likeliest classes, followed by the others."""
        request, version = self._request(), self._input_version
        if request is not None:
            self.runner.start(
                lambda progress: jobs.predict(request, self.runner.networks, progress),
                lambda result: self._list_classes(result, version, request.slices),
            )

    def _list_classes(
        self, result: tuple[list[Prediction], list[str] | None], version: int, slices: bool
    ) -> None:
        if version != self._input_version:
            self.form.show_message("Network, image or fit were changed: press Predict again.")
            return
        predictions, names = result
        self.form.classes.set_classes(predictions, names)
        best = predictions[0]
        suffix = " over all slices" if slices else ""
        self.form.show_message(f"{best.name}, with probability {best.probability:.3f}{suffix}.")

    def run(self) -> None:
        """Explain the chosen image and add the stack to the viewer."""
        request, layer = self._request(), self._image
        if request is not None and layer is not None:
            self.runner.start(
                lambda progress: jobs.run(request, self.runner.networks, progress),
                lambda result: self._add_stacks(result, request, layer),
            )

    def _add_stacks(self, result: RunResult, request: RunRequest, layer: Image) -> None:
        from napari_camanim import _add_stack

        self.form.network.add_source(request.network.source)
        if layer not in self.viewer.layers:
            self.form.show_message("The image was removed during the run.", error=True)
            return
        normalization = self.form.normalization.currentText()
        # In reverse, as the stack added last remains visible.
        for animation in reversed(result.animations):
            stack = _add_stack(self.viewer, animation, layer, result.shown, normalization)
            self._images[stack] = ref(layer)
        self._on_stack()
        self.form.show_message(jobs.summary(result))
        if result.problem:
            show_error(result.problem)

    def _run_or_cancel(self) -> None:
        if self.runner.running:
            self.runner.cancel()
            self.form.show_cancelling()
        else:
            self.run()

    def _localise(self) -> None:
        """Compare the current stack with the chosen mask, unless a job is running."""
        if self.runner.running:
            return
        self._mask_changed = False
        stack = unwrapped(current_stack(self.viewer))
        # Only a stack of the chosen image, which the mask belongs to.
        image = None if stack is None else self._images.get(stack)
        if stack is None or image is None or image() is not self._image:
            return
        animation, region, mask = stack.data.animation, stack.data.region, self._mask()
        self.runner.start(
            lambda progress: jobs.localise(animation, mask, region),
            lambda result: self._show_localisation(stack, result),
        )

    def _show_localisation(self, stack: Image, result: tuple[str, str]) -> None:
        summary, problem = result
        update_metadata(stack)
        self._on_stack()
        Caption.on(self.viewer)
        self.form.show_message(problem or summary, error=bool(problem))

    def _mask(self) -> Mask | None:
        layer = self.form.advanced.scoring.mask.layer()
        return None if layer is None else take_mask(layer)

    def export(self, path: str | Path) -> None:
        """Write the movie of the current stack; of a volume, of the shown plane.

        Parameters
        ----------
        path : path-like
            Must end in ``.mp4``.
        """
        stack = current_stack(self.viewer)
        if stack is None:
            self.form.show_message("No stack to export: press Run first.", error=True)
            return
        animation, normalization = stack.data.animation, stack.data.normalization
        z = shown_plane(self.viewer, stack)

        def job(progress: Progress) -> Path:
            written: Path = animation.write_movie(
                path, normalization=normalization, z=z, progress=progress
            )
            return written

        self.runner.start(job, self._show_written)

    def _show_written(self, path: Path) -> None:
        self.form.show_message(f"Wrote {path}.")

    def _choose_and_export(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Export movie", "layers.mp4", "Movie (*.mp4)")
        if path:
            self.export(path if path.lower().endswith(".mp4") else f"{path}.mp4")

    def save_card(self, path: str | Path) -> None:
        """Write the network and its settings as a card.

        Parameters
        ----------
        path : path-like
            Must end in ``.toml``.
        """
        spec = self._model_spec()
        if spec is None:
            return

        def job(progress: Progress) -> Path:
            # Before the network is loaded, which may download weights.
            checked_path(path, ".toml")
            return self.runner.networks.load(spec, progress).save_card(path)

        self.runner.start(job, self._show_written)

    def _choose_and_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save card", "network.toml", "Card (*.toml)")
        if path:
            self.save_card(path if path.lower().endswith(".toml") else f"{path}.toml")

    def _model_spec(self) -> ModelSpec | None:
        """Return the chosen network, or show why it is invalid."""
        try:
            return ModelSpec(self.form.network.source(), self.form.advanced.network())
        except CamError as error:
            self.form.show_message(str(error), error=True)
            return None

    def _request(self) -> RunRequest | None:
        """Return the contents of the form, or show what is missing or invalid."""
        form = self.form
        if self._image is None:
            form.show_message("Open an image first, such as one of File > Open Sample.", error=True)
            return None
        form.classes.complete_text()
        form.method.complete_text()
        network = self._model_spec()
        if network is None:
            return None
        try:
            settings = form.advanced.run()
            findings = form.advanced.scoring.requests(road=form.road.isChecked())
        except CamError as error:
            form.show_message(str(error), error=True)
            return None
        return RunRequest(
            network=network,
            view=take_view(self.viewer, self._image),
            slices=form.advanced.all_slices(),
            targets=form.classes.requests(),
            method=form.method.currentText(),
            settings=settings,
            findings=findings,
            mask=self._mask(),
        )

    # -- Closing -----------------------------------------------------------------------------------

    def changeEvent(self, event: QEvent) -> None:
        # napari removes a dock by setting the widget's parent to None, without closing the widget.
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._close()
        super().changeEvent(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        self._close()
        super().closeEvent(event)

    def _close(self) -> None:
        """Cancel the running job, release the network, and disconnect from the viewer."""
        self.runner.close()
        if self._device_search is not None:
            self._device_search.succeeded.disconnect()
        self._image = None
        _disconnect(self._connections)


def _disconnect(connections: list[Connection], *_: object) -> None:
    """Disconnect slots from events of the viewer, and remove them from the list."""
    while connections:
        event, slot = connections.pop()
        event.disconnect(slot)
