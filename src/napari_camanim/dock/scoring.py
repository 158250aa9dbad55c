"""The fields for findings: a mask, and a check box with settings for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout

from camanim.catalogue import finding_kinds
from camanim.findings import FindingKind, FindingRequest
from napari_camanim.dock.methods import heading
from napari_camanim.dock.settings_form import SettingsForm

if TYPE_CHECKING:
    from napari.layers import Labels

NO_MASK = "none"
#: The kind with its check box in the main part of the form.
MAIN = "road"
#: The kind that is computed whenever a mask is chosen.
WITH_MASK = "localisation"
#: Settings without a field.
HIDDEN = (
    "seed",
    "label",
    "imputer",
    "batch_size",
    "memory_format",
    "precision",
    "percentiles",
    "noise",
)

#: Settings entered as text.
LINES = ("layers",)


class MaskField(QComboBox):
    """Lists the Labels layers of the viewer, after "none".

    Signals
    -------
    chosen : ()
        The user chose another layer. Not emitted if the chosen layer is removed, as findings remain
        valid.
    """

    chosen = Signal()

    def __init__(self) -> None:
        super().__init__()
        # Long names must not widen the dock.
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(10)
        self.set_layers([])
        self.currentIndexChanged.connect(self.chosen)

    def set_layers(self, layers: Sequence[Labels]) -> None:
        """Set the listed layers, keeping the chosen one if possible."""
        chosen = self.layer()
        self.blockSignals(True)
        self.clear()
        self.addItem(NO_MASK, None)
        for layer in layers:
            self.addItem(layer.name, layer)
        if chosen is not None and chosen in layers:
            self.setCurrentIndex(1 + list(layers).index(chosen))
        self.blockSignals(False)

    def layer(self) -> Labels | None:
        """Return the chosen layer."""
        return self.currentData()


class ScoringFields(QObject):
    """The fields below the heading "Scores".

    Signals
    -------
    checked : (FindingRequest,)
        The user checked the box of a kind of finding.
    """

    checked = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.mask = MaskField()
        self.mask.setToolTip(
            "Labels layer over the image: measures the agreement of each map with labels other than 0."
        )
        self.kinds = [kind for kind in finding_kinds().values() if kind.name != WITH_MASK]
        self.boxes = {kind.name: _box(kind) for kind in self.kinds if kind.name != MAIN}
        self.forms = {
            kind.name: SettingsForm(kind.settings, hidden=HIDDEN, lines=LINES)
            for kind in self.kinds
        }

    def add_to(self, form: QFormLayout) -> None:
        """Add the fields to a layout."""
        form.addRow(heading("Scores"))
        form.addRow("Mask", self.mask)
        for kind in self.kinds:
            settings = self.forms[kind.name].native
            if kind.name in self.boxes:
                box = self.boxes[kind.name]
                form.addRow(box)
                box.toggled.connect(settings.setVisible)
                box.clicked.connect(partial(self._on_box, kind.name))
                settings.setVisible(False)
            form.addRow(settings)

    def _on_box(self, name: str, checked: bool) -> None:
        if checked:
            self.checked.emit(FindingRequest(name, self.forms[name].values()))

    def requests(self, *, road: bool) -> list[FindingRequest]:
        """Return the findings to compute, with the settings that differ from their defaults.

        Raises
        ------
        CamError
            If a setting is invalid.
        """
        checked = {name: box.isChecked() for name, box in self.boxes.items()} | {MAIN: road}
        return [
            FindingRequest(kind.name, self.forms[kind.name].values())
            for kind in self.kinds
            if checked[kind.name]
        ]


def _box(kind: FindingKind) -> QCheckBox:
    box = QCheckBox(kind.title)
    box.setToolTip(kind.help)
    return box
