"""Baselines for other methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camanim.cam_methods.registry import register

if TYPE_CHECKING:
    import torch


@register(
    "RandomCAM",
    paper="Kaczmarek et al., PLoS ONE 2024",
    summary="Channels with random weights, seeded: the baseline for all other methods.",
    caveat="It does not depend on the class, though it may look meaningful.",
    gives="weights",
    class_specific=False,
)
def randomcam(activation: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Weigh each channel by a random number, uniform in [-1, 1].

    Kaczmarek et al., "CAManim: Animating end-to-end network activation maps", PLoS ONE 2024.
    """
    import torch

    weights = torch.rand(activation.shape[0], generator=generator, device="cpu") * 2 - 1
    return weights.to(activation)


@register(
    "SobelCAM",
    paper="Sobel's filter, as in pytorch-grad-cam; as a baseline: Adebayo et al., NeurIPS 2018",
    summary="The edges of the image at the layer's resolution: a baseline without the network.",
    caveat="It does not depend on the network: a similar map shows no more than edges.",
    gives="map",
    class_specific=False,
    aliases=("Sobel",),
)
def sobelcam(activation: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Average the magnitude of Sobel's derivatives along each axis at the layer's resolution.

    grad-cam's ``sobel_cam`` without rounding to 8 bits. Three channels are weighted as luminance, others
    equally. As a baseline for saliency maps: Adebayo et
    al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 5.1.
    """
    import torch
    from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d

    shares = [0.299, 0.587, 0.114] if len(image) == 3 else [1 / len(image)] * len(image)
    grey = torch.einsum("c,c...->...", torch.tensor(shares).to(image), image)
    edges = torch.stack([_along(grey, axis).abs() for axis in range(grey.ndim)]).mean(0)
    pool: Any = {2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}[grey.ndim]
    pooled: torch.Tensor = pool(edges[None], activation.shape[1:])[0]
    return pooled.to(activation)


def _along(grey: torch.Tensor, axis: int) -> torch.Tensor:
    """Take Sobel's derivative along one axis, smoothing along all others; mirrored at the border."""
    for other in range(grey.ndim):
        before, after = _shifted(grey, other)
        grey = after - before if other == axis else before + 2 * grey + after
    return grey


def _shifted(grey: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the neighbours before and after each pixel; mirrored at the border."""
    import torch

    size = grey.shape[axis]
    at = torch.arange(size, device=grey.device)
    last = max(size - 1, 0)
    before = (at - 1).abs().clamp(max=last)
    after = last - (last - at - 1).abs().clamp(max=last)
    return grey.index_select(axis, before), grey.index_select(axis, after)
