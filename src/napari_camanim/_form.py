"""What stands on the dock: fields, buttons and their tooltips, without any behaviour."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QSearchableComboBox

import camanim
from napari_camanim._curve import RoadCurve

#: The first entry of the classes: what is explained when nothing is chosen.
LIKELIEST = "likeliest class"


class Form(QWidget):
    """The fields of the dock, laid out and explained."""

    def __init__(self) -> None:
        super().__init__()
        self._build()

    def _build(self) -> None:
        self.image = QComboBox()
        self.network = QSearchableComboBox()
        self.network.addItems(camanim.list_models())
        self.classes = QSearchableComboBox()
        self.classes.addItem(LIKELIEST, None)
        self.predict_button = QPushButton("Predict")
        self.method = QComboBox()
        for i, method in enumerate(camanim.methods().values()):
            self.method.addItem(method.name)
            tip = f"{method.summary}\n{method.paper}"
            self.method.setItemData(i, tip, Qt.ItemDataRole.ToolTipRole)
        self.layers = QComboBox()
        self.layers.addItems(["unique", "all", "blocks"])
        self.fit = QComboBox()
        self.fit.addItems(["stretch", "crop", "native"])
        self.road = QCheckBox("Score every layer (ROAD)")
        self.run_button = QPushButton("Run")
        self.normalization = QComboBox()
        self.normalization.addItems(["local", "global"])
        self.curve = RoadCurve()
        self.export_button = QPushButton("Export movie…")
        self.message = QLabel()
        self.message.setWordWrap(True)
        self._explain()
        self._lay_out()

    def _explain(self) -> None:
        tips = {
            self.image: "The image that is explained; follows the selected layer.",
            self.network: "The network whose layers are shown; type to search.",
            self.classes: "The class that is explained; Predict lists the likeliest first.",
            self.predict_button: "Ask the network for its five likeliest classes.",
            self.method: "How activations and gradients become a map.",
            self.layers: "unique: each output once; all: also containers that hand one on; "
            "blocks: the network's large parts.",
            self.fit: "stretch: the whole image; crop: the centre, as in training; "
            "native: without resizing.",
            self.road: "Remove what a map finds important and see what the prediction loses.",
            self.normalization: "local: each layer on its own scale; global: all on one.",
            self.export_button: "Write the movie of all layers (mp4).",
        }
        for widget, tip in tips.items():
            widget.setToolTip(tip)

    def _lay_out(self) -> None:
        classes = QHBoxLayout()
        classes.addWidget(self.classes, 1)
        classes.addWidget(self.predict_button)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Image", self.image)
        form.addRow("Network", self.network)
        form.addRow("Class", classes)
        form.addRow("Method", self.method)
        form.addRow("Layers", self.layers)
        form.addRow("Fit", self.fit)
        form.addRow(self.road)
        form.addRow(self.run_button)
        form.addRow("Normalisation", self.normalization)
        box = QVBoxLayout(self)
        box.addLayout(form)
        box.addWidget(self.curve)
        box.addWidget(self.export_button)
        box.addWidget(self.message)
        box.addStretch()
        for combo in (self.image, self.network, self.classes):
            # Long names must not widen the dock.
            combo.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
            combo.setMinimumContentsLength(12)
