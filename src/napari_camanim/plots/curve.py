"""The plots of the findings of a stack, one tab each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QSizePolicy, QToolButton, QVBoxLayout, QWidget
from superqt import QFlowLayout

from camanim.findings import Finding
from camanim.plots import Plot, PlotOffer

if TYPE_CHECKING:
    from napari_camanim.plots.canvas import PlotCanvas


@dataclass(frozen=True)
class Tab:
    """One plot of a finding."""

    title: str
    offer: PlotOffer


class Curve(QWidget):
    """Plots of the findings of one stack, with a row of tabs; independent of the viewer.

    Signals
    -------
    moved : (int,)
        Index of the layer that the user clicks.
    """

    moved = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._tabs: list[Tab] = []
        self._title = ""
        self._index: int | None = None
        self.canvas: PlotCanvas | None = None
        self.buttons: dict[str, QToolButton] = {}
        self._row = QWidget()
        # Many tabs are wrapped, instead of widening the dock.
        row = QFlowLayout(self._row)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addWidget(self._row)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    @property
    def view(self) -> str:
        """Title of the chosen tab; empty without tabs."""
        return self._title

    def show_findings(self, findings: Mapping[str, Finding]) -> bool:
        """Plot findings; return whether any has a plot."""
        self._tabs = [tab for finding in findings.values() for tab in _tabs_of(finding)]
        titles = [tab.title for tab in self._tabs]
        if titles != list(self.buttons):
            self._create_buttons()
        if self._tabs:
            self.choose(self._title if self._title in titles else titles[0])
        return bool(self._tabs)

    def choose(self, title: str) -> None:
        """Show the tab with a title."""
        self._title = title
        for name, button in self.buttons.items():
            button.setChecked(name == title)
        self._draw()

    def set_index(self, index: int | None) -> None:
        """Move the cursor to a layer; None hides it."""
        if index == self._index:
            return
        self._index = index
        tab = self._tab()
        if tab is not None and tab.offer.of_layer:
            self._draw()
        elif self.canvas is not None:
            self.canvas.set_index(index)

    def _create_buttons(self) -> None:
        row = self._row.layout()
        for button in self.buttons.values():
            row.removeWidget(button)
            button.deleteLater()
        self.buttons = {tab.title: _button(tab) for tab in self._tabs}
        for title, button in self.buttons.items():
            row.addWidget(button)
            button.show()
            button.clicked.connect(partial(self.choose, title))
        self._row.setVisible(len(self.buttons) > 1)

    def _tab(self) -> Tab | None:
        return next((tab for tab in self._tabs if tab.title == self._title), None)

    def _draw(self) -> None:
        tab = self._tab()
        if tab is None:
            return
        if self.canvas is None:
            # Imported on first use, so that opening the dock does not import matplotlib.
            from napari_camanim.plots.canvas import PlotCanvas

            self.canvas = PlotCanvas()
            self.canvas.moved.connect(self.moved)
            self.layout().addWidget(self.canvas)
        self.canvas.set_plot(tab.offer.draw(self._index if tab.offer.of_layer else None))
        self.canvas.set_index(self._index)


def _tabs_of(finding: Finding) -> list[Tab]:
    """Return the tabs of a finding: the plot over the layers, and additional plots."""
    panel = finding.panel()
    tabs = []
    if panel is not None:
        title = finding.title if finding.key == finding.kind else finding.key
        over_layers = PlotOffer(lambda _: Plot((panel,)), False, title, panel.tip)
        tabs.append(Tab(title, over_layers))
    return tabs + [Tab(offer.title, offer) for offer in finding.plots().values()]


def _button(tab: Tab) -> QToolButton:
    button = QToolButton()
    button.setText(tab.title)
    button.setToolTip(tab.offer.tip)
    button.setCheckable(True)
    button.setAutoRaise(True)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    # napari's themes style tool buttons for icons, so that a checked text button looks unchecked.
    button.setStyleSheet(
        "QToolButton { border: none; border-bottom: 2px solid transparent; padding: 2px 6px; "
        "background: transparent; }"
        "QToolButton:checked { border-bottom: 2px solid palette(highlight); font-weight: bold; }"
    )
    return button
