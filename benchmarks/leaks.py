"""What is left in memory after many cycles of the window: widgets, layers, results, megabytes.

    python benchmarks/leaks.py
    python benchmarks/leaks.py --cycles 100

On Linux without a display: ``xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/leaks.py``. Each
cycle opens the dock and all its sections, runs with scores, opens the panel, walks through all layers,
runs another method, compares both runs side by side, edits a region, removes the maps, closes the dock.
Counts are of what Python and Qt still hold after a garbage collection.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys

# The plugin and torch come before the first window.
# isort: off
import napari_camanim  # noqa: F401
import torch  # noqa: F401

# isort: on
import napari
from napari.layers import Layer
from qtpy.QtCore import QEvent, QEventLoop, QTimer
from qtpy.QtWidgets import QApplication

from camanim import Animation
from napari_camanim import compare
from napari_camanim.dock.widget import CamWidget
from napari_camanim.plots.panel import NAME
from napari_camanim.work import collection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=50)
    cycles = parser.parse_args().cycles
    viewer = napari.Viewer()
    viewer.open_sample("napari-camanim", "malignant_1")
    image = viewer.layers["malignant_1"]
    print("cycle  widgets  docks  layers  results  MB")
    for number in range(1, cycles + 1):
        cycle(viewer, image)
        if number == 1 or number % 10 == 0:
            print(f"{number:5}  {counts()}", flush=True)
    # Closing the window takes longer than the measurement.
    os._exit(0)


def cycle(viewer: napari.Viewer, image: Layer) -> None:
    """Open the dock, use everything once, and close it."""
    viewer.layers.selection.active = image
    docked, widget = viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")
    for section in widget.sections.values():
        section.fill()
    widget.network.choose("demo/ultrasound")
    widget.settings.layers.value = "blocks"
    # The dock remembers the method of the last cycle.
    widget.method.value = "GradCAM"
    widget.road.value = True
    run(widget)
    first = widget.session.current
    for index in range(len(first.data)):
        widget.session.go_to(index)
        rest(0.01)
    widget.method.value = "LayerCAM"
    run(widget)
    view = compare(viewer, [first, widget.session.current])
    rest(0.2)
    view.close()
    widget.ask.set_mode("paint")
    settle(widget)
    widget.ask.tool.labels.paint((60, 60), 1)
    settle(widget)
    widget.ask.set_mode("off")
    viewer.layers.selection.active = image
    for layer in list(viewer.layers):
        # napari crashes on software OpenGL if it draws a layer that was hidden when it was removed.
        layer.visible = True
    rest(0.1)
    for layer in list(viewer.layers):
        if layer.name not in ("malignant_1", "malignant_1 mask"):
            viewer.layers.remove(layer)
    viewer.window.remove_dock_widget(viewer.window.dock_widgets[NAME])
    viewer.window.remove_dock_widget(docked)


def run(widget: CamWidget) -> None:
    widget.run()
    settle(widget)


def settle(widget: CamWidget) -> None:
    """Wait until nothing is computed any more."""
    rest(0.1)
    while widget.runner.running or widget.ask.tool.runner.running:
        rest(0.05)


def rest(seconds: float) -> None:
    """Let the event loop run."""
    loop = QEventLoop()
    QTimer.singleShot(round(1000 * seconds), loop.quit)
    loop.exec()


def counts() -> str:
    """Return the numbers of objects, and the megabytes in use."""
    for _ in range(3):
        rest(0.1)
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        collection.include_all()
        gc.collect()
    found = gc.get_objects()
    kinds = [
        sum(isinstance(each, kind) for each in found) for kind in (CamWidget, Layer, Animation)
    ]
    numbers = [len(QApplication.allWidgets()), *kinds]
    if sys.platform.startswith("linux"):
        with open("/proc/self/statm") as file:
            bytes_used = int(file.read().split()[1]) * resource.getpagesize()
    else:
        bytes_used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return "  ".join(f"{n:6}" for n in [*numbers, round(bytes_used / 2**20)])


if __name__ == "__main__":
    main()
