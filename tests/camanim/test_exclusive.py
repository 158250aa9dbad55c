"""Runs in several threads, and interrupts: maps stay right, and the network comes back as it was."""

from __future__ import annotations

import random
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn, overrides
from torch.utils import _python_dispatch as dispatch

import camanim
from camanim import Cancelled, exclusive, shared_flags
from camanim.exclusive import exclusively
from camanim.layer_info import Status
from camanim.models.base import Model
from camanim.shared_flags import MATH_ATTENTION, PLAIN_ATTENTION
from camanim.targets import ClassTarget

#: Of each way to change a network: hooks, noise, other images, replaced forwards, modes, grad-cam's.
METHODS = ("GradCAM", "SmoothGradCAM++", "ScoreCAM", "AblationCAM", "ShapleyCAM", "KPCA_CAM")


def flags() -> list[object]:
    """Return the modes of torch, of this thread and of the process."""
    return [
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        overrides._get_current_function_mode_stack(),
        dispatch._get_current_dispatch_mode_stack(),
        dispatch._is_in_torch_dispatch_mode,
    ]


def together(*jobs) -> list[object]:
    """Run jobs in threads that start at the same time; return their results or errors."""
    results: list[object] = [None] * len(jobs)
    start = threading.Barrier(len(jobs))

    def work(i: int) -> None:
        start.wait()
        try:
            results[i] = jobs[i]()
        except BaseException as error:  # noqa: BLE001 - compared
            results[i] = error

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads)
    return results


@pytest.fixture
def net(zoo) -> nn.Module:
    net = zoo.shake(zoo.Residual())
    net.head.train()
    net.stem.weight.requires_grad = False
    return net


