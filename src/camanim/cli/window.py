"""What the command line needs from napari, which is imported only when a window is opened."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from camanim.animation import Animation


def missing_window() -> str:
    """Return why napari cannot open a window, or an empty string."""
    for module in ("napari", "qtpy", "magicgui"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed: install napari-camanim[gui]."
    if sys.platform.startswith("linux") and not any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    ):
        return "There is no display: set DISPLAY, or use a desktop."
    return ""


def open_demo() -> None:
    """Open napari with a sample and a run, until it is closed."""
    from napari_camanim._demo import open_demo

    open_demo()


def open_view(
    results: Sequence[tuple[str, Animation]], images: Sequence[Path], model: str | None
) -> None:
    """Open napari with results and images, until it is closed.

    Parameters
    ----------
    results : sequence of (name, Animation)
    images : sequence of Path
    model : str or None
        Network that the dock is set to; None for the one that it suggests.
    """
    from napari_camanim._view import open_view

    open_view(results, images, model)
