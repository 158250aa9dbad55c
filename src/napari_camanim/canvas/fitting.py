"""Keeps a view that shows everything as large as possible so while docks are opened."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

import numpy as np
from qtpy.QtCore import QCoreApplication

from napari_camanim.timers import single_shot

if TYPE_CHECKING:
    from napari.components import ViewerModel

#: Milliseconds until the layout of the window with a new dock is settled.
SETTLED = 500


def keep_fitted(viewer: ViewerModel) -> None:
    """Fit the view again when the canvas changes its size in the next moments, if it is fitted now.

    A view that the user has zoomed or moved is left alone.
    """
    if viewer.dims.ndisplay != 2 or not viewer.layers or not _is_fitted(viewer):
        return
    weak, size, fitted = ref(viewer), viewer.canvas.events.size, _camera(viewer)

    def fit() -> None:
        nonlocal fitted
        seen = weak()
        # Unless it was moved in the meantime.
        if seen is not None and seen.dims.ndisplay == 2 and np.allclose(_camera(seen), fitted):
            seen.reset_view()
            fitted = _camera(seen)

    def end() -> None:
        if weak() is not None:
            size.disconnect(fit)
        timer.deleteLater()

    size.connect(fit)
    # It must not end with the dock, which may be closed before.
    timer = single_shot(SETTLED, end, QCoreApplication.instance())
    timer.start()


def _camera(viewer: ViewerModel) -> tuple[float, ...]:
    camera = viewer.scene.camera
    return (*camera.center, camera.zoom)


def _is_fitted(viewer: ViewerModel) -> bool:
    """Return whether the camera shows all layers as large as possible."""
    camera = viewer.scene.camera
    center, zoom = camera.center, camera.zoom
    viewer.reset_view()
    fitted = np.allclose((*center, zoom), _camera(viewer))
    camera.center, camera.zoom = center, zoom
    return fitted
