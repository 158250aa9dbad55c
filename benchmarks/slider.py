"""How long a step of the slider takes: with a plain array, a stack with its badge, and the panel too.

    python benchmarks/slider.py
    python benchmarks/slider.py --model torchvision/densenet161 --layers all --steps 100

On Linux without a display: ``xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/slider.py``. The
plain array holds the same values as the stack, at the same place. A step ends when the canvas was
painted and no event of Qt is pending; the processor time of the window's thread depends less on other
programs. Each round opens all three in the same window, and steps through layers that were not shown
before. The scores are random numbers, since only their curve is drawn.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

# The plugin and torch come before the first window.
# isort: off
import napari_camanim  # noqa: F401
import torch  # noqa: F401

# isort: on
import napari
import numpy as np
from qtpy.QtCore import QEvent, QObject
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication, QMainWindow, QWidget

import camanim
from camanim import samples
from napari_camanim import add_animation
from napari_camanim.plots.panel import show_panel


class Paints(QObject):
    """Counts paint events of the canvas."""

    def __init__(self, canvas: QWidget) -> None:
        super().__init__()
        self.count = 0
        canvas.installEventFilter(self)

    def eventFilter(self, watched: Any, event: QEvent) -> bool:
        """Count a paint event, and leave it to the canvas."""
        self.count += event.type() == QEvent.Type.Paint
        return False


def main() -> None:
    arguments = parse()
    animation = animate(arguments.model, arguments.layers)
    count = len(animation)
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1280, 820)
    plain = np.asarray(animation.stack("local"))
    image = animation.image
    stack_over_image(viewer, animation)
    place = {name: getattr(viewer.layers[-1], name) for name in ("scale", "translate")}
    steps = np.unique(np.linspace(0, count - 1, arguments.steps).round().astype(int))
    seconds: dict[str, list[tuple[float, float]]] = {
        "plain array": [],
        "stack and badge": [],
        "with panel": [],
    }
    for _ in range(arguments.rounds):
        viewer.layers.clear()
        viewer.add_image(image, name="image")
        viewer.add_image(plain, **place, opacity=0.5, colormap="turbo", contrast_limits=(0, 1))
        seconds["plain array"] += measure(viewer, steps)
        viewer.layers.clear()
        stack_over_image(viewer, animation)
        seconds["stack and badge"] += measure(viewer, steps)
        viewer.layers.clear()
        panel = show_panel(viewer)
        stack_over_image(viewer, animation)
        wait(lambda panel=panel: panel.drawing.pixels is not None)
        seconds["with panel"] += measure(viewer, steps)
        viewer.window.remove_dock_widget(panel)
    print(f"{arguments.model}, {count} layers, {len(steps)} steps, {arguments.rounds} rounds")
    print("medians in ms, and the difference from the plain array")
    first = np.median(seconds["plain array"], axis=0)
    for name, values in seconds.items():
        (total, busy), (more, busier) = np.median(values, axis=0), np.median(values, axis=0) - first
        print(
            f"{name:16} step {1000 * total:7.2f} ({1000 * more:+6.2f})   "
            f"thread of the window {1000 * busy:7.2f} ({1000 * busier:+6.2f})"
        )
    # Closing the window would ask, and wait for threads of the drivers.
    os._exit(0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="torchvision/mobilenet_v2")
    parser.add_argument("--layers", default="all")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def animate(model_name: str, layers: str) -> camanim.Animation:
    model = camanim.load_model(model_name, None if "densenet" in model_name else "DEFAULT")
    animation = camanim.animate(model, samples.image("malignant_1"), layers=layers)
    after = np.random.default_rng(0).uniform(0, 1, (2, len(animation), 4))
    road = camanim.Road(
        layers=animation.layers,
        percentiles=(20, 40, 60, 80),
        morfs=after[:1],
        lerfs=after[1:],
        probability=animation.probability,
        undefined=(None,) * len(animation),
        random_scores=np.empty((len(animation), 0)),
        forwards=0,
        seed=0,
        noise=0.0,
    )
    animation.add(road)
    return animation


def stack_over_image(viewer: napari.Viewer, animation: camanim.Animation) -> None:
    add_animation(viewer, animation, viewer.add_image(animation.image, name="image"))


def measure(viewer: napari.Viewer, steps: np.ndarray) -> list[tuple[float, float]]:
    """Return the seconds of each step, and those in which the window's thread was busy."""
    paints = Paints(canvas())
    wait(lambda: False, seconds=1.0)
    seconds = []
    for position in steps:
        before = paints.count
        start, idle = time.perf_counter(), time.thread_time()
        viewer.dims.set_point(0, int(position))
        while paints.count == before and time.perf_counter() - start < 1:
            QApplication.processEvents()
        QApplication.processEvents()
        seconds.append((time.perf_counter() - start, time.thread_time() - idle))
        # What was put off until the slider rests is not part of the step.
        wait(lambda: False, seconds=0.02)
    return seconds


def canvas() -> QWidget:
    """Return the OpenGL widget of napari's window."""
    windows = [w for w in QApplication.topLevelWidgets() if isinstance(w, QMainWindow)]
    return next(c for w in windows for c in w.findChildren(QOpenGLWidget) if c.isVisible())


def wait(until: Callable[[], bool], seconds: float = 20.0) -> None:
    """Process events until a condition holds, or some time has passed."""
    start = time.perf_counter()
    while not until() and time.perf_counter() - start < seconds:
        QApplication.processEvents()
        time.sleep(0.002)


if __name__ == "__main__":
    main()
