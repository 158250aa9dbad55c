"""A real window for the tests of the plugin: skip them where there is no display."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from napari.layers import Image

from napari_camanim._layers import is_stack

SHARED = Path(__file__).parents[3] / "shared"


def pytest_collection_modifyitems(items):
    """One process shows all windows, so that they do not take the focus from each other."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("windows"))


@pytest.fixture
def viewer(make_napari_viewer):
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        pytest.skip("needs a display: run under xvfb-run")
    return make_napari_viewer(show=True)


@pytest.fixture
def dock(viewer, qtbot):
    """The widget as napari docks it, with a way to wait for its runs."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")

    def finish(timeout=120_000):
        qtbot.waitUntil(lambda: widget._task is None, timeout=timeout)

    widget.finish = finish
    return widget


@pytest.fixture
def stacks(viewer):
    return lambda: [layer for layer in viewer.layers if is_stack(layer)]


@pytest.fixture
def ramp():
    """A small grey image that a demo run takes no time for."""
    return Image(np.linspace(0, 255, 96 * 128).reshape(96, 128).astype(np.uint8), name="ramp")


@pytest.fixture
def shared():
    if not SHARED.exists():
        pytest.skip("the shared images and weights are not here")
    return SHARED
