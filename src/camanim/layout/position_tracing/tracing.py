"""The forward pass that computes position maps along with the values of tensors."""

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

from camanim.errors import raise_interrupt_behind
from camanim.layout import Arrangement, tensors_of
from camanim.layout.position_tracing.arranging import arrangement_of
from camanim.layout.position_tracing.operation import Operation, PositionMaps
from camanim.layout.position_tracing.position_map import PositionMap, whole_grid
from camanim.layout.position_tracing.rules import propagate
from camanim.model_state import in_eval_mode
from camanim.shared_flags import DISPATCH_MODES, PLAIN_ATTENTION

Key = tuple[str, int]

#: Errors of a network or of memory, which stop the tracing and not the run.
_FAILURES = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError,
    MemoryError,
)  # fmt: skip


def trace_positions(
    net: nn.Module,
    inputs: torch.Tensor | tuple[Any, ...],
    calls: Collection[Key] | Mapping[Key, str],
    run: Callable[[torch.Tensor], Any] | None = None,
) -> dict[Key, Arrangement | None]:
    """Return the arrangements of outputs whose shape is ambiguous, by one more forward pass.

    Each tensor that is computed from the image has a position map. Operations that move elements move
    the cells, elementwise operations keep them, sums keep cells that all summands share, and the
    output of attention has the cells of the queries. The output of any other operation has no map.
    Windows of transformers, shifted or not, grids, heads and tokens are thus resolved exactly.

    Parameters
    ----------
    net : torch.nn.Module
        Its state is restored.
    inputs : torch.Tensor or tuple
        (B, C, *S), or a tuple of this and further inputs. A single image is passed as a batch of two,
        which shows along which axis images are joined.
    calls : collection of (name, call), or mapping from these to paths
        Calls of modules, named as in ``named_modules()`` and counted from 0, and optionally the path of
        the tensor in the output (`tensors_of`), by default the first with an arrangement.
    run : callable, optional
        Function that runs the network on (B, C, *S), in place of calling it with `inputs`.

    Returns
    -------
    dict of (name, call) to Arrangement or None
        None for outputs without space: attention, and tensors not computed from the image. Outputs
        that could not be resolved are missing. If the network raises an error, the calls before it are
        returned.
    """
    image, *others = inputs if isinstance(inputs, tuple) else (inputs,)
    single = len(image) == 1
    arrangements, completed = _trace(
        net, torch.cat([image, image]) if single else image, others, calls, run
    )
    if single and not completed:
        # Some networks take only one image.
        of_one_image, completed = _trace(net, image.clone(), others, calls, run)
        arrangements = of_one_image if completed else of_one_image | arrangements
    return arrangements


def _trace(
    net: nn.Module,
    image: torch.Tensor,
    others: list[Any],
    calls: Collection[Key] | Mapping[Key, str],
    run: Callable[[torch.Tensor], Any] | None,
) -> tuple[dict[Key, Arrangement | None], bool]:
    """Run the network once; return the arrangements, and whether the forward pass was completed."""
    tracer = _PositionTracer(image)
    devices = [image.device] if image.device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(in_eval_mode(net))
        stack.enter_context(PLAIN_ATTENTION.held())
        stack.enter_context(DISPATCH_MODES.held())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_recording_outputs(net, tracer, calls))
        image = image.clone()
        tracer.start(image)
        try:
            with tracer:
                _ = net(image, *others) if run is None else run(image)
        except _FAILURES as error:
            raise_interrupt_behind(error)
            return tracer.arrangements, False
    return tracer.arrangements, True


