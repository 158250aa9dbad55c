"""What keeps the user's network as it was, and says whose an error is."""

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
    """Put a network into evaluation mode, as it is written; and its modules and buffers back after."""
    # Flag by flag, not with eval(): a network's own train() might do more than can be undone.
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
    """Give a network back the buffers that its forward writes to."""
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
    """Let compiled parts run as they were written, or nobody sees the modules in them."""
    compiled = any(
        getattr(module, "_compiled_call_impl", None) is not None or "_orig_mod" in module._modules
        for module in net.modules()
    )
    stance = getattr(torch.compiler, "set_stance", None)
    with stance("force_eager") if compiled and stance is not None else nullcontext():
        yield


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Keep the parameters out of the graph, and give each its own flag back after."""
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
    """Let torch's transformer layers call their parts, which their fast path does not."""
    before = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def check_weights(net: nn.Module) -> None:
    """Refuse a network that can have no gradients."""
    if any(tensor.is_inference() for tensor in chain(net.parameters(), net.buffers())):
        raise ModelError(
            "The network was made in torch.inference_mode, so it has no gradients: "
            "make or load it outside of that."
        )


class _CallbackError(Exception):
    """What a callback of the caller raised, on its way through the network: not the network's fault."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def run_callback(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function of the caller's; `as_cam_errors` lets through what goes wrong in it."""
    try:
        return function(*arguments)
    except (CamError, _CallbackError):
        raise
    except Exception as error:
        raise _CallbackError(error) from error


@contextmanager
def as_cam_errors(input_shape: tuple[int, ...]) -> Iterator[None]:
    """Turn what a network raises into errors of our own, and let those of callbacks through."""
    try:
        with as_model_error(input_shape):
            yield
    except _CallbackError as error:
        raise error.error from error.error.__cause__


@contextmanager
def as_model_error(input_shape: tuple[int, ...]) -> Iterator[None]:
    """Say that it was the network that failed, within `as_cam_errors`."""
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
    """Say that it was a method that failed, within `as_cam_errors`; `but` is none of its errors."""
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
    """Whether an error says that memory ran out, on whatever device."""
    kinds = (torch.OutOfMemoryError, MemoryError, OutOfMemory)
    # The processor's allocator and MPS have no kind of their own.
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def _out_of_memory(input_shape: tuple[int, ...]) -> OutOfMemory:
    size = " x ".join(str(n) for n in input_shape)
    return OutOfMemory(
        f"There is not enough memory for this network at an input of {size}: "
        "use a smaller input, fewer layers or a device with more memory."
    )
