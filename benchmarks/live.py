"""How long a live dock takes from a change until the new maps are shown.

    python benchmarks/live.py
    python benchmarks/live.py --model torchvision/resnet50 --weights none

On Linux without a display: ``xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/live.py``. A stack
of shifted copies of a sample is moved through slice by slice, then the class and the method change, then
the slices come back, whose maps are kept. The event loop runs as in napari; the time ends when the stack
has the new maps. The engine alone, on the same image in the same process, is measured for comparison.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

# The plugin and torch come before the first window.
# isort: off
import napari_camanim  # noqa: F401
import torch  # noqa: F401

# isort: on
import napari
import numpy as np
from qtpy.QtCore import QEventLoop, QTimer

import camanim
from camanim import samples
from napari_camanim.commands import dock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="torchvision/mobilenet_v2")
    parser.add_argument("--weights", default="")
    parser.add_argument("--slices", type=int, default=20)
    options = parser.parse_args()

    picture = np.asarray(samples.image("malignant_1"))
    viewer = napari.Viewer()
    viewer.window.resize(1280, 820)
    viewer.add_image(np.stack([np.roll(picture, 9 * i, 1) for i in range(options.slices)]))
    viewer.dims.set_point(0, 0)
    widget = dock(viewer)
    rest(2.0)
    widget.network.choose(options.model)
    widget.settings.weights.line_edit.value = options.weights
    widget.road.value = False
    widget.run()
    while not widget.session.stacks or widget.runner.running:
        rest(0.1)
    widget.live.value = True
    rest(1.0)

    def moves(slices: range) -> list[float]:
        return [until_shown(widget, lambda z=z: viewer.dims.set_point(1, z)) for z in slices]

    report("new slice", moves(range(1, options.slices)))
    for name, field, values in (
        ("new class", widget.classes, range(2, 12)),
        ("new method", widget.method, ("HiResCAM", "XGradCAM", "LayerCAM", "GradCAMPlusPlus")),
    ):
        changes = [lambda v=v, f=field: setattr(f, "value", str(v)) for v in values]
        report(name, [until_shown(widget, change) for change in changes])
    widget.method.value, widget.classes.value = "GradCAM", ""
    rest(3.0)
    moves(range(options.slices - 2, 5, -1))
    report("kept slice", moves(range(7, options.slices - 1)))

    model = widget.runner.networks.model
    seconds = []
    for _ in range(10):
        rest(0.3)
        began = time.perf_counter()
        camanim.animate(model, picture, layers="unique")
        seconds.append(time.perf_counter() - began)
    report("engine", seconds)
    # Closing the window takes longer than the measurement.
    os._exit(0)


def until_shown(widget: object, change: Callable[[], None]) -> float:
    """Return the seconds from a change until the stack has new maps."""
    rest(0.3)
    loop, began = QEventLoop(), time.perf_counter()

    before = widget.session.current.data.run

    def end(stack: object) -> None:
        if widget.session.current is not None and widget.session.current.data.run is not before:
            loop.quit()

    widget.session.updated.connect(end)
    change()
    QTimer.singleShot(60_000, loop.quit)
    loop.exec()
    seconds = time.perf_counter() - began
    widget.session.updated.disconnect(end)
    return seconds


def rest(seconds: float) -> None:
    """Let the event loop run."""
    loop = QEventLoop()
    QTimer.singleShot(round(1000 * seconds), loop.quit)
    loop.exec()


def report(name: str, seconds: list[float]) -> None:
    print(
        f"{name:12} median {1000 * np.median(seconds):5.0f} ms, "
        f"longest {1000 * max(seconds):5.0f} ms, {len(seconds)} times",
        flush=True,
    )


if __name__ == "__main__":
    main()
