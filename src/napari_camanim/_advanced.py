"""The folded part of the dock: network, maps, scores, computing; most runs leave it as it is."""

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
#: Settings that are chosen elsewhere on the dock, or have no place in one.
OTHERWISE = (
    "classes", "resize", "interpolation", "dims", "name",
    "options", "layers", "window", "layouts", "device", "progress",
)  # fmt: skip
COMPUTING = ("precision", "batch_size", "seed")
LABELS = {
    "slices": "All slices of a volume",
    "eigen_smooth": "Eigen smoothing",
    "augment": "Augmentation",
    "show_1d": "1-D layers as stripes",
}
UNFOLDED, FOLDED = "▼", "▶"


class FileField(QWidget):
    """A path that can be typed or chosen."""

    def __init__(self, title: str, pattern: str) -> None:
        super().__init__()
        self._title, self._pattern = title, pattern
        self.line = QLineEdit()
        self.line.setPlaceholderText(FROM_SOURCE)
        button = QPushButton("…")
        button.setMaximumWidth(button.fontMetrics().horizontalAdvance("…") * 3)
        button.clicked.connect(self._ask)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.line, 1)
        row.addWidget(button)

    def text(self) -> str:
        """Return the path, or nothing."""
        text: str = self.line.text().strip()
        return text

    def _ask(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, self._title, "", self._pattern)
        if path:
            self.line.setText(path)


class Advanced(QCollapsible):
    """The folded part of the dock.

    Signals
    -------
    network_changed : ()
        Something about the network or its input was changed.
    """

    network_changed = Signal()

    def __init__(self) -> None:
        super().__init__("Advanced", expandedIcon=UNFOLDED, collapsedIcon=FOLDED)
        self.toggleButton().setStyleSheet(
            "text-align: left; border: none; background: transparent; padding-left: 0"
        )
        # An animation would still run while the dock is looked at.
        self.setDuration(0)
        self._build()
        self._lay_out()
        self.set_depth(False)
        self.set_method(None)

    def _build(self) -> None:
        overrides, settings = settings_of(ModelOverrides), settings_of(Settings)
        self.weights = FileField(
            "Weights", "Weights (*.safetensors *.pth *.pt *.ckpt);;All files (*)"
        )
        self.weights.setToolTip("A file with a state dict, or none for random weights.")
        self.classes = FileField("Names of classes", "Names (*.txt *.json);;All files (*)")
        self.classes.setToolTip(overrides["classes"].help)
        self.overrides = SettingsForm(
            overrides,
            {"size": "Input size"},
            OTHERWISE,
            ("size", "mean", "std"),
            ModelError,
            FROM_SOURCE,
        )
        self.layers = QComboBox()
        self.layers.addItems(["unique", "all", "blocks"])
        self.layers.setEditable(True)
        self.layers.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.layers.setToolTip(f"{settings['layers'].help} Several with commas between.")
        self.options = OptionsForm()
        computing = {name: settings[name] for name in COMPUTING}
        maps = {name: s for name, s in settings.items() if name not in COMPUTING}
        # All but those that the dock, the image or the method decide on: a new one is a new field.
        self.maps = SettingsForm(maps, LABELS, OTHERWISE)
        self.computing = SettingsForm(computing, LABELS)
        self.scoring = ScoringFields()
        self.device = QComboBox()
        self.device.addItem("cpu")
        self.device.setToolTip(settings["device"].help)
        self.save_button = QPushButton("Save card…")
        self.save_button.setToolTip("Write the network and its settings as a small file (.toml).")
        for line in (self.weights.line, self.classes.line):
            line.textChanged.connect(self.network_changed)
        self.overrides.connect(self.network_changed.emit)

    @property
    def slices(self) -> QWidget:
        """The box for all slices of a volume."""
        return self.maps["slices"].native

    @property
    def eigen_smooth(self) -> QWidget:
        """The box for eigen smoothing."""
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
        # The icons are drawn in the text's colour, and napari's theme comes later than they.
        self.setExpandedIcon(UNFOLDED)
        self.setCollapsedIcon(FOLDED)
        super().showEvent(event)

    # -- What depends on the rest of the dock ------------------------------------------------------

    def set_method(self, method: Method | None) -> None:
        """Show a method's options, and whether it can be smoothed."""
        self.options.show_for(method)
        tip = "The first principal component of what the channels contribute, not their sum."
        try:
            if method is not None:
                method.check_smoothable()
        except MethodError as error:
            tip = str(error)
            self.eigen_smooth.setEnabled(False)
        else:
            self.eigen_smooth.setEnabled(True)
        self.eigen_smooth.setToolTip(tip)
        self._refit()

    def set_depth(self, has_depth: bool) -> None:
        """Offer all slices where the image has some."""
        self.slices.setEnabled(has_depth)
        self.slices.setToolTip(
            "A 2-D network explains every slice of the volume, not only the shown one."
            if has_depth
            else "The image has no depth, so there is one slice."
        )

    def set_devices(self, devices: list[str]) -> None:
        """List what the computer has."""
        known = [self.device.itemText(row) for row in range(self.device.count())]
        self.device.addItems([device for device in devices if device not in known])

    def _refit(self) -> None:
        """Give what has grown or shrunk its place: the fold keeps the height that it opened with."""
        if self.isExpanded():
            self.content().layout().activate()
            self.expand(animate=False)

    # -- What it says ------------------------------------------------------------------------------

    def network(self) -> dict[str, Any]:
        """Return the settings of `camanim.load_model`; only those that were made.

        Raises
        ------
        ModelError
            When a field holds something else than it should.
        """
        made = self.overrides.values()
        if self.classes.text():
            made["classes"] = self.classes.text()
        weights = self.weights.text()
        if weights:
            made["weights"] = None if weights.lower() == "none" else weights
        return made

    def run(self) -> dict[str, Any]:
        """Return the settings of `camanim.animate`, all but those that depend on the image.

        Raises
        ------
        CamError
            When a field holds something else than it should.
        """
        layers = self.layers.currentText().strip()
        several = [part.strip() for part in layers.split(",")]
        defaults = {name: s.default for name, s in settings_of(Settings).items()}
        values = self.maps.values() | self.computing.values()
        if not self.eigen_smooth.isEnabled():
            values.pop("eigen_smooth", None)
        values.pop("slices", None)
        return {
            "fit": defaults["fit"],
            "seed": defaults["seed"],
            "options": self.options.values(),
            "layers": layers if layers in ("unique", "all", "blocks") else several,
            "device": self.device.currentText(),
        } | values

    def all_slices(self) -> bool:
        """Return whether a 2-D network is to explain every slice."""
        return bool(self.maps["slices"].value and self.slices.isEnabled())
