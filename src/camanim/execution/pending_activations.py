"""Activations that wait for their gradients, and copies of those that are overwritten meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch._C import (
    _get_dispatch_stack_at,
    _len_torch_dispatch_stack,
    _pop_torch_dispatch_stack,
    _push_on_torch_dispatch_stack,
)
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")

#: Where torch defines modules that write to no tensor but, with ``inplace=True``, to their input.
_WRITES_TO_INPUT_ONLY = frozenset(
    f"torch.nn.modules.{name}"
    for name in (
        "activation", "batchnorm", "conv", "flatten", "instancenorm", "linear", "normalization",
        "padding", "pixelshuffle", "pooling", "upsampling",
    )
)  # fmt: skip


class PendingActivations:
    """Activations that wait for their gradients, by index of the layer call."""

    def __init__(self) -> None:
        self._activations: dict[int, torch.Tensor] = {}
        self._by_storage: defaultdict[int, list[int]] = defaultdict(list)

    def __contains__(self, index: int) -> bool:
        return index in self._activations

    def add(self, index: int, activation: torch.Tensor) -> None:
        """Keep an activation."""
        # A view: assigning to ``.data`` gives the module's output another memory, but not the view.
        self._activations[index] = activation.detach()
        self._by_storage[_storage(activation)].append(index)

    def get(self, index: int) -> torch.Tensor | None:
        """Return an activation, and keep it."""
        return self._activations.get(index)

    def pop(self, index: int) -> torch.Tensor | None:
        """Return an activation, and release it."""
        return self._activations.pop(index, None)

    def save(self, overwritten: torch.Tensor) -> None:
        """Clone the activations whose memory is about to be overwritten."""
        for index in self._by_storage.pop(_storage(overwritten), ()):
            if index in self._activations:
                self._activations[index] = self._activations[index].clone()

    def clear(self) -> None:
        """Release all."""
        self._activations.clear()
        self._by_storage.clear()


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class SaveOverwritten(TorchDispatchMode):
    """Clone a pending activation just before an in-place operation overwrites its memory.

    The mode intercepts every operation, which costs more than many of them take. It is therefore
    suspended in modules of torch that write at most to their input (`suspended_in`).
    """

    def __init__(self, pending: PendingActivations) -> None:
        super().__init__()
        self.pending = pending

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for position, name in _written(func):
            value = args[position] if position < len(args) else kwargs.get(name)
            if value is not None:
                for tensor in value if isinstance(value, list | tuple) else [value]:
                    self.pending.save(tensor)
        return func(*args, **kwargs)

    def suspended(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function that writes to no activation, without intercepting its operations."""
        depth = _len_torch_dispatch_stack()
        if not depth or _get_dispatch_stack_at(depth - 1) is not self:
            # Another thread, or another mode that the network has put on top.
            return function(*args, **kwargs)
        _pop_torch_dispatch_stack(None)
        try:
            return function(*args, **kwargs)
        finally:
            _push_on_torch_dispatch_stack(self)

    @contextmanager
    def suspended_in(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """Suspend the mode in the forward of those modules that write at most to their input."""
        changed: list[nn.Module] = []
        try:
            for module in modules:
                if _writes_to_input_only(module):
                    changed.append(module)
                    vars(module)["forward"] = partial(self._forward, module, module.forward)
            yield
        finally:
            for module in changed:
                vars(module).pop("forward", None)

    def _forward(
        self, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        if getattr(module, "inplace", False):
            for value in (*args, *kwargs.values()):
                if isinstance(value, torch.Tensor):
                    self.suspended(self.pending.save, value)
        return self.suspended(forward, *args, **kwargs)


def _writes_to_input_only(module: nn.Module) -> bool:
    kind = type(module)
    return (
        kind.__module__ in _WRITES_TO_INPUT_ONLY
        and kind.forward.__module__ in _WRITES_TO_INPUT_ONLY
        and not module._modules
        and "forward" not in vars(module)
    )


@cache
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    """Return which arguments an operation writes to, by position and name, from its schema."""
    return tuple(
        (position, argument.name)
        for position, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
