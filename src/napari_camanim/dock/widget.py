"""The dock widget: explains images of the viewer, and shows what is computed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, Container, Label, PushButton, RadioButtons
from napari.layers import Image, Labels
from napari.qt.threading import create_worker
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import QFileDialog, QWidget

from camanim.cache_folder import set_cache_folder
from camanim.errors import CamError
from camanim.models.domain import FIRST, suggest_model
from camanim.writing import checked_path
from napari_camanim.canvas.presets import PRESETS, Preset, apply_preset
from napari_camanim.commands import bind_keys, unbind_keys
from napari_camanim.dock.class_field import ClassField
from napari_camanim.dock.form import Column, Form, fit_width, show_words
from napari_camanim.dock.method_field import MethodField
from napari_camanim.dock.network_field import NetworkField, confirm_trust
from napari_camanim.dock.remembered import remember, remembered
from napari_camanim.dock.search_field import IgnoreWheel, narrow
from napari_camanim.dock.sections import Section, SettingsSection
from napari_camanim.dock.status import Status
from napari_camanim.layers.metadata import KEY
from napari_camanim.layers.stack import is_input
from napari_camanim.layers.views import Mask, View, axis_names, take_mask, take_view
from napari_camanim.preferences import Preferences, preferences
from napari_camanim.session import Session, shown_plane, unwrapped
from napari_camanim.work import jobs
from napari_camanim.work.collection import include_all
from napari_camanim.work.estimator import Estimator
from napari_camanim.work.explainer import Explainer
from napari_camanim.work.networks import ModelSpec
from napari_camanim.work.request import RunRequest
from napari_camanim.work.runner import Job, Runner
from napari_camanim.work.task import Task

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from camanim.progress import Progress
    from camanim.stack import Normalization
    from napari_camanim.ask.section import AskSection
    from napari_camanim.comparison.requests import LabelledRequest
    from napari_camanim.tree.section import LayersSection
    from napari_camanim.work.jobs import Classes, Explained

#: Milliseconds after the last change until a live run starts.
DELAY = 40
#: Milliseconds after the dock was opened until its settings are made.
IDLE = 400
#: Milliseconds until a live run shows that it is running. With software OpenGL, Qt draws the whole
#: window for each change of a line in the dock, which takes as long as the maps.
PATIENCE = 300
#: Choices of the field for channels: grey or colours as shown, and the selected layers.
AS_SHOWN, SELECTED = "shown", "selected"
#: Side in pixels of the part of a large image by which the first network is chosen.
SAMPLE = 1024
#: The longest axis that can hold channels.
MOST_CHANNELS = 16
NO_IMAGE = "Open an image first, such as one of File > Open Sample."
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
        #: Network that was chosen for the image, and not by the user.
        self._suggested = ""
        #: Incremented when inputs of Predict change, to discard outdated results.
        self._input_version = 0
        self._predicted_version = -1
        #: Whether a mask was chosen during a job, after which the maps are compared with it.
        self._mask_changed = False
        self._closed = False
        #: The section "Ask", once it was opened.
        self.ask: AskSection | None = None
        self._panel_shown = False
        #: The section "Layers", once it was opened.
        self.layers: LayersSection | None = None
        self._settings: SettingsSection | None = None
        self._recorded: dict[str, Any] = {}
        self._create_fields()
        super().__init__(widgets=self._fields(), scrollable=True, labels=False)
        self.runner = Runner(partial(confirm_trust, self.native))
        self.explainer = Explainer(self.session, self.runner)
        self.estimator = Estimator(self.runner)
        self._lay_out()
        self._connect_fields()
        self._connect_session()
        self._restore()
        self._refresh()
        self._idle.start()
        self._keys = bind_keys(napari_viewer)

    # -- Fields ------------------------------------------------------------------------------------

    def _create_fields(self) -> None:
        self.image = ComboBox(
            name="image",
            label="Image",
            choices=self._images,
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
        self.preset = ComboBox(
            name="view",
            label="View",
            choices=PRESETS,
            tooltip="The map over the image, beside it, or opaque.",
        )
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
        self.card_button = PushButton(
            text="Save card…", tooltip="Write the network and its settings to a card (.toml)."
        )
        self.cost = Label(name="cost", tooltip="Expected cost of Run; known for a loaded network.")
        self.domain = Label(name="domain", tooltip="What the network was trained on.")
        self.status = Status()

    def _fields(self) -> list[Any]:
        return [
            Form([self.image]),
            self.view_words,
            Form([self.channels, self.network]),
            self.domain,
            Form([self.classes, self.method]),
            self.road,
            Column([self.run_button, self.predict_button, self.live], "horizontal"),
            self.cost,
            Form([self.normalization, self.preset]),
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
        for label in (self.view_words, self.domain, self.cost):
            label.native.setWordWrap(True)
            fit_width(label)
            show_words(label, label.value)
        self.sections = {
            "Layers": Section(
                "Layers", "The network as the tree of its modules.", self._make_layers
            ),
            "Ask": Section(
                "Ask", "What if a region were not there? Explain a box, or windows.", self._make_ask
            ),
            "Compare": Section(
                "Compare", "Several methods, classes or networks side by side.", self._make_compare
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
        self._closing = _Closing(self.close_dock, self._abandon)
        root.installEventFilter(self._closing)
        # Closing napari deletes the widget without an event; results of a job can still arrive.
        root.destroyed.connect(self._closing.abandon)

    def _make_layers(self) -> QWidget:
        from napari_camanim.tree.section import LayersSection

        self.layers = LayersSection(self.viewer)
        return self.layers.native

    def _make_ask(self) -> QWidget:
        # Here, as it imports SciPy.
        from napari_camanim.ask.section import AskSection

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
            self._refuse(NO_IMAGE)
        elif self.ask is not None:
            self.ask.region.draw(self.image.value)

    def _on_region(self) -> None:
        self._show_view()
        self._on_change()

    def _make_compare(self) -> QWidget:
        from napari_camanim.comparison.section import CompareSection

        self.compare = CompareSection(self.viewer, self.request, self._run_all, self._refuse)
        return self.compare.native

    def _run_all(self, labelled: list[LabelledRequest]) -> None:
        """Run several requests and show them side by side."""
        notes = [note for each in labelled for note in each.notes]
        if notes:
            self.status.show_message(" ".join(dict.fromkeys(notes)))
        requests = [each.request for each in labelled]
        self.explainer.compare(requests, self.image.value, self._normalization())

    def _refuse(self, text: str) -> None:
        self.status.show_message(text, error=True)

    def _make_save(self) -> QWidget:
        self._save = Column([self.export_button, self.card_button])
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
            slices = self._settings is not None and self._settings.all_slices()
            space = 3 if slices or (loaded is not None and loaded.dims == 3) else 2
            try:
                words = self._view().words(space)
                words += ", window by window" if self._windows() is not None else ""
            except CamError as error:
                words = str(error)
        show_words(self.view_words, words)

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
        self.road.changed.connect(self._on_change)
        self.live.changed.connect(self._on_change)
        self.normalization.changed.connect(self.session.set_normalization)
        self.signed.changed.connect(self.session.set_signed)
        self.preset.changed.connect(self._on_preset)
        self.run_button.clicked.connect(self.run_or_cancel)
        self.predict_button.clicked.connect(self.predict)
        self.export_button.clicked.connect(self.choose_and_export)
        self.status.offer.clicked.connect(self._show_unplaced)
        self.card_button.clicked.connect(self._choose_and_save)
        self.runner.started.connect(self._on_started)
        self.runner.finished.connect(self._on_finished)
        self.estimator.estimated.connect(self._on_cost)
        self.explainer.said.connect(self._on_message)
        self.explainer.progressed.connect(self.status.show_progress)
        self.explainer.shown.connect(self._on_shown)
        self.explainer.listed.connect(self._on_classes)
        # Deleted with the widget, of which they would use fields.
        self._delay = _single_shot(self.native, DELAY, self._run_live)
        self._idle = _single_shot(self.native, IDLE, self._fill)
        self._patience = _single_shot(self.native, PATIENCE, self._show_running)

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
        self.reset_choices()
        self._follow_selection()
        # A change of the list is not announced as a change of the value.
        self._on_image(self.image.value)
        self._on_stack()

    def reset_choices(self, *_: Any) -> None:
        """Update the lists of images and masks; napari calls this, too, when layers change."""
        if self._closed:
            return
        # Without signals: findings remain valid when their mask is removed.
        self.channels.reset_choices()
        if self._settings is not None:
            _list_again(self._settings.mask)
        _list_again(self.image, next((layer for _, layer in self._images()), None))

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
        self.export_button.enabled = current is not None and not self.runner.running
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
        if image is None:
            self._show_view()
        else:
            self._on_moved()
        if self._settings is not None:
            self._settings.set_depth(image is not None and image.ndim > 2)
        self._suggest_network()
        self._on_network()

    def _on_preset(self, preset: Preset) -> None:
        apply_preset(self.viewer, preset)

    def _on_channels(self, value: Any = None) -> None:
        self._show_view()
        self._on_network()

    def _on_network(self, value: Any = None) -> None:
        self.classes.clear_classes()
        show_words(self.domain, "")
        self._input_version += 1
        self._on_change()

    def _on_method(self, value: Any = None) -> None:
        if self._settings is not None:
            self._settings.set_method(self.method.method())
            self.sections["Settings"].adapt()
        self._on_change()

    def _on_change(self, value: Any = None) -> None:
        """Run again if the dock is live, or estimate what Run would cost; after every change."""
        if self.live.value:
            show_words(self.cost, "")
            self._delay.start()
        else:
            self._estimate()

    def _on_mask(self, layer: Labels | None) -> None:
        self._mask_changed = True
        self._compare_with_mask()

    def _compare_with_mask(self) -> None:
        """Compare the current stack with the chosen mask, unless a job is running."""
        if self.runner.running:
            return
        self._mask_changed = False
        stack = self.session.current
        # Only a stack of the chosen image, which the mask belongs to.
        if stack is not None and stack.data.run.image is self.image.value:
            self.explainer.compare_with_mask(stack, self._mask())

    def _show_price(self, name: str, checked: bool) -> None:
        """Show what a finding would cost for the current stack, when its box is checked."""
        stack = self.session.current
        if not checked or stack is None or self.runner.running:
            return
        try:
            price = self.settings.price(name, stack.data.animation)
        except CamError as error:
            price = str(error)
        if price:
            self.status.show_message(price)

    def _suggest_network(self) -> None:
        """Choose a network that fits the image, unless the user has chosen one."""
        image = self._explained_image
        if image is None or self.network.value not in ("", self._suggested):
            return
        suggested = None
        # Nothing is computed or read from a file for it, and of a large image a part is enough.
        if image.rgb or isinstance(image.data, np.ndarray):
            # The view may show no slice.
            with suppress(CamError):
                view = take_view(self.viewer, image, self._channels())
                sides = view.region(2).size
                start = [max(0, (n - SAMPLE) // 2) for n in sides]
                stop = [min(n, at + SAMPLE) for n, at in zip(sides, start, strict=True)]
                view = view.within((*start, *stop), 2)
                suggested = suggest_model(view.read(2).pixels)
        self._suggested = suggested or FIRST
        self.network.value = self._suggested

    def _estimate(self) -> None:
        """Estimate the cost of what is chosen, in the background."""
        if self._closed or self.image.value is None or self.runner.running:
            return
        if self._settings is None:
            # The dock is just being opened.
            return
        try:
            request = self._contents()
        except CamError:
            # The message comes with Run.
            show_words(self.cost, "")
            return
        self.estimator.estimate(request)

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
            self._refuse(NO_IMAGE)
            return None
        self.classes.complete()
        self.method.complete()
        try:
            return self._contents()
        except CamError as error:
            self._refuse(str(error))
            return None

    def _contents(self) -> RunRequest:
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

    def run(self) -> None:
        """Explain the chosen image and add the stack to the viewer."""
        request = self.request()
        if request is not None:
            self._show_panel()
            self.explainer.run(
                request, self.image.value, self._normalization(), signed=bool(self.signed.value)
            )

    def _show_panel(self) -> None:
        """Show the panel of scores with the first run; the user may close it."""
        if not self._panel_shown:
            from napari_camanim.plots.panel import show_panel

            self._panel_shown = True
            show_panel(self.viewer)

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
            self.explainer.run(
                request,
                self.image.value,
                self._normalization(),
                stack,
                signed=bool(self.signed.value),
            )
        elif self.explainer.explaining not in (None, request.key):
            # Back at what is shown, before the maps of another slice were computed.
            self.explainer.drop()

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
        self._show_domain()

    def _show_domain(self) -> None:
        """Show what the chosen network was trained on, if it is loaded."""
        model = self.runner.networks.model
        words = ""
        if model is not None and model.random_weights:
            words = "random weights, not trained"
        elif model is not None and model.domain:
            words = f"trained on {model.domain}"
        show_words(self.domain, words)

    def _show_unplaced(self) -> None:
        self.explainer.show_unplaced()
        self.status.offer.visible = False

    def _on_classes(self, classes: Classes) -> None:
        if self._predicted_version != self._input_version:
            self.status.show_message("Network, image or fit were changed: press Predict again.")
            return
        self.classes.set_classes(classes)
        self._show_domain()
        best = classes.predictions[0]
        suffix = " over all slices" if self.settings.all_slices() else ""
        text = f"{best.name}, with probability {best.probability:.3f}{suffix}."
        self.status.show_message(text)

    # -- State of the runner -----------------------------------------------------------------------

    def _on_started(self) -> None:
        # Writing a file would replace the job.
        self.export_button.enabled = self.card_button.enabled = False
        if self.live.value:
            self._patience.start()
        else:
            self._show_running()

    def _show_running(self) -> None:
        self.run_button.text = "Cancel"
        self.status.set_running(True)
        self.status.show_message("")

    def _on_finished(self) -> None:
        self._patience.stop()
        self.run_button.text, self.run_button.enabled = "Run", True
        self.card_button.enabled = True
        self.status.set_running(False)
        self._on_stack()
        if self._mask_changed:
            self._compare_with_mask()
        elif not self.live.value:
            self._estimate()

    def _on_cost(self, words: str) -> None:
        show_words(self.cost, words)

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
            self._refuse("No stack to export: press Run first.")
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
        if self._closed:
            return
        self.status.show_message(f"Wrote {path}.")

    def choose_and_export(self) -> None:
        """Choose a file and write a movie of the current stack."""
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
        """Set the fields as they were in the last session."""
        values = remembered()
        # First, as changes of the other fields may need the settings.
        settings = values.get("settings")
        self._recorded = settings if isinstance(settings, dict) else {}
        for name, field in (("network", self.network), ("method", self.method)):
            if isinstance(values.get(name), str):
                field.value = values[name]
        self.road.value = bool(values.get("road", False))
        if values.get("scale") in self.normalization.choices:
            self.normalization.value = values["scale"]
        self._restored = (self.network.value, self.method.value)
        # Read in a thread, as napari parses the manifests of all plugins for it.
        self._preferences = create_worker(preferences)
        self._preferences.returned.connect(self._prefer)
        self._preferences.start()

    def _prefer(self, preferred: Preferences) -> None:
        """Set the fields to the user's preferences."""
        if self._closed:
            return
        if preferred.cache_folder:
            set_cache_folder(preferred.cache_folder)
        network, method = self._restored
        # Unless the user has chosen another one in the meantime.
        if preferred.network and self.network.value in (network, self._suggested):
            self.network.value = preferred.network
        if preferred.method and self.method.value == method and not self.runner.running:
            self.method.value = preferred.method
        if preferred.device:
            self.settings.restore({"device": preferred.device})

    def _remember(self) -> None:
        recorded = self._recorded if self._settings is None else self._settings.record()
        remember(
            {
                "network": "" if self.network.value == self._suggested else self.network.source(),
                "method": self.method.value,
                "road": self.road.value,
                "scale": self.normalization.value,
                "settings": recorded,
            }
        )

    @property
    def settings(self) -> SettingsSection:
        """Settings of network, maps, scores and computation; made when they are first needed."""
        if self._settings is None:
            self._settings = section = SettingsSection(self._masks)
            section.restore(self._recorded)
            section.set_method(self.method.method())
            image = self._explained_image
            section.set_depth(image is not None and image.ndim > 2)
            section.mask.changed.connect(self._on_mask)
            for name, box in section.boxes.items():
                box.changed.connect(partial(self._show_price, name))
            section.changed.connect(self._on_change)
            for form in (section.overrides, section.weights, section.classes):
                form.changed.connect(self._on_network)
        return self._settings

    def _fill(self) -> None:
        """Make the settings and import the panel, shortly after the dock was opened."""
        section = self.settings
        self._wheel.watch(section.native)
        # In a thread: with the first run, the window would wait for the import.
        self._importer = create_worker(import_module, "napari_camanim.plots.panel")
        self._importer.start()

    # -- Closing -----------------------------------------------------------------------------------

    def close_dock(self) -> None:
        """Cancel the running job, release the network, and disconnect from the viewer.

        What was computed until then is still added to the viewer.
        """
        if not self._closed:
            for timer in (self._delay, self._idle, self._patience):
                timer.stop()
            self._remember()
            unbind_keys(self.viewer, self._keys)
            if self.ask is not None:
                self.ask.close()
            self._disconnect()

    def _disconnect(self) -> None:
        """Close what has no widget; the widgets may be deleted already."""
        if self._closed:
            return
        self._closed = True
        if self.ask is not None:
            self.ask.close(remove=False)
        self.runner.close()
        if self.layers is not None:
            self.layers.close()
        # Reports that wait in the queue of events would arrive when the fields are deleted.
        explainer = self.explainer
        for signal in (explainer.said, explainer.progressed, explainer.shown, explainer.listed):
            signal.disconnect()
        self.estimator.close()
        explainer.forget_all()
        if self._device_search is not None:
            self._device_search.succeeded.disconnect()
        while self._connections:
            event, slot = self._connections.pop()
            event.disconnect(slot)
        layers = self.viewer.layers.events
        # napari connected them.
        for event in (layers.inserted, layers.removed, layers.reordered):
            event.disconnect(self.reset_choices)
        self.session.release()
        include_all()

    def _abandon(self) -> None:
        """Drop what is still computed, as napari has deleted the window."""
        self.explainer.abandon()
        self._disconnect()


class _Closing(QObject):
    """Notices that napari closes the dock: by a close event, or by removing its parent."""

    def __init__(self, close: Callable[[], None], abandon: Callable[[], None]) -> None:
        super().__init__()
        self._close, self._abandon = close, abandon

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Close the dock after its last event."""
        parted = event.type() == QEvent.Type.ParentChange and watched.parent() is None
        if parted or event.type() == QEvent.Type.Close:
            self._close()
        return False

    def abandon(self, *_: object) -> None:
        """Close the dock without its widgets, which are deleted."""
        self._abandon()


def _list_again(field: ComboBox, instead: Any = None) -> None:
    """Update the list of a field without signals.

    The choice is kept, although it can have another name; if it was removed, `instead` is chosen.
    """
    with field.changed.blocked():
        chosen = field.value
        field.reset_choices()
        if chosen is not None and chosen in field.choices:
            field.value = chosen
        elif instead is not None:
            field.value = instead


def _single_shot(parent: QObject, milliseconds: int, slot: Callable[[], None]) -> QTimer:
    """Return a timer that calls a function once after each start."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(slot)
    return timer


def _devices(progress: Progress) -> list[str]:
    return jobs.devices()
