"""The fields of what is computed about the maps: one box for each kind of finding, with its settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout

from camanim.catalogue import finding_kinds
from camanim.findings import FindingKind, FindingRequest
from napari_camanim._methods import heading
from napari_camanim._settings_form import SettingsForm

if TYPE_CHECKING:
    from napari.layers import Labels

NO_MASK = "none"
#: The kind whose box stands above, on the dock.
MAIN = "road"
#: Settings that are the run's, or have no place in a dock.
HIDDEN = ("seed", "imputer", "batch_size", "memory_format", "precision", "percentiles", "noise")


class MaskField(QComboBox):
    """The viewer's Labels layers, after "none"; a choice stays with its layer.

    Signals
    -------
    chosen : ()
        The user chose another one. Nothing is said when a layer is removed: what was measured with it
        stays true.
    """

    chosen = Signal()

    def __init__(self) -> None:
        super().__init__()
        # Long names must not widen the dock.
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(10)
        self.offer([])
        self.currentIndexChanged.connect(self.chosen)

    def offer(self, layers: Sequence[Labels]) -> None:
        """List these layers, keeping the choice if it is one of them."""
        before = self.layer()
        self.blockSignals(True)
        self.clear()
        self.addItem(NO_MASK, None)
        for layer in layers:
            self.addItem(layer.name, layer)
        if before is not None and before in layers:
            self.setCurrentIndex(1 + list(layers).index(before))
        self.blockSignals(False)

    def layer(self) -> Labels | None:
        """Return the chosen layer."""
        return self.currentData()


class ScoringFields:
    """The fields below the heading "Scores": a mask, and each kind of finding with its settings."""

    def __init__(self) -> None:
        self.mask = MaskField()
        self.mask.setToolTip(
            "A Labels layer over the image: measures how much of each map lies inside, where its "
            "labels are not 0."
        )
        self.kinds = [kind for kind in finding_kinds().values() if not kind.needs_mask]
        self.boxes = {kind.name: _box(kind) for kind in self.kinds if kind.name != MAIN}
        self.forms = {kind.name: SettingsForm(kind.settings, hidden=HIDDEN) for kind in self.kinds}

    def add_to(self, form: QFormLayout) -> None:
        """Lay the fields out."""
        form.addRow(heading("Scores"))
        form.addRow("Mask", self.mask)
        for kind in self.kinds:
            settings = self.forms[kind.name].native
            if kind.name in self.boxes:
                box = self.boxes[kind.name]
                form.addRow(box)
                box.toggled.connect(settings.setVisible)
                settings.setVisible(False)
            form.addRow(settings)

    def requests(self, *, road: bool) -> list[FindingRequest]:
        """Return what is to be computed, with the settings that differ from their defaults.

        Raises
        ------
        CamError
            When a setting is wrong.
        """
        chosen = {name: box.isChecked() for name, box in self.boxes.items()} | {MAIN: road}
        return [
            FindingRequest(kind.name, self.forms[kind.name].values())
            for kind in self.kinds
            if chosen[kind.name]
        ]


def _box(kind: FindingKind) -> QCheckBox:
    box = QCheckBox(kind.title)
    box.setToolTip(kind.help)
    return box
