"""The section "Ask" of the dock."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, Label, PushButton, SpinBox
from qtpy.QtCore import Qt

from camanim.declarations import settings_of
from camanim.editing import Replacement
from camanim.errors import CamError, EditError
from napari_camanim.ask.effect_view import EffectView
from napari_camanim.ask.region import RegionField
from napari_camanim.ask.what_if import Mode, WhatIfTool
from napari_camanim.dock.form import Column, Form, fit_width, heading
from napari_camanim.dock.settings_form import SettingsForm

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from camanim.editing import Effect
    from napari_camanim.session import Session
    from napari_camanim.work.explainer import Explainer

LABELS = {"by": "Replace by", "noise": "Noise", "sigma": "Blur", "offset": "From offset"}
#: Ways to mark the region, with their tooltips.
MODES: dict[Mode, str] = {
    "paint": "Paint a region of the image, to see the probabilities without it.",
    "box": "Draw boxes, to see the probabilities without them.",
    "superpixel": "Click superpixels, to see the probabilities without them.",
}
#: Settings that only one way of replacing uses.
OPTIONS = {"noise": "impute", "sigma": "blur", "offset": "paste"}


class AskSection(Column):
    """What-if edits, and the region that Run explains.

    Parameters
    ----------
    viewer : napari viewer
    session : Session
    explainer : Explainer
    region_settings : callable
        Returns the settings of the region test.

    Attributes
    ----------
    region : RegionField
    tool : WhatIfTool
    """

    def __init__(
        self,
        viewer: ViewerModel,
        session: Session,
        explainer: Explainer,
        region_settings: Callable[[], dict[str, Any]],
    ) -> None:
        self._region_settings = region_settings
        self._viewer = viewer
        self._closed = False
        self.region = RegionField(viewer)
        self.tool = WhatIfTool(session, explainer)
        self.buttons = {
            mode: PushButton(name=mode, text=mode.capitalize(), tooltip=tip)
            for mode, tip in MODES.items()
        }
        for button in self.buttons.values():
            button.native.setCheckable(True)
        self.superpixels = SpinBox(
            name="count",
            label="Superpixels",
            value=self.tool.count,
            min=2,
            max=10_000,
            tooltip="Approximate number of superpixels (SLIC).",
        )
        self.replacement = SettingsForm(
            settings_of(Replacement), LABELS, ("seed",), ("offset", "noise"), EditError
        )
        self.maps = CheckBox(
            name="maps",
            text="Maps on release",
            tooltip="Compute the maps of the edited image at the end of each stroke.",
        )
        self.picture = CheckBox(
            name="picture",
            text="Edited image",
            tooltip="Show the image with the region replaced.",
        )
        self.undo_button = PushButton(
            name="undo", text="Undo", tooltip="Take back the last stroke."
        )
        self.clear_button = PushButton(
            name="clear", text="Clear", tooltip="Take back everything that is marked."
        )
        self.test_button = PushButton(
            name="test",
            text="Test region",
            tooltip="Test whether the network uses the region, by removing it elsewhere as well.",
        )
        self.effect = Label(tooltip="The target before and after the edit.")
        self.words = Label(tooltip="What is being done, or the result of the test.")
        self.view = EffectView(viewer)
        self._counting = Form([self.superpixels])
        super().__init__(
            [
                heading("Explain"),
                self.region,
                heading("What if"),
                Column(list(self.buttons.values()), "horizontal"),
                self._counting,
                self.replacement,
                Column([self.maps, self.picture], "horizontal"),
                self.effect,
                Column([self.undo_button, self.clear_button, self.test_button], "horizontal"),
                self.words,
            ]
        )
        self._lay_out()
        self._connect()
        self.effect.visible = self.words.visible = False
        self._show_mode("off")
        self._on_replacement()

    def _lay_out(self) -> None:
        layout = self.native.layout()
        layout.insertWidget(layout.indexOf(self.effect.native) + 1, self.view)
        for label in (self.effect, self.words):
            label.native.setWordWrap(True)
            fit_width(label)
            label.native.setTextInteractionFlags(
                Qt.TextInteractionFlag.TextSelectableByMouse
                | Qt.TextInteractionFlag.TextSelectableByKeyboard
            )

    def _connect(self) -> None:
        for mode, button in self.buttons.items():
            button.clicked.connect(partial(self._on_button, mode))
        self.superpixels.changed.connect(self.tool.set_count)
        self.replacement.changed.connect(self._on_replacement)
        self.maps.changed.connect(self._on_shown)
        self.picture.changed.connect(self._on_shown)
        self.undo_button.clicked.connect(self.tool.undo)
        self.clear_button.clicked.connect(self.tool.clear)
        self.test_button.clicked.connect(self._test)
        self.tool.said.connect(self._on_said)
        self.tool.predicted.connect(self._on_predicted)
        self.tool.switched_off.connect(self._on_off)
        layers = self._viewer.layers.events
        for event in (layers.inserted, layers.removed, layers.renamed):
            event.connect(self._on_layers)

    def close(self, *, remove: bool = True) -> None:
        """Remove all layers that were added, and disconnect from the viewer.

        Parameters
        ----------
        remove : bool
            False if the viewer is being closed.
        """
        if self._closed:
            return
        self._closed = True
        layers = self._viewer.layers.events
        for event in (layers.inserted, layers.removed, layers.renamed):
            event.disconnect(self._on_layers)
        # No widget may be changed while it is deleted.
        self.tool.blockSignals(not remove)
        self.tool.close(remove=remove)
        self.region.close(remove=remove)

    # -- Fields ------------------------------------------------------------------------------------

    def _on_layers(self, event: Any = None) -> None:
        self.region.reset_choices()

    def set_mode(self, mode: Mode) -> None:
        """Switch the tool on with a way to draw, or off."""
        self._show_mode(mode)
        self.tool.set_mode(mode)

    def _on_button(self, mode: Mode, value: Any = None) -> None:
        self.set_mode("off" if mode == self.tool.mode else mode)

    def _on_off(self) -> None:
        self._show_mode("off")

    def _show_mode(self, mode: Mode) -> None:
        for name, button in self.buttons.items():
            button.native.setChecked(name == mode)
        self._counting.visible = mode == "superpixel"
        for action in (self.undo_button, self.clear_button, self.test_button):
            action.enabled = mode != "off"

    def _on_replacement(self, value: Any = None) -> None:
        by = self.replacement["by"].value
        for name, way in OPTIONS.items():
            self.replacement[name].visible = way == by
        try:
            values = self.replacement.values()
        except CamError as error:
            self._on_said(str(error))
            return
        self.tool.set_settings({n: v for n, v in values.items() if OPTIONS.get(n, by) == by})

    def _on_shown(self, value: Any = None) -> None:
        self.tool.set_shown(maps=bool(self.maps.value), picture=bool(self.picture.value))

    def _test(self) -> None:
        try:
            settings = self._region_settings()
        except CamError as error:
            self._on_said(str(error))
            return
        self.tool.test_region(settings)

    def _on_said(self, text: str) -> None:
        self.words.value, self.words.visible = text, bool(text)

    def _on_predicted(self, effect: Effect | None) -> None:
        self.effect.value = "" if effect is None else effect.summary()
        self.effect.visible = effect is not None
        self.view.set_effect(effect)
