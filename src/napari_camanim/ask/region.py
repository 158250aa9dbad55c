"""The field "Region" of the dock: the whole image, a box of it, or windows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, PushButton
from napari.layers import Shapes
from psygnal import Signal

from camanim.declarations import settings_of
from camanim.errors import ImageError
from camanim.settings import WindowSettings
from napari_camanim.ask.boxes import FINAL, box_layer, box_words, pixel_ranges, vertices_in
from napari_camanim.dock.form import Column, Form
from napari_camanim.dock.search_field import narrow
from napari_camanim.dock.settings_form import SettingsForm
from napari_camanim.layers.metadata import KEY
from napari_camanim.session import unwrapped

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_camanim.layers.views import View

WHOLE, BOX, WINDOWS = "whole image", "box", "windows"
LABELS = {"size": "Window size", "max_cells": "Largest map"}


class RegionField(Column):
    """Chooses what Run explains: the whole image, a box at full resolution, or window by window.

    Parameters
    ----------
    viewer : napari viewer

    Signals
    -------
    altered : ()
        What is explained was changed, also by drawing.
    """

    altered = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._watched: Shapes | None = None
        self._selected: set[int] = set()
        self._drawn: list[Shapes] = []
        self.region = ComboBox(
            name="region",
            label="Region",
            choices=[WHOLE, BOX, WINDOWS],
            tooltip="What Run explains: the whole image, a box at full resolution, or window by window.",
        )
        self.shapes = ComboBox(
            name="box",
            label="Box",
            choices=self._shapes,
            nullable=True,
            tooltip="Layer with the box: its selected shape, or the last one.",
        )
        self.draw_button = PushButton(
            name="draw", text="Draw box", tooltip="Draw a rectangle over the image."
        )
        self.settings = SettingsForm(settings_of(WindowSettings), LABELS, lines=("size",))
        super().__init__([Form([self.region, self.shapes]), self.draw_button, self.settings])
        narrow(self.shapes.native, 8)
        self.region.changed.connect(self._on_region)
        self.shapes.changed.connect(self._on_shapes)
        self.settings.changed.connect(self._on_altered)
        self._on_region()

    # -- What is explained -------------------------------------------------------------------------

    def apply(self, view: View, image: Image) -> View:
        """Return the view of the chosen box of an image.

        Raises
        ------
        ImageError
            If a box is to be explained, and none is drawn.
        """
        if self.region.value == WHOLE:
            return view
        layer = self.shapes.value
        if layer is None or layer.nshapes == 0:
            if self.region.value == WINDOWS:
                return view
            raise ImageError("There is no box: press Draw box, or choose a layer with shapes.")
        selected = sorted(layer.selected_data)
        index = selected[-1] if selected else layer.nshapes - 1
        vertices = vertices_in(layer, index, image)
        ranges = pixel_ranges(vertices)
        along = [axis for axis in view.displayed if axis >= 0]
        box = tuple(each if axis in along else None for axis, each in enumerate(ranges))
        return replace(view, box=box, box_words=box_words(layer, index, vertices[:, along]))

    def windows(self) -> dict[str, Any] | None:
        """Return the settings of the windows that differ from their defaults; None without windows.

        Raises
        ------
        SettingError
            If the value of a field is invalid.
        """
        return self.settings.values() if self.region.value == WINDOWS else None

    # -- Drawing -----------------------------------------------------------------------------------

    def draw(self, image: Image) -> None:
        """Add a layer over an image to draw the box in, and choose it."""
        layer = box_layer(image, f"{image.name} box")
        self._viewer.layers.append(layer)
        layer = unwrapped(layer)
        self._drawn.append(layer)
        self.reset_choices()
        self.shapes.value = layer
        if self.region.value == WHOLE:
            self.region.value = BOX
        self._viewer.layers.selection.active = layer
        layer.mode = "add_rectangle"

    def close(self, *, remove: bool = True) -> None:
        """Disconnect from the chosen layer, and remove layers that were added to draw in."""
        self._watch(None)
        for layer in self._drawn:
            if remove and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._drawn = []

    def _shapes(self, widget: Any = None) -> list[tuple[str, Shapes]]:
        layers = [unwrapped(layer) for layer in self._viewer.layers]
        return [
            (layer.name, layer)
            for layer in layers
            if isinstance(layer, Shapes) and KEY not in layer.metadata
        ]

    def _on_region(self, value: Any = None) -> None:
        self.shapes.visible = self.draw_button.visible = self.region.value != WHOLE
        self.settings.visible = self.region.value == WINDOWS
        self._on_altered()

    def _on_shapes(self, layer: Shapes | None) -> None:
        self._watch(layer)
        self._on_altered()

    def _watch(self, layer: Shapes | None) -> None:
        before, self._watched = self._watched, layer
        if before is not None:
            before.events.data.disconnect(self._on_data)
            before.events.highlight.disconnect(self._on_highlight)
        if layer is not None:
            layer.events.data.connect(self._on_data)
            layer.events.highlight.connect(self._on_highlight)

    def _on_data(self, event: Any) -> None:
        # Not while a shape is drawn or dragged.
        if self.region.value != WHOLE and event.action in FINAL:
            self._on_altered()

    def _on_highlight(self, event: Any = None) -> None:
        """Notice that another shape was selected."""
        layer = self._watched
        selected = set() if layer is None else set(layer.selected_data)
        if selected != self._selected:
            self._selected = selected
            if self.region.value != WHOLE:
                self._on_altered()

    def _on_altered(self, value: Any = None) -> None:
        self.altered.emit()
