"""Contexts that restore the state of the user's network, and errors by their origin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from camanim.errors import CamError, MethodError, ModelError, OutOfMemory

T = TypeVar("T")


@contextmanager
def in_eval_mode(net: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode without compilation; restore modes and buffers on exit."""
    # Not with eval(), which calls train(): an overridden train() may not be reversible.
    training = [module for module in net.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with _same_buffers(net), _uncompiled(net):
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _same_buffers(net: nn.Module) -> Iterator[None]:
    """Restore the buffers of a network on exit."""
    before = [
        (module, name, buffer, buffer.clone())
        for module in net.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, name, buffer, values in before:
            module._buffers[name] = buffer
            if not torch.equal(buffer, values):
                with torch.inference_mode(buffer.is_inference()), torch.no_grad():
                    buffer.copy_(values)


@contextmanager
def _uncompiled(net: nn.Module) -> Iterator[None]:
    """Run compiled modules in eager mode, so that forward hooks of their submodules are called."""
    compiled = any(
        getattr(module, "_compiled_call_impl", None) is not None or "_orig_mod" in module._modules
        for module in net.modules()
    )
    stance = getattr(torch.compiler, "set_stance", None)
    with stance("force_eager") if compiled and stance is not None else nullcontext():
        yield


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Exclude the parameters from the autograd graph; restore ``requires_grad`` on exit."""
    thawed = [p for p in net.parameters() if p.requires_grad]
    try:
        for parameter in thawed:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in thawed:
            parameter.requires_grad_(True)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Disable the fast path of torch's transformer layers, which skips their submodules."""
    before = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def check_weights(net: nn.Module) -> None:
    """Raise `ModelError` for a network created in inference mode, which has no gradients."""
    if any(tensor.is_inference() for tensor in chain(net.parameters(), net.buffers())):
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
        size = " x ".join(str(n) for n in input_shape)
        first_line = str(error).strip().partition("\n")[0]
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
