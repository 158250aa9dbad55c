"""Re-evaluation of the network: for other images, or with one layer's output replaced.

While a layer is replaced, modules that finished before it return their earlier output, so that only the
rest of the network is computed again. One recorded forward pass shows which modules these are. It is
checked: with the layer's unchanged activation, the network must have its earlier score. Where it has not
(because an earlier output is no batch of images, say), the whole network is run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from camanim.errors import NoMap, raise_interrupt_behind
from camanim.execution.consumer import Layer
from camanim.execution.forward import Batches, Forward
from camanim.execution.outputs import mapped
from camanim.execution.pending_activations import PendingActivations, SaveOverwritten
from camanim.layout.reader import pick
from camanim.precision import as_float64
from camanim.shared_flags import DISPATCH_MODES
from camanim.targets import Target

Make = Callable[[int, int], torch.Tensor]
Report = Callable[[int, int], None]
Key = tuple[nn.Module, int]
Around = Callable[..., Any]

#: Largest relative difference of scores that rounding in another batch explains.
TOLERANCE = 1e-3


class Predict:
    """The target's scores for other images."""

    def __init__(self, forward: Forward, target: Target, batches: Batches, report: Report) -> None:
        self.forward, self.target, self.batches, self.report = forward, target, batches, report

    def __call__(self, count: int, make: Make) -> torch.Tensor:
        """Score ``make(start, stop)``, (n, C, *S), for all of `count` images: (count,) float64."""

        def score(start: int, stop: int) -> torch.Tensor:
            return self.target.score(self.forward(make(start, stop)))

        return self.batches(count, score, lambda done: self.report(done, count))


