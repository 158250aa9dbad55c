"""Numbers that are exact enough, on every device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

#: Of autocast; "float32" leaves the network as it is.
Precision = Literal["float32", "bfloat16", "float16"]


def as_float64(tensor: torch.Tensor) -> torch.Tensor:
    """Give a tensor in float64; on the CPU where its device has none, which is MPS."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
