"""One more forward pass, in which positions run along with the values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.weak import WeakTensorKeyDictionary

from camanim.layout import Arrangement, tensors_of
from camanim.layout.position_tracing.companion import PositionMap, fresh
from camanim.layout.position_tracing.operation import Operation
from camanim.layout.position_tracing.rules import run_along
from camanim.layout.position_tracing.windows import arrange
from camanim.model_state import in_eval_mode, plain_attention

Key = tuple[str, int]

#: What a network, or running out of memory, may raise. Nothing of it may end a run.
_FAILURES = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError,
    MemoryError,
)  # fmt: skip


def trace_positions(
    net: nn.Module,
    inputs: torch.Tensor | tuple[Any, ...],
    wanted: Collection[Key] | Mapping[Key, str],
    run: Callable[[torch.Tensor], Any] | None = None,
) -> dict[Key, Arrangement | None]:
    """Find where the cells of outputs lie in the image, by one more forward pass.

    Positions run along with all tensors that come from the image: what moves numbers moves positions,
    what works number by number keeps them, sums keep those that agree, and attention gives each query
    its own. Whatever torch can do beyond that ends them, so that what is found is exact: windows of a
    transformer, shifted or not, grids, heads, tokens.

    Parameters
    ----------
    net : torch.nn.Module
        It comes back as it was.
    inputs : torch.Tensor or tuple
        (B, C, *S), or that and what else the network takes. A single image goes through twice, as a
        batch of two, so that it shows along which axis images follow each other.
    wanted : collection of (name, call), or mapping from these to paths
        Which calls of which modules, named as in ``named_modules()`` and counted from 0; and where in
        their output the tensor is (`tensors_of`), if not the first with positions.
    run : callable, optional
        Runs the network on (B, C, *S) in place of calling it with `inputs`.

    Returns
    -------
    dict of (name, call) to Arrangement or None
        None for what is surely no channels over space: attention, or what does not come from the image.
        Of what is unknown there is nothing. A network that fails ends the search; nothing is raised.
    """
    image, *others = inputs if isinstance(inputs, tuple) else (inputs,)
    single = len(image) == 1
    found, whole = _attempt(
        net, torch.cat([image, image]) if single else image, others, wanted, run
    )
    if single and not whole:
        # Not every network takes two images.
        alone, whole = _attempt(net, image.clone(), others, wanted, run)
        found = alone if whole else alone | found
    return found


def _attempt(
    net: nn.Module,
    image: torch.Tensor,
    others: list[Any],
    wanted: Collection[Key] | Mapping[Key, str],
    run: Callable[[torch.Tensor], Any] | None,
) -> tuple[dict[Key, Arrangement | None], bool]:
    """Run the network once; tell what was found, and whether it came to its end."""
    tracker = _Tracker(image)
    devices = [image.device] if image.device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(in_eval_mode(net))
        stack.enter_context(plain_attention())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_watching(net, tracker, wanted))
        image = image.clone()
        tracker.start(image)
        try:
            with tracker:
                _ = net(image, *others) if run is None else run(image)
        except _FAILURES:
            return tracker.found, False
    return tracker.found, True


@contextmanager
def _watching(
    net: nn.Module, tracker: _Tracker, wanted: Collection[Key] | Mapping[Key, str]
) -> Iterator[None]:
    """Look at the outputs of the modules that are wanted."""
    calls: Counter[str] = Counter()

    def look(name: str, inputs: Any, output: Any) -> None:
        key = (name, calls[name])
        calls[name] += 1
        # What is computed here is none of the network's operations.
        with _disable_current_modes():
            tracker.mark(inputs, output)
            if key in wanted:
                tracker.look(key, output, wanted[key] if isinstance(wanted, Mapping) else None)

    with ExitStack() as stack:
        for name, module in net.named_modules():

            def hook(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                look(name, inputs, output)

            stack.callback(module.register_forward_hook(hook).remove)
        yield


class _Tracker(TorchDispatchMode):
    """Lets positions run along with every operation."""

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()
        self.images, self.space = len(image), tuple(image.shape[2:])
        self.found: dict[Key, Arrangement | None] = {}
        #: Of what comes from the image; None where its positions are not known.
        self._companions = WeakTensorKeyDictionary()
        #: Memory that had something from the image written into it.
        self._written: set[int] = set()

    def start(self, image: torch.Tensor) -> None:
        """Give the network's input its positions."""
        grid = fresh(self.images, self.space, image.shape[1], image.device)
        self._companions[image] = grid

    def mark(self, inputs: Any, output: Any) -> None:
        """Note that what a module made of the image comes from the image, whatever it did."""
        if any(self._comes_from_image(tensor) for _, tensor in tensors_of(inputs)):
            for _, tensor in tensors_of(output):
                if tensor not in self._companions:
                    self._companions[tensor] = None

    def look(self, key: Key, output: Any, path: str | None) -> None:
        """Find the arrangement of a module's output."""
        tensors = [t for where, t in tensors_of(output) if path in (None, where)]
        for tensor in tensors:
            companion = self._find(tensor)
            arrangement = None if companion is None else arrange(companion, self.images)
            if arrangement is not None:
                self.found[key] = arrangement
                return
        if tensors and all(self._has_no_space(tensor) for tensor in tensors):
            self.found[key] = None

    def _has_no_space(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is surely no channels over space: a constant, or attention."""
        companion = self._find(tensor)
        return not self._comes_from_image(tensor) or (companion is not None and companion.pairs)

    def _find(self, tensor: Any) -> PositionMap | None:
        if not isinstance(tensor, torch.Tensor):
            return None
        found: PositionMap | None = self._companions.get(tensor)
        return found if found is not None and found.cells.shape == tensor.shape else None

    def _comes_from_image(self, tensor: torch.Tensor) -> bool:
        return tensor in self._companions or _memory(tensor) in self._written

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        operands = _tensors([*args, *kwargs.values()])
        from_image = any(self._comes_from_image(tensor) for tensor in operands)
        result = func(*args, **kwargs)
        names, written = _schema(func)
        given = dict(zip(names, args, strict=False)) | kwargs
        changed = [tensor for name in written for tensor in _tensors(given.get(name))]
        outputs = _tensors(result)
        found: list[PositionMap | None] = []
        if from_image and outputs:
            found = run_along(self._operation(func, args, kwargs, given, outputs))
        for i, output in enumerate(outputs):
            if from_image and all(output is not tensor for tensor in changed):
                self._companions[output] = found[i] if i < len(found) else None
        for tensor in changed:
            place = next((i for i, output in enumerate(outputs) if output is tensor), len(found))
            self._overwrite(tensor, found[place] if place < len(found) else None, from_image)
        return result

    def _operation(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: dict[str, Any],
        outputs: list[torch.Tensor],
    ) -> Operation:
        return Operation(
            func,
            args,
            kwargs,
            given,
            outputs,
            self._find,
            self._comes_from_image,
            self.images,
            len(self.space),
        )

    def _overwrite(
        self, tensor: torch.Tensor, companion: PositionMap | None, from_image: bool
    ) -> None:
        """Take in what an operation wrote into a tensor, and so into all that share its memory."""
        before = self._find(tensor)
        if before is not None and companion is not None and before.agrees(companion):
            return
        memory = _memory(tensor)
        if from_image:
            self._written.add(memory)
        for other in list(self._companions.keys()):
            if _memory(other) == memory:
                self._companions[other] = None
        if from_image:
            self._companions[tensor] = companion


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@cache
def _schema(func: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of an operation's arguments, and of those that it writes to."""
    arguments = func._schema.arguments
    written = (a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write)
    return tuple(a.name for a in arguments), tuple(written)


def _tensors(value: Any) -> list[torch.Tensor]:
    """The tensors in what an operation takes or gives."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for inner in value for tensor in _tensors(inner)]
    return []
