"""What stands on the dock: fields, buttons and their tooltips, without any behaviour."""

from __future__ import annotations

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

from napari_camanim._advanced import Advanced
from napari_camanim._classes import ClassField
from napari_camanim._curve import Curve
from napari_camanim._methods import MethodField
from napari_camanim._networks import NetworkField, OpenButton


class Form(QWidget):
    """The fields of the dock, laid out and explained."""

    def __init__(self) -> None:
        super().__init__()
        self._build()

    def _build(self) -> None:
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
        self._explain()
        self._lay_out()

    def _explain(self) -> None:
        tips = {
            self.image: "The image that is explained; follows the selected layer.",
            self.network: "The network whose layers are shown; type to search, or any source such as "
            "timm/NAME or monai/NAME?spatial_dims=3&in_channels=1&out_channels=2.",
            self.open_button: "Open a card, a Python file, an exported network or a bundle.",
            self.classes: "The class that is explained; A - B explains one against another, "
            "A; B gives each its own stack.",
            self.predict_button: "Ask the network for its five likeliest classes.",
            self.road: "Remove what a map finds important and see what the prediction loses.",
            self.normalization: "local: each layer on its own scale; global: all on one.",
            self.export_button: "Write the movie of all layers (mp4); of a volume, the shown plane.",
        }
        for widget, tip in tips.items():
            widget.setToolTip(tip)

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
        panel, scroll = QWidget(), Scroll()
        box = QVBoxLayout(panel)
        box.addLayout(form)
        for widget in (self.curve, self.export_button, self.message, self.advanced):
            box.addWidget(widget)
        box.addStretch()
        scroll.setWidget(panel)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)


class Scroll(QScrollArea):
    """Scrolls up and down only: unfolded, the dock is taller than many a window."""

    def __init__(self) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def minimumSizeHint(self) -> QSize:
        # The bar must not cover the fields' right ends.
        bar = self.verticalScrollBar().sizeHint().width()
        hint = super().minimumSizeHint()
        return QSize(self.widget().minimumSizeHint().width() + bar, hint.height())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.widget() and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))


def _row(wide: QWidget, narrow: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.addWidget(wide, 1)
    row.addWidget(narrow)
    return row
