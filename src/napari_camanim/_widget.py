"""The dock widget: wiring only. What it knows about activation maps it asks `camanim`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QFileDialog

import camanim
from camanim.errors import CamError, Cancelled
from napari_camanim._form import LIKELIEST, Form
from napari_camanim._layers import (
    KEY,
    Shown,
    current_stack,
    is_stack,
    set_normalization,
    show_index,
    shown_index,
    shown_slice,
    unwrapped,
)
from napari_camanim._worker import Task

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from camanim import Animation, Model
    from camanim.animation import Normalization
    from camanim.models import Prediction
    from camanim.progress import Progress


class CamWidget(Form):
    """The dock: explain the active image layer with a network, layer by layer.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self._task: Task | None = None
        self._model: Model | None = None
        self._image: Image | None = None
        self._left = False
        self._connections: list[tuple[Any, Callable[..., None]]] = []
        self._connect()
        self._refresh_images()
        self._on_stack()

    # -- What it listens to ----------------------------------------------------------------------

    def _connect(self) -> None:
        self.predict_button.clicked.connect(self.predict)
        self.run_button.clicked.connect(self._run_or_cancel)
        self.export_button.clicked.connect(self._ask_and_export)
        self.network.currentTextChanged.connect(self._forget_classes)
        self.image.currentIndexChanged.connect(self._on_image)
        line = self.classes.lineEdit()
        line.editingFinished.connect(self._settle_class)
        self.normalization.currentTextChanged.connect(self._on_normalization)
        self.curve.moved.connect(self._on_curve)
        layers = self.viewer.layers
        for event, slot in (
            (layers.events.inserted, self._refresh_images),
            (layers.events.removed, self._refresh_images),
            (layers.events.reordered, self._refresh_images),
            (layers.events.renamed, self._refresh_images),
            (layers.selection.events.active, self._on_active),
            (self.viewer.dims.events.point, self._on_slider),
            (self.viewer.dims.events.ndisplay, self._on_slider),
        ):
            self._listen(event, slot)

    def _listen(self, event: Any, slot: Callable[..., None]) -> None:
        event.connect(slot)
        self._connections.append((event, slot))

    def _refresh_images(self, event: Any = None) -> None:
        """List the image layers that can be explained, keeping the choice."""
        images = [
            unwrapped(x) for x in self.viewer.layers if isinstance(x, Image) and not is_stack(x)
        ]
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
        self._watch_stacks()
        self._on_stack()

    def _on_image(self, row: int = -1) -> None:
        chosen = self.image.currentData()
        if chosen is not self._image:
            self._image = chosen
            self._forget_classes()

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

    def _on_stack(self) -> None:
        """Show what is known about the current stack: its scores, its normalisation."""
        stack = current_stack(self.viewer)
        self.export_button.setEnabled(stack is not None and self._task is None)
        scores = stack.metadata[KEY]["scores"] if stack is not None else None
        self.curve.setVisible(scores is not None)
        if stack is not None:
            self.normalization.setCurrentText(stack.data.normalization)
        if scores is not None:
            self.curve.set_scores(scores)
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

    def _forget_classes(self) -> None:
        self.classes.clear()
        self.classes.addItem(LIKELIEST, None)

    def _settle_class(self) -> None:
        """Let what was typed be the item it begins, so that the field shows what will be explained."""
        text, row = self.classes.currentText(), self.classes.currentIndex()
        if text != self.classes.itemText(row):
            found = self.classes.findText(text, Qt.MatchFlag.MatchStartsWith)
            self.classes.setCurrentIndex(found if text and found >= 0 else row)
            self.classes.setEditText(self.classes.currentText())

    # -- What it does ----------------------------------------------------------------------------

    def predict(self) -> None:
        """List the network's five likeliest classes, and the others after them."""
        found = self._input()
        if found is None:
            return
        _, shown = found
        asked = self._question()
        name, fit = self.network.currentText(), self.fit.currentText()

        def job(progress: Progress) -> tuple[list[str] | None, list[Prediction]]:
            model = self._load(name, progress)
            progress("predict", 0, 0)
            likeliest = model.predict(shown.pixels, 5, fit=fit, window=shown.window)
            return model.classes, likeliest

        self._start(job, lambda result: self._list_classes(result, asked))

    def _question(self) -> tuple[Any, ...]:
        """What an answer of Predict depends on."""
        return self.network.currentText(), self._image, self.fit.currentText()

    def _list_classes(
        self, result: tuple[list[str] | None, list[Prediction]], asked: tuple[Any, ...]
    ) -> None:
        names, predictions = result
        if asked != self._question():
            self._say("Network, image or fit changed meanwhile: press Predict again.")
            return
        self._forget_classes()
        for p in predictions:
            self.classes.addItem(f"{p.name}  {p.probability:.3f}", p.index)
        likely = {p.index for p in predictions}
        for index, name in enumerate(names or ()):
            if index not in likely:
                self.classes.addItem(name, index)
        best = predictions[0]
        self._say(f"{best.name}, with probability {best.probability:.3f}.")

    def run(self) -> None:
        """Explain the chosen image and add the stack."""
        found = self._input()
        if found is None:
            return
        self._settle_class()
        layer, shown = found
        name, road = self.network.currentText(), self.road.isChecked()
        settings: dict[str, Any] = {
            "method": self.method.currentText(),
            "target": self.classes.currentData(),
            "layers": self.layers.currentText(),
            "fit": self.fit.currentText(),
            "window": shown.window,
        }

        def job(progress: Progress) -> Animation:
            model = self._load(name, progress)
            animation = camanim.animate(model, shown.pixels, progress=progress, **settings)
            if road and not animation.cancelled:
                _score(animation, progress)
            return animation

        self._start(job, lambda animation: self._add(animation, layer, shown))

    def _add(self, animation: Animation, layer: Image, shown: Shown) -> None:
        from napari_camanim import _add

        if layer not in self.viewer.layers:
            self._say("The image was removed, so its maps have no place.", error=True)
            return
        _add(self.viewer, animation, layer, shown, self.normalization.currentText())
        self._on_stack()
        self._say(_summary(animation))

    def export(self, path: str | Path) -> None:
        """Write the movie of the current stack.

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

        def job(progress: Progress) -> Path:
            written: Path = animation.write_movie(
                path, normalization=normalization, progress=progress
            )
            return written

        self._start(job, lambda written: self._say(f"Wrote {written}."))

    def _ask_and_export(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Export movie", "layers.mp4", "Movie (*.mp4)")
        if path:
            self.export(path if path.lower().endswith(".mp4") else f"{path}.mp4")

    def _run_or_cancel(self) -> None:
        if self._task is None:
            self.run()
        else:
            self._task.cancel()
            self.run_button.setText("Cancelling…")
            self.run_button.setEnabled(False)

    def _input(self) -> tuple[Image, Shown] | None:
        if self._image is None:
            self._say("Open an image first; File > Open Sample has some.", error=True)
            return None
        try:
            return self._image, shown_slice(self.viewer, self._image)
        except CamError as error:
            self._say(str(error), error=True)
            return None

    def _load(self, name: str, progress: Progress) -> Model:
        """Load a network, in the thread; the last one is kept, as most runs repeat it."""
        if self._model is None or self._model.name != name:
            self._model = None
            progress("load", 0, 0)
            self._model = camanim.load_model(name, progress=progress)
        return self._model

    # -- While it runs ---------------------------------------------------------------------------

    def _start(self, job: Callable[[Progress], Any], on_success: Callable[[Any], None]) -> None:
        if self._task is not None:
            return
        self._task = Task(job)
        self._task.progressed.connect(self._on_progress)
        self._task.succeeded.connect(on_success)
        self._task.failed.connect(self._on_failure)
        self._task.finished.connect(self._on_finished)
        self.predict_button.setEnabled(False)
        self.export_button.setEnabled(False)
        self.run_button.setText("Cancel")
        self._say("")
        self._task.start()

    def _on_progress(self, stage: str, done: int, total: int) -> None:
        if self.run_button.isEnabled():
            share = f" {100 * done // total} %" if total else "…"
            self.run_button.setText(f"Cancel ({stage}{share})")

    def _on_failure(self, error: CamError) -> None:
        if isinstance(error, Cancelled):
            self._say("Cancelled.")
        else:
            self._say(str(error), error=True)

    def _on_finished(self) -> None:
        self._task = None
        if self._left:
            self._model = None
            return
        self.run_button.setText("Run")
        self.run_button.setEnabled(True)
        self.predict_button.setEnabled(True)
        self._on_stack()

    def _say(self, text: str, *, error: bool = False) -> None:
        self.message.setText(text)
        if error:
            show_error(text)

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
        self._left = True
        if self._task is not None:
            # Its end is still awaited, its result no more.
            self._task.cancel()
            self._task.succeeded.disconnect()
            self._task.failed.disconnect()
        self._model = self._image = None
        while self._connections:
            event, slot = self._connections.pop()
            event.disconnect(slot)


def _score(animation: Animation, progress: Progress) -> None:
    try:
        animation.score(progress=progress)
    except Cancelled:
        # Cancelled before the first batch: the maps are kept, without scores.
        return


def _summary(animation: Animation) -> str:
    maps = f"{len(animation)} layers"
    if animation.cancelled:
        maps = f"Cancelled: kept {maps}"
    road = animation.road
    if road is not None and road.best is not None:
        kept = "" if road.complete else " of the layers scored so far"
        maps += f"; ybROAD mean {road.mean:.3f}, best {road.best.label} {road.max:.3f}{kept}"
    caution = (
        " A teaching aid, not a diagnosis." if animation.model.name.startswith("demo/") else ""
    )
    return f"{maps}.{caution}"
