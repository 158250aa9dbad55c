"""Baselines: random weights, and edges of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camanim.cam_methods.registry import register
from camanim.precision import as_float64

if TYPE_CHECKING:
    import torch


@register(
    "RandomCAM",
    paper="Kaczmarek et al., PLoS ONE 2024",
    summary="Channels with seeded random weights: a baseline for all other methods.",
    caveat="It does not depend on the class, but may look meaningful.",
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
    summary="Edges of the image at the layer's resolution: a baseline without the network.",
    caveat="It does not depend on the network: maps similar to it show only edges.",
    gives="map",
    class_specific=False,
    aliases=("Sobel",),
)
def sobelcam(activation: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Average the magnitude of the Sobel derivatives along each axis at the layer's resolution.

    grad-cam's ``sobel_cam`` without rounding to 8 bits. Three channels are weighted as luminance, others
    equally. As a baseline for saliency maps: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS
    2018, section 5.1.
    """
    import numpy as np
    import torch
    from scipy.ndimage import sobel
    from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d

    weights = [0.299, 0.587, 0.114] if len(image) == 3 else [1 / len(image)] * len(image)
    luminance = torch.einsum("c,c...->...", torch.tensor(weights).to(image), image)
    grey = as_float64(luminance).cpu().numpy()
    edges = np.mean([np.abs(sobel(grey, axis, mode="mirror")) for axis in range(grey.ndim)], axis=0)
    pool: Any = {2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}[grey.ndim]
    pooled: torch.Tensor = pool(torch.from_numpy(edges)[None], activation.shape[1:])[0]
    return pooled.to(activation)
