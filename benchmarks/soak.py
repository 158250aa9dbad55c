"""Soak tests: what must hold over many runs, under load and at bad moments. Prints counts.

    python benchmarks/soak.py threads [--rounds 20] [--threads 4]
    python benchmarks/soak.py interrupts [--count 1000]

- ``threads``: several threads explain, score and check one network at the same time, and others a
  network with attention each. Counts wrong maps, errors, and what is left changed.
- ``interrupts``: a ``KeyboardInterrupt`` at a random moment of a run, by the clock and by
  the line of Python. Counts what is left changed of networks and of torch.

Exits with status 1 if anything is wrong. A few small networks with random weights; no download.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn, overrides
from torch.utils import _python_dispatch as dispatch

import camanim
from camanim.exclusive import exclusively

IMAGE = np.random.default_rng(0).random((24, 32, 3)).astype(np.float32)

#: Of each way to a map, and of each way to change the network.
METHODS: dict[str, dict[str, Any]] = {
    "GradCAM": {},
    "SmoothGradCAM++": {},
    "ScoreCAM": {},
    "AblationCAM": {},
    "ShapleyCAM": {},
    "GuidedBackpropagation": {},
    "KPCA_CAM": {},
}


class Residual(nn.Module):
    """Convolutions, normalisations and activations in place, a counter, parts in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(True))
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.relu, self.drop = nn.ReLU(True), nn.Dropout(0.3)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
        self.calls: torch.Tensor
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return four scores, and count the call."""
        self.calls += 1
        x = self.stem(x)
        out: torch.Tensor = self.head(self.drop(self.relu(self.block(x) + x)))
        return out


class Attention(nn.Module):
    """A transformer layer of torch, with its fast path, after a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return four scores."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        out: torch.Tensor = self.head(self.encoder(tokens).mean(1))
        return out


def network(kind: type[nn.Module]) -> nn.Module:
    """Return a network in the middle of its owner's work: mixed modes, a gradient, frozen parts."""
    torch.manual_seed(0)
    net = kind()
    for module in net.modules():
        module.training = isinstance(module, nn.Linear | nn.BatchNorm2d | nn.Dropout)
    first, *others = net.parameters()
    first.requires_grad_(False)
    others[0].grad = torch.ones_like(others[0])
    next(net.children()).register_forward_hook(lambda module, inputs, output: None)
    return net


def state_of(net: nn.Module) -> dict[str, object]:
    """Return all of a network that a run must leave as it was."""
    state: dict[str, object] = {}
    for name, module in net.named_modules():
        values = vars(module)
        state |= {
            f"{name}: {key}": value if key == "training" else len(value or ())
            for key, value in values.items()
            if key == "training" or key.endswith("_hooks")
        }
        state[f"{name}: attributes"] = tuple(values)
        state[f"{name}: children"] = tuple(map(id, module._modules.values()))
        for key, parameter in module._parameters.items():
            if parameter is not None:
                state[f"{name}.{key}"] = (parameter.requires_grad, id(parameter.grad))
        for key, buffer in module._buffers.items():
            state[f"{name}.{key}"] = None if buffer is None else buffer.tolist()
    return state


def flags() -> dict[str, object]:
    """Return the modes of torch, of this thread and of the process."""
    cuda = torch.backends.cuda
    return {
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "flash attention": cuda.flash_sdp_enabled(),
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "function modes": len(overrides._get_current_function_mode_stack()),
        "dispatch modes": len(dispatch._get_current_dispatch_mode_stack()),
        "dispatch flag": dispatch._is_in_torch_dispatch_mode,
    }


