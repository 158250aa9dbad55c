"""The form of the dock: fields, buttons, tooltips and messages."""

from __future__ import annotations

from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_camanim.dock.advanced import Advanced
from napari_camanim.dock.classes import ClassField
from napari_camanim.dock.methods import MethodField
from napari_camanim.dock.networks import NetworkField, OpenButton
from napari_camanim.plots.curve import Curve


class DockForm(QScrollArea):
    """The fields of the dock; scrolls vertically, since it can be taller than the window."""

    def __init__(self) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._create_fields()
        self._set_tooltips()
        self._lay_out()

    def set_running(self, running: bool) -> None:
        """Turn *Run* into *Cancel* and lock other buttons during a job."""
        self.run_button.setText("Cancel" if running else "Run")
        self.run_button.setEnabled(True)
        self.predict_button.setEnabled(not running)
        self.advanced.save_button.setEnabled(not running)

    def show_progress(self, stage: str, done: int, total: int) -> None:
        """Show the progress of a job on the button."""
        if self.run_button.isEnabled():
            share = f" {100 * done // total} %" if total else "…"
            self.run_button.setText(f"Cancel ({stage}{share})")

    def show_cancelling(self) -> None:
        """Show on the button that the job is being cancelled."""
        self.run_button.setText("Cancelling…")
        self.run_button.setEnabled(False)

    def show_message(self, text: str, *, error: bool = False) -> None:
        """Show a message below the buttons; an error also as a notification."""
        self.message.setText(text)
        if error:
            show_error(text)

    def minimumSizeHint(self) -> QSize:
        # The scroll bar must not cover the right ends of the fields.
        bar = self.verticalScrollBar().sizeHint().width()
        hint = super().minimumSizeHint()
        return QSize(self.widget().minimumSizeHint().width() + bar, hint.height())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.widget() and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))

    def _create_fields(self) -> None:
        self.image = QComboBox()
        # Long names must not widen the dock.
        self.image.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.image.setMinimumContentsLength(12)
        self.network = NetworkField()
        self.open_button = OpenButton(self.network)
        self.classes = ClassField()
        self.predict_button = QPushButton("Predict")
        self.method = MethodField()
        self.road = QCheckBox("Score every layer (ROAD)")
        self.run_button = QPushButton("Run")
        self.normalization = QComboBox()
        self.normalization.addItems(["local", "global"])
        self.curve = Curve()
        self.export_button = QPushButton("Export movie…")
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.advanced = Advanced()
        self.advanced.set_method(self.method.method())

    def _set_tooltips(self) -> None:
        tooltips = {
            self.image: "The image to explain; follows the selected layer.",
            self.network: "The network to explain; type to search, or enter any source such as "
            "timm/NAME or monai/NAME?spatial_dims=3&in_channels=1&out_channels=2.",
            self.open_button: "Open a card, a Python file, an exported network or a bundle.",
            self.classes: "The class to explain; A - B for a contrast, A; B for a stack of each.",
            self.predict_button: "Predict the five likeliest classes.",
            self.road: "Score each map by removing the pixels that it marks as important.",
            self.normalization: "local: a separate scale for each layer; global: a common scale.",
            self.export_button: "Write a movie of all layers (mp4); of a volume, the shown plane.",
        }
        for widget, text in tooltips.items():
            widget.setToolTip(text)

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Image", self.image)
        form.addRow("Network", _row(self.network, self.open_button))
        form.addRow("Class", _row(self.classes, self.predict_button))
        form.addRow("Method", self.method)
        form.addRow(self.road)
        form.addRow(self.run_button)
        form.addRow("Normalisation", self.normalization)
        panel = QWidget()
        box = QVBoxLayout(panel)
        box.addLayout(form)
        for widget in (self.curve, self.export_button, self.message, self.advanced):
            box.addWidget(widget)
        box.addStretch()
        self.setWidget(panel)


def _row(wide: QWidget, narrow: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.addWidget(wide, 1)
    row.addWidget(narrow)
    return row
