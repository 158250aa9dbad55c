"""Contexts that restore the state of the user's network, and errors by their origin.

Interrupts may prevent a context from restoring it: then `camanim.exclusive` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from camanim.error_origin import is_internal
from camanim.errors import (
    CamError,
    InternalError,
    MethodError,
    ModelError,
    OutOfMemory,
    raise_interrupt_behind,
)
from camanim.exclusive import buffers_in_use
from camanim.shared_flags import EAGER, PLAIN_ATTENTION
from camanim.snapshot import Buffers

T = TypeVar("T")


@contextmanager
def in_eval_mode(net: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode without compilation; restore modes and buffers on exit."""
    with _in_eval_mode(net, list(net.modules())):
        yield


@contextmanager
def without_gradients(net: nn.Module, input_shape: tuple[int, ...]) -> Iterator[None]:
    """Prepare a network for forward passes alone; restore it on exit, and convert its errors."""
    with (
        as_cam_errors(input_shape),
        in_eval_mode(net),
        PLAIN_ATTENTION.held(),
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
        _in_eval_mode(net, modules),
        PLAIN_ATTENTION.held(),
        _frozen(modules),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        yield


@contextmanager
def _in_eval_mode(net: nn.Module, modules: list[nn.Module]) -> Iterator[None]:
    # Not with eval(), which calls train(): an overridden train() may not be reversible.
    training = [module for module in modules if module.training]
    try:
        for module in training:
            module.training = False
        with _same_buffers(net, modules), _uncompiled(modules):
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _same_buffers(net: nn.Module, modules: list[nn.Module]) -> Iterator[None]:
    """Restore the buffers of a network on exit."""
    buffers = buffers_in_use(net) or Buffers(modules)
    try:
        yield
    finally:
        buffers.restore()


@contextmanager
def _uncompiled(modules: list[nn.Module]) -> Iterator[None]:
    """Run compiled modules in eager mode, so that forward hooks of their submodules are called."""
    compiled = any(
        getattr(module, "_compiled_call_impl", None) is not None or "_orig_mod" in module._modules
        for module in modules
    )
    with EAGER.held() if compiled and hasattr(torch.compiler, "set_stance") else nullcontext():
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
        raise_interrupt_behind(error)
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
        raise_interrupt_behind(error)
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
