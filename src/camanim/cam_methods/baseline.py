"""What a map has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camanim.cam_methods.registry import register

if TYPE_CHECKING:
    import torch


@register(
    "RandomCAM",
    paper="Kaczmarek et al., PLoS ONE 2024",
    summary="Channels weighted at random, seeded: the floor that every other method has to beat.",
    caveat="It says nothing about the class, and yet may look like something.",
    gives="weights",
    class_specific=False,
)
def randomcam(activation: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Weigh each channel by a random number, uniform in [-1, 1].

    Kaczmarek et al., "CAManim: Animating end-to-end network activation maps", PLoS ONE 2024.

    Parameters
    ----------
    activation : torch.Tensor
        (C, *s)
    generator : torch.Generator
        On the CPU, so that a GPU gives the same map.

    Returns
    -------
    torch.Tensor
        Weights, (C,).
    """
    import torch

    weights = torch.rand(activation.shape[0], generator=generator, device="cpu") * 2 - 1
    return weights.to(activation)


@register(
    "SobelCAM",
    paper="Sobel's filter, as in pytorch-grad-cam; as a baseline: Adebayo et al., NeurIPS 2018",
    summary="The edges of the image at the layer's resolution: what a map shows that only follows them.",
    caveat="It has not seen the network: a map that looks like this one says nothing more.",
    gives="map",
    class_specific=False,
    aliases=("Sobel",),
)
def sobelcam(activation: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Average the magnitude of Sobel's derivatives along each axis, in the pixels of the layer.

    grad-cam's ``sobel_cam`` without its rounding to 8 bits. As a baseline for saliency maps: Adebayo et
    al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 5.1.

    Parameters
    ----------
    activation : torch.Tensor
        (C, *s); only its size counts.
    image : torch.Tensor
        (Cin, *S); three channels are weighted as luminance, others alike.

    Returns
    -------
    torch.Tensor
        The raw map, (*s), nowhere negative.
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
    """Give the neighbours before and after each pixel; at the border, the one inside twice."""
    import torch

    size = grey.shape[axis]
    at = torch.arange(size, device=grey.device)
    last = max(size - 1, 0)
    before = (at - 1).abs().clamp(max=last)
    after = last - (last - at - 1).abs().clamp(max=last)
    return grey.index_select(axis, before), grey.index_select(axis, after)
