"""The dock widget: explains images of the viewer, and shows what is computed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, ComboBox, Container, Label, PushButton, RadioButtons
from napari.layers import Image, Labels
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import QFileDialog, QWidget

from camanim.errors import CamError
from camanim.writing import checked_path
from napari_camanim.ask.section import AskSection
from napari_camanim.dock.class_field import ClassField
from napari_camanim.dock.form import Column, Form, fit_width
from napari_camanim.dock.method_field import MethodField
from napari_camanim.dock.network_field import NetworkField, confirm_trust
from napari_camanim.dock.remembered import remember, remembered
from napari_camanim.dock.search_field import IgnoreWheel, narrow
from napari_camanim.dock.sections import Section, SettingsSection
from napari_camanim.dock.status import Status
from napari_camanim.layers.metadata import KEY
from napari_camanim.layers.stack import is_input
from napari_camanim.layers.views import Mask, View, axis_names, take_mask, take_view
from napari_camanim.session import Session, shown_plane, unwrapped
from napari_camanim.work import jobs
from napari_camanim.work.collection import include_all
from napari_camanim.work.explainer import Explainer
from napari_camanim.work.networks import ModelSpec
from napari_camanim.work.request import RunRequest
from napari_camanim.work.runner import Job, Runner
from napari_camanim.work.task import Task

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from camanim.progress import Progress
    from camanim.stack import Normalization
    from napari_camanim.work.jobs import Classes, Explained

#: Milliseconds after the last change until a live run starts.
DELAY = 40
#: Choices of the field for channels: grey or colours as shown, and the selected layers.
AS_SHOWN, SELECTED = "shown", "selected"
#: The longest axis that can hold channels.
MOST_CHANNELS = 16
#: Width in pixels that the dock requests.
WIDTH = 290


class CamWidget(Container[Any]):
    """The dock widget: explains the active image layer with a network.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Passed by napari.

    Attributes
    ----------
    session : Session
    explainer : Explainer
    settings : SettingsSection
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        self.viewer = napari_viewer
        self.session = Session.of(napari_viewer)
        self.session.retain()
        self._connections: list[tuple[Any, Callable[..., None]]] = []
        self._device_search: Task | None = None
        self._explained_image: Image | None = None
        #: Sliders of the image when it was last described.
        self._place: Any = None
        #: Incremented when inputs of Predict change, to discard outdated results.
        self._input_version = 0
        self._predicted_version = -1
        self._closed = False
        #: The section "Ask", once it was opened.
        self.ask: AskSection | None = None
        self._create_fields()
        super().__init__(widgets=self._fields(), scrollable=True, labels=False)
        self.runner = Runner(partial(confirm_trust, self.native))
        self.explainer = Explainer(self.session, self.runner)
        self._lay_out()
        self._connect_fields()
        self._connect_session()
        self._restore()
        self._refresh()

    # -- Fields ------------------------------------------------------------------------------------

    def _create_fields(self) -> None:
        self.image = ComboBox(
            name="image",
            label="Image",
            choices=self._images,
            nullable=True,
            tooltip="The image to explain; follows the selected layer.",
        )
        self.channels = ComboBox(
            name="channels",
            label="Channels",
            choices=self._channel_choices,
            tooltip="Axis or layers with the channels of the network's input.",
            visible=False,
        )
        self.view_words = Label(name="view", tooltip="What is explained by Run.")
        self.network = NetworkField(
            name="network", label="Network", value="", tooltip=NetworkField.hint
        )
        self.classes = ClassField(
            name="class",
            label="Class",
            tooltip="The class to explain; A - B for a contrast, A; B for a stack of each.",
        )
        self.method = MethodField(name="method", label="Method")
        self.road = CheckBox(
            name="road",
            text="Score every layer (ROAD)",
            label="",
            tooltip="Score each map by removing the pixels that it marks as important.",
        )
        self.live = CheckBox(
            name="live",
            text="Live",
            tooltip="Run again whenever slice, class, method or network change.",
        )
        self.run_button = PushButton(
            name="run", text="Run", tooltip="Compute the maps of all layers."
        )
        self.predict_button = PushButton(
            name="predict", text="Predict", tooltip="List the likeliest classes."
        )
        self.normalization = RadioButtons(
            name="scale",
            label="Scale",
            choices=["local", "global"],
            orientation="horizontal",
            tooltip="local: a separate scale for each layer; global: a common scale.",
        )
        self.normalization.value = "local"
        self.signed = CheckBox(
            name="signed",
            text="Show negative evidence",
            label="",
            tooltip="Show evidence against the class, too, with a diverging colormap.",
        )
        self.export_button = PushButton(
            name="export",
            text="Export movie…",
            label="",
            tooltip="Write a movie of all layers (mp4); of a volume, the shown plane.",
        )
        self.status = Status()
        self.settings = SettingsSection(self._masks)

    def _fields(self) -> list[Any]:
        return [
            Form([self.image]),
            self.view_words,
            Form([self.channels, self.network, self.classes, self.method]),
            self.road,
            Column([self.run_button, self.predict_button, self.live], "horizontal"),
            Form([self.normalization]),
            self.signed,
            self.status,
        ]

    @property
    def native(self) -> QWidget:
        """The widget that scrolls, as napari docks this one."""
        return self.root_native_widget

    def _lay_out(self) -> None:
        narrow(self.image.native, 10)
        self.network.native.parentWidget().layout().addWidget(self.network.button)
        layout = super().native.layout()
        layout.setSpacing(6)
        self.view_words.native.setWordWrap(True)
        fit_width(self.view_words)
        self.sections = {
            "Ask": Section(
                "Ask", "What if a region were not there? Explain a box, or windows.", self._make_ask
            ),
            "Save": Section("Save", "Movies and cards.", self._make_save),
            "Settings": Section(
                "Settings",
                "Settings of network, maps, scores and computation.",
                self._make_settings,
            ),
        }
        for section in self.sections.values():
            layout.addWidget(section)
        layout.addStretch()
        root = self.native
        root.setMinimumWidth(WIDTH)
        root.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._wheel = IgnoreWheel()
        self._wheel.watch(root)
        self._closing = _Closing(self.close_dock)
        root.installEventFilter(self._closing)
        # Closing napari deletes the widget without an event; results of a job can still arrive.
        root.destroyed.connect(self._closing.close)

    def _make_ask(self) -> QWidget:
        self.ask = AskSection(
            self.viewer,
            self.session,
            self.explainer,
            self.settings.forms["region_test"].values,
        )
        self._wheel.watch(self.ask.native)
        self.ask.region.altered.connect(self._on_region)
        self.ask.region.draw_button.clicked.connect(self._draw_box)
        return self.ask.native

    def _draw_box(self) -> None:
        if self.image.value is None:
            self.status.show_message(
                "Open an image first, such as one of File > Open Sample.", True
            )
        elif self.ask is not None:
            self.ask.region.draw(self.image.value)

    def _on_region(self) -> None:
        self._show_view()
        self._on_change()

    def _make_save(self) -> QWidget:
        self._save = Column([self.export_button, self.settings.save])
        return self._save.native

    def _make_settings(self) -> QWidget:
        self._list_devices()
        self._wheel.watch(self.settings.native)
        return self.settings.native

    def _images(self, widget: Any = None) -> list[tuple[str, Image]]:
        layers = [unwrapped(layer) for layer in self.viewer.layers]
        return [(layer.name, layer) for layer in layers if is_input(layer)]

    def _channel_choices(self, widget: Any = None) -> list[tuple[str, Any]]:
        """Return the axes and layers that can hold the channels of the network's input."""
        image = self._explained_image
        choices: list[tuple[str, Any]] = [("as shown", AS_SHOWN)]
        if image is None or image.rgb:
            return choices
        names, shape = axis_names(image), image.data.shape
        first = self.viewer.dims.ndim - image.ndim
        displayed = [axis - first for axis in self.viewer.dims.displayed]
        choices += [
            (f"axis {names[axis]} ({shape[axis]})", axis)
            for axis in range(image.ndim)
            if axis not in displayed and 2 <= shape[axis] <= MOST_CHANNELS
        ]
        selected = [unwrapped(layer) for layer in self.viewer.layers.selection]
        if sum(is_input(layer) for layer in selected) > 1:
            choices.append(("the selected layers", SELECTED))
        return choices

    def _channels(self) -> int | list[Image] | None:
        """Return the axis, or the other layers, with the channels of the network's input."""
        chosen = self.channels.value
        if isinstance(chosen, int):
            return chosen
        if chosen != SELECTED:
            return None
        images = [layer for _, layer in self._images()]
        selected = [unwrapped(layer) for layer in self.viewer.layers.selection]
        image = self._explained_image
        return [layer for layer in images if layer in selected and layer is not image]

    def _view(self) -> View:
        """Return what is explained.

        Raises
        ------
        ImageError
            If the selected layers cannot be channels of one image.
        """
        view = take_view(self.viewer, self.image.value, self._channels())
        return view if self.ask is None else self.ask.region.apply(view, self.image.value)

    def _windows(self) -> dict[str, Any] | None:
        return None if self.ask is None else self.ask.region.windows()

    def _show_view(self) -> None:
        """Show what Run explains."""
        words = ""
        if self.image.value is not None:
            loaded = self.runner.networks.model
            space = 3 if self.settings.all_slices() or (loaded and loaded.dims == 3) else 2
            try:
                words = self._view().words(space)
                words += ", window by window" if self._windows() is not None else ""
            except CamError as error:
                words = str(error)
        self.view_words.value = words

    def _masks(self, widget: Any = None) -> list[tuple[str, Labels]]:
        layers = [unwrapped(layer) for layer in self.viewer.layers]
        return [
            (layer.name, layer)
            for layer in layers
            if isinstance(layer, Labels) and KEY not in layer.metadata
        ]

    # -- Connections -------------------------------------------------------------------------------

    def _connect_fields(self) -> None:
        self.image.changed.connect(self._on_image)
        self.channels.changed.connect(self._on_channels)
        self.network.changed.connect(self._on_network)
        self.classes.changed.connect(self._on_change)
        self.method.changed.connect(self._on_method)
        self.live.changed.connect(self._on_change)
        self.normalization.changed.connect(self.session.set_normalization)
        self.signed.changed.connect(self.session.set_signed)
        self.run_button.clicked.connect(self.run_or_cancel)
        self.predict_button.clicked.connect(self.predict)
        self.export_button.clicked.connect(self._choose_and_export)
        self.status.offer.clicked.connect(self._show_unplaced)
        self.settings.save.clicked.connect(self._choose_and_save)
        self.settings.mask.changed.connect(self._on_mask)
        self.settings.changed.connect(self._on_change)
        for form in (self.settings.overrides, self.settings.weights, self.settings.classes):
            form.changed.connect(self._on_network)
        self.runner.started.connect(self._on_started)
        self.runner.finished.connect(self._on_finished)
        self.explainer.said.connect(self._on_message)
        self.explainer.progressed.connect(self.status.show_progress)
        self.explainer.shown.connect(self._on_shown)
        self.explainer.listed.connect(self._on_classes)
        self._delay = QTimer()
        self._delay.setSingleShot(True)
        self._delay.setInterval(DELAY)
        self._delay.timeout.connect(self._run_live)

    def _connect_session(self) -> None:
        layers = self.viewer.layers.events
        for event, slot in (
            (layers.inserted, self._refresh),
            (layers.removed, self._on_removed),
            (layers.reordered, self._refresh),
            (layers.renamed, self._refresh),
            (self.viewer.layers.selection.events.changed, self._on_selection),
            (self.session.current_changed, self._on_stack),
            (self.session.updated, self._on_stack),
            (self.session.moved, self._on_moved),
        ):
            event.connect(slot)
            self._connections.append((event, slot))

    # -- Layers of the viewer ----------------------------------------------------------------------

    def _refresh(self, event: Any = None) -> None:
        """Update the lists of images and masks, keeping the choices."""
        self.image.reset_choices()
        self.channels.reset_choices()
        self.settings.mask.reset_choices()
        self._follow_selection()
        self._on_stack()

    def _on_removed(self, event: Any = None) -> None:
        # Layers can be garbage now.
        include_all()
        images = [layer for _, layer in self._images()]
        removed = unwrapped(getattr(event, "value", None))
        if removed is not None and removed not in images and isinstance(removed, Image):
            self.explainer.forget(removed)
        self._refresh()

    def _follow_selection(self, event: Any = None) -> None:
        """Choose the selected layer, if it is one of the listed images."""
        active = unwrapped(self.viewer.layers.selection.active)
        if any(layer is active for _, layer in self._images()):
            self.image.value = active

    def _on_stack(self, stack: Any = None) -> None:
        """Show the normalisation of the current stack."""
        current = self.session.current
        self.export_button.enabled = current is not None
        if current is not None:
            with self.normalization.changed.blocked(), self.signed.changed.blocked():
                self.normalization.value = current.data.normalization
                self.signed.value = current.data.signed

    def _on_moved(self) -> None:
        image = self._explained_image
        if image is None:
            return
        dims = self.viewer.dims
        # The sliders of the image are part of the input, that of the layers is not.
        place = (tuple(dims.point[-image.ndim :]), tuple(dims.displayed), image.contrast_limits)
        if place != self._place:
            self._place = place
            self._show_view()
            self._on_change()

    def _on_selection(self, event: Any = None) -> None:
        self.channels.reset_choices()
        self.channels.visible = len(self.channels.choices) > 1
        self._follow_selection()

    # -- Changes of fields -------------------------------------------------------------------------

    def _on_image(self, image: Image | None) -> None:
        if image is self._explained_image:
            return
        self._explained_image = image
        self._on_selection()
        self._place = None
        self._on_moved()
        self.settings.set_depth(image is not None and image.ndim > 2)
        self._suggest_network()
        self._on_network()

    def _on_channels(self, value: Any = None) -> None:
        self._show_view()
        self._on_network()

    def _on_network(self, value: Any = None) -> None:
        self.classes.clear_classes()
        self._input_version += 1
        self._on_change()

    def _on_method(self, value: Any = None) -> None:
        self.settings.set_method(self.method.method())
        self.sections["Settings"].adapt()
        self._on_change()

    def _on_change(self, value: Any = None) -> None:
        """Run again if the dock is live; called for every change of a field."""
        if self.live.value:
            self._delay.start()

    def _on_mask(self, layer: Labels | None) -> None:
        stack = self.session.current
        if stack is not None and stack.data.run.image is self.image.value:
            self.explainer.compare_with_mask(stack, self._mask())

    def _suggest_network(self) -> None:
        if not self.network.value:
            self.network.value = "demo/ultrasound"

    def _list_devices(self) -> None:
        """List the devices of the computer, which imports torch."""
        if self._device_search is None:
            self._device_search = Task(_devices)
            self._device_search.succeeded.connect(self.settings.set_devices)
            self._device_search.start()

    # -- Explaining --------------------------------------------------------------------------------

    def request(self) -> RunRequest | None:
        """Return the contents of the dock, or show what is missing or invalid."""
        image = self.image.value
        if image is None:
            text = "Open an image first, such as one of File > Open Sample."
            self.status.show_message(text, error=True)
            return None
        self.classes.complete()
        self.method.complete()
        try:
            return RunRequest(
                network=ModelSpec(self.network.source(), self.settings.network()),
                view=self._view(),
                slices=self.settings.all_slices(),
                targets=self.classes.requests(),
                method=self.method.value,
                settings=self.settings.run(),
                findings=self.settings.findings(road=bool(self.road.value)),
                mask=self._mask(),
                windows=self._windows(),
            )
        except CamError as error:
            self.status.show_message(str(error), error=True)
            return None

    def run(self) -> None:
        """Explain the chosen image and add the stack to the viewer."""
        request = self.request()
        if request is not None:
            self.explainer.run(request, self.image.value, self._normalization())

    def run_or_cancel(self) -> None:
        """Run, or cancel what is running."""
        if self.runner.running:
            self.explainer.cancel()
            self.run_button.text, self.run_button.enabled = "Cancelling…", False
        else:
            self.run()

    def _run_live(self) -> None:
        """Show the maps of what the viewer and the dock show now, in the current stack of the image."""
        if not self.live.value or self._closed or self.image.value is None:
            return
        request, stack = self.request(), self.session.current
        if request is None:
            return
        if stack is not None and stack.data.run.image is not self.image.value:
            stack = None
        if self.ask is not None:
            stack = self.ask.tool.base_of(stack)
        shown = None if stack is None else stack.data.run.request
        if shown is None or shown.key != request.key:
            self.explainer.run(request, self.image.value, self._normalization(), into=stack)

    def predict(self) -> None:
        """List the likeliest classes, followed by the others."""
        request = self.request()
        if request is not None:
            self._predicted_version = self._input_version
            self.explainer.predict(request)

    def _normalization(self) -> Normalization:
        chosen: Normalization = self.normalization.value
        return chosen

    def _mask(self) -> Mask | None:
        layer = self.settings.mask.value
        return None if layer is None else take_mask(layer)

    def _on_shown(self, explained: Explained) -> None:
        self.network.add_item(explained.request.network.source)

    def _show_unplaced(self) -> None:
        self.explainer.show_unplaced()
        self.status.offer.visible = False

    def _on_classes(self, classes: Classes) -> None:
        if self._predicted_version != self._input_version:
            self.status.show_message("Network, image or fit were changed: press Predict again.")
            return
        self.classes.set_classes(classes)
        best = classes.predictions[0]
        suffix = " over all slices" if self.settings.all_slices() else ""
        text = f"{best.name}, with probability {best.probability:.3f}{suffix}."
        self.status.show_message(text)

    # -- State of the runner -----------------------------------------------------------------------

    def _on_started(self) -> None:
        self.run_button.text = "Cancel"
        self.status.set_running(True)

    def _on_finished(self) -> None:
        self.run_button.text, self.run_button.enabled = "Run", True
        self.status.set_running(False)

    def _on_message(self, text: str, error: bool) -> None:
        self.status.show_message(text, error)
        self.status.offer.visible = self.explainer.unplaced is not None

    # -- Files -------------------------------------------------------------------------------------

    def export(self, path: str | Path) -> None:
        """Write the movie of the current stack; of a volume, of the shown plane.

        Parameters
        ----------
        path : path-like
            Must end in ``.mp4``.
        """
        stack = self.session.current
        if stack is None:
            self.status.show_message("No stack to export: press Run first.", error=True)
            return
        animation, normalization = stack.data.animation, stack.data.normalization
        z = shown_plane(self.viewer, stack)

        def job(progress: Progress) -> Path:
            written: Path = animation.write_movie(
                path, normalization=normalization, z=z, progress=progress
            )
            return written

        self.runner.start(Job(job, self._show_written))

    def save_card(self, path: str | Path) -> None:
        """Write the network and its settings as a card.

        Parameters
        ----------
        path : path-like
            Must end in ``.toml``.
        """
        request = self.request()
        if request is None:
            return
        spec, networks = request.network, self.runner.networks

        def job(progress: Progress) -> Path:
            # Before the network is loaded, which may download weights.
            checked_path(path, ".toml")
            return networks.load(spec, progress).save_card(path)

        self.runner.start(Job(job, self._show_written))

    def _show_written(self, path: Path) -> None:
        self.status.show_message(f"Wrote {path}.")

    def _choose_and_export(self) -> None:
        self._choose("Export movie", "layers.mp4", "Movie (*.mp4)", self.export)

    def _choose_and_save(self) -> None:
        self._choose("Save card", "network.toml", "Card (*.toml)", self.save_card)

    def _choose(self, title: str, name: str, pattern: str, write: Callable[[str], None]) -> None:
        path, _ = QFileDialog.getSaveFileName(self.native, title, name, pattern)
        if path:
            suffix = Path(name).suffix
            write(path if path.lower().endswith(suffix) else f"{path}{suffix}")

    # -- Between sessions --------------------------------------------------------------------------

    def _restore(self) -> None:
        values = remembered()
        self.network.value = str(values.get("network", ""))
        self.method.value = str(values.get("method", self.method.value))
        self.road.value = bool(values.get("road", False))
        if values.get("scale") in self.normalization.choices:
            self.normalization.value = values["scale"]
        self.settings.restore(values.get("settings", {}))
        self.settings.set_method(self.method.method())

    def _remember(self) -> None:
        remember(
            {
                "network": self.network.source(),
                "method": self.method.value,
                "road": self.road.value,
                "scale": self.normalization.value,
                "settings": self.settings.record(),
            }
        )

    # -- Closing -----------------------------------------------------------------------------------

    def close_dock(self, *, deleted: bool = False) -> None:
        """Cancel the running job, release the network, and disconnect from the viewer.

        Parameters
        ----------
        deleted : bool
            Whether the widgets are being deleted, as the viewer is closed.
        """
        if self._closed:
            return
        self._closed = True
        self._remember()
        self._delay.stop()
        if self.ask is not None:
            self.ask.close(remove=not deleted)
        self.runner.close()
        self.explainer.forget_all()
        if self._device_search is not None:
            self._device_search.succeeded.disconnect()
        while self._connections:
            event, slot = self._connections.pop()
            event.disconnect(slot)
        self.session.release()
        include_all()


class _Closing(QObject):
    """Notices that napari closes the dock: by a close event, or by removing its parent."""

    def __init__(self, close: Callable[..., None]) -> None:
        super().__init__()
        self._close = close

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Close the dock after its last event."""
        parted = event.type() == QEvent.Type.ParentChange and watched.parent() is None
        if parted or event.type() == QEvent.Type.Close:
            self._close()
        return False

    def close(self, *_: object) -> None:
        """Close the dock, as its widgets are deleted."""
        self._close(deleted=True)


def _devices(progress: Progress) -> list[str]:
    return jobs.devices()
