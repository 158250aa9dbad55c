"""Hooks on all modules for one forward pass, and on the selected activations for the backward passes."""

from __future__ import annotations

import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from camanim.errors import Cancelled, NoMap
from camanim.execution.consumer import Consumer, ForwardOutput, Head, Layer
from camanim.execution.outputs import detached
from camanim.execution.pending_activations import (
    PendingActivations,
    SaveOverwritten,
    storage_of,
)
from camanim.execution.request import AttributionRequest
from camanim.layer_info import LayerInfo, Status
from camanim.layout.arrangement import ChannelsFirst, ChannelsLast, Stripes, Tokens
from camanim.model_state import run_callback
from camanim.targets import Target
from camanim.targets.outputs import find_scores

#: Arrangements that make equal channels of equal tensors when they compare equal.
_COMPARABLE = (ChannelsFirst, ChannelsLast, Stripes, Tokens)


@dataclass
class _Group:
    """Calls that return the same tensor, so that one activation and one hook serve them all."""

    layers: list[Layer]
    hook: RemovableHandle


@dataclass
class Recorder:
    """Records every call of every module, and hands the selected layers to a `Consumer`.

    Attributes
    ----------
    request : AttributionRequest
    consumer : Consumer
    layer_calls : list of LayerInfo
        Every call of every module, in order of execution.
    input_gradients : list of torch.Tensor
        (B, C, *S) per target that had its backward pass.
    completed : int
        How many maps there are, over all targets.
    cancelled : bool
    """

    request: AttributionRequest
    consumer: Consumer
    layer_calls: list[LayerInfo] = field(default_factory=list)
    input_gradients: list[torch.Tensor] = field(default_factory=list)
    completed: int = 0
    cancelled: bool = False
    #: Status and milliseconds by index: of layers that no target changes, and of the others per target.
    _status: dict[int, tuple[str, float]] = field(default_factory=dict)
    _target_status: list[dict[int, tuple[str, float]]] = field(default_factory=list)
    #: Where the graph begins: the input, and what a network cuts off from it (``torch.no_grad``).
    _starts: list[torch.Tensor] = field(default_factory=list)
    _pending: PendingActivations = field(default_factory=PendingActivations)
    _selected: int = 0
    _target: int = -1
    _in_backward: bool = False
    _last: bool = False
    #: Input and output of the linear layers that may be the classifier.
    _linears: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    _deferred: list[tuple[Layer, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    _layers: dict[int, Layer] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)
    _groups: dict[int, _Group] = field(default_factory=dict)
    _names: dict[nn.Module, tuple[str, int]] = field(default_factory=dict)
    _call_counts: Counter[str] = field(default_factory=Counter)
    _outputs: dict[int, tuple[weakref.ref[torch.Tensor], tuple[object, ...], int]] = field(
        default_factory=dict
    )

    @contextmanager
    def hooked(self, net: nn.Module) -> Iterator[None]:
        """Hook every module for one forward pass."""
        self._names = _names_and_sizes(net)
        save_overwritten = SaveOverwritten(self._pending)
        handles: list[RemovableHandle] = []

        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            if module not in self._names:
                # A copy that the network made of one of its modules, and with it of the hook.
                return None
            return save_overwritten.suspended(self._after_call, module, inputs, output)

        try:
            for module in self._names:
                # The parts of a network that are of TorchScript take no hooks.
                if not isinstance(module, torch.jit.ScriptModule):
                    handles.append(module.register_forward_hook(hook))
            with save_overwritten.active(self._names):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def start_graph(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy at which the graph begins."""
        start = tensor.detach().clone().requires_grad_()
        self._starts.append(start)
        # Not the leaf itself: the next module may write in place, which autograd forbids on a leaf.
        return start.clone()

    def _after_call(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Record one call; return another output only where the graph has to be begun anew."""
        cut_off = (
            isinstance(output, torch.Tensor)
            and not output.requires_grad
            and output.is_floating_point()
            and torch.is_grad_enabled()
            and self.consumer.needs_gradient
        )
        if cut_off:
            output = self.start_graph(output)
        if self.consumer.needs_head and isinstance(module, nn.Linear) and inputs:
            pair = (inputs[0], output)
            if all(isinstance(side, torch.Tensor) and side.ndim == 2 for side in pair):
                self._linears.append(pair)
        self._record(module, output)
        return output if cut_off else None

    def _record(self, module: nn.Module, output: Any) -> None:
        name, parameters = self._names[module]
        index, call = len(self.layer_calls), self._call_counts[name]
        feature = self.request.reader.read(module, name, call, output)
        tensor = feature.tensor
        info = LayerInfo(
            index=index,
            name=name,
            call=call,
            kind=type(module).__name__,
            shape=None if tensor is None else tuple(tensor.shape),
            parameters=parameters,
            same_as=None if tensor is None else self._earlier(tensor),
            layout=feature.name,
        )
        self._call_counts[name] = call + 1
        self.layer_calls.append(info)
        self._report_forward()
        if not run_callback(self.request.select, info):
            return
        if tensor is None:
            self._status[index] = (Status.NO_TENSOR, 0.0)
        elif feature.arrangement is None and not feature.ambiguous:
            self._status[index] = (Status.NOT_SPATIAL, 0.0)
        else:
            if feature.ambiguous:
                self._open.add(index)
            layer = Layer(index, name, call, module, feature.path, feature.arrangement)
            layer.same_as = self._equivalent(layer, info.same_as)
            self._select(layer, tensor)

    def _equivalent(self, layer: Layer, same_as: int | None) -> int | None:
        """Return the earlier layer with the same tensor in the same arrangement, if any."""
        earlier = None if same_as is None else self._layers.get(same_as)
        if earlier is None or {layer.index, earlier.index} & self._open:
            return None
        same = layer.arrangement == earlier.arrangement
        return earlier.index if same and isinstance(layer.arrangement, _COMPARABLE) else None

    def _select(self, layer: Layer, output: torch.Tensor) -> None:
        self._selected += 1
        index = layer.index
        if self.cancelled:
            self._status[index] = (Status.CANCELLED, 0.0)
        elif not self.consumer.needs_gradient:
            self._layers[index] = layer
            if index in self._open:
                self._pending.add(index, output)
            else:
                self._deliver(layer, output, None)
        elif output.requires_grad:
            self._layers[index] = layer
            self._wait(layer, output)
        else:
            self._status[index] = (Status.OFF_PATH, 0.0)

    def _wait(self, layer: Layer, output: torch.Tensor) -> None:
        """Keep an activation until its gradient arrives."""
        if self.consumer.needs_graph:
            layer.edge = torch.autograd.graph.get_gradient_edge(output)
        group = None if layer.same_as is None else self._groups.get(layer.same_as)
        if group is not None and _is_last_hook(group.hook, output):
            group.layers.append(layer)
            return
        # A hook between both may change the gradient.
        layer.same_as = None
        self._pending.add(layer.index, output)
        layers = [layer]
        # torch 2.14 crashes in register_hook on a view whose base was written to since, unless its node
        # in the graph was read before.
        _ = output.grad_fn
        hook = output.register_hook(partial(self._on_gradient, layers))
        self._groups[layer.index] = _Group(layers, hook)

    def _report_forward(self) -> None:
        """Report one more call; when that cancels and there are maps, make no more, but go on.

        The maps made in the forward pass are of use only with the class scores at its end.
        """
        try:
            if not self.cancelled:
                self._report(
                    "forward", len(self.layer_calls), max(len(self._names), len(self.layer_calls))
                )
        except Cancelled:
            if not self.completed:
                raise
            self.cancelled = True

    def _earlier(self, output: torch.Tensor) -> int | None:
        """Return the first call that gave this very tensor, unless it was written to since."""
        ref, state, earlier = self._outputs.get(id(output), (None, None, 0))
        current = self._state(output)
        if ref is not None and ref() is output and state == current:
            return earlier
        self._outputs[id(output)] = (weakref.ref(output), current, len(self.layer_calls))
        return None

    def _state(self, output: torch.Tensor) -> tuple[object, ...]:
        """Return what differs once a tensor was written to."""
        version = 0 if output.is_inference() else output._version
        try:
            storage = storage_of(output)
        except (NotImplementedError, RuntimeError):
            # A sparse tensor, or one within a transform of torch.func.
            return (version,)
        # Writing through ``.data`` leaves the version unchanged.
        return version, storage, self._pending.writes[storage]

    def settle(self) -> None:
        """Arrange the layers whose shape alone does not tell, or may deceive."""
        open_layers = [layer for layer in self._layers.values() if layer.index in self._open]
        if not open_layers:
            return
        paths = {(layer.name, layer.call): layer.path for layer in open_layers}
        arrangements = self.request.reader.trace(self.request.forward, self.request.tensor, paths)
        for layer in open_layers:
            layer.arrangement = arrangements.get((layer.name, layer.call), layer.arrangement)
            info = self.layer_calls[layer.index]
            if layer.arrangement is None:
                self.layer_calls[layer.index] = info.with_layout("")
                self._drop(layer.index)
                self._status[layer.index] = (Status.NOT_SPATIAL, 0.0)
                self._selected -= 1
                continue
            name = f"{layer.path} {layer.arrangement.name}".strip()
            self.layer_calls[layer.index] = info.with_layout(name)
            if not self.consumer.needs_gradient:
                try:
                    activation = self._pending.pop(layer.index)
                except NoMap as reason:
                    self._status[layer.index] = (str(reason), 0.0)
                    continue
                if activation is not None:
                    self._deliver(layer, activation, None)

    def _drop(self, index: int) -> None:
        self._pending.drop(index)
        if index in self._groups:
            self._groups.pop(index).hook.remove()

    def expect(self, targets: int) -> None:
        """Prepare for so many backward passes."""
        self._selected *= targets
        self._target_status = [{} for _ in range(targets)]

    def backward(self, target: Target, output: Any, *, last: bool) -> None:
        """Run the backward pass of one target, and hand all gradients to the consumer."""
        score = target.score(output)
        self._target += 1
        self._last = last
        # Once at least, also where nothing is pending: the score may have no gradient at all.
        self.consumer.begin_target(
            target, ForwardOutput(detached(output), score.detach(), self._head(output, score))
        )
        if self.consumer.needs_gradient:
            first = None
            if self._any_pending and score.requires_grad:
                first = self._gradients(score, keep=not last)[0]
            self.input_gradients.append(
                torch.zeros_like(self._starts[0]) if first is None else first.detach()
            )
        while self._deferred:
            # Now that all gradients have their graph, and gradients in turn.
            self._deliver(*self._deferred.pop())
        for index, group in self._groups.items():
            if index in self._pending:
                for layer in group.layers:
                    self._target_status[self._target].setdefault(
                        layer.index, (Status.OFF_PATH, 0.0)
                    )

    @property
    def _any_pending(self) -> bool:
        return any(index in self._pending for index in self._groups)

    def _gradients(self, score: torch.Tensor, *, keep: bool) -> tuple[torch.Tensor | None, ...]:
        graph = self.consumer.needs_graph
        # Not in the backward passes of gradients, which run through the same hooks.
        self._in_backward = True
        try:
            return torch.autograd.grad(
                score.sum(),
                self._starts,
                allow_unused=True,
                retain_graph=graph or keep,
                create_graph=graph,
            )
        finally:
            self._in_backward = False

    def _head(self, output: Any, score: torch.Tensor) -> Head | None:
        """Return the input of the linear layer whose output is, or becomes, the scores."""
        scores = find_scores(output)
        if scores is None or not score.requires_grad:
            return None
        for features, result in reversed(self._linears):
            if features.requires_grad and _becomes(result, scores):
                (gradient,) = torch.autograd.grad(
                    score.sum(), features, retain_graph=True, allow_unused=True
                )
                return None if gradient is None else Head(features.detach(), gradient.detach())
        return None

    def _on_gradient(self, layers: list[Layer], gradient: torch.Tensor | None) -> None:
        # Operations without a derivative pass no gradient at all.
        if not self._in_backward or gradient is None:
            return
        index = layers[0].index
        try:
            activation = self._pending.pop(index) if self._last else self._pending.get(index)
        except NoMap as reason:
            for layer in layers:
                self._target_status[self._target][layer.index] = (str(reason), 0.0)
            return
        if activation is None:
            return
        if self.consumer.needs_graph:
            # Taken from the end: the first layer of the group comes first.
            self._deferred.extend((layer, activation, gradient) for layer in reversed(layers))
            return
        for layer in layers:
            self._deliver(layer, activation, gradient)

    def _deliver(
        self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None
    ) -> None:
        start = time.perf_counter()
        arrangement = layer.arrangement
        assert arrangement is not None
        graph = self.consumer.needs_graph
        right_mode = torch.is_grad_enabled() == graph
        try:
            with nullcontext() if right_mode else torch.set_grad_enabled(graph):
                self.consumer.consume(
                    layer,
                    arrangement.to_channels(activation.detach()),
                    None if gradient is None else arrangement.to_channels(gradient),
                )
        except NoMap as reason:
            status = str(reason)
        else:
            status = Status.OK
            self.completed += 1
        statuses = self._status if gradient is None else self._target_status[self._target]
        statuses[layer.index] = (status, (time.perf_counter() - start) * 1000)
        if gradient is not None:
            self._report("maps", self.completed, self._selected)

    def _report(self, stage: str, done: int, total: int) -> None:
        run_callback(self.request.progress, stage, done, total)

    def stop(self) -> None:
        """Mark the layers whose gradient has not arrived as cancelled."""
        self.cancelled = True
        for statuses in self._target_status[max(self._target, 0) :]:
            for index in self._layers:
                statuses.setdefault(index, (Status.CANCELLED, 0.0))

    def statuses(self, target: int) -> list[LayerInfo]:
        """Return every call with its status for one target."""
        statuses = self._target_status[target] | self._status
        return [
            info.with_status(*statuses[info.index]) if info.index in statuses else info
            for info in self.layer_calls
        ]

    def close(self) -> None:
        """Release everything that refers to the network or its activations."""
        # Hooks stay on tensors that an error's frames may hold; through autograd's graph they would
        # keep the recorder, and the caller's callback, alive.
        for group in self._groups.values():
            group.hook.remove()
        self._starts.clear()
        self._pending.clear()
        self._groups.clear()
        self._layers.clear()
        self._deferred.clear()
        self._outputs.clear()
        self._names.clear()
        self._linears.clear()


def _is_last_hook(hook: RemovableHandle, tensor: torch.Tensor) -> bool:
    hooks = tensor._backward_hooks or {}
    return next(reversed(hooks), None) == hook.id


def _becomes(logits: torch.Tensor, scores: torch.Tensor) -> bool:
    """Return whether scores are logits, or their probabilities."""
    logits, scores = logits.detach().to(scores.dtype), scores.detach()
    return logits.shape == scores.shape and any(
        torch.allclose(same, scores) for same in (logits, logits.softmax(1), logits.sigmoid())
    )


def _names_and_sizes(net: nn.Module) -> dict[nn.Module, tuple[str, int]]:
    """Return each module's first name and its number of parameters, shared ones counted once."""
    names: dict[nn.Module, str] = {}
    sizes: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for name, module in net.named_modules(remove_duplicate=False):
        names.setdefault(module, name)
        counts = {id(p): p.numel() for p in module._parameters.values() if p is not None}
        while counts:
            sizes[name].update(counts)
            if not name:
                break
            name = name.rpartition(".")[0]
    return {module: (name, sum(sizes[name].values())) for module, name in names.items()}
