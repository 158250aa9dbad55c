"""What scoring all layers costs beyond the network's forwards, and against the published way.

    python benchmarks/road.py [--models mobilenet_v2 resnet50 densenet161] [--image FILE]
                              [--published PATH/seed_pipeline.py --published-layers 6]
    python benchmarks/road.py --imputation [--sizes 224 512 1024]

For each network: `score(baseline=False)` over all unique layers, first with the measurement that finds
the form in which the network is asked, and then with that form known and another seed; the seconds of
each stage; and the same number of forwards alone, in the fastest of all forms (own, contiguous, channels
last; batches of 4 to 32; float32, and half precision where that was taken). The ratios are between
figures of one run. `--published` runs a script that scores a few layers in the published way and scales.
`--imputation`: milliseconds per mask of three channels, over smooth, blob-like, noisy and extreme masks,
against the direct solver (up to 256 pixels), and the largest difference.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

import camanim
from camanim.execution.fast_copy import folded_copy, lay_out
from camanim.road import DirectImputer, MultigridImputer
from camanim.stack import upsample


class Timed:
    """An imputer that adds up its seconds."""

    def __init__(self) -> None:
        self.own, self.seconds, self.masks = MultigridImputer(), 0.0, 0

    def __call__(self, image: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Impute; see `camanim.road.Imputer`."""
        start = time.perf_counter()
        filled = self.own(image, kept)
        self.seconds += time.perf_counter() - start
        self.masks += len(kept)
        return filled


def forwards_alone(model: camanim.Model, image: torch.Tensor, precision: str) -> tuple[float, str]:
    """Least seconds per image of all forms, and which it was."""
    own = model.forward()
    best, name = float("inf"), ""
    # Different images, as they are in earnest: the same ones would stay in the processor's cache.
    images = image + 0.1 * torch.randn(64, *image.shape[1:])
    with own.evaluating(tuple(image.shape)), torch.inference_mode():
        copied = folded_copy(own, image)
        for memory_format in ("channels_last", "contiguous", "own"):
            forward = own if memory_format == "own" else copied
            if memory_format != "own":
                lay_out(copied.net, image.ndim, memory_format)
            for size in (4, 8, 16, 32):
                for kind in dict.fromkeys(("float32", precision)):
                    with torch.autocast("cpu", torch.bfloat16, enabled=kind != "float32"):
                        forward(images[:size])
                        start = time.perf_counter()
                        for batch in images.split(size):
                            forward(batch)
                        seconds = (time.perf_counter() - start) / len(images)
                    if seconds < best:
                        best, name = seconds, f"{memory_format}, {size}, {kind}"
    return best, name


def scored(animation: camanim.Animation, seed: int) -> tuple[float, camanim.Road, dict[str, float]]:
    timed, stages, steps = Timed(), {"masks": 0.0}, []
    start = time.perf_counter()

    def progress(stage: str, done: int, total: int) -> None:
        stages[stage] = time.perf_counter() - start
        if stage == "ROAD":
            steps.append((done / total, stages[stage]))

    road = animation.score(seed, baseline=False, imputer=timed, progress=progress)
    spent = time.perf_counter() - start
    # What a bar would promise after the first tenth: as long for each image as until then.
    done, at = next(step for step in steps if step[0] >= 0.1)
    begun, ended = steps[0][1], steps[-1][1]
    promised = (at - begun) / done
    told = {
        "masks told apart": stages["masks"],
        "imputation": timed.seconds,
        "promised after a tenth": promised,
        "took": ended - begun,
    }
    return spent, road, told