class Rest:
    """The rest of the network behind one layer, for one image.

    Parameters
    ----------
    forward : Forward
    image : torch.Tensor
        (1, C, *S)
    layer : Layer
    batches : Batches

    Attributes
    ----------
    activation : torch.Tensor
        (C, *s)

    Raises
    ------
    NoMap
        Where the layer is not called again.
    """

    def __init__(
        self, forward: Forward, image: torch.Tensor, layer: Layer, batches: Batches
    ) -> None:
        assert layer.arrangement is not None
        self.forward, self.image, self.layer, self.batches = forward, image, layer, batches
        self._past = _Past(layer)
        self._past.record(forward, image)
        if self._past.output is None:
            raise NoMap("not reached again")
        self._part = pick(self._past.output, layer.path)
        self._whole = False
        self.activation = layer.arrangement.to_channels(self._part)[0]

    def scores(self, target: Target, count: int, make: Make, report: Report) -> torch.Tensor:
        """Score ``make(start, stop)``, (n, C, *s), in the place of the activation: (count,)."""
        self._whole = not self._agrees(target)
        score = partial(self._score, target, make)
        return self.batches(count, score, lambda done: report(done, count))

    def _score(self, target: Target, make: Make, start: int, stop: int) -> torch.Tensor:
        assert self.layer.arrangement is not None
        # A copy: later modules may write into it, and it may be a view of what the method keeps.
        replaced = self.layer.arrangement.from_channels(make(start, stop), self._part).clone()
        count = stop - start

        def in_place(tensor: torch.Tensor) -> torch.Tensor:
            return replaced if tensor is self._part else _repeated(tensor, count)

        output = mapped(in_place, self._past.output)
        with self._past.replayed(self.forward.net, output, count, whole=self._whole):
            return target.score(self.forward(_repeated(self.image, count)))

    def _agrees(self, target: Target) -> bool:
        """Return whether reusing outputs gives the score of the whole network."""
        expected = as_float64(target.score(self.forward(self.image)))
        unchanged = _repeated(self.activation[None], 2)
        try:
            score = self._score(target, lambda start, stop: unchanged, 0, 2).double()
        except (
            RuntimeError,
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
            KeyError,
        ) as failure:
            raise_interrupt_behind(failure)
            # A network may fail in any way on outputs that are no batch.
            return False
        error = (score - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
        return score.shape == (2,) and bool(error < TOLERANCE)


class _Reached(BaseException):
    """Ends a forward pass at the layer; no error that a network might catch."""


@dataclass
class _Finished:
    """One call of a module's forward that ended before the layer's output.

    Attributes
    ----------
    key : (module, call)
    output : object
        With the numbers of kept activations in place of tensors.
    inside : list of modules
        Whose forwards ran in it, repeated for each call: they are not run again.
    layer_calls : int
        How often the layer's module was called in it.
    """

    key: Key
    output: Any
    inside: list[nn.Module]
    layer_calls: int


class _Past:
    """The outputs of all modules that finished before a layer.

    A hook after all others records, and later replaces, the layer's output, as in the list of layer
    calls: the user's hooks may change it.
    """

    def __init__(self, layer: Layer) -> None:
        self._module, self._call = layer.module, layer.call
        self._kept = PendingActivations()
        self._ended: list[_Finished] = []
        self._numbers = 0
        self._times = 0
        self.output: Any = None
        self._finished: dict[Key, _Finished] = {}

    def record(self, forward: Forward, image: torch.Tensor) -> None:
        """Run the network up to the layer's output."""
        calls: Counter[nn.Module] = Counter()
        log: list[nn.Module] = []

        def around(module: nn.Module, call: Around, *args: Any, **kwargs: Any) -> Any:
            key = (module, calls[module])
            calls[module] += 1
            begun, logged, times = len(self._ended), len(log), self._times
            log.append(module)
            output = call(*args, **kwargs)
            self._end(key, output, begun, log[logged + 1 :], self._times - times)
            return output

        def reached(output: Any) -> Any:
            self.output = mapped(torch.clone, output)
            raise _Reached

        self._times = 0
        with (
            _around_forwards(forward.net, around),
            self._at_the_layer(reached),
            DISPATCH_MODES.held(),
            SaveOverwritten(self._kept),
        ):
            try:
                forward(image)
            except _Reached:
                self._collect()

    @contextmanager
    def _at_the_layer(self, then: Callable[[Any], Any]) -> Iterator[None]:
        """Replace the layer's output by what a function returns for it."""

        def after(module: nn.Module, inputs: Any, output: Any) -> Any:
            self._times += 1
            return then(output) if self._times == self._call + 1 else None

        handle = self._module.register_forward_hook(after)
        try:
            yield
        finally:
            handle.remove()

    def _end(
        self, key: Key, output: Any, begun: int, inside: list[nn.Module], layer_calls: int
    ) -> None:
        # Outputs inside are not needed any more: this module's output covers them.
        for call in self._ended[begun:]:
            mapped(self._kept.pop, call.output, _Number)
        del self._ended[begun:]
        self._ended.append(_Finished(key, mapped(self._keep, output), inside, layer_calls))

    def _keep(self, tensor: torch.Tensor) -> _Number:
        number = _Number(self._numbers)
        self._kept.add(number, tensor)
        self._numbers += 1
        return number

    def _collect(self) -> None:
        for call in self._ended:
            call.output = mapped(self._kept.pop, call.output, _Number)
            self._finished[call.key] = call
        self._ended.clear()

    @contextmanager
    def replayed(self, net: nn.Module, output: Any, count: int, *, whole: bool) -> Iterator[None]:
        """Replace the layer's output, and reuse the outputs of modules that finished before."""
        calls: Counter[nn.Module] = Counter()

        def around(module: nn.Module, call: Around, *args: Any, **kwargs: Any) -> Any:
            key = (module, calls[module])
            calls[module] += 1
            finished = self._finished.get(key)
            if finished is None:
                return call(*args, **kwargs)
            calls.update(finished.inside)
            self._times += finished.layer_calls
            return mapped(lambda tensor: _repeated(tensor, count), finished.output)

        self._times = 0
        with ExitStack() as stack:
            if not whole:
                stack.enter_context(_around_forwards(net, around))
            stack.enter_context(self._at_the_layer(lambda _: output))
            yield


class _Number(int):
    """The number of a kept tensor, in its place in an output."""


def _repeated(tensor: torch.Tensor, count: int) -> torch.Tensor:
    # A copy in any case: later modules may write into it.
    return tensor.repeat(count, *[1] * (tensor.ndim - 1)) if tensor.ndim else tensor.clone()


@contextmanager
def _around_forwards(net: nn.Module, around: Around) -> Iterator[None]:
    """Wrap the forward of every module in a function."""
    with ExitStack() as stack:
        for module in net.modules():
            before = vars(module).get("forward")
            vars(module)["forward"] = partial(around, module, module.forward)
            stack.callback(_restore, module, before)
        yield


def _restore(module: nn.Module, before: Any) -> None:
    if before is None:
        vars(module).pop("forward", None)
    else:
        vars(module)["forward"] = before
