"""What most runs leave as it is, folded: preprocessing, the map's options, scores, computing."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QWidget,
)
from superqt import QCollapsible

from camanim.cam_methods import Method
from camanim.errors import MethodError, ModelError
from napari_camanim._methods import OptionsForm, heading
from napari_camanim._scoring import ScoringFields

FROM_SOURCE = "from the network"
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
        self._build_network()
        self._build_maps()
        self.scoring = ScoringFields()
        self._build_computing()
        self._explain()
        self._lay_out()

    def _build_network(self) -> None:
        self.weights = FileField(
            "Weights", "Weights (*.safetensors *.pth *.pt *.ckpt);;All files (*)"
        )
        self.classes = FileField("Names of classes", "Names (*.txt *.json);;All files (*)")
        self.size, self.mean, self.std, self.channels = (QLineEdit() for _ in range(4))
        self.outputs = QComboBox()
        self.outputs.addItems([FROM_SOURCE, "softmax", "sigmoid", "values"])
        for line in (self.size, self.mean, self.std, self.channels):
            line.setPlaceholderText(FROM_SOURCE)
        for line in (self.weights.line, self.classes.line, self.size, self.mean, self.std):
            line.textChanged.connect(self.network_changed)
        self.channels.textChanged.connect(self.network_changed)
        self.outputs.currentTextChanged.connect(self.network_changed)

    def _build_maps(self) -> None:
        self.layers = QComboBox()
        self.layers.addItems(["unique", "all", "blocks"])
        self.layers.setEditable(True)
        self.layers.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.fit = QComboBox()
        self.fit.addItems(["stretch", "crop", "native"])
        self.options = OptionsForm()
        self.slices = QCheckBox("All slices of a volume")
        self.eigen_smooth = QCheckBox("Eigen smoothing")
        self.augment = QCheckBox("Augmentation")
        self.counterfactual = QCheckBox("Counterfactual")
        self.show_1d = QCheckBox("1-D layers as stripes")

    def _build_computing(self) -> None:
        self.device = QComboBox()
        self.device.addItem("cpu")
        self.precision = QComboBox()
        self.precision.addItems(["float32", "bfloat16", "float16"])
        self.batch_size, self.seed = QSpinBox(), QSpinBox()
        self.batch_size.setRange(1, 4096)
        self.batch_size.setValue(16)
        self.seed.setRange(0, 2**31 - 1)
        self.save_button = QPushButton("Save card…")

    def _explain(self) -> None:
        tips = {
            self.weights: "A file with a state dict, or none for random weights.",
            self.classes: "A file with the classes' names, one a line or .json.",
            self.size: "The network's input size, such as 224, 224, 320 or native.",
            self.mean: "Subtracted from intensities in [0, 1], one number or one per channel.",
            self.std: "What intensities are divided by after the mean, one or one per channel.",
            self.channels: "How many channels the network takes.",
            self.outputs: "softmax: classes that exclude one another; sigmoid: labels; "
            "values: plain numbers.",
            self.layers: "unique: each output once; all: also containers that hand one on; blocks: the "
            "large parts; or names such as features.*, or kinds such as Conv2d, with commas between.",
            self.fit: "stretch: the whole image; crop: the centre, as in training; "
            "native: without resizing.",
            self.augment: "The mean map of six variants of the image, at six times the cost.",
            self.counterfactual: "What speaks against the class: minus its score is explained.",
            self.show_1d: "Show outputs without space too, as one stripe per unit.",
            self.device: "Where to compute; only what this computer has is listed.",
            self.precision: "Of the network's arithmetic; half precision takes less memory.",
            self.batch_size: "Images per forward pass, of slices and methods that ask repeatedly.",
            self.seed: "Of random methods and of ROAD: the same seed gives the same answer.",
            self.save_button: "Write down the network and its settings as a small file (.toml).",
        }
        for widget, tip in tips.items():
            widget.setToolTip(tip)
        self.set_depth(False)
        self.set_method(None)

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow(heading("Network"))
        form.addRow("Weights", self.weights)
        form.addRow("Classes", self.classes)
        form.addRow("Input size", self.size)
        form.addRow("Mean", self.mean)
        form.addRow("Std", self.std)
        form.addRow("Channels", self.channels)
        form.addRow("Outputs", self.outputs)
        form.addRow(self.save_button)
        form.addRow(self.options)
        form.addRow(heading("Maps"))
        form.addRow("Layers", self.layers)
        form.addRow("Fit", self.fit)
        for box in (
            self.slices, self.eigen_smooth, self.augment, self.counterfactual, self.show_1d
        ):  # fmt: skip
            form.addRow(box)
        self.scoring.add_to(form)
        form.addRow(heading("Computing"))
        form.addRow("Device", self.device)
        form.addRow("Precision", self.precision)
        form.addRow("Batch size", self.batch_size)
        form.addRow("Seed", self.seed)
        form.setContentsMargins(0, 0, 0, 0)
        panel = QWidget()
        panel.setLayout(form)
        self.addWidget(panel)
        self.layout().setContentsMargins(0, 0, 0, 0)
        self.content().layout().setContentsMargins(0, 0, 0, 0)
        for widget in panel.findChildren(QWidget):
            if isinstance(widget, QComboBox | QAbstractSpinBox):
                widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                widget.installEventFilter(self)

    def showEvent(self, event: QShowEvent) -> None:
        # The icons are drawn in the text's colour, and napari's theme comes later than they.
        self.setExpandedIcon(UNFOLDED)
        self.setCollapsedIcon(FOLDED)
        super().showEvent(event)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Let the wheel scroll the dock, not change the field that it passes."""
        if isinstance(watched, QComboBox | QAbstractSpinBox):
            if event.type() == QEvent.Type.Wheel and not watched.hasFocus():
                event.ignore()
                return True
            return False
        return bool(super().eventFilter(watched, event))

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
        outputs = self.outputs.currentText()
        settings: dict[str, Any] = {
            "classes": self.classes.text() or None,
            "size": _size(self.size.text()),
            "mean": _numbers(self.mean.text(), "mean"),
            "std": _numbers(self.std.text(), "std"),
            "channels": _whole(self.channels.text(), "number of channels"),
            "outputs": None if outputs == FROM_SOURCE else outputs,
        }
        made = {name: value for name, value in settings.items() if value is not None}
        weights = self.weights.text()
        if weights:
            made["weights"] = None if weights.lower() == "none" else weights
        return made

    def run(self) -> dict[str, Any]:
        """Return the settings of `camanim.animate`, all but those that depend on the image."""
        layers = self.layers.currentText().strip()
        several = [part.strip() for part in layers.split(",")]
        return {
            "layers": layers if layers in ("unique", "all", "blocks") else several,
            "fit": self.fit.currentText(),
            "options": self.options.values(),
            "eigen_smooth": self.eigen_smooth.isChecked() and self.eigen_smooth.isEnabled(),
            "augment": self.augment.isChecked(),
            "counterfactual": self.counterfactual.isChecked(),
            "show_1d": self.show_1d.isChecked(),
            "device": self.device.currentText(),
            "precision": self.precision.currentText(),
            "batch_size": self.batch_size.value(),
            "seed": self.seed.value(),
        }

    def all_slices(self) -> bool:
        """Whether a 2-D network is to explain every slice."""
        return bool(self.slices.isChecked() and self.slices.isEnabled())


def _numbers(text: str, what: str) -> list[float] | None:
    if not text.strip():
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ModelError(f"The {what} is numbers with commas between, not {text!r}.") from error


def _whole(text: str, what: str) -> int | None:
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError as error:
        raise ModelError(f"The {what} is a whole number, not {text!r}.") from error


def _size(text: str) -> int | list[int] | str | None:
    if text.strip() == "native":
        return "native"
    if "," not in text:
        return _whole(text, "input size")
    return [_whole(part, "input size") or 0 for part in text.split(",")]
