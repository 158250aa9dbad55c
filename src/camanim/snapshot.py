"""The state of a network and of torch in this thread, and its restoration after an error."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import repeat
from operator import itemgetter

import torch
from torch import nn, overrides
from torch.nn.parameter import is_lazy
from torch.utils import _python_dispatch as dispatch

from camanim.shared_flags import FLAGS, SEEDING, unlock

#: Dictionaries of a module that a run changes: its hooks; classes of grad-cam replace submodules.
_DICTIONARIES = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks",
    "_backward_pre_hooks", "_modules",
)  # fmt: skip
_dictionaries_of = itemgetter(*_DICTIONARIES)


class Snapshot:
    """The state of a network and of torch in this thread.

    Parameters
    ----------
    modules : list of torch.nn.Module
        All modules of the network.

    Attributes
    ----------
    buffers : Buffers
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self._network = _NetworkState(modules)
        self.buffers = Buffers(modules)
        self._thread = _ThreadState()

    def restore(self) -> None:
        """Restore what differs. After an interrupt, the call can be repeated."""
        self._thread.restore()
        self._network.restore()
        self.buffers.restore()


class _NetworkState:
    """Modes, hooks, replaced forwards and submodules; flags and gradients of parameters."""

    def __init__(self, modules: list[nn.Module]) -> None:
        states = [vars(module) for module in modules]
        self._attributes = [(s, s.get("training"), s.get("forward")) for s in states]
        self._dictionaries = []
        for state in states:
            try:
                dictionaries = _dictionaries_of(state)
            except KeyError:
                # Not a plain module, such as TorchScript's.
                dictionaries = tuple(state[name] for name in _DICTIONARIES if name in state)
            # Copies of those that are not empty: few are.
            before = [dict(d) if d else None for d in dictionaries] if any(dictionaries) else None
            self._dictionaries.append((dictionaries, before))
        self._parameters = [
            (parameter, parameter.requires_grad, parameter.grad)
            for module in modules
            for parameter in module._parameters.values()
            if parameter is not None
        ]

    def restore(self) -> None:
        for state, training, forward in self._attributes:
            if training is not None:
                state["training"] = training
            if forward is None:
                state.pop("forward", None)
            else:
                state["forward"] = forward
        for dictionaries, before in self._dictionaries:
            for values, old in zip(dictionaries, before or repeat(None), strict=False):
                if list(map(id, values.values())) != list(map(id, (old or {}).values())):
                    values.clear()
                    values.update(old or {})
        for parameter, requires, gradient in self._parameters:
            if parameter.requires_grad != requires:
                parameter.requires_grad_(requires)
            if parameter.grad is not gradient:
                parameter.grad = gradient


class _ThreadState:
    """Modes of torch in this thread, and how often it holds each process-wide flag."""

    def __init__(self) -> None:
        self._gradients = torch.is_grad_enabled()
        self._function_modes = overrides._get_current_function_mode_stack()
        self._dispatch_modes = dispatch._get_current_dispatch_mode_stack()
        self._autocast = [
            (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
            for kind in ("cpu", "cuda", "mps")
        ]
        self._autocast_nesting = _autocast_nesting()
        self._uses = [flag.uses() for flag in FLAGS]

    def restore(self) -> None:
        torch.set_grad_enabled(self._gradients)
        for module, modes, current in (
            (overrides, self._function_modes, overrides._get_current_function_mode_stack()),
            (dispatch, self._dispatch_modes, dispatch._get_current_dispatch_mode_stack()),
        ):
            if list(map(id, current)) != list(map(id, modes)):
                for _ in current:
                    module._pop_mode()
                for mode in modes:
                    module._push_mode(mode)
        for kind, enabled, dtype in self._autocast:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        while _autocast_nesting() > self._autocast_nesting:
            torch.autocast_decrement_nesting()
            torch.clear_autocast_cache()
        for flag, uses in zip(FLAGS, self._uses, strict=True):
            flag.recover(uses)
        unlock(SEEDING)


def _autocast_nesting() -> int:
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


class Buffers:
    """Copies of the buffers of a network.

    Parameters
    ----------
    modules : iterable of torch.nn.Module
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._before = [
            (module._buffers, name, buffer)
            for module in modules
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        self._groups = _grouped([b for _, _, b in self._before if not is_lazy(b)])
        self._shapes = [[buffer.shape for buffer in group] for group in self._groups]
        self._copies = [_copied(group) for group in self._groups]

    def restore(self) -> None:
        """Restore the buffers that differ."""
        for buffers, name, buffer in self._before:
            buffers[name] = buffer
        for group, shapes, copy in zip(self._groups, self._shapes, self._copies, strict=True):
            if not torch.equal(_copied(group), copy):
                parts = [copy] if len(group) == 1 else copy.split([s.numel() for s in shapes])
                _overwrite(group, [p.reshape(s) for p, s in zip(parts, shapes, strict=True)])


def _grouped(buffers: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Group buffers that fit into one tensor: one copy of many is faster than many copies."""
    groups: defaultdict[object, list[torch.Tensor]] = defaultdict(list)
    for buffer in buffers:
        plain = type(buffer) is torch.Tensor and buffer.layout == torch.strided
        groups[(buffer.device, buffer.dtype) if plain else id(buffer)].append(buffer)
    return list(groups.values())


def _copied(group: list[torch.Tensor]) -> torch.Tensor:
    # Without a context, which an interrupt could leave active: the snapshot is not complete yet.
    plain = [buffer.detach() for buffer in group]
    return plain[0].clone() if len(plain) == 1 else torch.cat([b.reshape(-1) for b in plain])


def _overwrite(group: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    for buffer, value in zip(group, values, strict=True):
        if not torch.equal(buffer, value):
            with torch.inference_mode(buffer.is_inference()), torch.no_grad():
                buffer.copy_(value)
