"""The dock widget: wiring only. What it knows about activation maps it asks `camanim`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from napari.layers import Image, Labels
from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QFileDialog

from camanim.errors import CamError
from napari_camanim import _jobs
from napari_camanim._jobs import Explained, RunRequest
from napari_camanim._layers import (
    current_stack,
    describe_again,
    is_input,
    is_stack,
    set_normalization,
    show_index,
    shown_index,
    shown_plane,
    unwrapped,
)
from napari_camanim._networks import ModelSpec
from napari_camanim._overlay import Caption
from napari_camanim._running import RunningForm
from napari_camanim._views import Mask, take_mask, take_view
from napari_camanim._worker import Task

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from camanim.models import Prediction
    from camanim.progress import Progress
    from camanim.stack import Normalization


class CamWidget(RunningForm):
    """The dock: explain the active image layer with a network, layer by layer.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self._search: Task | None = None
        self._image: Image | None = None
        self._subject = 0
        self._mask_changed = False
        self._images: WeakKeyDictionary[Image, ref[Image]] = WeakKeyDictionary()
        self._connections: list[tuple[Any, Callable[..., None]]] = []
        self._connect()
        self._refresh()

    # -- What it listens to ----------------------------------------------------------------------

    def _connect(self) -> None:
        self.predict_button.clicked.connect(self.predict)
        self.run_button.clicked.connect(self._run_or_cancel)
        self.export_button.clicked.connect(self._ask_and_export)
        self.network.currentTextChanged.connect(self._on_network)
        self.image.currentIndexChanged.connect(self._on_image)
        self.method.currentTextChanged.connect(self._on_method)
        self.advanced.network_changed.connect(self._on_network)
        self.advanced.maps.connect(self._on_subject)
        self.advanced.toggled.connect(self._find_devices)
        self.advanced.save_button.clicked.connect(self._ask_and_save)
        self.advanced.scoring.mask.chosen.connect(self._on_mask)
        self.normalization.currentTextChanged.connect(self._on_normalization)
        self.curve.moved.connect(self._on_curve)
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

    def _refresh(self, event: Any = None) -> None:
        """List the layers of the viewer where they can be chosen, keeping the choices."""
        layers = [unwrapped(layer) for layer in self.viewer.layers]
        self._list_images([layer for layer in layers if is_input(layer)])
        self.advanced.scoring.mask.offer([layer for layer in layers if isinstance(layer, Labels)])
        self._watch_stacks()
        self._on_stack()

    def _list_images(self, images: list[Image]) -> None:
        # Names and layers change; the choice stays with its layer, and tells of a change itself.
        self.image.blockSignals(True)
        self.image.clear()
        for layer in images:
            self.image.addItem(layer.name, layer)
        if self._image in images:
            self.image.setCurrentIndex(images.index(self._image))
        self.image.blockSignals(False)
        self._on_image()
        self._follow_selection()

    def _on_image(self, row: int = -1) -> None:
        chosen = self.image.currentData()
        if chosen is not self._image:
            self._image = chosen
            self._on_network()
            self.advanced.set_depth(chosen is not None and chosen.ndim > 2)

    def _on_network(self) -> None:
        self.classes.forget()
        self._on_subject()

    def _on_subject(self) -> None:
        """Count changes of what an answer of Predict depends on."""
        self._subject += 1

    def _on_method(self) -> None:
        self.advanced.set_method(self.method.method())

    def _watch_stacks(self) -> None:
        """Listen to the eyes of the stacks: a hidden one is not what the dock is about."""
        watched = [event for event, _ in self._connections]
        for layer in self.viewer.layers:
            if is_stack(layer) and layer.events.visible not in watched:
                self._listen(layer.events.visible, self._on_visible)

    def _on_visible(self, event: Any = None) -> None:
        self._on_stack()

    def _follow_selection(self) -> None:
        active = unwrapped(self.viewer.layers.selection.active)
        for row in range(self.image.count()):
            # Whatever is not listed, a stack or labels, leaves the choice as it is.
            if self.image.itemData(row) is active:
                self.image.setCurrentIndex(row)

    def _on_active(self, event: Any = None) -> None:
        self._follow_selection()
        self._on_stack()

    def on_end(self) -> None:
        self._on_stack()
        if self._mask_changed:
            self._localise()

    def _on_stack(self) -> None:
        """Show what is known about the current stack: its scores, its normalisation."""
        stack = current_stack(self.viewer)
        self.export_button.setEnabled(stack is not None and self._task is None)
        found = False
        if stack is not None:
            self.normalization.setCurrentText(stack.data.normalization)
            found = self.curve.show_findings(stack.data.animation.findings)
        self.curve.setVisible(found)
        self._on_slider()

    def _on_slider(self, event: Any = None) -> None:
        stack = current_stack(self.viewer)
        self.curve.set_index(None if stack is None else shown_index(self.viewer, stack))

    def _on_curve(self, index: int) -> None:
        stack = current_stack(self.viewer)
        if stack is not None:
            show_index(self.viewer, stack, index)

    def _on_normalization(self, normalization: Normalization) -> None:
        stack = current_stack(self.viewer)
        if stack is not None:
            set_normalization(stack, normalization)

    def _find_devices(self, unfolded: bool) -> None:
        """List the devices when somebody is about to look: torch, which knows them, loads slowly."""
        if unfolded and self._search is None:
            self._search = Task(lambda progress: _jobs.devices())
            self._search.succeeded.connect(self.advanced.set_devices)
            self._search.start()

    # -- What it does ----------------------------------------------------------------------------

    def predict(self) -> None:
        """List the network's five likeliest classes, and the others after them."""
        question, subject = self._question(), self._subject
        if question is not None:
            self._start(
                lambda progress: _jobs.predict(question, self.networks, progress),
                lambda found: self._list_classes(found, subject, question.slices),
            )

    def _list_classes(
        self, found: tuple[list[Prediction], list[str] | None], subject: int, slices: bool
    ) -> None:
        if subject != self._subject:
            self._say("Network, image or fit changed meanwhile: press Predict again.")
            return
        predictions, names = found
        self.classes.offer(predictions, names)
        best = predictions[0]
        of_slices = " over all slices" if slices else ""
        self._say(f"{best.name}, with probability {best.probability:.3f}{of_slices}.")

    def run(self) -> None:
        """Explain the chosen image and add the stack."""
        question, layer = self._question(), self._image
        if question is not None and layer is not None:
            self._start(
                lambda progress: _jobs.explain(question, self.networks, progress),
                lambda explained: self._add(explained, question, layer),
            )

    def _add(self, explained: Explained, question: RunRequest, layer: Image) -> None:
        from napari_camanim import _add

        self.network.remember(question.network.source)
        if layer not in self.viewer.layers:
            self._say("The image was removed, so its maps have no place.", error=True)
            return
        # The first is added last: of several stacks only the last one stays visible.
        for animation in reversed(explained.animations):
            stack = _add(
                self.viewer, animation, layer, explained.shown, self.normalization.currentText()
            )
            self._images[stack] = ref(layer)
        self._on_stack()
        self._say(_jobs.summary(explained))
        if explained.problem:
            show_error(explained.problem)

    def _on_mask(self) -> None:
        self._mask_changed = True
        self._localise()

    def _localise(self) -> None:
        """Compare the shown stack of the chosen image with the chosen mask, when nothing else runs."""
        if self._task is not None:
            return
        self._mask_changed = False
        stack = unwrapped(current_stack(self.viewer))
        # Another image's stack would be compared with a mask that is not its own.
        of = None if stack is None else self._images.get(stack)
        if stack is None or of is None or of() is not self._image:
            return
        animation, part, mask = stack.data.animation, stack.data.part, self._mask()
        self._start(
            lambda progress: _jobs.localise(animation, mask, part),
            lambda said: self._show_localisation(stack, said),
        )

    def _show_localisation(self, stack: Image, said: tuple[str, str]) -> None:
        found, problem = said
        describe_again(stack)
        self._on_stack()
        Caption.on(self.viewer)
        self._say(problem or found, error=bool(problem))

    def _mask(self) -> Mask | None:
        layer = self.advanced.scoring.mask.layer()
        return None if layer is None else take_mask(layer)

    def export(self, path: str | Path) -> None:
        """Write the movie of the current stack; of a volume, of the shown plane.

        Parameters
        ----------
        path : path-like
            Ends in ``.mp4``.
        """
        stack = current_stack(self.viewer)
        if stack is None:
            self._say("There is no stack to export: run first.", error=True)
            return
        animation, normalization = stack.data.animation, stack.data.normalization
        z = shown_plane(self.viewer, stack)

        def job(progress: Progress) -> Path:
            written: Path = animation.write_movie(
                path, normalization=normalization, z=z, progress=progress
            )
            return written

        self._start(job, lambda written: self._say(f"Wrote {written}."))

    def _ask_and_export(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Export movie", "layers.mp4", "Movie (*.mp4)")
        if path:
            self.export(path if path.lower().endswith(".mp4") else f"{path}.mp4")

    def save_card(self, path: str | Path) -> None:
        """Write down the network and its settings.

        Parameters
        ----------
        path : path-like
            Ends in ``.toml``.
        """
        asked = self._network()
        if asked is not None:
            self._start(
                lambda progress: self.networks.load(asked, progress).save_card(path),
                lambda written: self._say(f"Wrote {written}."),
            )

    def _ask_and_save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save card", "network.toml", "Card (*.toml)")
        if path:
            self.save_card(path if path.lower().endswith(".toml") else f"{path}.toml")

    def _run_or_cancel(self) -> None:
        if self._task is None:
            self.run()
        else:
            self._task.cancel()
            self.run_button.setText("Cancelling…")
            self.run_button.setEnabled(False)

    def _network(self) -> ModelSpec | None:
        try:
            return ModelSpec(self.network.source(), self.advanced.network())
        except CamError as error:
            self._say(str(error), error=True)
            return None

    def _question(self) -> RunRequest | None:
        """Note all that is asked; say what is missing."""
        if self._image is None:
            self._say("Open an image first; File > Open Sample has some.", error=True)
            return None
        self.classes.settle()
        self.method.settle()
        network = self._network()
        if network is None:
            return None
        try:
            settings = self.advanced.run()
            findings = self.advanced.scoring.requests(road=self.road.isChecked())
        except CamError as error:
            self._say(str(error), error=True)
            return None
        return RunRequest(
            network=network,
            view=take_view(self.viewer, self._image),
            slices=self.advanced.all_slices(),
            targets=self.classes.requests(),
            method=self.method.currentText(),
            settings=settings,
            findings=findings,
            mask=self._mask(),
        )

    # -- When it goes ----------------------------------------------------------------------------

    def changeEvent(self, event: QEvent) -> None:
        # napari removes a dock by taking the widget out of it; it does not close the widget.
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._leave()
        super().changeEvent(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        self._leave()
        super().closeEvent(event)

    def _leave(self) -> None:
        """Stop what runs, let the network go, and listen no more."""
        self.stop()
        if self._search is not None:
            self._search.succeeded.disconnect()
        self._image = None
        while self._connections:
            event, slot = self._connections.pop()
            event.disconnect(slot)
