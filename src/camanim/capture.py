"""One forward and one backward for all layers.

Every call of every module is seen by a forward hook. Where a layer is selected, a gradient-free method
makes its map there and then; any other keeps the activation until its gradient arrives in the backward
pass, makes the map, and lets go of both. The gradient is asked for at the *input* only, so no parameter
collects one and frozen networks work.

In-place operations (``ReLU(inplace=True)``, ``out += identity``) overwrite activations that are still
wanted. Their gradients stay right: a tensor hook set before the operation gets the gradient of the value
before it. The activation is cloned just before it is overwritten, and only then (`_SaveOverwritten`).
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
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from camanim.animation import LayerInfo, Status
from camanim.cams import Method
from camanim.errors import CamError, Cancelled, ModelError, OutOfMemory
from camanim.layers import Predicate
from camanim.layout import channel_axis, channels_first
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


@contextmanager
def in_eval_mode(net: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and each of its modules back into its own after."""
    modes = [(module, module.training) for module in net.modules()]
    try:
        net.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def own_errors(input_shape: tuple[int, ...]) -> Iterator[None]:
    """Turn what torch raises inside a user's network into errors of our own."""
    try:
        yield
    except CamError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(input_shape) from error
    except _CallersError as error:
        raise error.error from None
    except Exception as error:
        if "can't allocate memory" in str(error):
            raise _out_of_memory(input_shape) from error
        size = " x ".join(str(n) for n in input_shape)
        first_line = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"The network fails on an input of {size} with {type(error).__name__}: {first_line}"
        ) from error


def _out_of_memory(input_shape: tuple[int, ...]) -> OutOfMemory:
    size = " x ".join(str(n) for n in input_shape)
    return OutOfMemory(
        f"There is not enough memory for this network at an input of {size}: "
        "use a smaller input, fewer layers or a device with more memory."
    )


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
    recorder = _Recorder(method, select, (height, width), seed, progress)
    chosen: ClassTarget | None = None
    _check_weights(net)
    with ExitStack() as stack:
        stack.enter_context(own_errors(tuple(tensor.shape)))
        stack.enter_context(in_eval_mode(net))
        stack.enter_context(_frozen(net))
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


class _CallersError(Exception):
    """What a callback of the caller raised, on its way through the network: not the network's fault."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _callers() -> Iterator[None]:
    try:
        yield
    except CamError:
        raise
    except Exception as error:
        raise _CallersError(error) from error


def _check_weights(net: nn.Module) -> None:
    if any(tensor.is_inference() for tensor in net.parameters()):
        raise ModelError(
            "The network was made in torch.inference_mode, so it has no gradients: "
            "make or load it outside of that."
        )


@contextmanager
def _frozen(net: nn.Module) -> Iterator[None]:
    """Keep the parameters out of the graph, and give each its own flag back after."""
    thawed = [p for p in net.parameters() if p.requires_grad]
    try:
        for parameter in thawed:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in thawed:
            parameter.requires_grad_(True)


@dataclass
class _Recorder:
    """Sees every call of every module, and makes the maps."""

    method: Method
    select: Predicate
    input_size: tuple[int, int]
    seed: int
    progress: Progress
    trace: list[LayerInfo] = field(default_factory=list)
    maps: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    #: Where the graph begins: the input, and what a network cut off from it (``torch.no_grad``).
    starts: list[torch.Tensor] = field(default_factory=list)
    waiting: _Waiting = field(default_factory=lambda: _Waiting())
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
            stack.enter_context(_SaveOverwritten(self.waiting))
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
        with _callers():
            selected = self.select(info)
        if not selected:
            return
        axis = None if shape is None else channel_axis(shape, self.input_size)
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
            generator = torch.Generator("cpu").manual_seed(self.seed * 1_000_003 + index)
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
        with _callers():
            self.progress(stage, done, total)

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
    seen: set[tuple[str, int]] = set()
    counts: Counter[str] = Counter()
    for name, parameter in net.named_parameters(remove_duplicate=False):
        owner = name
        while owner:
            owner = owner.rpartition(".")[0]
            if (owner, id(parameter)) not in seen:
                seen.add((owner, id(parameter)))
                counts[owner] += parameter.numel()
    return counts


class _Waiting:
    """Activations that wait for their gradients, by index into the trace."""

    def __init__(self) -> None:
        self._activations: dict[int, torch.Tensor] = {}
        self._by_storage: defaultdict[int, list[int]] = defaultdict(list)

    @property
    def indices(self) -> list[int]:
        return list(self._activations)

    def add(self, index: int, activation: torch.Tensor) -> None:
        self._activations[index] = activation
        self._by_storage[_storage(activation)].append(index)

    def take(self, index: int) -> torch.Tensor | None:
        return self._activations.pop(index, None)

    def save(self, overwritten: torch.Tensor) -> None:
        """Clone the activations whose memory is about to be overwritten."""
        for index in self._by_storage.pop(_storage(overwritten), ()):
            self._activations[index] = self._activations[index].detach().clone()

    def clear(self) -> None:
        self._activations.clear()
        self._by_storage.clear()


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _SaveOverwritten(TorchDispatchMode):
    """Clone a waiting activation just before an in-place operation overwrites its memory."""

    def __init__(self, waiting: _Waiting) -> None:
        super().__init__()
        self.waiting = waiting

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            for argument, value in zip(func._schema.arguments, args, strict=False):
                self._save(argument, value)
            for argument in func._schema.arguments:
                self._save(argument, kwargs.get(argument.name))
        return func(*args, **kwargs)

    def _save(self, argument: Any, value: Any) -> None:
        written = argument.alias_info is not None and argument.alias_info.is_write
        if not written or value is None:
            return
        for tensor in value if isinstance(value, list | tuple) else [value]:
            self.waiting.save(tensor)
