"""How fast frames are drawn and movies written, and how large the files are.

    python benchmarks/movie.py
    python benchmarks/movie.py --model torchvision/mobilenet_v2 --image photo.jpg --repeat 5

The maps are those of a real network, over all its layers; the ROAD scores are random numbers, since
only their curve is drawn. Each figure is the best of several runs: other programs only ever slow them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import camanim
from camanim import samples
from camanim.render import FrameRenderer, write_movie


def main() -> None:
    arguments = parse()
    animation = animate(arguments.model, arguments.image)
    renderer = FrameRenderer(animation, size=arguments.size)
    frames, (width, height) = len(renderer), renderer.size
    processors = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )
    print(
        f"{arguments.model}, {frames} layers, frames of {width} x {height}, {processors} processors"
    )

    def draw() -> None:
        for i in range(frames):
            renderer.frame(i)

    report("render alone", frames, best(draw, arguments.repeat))
    for quality in ("standard", "high"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "movie.mp4"

            def write(path: Path = path, quality: str = quality) -> None:
                write_movie(animation, path, size=arguments.size, quality=quality)

            seconds = best(write, arguments.repeat)
            report(f"movie, {quality}", frames, seconds, path.stat().st_size)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="torchvision/mobilenet_v2")
    parser.add_argument("--image", help="by default a sample image")
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--repeat", type=int, default=3)
    return parser.parse_args()


def animate(model_name: str, image_path: str | None) -> camanim.Animation:
    image = camanim.read_image(image_path) if image_path else samples.image("malignant_1")
    animation = camanim.animate(camanim.load_model(model_name), image, layers="all")
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


def best(work: Callable[[], None], repeat: int) -> float:
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def report(what: str, frames: int, seconds: float, size: int | None = None) -> None:
    weight = "" if size is None else f"   {size / 1e6:6.2f} MB"
    print(f"{what:16} {frames / seconds:6.0f} frames a second   {seconds:6.2f} s{weight}")


if __name__ == "__main__":
    main()
