"""The dock widget: explains images of the viewer, and shows what is computed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from napari.layers import Image, Labels
from napari.qt.threading import create_worker
from qtpy.QtWidgets import QWidget

from camanim.cache_folder import set_cache_folder
from camanim.errors import CamError
from camanim.models.names import has_prefix
from napari_camanim.canvas.fitting import keep_fitted
from napari_camanim.canvas.presets import Preset, apply_preset
from napari_camanim.commands import bind_keys, unbind_keys
from napari_camanim.dock.class_field import LIKELIEST, class_of
from napari_camanim.dock.event_filters import Closing, IgnoreWheel
from napari_camanim.dock.fields import DockFields
from napari_camanim.dock.form import show_words
from napari_camanim.dock.network_field import confirm_trust
from napari_camanim.dock.remembered import remember, remembered
from napari_camanim.dock.saving import SaveSection
from napari_camanim.dock.settings_section import SettingsSection
from napari_camanim.dock.source import Source, list_again
from napari_camanim.layers.run import Run
from napari_camanim.layers.views import Mask, View, take_mask
from napari_camanim.preferences import Preferences, preferences
from napari_camanim.session import Session, unwrapped
from napari_camanim.timers import single_shot
from napari_camanim.work import jobs
from napari_camanim.work.collection import include_all
from napari_camanim.work.estimator import Estimator
from napari_camanim.work.explainer import Explainer
from napari_camanim.work.jobs import Classes
from napari_camanim.work.networks import ModelSpec, is_loaded, is_stored
from napari_camanim.work.request import RunRequest
from napari_camanim.work.runner import Runner
from napari_camanim.work.task import Task

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from camanim import Model
    from camanim.progress import Progress
    from camanim.stack import Normalization
    from napari_camanim.ask.section import AskSection
    from napari_camanim.comparison.requests import LabelledRequest
    from napari_camanim.tree.section import LayersSection
    from napari_camanim.work.jobs import Explained

#: Milliseconds after the last change until a live run starts.
DELAY = 40
#: Milliseconds after the dock was opened until its settings are made.
IDLE = 400
#: Milliseconds until a live run shows that it is running. With software OpenGL, Qt draws the whole
#: window for each change of a line in the dock, which takes as long as the maps.
PATIENCE = 300
#: Text of the button while something is running.
CANCEL = "Cancel"
NO_IMAGE = "Open an image first, such as one of File > Open Sample."


class CamWidget(DockFields):
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
    saving : SaveSection
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        self.viewer = napari_viewer
        self.session = Session.of(napari_viewer)
        self.session.retain()
        self._connections: list[tuple[Any, Callable[..., None]]] = []
        keep_fitted(unwrapped(napari_viewer))
        self._device_search: Task | None = None
        #: Sliders of the image when it was last described.
        self._place: Any = None
        #: Network that was chosen for the image, and not by the user.
        self._suggested = ""
        #: Incremented when inputs of Predict change, to discard outdated results.
        self._input_version = 0
        self._predicted_version = -1
        #: Whether a mask was chosen during a job, after which the maps are compared with it.
        self._mask_changed = False
        #: Whether something changed while a file was written, after which a live dock runs.
        self._run_after_writing = False
        self._closed = False
        #: Runs from files that the fields were set to.
        self._described: WeakSet[Run] = WeakSet()
        #: The section "Ask", once it was opened.
        self.ask: AskSection | None = None
        #: The section "Layers", once it was opened.
        self.layers: LayersSection | None = None
        self._settings: SettingsSection | None = None
        self._recorded: dict[str, Any] = {}
        super().__init__(Source(napari_viewer, self._narrowed))
        self.runner = Runner(partial(confirm_trust, self.native))
        self.explainer = Explainer(self.session, self.runner)
        self.estimator = Estimator(self.runner)
        self.saving = SaveSection(
            self.session, self.runner, self.request, self.status.show_message, self.native
        )
        self.sections = self._add_sections(
            {
                "Layers": self._make_layers,
                "Ask": self._make_ask,
                "Compare": self._make_compare,
                "Save": self._make_save,
                "Settings": self._make_settings,
            }
        )
        self._wheel = IgnoreWheel()
        self._wheel.watch(self.native)
        self._closing = Closing(self.close_dock, self._abandon)
        self.native.installEventFilter(self._closing)
        # Closing napari deletes the widget without an event; results of a job can still arrive.
        self.native.destroyed.connect(self._closing.abandon)
        self._connect_fields()
        self._connect_session()
        self._restore()
        self._refresh()
        self._idle.start()
        self._keys = bind_keys(napari_viewer)

    # -- Sections ----------------------------------------------------------------------------------

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
        return self.saving.native

    def _make_settings(self) -> QWidget:
        self._list_devices()
        self._wheel.watch(self.settings.native)
        return self.settings.native

    def _narrowed(self, view: View, image: Image) -> View:
        """Return the part of a view that is explained."""
        return view if self.ask is None else self.ask.region.apply(view, image)

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
                words = self.source.view().words(space)
                words += ", window by window" if self._windows() is not None else ""
            except CamError as error:
                words = str(error)
        show_words(self.view_words, words)

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
        self.status.offer.clicked.connect(self._show_unplaced)
        self.runner.started.connect(self._on_started)
        self.runner.finished.connect(self._on_finished)
        self.estimator.estimated.connect(self._on_cost)
        self.explainer.said.connect(self._on_message)
        self.explainer.progressed.connect(self.status.show_progress)
        self.explainer.shown.connect(self._on_shown)
        self.explainer.listed.connect(self._on_classes)
        # Deleted with the widget, of which they would use fields.
        self._delay = single_shot(DELAY, self._run_live, self.native)
        self._idle = single_shot(IDLE, self._fill, self.native)
        self._patience = single_shot(PATIENCE, self._show_running, self.native)

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
            list_again(self._settings.mask)
        list_again(self.image, next((layer for _, layer in self.source.images()), None))

    def _on_removed(self, event: Any = None) -> None:
        # Layers can be garbage now.
        include_all()
        images = [layer for _, layer in self.source.images()]
        removed = unwrapped(getattr(event, "value", None))
        if removed is not None and removed not in images and isinstance(removed, Image):
            self.explainer.forget(removed)
        self._refresh()

    def _follow_selection(self, event: Any = None) -> None:
        """Choose the selected layer, if it is one of the listed images."""
        active = unwrapped(self.viewer.layers.selection.active)
        if any(layer is active for _, layer in self.source.images()):
            self.image.value = active

    def _on_stack(self, stack: Any = None) -> None:
        """Show the normalisation of the current stack."""
        current = self.session.current
        self.saving.enable()
        self._describe_opened()
        if current is not None:
            with self.normalization.changed.blocked(), self.signed.changed.blocked():
                self.normalization.value = current.data.normalization
                self.signed.value = current.data.signed

    def _describe_opened(self) -> None:
        """Set the fields to those of the current stack, if it was opened from a file.

        Run then continues with it: it computes what is checked, and no maps, until a field is changed.
        """
        stack = self.session.current
        if stack is None or self._settings is None or self._closed:
            return
        run: Run = stack.data.run
        if run in self._described or run.request is not None or not is_stored(run.animation):
            return
        self._described.add(run)
        described = self._show_settings_of(run)
        try:
            # Without a finding or a mask, which are no part of what was opened.
            request = self._contents() if described else None
        except CamError:
            # The view shows no slice of it.
            request = None
        if request is not None and not run.animation.cancelled:
            self.explainer.continue_opened(stack, request)
        animation = run.animation
        kept = "Cancelled: " if animation.cancelled else ""
        lines = [f"Opened {run.image_name}. {kept}{len(animation)} layers."]
        if run.request is not None:
            lines.append("Run computes what is checked for these maps, until a field is changed.")
        elif animation.windows is None:
            lines.append("Run computes new maps.")
        if animation.model.overridden:
            lines.append("The fields do not show all settings of its network.")
        text = " ".join([*lines, *animation.warnings, *animation.notes])
        self.status.show_message(text)

    def _show_settings_of(self, run: Run) -> bool:
        """Set the fields to those of an opened result; return whether its maps depend on no more."""
        animation, image = run.animation, run.image
        model = animation.model
        if image is None or not any(layer is image for _, layer in self.source.images()):
            return False
        self.image.value = image
        if model.source is not None:
            self._suggested = ""
            if has_prefix(model.source):
                self.network.add_item(model.source)
                self.network.value = model.source
            else:
                self.network.choose(model.source)
        self.settings.show_network(model.weights)
        class_ = class_of(animation.target)
        self.classes.set_classes(Classes([], model.classes))
        self.classes.value = class_ or LIKELIEST
        self.method.value = animation.method
        show_words(self.domain, domain_words(model))
        if animation.computed_with is None or animation.windows is not None:
            return False
        is_shown = bool(model.source) and not model.overridden
        return self.settings.show_run(animation.computed_with[1]) and is_shown and bool(class_)

    def _on_moved(self) -> None:
        place = self.source.place()
        # The slider of the layers is no part of it.
        if place is not None and place != self._place:
            self._place = place
            self._show_view()
            self._on_change()

    def _on_selection(self, event: Any = None) -> None:
        self.source.list_channels()
        self._follow_selection()

    # -- Changes of fields -------------------------------------------------------------------------

    def _on_image(self, image: Image | None) -> None:
        if image is self.source.explained:
            return
        self.source.explained = image
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
        if not is_loaded(stack.data.animation):
            # It would be loaded here.
            return
        try:
            price = self.settings.price(name, stack.data.animation)
        except CamError as error:
            price = str(error)
        if price:
            self.status.show_message(price)

    def _suggest_network(self) -> None:
        """Choose a network that fits the image, unless the user has chosen one."""
        if self.source.explained is not None and self.network.value in ("", self._suggested):
            self._suggested = self.network.value = self.source.suggested_network()

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
            view=self.source.view(),
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
            self.status.show_message("")
            self.explainer.run(
                request, self.image.value, self._normalization(), signed=bool(self.signed.value)
            )

    def _show_panel(self) -> None:
        """Show the panel of scores with the first run; the user may close it."""
        if not self.session.panel_shown:
            from napari_camanim.plots.panel import show_panel

            self.session.panel_shown = True
            show_panel(self.viewer)

    def run_or_cancel(self) -> None:
        """Run, or cancel what is running."""
        # What the button says; a live run is shown only after a moment.
        if self.run_button.text == CANCEL:
            self.explainer.cancel()
            self.run_button.text, self.run_button.enabled = "Cancelling…", False
        elif self.run_button.enabled:
            self.run()

    def _run_live(self) -> None:
        """Show the maps of what the viewer and the dock show now, in the current stack of the image."""
        if not self.live.value or self._closed or self.image.value is None:
            return
        if self.runner.writing:
            self._run_after_writing = True
            return
        request, stack = self.request(), self.session.current
        if request is None:
            return
        if stack is not None and stack.data.run.image is not self.image.value:
            stack = None
        if self.ask is not None:
            stack = self.ask.tool.base_of(stack)
        shown = None if stack is None else stack.data.run.request
        if shown is None and stack is not None and is_stored(stack.data.animation):
            # Nothing could bring back what was opened.
            stack = None
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
            self.status.show_message("")
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
        show_words(self.domain, domain_words(self.runner.networks.model))

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
        self.saving.enable()
        # Of a job that follows a cancelled one.
        self.run_button.enabled = True
        if self.live.value and not self.status.running:
            self._patience.start()
        else:
            self._show_running()

    def _show_running(self) -> None:
        self.run_button.text = CANCEL
        self.status.set_running(True)

    def _on_finished(self) -> None:
        self._patience.stop()
        self.run_button.text, self.run_button.enabled = "Run", True
        self.status.set_running(False)
        self._on_stack()
        if self._run_after_writing:
            self._run_after_writing = False
            self._on_change()
        if self._mask_changed:
            self._compare_with_mask()
        elif not self.live.value:
            self._estimate()

    def _on_cost(self, words: str) -> None:
        if not self._closed:
            show_words(self.cost, words)

    def _on_message(self, text: str, error: bool) -> None:
        self.status.show_message(text, error)
        self.status.offer.visible = self.explainer.unplaced is not None

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
        if isinstance(values.get("folder"), str):
            self.saving.folder = values["folder"]
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
                "folder": self.saving.folder,
            }
        )

    @property
    def settings(self) -> SettingsSection:
        """Settings of network, maps, scores and computation; made when they are first needed."""
        if self._settings is None:
            self._settings = section = SettingsSection(self.source.masks)
            section.restore(self._recorded)
            section.set_method(self.method.method())
            image = self.source.explained
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
        self._describe_opened()

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
        self.saving.close()
        if self.layers is not None:
            self.layers.close()
        # Reports that wait in the queue of events would arrive when the fields are deleted.
        explainer = self.explainer
        reports = (explainer.said, explainer.progressed, explainer.shown, explainer.listed)
        for signal in (*reports, self.estimator.estimated):
            signal.disconnect()
        self.estimator.close()
        explainer.close()
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
        explainer = self.__dict__.get("explainer")
        if explainer is None:
            # The dock is freed as garbage: its attributes are gone, and with them what it would close.
            return
        explainer.abandon()
        self._disconnect()


def domain_words(model: Model | None) -> str:
    """Return what a network was trained on, in words; empty if it is not known."""
    if model is None:
        return ""
    if model.random_weights:
        return "random weights, not trained"
    return f"trained on {model.domain}" if model.domain else ""


def _devices(progress: Progress) -> list[str]:
    return jobs.devices()
