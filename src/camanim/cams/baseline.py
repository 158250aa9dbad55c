"""What a map has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camanim.cams.gradient import weighted_sum
from camanim.cams.registry import register

if TYPE_CHECKING:
    import torch


@register(
    "RandomCAM",
    paper="Kaczmarek et al., PLoS ONE 2024",
    summary="Channels weighted at random, seeded: the floor that every other method has to beat.",
    class_specific=False,
)
def randomcam(activation: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Weigh each channel by a random number, uniform in [-1, 1].

    Kaczmarek et al., "CAManim: Animating end-to-end network activation maps", PLoS ONE 2024.

    Parameters
    ----------
    activation : torch.Tensor
        (C, h, w)
    generator : torch.Generator
        On the CPU, so that a GPU gives the same map.

    Returns
    -------
    torch.Tensor
        The raw map, (h, w).
    """
    import torch

    weights = torch.rand(activation.shape[0], generator=generator, device="cpu") * 2 - 1
    return weighted_sum(weights.to(activation), activation)
