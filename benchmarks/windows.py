"""Time and memory of an image that is explained window by window.

    python benchmarks/windows.py [--side 6000] [--windows 224] [--model torchvision/mobilenet_v2]
                                 [--target 0] [--max-cells 8388608] [--threads 1]

Writes a square RGB image of random blocks to a memory map, explains it with `camanim.animate_windows`
in a process of its own, and prints the seconds of a window, and their ratio to one forward and one
backward pass over the same window without any maps; the bytes of the image and of the maps; and the
peak memory of the process, less that of a process that explains a single window. The memory includes
those pages of the memory map that the system keeps.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

import camanim


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_image(path: Path, side: int) -> None:
    image = np.lib.format.open_memmap(path, "w+", np.uint8, (side, side, 3))
    random = np.random.default_rng(0)
    for top in range(0, side, 500):
        strip = image[top : top + 500]
        blocks = random.integers(0, 255, (-(-len(strip) // 20), -(-side // 20), 3), np.uint8)
        strip[:] = blocks.repeat(20, 0).repeat(20, 1)[: len(strip), :side]
    image.flush()


def bare_pass(net: torch.nn.Module, x: torch.Tensor, target: int) -> float:
    start = time.perf_counter()
    logits = net(x)
    torch.autograd.grad(logits[0, target], x)
    return time.perf_counter() - start


def explain(path: Path, side: int | None, settings: argparse.Namespace) -> None:
    """Explain the image, or its first window, and print a line of numbers."""
    torch.set_num_threads(settings.threads)
    model = camanim.load_model(settings.model, weights=None)
    image = np.load(path, mmap_mode="r")
    size = settings.windows
    part = image if side is None else image[:side, :side]
    x = torch.rand(1, 3, size, size, requires_grad=True)
    bare = median(bare_pass(model.net, x, settings.target) for _ in range(10))
    start = time.perf_counter()
    animation = camanim.animate_windows(
        model, part, size=size, target=settings.target, max_cells=settings.max_cells
    )
    seconds = time.perf_counter() - start
    maps = sum(m.nbytes for m in animation.maps) / 2**20
    print(len(animation.windows), seconds, bare, maps, part.nbytes / 2**20, peak_megabytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=6000)
    parser.add_argument("--windows", type=int, default=224)
    parser.add_argument("--model", default="torchvision/mobilenet_v2")
    parser.add_argument("--target", type=int, default=0)
    parser.add_argument("--max-cells", type=int, default=2**23)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--image", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.image is not None:
        explain(settings.image, settings.part, settings)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.npy"
        write_image(path, settings.side)
        command = [sys.executable, __file__, *sys.argv[1:], "--image", str(path)]
        runs = [[*command, "--part", str(settings.windows)], command]
        outputs = [subprocess.run(run, check=True, capture_output=True, text=True) for run in runs]
    (*_, base), (count, seconds, bare, maps, pixels, peak) = (
        [float(number) for number in output.stdout.split()] for output in outputs
    )
    each = seconds / count
    print(f"{count:.0f} windows of {settings.windows}: {seconds:.0f} s, {each:.3f} s for each")
    print(f"a bare pass: {bare:.3f} s; a window takes {each / bare:.2f} of it")
    print(f"image {pixels:.0f} MB, maps {maps:.0f} MB")
    print(f"peak memory {peak:.0f} MB, {peak - base:.0f} MB more than for one window")


if __name__ == "__main__":
    main()
