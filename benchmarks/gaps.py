"""Longest time during which the window of napari does not respond, in a run of the dock.

A timer ticks every 4 ms in the event loop; the longest interval between two ticks is the longest freeze.
It is measured from Run until all scores are there and two seconds beyond, and, for comparison in
the same process, while napari adds a plain array of the same shape. Run is pressed two seconds after the
dock was opened, when the canvas was drawn.

For the time in which the dock opens, the byte code of the plugin must be there, as after an
installation: run it twice, without ``PYTHONDONTWRITEBYTECODE``.

Run under a display, such as ``xvfb-run -a python benchmarks/gaps.py --model torchvision/resnet50
--weights none``. The image is one of the samples unless ``--image`` is given.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

#: Milliseconds between two ticks.
INTERVAL = 4


class Ticks:
    """Times of the ticks of a timer in the event loop."""

    def __init__(self) -> None:
        from qtpy.QtCore import QTimer

        self._times: list[float] = []
        self._timer = QTimer()
        self._timer.setInterval(INTERVAL)
        self._timer.timeout.connect(lambda: self._times.append(time.perf_counter()))

    def during(
        self, action: Callable[[], None], until: Callable[[], bool], rest: float
    ) -> list[float]:
        """Return the intervals in ms, longest first, from an action until a condition and a rest."""
        from qtpy.QtCore import QEventLoop, QTimer

        loop, end = QEventLoop(), None

        def watch() -> None:
            nonlocal end
            now = time.perf_counter()
            end = now + rest if end is None and until() else end
            if end is not None and now > end:
                loop.quit()

        # The event loop sleeps between events, as in napari, and does not compete with the run.
        watching = QTimer()
        watching.setInterval(50)
        watching.timeout.connect(watch)
        self._times = [time.perf_counter()]
        self._timer.start()
        watching.start()
        action()
        loop.exec()
        self._timer.stop()
        return sorted(1000 * np.diff(self._times), reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="torchvision/resnet50")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()

    import napari
    from qtpy.QtWidgets import QApplication

    import camanim
    from napari_camanim.commands import dock

    viewer = napari.Viewer()
    if options.image is None:
        viewer.open_sample("napari-camanim", "malignant_1")
        image = viewer.layers["malignant_1"]
    else:
        image = viewer.add_image(camanim.read_image(options.image), name=options.image.stem)
    viewer.layers.selection.active = image
    ticks = Ticks()

    began = time.perf_counter()
    widget = dock(viewer)
    QApplication.instance().processEvents()
    opened = time.perf_counter() - began
    print(f"dock opened after {1000 * opened:.0f} ms, torch imported: {'torch' in sys.modules}")
    ticks.during(lambda: None, lambda: True, 2.0)
    widget.network.choose(options.model)
    widget.settings.weights.line_edit.value = options.weights
    widget.road.value = True

    print("longest freezes in ms, of each run with scores:")
    for number in range(options.runs):
        ended = lambda: bool(widget.session.stacks) and not widget.runner.running  # noqa: E731
        widget.settings.computing["seed"].value = number
        longest = ticks.during(widget.run, ended, 2.0)
        above = sum(interval > 50 for interval in longest)
        print(
            f"  run {number + 1}: {', '.join(f'{v:.0f}' for v in longest[:6])}; {above} above 50 ms"
        )

    stack = widget.session.current
    pixels = np.asarray(stack.data)
    settings = {"colormap": "turbo", "opacity": 0.5, "contrast_limits": (0, 1)}
    settings |= {"scale": stack.scale, "translate": stack.translate}
    print("the same of napari alone, adding a plain array of that shape:")
    for number in range(options.runs):
        longest = ticks.during(lambda: viewer.add_image(pixels, **settings), lambda: True, 2.0)
        above = sum(interval > 50 for interval in longest)
        print(
            f"  run {number + 1}: {', '.join(f'{v:.0f}' for v in longest[:3])}; {above} above 50 ms"
        )
    sys.stdout.flush()
    # Closing the window takes longer than the measurement.
    os._exit(0)


if __name__ == "__main__":
    main()
