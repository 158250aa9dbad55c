"""The guided gradient in a network's input."""

from __future__ import annotations

from dataclasses import replace

import torch

from camanim.execution.forward import Forward
from camanim.model_state import with_gradients
from camanim.targets import Target


def guided_gradient(forward: Forward, tensor: torch.Tensor, target: Target) -> torch.Tensor:
    """Compute the guided gradient of a target's score in the input.

    Parameters
    ----------
    forward : Forward
    tensor : torch.Tensor
        (B, C, *S), on the network's device.
    target : Target

    Returns
    -------
    torch.Tensor
        (B, C, *S), signed; zero where no gradient reaches the input.

    Raises
    ------
    ModelError, OutOfMemory
        When the network fails or does not fit into memory.
    """
    with with_gradients(forward.net, tuple(tensor.shape)):
        start = tensor.detach().clone().requires_grad_()
        score = target.score(replace(forward, guided=True)(start))
        gradient = None
        if score.requires_grad:
            (gradient,) = torch.autograd.grad(score.sum(), start, allow_unused=True)
    return torch.zeros_like(tensor) if gradient is None else gradient.detach()
