"""The settings of network, maps, scores and computation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, FileEdit, LineEdit

from camanim.cam_methods import Method
from camanim.catalogue import finding_kinds
from camanim.declarations import settings_of
from camanim.errors import CamError, MethodError, ModelError, SettingError
from camanim.findings import FindingKind, FindingRequest
from camanim.models.overrides import ModelOverrides
from camanim.settings import Settings
from napari_camanim.dock.form import Column, Form, heading
from napari_camanim.dock.settings_form import SettingsForm

if TYPE_CHECKING:
    from pathlib import Path

    from camanim import Animation

FROM_SOURCE = "from the network"
#: Settings with a field in another part of the dock, or without one.
EXCLUDED = (
    "classes", "resize", "interpolation", "dims", "name",
    "options", "layers", "box", "window", "layouts", "device", "progress",
)  # fmt: skip
COMPUTING = ("precision", "batch_size", "seed")
LABELS = {
    "slices": "All slices of a volume",
    "eigen_smooth": "Eigen smoothing",
    "augment": "Augmentation",
    "show_1d": "1-D layers as stripes",
    "counterfactual": "Evidence against the class",
}
#: The kind of finding with its check box in the main part of the dock.
MAIN = "road"
#: The kind that is computed whenever a mask is chosen.
WITH_MASK = "localisation"
#: Settings of findings without a field.
HIDDEN = (
    "seed", "label", "imputer", "batch_size", "memory_format", "precision", "percentiles", "noise",
)  # fmt: skip
#: Settings of findings that are entered as text.
LINES = ("layers",)


class SettingsSection(Column):
    """Settings of network, maps, scores and computation.

    Parameters
    ----------
    masks : callable
        From a magicgui widget to the Labels layers of the viewer; see `magicgui.widgets.ComboBox`.
    """

    def __init__(self, masks: Callable[[Any], list[Any]]) -> None:
        overrides, settings = settings_of(ModelOverrides), settings_of(Settings)
        self.weights = FileEdit(
            name="weights",
            label="Weights",
            mode=FileDialogMode.EXISTING_FILE,
            filter="Weights (*.safetensors *.pth *.pt *.ckpt);;All files (*)",
            nullable=True,
            tooltip="A file with a state dict, or 'none' for random weights.",
        )
        self.classes = FileEdit(
            name="classes",
            label="Classes",
            mode=FileDialogMode.EXISTING_FILE,
            filter="Names (*.txt *.json);;All files (*)",
            nullable=True,
            tooltip=overrides["classes"].help,
        )
        self.overrides = SettingsForm(
            overrides,
            {"size": "Input size"},
            EXCLUDED,
            ("size", "mean", "std"),
            ModelError,
            FROM_SOURCE,
        )
        self.layers = LineEdit(
            name="layers",
            label="Layers",
            value="unique",
            tooltip=f"{settings['layers'].help} Separate by commas.",
        )
        self.maps = SettingsForm(
            {name: s for name, s in settings.items() if name not in COMPUTING}, LABELS, EXCLUDED
        )
        self.computing = SettingsForm({name: settings[name] for name in COMPUTING}, LABELS)
        self.device = ComboBox(
            name="device",
            label="Device",
            choices=["cpu"],
            value="cpu",
            tooltip=settings["device"].help,
        )
        self.mask = ComboBox(
            name="mask",
            label="Mask",
            choices=masks,
            nullable=True,
            tooltip="Labels layer over the image: measures the agreement of each map with labels "
            "other than 0.",
        )
        self.kinds = [kind for kind in finding_kinds().values() if kind.name != WITH_MASK]
        self.boxes = {kind.name: _box(kind) for kind in self.kinds if kind.name != MAIN}
        self.forms = {
            kind.name: SettingsForm(kind.settings, hidden=HIDDEN, lines=LINES)
            for kind in self.kinds
        }
        self._options_title = heading("")
        self.method_options = Column([])
        self.options_form = SettingsForm({})
        super().__init__(self._widgets())
        for name, box in self.boxes.items():
            self.forms[name].visible = False
            box.changed.connect(partial(self._show_form, name))
        for edit in (self.weights, self.classes):
            edit.choose_btn.text = "…"
            edit.choose_btn.native.setMaximumWidth(28)
            edit.line_edit.native.setPlaceholderText(FROM_SOURCE)
        self.set_method(None)

    def _widgets(self) -> list[Any]:
        scores: list[Any] = [self.forms[MAIN]]
        for name, box in self.boxes.items():
            scores += [box, self.forms[name]]
        return [
            heading("Network"), Form([self.weights, self.classes]), self.overrides,
            self._options_title, self.method_options,
            heading("Maps"), Form([self.layers]), self.maps,
            heading("Scores"), Form([self.mask]), *scores,
            heading("Computing"), Form([self.device]), self.computing,
        ]  # fmt: skip

    def _show_form(self, name: str, checked: bool) -> None:
        self.forms[name].visible = checked and bool(self.forms[name].names)

    # -- Dependencies on other fields --------------------------------------------------------------

    def set_method(self, method: Method | None) -> None:
        """Show the options of a method, and disable eigen smoothing if it does not support it."""
        options = {} if method is None else method.options
        self.options_form = SettingsForm(options, error=MethodError)
        self.method_options.clear()
        self.method_options.append(self.options_form)
        self.method_options.visible = self._options_title.visible = bool(self.options_form.names)
        self._options_title.value = "" if method is None else f"<b>{method.name}</b>"
        box: Any = self.maps["eigen_smooth"]
        try:
            if method is not None:
                method.check_smoothable()
        except MethodError as error:
            box.enabled, box.tooltip = False, str(error)
        else:
            box.enabled, box.tooltip = True, settings_of(Settings)["eigen_smooth"].help

    def set_depth(self, has_depth: bool) -> None:
        """Enable the check box for all slices if the image is a volume."""
        box: Any = self.maps["slices"]
        box.enabled = has_depth
        help_ = settings_of(Settings)["slices"].help
        box.tooltip = help_ if has_depth else "The image is not a volume."

    def set_devices(self, devices: list[str]) -> None:
        """List the devices of the computer."""
        chosen = self.device.value
        self.device.choices = list(dict.fromkeys(["cpu", *devices, *([chosen] if chosen else [])]))
        self.device.value = chosen

    # -- Values ------------------------------------------------------------------------------------

    def network(self) -> dict[str, Any]:
        """Return the settings of `camanim.load_model` that differ from their defaults.

        Raises
        ------
        ModelError
            If the value of a field is invalid.
        """
        values = self.overrides.values()
        classes, weights = (
            str(edit.line_edit.value).strip() for edit in (self.classes, self.weights)
        )
        if classes:
            values["classes"] = classes
        if weights:
            values["weights"] = None if weights.lower() == "none" else weights
        return values

    def run(self) -> dict[str, Any]:
        """Return the settings of `camanim.animate` that do not depend on the image.

        Raises
        ------
        CamError
            If the value of a field is invalid.
        """
        layers = self.layers.value.strip()
        names = [part.strip() for part in layers.split(",") if part.strip()]
        if not names:
            raise SettingError('layers is empty: enter "unique", "all", "blocks" or names.')
        defaults = {name: s.default for name, s in settings_of(Settings).items()}
        values = self.maps.values() | self.computing.values()
        if not self.maps["eigen_smooth"].enabled:
            values.pop("eigen_smooth", None)
        values.pop("slices", None)
        return {
            "fit": defaults["fit"],
            "seed": defaults["seed"],
            "options": self.options_form.values(),
            "layers": layers if layers in ("unique", "all", "blocks") else names,
            "device": self.device.value,
        } | values

    def show_network(self, weights: str | Path | None) -> None:
        """Set the fields to the weights of a network, without other settings."""
        self.classes.line_edit.value = ""
        self.overrides.reset()
        shown = "none" if weights is None else "" if weights == "DEFAULT" else str(weights)
        self.weights.line_edit.value = shown

    def show_run(self, settings: Settings) -> bool:
        """Set the fields to the settings of a run; return whether they can say all of them."""
        for form in (self.maps, self.computing, self.options_form):
            form.reset()
        layers = settings.layers
        if not isinstance(layers, str):
            names = list(layers) if isinstance(layers, Sequence) else []
            layers = ", ".join(name for name in names if isinstance(name, str))
        self.layers.value = layers or "unique"
        values = {name: getattr(settings, name) for name in settings_of(Settings)}
        self.maps.set_values(values)
        self.computing.set_values(values)
        self.options_form.set_values(settings.options)
        said = Settings(**{name: v for name, v in self.run().items() if name != "device"})
        # The picture has the values as they were shown, of the box that was explained.
        others = ("window", "box", "slices", "device", "progress")
        return all(
            _listed(getattr(said, name)) == _listed(value)
            for name, value in values.items()
            if name not in others
        )

    def all_slices(self) -> bool:
        """Return whether a 2-D network explains every slice."""
        box: Any = self.maps["slices"]
        return bool(box.value and box.enabled)

    def findings(self, *, road: bool) -> list[FindingRequest]:
        """Return the findings to compute, with the settings that differ from their defaults.

        Raises
        ------
        CamError
            If a setting is invalid.
        """
        checked = {name: bool(box.value) for name, box in self.boxes.items()} | {MAIN: road}
        return [
            FindingRequest(kind.name, self.forms[kind.name].values())
            for kind in self.kinds
            if checked[kind.name]
        ]

    def price(self, name: str, animation: Animation) -> str:
        """Return what a kind of finding costs for a result, in one sentence; empty if it is not known.

        Raises
        ------
        CamError
            If a setting is invalid, or the finding cannot be computed for the result.
        """
        request = FindingRequest(name, self.forms[name].values())
        return request.kind.price(animation, request.settings)

    # -- Between sessions --------------------------------------------------------------------------

    def record(self) -> Mapping[str, Any]:
        """Return the settings of maps, scores and computation as plain data."""
        record: dict[str, Any] = {"layers": self.layers.value, "device": self.device.value}
        for name, form in self._recorded().items():
            try:
                record[name] = form.values()
            except CamError:
                # What is typed at the moment is not valid.
                continue
        record["findings"] = [name for name, box in self.boxes.items() if box.value]
        return record

    def restore(self, record: Mapping[str, Any]) -> None:
        """Set the fields to recorded values, except those that are invalid."""
        layers, device, findings = (record.get(name) for name in ("layers", "device", "findings"))
        if isinstance(layers, str):
            self.layers.value = layers
        if isinstance(device, str) and device:
            self.set_devices([device])
            self.device.value = device
        for name, form in self._recorded().items():
            form.restore(record.get(name))
        for name, box in self.boxes.items():
            box.value = isinstance(findings, list) and name in findings

    def _recorded(self) -> dict[str, SettingsForm]:
        forms = {f"finding {name}": form for name, form in self.forms.items()}
        return {"maps": self.maps, "computing": self.computing, **forms}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _box(kind: FindingKind) -> CheckBox:
    return CheckBox(text=kind.title, name=kind.name, label="", tooltip=kind.help)
