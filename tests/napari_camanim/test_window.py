"""The whole window after a run with scores: dark and light, small and large.

With the environment variable CAMANIM_SCREENSHOTS, the windows are written to that folder as PNG files.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QPoint, QRect
from qtpy.QtWidgets import QLabel

from camanim import samples
from napari_camanim.plots.panel import show_panel

SIZES = {"small": (1000, 700), "large": (1360, 860)}


@pytest.fixture(
    params=[
        ("dark", "small"),
        ("light", "large"),
        pytest.param(("dark", "large"), marks=pytest.mark.slow),
        pytest.param(("light", "small"), marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def look(request, viewer):
    """Theme and size of the window."""
    theme, size = request.param
    viewer.theme = theme
    viewer.window.resize(*SIZES[size])
    return request.param


@pytest.fixture
def window(viewer, look, small, qtbot):
    """The window with an explained sample, and its screenshot (height, width, 3)."""
    viewer.add_image(samples.image("malignant_1"), name="malignant")
    small.road.value = True
    small.explain()
    panel = show_panel(viewer)
    qtbot.waitUntil(lambda: panel.drawing.pixels is not None, timeout=20_000)
    qtbot.wait(700)
    viewer.window.activate()
    picture = viewer.screenshot(canvas_only=False, flash=False)[..., :3]
    folder = os.environ.get("CAMANIM_SCREENSHOTS")
    if folder:
        from PIL import Image

        Path(folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(Path(folder) / f"window-{'-'.join(look)}.png")
    return picture


def place_of(widget, within):
    return QRect(widget.mapTo(within, QPoint(0, 0)), widget.size())


def pixels_of(picture, widget, within):
    """Return the part of a screenshot with a widget."""
    scale = picture.shape[1] / within.width()
    rect = place_of(widget, within)
    rows = slice(int(rect.top() * scale), int((rect.bottom() + 1) * scale))
    return picture[rows, int(rect.left() * scale) : int((rect.right() + 1) * scale)].astype(int)


def test_the_window_is_readable_in_every_theme_and_size(viewer, window, small, look):
    main, canvas = small.native.window(), viewer.window._qt_viewer.canvas.native
    panel = show_panel(viewer)
    check_places(main, small, panel, place_of(canvas, main))
    for label in small.native.findChildren(QLabel):
        if label.isVisible() and label.text():
            assert label.heightForWidth(label.width()) <= label.height() + 1, label.text()
    for part in (small.native, panel):
        is_light = np.median(pixels_of(window, part, main).mean(-1)) > 128
        assert is_light == (look[0] == "light")
    # Text and curve are seen: some pixels differ much from the background.
    for part in (small.run_button.native, small.status.message.native, panel.view):
        grey = pixels_of(window, part, main).mean(-1)
        assert (np.abs(grey - np.median(grey)) > 60).mean() > 0.005
    # The image is grey, the maps over it are not.
    assert (np.ptp(pixels_of(window, canvas, main), axis=-1) > 40).mean() > 0.1


def check_places(main, dock, panel, canvas):
    """Check that the image has most of the room, and that nothing lies over it or is cut off."""
    assert canvas.width() >= 0.35 * main.width()
    assert canvas.height() >= 0.4 * main.height()
    for part in (dock.native, panel):
        assert part.isVisible()
        assert main.rect().contains(place_of(part, main))
        assert not place_of(part, main).intersects(canvas)
    # The main fields are seen without scrolling.
    view = dock.native.viewport()
    for field in (dock.image, dock.network, dock.method, dock.run_button, dock.signed):
        assert view.rect().contains(place_of(field.native, view)), field.name