def network(name: str, options: argparse.Namespace) -> None:
    image = (
        camanim.read_image(options.image)
        if options.image
        else np.random.default_rng(0).random((224, 224, 3)).astype(np.float32)
    )
    weights = "DEFAULT" if options.weights else None
    model = camanim.load_model(f"torchvision/{name}", weights=weights)
    animation = camanim.animate(model, image)
    first, road, _ = scored(animation, 0)
    again, road, stages = scored(animation, 1)
    alone, form = forwards_alone(model, animation.tensor, road.settings["precision"])
    floor = alone * road.forwards
    told = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.items())
    print(
        f"{name}: {len(animation)} layers, {road.forwards} images; "
        f"forwards alone {floor:.1f} s ({1000 * alone:.1f} ms each: {form}); "
        f"first score {first:.1f} s, {first / floor:.2f}x; "
        f"next {again:.1f} s, {again / floor:.2f}x ({told}); asked as {road.settings}",
        flush=True,
    )
    if options.published:
        command = [
            sys.executable, options.published, "--model", name, "--road", "--no-movie",
            "--layers", str(options.published_layers),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        theirs: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{name}: the published way {theirs['road_s']:.0f} s for {theirs['modules']} modules "
            f"(scaled from {theirs['scaled_from']}), {theirs['road_s'] / again:.0f}x",
            flush=True,
        )


def masks_of(size: int) -> dict[str, np.ndarray]:
    """Masks of every kind, by name."""
    rng = np.random.default_rng(0)
    found = {}
    for cells in (7, 14, 28, 56, 112):
        smooth = upsample(rng.random((cells, cells), np.float32), (size, size))
        for p in (20, 40, 60, 80):
            found[f"{cells} x {cells} enlarged, {p} %"] = smooth < np.percentile(smooth, p)
    blobs = gaussian_filter(rng.random((size, size)), size / 9)
    noise = rng.random((size, size))
    for p in (20, 40, 60, 80):
        found[f"blobs, {p} %"] = blobs < np.percentile(blobs, p)
        found[f"noise, {p} %"] = noise < p / 100
    one = np.zeros((size, size), bool)
    one[size // 3, size // 4] = True
    return found | {"one pixel kept": one, "one pixel removed": ~one}


def imputation(sizes: list[int]) -> None:
    for size in sizes:
        y, x = np.mgrid[:size, :size] / size
        picture = np.stack([np.sin(9 * x * y), np.cos(5 * x - y), x - y]).astype(np.float32)
        picture += np.random.default_rng(1).normal(0, 0.3, picture.shape).astype(np.float32)
        image = torch.from_numpy(picture)
        masks = masks_of(size)
        kept = torch.from_numpy(np.stack(list(masks.values())))
        told = []
        filled = {}
        for name, imputer in (
            ("compiled", MultigridImputer()),
            ("torch", MultigridImputer(compiled=False)),
            ("direct", DirectImputer()),
        ):
            if name == "direct" and size > 256:
                continue
            imputer(image, kept[:4])
            seconds = []
            for _ in range(1 if name == "direct" else 3):
                start = time.perf_counter()
                filled[name] = torch.cat([imputer(image, part) for part in kept.split(8)])
                seconds.append(time.perf_counter() - start)
            told.append(f"{name} {1000 * min(seconds) / len(kept):.2f} ms")
        exact = filled.get("direct", filled["torch"])
        off = float((filled["compiled"] - exact).abs().max())
        print(
            f"{size} x {size}, {len(kept)} masks, per mask: {', '.join(told)}; "
            f"largest difference {off:.1e} of a range of {float(image.max() - image.min()):.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["mobilenet_v2", "resnet50", "densenet161"])
    parser.add_argument("--image", help="by default noise")
    parser.add_argument("--weights", action="store_true", help="published weights, not random ones")
    parser.add_argument("--published", type=Path, help="the published pipeline's script")
    parser.add_argument("--published-layers", type=int, default=6)
    parser.add_argument("--imputation", action="store_true")
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 512, 1024])
    options = parser.parse_args()
    if options.imputation:
        imputation(options.sizes)
        return
    with tempfile.TemporaryDirectory() as folder:
        # So that the first score measures, and nothing of the user's is overwritten.
        os.environ["CAMANIM_CACHE"] = folder
        for name in options.models:
            network(name, options)


if __name__ == "__main__":
    main()