class Transformer(nn.Module):
    """Has attention with torch's fast path."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


# --- Threads -----------------------------------------------------------------------------------


def test_one_network_in_several_threads_gives_the_maps_of_one(zoo, image, net) -> None:
    expected = {m: camanim.animate(net, image, target=1, method=m).maps for m in METHODS}
    before, process = zoo.state_of(net), flags()
    methods = (*METHODS, "GradCAM")
    jobs = [lambda m=m: camanim.animate(net, image, target=1, method=m).maps for m in methods]
    for method, maps in zip(methods, together(*jobs), strict=True):
        assert isinstance(maps, list), maps
        for a, b in zip(maps, expected[method], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=method)
    assert zoo.state_of(net) == before
    assert flags() == process


def test_scores_and_checks_run_beside_maps(zoo, image, net) -> None:
    animation = camanim.animate(net, image, target=1)
    before = zoo.state_of(net)
    jobs = {
        "road": lambda: animation.find("road", percentiles=(50,), draws=2).scores,
        "predict": lambda: [p.probability for p in Model(net).predict(image)],
        "randomisation": lambda: (
            camanim.animate(net, image, target=1).find("randomisation", steps=2).spearman
        ),
        "copy": lambda: [len(m._forward_hooks) for m in Model(net).to("meta").net.modules()],
    }
    expected = {name: job() for name, job in jobs.items()}
    run = jobs | {f"maps {i}": lambda: camanim.animate(net, image).maps for i in range(3)}
    for name, result in zip(run, together(*run.values()), strict=True):
        assert not isinstance(result, BaseException), result
        if name in expected:
            np.testing.assert_allclose(result, expected[name], atol=1e-6, err_msg=name)
    assert zoo.state_of(net) == before


@pytest.mark.parametrize("method", ["GradCAM", "ShapleyCAM"])
def test_process_wide_flags_of_different_networks_are_restored(image, method) -> None:
    nets = [Transformer().eval() for _ in range(4)]
    process = flags()
    results = together(*(lambda n=n: camanim.animate(n, image, method=method).maps for n in nets))
    assert all(isinstance(maps, list) for maps in results), results
    assert flags() == process


def test_a_flag_is_restored_by_its_last_user() -> None:
    read = torch.backends.mha.get_fastpath_enabled
    held, done = threading.Event(), threading.Event()

    def work() -> None:
        with PLAIN_ATTENTION.held():
            held.set()
            done.wait(10)

    thread = threading.Thread(target=work)
    with PLAIN_ATTENTION.held(), PLAIN_ATTENTION.held():
        thread.start()
        held.wait(10)
    assert not read()
    done.set()
    thread.join()
    assert read()


def test_another_value_of_a_flag_is_restored_too() -> None:
    cuda = torch.backends.cuda
    cuda.enable_flash_sdp(False)
    try:
        with MATH_ATTENTION.held():
            assert not cuda.mem_efficient_sdp_enabled()
        assert not cuda.flash_sdp_enabled()
        assert cuda.mem_efficient_sdp_enabled()
    finally:
        cuda.enable_flash_sdp(True)


def users_at_once(*nets: nn.Module) -> int:
    """Return how many of several networks are in use at the same time, at most."""
    now, most, lock = 0, 0, threading.Lock()

    def use() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.03)
        with lock:
            now -= 1

    for result in together(*(lambda n=n: exclusively(n, use) for n in nets)):
        assert result is None
    return most


def test_networks_that_share_modules_or_weights_wait_for_each_other() -> None:
    backbone = nn.Conv2d(3, 4, 3)
    tied = nn.Conv2d(3, 4, 3)
    tied.weight = backbone.weight
    assert users_at_once(backbone, backbone) == 1
    assert users_at_once(nn.Sequential(backbone, nn.ReLU()), nn.Sequential(backbone)) == 1
    assert users_at_once(nn.Sequential(backbone), tied) == 1
    assert users_at_once(backbone, nn.Conv2d(3, 4, 3)) == 2


def test_a_thread_may_use_its_network_again(image, net) -> None:
    def explain_again(stage: str, done: int, total: int) -> None:
        if stage == "maps" and done == 1:
            camanim.animate(net, image)

    expected = camanim.animate(net, image).maps
    # Two at once, so that another thread waits for the network in between.
    jobs = [lambda: camanim.animate(net, image, progress=explain_again).maps] * 2
    for maps in together(*jobs):
        assert isinstance(maps, list), maps
        for a, b in zip(maps, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_run_that_waits_can_be_cancelled(image, net) -> None:
    stages: list[str] = []

    def cancel(stage: str, done: int, total: int) -> None:
        stages.append(stage)
        raise Cancelled("enough")

    def run() -> None:
        with pytest.raises(Cancelled):
            camanim.animate(net, image, progress=cancel)

    thread = threading.Thread(target=run)
    exclusively(net, lambda: (thread.start(), thread.join(20)))
    assert stages == ["wait"]


def test_a_write_in_another_thread_is_noticed(zoo, image) -> None:
    class Threaded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.late = nn.Conv2d(4, 4, 3)
            self.head = nn.Sequential(*zoo.head(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            thread = threading.Thread(target=lambda: y.detach().mul_(2))
            thread.start()
            thread.join()
            return self.head(self.late(y))

    animation = camanim.animate(zoo.shake(Threaded()), image, target=0)
    statuses = {info.name: info.status for info in animation.layer_calls}
    assert statuses["conv"] == Status.OVERWRITTEN
    assert statuses["late"] == Status.OK


# --- Interrupts --------------------------------------------------------------------------------


class Events:
    """Counts calls, lines and returns of Python; interrupts at one of them."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.count = at, 0

    def __call__(self, frame, event, argument):
        if event != "exception":
            self.count += 1
            if self.count == self.at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self

    @contextmanager
    def traced(self):
        before = sys.gettrace()
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(before)


def jobs_of(net: nn.Module, image: np.ndarray) -> dict[str, object]:
    model = Model(net)
    return {
        method: lambda m=method: camanim.animate(model, image, target=1, method=m)
        for method in ("GradCAM", "AblationCAM", "KPCA_CAM", "GuidedBackpropagation")
    } | {"predict": lambda: model.predict(image)}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["convolutions", "attention"])
