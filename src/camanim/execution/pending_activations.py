"""Activations that wait for their gradients, and what happens to them on the way."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class PendingActivations:
    """Activations that wait for their gradients, by index into the trace."""

    def __init__(self) -> None:
        self._activations: dict[int, torch.Tensor] = {}
        self._by_storage: defaultdict[int, list[int]] = defaultdict(list)

    @property
    def indices(self) -> list[int]:
        """Which ones still wait."""
        return list(self._activations)

    def add(self, index: int, activation: torch.Tensor) -> None:
        """Let an activation wait."""
        # A view of its own: writing to ``.data`` gives the module's output another memory.
        self._activations[index] = activation.detach()
        self._by_storage[_storage(activation)].append(index)

    def get(self, index: int) -> torch.Tensor | None:
        """Look at an activation that will be asked for again."""
        return self._activations.get(index)

    def take(self, index: int) -> torch.Tensor | None:
        """Hand an activation over, once."""
        return self._activations.pop(index, None)

    def save(self, overwritten: torch.Tensor) -> None:
        """Clone the activations whose memory is about to be overwritten."""
        for index in self._by_storage.pop(_storage(overwritten), ()):
            if index in self._activations:
                self._activations[index] = self._activations[index].clone()

    def clear(self) -> None:
        """Let go of all."""
        self._activations.clear()
        self._by_storage.clear()


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class SaveOverwritten(TorchDispatchMode):
    """Clone a waiting activation just before an in-place operation overwrites its memory."""

    def __init__(self, waiting: PendingActivations) -> None:
        super().__init__()
        self.waiting = waiting

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for position, name in _written(func):
            value = args[position] if position < len(args) else kwargs.get(name)
            if value is not None:
                for tensor in value if isinstance(value, list | tuple) else [value]:
                    self.waiting.save(tensor)
        return func(*args, **kwargs)


@cache
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    """Which arguments an operation writes to, by position and name; its schema says so."""
    return tuple(
        (position, argument.name)
        for position, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
