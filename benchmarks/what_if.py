"""Time of a what-if edit, against a bare forward pass of the network.

    python benchmarks/what_if.py [--models mobilenet_v2 resnet50] [--repeats 25] [--threads 2]
    python benchmarks/what_if.py --window [--models mobilenet_v2] [--repeats 20]

For each network: seconds to prepare an image (`WhatIf.of_image`), and for each way of replacing a region
the milliseconds from the mask to the probabilities, and their ratio to a forward pass in inference mode
without anything else; medians of runs that alternate. Then the same for an image of 4000 x 3000 pixels,
where reading the mask counts, and the milliseconds of the edited picture. Random weights, input of
224 x 224; only ratios of one run are comparable. On a machine with other load, use ``--threads 1
--cpu-time``.

``--window`` opens napari and paints in the section "Ask" of the dock instead: the median of the
milliseconds from a stroke to the shown probabilities, and the longest time that the window was blocked.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

import camanim
from camanim.editing import box_mask

WAYS = ("impute", "blur", "zero", "mean", "paste")
SIZES = ((224, 224), (3000, 4000))


def seconds(job: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    job()
    return clock() - start


def bare(net: torch.nn.Module, tensor: torch.Tensor) -> None:
    with torch.inference_mode():
        net(tensor)


def edited(what_if: camanim.WhatIf, mask: np.ndarray, by: str) -> None:
    shift = (0, -(mask.shape[1] // 5))
    what_if.edit(mask, by, offset=shift if by == "paste" else None)
    what_if.undo()


def report(name: str, size: tuple[int, int], repeats: int, clock: Callable[[], float]) -> None:
    model = camanim.load_model(f"torchvision/{name}", None)
    image = np.random.default_rng(0).random((*size, 3)).astype(np.float32)
    start = time.perf_counter()
    what_if = camanim.WhatIf.of_image(model, image)
    prepared = time.perf_counter() - start
    height, width = size
    # A fifth of the image.
    mask = box_mask(size, (height // 4, width // 4, height * 3 // 4, width * 2 // 3))
    tensor = what_if.tensor.to(model.device)
    jobs: dict[str, Callable[[], Any]] = {"bare": partial(bare, model.net.eval(), tensor)}
    jobs |= {by: partial(edited, what_if, mask, by) for by in WAYS}
    for job in jobs.values():
        job()
    times: dict[str, list[float]] = {key: [] for key in jobs}
    for _ in range(repeats):
        for key, job in jobs.items():
            times[key].append(seconds(job, clock))
    middle = {key: median(values) for key, values in times.items()}
    print(f"\n{name}, image of {height} x {width}: prepared in {prepared:.2f} s")
    for key, value in middle.items():
        print(f"  {key:8} {1000 * value:7.1f} ms   {value / middle['bare']:5.2f} x")
    what_if.edit(mask)
    picture = median(seconds(lambda: what_if.image, clock) for _ in range(5))
    print(f"  {'picture':8} {1000 * picture:7.1f} ms")


def in_window(name: str, size: tuple[int, int], repeats: int) -> None:
    import napari
    from qtpy.QtCore import QEventLoop, QTimer
    from qtpy.QtWidgets import QApplication

    import napari_camanim  # noqa: F401 (before the window is drawn)

    def wait(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "nothing was computed within 60 s"
            # Sleeps between events, as napari's event loop does.
            QApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)

    times: list[float] = []
    gaps: list[float] = []
    last = [time.perf_counter()]

    def tick() -> None:
        now = time.perf_counter()
        gaps.append(now - last[0])
        last[0] = now

    viewer = napari.Viewer()
    timer = QTimer()
    timer.timeout.connect(tick)
    timer.start(5)
    pixels = (255 * np.random.default_rng(0).random((*size, 3))).astype(np.uint8)
    viewer.add_image(pixels)
    _, dock = viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")
    dock.network.value = f"torchvision/{name}"
    dock.settings.weights.line_edit.value = "none"
    dock.settings.layers.value = "blocks"
    dock.road.value = False
    dock.run()
    wait(lambda: not dock.runner.running)
    dock.sections["Ask"].expand()
    tool, ask = dock.ask.tool, dock.ask
    effects: list[Any] = []
    tool.predicted.connect(effects.append)
    ask.set_mode("paint")
    wait(lambda: not tool.runner.running and bool(effects) and effects[-1] is not None)
    tool.labels.brush_size = size[0] // 8
    wait(lambda: len(gaps) > 10)
    gaps.clear()
    for i in range(repeats):
        # As at a pause of the mouse; a stroke that goes on is answered in between.
        effects.clear()
        start = time.perf_counter()
        tool.labels.paint((size[0] * (i + 1) / (repeats + 1), size[1] / 2), 1)
        wait(lambda: bool(effects))
        times.append(time.perf_counter() - start)
        wait(lambda: not tool.runner.running)
    timer.stop()
    print(
        f"{name}, image of {size[0]} x {size[1]}: {1000 * median(times):.0f} ms from a stroke to the "
        f"probabilities (at most {1000 * max(times):.0f} ms); the window was blocked for at most "
        f"{1000 * max(gaps):.0f} ms"
    )
    viewer.close()


def main() -> None:
    """Print the times of each network and size of image."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["mobilenet_v2", "resnet50"])
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="instead of the time that passes")
    parser.add_argument("--window", action="store_true", help="paint in napari")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} threads")
    for name in arguments.models:
        for size in SIZES:
            if arguments.window:
                in_window(name, size, arguments.repeats)
                continue
            report(name, size, arguments.repeats, clock)


if __name__ == "__main__":
    main()