@pytest.mark.parametrize(
    "job", ["GradCAM", "AblationCAM", "KPCA_CAM", "GuidedBackpropagation", "predict"]
)
def test_an_interrupt_at_any_event_leaves_everything_as_it_was(zoo, net, kind, job) -> None:
    net = net if kind == "convolutions" else Transformer()
    image = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    run = jobs_of(net, image)[job]
    run()
    events = Events()
    with events.traced():
        run()
    before, process, generator = zoo.state_of(net), flags(), random.Random(0)
    interrupts = 0
    for _ in range(12):
        try:
            with Events(generator.randrange(1, events.count)).traced():
                run()
        except KeyboardInterrupt:
            interrupts += 1
        assert zoo.state_of(net) == before
        assert flags() == process
    # Python discards one that comes in the callback of a weak reference.
    assert interrupts > 6


def test_every_exit_of_a_context_may_be_interrupted(zoo, net) -> None:
    """The start of each ``__exit__``, where a context manager cannot help itself."""
    image = np.random.default_rng(0).random((6, 6, 3)).astype(np.float32)
    before, process = zoo.state_of(net), flags()
    at, completed = 0, False
    while not completed:
        at += 1
        exits = 0

        def trace(frame, event, argument, at=at):
            nonlocal exits
            if event == "call" and frame.f_code.co_name == "__exit__":
                exits += 1
                if exits == at:
                    sys.settrace(None)
                    raise KeyboardInterrupt

        sys.settrace(trace)
        try:
            camanim.animate(net, image, target=1, layers="conv")
            completed = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert zoo.state_of(net) == before
        assert flags() == process
    assert at > 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("module", [exclusive, shared_flags], ids=["exclusive", "shared_flags"])
def test_an_interrupt_at_any_event_of_a_module_leaves_no_lock(zoo, net, module) -> None:
    image = np.random.default_rng(0).random((6, 6, 3)).astype(np.float32)
    before, process = zoo.state_of(net), flags()
    at, completed = 0, False
    while not completed:
        at += 1
        events = Events(at)

        def trace(frame, event, argument, events=events):
            # Not in `exclusively` itself, whose lines of ``finally`` are not interrupted between calls.
            inside = frame.f_code.co_filename == module.__file__
            return events(frame, event, argument) if inside else None

        def in_modules(frame, event, argument, trace=trace):
            if frame.f_code.co_name == "exclusively":
                return None
            return trace(frame, event, argument) and trace

        sys.settrace(in_modules)
        try:
            camanim.animate(net, image, target=1, method="ShapleyCAM", layers="conv")
            completed = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert zoo.state_of(net) == before
        assert flags() == process

        def use_all() -> bool:
            for flag in shared_flags.FLAGS[:3]:
                with flag.held():
                    pass
            return exclusively(net, lambda: True)

        assert together(use_all) == [True]
    assert at > 20


def test_an_interrupt_during_the_restoration_delays_it_only(zoo, image, net, monkeypatch) -> None:
    from camanim import snapshot

    before, restore, times = zoo.state_of(net), snapshot._NetworkState.restore, []

    def interrupted(self) -> None:
        times.append(0)
        if len(times) < 3:
            raise KeyboardInterrupt
        restore(self)

    def change() -> None:
        net.bn1.train()
        net.conv.register_forward_hook(lambda *args: None)
        net.relu.forward = lambda x: x
        net.head[2].weight.requires_grad = False
        raise ValueError("after changes")

    net.eval()
    before = zoo.state_of(net)
    monkeypatch.setattr(snapshot._NetworkState, "restore", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exclusively(net, change)
    assert zoo.state_of(net) == before
    assert len(times) == 3
    # The network is free.
    assert users_at_once(net) == 1


def test_an_error_without_interrupt_keeps_its_frames(zoo, net) -> None:
    def fail() -> None:
        witness = ["a local variable"]
        raise ValueError(witness)

    with pytest.raises(ValueError, match="a local variable") as caught:
        exclusively(net, fail)
    assert "witness" in caught.traceback[-1].locals


def test_the_target_of_an_interrupted_run_still_works(zoo, image, net) -> None:
    with pytest.raises(KeyboardInterrupt):
        camanim.animate(net, image, progress=_interrupt)
    camanim.animate(net, image, target=ClassTarget(0, "zero"))


def _interrupt(stage: str, done: int, total: int) -> None:
    if stage == "maps":
        raise KeyboardInterrupt
