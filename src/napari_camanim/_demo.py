"""``camanim demo`` with a display: napari with a sample, the dock and a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_camanim.dock.widget import CamWidget

SAMPLE = "malignant_1"


def open_demo() -> None:
    """Open napari with a sample image, the dock widget and a run with ROAD, until it is closed."""
    import napari

    viewer = napari.Viewer(title="napari-camanim")
    show_demo(viewer)
    napari.run()


def show_demo(viewer: Viewer) -> CamWidget:
    """Add the sample and the dock widget to a viewer, and start the run.

    Parameters
    ----------
    viewer : napari.Viewer

    Returns
    -------
    CamWidget
    """
    viewer.open_sample("napari-camanim", SAMPLE)
    widget: CamWidget
    _, widget = viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")
    viewer.layers.selection.active = viewer.layers[SAMPLE]
    widget.network.value = "demo/ultrasound"
    widget.road.value = True
    widget.run()
    return widget
