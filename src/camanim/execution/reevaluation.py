"""Asking the network again: for other images, or with one layer's output replaced.

While a layer is replaced, whatever module had finished before it hands back the output it had, so that
only what comes after the layer is computed again. That is found out by watching one forward pass, and
checked: with the layer's own activation in its place, the network must give the score that it gave.
Where it does not (a module that finished before hands out something that is no batch of images, say),
the whole network is run.
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

from camanim.errors import NoMap
from camanim.execution.consumer import Layer
from camanim.execution.forward import Batches, Forward
from camanim.execution.outputs import mapped
from camanim.execution.pending_activations import PendingActivations, SaveOverwritten
from camanim.layout.reader import pick
from camanim.precision import as_float64
from camanim.targets import Target

Make = Callable[[int, int], torch.Tensor]
Report = Callable[[int, int], None]
Key = tuple[nn.Module, int]
Around = Callable[..., Any]

#: Largest relative difference of scores that rounding in another batch explains.
TOLERANCE = 1e-3


class Predict:
    """The target's scores for other images in place of the one that is explained."""

    def __init__(self, forward: Forward, target: Target, batches: Batches, report: Report) -> None:
        self.forward, self.target, self.batches, self.report = forward, target, batches, report

    def __call__(self, count: int, make: Make) -> torch.Tensor:
        """Score ``make(start, stop)``, (n, C, *S), for all of `count` images: (count,) float64."""

        def ask(start: int, stop: int) -> torch.Tensor:
            return self.target.score(self.forward(make(start, stop)))

        return self.batches(count, ask, lambda done: self.report(done, count))


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
        Where the layer's call does not come again.
    """

    def __init__(
        self, forward: Forward, image: torch.Tensor, layer: Layer, batches: Batches
    ) -> None:
        assert layer.arrangement is not None
        self.forward, self.image, self.layer, self.batches = forward, image, layer, batches
        self._past = _Past(layer)
        self._past.watch(forward, image)
        if self._past.output is None:
            raise NoMap("not reached again")
        self._part = pick(self._past.output, layer.path)
        self._whole = False
        self.activation = layer.arrangement.to_channels(self._part)[0]

    def scores(self, target: Target, count: int, make: Make, report: Report) -> torch.Tensor:
        """Score ``make(start, stop)``, (n, C, *s), in the place of the activation: (count,)."""
        self._whole = not self._agrees(target)
        ask = partial(self._ask, target, make)
        return self.batches(count, ask, lambda done: report(done, count))

    def _ask(self, target: Target, make: Make, start: int, stop: int) -> torch.Tensor:
        assert self.layer.arrangement is not None
        # A copy: what comes after may write into it, and it may be a view of what the method keeps.
        replaced = self.layer.arrangement.from_channels(make(start, stop), self._part).clone()
        count = stop - start

        def in_place(tensor: torch.Tensor) -> torch.Tensor:
            return replaced if tensor is self._part else _repeated(tensor, count)

        output = mapped(in_place, self._past.output)
        with self._past.replayed(self.forward.net, output, count, whole=self._whole):
            return target.score(self.forward(_repeated(self.image, count)))

    def _agrees(self, target: Target) -> bool:
        """Whether handing back gives the score that the whole network gives."""
        own = as_float64(target.score(self.forward(self.image)))
        unchanged = _repeated(self.activation[None], 2)
        try:
            again = self._ask(target, lambda start, stop: unchanged, 0, 2).double()
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError):
            # Whatever a network makes of outputs that were never meant for a batch.
            return False
        off = (again - own).abs().max() / own.abs().max().clamp(min=1e-6)
        return again.shape == (2,) and bool(off < TOLERANCE)


class _Reached(BaseException):
    """Ends a forward pass at the layer that is wanted; no error that a network might catch."""


@dataclass
class _Finished:
    """One call of a module's forward that ended before the layer was reached.

    Attributes
    ----------
    key : (module, call)
    output : object
        What it returned; its tensors are numbers of activations that are kept.
    inside : list of modules
        Whose forwards ran in it, and how often: they will not run again.
    wanted : int
        How often the module that is wanted was called in it.
    """

    key: Key
    output: Any
    inside: list[nn.Module]
    wanted: int


class _Past:
    """What happened in the network before a layer gave its output.

    The output is taken, and later replaced, by a hook behind all others, as the trace has it: hooks of
    the user's own may change it. All forwards that finished before hand back what they gave.
    """

    def __init__(self, layer: Layer) -> None:
        self._module, self._call = layer.module, layer.call
        self._kept = PendingActivations()
        self._ended: list[_Finished] = []
        self._numbers = 0
        self._times = 0
        self.output: Any = None
        self._finished: dict[Key, _Finished] = {}

    def watch(self, forward: Forward, image: torch.Tensor) -> None:
        """Run the network up to the layer."""
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
            SaveOverwritten(self._kept),
        ):
            try:
                forward(image)
            except _Reached:
                self._collect()

    @contextmanager
    def _at_the_layer(self, then: Callable[[Any], Any]) -> Iterator[None]:
        """Call a function when the layer has its output, which is replaced by what it returns."""

        def after(module: nn.Module, inputs: Any, output: Any) -> Any:
            self._times += 1
            return then(output) if self._times == self._call + 1 else None

        handle = self._module.register_forward_hook(after)
        try:
            yield
        finally:
            handle.remove()

    def _end(self, key: Key, output: Any, begun: int, inside: list[nn.Module], wanted: int) -> None:
        # What ended inside is not asked for any more: this module hands back for all of it.
        for call in self._ended[begun:]:
            mapped(self._kept.pop, call.output, _Number)
        del self._ended[begun:]
        self._ended.append(_Finished(key, mapped(self._keep, output), inside, wanted))

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
        """Let the layer give another output, and what finished before hand back its own."""
        calls: Counter[nn.Module] = Counter()

        def around(module: nn.Module, call: Around, *args: Any, **kwargs: Any) -> Any:
            key = (module, calls[module])
            calls[module] += 1
            past = self._finished.get(key)
            if past is None:
                return call(*args, **kwargs)
            calls.update(past.inside)
            self._times += past.wanted
            return mapped(lambda tensor: _repeated(tensor, count), past.output)

        self._times = 0
        with ExitStack() as stack:
            if not whole:
                stack.enter_context(_around_forwards(net, around))
            stack.enter_context(self._at_the_layer(lambda _: output))
            yield


class _Number(int):
    """Stands for a kept tensor among the leaves of an output."""


def _repeated(tensor: torch.Tensor, count: int) -> torch.Tensor:
    # A copy in any case: what comes after may write into it.
    return tensor.repeat(count, *[1] * (tensor.ndim - 1)) if tensor.ndim else tensor.clone()


@contextmanager
def _around_forwards(net: nn.Module, around: Around) -> Iterator[None]:
    """Let a function stand around the forward of every module."""
    with ExitStack() as stack:
        for module in net.modules():
            own = vars(module).get("forward")
            vars(module)["forward"] = partial(around, module, module.forward)
            stack.callback(_put_back, module, own)
        yield


def _put_back(module: nn.Module, own: Any) -> None:
    if own is None:
        vars(module).pop("forward", None)
    else:
        vars(module)["forward"] = own
