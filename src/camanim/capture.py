"""One forward and one backward for all layers.

Every call of every module is seen by a forward hook. Where a layer is selected, a gradient-free method
makes its map there and then; any other keeps the activation until its gradient arrives in the backward
pass, makes the map, and lets go of both. The gradient is asked for at the *input* only, so no parameter
collects one and frozen networks work.

In-place operations (``ReLU(inplace=True)``, ``out += identity``) overwrite activations that are still
wanted. Their gradients stay right: a tensor hook set before the operation gets the gradient of the value
before it. The activation is cloned just before it is overwritten, and only then (`SaveOverwritten`).
"""

from __future__ import annotations

import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from camanim.activations import SaveOverwritten, Waiting
from camanim.animation import LayerInfo, Status
from camanim.cams import Method
from camanim.errors import Cancelled
from camanim.guard import call_back, check_weights, frozen, in_eval_mode, own_errors
from camanim.layers import Predicate
from camanim.layout import Layout, channels_first
from camanim.progress import Progress
from camanim.targets import ClassTarget, choose, class_scores


@dataclass
class Captured:
    """What one pass through the network gave.

    Attributes
    ----------
    trace : list of LayerInfo
        Every call of every module, in order of execution.
    maps : dict of int to array
        The raw map (h, w), float32, by index into `trace`.
    target : ClassTarget
    logits : torch.Tensor
        (1, K)
    """

    trace: list[LayerInfo]
    maps: dict[int, npt.NDArray[np.float32]]
    target: ClassTarget
    logits: torch.Tensor


def capture(
    net: nn.Module,
    tensor: torch.Tensor,
    *,
    method: Method,
    target: int | str | None,
    classes: list[str] | None,
    select: Predicate,
    seed: int,
    progress: Progress,
) -> Captured:
    """Run the network once forward and once backward and make every selected layer's map.

    Parameters
    ----------
    net : torch.nn.Module
        Comes back as it was: weights, modes, hooks, gradients, flags; also after an error.
    tensor : torch.Tensor
        The input, (1, C, H, W), on the network's device.
    method : Method
    target : int, str or None
        See `camanim.targets.choose`.
    classes : list of str or None
    select : Predicate
        Called once per call of a module, right after it.
    seed : int
        Of random methods; a layer's numbers depend on the seed and its index alone.
    progress : Progress
        Called after every map. When it raises `Cancelled`, the maps made so far are returned, and the
        other layers have the status "cancelled".

    Raises
    ------
    Cancelled
        When there was no map yet.
    ModelError, TargetError, OutOfMemory
        When the network fails, has no such class, or does not fit into memory.
    """
    height, width = tensor.shape[-2:]
    recorder = _Recorder(method, select, Layout((height, width)), seed, progress)
    chosen: ClassTarget | None = None
    check_weights(net)
    with ExitStack() as stack:
        stack.enter_context(own_errors(tuple(tensor.shape)))
        stack.enter_context(in_eval_mode(net))
        stack.enter_context(frozen(net))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.callback(recorder.let_go)
        try:
            with recorder.watching(net):
                output = net(recorder.start_graph(tensor))
            logits = class_scores(output)
            chosen = choose(target, logits.detach(), classes)
            score = chosen.score(logits)
            if recorder.waiting.indices and score.requires_grad:
                torch.autograd.grad(score, recorder.starts, allow_unused=True)
        except Cancelled:
            if chosen is None or not recorder.maps:
                raise
            recorder.end(Status.CANCELLED)
        else:
            recorder.end(Status.OFF_PATH)
    return Captured(recorder.trace, recorder.maps, chosen, logits.detach())


