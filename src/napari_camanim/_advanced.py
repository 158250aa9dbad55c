"""The collapsible part of the form: settings of network, maps, scores and computation."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QWidget,
)
from superqt import QCollapsible

from camanim.cam_methods import Method
from camanim.declarations import settings_of
from camanim.errors import MethodError, ModelError
from camanim.models.overrides import ModelOverrides
from camanim.settings import Settings
from napari_camanim._methods import OptionsForm, heading
from napari_camanim._scoring import ScoringFields
from napari_camanim._settings_form import LABEL, IgnoreWheel, SettingsForm

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
}
EXPANDED, COLLAPSED = "▼", "▶"


class FileField(QWidget):
    """A field for a path, with a button that opens a file dialog."""

    def __init__(self, title: str, pattern: str) -> None:
        super().__init__()
        self._title, self._pattern = title, pattern
        self.line = QLineEdit()
        self.line.setPlaceholderText(FROM_SOURCE)
        button = QPushButton("…")
        button.setMaximumWidth(button.fontMetrics().horizontalAdvance("…") * 3)
        button.clicked.connect(self._choose)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.line, 1)
        row.addWidget(button)

    def text(self) -> str:
        """Return the path, or an empty string."""
        text: str = self.line.text().strip()
        return text

    def _choose(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, self._title, "", self._pattern)
        if path:
            self.line.setText(path)


class Advanced(QCollapsible):
    """The collapsible part of the form.

    Signals
    -------
    network_changed : ()
        A setting of the network or its input was changed.
    """

    network_changed = Signal()

    def __init__(self) -> None:
        super().__init__("Advanced", expandedIcon=EXPANDED, collapsedIcon=COLLAPSED)
        self.toggleButton().setStyleSheet(
            "text-align: left; border: none; background: transparent; padding-left: 0"
        )
        # Without an animation, which would still run when tests take a screenshot.
        self.setDuration(0)
        self._create_fields()
        self._lay_out()
        self.set_depth(False)
        self.set_method(None)

    def _create_fields(self) -> None:
        overrides, settings = settings_of(ModelOverrides), settings_of(Settings)
        self.weights = FileField(
            "Weights", "Weights (*.safetensors *.pth *.pt *.ckpt);;All files (*)"
        )
        self.weights.setToolTip("A file with a state dict, or 'none' for random weights.")
        self.classes = FileField("Names of classes", "Names (*.txt *.json);;All files (*)")
        self.classes.setToolTip(overrides["classes"].help)
        self.overrides = SettingsForm(
            overrides,
            {"size": "Input size"},
            EXCLUDED,
            ("size", "mean", "std"),
            ModelError,
            FROM_SOURCE,
        )
        self.layers = QComboBox()
        self.layers.addItems(["unique", "all", "blocks"])
        self.layers.setEditable(True)
        self.layers.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.layers.setToolTip(f"{settings['layers'].help} Separate several by commas.")
        self.options = OptionsForm()
        computing = {name: settings[name] for name in COMPUTING}
        maps = {name: s for name, s in settings.items() if name not in COMPUTING}

        self.maps = SettingsForm(maps, LABELS, EXCLUDED)
        self.computing = SettingsForm(computing, LABELS)
        self.scoring = ScoringFields()
        self.device = QComboBox()
        self.device.addItem("cpu")
        self.device.setToolTip(settings["device"].help)
        self.save_button = QPushButton("Save card…")
        self.save_button.setToolTip("Write the network and its settings to a card (.toml).")
        for line in (self.weights.line, self.classes.line):
            line.textChanged.connect(self.network_changed)
        self.overrides.connect(self.network_changed.emit)

    @property
    def slices(self) -> QWidget:
        """The check box for all slices of a volume."""
        return self.maps["slices"].native

    @property
    def eigen_smooth(self) -> QWidget:
        """The check box for eigen smoothing."""
        return self.maps["eigen_smooth"].native

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow(heading("Network"))
        weights = QLabel("Weights")
        weights.setMinimumWidth(LABEL)
        form.addRow(weights, self.weights)
        form.addRow("Classes", self.classes)
        form.addRow(self.overrides.native)
        form.addRow(self.save_button)
        form.addRow(self.options)
        form.addRow(heading("Maps"))
        form.addRow("Layers", self.layers)
        form.addRow(self.maps.native)
        self.scoring.add_to(form)
        form.addRow(heading("Computing"))
        form.addRow("Device", self.device)
        form.addRow(self.computing.native)
        form.setContentsMargins(0, 0, 0, 0)
        panel = QWidget()
        panel.setLayout(form)
        self.addWidget(panel)
        self.layout().setContentsMargins(0, 0, 0, 0)
        self.content().layout().setContentsMargins(0, 0, 0, 0)
        self._wheel = IgnoreWheel()
        self._wheel.watch(panel)

    def showEvent(self, event: QShowEvent) -> None:
        # The icons have the colour of the text, which napari's theme changes after their creation.
        self.setExpandedIcon(EXPANDED)
        self.setCollapsedIcon(COLLAPSED)
        super().showEvent(event)

    # -- Dependencies on other fields --------------------------------------------------------------

    def set_method(self, method: Method | None) -> None:
        """Show the options of a method, and disable eigen smoothing if it does not support it."""
        self.options.set_method(method)
        tooltip = settings_of(Settings)["eigen_smooth"].help
        try:
            if method is not None:
                method.check_smoothable()
        except MethodError as error:
            tooltip = str(error)
            self.eigen_smooth.setEnabled(False)
        else:
            self.eigen_smooth.setEnabled(True)
        self.eigen_smooth.setToolTip(tooltip)
        self._update_height()

    def set_depth(self, has_depth: bool) -> None:
        """Enable the check box for all slices if the image is a volume."""
        self.slices.setEnabled(has_depth)
        self.slices.setToolTip(
            settings_of(Settings)["slices"].help if has_depth else "The image is not a volume."
        )

    def set_devices(self, devices: list[str]) -> None:
        """List the devices of the computer."""
        listed = [self.device.itemText(row) for row in range(self.device.count())]
        self.device.addItems([device for device in devices if device not in listed])

    def _update_height(self) -> None:
        """Adapt the height to the fields, as `QCollapsible` keeps the height of its last expansion."""
        if self.isExpanded():
            self.content().layout().activate()
            self.expand(animate=False)

    # -- Values ------------------------------------------------------------------------------------

    def network(self) -> dict[str, Any]:
        """Return the settings of `camanim.load_model` that differ from their defaults.

        Raises
        ------
        ModelError
            If the value of a field is invalid.
        """
        values = self.overrides.values()
        if self.classes.text():
            values["classes"] = self.classes.text()
        weights = self.weights.text()
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
        layers = self.layers.currentText().strip()
        names = [part.strip() for part in layers.split(",")]
        defaults = {name: s.default for name, s in settings_of(Settings).items()}
        values = self.maps.values() | self.computing.values()
        if not self.eigen_smooth.isEnabled():
            values.pop("eigen_smooth", None)
        values.pop("slices", None)
        return {
            "fit": defaults["fit"],
            "seed": defaults["seed"],
            "options": self.options.values(),
            "layers": layers if layers in ("unique", "all", "blocks") else names,
            "device": self.device.currentText(),
        } | values

    def all_slices(self) -> bool:
        """Return whether a 2-D network explains every slice."""
        return bool(self.maps["slices"].value and self.slices.isEnabled())
