"""What watches a network while it runs: the calls of all modules, the gradients on their way back."""

from __future__ import annotations

import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from camanim.errors import Cancelled, NoMap
from camanim.execution.consumer import Consumer, ForwardOutput, Head, Layer
from camanim.execution.outputs import detached
from camanim.execution.pending_activations import PendingActivations, SaveOverwritten
from camanim.execution.request import AttributionRequest
from camanim.layer_info import LayerInfo, Status
from camanim.model_state import run_callback
from camanim.targets import Target


@dataclass
class Recorder:
    """Sees every call of every module, and hands on what was asked for."""

    question: AttributionRequest
    consumer: Consumer
    layer_calls: list[LayerInfo] = field(default_factory=list)
    status: dict[int, tuple[str, float]] = field(default_factory=dict)
    input_gradients: list[torch.Tensor] = field(default_factory=list)
    #: Where the graph begins: the input, and what a network cut off from it (``torch.no_grad``).
    starts: list[torch.Tensor] = field(default_factory=list)
    waiting: PendingActivations = field(default_factory=PendingActivations)
    selected: int = 0
    done: int = 0
    cancelled: bool = False
    #: What became of the layers that wait for their gradients, per target.
    outcomes: list[dict[int, tuple[str, float]]] = field(default_factory=list)
    _target: int = -1
    _listening: bool = False
    _last: bool = False
    _linear: tuple[torch.Tensor, torch.Tensor] | None = None
    _later: list[tuple[Layer, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    _layers: dict[int, Layer] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)
    _hooks: dict[int, RemovableHandle] = field(default_factory=dict)
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
            and self.consumer.needs_gradient
        )
        if cut_off:
            output = self.start_graph(output)
        if self.consumer.needs_head and isinstance(module, nn.Linear) and inputs:
            self._linear = (inputs[0], output)
        self._record(module, output)
        return output if cut_off else None

    def _record(self, module: nn.Module, output: Any) -> None:
        name, parameters = self._names[module]
        index, call = len(self.layer_calls), self._calls[name]
        part = self.question.reader.read(module, name, call, output)
        tensor = part.tensor
        info = LayerInfo(
            index=index,
            name=name,
            call=call,
            kind=type(module).__name__,
            shape=None if tensor is None else tuple(tensor.shape),
            parameters=parameters,
            same_as=None if tensor is None else self._earlier(tensor),
            layout=part.name,
        )
        self._calls[name] += 1
        self.layer_calls.append(info)
        self._report_forward()
        if not run_callback(self.question.select, info):
            return
        if tensor is None:
            self.status[index] = (Status.NO_TENSOR, 0.0)
        elif part.arrangement is None and not part.ambiguous:
            self.status[index] = (Status.NOT_SPATIAL, 0.0)
        else:
            if part.ambiguous:
                self._open.add(index)
            self._select(Layer(index, name, call, module, part.path, part.arrangement), tensor)

    def _select(self, layer: Layer, output: torch.Tensor) -> None:
        self.selected += 1
        index = layer.index
        if self.cancelled:
            self.status[index] = (Status.CANCELLED, 0.0)
        elif not self.consumer.needs_gradient:
            if index in self._open:
                self._keep(layer, output)
            else:
                self._hand_on(layer, output, None)
        elif output.requires_grad:
            self._keep(layer, output)
            if self.consumer.needs_graph:
                layer.edge = torch.autograd.graph.get_gradient_edge(output)
            self._hooks[index] = output.register_hook(partial(self._on_gradient, layer))
        else:
            self.status[index] = (Status.OFF_PATH, 0.0)

    def _keep(self, layer: Layer, output: torch.Tensor) -> None:
        self._layers[layer.index] = layer
        self.waiting.add(layer.index, output)

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
            if not self.done:
                raise
            self.cancelled = True

    def _earlier(self, output: torch.Tensor) -> int | None:
        """Find the earlier call that gave this very tensor, unless it was written to since."""
        index = len(self.layer_calls)
        ref, version, earlier = self._seen.get(id(output), (None, 0, 0))
        now = 0 if output.is_inference() else output._version
        if ref is not None and ref() is output and version == now:
            return earlier
        self._seen[id(output)] = (weakref.ref(output), now, index)
        return None

    def settle(self) -> None:
        """Find the space of the layers whose shape alone does not tell, or may deceive."""
        open_layers = [layer for layer in self._layers.values() if layer.index in self._open]
        if not open_layers:
            return
        wanted = {(layer.name, layer.call): layer.path for layer in open_layers}
        found = self.question.reader.trace(self.question.forward, self.question.tensor, wanted)
        for layer in open_layers:
            layer.arrangement = found.get((layer.name, layer.call), layer.arrangement)
            activation = self.waiting.get(layer.index)
            info = self.layer_calls[layer.index]
            if layer.arrangement is None:
                self.layer_calls[layer.index] = info.with_layout("")
                self._drop(layer.index)
                self.status[layer.index] = (Status.NOT_SPATIAL, 0.0)
                self.selected -= 1
                continue
            name = f"{layer.path} {layer.arrangement.name}".strip()
            self.layer_calls[layer.index] = info.with_layout(name)
            if not self.consumer.needs_gradient and activation is not None:
                self.waiting.take(layer.index)
                self._hand_on(layer, activation, None)

    def _drop(self, index: int) -> None:
        self.waiting.take(index)
        if index in self._hooks:
            self._hooks.pop(index).remove()

    def expect(self, targets: int) -> None:
        """Get ready for so many backward passes."""
        self.selected *= targets
        self.outcomes = [{} for _ in range(targets)]

    def backward(self, target: Target, output: Any, *, last: bool) -> None:
        """Hand on all gradients of one target."""
        score = target.score(output)
        self._target += 1
        self._last = last
        # Once at least, also where nothing waits: the score may have no gradient at all.
        seen = ForwardOutput(detached(output), score.detach(), self._head(output, score))
        self.consumer.start(target, seen)
        if self.consumer.needs_gradient:
            first = None
            if self.waiting.indices and score.requires_grad:
                first = self._gradients(score, keep=not last)[0]
            self.input_gradients.append(
                torch.zeros_like(self.starts[0]) if first is None else first.detach()
            )
        while self._later:
            # Now that all gradients have their graph, and gradients of their own.
            self._hand_on(*self._later.pop())
        for index in self.waiting.indices:
            self.outcomes[self._target].setdefault(index, (Status.OFF_PATH, 0.0))

    def _gradients(self, score: torch.Tensor, *, keep: bool) -> tuple[torch.Tensor | None, ...]:
        graph = self.consumer.needs_graph
        # Not to the gradients of gradients, which take the same way.
        self._listening = True
        try:
            return torch.autograd.grad(
                score.sum(),
                self.starts,
                allow_unused=True,
                retain_graph=graph or keep,
                create_graph=graph,
            )
        finally:
            self._listening = False

    def _head(self, output: Any, score: torch.Tensor) -> Head | None:
        if self._linear is None:
            return None
        features, result = self._linear
        if not (
            isinstance(output, torch.Tensor)
            and features.ndim == 2
            and result.shape == output.shape
            and torch.equal(result, output)
            and features.requires_grad
            and score.requires_grad
        ):
            return None
        (gradient,) = torch.autograd.grad(
            score.sum(), features, retain_graph=True, allow_unused=True
        )
        return None if gradient is None else Head(features.detach(), gradient.detach())

    def _on_gradient(self, layer: Layer, gradient: torch.Tensor | None) -> None:
        # Operations without a derivative hand on nothing at all.
        if not self._listening or gradient is None:
            return
        index = layer.index
        activation = self.waiting.take(index) if self._last else self.waiting.get(index)
        if activation is None:
            return
        if self.consumer.needs_graph:
            self._later.append((layer, activation, gradient))
        else:
            self._hand_on(layer, activation, gradient)

    def _hand_on(
        self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None
    ) -> None:
        start = time.perf_counter()
        arrangement = layer.arrangement
        assert arrangement is not None
        mode = torch.enable_grad() if self.consumer.needs_graph else torch.no_grad()
        try:
            with mode:
                self.consumer.take(
                    layer,
                    arrangement.to_channels(activation.detach()),
                    None if gradient is None else arrangement.to_channels(gradient),
                )
        except NoMap as reason:
            status = str(reason)
        else:
            status = Status.OK
            self.done += 1
        into = self.status if gradient is None else self.outcomes[self._target]
        into[layer.index] = (status, (time.perf_counter() - start) * 1000)
        if gradient is not None:
            self._report("maps", self.done, self.selected)

    def _report(self, stage: str, done: int, total: int) -> None:
        run_callback(self.question.progress, stage, done, total)

    def stop(self) -> None:
        """Give the layers whose gradient was not waited for their status."""
        self.cancelled = True
        for outcomes in self.outcomes[max(self._target, 0) :]:
            for index in self._layers:
                outcomes.setdefault(index, (Status.CANCELLED, 0.0))

    def layers(self, target: int) -> list[LayerInfo]:
        """List every call with what became of it for one target."""
        found = self.outcomes[target] | self.status
        return [
            info.with_status(*found[info.index]) if info.index in found else info
            for info in self.layer_calls
        ]

    def let_go(self) -> None:
        """Drop everything that holds on to the network or its activations."""
        # Hooks stay on tensors that an error's frames may hold; through autograd's graph they would
        # hold us, and our callback, for ever.
        for hook in self._hooks.values():
            hook.remove()
        self.starts.clear()
        self.waiting.clear()
        self._hooks.clear()
        self._layers.clear()
        self._later.clear()
        self._seen.clear()
        self._names.clear()
        self._linear = None


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