@contextmanager
def _recording_outputs(
    net: nn.Module, tracer: _PositionTracer, calls: Collection[Key] | Mapping[Key, str]
) -> Iterator[None]:
    """Record the arrangements of the outputs of `calls` by forward hooks."""
    counts: Counter[str] = Counter()

    def record(name: str, inputs: Any, output: Any) -> None:
        key = (name, counts[name])
        counts[name] += 1
        # Operations of the hook itself are not traced.
        with _disable_current_modes():
            tracer.mark(inputs, output)
            if key in calls:
                tracer.record(key, output, calls[key] if isinstance(calls, Mapping) else None)

    with ExitStack() as stack:
        for name, module in net.named_modules():

            def hook(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                record(name, inputs, output)

            stack.callback(module.register_forward_hook(hook).remove)
        yield


class _PositionTracer(TorchDispatchMode):
    """Dispatch mode that computes position maps in every operation."""

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()
        self.images, self.space = len(image), tuple(image.shape[2:])
        self.arrangements: dict[Key, Arrangement | None] = {}
        #: The maps of tensors computed from the image; None for tensors without a known map.
        self._position_maps = WeakTensorKeyDictionary()
        #: Memory to which values computed from the image were written.
        self._written: set[int] = set()

    def start(self, image: torch.Tensor) -> None:
        """Set the position map of the network's input."""
        grid = whole_grid(self.images, self.space, image.shape[1], image.device)
        self._position_maps[image] = grid

    def mark(self, inputs: Any, output: Any) -> None:
        """Mark the output of a module as computed from the image if one of its inputs is."""
        if any(self._from_image(tensor) for _, tensor in tensors_of(inputs)):
            for _, tensor in tensors_of(output):
                if tensor not in self._position_maps:
                    self._position_maps[tensor] = None

    def record(self, key: Key, output: Any, path: str | None) -> None:
        """Record the arrangement of a module's output."""
        tensors = [
            tensor for tensor_path, tensor in tensors_of(output) if path in (None, tensor_path)
        ]
        for tensor in tensors:
            position_map = self._position_map_of(tensor)
            arrangement = (
                None if position_map is None else arrangement_of(position_map, self.images)
            )
            if arrangement is not None:
                self.arrangements[key] = arrangement
                return
        if tensors and all(self._has_no_space(tensor) for tensor in tensors):
            self.arrangements[key] = None

    def _has_no_space(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor is an attention matrix, or not computed from the image."""
        position_map = self._position_map_of(tensor)
        is_attention = position_map is not None and position_map.pairs
        return is_attention or not self._from_image(tensor)

    def _position_map_of(self, tensor: Any) -> PositionMap | None:
        if not isinstance(tensor, torch.Tensor):
            return None
        position_map: PositionMap | None = self._position_maps.get(tensor)
        if position_map is None or position_map.cells.shape != tensor.shape:
            return None
        return position_map

    def _from_image(self, tensor: torch.Tensor) -> bool:
        return tensor in self._position_maps or _memory(tensor) in self._written

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        operands = _tensors([*args, *kwargs.values()])
        from_image = any(self._from_image(tensor) for tensor in operands)
        result = func(*args, **kwargs)
        names, written = _schema(func)
        arguments = dict(zip(names, args, strict=False)) | kwargs
        changed = [tensor for name in written for tensor in _tensors(arguments.get(name))]
        outputs = _tensors(result)
        maps: PositionMaps = []
        if from_image and outputs:
            operation = Operation(
                func,
                args,
                kwargs,
                arguments,
                outputs,
                self._position_map_of,
                self._from_image,
                self.images,
                len(self.space),
            )
            maps = propagate(operation)
        for i, output in enumerate(outputs):
            if from_image and all(output is not tensor for tensor in changed):
                self._position_maps[output] = maps[i] if i < len(maps) else None
        for tensor in changed:
            i = next((i for i, output in enumerate(outputs) if output is tensor), len(maps))
            self._overwrite(tensor, maps[i] if i < len(maps) else None, from_image)
        return result

    def _overwrite(
        self, tensor: torch.Tensor, position_map: PositionMap | None, from_image: bool
    ) -> None:
        """Update the maps after a write to a tensor, and so to all tensors that share its memory."""
        before = self._position_map_of(tensor)
        if before is not None and position_map is not None and before.equals(position_map):
            return
        memory = _memory(tensor)
        if from_image:
            self._written.add(memory)
        for other in list(self._position_maps.keys()):
            if _memory(other) == memory:
                self._position_maps[other] = None
        if from_image:
            self._position_maps[tensor] = position_map


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@cache
def _schema(func: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of an operation's arguments, and of those that it writes to."""
    arguments = func._schema.arguments
    written = (a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write)
    return tuple(a.name for a in arguments), tuple(written)


def _tensors(value: Any) -> list[torch.Tensor]:
    """Return the tensors in an argument or a result of an operation."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for inner in value for tensor in _tensors(inner)]
    return []
