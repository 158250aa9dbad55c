"""The fields of the dock, from top to bottom; what they do is in `widget`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, Container, Label, PushButton, RadioButtons
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget

from napari_camanim.canvas.presets import PRESETS
from napari_camanim.dock.class_field import ClassField
from napari_camanim.dock.form import Column, Form, fit_width, show_words
from napari_camanim.dock.method_field import MethodField
from napari_camanim.dock.network_field import NetworkField
from napari_camanim.dock.sections import Section
from napari_camanim.dock.source import Source
from napari_camanim.dock.status import Status

#: Width in pixels that the dock requests.
WIDTH = 290
#: Titles and tooltips of the folding sections.
SECTIONS = {
    "Layers": "The network as the tree of its modules.",
    "Ask": "What if a region were not there? Explain a box, or windows.",
    "Compare": "Several methods, classes or networks side by side.",
    "Save": "Results, tables, movies and cards.",
    "Settings": "Settings of network, maps, scores and computation.",
}


class DockFields(Container[Any]):
    """The fields that are always shown, and below them folding sections.

    Parameters
    ----------
    source : Source
        The fields that say what is explained.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.image, self.channels, self.view_words = source.image, source.channels, source.words
        self.network = NetworkField(
            name="network", label="Network", value="", tooltip=NetworkField.hint
        )
        self.domain = Label(name="domain", tooltip="What the network was trained on.")
        self.classes = ClassField(
            name="class",
            label="Class",
            tooltip="The class to explain; A - B for a contrast, A; B for a stack of each.",
        )
        self.method = MethodField(name="method", label="Method")
        self.road = CheckBox(
            name="road",
            text="Score every layer (ROAD)",
            tooltip="Score each map by removing the pixels that it marks as important.",
        )
        self.run_button = PushButton(
            name="run", text="Run", tooltip="Compute the maps of all layers."
        )
        self.predict_button = PushButton(
            name="predict", text="Predict", tooltip="List the likeliest classes."
        )
        self.live = CheckBox(
            name="live",
            text="Live",
            tooltip="Run again whenever slice, class, method or network change.",
        )
        self.cost = Label(name="cost", tooltip="Expected cost of Run; known for a loaded network.")
        self.normalization = RadioButtons(
            name="scale",
            label="Scale",
            choices=["local", "global"],
            orientation="horizontal",
            tooltip="local: a separate scale for each layer; global: a common scale.",
        )
        self.normalization.value = "local"
        self.preset = ComboBox(
            name="view",
            label="View",
            choices=PRESETS,
            tooltip="The map over the image, beside it, or opaque.",
        )
        self.signed = CheckBox(
            name="signed",
            text="Show negative evidence",
            tooltip="Show evidence against the class, too, with a diverging colormap.",
        )
        self.status = Status()
        rows = [
            Form([self.image]),
            self.view_words,
            Form([self.channels, self.network]),
            self.domain,
            Form([self.classes, self.method]),
            self.road,
            Column([self.run_button, self.predict_button, self.live], "horizontal"),
            self.cost,
            Form([self.normalization, self.preset]),
            self.signed,
            self.status,
        ]
        super().__init__(widgets=rows, scrollable=True, labels=False)
        self.network.native.parentWidget().layout().addWidget(self.network.button)
        for label in (self.view_words, self.domain, self.cost):
            label.native.setWordWrap(True)
            fit_width(label)
            show_words(label, label.value)
        self.native.setMinimumWidth(WIDTH)
        self.native.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    @property
    def native(self) -> QWidget:
        """The widget that scrolls, as napari docks this one."""
        return self.root_native_widget

    def _add_sections(self, makers: Mapping[str, Callable[[], QWidget]]) -> dict[str, Section]:
        """Add the folding sections; `makers` make their contents."""
        layout = super().native.layout()
        layout.setSpacing(6)
        sections = {
            title: Section(title, tooltip, makers[title]) for title, tooltip in SECTIONS.items()
        }
        for section in sections.values():
            layout.addWidget(section)
        layout.addStretch()
        return sections
