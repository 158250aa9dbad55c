"""The curves of a stack: scores over the layers, one layer's removal, and what lies in a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from napari_camanim._plot import Band, Floats, Line, Mark, Plot, PlotWidget

if TYPE_CHECKING:
    from camanim.checks import Localisation
    from camanim.road import Road

LAYERS, REMOVAL, MASK = "Layers", "Removal", "Mask"
TIPS = {
    LAYERS: "The ROAD score of every layer, beside what chance would score.",
    REMOVAL: "What the shown layer's score is made of: the prediction as pixels are removed.",
    MASK: "How much of each layer's map lies inside the mask.",
}


class Curve(QWidget):
    """The plots of one stack, and above them a switch between those that there are.

    It knows no viewer: who owns it calls `show_results` and `set_index`, and listens to `moved`.

    Signals
    -------
    moved : (int,)
        The layer at which the user points.
    """

    moved = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._road: Road | None = None
        self._localisation: Localisation | None = None
        self._unit = ""
        self._index: int | None = None
        self.plot = PlotWidget()
        self.plot.moved.connect(self.moved)
        self.buttons = {name: _button(name) for name in TIPS}
        group = QButtonGroup(self)
        self._row = QWidget()
        row = QHBoxLayout(self._row)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        for button in self.buttons.values():
            group.addButton(button)
            row.addWidget(button)
            button.toggled.connect(self._draw)
        row.addStretch()
        self.buttons[LAYERS].setChecked(True)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addWidget(self._row)
        box.addWidget(self.plot)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    @property
    def view(self) -> str:
        """The plot that is chosen."""
        return next(name for name, button in self.buttons.items() if button.isChecked())

    def show_results(
        self, road: Road | None, localisation: Localisation | None = None, unit: str = "probability"
    ) -> bool:
        """Plot these results; return whether there is anything to plot.

        Parameters
        ----------
        road : Road or None
        localisation : Localisation or None
        unit : str
            Of what the target is worth, such as ``probability``.
        """
        self._road, self._localisation, self._unit = road, localisation, unit
        there = {
            LAYERS: road is not None,
            REMOVAL: road is not None,
            MASK: localisation is not None,
        }
        for name, button in self.buttons.items():
            button.setVisible(there[name])
        offered = [name for name in there if there[name]]
        self._row.setVisible(len(offered) > 1)
        if offered and not there[self.view]:
            self.buttons[offered[0]].setChecked(True)
        self._draw()
        return bool(offered)

    def set_index(self, index: int | None) -> None:
        """Put the cursor at a layer; None takes it away."""
        self._index = index
        self.plot.set_index(index)
        if self.view == REMOVAL:
            self._draw()

    def _draw(self) -> None:
        if self.view == MASK and self._localisation is not None:
            self.plot.set_plot(mask_plot(self._localisation))
        elif self._road is None:
            self.plot.set_plot(Plot(np.empty(0)))
        elif self.view == REMOVAL:
            self.plot.set_plot(removal_plot(self._road, self._index, self._unit))
        else:
            self.plot.set_plot(scores_plot(self._road))


def _button(name: str) -> QToolButton:
    button = QToolButton()
    button.setText(name)
    button.setToolTip(TIPS[name])
    button.setCheckable(True)
    button.setAutoRaise(True)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    # Both themes of napari colour tool buttons for icons; what is chosen must be seen without them.
    button.setStyleSheet(
        "QToolButton { border: none; border-bottom: 2px solid transparent; padding: 2px 6px; "
        "background: transparent; }"
        "QToolButton:checked { border-bottom: 2px solid palette(highlight); font-weight: bold; }"
    )
    return button


# -- What is plotted -------------------------------------------------------------------------------


def scores_plot(road: Road) -> Plot:
    """Plot the scores over the layers, what chance scores, and the best layers.

    Parameters
    ----------
    road : Road

    Returns
    -------
    Plot
        With a band around the scores where there are repeats, and one around the baseline, beyond which
        a score is above chance.
    """
    count = len(road.layers)
    scored = Line("score", road.scores, band=_around(road.scores, road.spread))
    lines: tuple[Line, ...] = (scored,)
    tip = "ROAD score of every layer (ybROAD); click to go there."
    if not np.isnan(road.baseline).all():
        reach = np.where(np.isnan(road.margin), road.baseline_spread, road.margin)
        band = _around(road.baseline, reach)
        lines = (Line("chance", road.baseline, "chance", "dashed", band, faint=True), scored)
        tip = (
            "ROAD score of every layer (ybROAD), above chance where it lies beyond the band of "
            "random maps; click to go there."
        )
    marks = []
    if road.best is not None:
        marks.append(_mark("best", road.layers.index(road.best), road.scores))
    if road.best_plain is not None and road.best_plain is not road.best:
        at = road.layers.index(road.best_plain)
        marks.append(_mark("highest score", at, road.scores, filled=False))
    return Plot(np.arange(count, dtype=float), lines, tuple(marks), _ends(count), tip=tip)


def removal_plot(road: Road, i: int | None, unit: str) -> Plot:
    """Plot what the target is worth against the share of pixels that were removed.

    Parameters
    ----------
    road : Road
    i : int or None
        The layer; with None there is nothing to plot.
    unit : str
        Of what the target is worth.

    Returns
    -------
    Plot
        On the same scale for all layers, with a band over the repeats.
    """
    tip = (
        f"The target's {unit} as pixels are removed: good maps lose it with the most relevant ones "
        "(MoRF) and keep it without the least relevant ones (LeRF)."
    )
    if i is None:
        return Plot(np.empty(0), layers=False, instead="No layer is shown.", tip=tip)
    reason = road.undefined[i]
    if reason is not None:
        return Plot(np.empty(0), layers=False, instead=f"No curve: {reason}.", tip=tip)
    removed = 100 - np.asarray(road.percentiles, float)
    order = np.argsort(removed)
    known = np.concatenate([[0.0, road.probability], road.morfs.ravel(), road.lerfs.ravel()])
    known = known[np.isfinite(known)]
    lerfs, morfs = (
        np.insert(values[:, i][:, order], 0, road.probability, axis=1)
        for values in (road.lerfs, road.morfs)
    )
    return Plot(
        np.insert(removed[order], 0, 0.0),
        (
            Line("LeRF, least relevant", lerfs.mean(axis=0), "second", band=_all(lerfs), dots=True),
            Line("MoRF, most relevant", morfs.mean(axis=0), "first", band=_all(morfs), dots=True),
        ),
        ends=("0 %", f"{removed.max():g} % removed"),
        limits=(float(known.min()), float(known.max())),
        layers=False,
        tip=tip,
    )


def mask_plot(localisation: Localisation) -> Plot:
    """Plot how well each layer's map finds the mask, and what chance gives.

    Parameters
    ----------
    localisation : Localisation

    Returns
    -------
    Plot
    """
    count = len(localisation.layers)
    chance = np.full(count, localisation.share)
    precision = np.asarray(localisation.average_precision, float)
    marks = []
    if localisation.best is not None:
        marks.append(_mark("best", localisation.layers.index(localisation.best), precision))
    return Plot(
        np.arange(count, dtype=float),
        (
            Line("chance", chance, "chance", "dashed", faint=True),
            Line("energy inside", np.asarray(localisation.energy, float), "first"),
            Line("average precision", precision),
        ),
        tuple(marks),
        _ends(count),
        tip="How well each layer's map finds the mask, from 0 to 1; click to go there.",
    )


def _around(middle: Floats, reach: Floats) -> Band | None:
    return None if np.isnan(reach).all() else (middle - reach, middle + reach)


def _all(repeats: Floats) -> Band | None:
    return (repeats.min(axis=0), repeats.max(axis=0)) if len(repeats) > 1 else None


def _mark(name: str, at: int, values: Floats, *, filled: bool = True) -> Mark:
    return Mark(name, at, float(values[at]), filled)


def _ends(count: int) -> tuple[str, str]:
    return ("layer 1", str(count)) if count > 1 else ("layer 1", "")
