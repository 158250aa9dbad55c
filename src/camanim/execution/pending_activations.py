"""Activations that wait for their gradients, and copies of those that are overwritten meanwhile."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import get_ident
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode,
    _get_current_dispatch_mode_stack,
    _pop_mode,
    _push_mode,
)
from torch.utils.hooks import RemovableHandle

from camanim.errors import NoMap
from camanim.layer_info import Status
from camanim.shared_flags import DISPATCH_MODES

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
        #: Number of operations that wrote to a storage, by its address.
        self.writes: Counter[int] = Counter()
        #: With the version at which they are right.
        self._activations: dict[int, tuple[torch.Tensor, int]] = {}
        self._by_storage: defaultdict[int, list[int]] = defaultdict(list)

    def __contains__(self, index: int) -> bool:
        return index in self._activations

    def add(self, index: int, activation: torch.Tensor) -> None:
        """Keep an activation."""
        # A view: assigning to ``.data`` gives the module's output another memory, but not the view.
        view = activation.detach()
        self._activations[index] = view, _version(view)
        self._by_storage[storage_of(activation)].append(index)

    def get(self, index: int) -> torch.Tensor | None:
        """Return an activation, and keep it.

        Raises
        ------
        NoMap
            If it was overwritten where no write is seen: in another thread.
        """
        return self._checked(self._activations.get(index))

    def pop(self, index: int) -> torch.Tensor | None:
        """Return an activation, and release it; raise as `get`."""
        return self._checked(self._activations.pop(index, None))

    @staticmethod
    def _checked(entry: tuple[torch.Tensor, int] | None) -> torch.Tensor | None:
        if entry is None:
            return None
        activation, version = entry
        if _version(activation) != version:
            raise NoMap(Status.OVERWRITTEN)
        return activation

    def drop(self, index: int) -> None:
        """Release an activation."""
        self._activations.pop(index, None)

    def save(self, overwritten: torch.Tensor) -> None:
        """Clone the activations whose memory is about to be overwritten."""
        storage = storage_of(overwritten)
        self.writes[storage] += 1
        for index in self._by_storage.pop(storage, ()):
            if index in self._activations:
                activation, version = self._activations[index]
                if _version(activation) == version:
                    copied = activation.clone()
                    self._activations[index] = copied, _version(copied)

    def clear(self) -> None:
        """Release all."""
        self._activations.clear()
        self._by_storage.clear()


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def storage_of(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's storage."""
    return tensor.untyped_storage().data_ptr()


class SaveOverwritten(TorchDispatchMode):
    """Clone a pending activation just before an in-place operation overwrites its memory.

    The mode intercepts every operation, which takes longer than many of them. It is therefore suspended
    in modules of torch that write to no tensor (`active`).
    """

    def __init__(self, pending: PendingActivations) -> None:
        super().__init__()
        self.pending = pending
        #: Thread in which a module suspended the mode.
        self._suspended_in: int | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in written_by(func, args, kwargs):
            self.pending.save(tensor)
        return func(*args, **kwargs)

    def suspended(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function that writes to no activation, without intercepting its operations."""
        if _get_current_dispatch_mode() is not self:
            # Another thread, or another mode that the network has put on top.
            return function(*args)
        _pop_mode()
        try:
            return function(*args)
        finally:
            _push_mode(self)

    @contextmanager
    def active(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """Intercept operations, but for those in the forward of modules that write to no tensor."""
        handles: list[RemovableHandle] = []
        try:
            for module in modules:
                if _writes_to_nothing(module):
                    # Last before the forward, and first after it: hooks of the user may write.
                    handles.append(module.register_forward_pre_hook(self._suspend))
                    handles.append(
                        module.register_forward_hook(self._resume, prepend=True, always_call=True)
                    )
            with DISPATCH_MODES.held(), self:
                try:
                    yield
                finally:
                    # An interrupt may have left the mode suspended.
                    if not any(mode is self for mode in _get_current_dispatch_mode_stack()):
                        _push_mode(self)
        finally:
            for handle in handles:
                handle.remove()

    def _suspend(self, module: nn.Module, inputs: Any) -> None:
        if _get_current_dispatch_mode() is self:
            _pop_mode()
            self._suspended_in = get_ident()

    def _resume(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._suspended_in == get_ident():
            self._suspended_in = None
            _push_mode(self)

    def __deepcopy__(self, memo: object) -> SaveOverwritten:
        # A network may copy its modules, and with them the hooks, within its forward.
        return self


def _writes_to_nothing(module: nn.Module) -> bool:
    kind = type(module)
    return (
        kind.__module__ in _WRITES_TO_INPUT_ONLY
        and kind.forward.__module__ in _WRITES_TO_INPUT_ONLY
        and not module._modules
        and not getattr(module, "inplace", False)
        # Such as a forward that the user has replaced.
        and not any(callable(value) for value in vars(module).values())
    )


def written_by(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[torch.Tensor]:
    """Yield the tensors that an operation writes to."""
    for position, name in _written(func):
        value = args[position] if position < len(args) else kwargs.get(name)
        if value is not None:
            yield from value if isinstance(value, list | tuple) else [value]


@cache
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    """Return which arguments an operation writes to, by position and name, from its schema."""
    return tuple(
        (position, argument.name)
        for position, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
