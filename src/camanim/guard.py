"""What keeps the user's network as it was, and says whose an error is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from camanim.errors import CamError, ModelError, OutOfMemory

T = TypeVar("T")


@contextmanager
def in_eval_mode(net: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and each of its modules back into its own after."""
    # Flag by flag, not with eval(): a network's own train() might do more than can be undone.
    training = [module for module in net.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


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


def check_weights(net: nn.Module) -> None:
    """Refuse a network that can have no gradients."""
    if any(tensor.is_inference() for tensor in chain(net.parameters(), net.buffers())):
        raise ModelError(
            "The network was made in torch.inference_mode, so it has no gradients: "
            "make or load it outside of that."
        )


class _CallersError(Exception):
    """What a callback of the caller raised, on its way through the network: not the network's fault."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def call_back(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function of the caller's; `own_errors` lets through what goes wrong in it."""
    try:
        return function(*arguments)
    except CamError:
        raise
    except Exception as error:
        raise _CallersError(error) from error


@contextmanager
def own_errors(input_shape: tuple[int, ...]) -> Iterator[None]:
    """Turn what torch raises inside a user's network into errors of our own."""
    try:
        yield
    except CamError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(input_shape) from error
    except _CallersError as error:
        raise error.error from error.error.__cause__
    except Exception as error:
        if "can't allocate memory" in str(error):
            raise _out_of_memory(input_shape) from error
        size = " x ".join(str(n) for n in input_shape)
        first_line = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"The network fails on an input of {size} with {type(error).__name__}: {first_line}"
        ) from error


def _out_of_memory(input_shape: tuple[int, ...]) -> OutOfMemory:
    size = " x ".join(str(n) for n in input_shape)
    return OutOfMemory(
        f"There is not enough memory for this network at an input of {size}: "
        "use a smaller input, fewer layers or a device with more memory."
    )
