"""Time and memory of the maps of all layers, against a bare pass and against other ways to them.

    python benchmarks/maps.py [--models mobilenet_v2 resnet50 densenet161] [--method GradCAM] [--floor]

Prints for each network, in medians of runs that alternate, seconds and their ratio to one forward and
one backward pass to the input without any maps:

- `camanim.animate` for all layers (``layers="all"``), and for the convolutions alone;
- torch-cam, which makes a single pass as well, for the same convolutions (GradCAM only);
- the published pipeline (a grad-cam object, a forward and a backward for each module), measured over
  evenly spread modules and scaled to all.

Then the peak memory of a process that makes the bare pass, and of one that computes all maps. With
``--floor``, also the time of hooks that compute the same maps and nothing else (no clones, records or
checks), and how much of the time each part takes: the run is repeated without that part. Random
weights, 224 x 224; all in one run, because only ratios are comparable. On a machine with other load, use
``--threads 1 --cpu-time``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import camanim
from camanim.attribution import compute
from camanim.execution import recorder
from camanim.execution.pending_activations import PendingActivations

IMAGE = np.random.default_rng(0).random((224, 224, 3)).astype(np.float32)

Job = Callable[[], Any]
Clock = Callable[[], float]


def bare_pass(net: torch.nn.Module, x: torch.Tensor) -> None:
    logits = net(x)
    torch.autograd.grad(logits[0, logits.argmax()], x)


def torch_cam(cam: Any, x: torch.Tensor) -> None:
    scores = cam.model(x)
    cam(int(scores.argmax()), scores)
    cam.reset_hooks()


def hooks_only(net: torch.nn.Module, x: torch.Tensor) -> list[Any]:
    """Return the GradCAM maps of all outputs with sides, wrong where an activation is overwritten."""
    maps: list[Any] = []

    def compute_map(activation: torch.Tensor, gradient: torch.Tensor) -> None:
        weights = gradient[0].flatten(1).mean(1)
        maps.append((weights @ activation[0].flatten(1)).numpy())

    def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if output.ndim == 4:
            output.register_hook(partial(compute_map, output.detach()))

    handles = [module.register_forward_hook(hook) for module in net.modules()]
    try:
        bare_pass(net, x)
    finally:
        for handle in handles:
            handle.remove()
    return maps


def published_seconds(model: camanim.Model, method: str, count: int) -> float:
    """Return the seconds of the published pipeline for all modules, scaled from `count` of them."""
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


def alternate(jobs: dict[str, Job], repeats: int, clock: Clock) -> dict[str, float]:
    """Return the median seconds of each job; the jobs take turns."""
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = clock()
            job()
            seconds[name].append(clock() - start)
    return {name: median(of_job) for name, of_job in seconds.items()}


class NoMode:
    """Clones nothing, and intercepts no operation."""

    def __init__(self, pending: object) -> None:
        self.active = contextlib.nullcontext

    @staticmethod
    def suspended(function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the function."""
        return function(*arguments)


def constant(*arguments: object) -> torch.Tensor:
    return torch.zeros(1, 1)


#: By what is left out: objects, attributes and replacements.
PARTS: dict[str, list[tuple[Any, str, Any]]] = {
    "arithmetic of the maps": [(compute._MapConsumer, "_map_of_image", constant)],
    "clones of overwritten activations": [
        (PendingActivations, "save", lambda self, overwritten: None)
    ],
    "dispatch mode and clones": [(recorder, "SaveOverwritten", NoMode)],
    "check of the weights": [(camanim.Model, "weights_hash", lambda self: "")],
}


def without(parts: list[tuple[Any, str, Any]], job: Job) -> None:
    with contextlib.ExitStack() as stack:
        for target, attribute, replacement in parts:
            stack.enter_context(patch.object(target, attribute, replacement))
        job()


