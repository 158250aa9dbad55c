"""The memory that passes of a network need, estimated before they run, and the memory that is free.

Where memory is overcommitted, as on Linux, a pass on the CPU that needs too much raises no error: the
system ends the process.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from camanim.errors import CamError, raise_interrupt_behind
from camanim.execution.forward import Forward
from camanim.execution.pending_activations import written_by
from camanim.layout import tensors_of
from camanim.model_state import with_gradients
from camanim.shared_flags import DISPATCH_MODES, PLAIN_ATTENTION

#: Largest tensors in use at once, beside the activations, while a gradient passes a layer.
_TRANSIENT = 3
#: Mean sides of the two small inputs from which memory is extrapolated, by the number of axes.
_SIDES = {2: (96, 160), 3: (32, 64)}
#: Sides are rounded to multiples, as most networks need.
_MULTIPLE = 32
#: Version 1 of control groups writes a limit of about 2^63 where there is none.
_UNLIMITED = 2**60
#: What a network may raise on tensors without values.
_WITHOUT_VALUES = (
    RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError, ArithmeticError,
    NotImplementedError, CamError,
)  # fmt: skip


@dataclass(frozen=True)
class PassMemory:
    """Bytes that passes of one image need, without the weights.

    Attributes
    ----------
    gradients : int
        A pass forward and backward in which all layers' activations are kept.
    forward : int
        A pass forward without gradients.
    """

    gradients: int
    forward: int


def estimate(forward: Forward, empty: Forward | None, tensor: torch.Tensor) -> PassMemory | None:
    """Return the memory of passes of one image, or None where the network does not let it be estimated.

    Parameters
    ----------
    forward : Forward
    empty : Forward or None
        A copy of the network on the device "meta", whose tensors have shapes and no values.
    tensor : torch.Tensor
        (1, C, *S)
    """
    if empty is not None:
        try:
            return _without_values(empty, tensor)
        except _WITHOUT_VALUES as error:
            raise_interrupt_behind(error)
    try:
        return _extrapolated(forward, tensor)
    except CamError:
        # It does not take other sizes.
        return None


def _without_values(empty: Forward, tensor: torch.Tensor) -> PassMemory:
    """Trace passes at full size on a copy of the network without values."""
    for module in empty.net.modules():
        module.training = False
        # The user's hooks must not be called for a copy.
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    for parameter in empty.net.parameters():
        parameter.requires_grad_(False)
    image = torch.empty_like(tensor, device="meta")
    # Of autocast, the float32 network is an upper bound.
    empty = replace(empty, precision="float32")
    with PLAIN_ATTENTION.held(), torch.inference_mode(False), torch.device("meta"):
        with torch.enable_grad():
            gradients = _trace(empty, image, keep=True)
        with torch.no_grad():
            return PassMemory(gradients, _trace(empty, image, keep=False))


def _extrapolated(forward: Forward, tensor: torch.Tensor) -> PassMemory:
    """Trace passes of two small inputs, and extrapolate to the size of the input."""
    size = tuple(tensor.shape[2:])
    pixels, traced = [], []
    for side in _SIDES[len(size)]:
        factor = side / tensor[0, 0].numel() ** (1 / len(size))
        smaller = [max(1, round(n * factor / _MULTIPLE)) * _MULTIPLE for n in size]
        small = nn.functional.interpolate(tensor, smaller)
        with with_gradients(forward.net, tuple(small.shape)):
            gradients = _trace(forward, small, keep=True)
            with torch.no_grad():
                traced.append(PassMemory(gradients, _trace(forward, small, keep=False)))
        pixels.append(small[0, 0].numel())

    def at_full_size(first: int, second: int) -> int:
        slope = max(0.0, (second - first) / max(1, pixels[1] - pixels[0]))
        return int(second + slope * (tensor[0, 0].numel() - pixels[1]))

    first, second = traced
    return PassMemory(
        at_full_size(first.gradients, second.gradients),
        at_full_size(first.forward, second.forward),
    )


def _trace(forward: Forward, image: torch.Tensor, *, keep: bool) -> int:
    """Return the most bytes of tensors at once in a forward pass; with `keep`, also in a backward."""
    memory = _TensorMemory(chain(forward.net.parameters(), forward.net.buffers()))
    with ExitStack() as stack:
        if keep:
            for module in forward.net.modules():
                stack.callback(module.register_forward_hook(memory.keep_output).remove)
            image = image.detach().clone().requires_grad_()
        stack.enter_context(DISPATCH_MODES.held())
        with memory:
            output = forward(image)
        del output
    return memory.peak + (_TRANSIENT * memory.largest if keep else 0)


class _TensorMemory(TorchDispatchMode):
    """Dispatch mode that sums the bytes of all tensors that are alive, but for some."""

    def __init__(self, excluded: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.now, self.peak, self.largest = 0, 0, 0
        self._alive = {tensor.untyped_storage()._cdata: 0 for tensor in excluded}
        #: Storages of kept outputs: written to in place, they are cloned before.
        self._kept: set[int] = set()
        self._outputs: list[torch.Tensor] = []

    def keep_output(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the output of a module, as a run does until its gradient arrives."""
        for _, tensor in tensors_of(output):
            self._outputs.append(tensor.detach())
            self._kept.add(tensor.untyped_storage()._cdata)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in written_by(func, args, kwargs):
            storage = tensor.untyped_storage()
            if storage._cdata in self._kept:
                self._kept.discard(storage._cdata)
                self._grow(storage.nbytes())
        result = func(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive[key] = size
            self._grow(size)
            self.largest = max(self.largest, size)
            weakref.finalize(storage, self._remove, key).atexit = False

    def _grow(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)

    def _remove(self, key: int) -> None:
        self.now -= self._alive.pop(key, 0)


def available_memory(device: torch.device) -> int | None:
    """Return the bytes that can be allocated on a device, or None where this is unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    # Apple's GPUs share the memory of the CPU.
    return system_memory() if device.type in ("cpu", "mps") else None


def system_memory() -> int | None:
    """Return the bytes that can be allocated without swapping, within the limits of a container."""
    try:
        info = Path("/proc/meminfo").read_text()
        limits = [int(info.partition("MemAvailable:")[2].split()[0]) * 1024]
    except (OSError, LookupError, ValueError):
        # Not Linux. napari requires psutil, the engine does not.
        try:
            import psutil  # type: ignore[import-untyped]
        except ImportError:
            return None
        return int(psutil.virtual_memory().available)
    limits += [free for group in _limited_groups() if (free := group.free()) is not None]
    return max(0, min(limits))


@dataclass(frozen=True)
class _ControlGroup:
    """A control group of this process, and the names of its files and of one of its statistics."""

    folder: Path
    limit: str
    usage: str
    reclaimable: str

    def free(self) -> int | None:
        """Return the bytes that the group leaves free, or None without a limit."""
        try:
            limit = int((self.folder / self.limit).read_text())
            usage = int((self.folder / self.usage).read_text())
            lines = (self.folder / "memory.stat").read_text().splitlines()
            return limit - usage + int(dict(map(str.split, lines)).get(self.reclaimable, 0))
        except (OSError, ValueError):
            # No such group, or "max".
            return None


def control_groups(membership: Path, root: Path) -> list[_ControlGroup]:
    """Return the control groups that limit the memory of this process."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    groups = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = top / path.lstrip("/")
        groups += [
            _ControlGroup(f, *names) for f in (folder, *folder.parents) if f.is_relative_to(top)
        ]
    return [group for group in groups if (free := group.free()) is not None and free < _UNLIMITED]


@cache
def _limited_groups() -> list[_ControlGroup]:
    return control_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
