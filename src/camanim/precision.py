"""Numeric precision of networks and of computations on maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

#: Type for autocast; with "float32" autocast is off.
Precision = Literal["float32", "bfloat16", "float16"]


def as_float64(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float64, on the CPU if its device is MPS, which does not support float64."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
