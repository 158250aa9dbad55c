"""Arrangements of image and maps on the canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from napari_camanim.comparison.view import CompareView
from napari_camanim.layers.stack import is_stack
from napari_camanim.session import Session, unwrapped

if TYPE_CHECKING:
    from napari.components import ViewerModel

Preset = Literal["overlay", "side by side", "map only"]
PRESETS: tuple[Preset, ...] = ("overlay", "side by side", "map only")

#: Opacity of the maps over the image.
OVER = 0.5


def apply_preset(viewer: ViewerModel, preset: Preset) -> None:
    """Arrange the current stack and its image; without a stack, nothing changes.

    Parameters
    ----------
    viewer : napari viewer
    preset : {"overlay", "side by side", "map only"}
        The map over the image, beside it in a grid with one camera, or opaque.
    """
    session = Session.of(viewer)
    stack = session.current
    if stack is None:
        return
    previous = CompareView.of(session)
    if previous is not None:
        previous.close()
    grid = viewer.canvas.grid
    if preset == "side by side":
        shown = (stack, stack.data.run.image)
        for layer in map(unwrapped, viewer.layers):
            if layer.visible and layer not in shown and not is_stack(layer):
                # It would get another cell.
                layer.visible = False
        grid.stride, grid.shape = 1, (1, 2)
    stack.opacity = OVER if preset == "overlay" else 1.0
    grid.enabled = preset == "side by side"
    viewer.reset_view()
