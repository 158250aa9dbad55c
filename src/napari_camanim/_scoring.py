"""The fields of what is measured on the maps: how often, against what, and whether to be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QSpinBox

from napari_camanim._methods import heading

if TYPE_CHECKING:
    from napari.layers import Labels

NO_MASK = "none"


@dataclass(frozen=True)
class ScoringSettings:
    """What is to be measured.

    Attributes
    ----------
    repeats : int
        Of the ROAD scores.
    baseline : bool
        Whether random maps are scored too.
    checks : bool
        Whether the method is checked with random weights and other classes.
    """

    repeats: int = 1
    baseline: bool = True
    checks: bool = False


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
    """The fields below the heading "Scores"."""

    def __init__(self) -> None:
        self.repeats = QSpinBox()
        self.repeats.setRange(1, 100)
        self.baseline = QCheckBox("Baseline")
        self.baseline.setChecked(True)
        self.mask = MaskField()
        self.checks = QCheckBox("Check the method")
        tips = {
            self.repeats: "How often ROAD is run, each time with another seed; 3 show how far a score "
            "spreads.",
            self.baseline: "Score random maps of each layer's own resolution too: what chance gets.",
            self.mask: "A Labels layer over the image: measures how much of each map lies inside, "
            "where its labels are not 0.",
            self.checks: "Make the maps again with shuffled weights and for other classes, which must "
            "change them: costs up to 25 further runs.",
        }
        for widget, tip in tips.items():
            widget.setToolTip(tip)

    def add_to(self, form: QFormLayout) -> None:
        """Lay the fields out."""
        form.addRow(heading("Scores"))
        form.addRow("Repeats", self.repeats)
        form.addRow(self.baseline)
        form.addRow("Mask", self.mask)
        form.addRow(self.checks)

    def values(self) -> ScoringSettings:
        """Return what the fields say."""
        return ScoringSettings(
            self.repeats.value(), self.baseline.isChecked(), self.checks.isChecked()
        )
