"""Time and memory of the maps of all layers, against one bare pass and against the published pipeline.

    python benchmarks/maps.py [--models mobilenet_v2 resnet50 densenet161] [--method GradCAM]

Prints one line per network: seconds of one forward and input-backward without any maps, seconds of
`camanim.animate` for every unique layer, and their ratio; then the published pipeline's way (a grad-cam
object, a forward and a backward for each module, over evenly spread modules, scaled to all) and how many
times longer it takes; then the peak memory of a process that does either. Random weights, 224 x 224, the
best of alternating repeats: all in one run, because only ratios mean anything.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

import camanim

IMAGE = np.random.default_rng(0).random((224, 224, 3)).astype(np.float32)


def bare_pass(net: torch.nn.Module, x: torch.Tensor) -> None:
    logits = net(x)
    torch.autograd.grad(logits[0, logits.argmax()], x)


def published_way(model: camanim.Model, method: str, count: int) -> float:
    """Seconds for all modules, scaled from `count` of them."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    x = model.prepare(IMAGE).tensor
    modules = [module for name, module in model.net.named_modules() if name]
    chosen = [modules[int(i)] for i in np.linspace(0, len(modules) - 1, count)]
    target = [ClassifierOutputTarget(int(model.net(x).argmax()))]
    make = getattr(pytorch_grad_cam, method.replace("++", "PlusPlus"))
    start = time.perf_counter()
    for module in chosen:
        # It fails on modules without a spatial map, as it does in the published pipeline.
        with (
            contextlib.suppress(Exception),
            contextlib.redirect_stdout(io.StringIO()),
            make(model=model.net, target_layers=[module]) as cam,
        ):
            cam(input_tensor=x, targets=target)
    return (time.perf_counter() - start) * len(modules) / count


def seconds(*functions: object, repeats: int) -> list[float]:
    """Least seconds of each function, taken in turns: other programs only ever slow them."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()  # type: ignore[operator]
            taken.append(time.perf_counter() - start)
    return [min(taken) for taken in times]


def own_peak() -> float:
    """MB that this process needed at most."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: what that calls the peak begins with the parent's.
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def peak_memory(name: str, method: str, job: str) -> float:
    """MB that a process of its own needs at most."""
    command = [sys.executable, __file__, "--models", name, "--method", method, "--only", job]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["mobilenet_v2", "resnet50", "densenet161"])
    parser.add_argument("--method", default="GradCAM")
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--published", type=int, default=12, help="modules for the published way")
    parser.add_argument("--only", choices=["bare", "maps"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in options.models:
        model = camanim.load_model(f"torchvision/{name}", weights=None)
        x = model.prepare(IMAGE).tensor.requires_grad_()

        def maps(model: camanim.Model = model) -> camanim.Animation:
            return camanim.animate(model, IMAGE, method=options.method)

        if options.only:
            bare_pass(model.net, x) if options.only == "bare" else maps()
            print(own_peak())
            return
        layers = len(maps())
        bare, ours = seconds(partial(bare_pass, model.net, x), maps, repeats=options.repeats)
        published = published_way(model, options.method, options.published)
        memory = [peak_memory(name, options.method, job) for job in ("bare", "maps")]
        print(
            f"{name} {options.method}: {layers} layers; bare {bare:.3f} s, maps {ours:.3f} s, "
            f"ratio {ours / bare:.2f}; published {published:.1f} s, {published / ours:.0f}x; "
            f"peak memory {memory[0]:.0f} MB bare, {memory[1]:.0f} MB with maps",
            flush=True,
        )


if __name__ == "__main__":
    main()
