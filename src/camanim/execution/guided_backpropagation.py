"""Guided backpropagation: gradients of which only positive parts pass activation functions.

Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR 2015 workshop: on its way
back through a ReLU a gradient passes only where it is positive and the activation is. Here the gradient
that reaches any activation function from above loses its negative part, and then goes through the
function's own derivative: for ReLU and ReLU6 that is the rule of the paper; for SiLU, GELU and the like,
for which the literature has no rule, it is the same rule with a soft edge (their derivative
is slightly negative for some inputs below zero, and is left so). It holds for functional calls as well
as modules. It fails the randomisation test of Adebayo et al. (arXiv 1810.03292): it is nearly the same
image for a network without training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from camanim.execution.function_mode import FunctionMode

_NAMES = (
    "relu", "relu_", "relu6", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "prelu",
    "rrelu", "rrelu_", "elu", "elu_", "selu", "selu_", "celu", "celu_", "silu", "gelu", "mish",
    "hardswish", "softplus",
)  # fmt: skip

#: Every activation function, under all its names in torch.
ACTIVATIONS = frozenset(
    getattr(home, name)
    for home in (torch, torch.Tensor, functional, torch._C._nn)
    for name in _NAMES
    if hasattr(home, name)
)


def _positive(gradient: torch.Tensor | None) -> torch.Tensor | None:
    # Operations without a derivative pass no gradient at all.
    return None if gradient is None else gradient.relu()


class PositiveOnly(FunctionMode):
    """Let only positive gradients pass through activation functions."""

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Hook the output of activation functions."""
        output = function(*args, **kwargs)
        if function in ACTIVATIONS and isinstance(output, torch.Tensor) and output.requires_grad:
            output.register_hook(_positive)
        return output
