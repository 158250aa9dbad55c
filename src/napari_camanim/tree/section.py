"""The section of the dock with the layer tree and the probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_camanim.canvas.probe import Probe
from napari_camanim.session import Session
from napari_camanim.tree.view import LayerTree

if TYPE_CHECKING:
    from napari.viewer import Viewer


class LayersSection:
    """The layer tree, and a check box for the probe, whose values the panel of scores shows.

    Parameters
    ----------
    viewer : napari.Viewer
        With a window.

    Attributes
    ----------
    native : QWidget
    tree : LayerTree
    probe : Probe
    button : CheckBox
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        session = Session.of(viewer)
        self.tree, self.probe = LayerTree(session), Probe(session)
        self.button = CheckBox(
            text="Probe", tooltip="Click a point of the image to see its relevance in all layers."
        )
        self.button.changed.connect(self._on_button)
        self.probe.toggled.connect(self._on_toggled)
        self.probe.probed.connect(self._on_probed)
        self.native = QWidget()
        box = QVBoxLayout(self.native)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self.tree)
        box.addWidget(self.button.native)

    def close(self) -> None:
        """Switch the probe off, without its button, which may be deleted already."""
        self.probe.toggled.disconnect(self._on_toggled)
        self.probe.close()

    def _on_button(self, on: bool) -> None:
        self.probe.active = on

    def _on_toggled(self, on: bool) -> None:
        self.button.value = on

    def _on_probed(self, point: Any, values: Any) -> None:
        """Show the values of the probed point over the layers."""
        from napari_camanim.plots.panel import show_panel

        panel = show_panel(self._viewer)
        panel.clear_extra()
        if point is not None and values is not None:
            panel.set_extra(str(point), values)