def differences(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Return the names of entries that differ."""
    return sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))


def jobs_of(net: nn.Module) -> dict[str, Callable[[], Any]]:
    """Return the runs of a network by name, each with values that can be compared."""

    def maps(method: str) -> list[Any]:
        return camanim.animate(net, IMAGE, target=1, method=method, layers="all").maps

    def road() -> list[Any]:
        animation = camanim.animate(net, IMAGE, target=1)
        return [animation.score(percentiles=(50, 90), draws=2).scores]

    def randomisation() -> list[Any]:
        finding = camanim.animate(net, IMAGE, target=1).find("randomisation", steps=2)
        return [finding.spearman]

    jobs: dict[str, Callable[[], Any]] = {
        method: (lambda method=method: maps(method)) for method in METHODS
    }
    return jobs | {"ROAD": road, "randomisation": randomisation}


def same(a: list[Any], b: list[Any]) -> bool:
    """Return whether two lists of maps are equal."""
    return len(a) == len(b) and all(
        x.shape == y.shape and np.allclose(x, y, atol=1e-5, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def soak_threads(rounds: int, threads: int) -> Counter[str]:
    """Run all jobs of shared and of separate networks in threads; return counts."""
    shared = network(Residual)
    nets = [shared] * threads + [network(Attention) for _ in range(max(1, threads // 2))]
    expected = {kind: jobs_of(network(kind)) for kind in (Residual, Attention)}
    values = {kind: {n: job() for n, job in jobs.items()} for kind, jobs in expected.items()}
    before, process = [state_of(net) for net in nets], flags()
    counts, lock = Counter[str](), threading.Lock()

    def work(net: nn.Module, seed: int) -> None:
        jobs = list(jobs_of(net).items())
        for _ in range(rounds):
            random.Random(seed).shuffle(jobs)
            for name, job in jobs:
                try:
                    outcome = "right" if same(job(), values[type(net)][name]) else "wrong"
                except BaseException as error:  # noqa: BLE001 - counted
                    outcome = f"error ({type(error).__name__})"
                with lock:
                    counts[f"{outcome}: {name}" if outcome != "right" else "right"] += 1

    pool = [threading.Thread(target=work, args=(net, i)) for i, net in enumerate(nets)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    changed = [
        d for net, b in zip(nets, before, strict=True) for d in differences(b, state_of(net))
    ]
    counts.update(f"left changed: {d}" for d in {*changed, *differences(process, flags())})
    return counts


@contextmanager
def interrupted_by_clock(seconds: float) -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the main thread after some time."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def interrupted_at_event(number: int) -> Iterator[Counter[str]]:
    """Raise `KeyboardInterrupt` at the n-th call, line or return of Python within the block.

    Yields a counter of the events. Unlike the clock, this meets every start of an ``__exit__``.
    """
    counts = Counter[str]()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code is exclusively.__code__:
            # Its lines between ``finally`` and ``try`` have no call, at which an interrupt arrives.
            return None
        if event != "exception":
            counts["events"] += 1
            if counts["events"] == number:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        yield counts
    finally:
        sys.settrace(previous)


def soak_interrupts(count: int) -> Counter[str]:
    """Interrupt runs at random moments; return counts."""
    counts, generator = Counter[str](), random.Random(0)
    cases = []
    for kind in (Residual, Attention):
        net = network(kind)
        for name, job in jobs_of(net).items():
            job()
            start = time.perf_counter()
            job()
            seconds = time.perf_counter() - start
            with interrupted_at_event(0) as events:
                job()
            cases.append((net, name, job, seconds, events["events"]))
    for i, (net, name, job, seconds, events) in enumerate(islice(_repeated(cases), count)):
        before, process = state_of(net), flags()
        by_clock = i // len(cases) % 2 == 0 and hasattr(signal, "setitimer")
        try:
            with (
                interrupted_by_clock(generator.uniform(1e-4, seconds))
                if by_clock
                else interrupted_at_event(generator.randrange(1, events))
            ):
                job()
        except KeyboardInterrupt:
            counts["interrupted"] += 1
        except Exception as error:  # noqa: BLE001 - counted
            counts[f"interrupt lost: {type(error).__name__}"] += 1
        else:
            counts["completed"] += 1
        changed = differences(before, state_of(net)) + differences(process, flags())
        counts.update(f"left changed: {name}: {d}" for d in changed)
        counts["runs that left a change"] += bool(changed)
    return counts


def _repeated(cases: list[Any]) -> Iterator[Any]:
    while True:
        yield from cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    threads = commands.add_parser("threads", help="one network in several threads")
    threads.add_argument("--rounds", type=int, default=20)
    threads.add_argument("--threads", type=int, default=4)
    interrupts = commands.add_parser("interrupts", help="interrupts at random moments")
    interrupts.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "threads":
        counts = soak_threads(options.rounds, options.threads)
        wrong = counts.total() - counts["right"]
    else:
        counts = soak_interrupts(options.count)
        lost = sum(n for name, n in counts.items() if name.startswith("interrupt lost"))
        wrong = counts["runs that left a change"] + lost
    for name, number in sorted(counts.items()):
        print(f"{number:8} {name}")
    print(f"{wrong:8} faults")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
