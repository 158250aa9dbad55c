"""A faster copy of a network, for thousands of forward passes.

Batch normalisations are folded into the convolutions before them, and channels lie last in memory, which
is faster on the CPU. One forward pass determines which normalisation follows which convolution, and that
nothing else uses the convolution's output; this works for any network. The copy is used only if its
outputs for several images are the same.
"""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._pytree import tree_leaves

from camanim.errors import raise_interrupt_behind
from camanim.execution.control_flow import ValueAccessDetector
from camanim.execution.forward import Forward
from camanim.execution.function_mode import FunctionMode
from camanim.layout import tensors_of
from camanim.precision import as_float64

#: Largest difference of the outputs, relative to the largest value, that rounding explains.
TOLERANCE = 1e-4
#: Factors on the image, for the images on which copy and network are compared.
FACTORS = (1.0, 0.5, 0.0, -1.0)
#: Functions that neither read nor change values of a tensor.
_HARMLESS = frozenset({"__get__", "dim", "size", "is_floating_point", "numel", "__len__"})

#: Exceptions that copying a network may raise.
_UNCOPIED = (
    RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError, MemoryError,
    copy.Error, pickle.PicklingError,
)  # fmt: skip
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMALIZATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


CopyFormat = Literal["contiguous", "channels_last"]


def fast_copy(forward: Forward, tensor: torch.Tensor) -> Forward:
    """Return a faster copy of a network, or the network if it has none.

    Parameters
    ----------
    forward : Forward
        Within `Forward.evaluating`.
    tensor : torch.Tensor
        (B, C, *S); an input for the comparison of network and copy.

    Returns
    -------
    Forward
        The network if it cannot be copied, or if the outputs of the copy differ.
    """
    copies = Copies(forward, tensor)
    return copies.of("channels_last") or copies.of("contiguous") or forward


class Copies:
    """A copy of a network, with its weights in one memory format at a time.

    Parameters
    ----------
    forward : Forward
        Within `Forward.evaluating`.
    tensor : torch.Tensor
        (B, C, *S); an input for the comparison of network and copy.
    """

    def __init__(self, forward: Forward, tensor: torch.Tensor) -> None:
        self._original, self._tensor = forward, tensor
        self._agrees: dict[CopyFormat, bool] = {}

    @cached_property
    def _copy(self) -> Forward | None:
        return folded_copy(self._original, self._tensor)

    def of(self, memory_format: CopyFormat) -> Forward | None:
        """Return the copy in a memory format; None without a copy whose outputs agree.

        The copy changes when it is requested in another format.
        """
        if self._copy is None:
            return None
        set_memory_format(self._copy.net, self._tensor.ndim, memory_format)
        if memory_format not in self._agrees:
            self._agrees[memory_format] = agree(self._original, self._copy, self._tensor)
        return self._copy if self._agrees[memory_format] else None


def folded_copy(forward: Forward, tensor: torch.Tensor) -> Forward | None:
    """Return a copy with folded batch normalisations; None if the network cannot be copied."""
    try:
        fast = replace(forward, net=copy.deepcopy(forward.net))
    except _UNCOPIED as error:
        raise_interrupt_behind(error)
        # A part cannot be copied, or the copy does not fit into memory.
        return None
    for convolution, normalization in _pairs(fast, tensor):
        _fold(fast.net, convolution, normalization)
    for module in fast.net.modules():
        # The user's hooks must not be called for a copy. If they change the output, the copy will not
        # agree.
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return fast


def set_memory_format(net: nn.Module, ndim: int, memory_format: CopyFormat) -> None:
    """Store the weights with their channels last or first; inputs have `ndim` axes."""
    if ndim in (4, 5):
        last = (torch.channels_last, torch.channels_last_3d)[ndim - 4]
        net.to(memory_format=last if memory_format == "channels_last" else torch.contiguous_format)


class _Uses(FunctionMode):
    """Counts how often functions of torch use the output of each convolution."""

    def __init__(self) -> None:
        super().__init__()
        #: Name and output of each convolution by `id`; the reference keeps the `id` from being reused.
        self.outputs: dict[int, tuple[str, torch.Tensor]] = {}
        self.counts: Counter[str] = Counter()

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Count the outputs of convolutions among the arguments."""
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor) and id(leaf) in self.outputs:
                name = getattr(function, "__name__", "")
                self.counts[self.outputs[id(leaf)][0]] += name not in _HARMLESS
        return function(*args, **kwargs)


def _pairs(forward: Forward, tensor: torch.Tensor) -> list[tuple[str, str]]:
    """Return convolutions whose output goes into a normalisation alone, each called once."""
    uses, calls = _Uses(), Counter[str]()
    pairs: list[tuple[str, str]] = []
    handles = []
    for name, module in forward.net.named_modules():
        if type(module) not in (*_CONVOLUTIONS, *_NORMALIZATIONS) or _has_hooks(module):
            continue

        def record(
            module: nn.Module, inputs: object, output: torch.Tensor, name: str = name
        ) -> None:
            calls[name] += 1
            if isinstance(module, _CONVOLUTIONS):
                uses.outputs[id(output)] = (name, output)
            elif isinstance(inputs, tuple) and inputs and id(inputs[0]) in uses.outputs:
                pairs.append((uses.outputs[id(inputs[0])][0], name))

        handles.append(module.register_forward_hook(record))
    try:
        with ValueAccessDetector() as detector, uses:
            forward(tensor)
    finally:
        for handle in handles:
            handle.remove()
    if detector.detected:
        # On another branch, the output may be used elsewhere.
        return []
    return [
        (convolution, normalization)
        for convolution, normalization in pairs
        if calls[convolution] == calls[normalization] == uses.counts[convolution] == 1
    ]


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _fold(net: nn.Module, convolution: str, normalization: str) -> None:
    conv, norm = net.get_submodule(convolution), net.get_submodule(normalization)
    if getattr(norm, "running_var", None) is None or getattr(conv, "parametrizations", None):
        return
    net.set_submodule(convolution, fuse_conv_bn_eval(conv, norm))  # type: ignore[arg-type,type-var]
    net.set_submodule(normalization, nn.Identity())


def agree(slow: Forward, fast: Forward, tensor: torch.Tensor) -> bool:
    """Return whether both outputs agree for a batch of images, however bright."""
    images = torch.cat([tensor * factor for factor in FACTORS])
    try:
        outputs = [_leaves(forward(images)) for forward in (slow, fast)]
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError) as error:
        raise_interrupt_behind(error)
        # No batches, or a view that needs channels to lie before space in memory.
        return False
    before, after = outputs
    if len(before) != len(after):
        return False
    for a, b in zip(before, after, strict=True):
        if a.shape != b.shape:
            return False
        scale = as_float64(a).abs().max().clamp(min=1e-12) if a.numel() else 1.0
        if a.numel() and not bool((as_float64(a) - as_float64(b)).abs().max() <= TOLERANCE * scale):
            return False
    return True


def _leaves(output: Any) -> list[torch.Tensor]:
    return [tensor for _, tensor in tensors_of(output)]
