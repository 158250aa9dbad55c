"""The guided gradient in a network's input."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import torch

from camanim.execution.forward import Forward
from camanim.model_state import as_cam_errors, check_weights, frozen, in_eval_mode, plain_attention
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
        (B, C, *S), signed; zero where no gradient leads back to the input.

    Raises
    ------
    ModelError, OutOfMemory
        When the network fails or does not fit into memory.
    """
    net = forward.net
    check_weights(net)
    with ExitStack() as stack:
        stack.enter_context(as_cam_errors(tuple(tensor.shape)))
        stack.enter_context(in_eval_mode(net))
        stack.enter_context(plain_attention())
        stack.enter_context(frozen(net))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        start = tensor.detach().clone().requires_grad_()
        score = target.score(replace(forward, guided=True)(start))
        gradient = None
        if score.requires_grad:
            (gradient,) = torch.autograd.grad(score.sum(), start, allow_unused=True)
    return torch.zeros_like(tensor) if gradient is None else gradient.detach()