def print_floor(
    name: str, bare: Job, hooks: Job, job: Job, prepare: Job, repeats: int, clock: Clock
) -> None:
    """Print the time of hooks alone, and how much less time a run takes without each of its parts."""
    every = [part for parts in PARTS.values() for part in parts]
    jobs = {"bare": bare, "hooks": hooks, "maps": job, "preparation of the image": prepare}
    jobs |= {part: partial(without, parts, job) for part, parts in PARTS.items()}
    jobs["rest"] = partial(without, every, job)
    seconds = alternate(jobs, repeats, clock)
    bare_seconds, maps_seconds = seconds.pop("bare"), seconds.pop("maps")
    hooks_seconds = seconds.pop("hooks")
    rest = seconds.pop("rest") - bare_seconds
    prepared = seconds.pop("preparation of the image")
    parts = {"preparation of the image": prepared}
    parts |= {part: maps_seconds - without_part for part, without_part in seconds.items()}
    parts["hooks, records and results in Python"] = rest - prepared
    print(
        f"  {name}: bare {bare_seconds * 1000:.1f} ms, hooks alone {hooks_seconds * 1000:.1f} ms "
        f"({hooks_seconds / bare_seconds:.2f}), all maps {maps_seconds * 1000:.1f} ms"
    )
    for part, spent in parts.items():
        print(f"  {spent * 1000:8.1f} ms ({spent / bare_seconds:5.2f} of bare)  {part}", flush=True)


def process_peak() -> float:
    """Return the peak memory of this process in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: its peak begins with the parent's.
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def peak_memory(name: str, method: str, job: str) -> float:
    """Return the peak memory in MB of a process that runs one job."""
    command = [sys.executable, __file__, "--models", name, "--method", method, "--only", job]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["mobilenet_v2", "resnet50", "densenet161"])
    parser.add_argument("--method", default="GradCAM")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, help="of torch; by default as many as it chooses")
    parser.add_argument(
        "--cpu-time", action="store_true", help="of the process, for ratios to bare"
    )
    parser.add_argument("--published", type=int, default=12, help="modules; 0 leaves it out")
    parser.add_argument("--floor", action="store_true", help="where the time goes")
    parser.add_argument("--only", choices=["bare", "all"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    if options.threads:
        torch.set_num_threads(options.threads)
    for name in options.models:
        model = camanim.load_model(f"torchvision/{name}", weights=None)
        x = model.prepare(IMAGE).tensor.requires_grad_()
        animate = partial(camanim.animate, model, IMAGE, method=options.method)
        jobs: dict[str, Job] = {
            "bare": partial(bare_pass, model.net, x),
            "all": partial(animate, layers="all"),
        }
        if options.only:
            jobs[options.only]()
            print(process_peak())
            return
        layers = len(jobs["all"]())
        names = [n for n, m in model.net.named_modules() if isinstance(m, torch.nn.Conv2d)]
        # torch-cam's hooks stay on its network, so it gets one of its own.
        other = camanim.load_model(f"torchvision/{name}", weights=None).net
        jobs["convolutions"] = partial(animate, layers=names)
        if options.method == "GradCAM":
            from torchcam.methods import GradCAM

            cam = GradCAM(other, target_layer=names)
            jobs["torch-cam"] = partial(torch_cam, cam, x.detach().requires_grad_())
        seconds = alternate(jobs, options.repeats, clock)
        bare, every = seconds["bare"], seconds["all"]
        print(
            f"{name} {options.method}: bare {bare * 1000:.0f} ms; "
            f"all {layers} layers {every * 1000:.0f} ms, {every / bare:.2f} of bare"
        )
        ours = seconds["convolutions"]
        line = f"  {len(names)} convolutions {ours * 1000:.0f} ms, {ours / bare:.2f} of bare"
        if "torch-cam" in seconds:
            peer = seconds["torch-cam"]
            line += f"; torch-cam {peer * 1000:.0f} ms, {peer / bare:.2f}; {ours / peer:.2f} of it"
        print(line, flush=True)
        if options.floor:
            prepare = partial(model.prepare, IMAGE)
            hooks = partial(hooks_only, model.net, x)
            print_floor(name, jobs["bare"], hooks, jobs["all"], prepare, options.repeats, clock)
        if options.published:
            published = published_seconds(model, options.method, options.published)
            memory = [peak_memory(name, options.method, job) for job in ("bare", "all")]
            print(
                f"  published {published:.1f} s, {published / every:.0f} times as long; "
                f"peak memory {memory[0]:.0f} MB bare, {memory[1]:.0f} MB with maps",
                flush=True,
            )


if __name__ == "__main__":
    main()
