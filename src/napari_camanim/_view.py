"""``camanim view``: napari with saved results, and with images in the dock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import camanim

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from camanim import Animation
    from napari_camanim.dock.widget import CamWidget


def open_view(
    results: Sequence[tuple[str, Animation]], images: Sequence[Path], model: str | None
) -> None:
    """Open napari with results and images, until it is closed; see `show_view`."""
    import napari

    viewer = napari.Viewer(title="napari-camanim")
    show_view(viewer, results, images, model)
    napari.run()


def show_view(
    viewer: Viewer,
    results: Sequence[tuple[str, Animation]],
    images: Sequence[Path],
    model: str | None,
) -> CamWidget:
    """Add results and images to a viewer, and the dock.

    Parameters
    ----------
    viewer : napari.Viewer
    results : sequence of (name, Animation)
        Each is shown as a stack over its picture.
    images : sequence of Path
        Shown as they are read by `camanim.open_image`; the last one is selected.
    model : str or None
        Network that the dock is set to; None for the one that it suggests.

    Returns
    -------
    CamWidget
    """
    from napari_camanim.files.opened import Opened, add_opened
    from napari_camanim.layers.metadata import metadata

    _, widget = viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")
    dock: CamWidget = widget
    if model is not None:
        dock.network.value = model
    for name, animation in results:
        add_opened(viewer, Opened(animation, metadata(animation, "local"), name))
    for path in images:
        source = camanim.open_image(path)
        viewer.add_image(
            source.pixels,
            # Names of DICOM files may be those of patients, and a window is photographed.
            name=source.name if source.kind == "DICOM" else path.name,
            scale=source.spacing,
            units=source.units and (source.units,) * source.dims,
            contrast_limits=source.window,
        )
    if images:
        viewer.layers.selection.active = viewer.layers[-1]
    return dock