@dataclass
class _Recorder:
    """Sees every call of every module, and makes the maps."""

    method: Method
    select: Predicate
    layout: Layout
    seed: int
    progress: Progress
    trace: list[LayerInfo] = field(default_factory=list)
    maps: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    #: Where the graph begins: the input, and what a network cut off from it (``torch.no_grad``).
    starts: list[torch.Tensor] = field(default_factory=list)
    waiting: Waiting = field(default_factory=Waiting)
    selected: int = 0
    cancelled: bool = False
    _hooks: list[RemovableHandle] = field(default_factory=list)
    _names: dict[nn.Module, tuple[str, int]] = field(default_factory=dict)
    _calls: Counter[str] = field(default_factory=Counter)
    _seen: dict[int, tuple[weakref.ref[torch.Tensor], int, int]] = field(default_factory=dict)

    @contextmanager
    def watching(self, net: nn.Module) -> Iterator[None]:
        """Hook every module for one forward pass."""
        counts = _parameter_counts(net)
        for name, module in net.named_modules():
            self._names[module] = (name, counts[name])
        with ExitStack() as stack:
            for module in self._names:
                stack.callback(module.register_forward_hook(self._after_call).remove)
            stack.enter_context(SaveOverwritten(self.waiting))
            yield

    def start_graph(self, tensor: torch.Tensor) -> torch.Tensor:
        """Let gradients lead back to here, and no further."""
        start = tensor.detach().clone().requires_grad_()
        self.starts.append(start)
        # Not the leaf itself: the next module may write in place, which autograd forbids on a leaf.
        return start.clone()

    def _after_call(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Record one call; return another output only where the graph has to be begun anew."""
        cut_off = (
            isinstance(output, torch.Tensor)
            and not output.requires_grad
            and output.is_floating_point()
            and torch.is_grad_enabled()
            and self.method.needs_gradient
        )
        if cut_off:
            output = self.start_graph(output)
        self._record(module, output)
        return output if cut_off else None

    def _record(self, module: nn.Module, output: Any) -> None:
        name, parameters = self._names[module]
        is_tensor = isinstance(output, torch.Tensor)
        shape = tuple(output.shape) if is_tensor else None
        info = LayerInfo(
            index=len(self.trace),
            name=name,
            call=self._calls[name],
            kind=type(module).__name__,
            shape=shape,
            parameters=parameters,
            same_as=self._earlier(output) if is_tensor else None,
        )
        self._calls[name] += 1
        self.trace.append(info)
        self._report_forward()
        # Also of layers that are not selected: the layout of one tells that of the next.
        axis = None if shape is None else self.layout.channel_axis(module, shape)
        if not call_back(self.select, info):
            return
        if axis is None:
            status = Status.NOT_SPATIAL if is_tensor else Status.NO_TENSOR
            self.trace[info.index] = info.with_status(status)
            return
        self.selected += 1
        if self.cancelled:
            self.trace[info.index] = info.with_status(Status.CANCELLED)
        elif not self.method.needs_gradient:
            with torch.no_grad():
                self._make_map(info.index, channels_first(output, axis), None)
        elif output.requires_grad:
            self.waiting.add(info.index, output)
            hook = output.register_hook(partial(self._on_gradient, info.index, axis))
            self._hooks.append(hook)
        else:
            self.trace[info.index] = info.with_status(Status.OFF_PATH)

    def _report_forward(self) -> None:
        """Report one more call; when that cancels and there are maps, make no more, but go on.

        The maps made in the forward pass are of use only with the class scores at its end.
        """
        try:
            if not self.cancelled:
                self._report("forward", len(self.trace), max(len(self._names), len(self.trace)))
        except Cancelled:
            if not self.maps:
                raise
            self.cancelled = True

    def _earlier(self, output: torch.Tensor) -> int | None:
        """Find the earlier call that gave this very tensor, unless it was written to since."""
        index = len(self.trace)
        ref, version, earlier = self._seen.get(id(output), (None, 0, 0))
        if ref is not None and ref() is output and version == output._version:
            return earlier
        self._seen[id(output)] = (weakref.ref(output), output._version, index)
        return None

    def _on_gradient(self, index: int, axis: int, gradient: torch.Tensor) -> None:
        activation = self.waiting.take(index)
        if activation is not None:
            with torch.no_grad():
                self._make_map(
                    index, channels_first(activation, axis), channels_first(gradient, axis)
                )

    def _make_map(
        self, index: int, activation: torch.Tensor, gradient: torch.Tensor | None
    ) -> None:
        start = time.perf_counter()
        generator = None
        if "generator" in self.method.needs:
            generator = torch.Generator("cpu").manual_seed((self.seed * 1_000_003 + index) % 2**63)
        raw = self.method(activation=activation, gradient=gradient, generator=generator)
        array = raw.float().cpu().numpy()
        milliseconds = (time.perf_counter() - start) * 1000
        if np.isfinite(array).all():
            self.maps[index] = array
            status = Status.OK
        else:
            status = Status.NOT_FINITE
        self.trace[index] = self.trace[index].with_status(status, milliseconds)
        if gradient is not None:
            self._report("maps", len(self.maps), self.selected)

    def _report(self, stage: str, done: int, total: int) -> None:
        call_back(self.progress, stage, done, total)

    def end(self, status: str) -> None:
        """Give the layers whose gradient never came their status."""
        for index in self.waiting.indices:
            self.trace[index] = self.trace[index].with_status(status)

    def let_go(self) -> None:
        """Drop everything that holds on to the network or its activations."""
        # Hooks stay on tensors that an error's frames may hold; through autograd's graph they would
        # hold us, and our callback, for ever.
        for hook in self._hooks:
            hook.remove()
        self.starts.clear()
        self.waiting.clear()
        self._hooks.clear()
        self._seen.clear()
        self._names.clear()


def _parameter_counts(net: nn.Module) -> Counter[str]:
    """Count each module's parameters, with those of what it contains; shared ones once."""
    owned: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for name, module in net.named_modules(remove_duplicate=False):
        sizes = {id(p): p.numel() for p in module.parameters(recurse=False)}
        while sizes:
            owned[name].update(sizes)
            if not name:
                break
            name = name.rpartition(".")[0]
    return Counter({name: sum(sizes.values()) for name, sizes in owned.items()})
