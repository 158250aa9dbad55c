"""Seconds of runs, against the estimate before each of them, in the same process.

    python benchmarks/estimates.py [--model torchvision/mobilenet_v2] [--weights DEFAULT] [IMAGE]

Prints the seconds that the estimate took, the estimated and the measured seconds, and their ratio, and
the same for the forward passes. `none` as weights are random ones.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

import camanim
from camanim.execution.forward import Forward

RUNS: tuple[tuple[str, dict[str, Any], bool], ...] = (
    ("GradCAM", {}, False),
    ("GradCAM", {}, True),
    ("LayerCAM", {}, False),
    ("EigenCAM", {}, False),
    ("AblationCAM", {"layers": "blocks"}, False),
    ("AblationCAM", {"layers": "blocks"}, True),
    ("ScoreCAM", {"layers": "blocks"}, False),
    ("ScoreCAM", {"layers": "blocks"}, True),
)


class Images:
    """Counts the images that pass a network."""

    def __init__(self) -> None:
        self.count = 0
        call = Forward.__call__

        def counting(forward: Forward, batch: torch.Tensor) -> Any:
            self.count += len(batch)
            return call(forward, batch)

        Forward.__call__ = counting  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("image", nargs="?")
    parser.add_argument("--model", default="torchvision/mobilenet_v2")
    parser.add_argument("--weights", default="DEFAULT")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = camanim.load_model(asked.model, None if asked.weights == "none" else asked.weights)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    image = noise if asked.image is None else camanim.read_image(asked.image)
    # Prepares the libraries.
    camanim.animate(model, image)
    images = Images()
    print(
        f"{'run':28} {'took':>5} {'estimate':>9} {'run':>7} {'ratio':>6} {'passes':>8} {'run':>8}"
    )
    for method, settings, road in RUNS:
        start = time.perf_counter()
        cost = camanim.estimate(
            model, image, method=method, findings=["road"] if road else [], **settings
        )
        took = time.perf_counter() - start
        images.count = 0
        start = time.perf_counter()
        animation = camanim.animate(model, image, method=method, **settings)
        forwards = images.count
        if road:
            forwards += animation.score().forwards
        measured = time.perf_counter() - start
        expected = (cost.forwards or 0) + sum(f.forwards or 0 for f in cost.findings)
        name = " ".join([method, *map(str, settings.values()), *(["ROAD"] if road else [])])
        print(
            f"{name:28} {took:5.2f} {cost.total_seconds:9.2f} {measured:7.2f} "
            f"{cost.total_seconds / measured:6.2f} {expected:8} {forwards:8}"
        )


if __name__ == "__main__":
    main()
