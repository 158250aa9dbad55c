"""Contexts that restore the state of the user's network, and errors by their origin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from camanim.error_origin import is_internal
from camanim.errors import CamError, InternalError, MethodError, ModelError, OutOfMemory

T = TypeVar("T")


@contextmanager
def in_eval_mode(net: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode without compilation; restore modes and buffers on exit."""
    with _in_eval_mode(list(net.modules())):
        yield


@contextmanager
def without_gradients(net: nn.Module, input_shape: tuple[int, ...]) -> Iterator[None]:
    """Prepare a network for forward passes alone; restore it on exit, and convert its errors."""
    with (
        as_cam_errors(input_shape),
        in_eval_mode(net),
        plain_attention(),
        torch.inference_mode(False),
        torch.no_grad(),
    ):
        yield


@contextmanager
def with_gradients(net: nn.Module, input_shape: tuple[int, ...]) -> Iterator[None]:
    """Prepare a network for gradients of its input; restore it on exit, and convert its errors.

    The parameters are excluded from the graph.

    Raises
    ------
    ModelError
        If the network was created in inference mode, and so has no gradients.
    """
    modules = list(net.modules())
    _check_weights(modules)
    with (
        as_cam_errors(input_shape),
        _in_eval_mode(modules),
        plain_attention(),
        _frozen(modules),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        yield


@contextmanager
def _in_eval_mode(modules: list[nn.Module]) -> Iterator[None]:
    # Not with eval(), which calls train(): an overridden train() may not be reversible.
    training = [module for module in modules if module.training]
    try:
        for module in training:
            module.training = False
        with _same_buffers(modules), _uncompiled(modules):
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _same_buffers(modules: list[nn.Module]) -> Iterator[None]:
    """Restore the buffers of a network on exit."""
    before = [
        (module, name, buffer)
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    groups = _grouped([buffer for _, _, buffer in before])
    shapes = [[buffer.shape for buffer in group] for group in groups]
    copies = [_copied(group) for group in groups]
    try:
        yield
    finally:
        for module, name, buffer in before:
            module._buffers[name] = buffer
        for group, sizes, copy in zip(groups, shapes, copies, strict=True):
            if not torch.equal(_copied(group), copy):
                parts = [copy] if len(group) == 1 else copy.split([s.numel() for s in sizes])
                _restore(group, [part.reshape(s) for part, s in zip(parts, sizes, strict=True)])


def _grouped(buffers: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Group buffers that fit into one tensor: one copy of many is faster than many copies."""
    groups: defaultdict[object, list[torch.Tensor]] = defaultdict(list)
    for buffer in buffers:
        plain = type(buffer) is torch.Tensor and buffer.layout == torch.strided
        groups[(buffer.device, buffer.dtype) if plain else id(buffer)].append(buffer)
    return list(groups.values())


@torch.no_grad()
def _copied(group: list[torch.Tensor]) -> torch.Tensor:
    return group[0].clone() if len(group) == 1 else torch.cat([b.reshape(-1) for b in group])


def _restore(group: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    for buffer, value in zip(group, values, strict=True):
        if not torch.equal(buffer, value):
            with torch.inference_mode(buffer.is_inference()), torch.no_grad():
                buffer.copy_(value)


@contextmanager
def _uncompiled(modules: list[nn.Module]) -> Iterator[None]:
    """Run compiled modules in eager mode, so that forward hooks of their submodules are called."""
    compiled = any(
        getattr(module, "_compiled_call_impl", None) is not None or "_orig_mod" in module._modules
        for module in modules
    )
    stance = getattr(torch.compiler, "set_stance", None)
    with stance("force_eager") if compiled and stance is not None else nullcontext():
        yield


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Exclude the parameters from the autograd graph; restore ``requires_grad`` on exit."""
    with _frozen(list(net.modules())):
        yield


@contextmanager
def _frozen(modules: list[nn.Module]) -> Iterator[None]:
    trained = [parameter for parameter in _parameters(modules) if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _parameters(modules: list[nn.Module]) -> Iterator[nn.Parameter]:
    for module in modules:
        for parameter in module._parameters.values():
            if parameter is not None:
                yield parameter


@contextmanager
def plain_attention() -> Iterator[None]:
    """Disable the fast path of torch's transformer layers, which skips their submodules."""
    before = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _check_weights(modules: list[nn.Module]) -> None:
    buffers = (buffer for module in modules for buffer in module._buffers.values())
    tensors = chain(_parameters(modules), buffers)
    if any(tensor is not None and tensor.is_inference() for tensor in tensors):
        raise ModelError(
            "The network was created in torch.inference_mode, so it has no gradients: "
            "create or load it outside of that mode."
        )


class _CallbackError(Exception):
    """Wrapper of an exception of a user's callback, to distinguish it from errors of the network."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def run_callback(function: Callable[..., T], *arguments: Any) -> T:
    """Call a user's function; `as_cam_errors` raises its exceptions unchanged."""
    try:
        return function(*arguments)
    except (CamError, _CallbackError):
        raise
    except Exception as error:
        raise _CallbackError(error) from error


@contextmanager
def as_cam_errors(input_shape: tuple[int, ...]) -> Iterator[None]:
    """Convert errors of a network to `CamError`; raise those of callbacks unchanged."""
    try:
        with as_model_error(input_shape):
            yield
    except _CallbackError as error:
        raise error.error from error.error.__cause__


@contextmanager
def as_model_error(input_shape: tuple[int, ...]) -> Iterator[None]:
    """Convert errors of a network to `ModelError` or `OutOfMemory`, within `as_cam_errors`."""
    try:
        yield
    except (CamError, _CallbackError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise _out_of_memory(input_shape) from error
        if is_internal(error):
            raise InternalError(
                f"camanim itself fails with {type(error).__name__}: {error}; please report this bug "
                "with its traceback."
            ) from error
        size = " x ".join(str(n) for n in input_shape)
        first_line = str(error).strip().partition("\n")[0]
        if "modified by an inplace operation" in first_line:
            raise ModelError(
                "The network has no gradient, because it overwrites a value in place that the gradient "
                "requires: change that operation, or use a method without gradients, such as EigenCAM."
            ) from error
        raise ModelError(
            f"The network fails on an input of {size} with {type(error).__name__}: {first_line}"
        ) from error


@contextmanager
def as_method_error(method: str, but: type[Exception]) -> Iterator[None]:
    """Convert errors of a method to `MethodError`, within `as_cam_errors`; raise `but` unchanged."""
    try:
        yield
    except (CamError, _CallbackError, but):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        first_line = str(error).strip().partition("\n")[0]
        raise MethodError(
            f"The method {method} fails with {type(error).__name__}: {first_line}"
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that a device ran out of memory."""
    kinds = (torch.OutOfMemoryError, MemoryError, OutOfMemory)
    # The CPU allocator and MPS raise plain RuntimeErrors.
    phrases = ("can't allocate memory", "out of memory")
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)
    )


def _out_of_memory(input_shape: tuple[int, ...]) -> OutOfMemory:
    size = " x ".join(str(n) for n in input_shape)
    return OutOfMemory(
        f"There is not enough memory for this network at an input of {size}: "
        "use a smaller input, fewer layers or a device with more memory."
    )
