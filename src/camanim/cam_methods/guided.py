"""Guided methods: a map, resized to the input, times the guided gradient of the input.

`camanim.attribution.guided` multiplies the maps defined here by the guided gradient, which
`camanim.execution.guided_gradient` computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from camanim.cam_methods.gradient import gradcam, gradcam_plus_plus
from camanim.cam_methods.registry import register

if TYPE_CHECKING:
    import torch

_CAVEAT = "It highlights edges, and is similar for untrained networks (Adebayo et al. 2018)."
_COST = "2 forwards and 2 backwards for all layers"


@register(
    "Guided backpropagation",
    paper="Springenberg et al., ICLR Workshops 2015, arXiv 1412.6806",
    summary="Positive gradients, propagated only through positive activations, at each layer.",
    caveat=_CAVEAT,
    gives="products",
    aliases=("GuidedBackprop", "GuidedBackpropReLUModel", "GBP"),
    guided="alone",
)
def guided_backpropagation(gradient: torch.Tensor) -> torch.Tensor:
    """Sum the positive part of the guided gradient over channels: ``sum_c relu(G_c)``.

    G is the guided gradient of the layer. The guided gradient of the image, as published, signed and
    with all channels, is `Animation.guided`. Springenberg et al., "Striving for Simplicity: The All
    Convolutional Net", ICLR Workshops 2015, section 3.4.
    """
    return gradient.relu()


@register(
    "Guided Grad-CAM",
    paper="Selvaraju et al., ICCV 2017, arXiv 1610.02391",
    summary="The positive part of GradCAM times the guided gradient in the image.",
    caveat=_CAVEAT,
    cost=_COST,
    gives="weights",
    aliases=("GuidedGradCAM",),
    guided="times",
)
def guided_gradcam(gradient: torch.Tensor) -> torch.Tensor:
    """Weigh each channel as in GradCAM.

    The map is ``relu(GradCAM) * sum_c G_c``, with GradCAM at the size of the input and the guided
    gradient G of the input, summed over its channels c. G is `Animation.guided`. Selvaraju et al.,
    "Grad-CAM", ICCV 2017, section 3.2.
    """
    return gradcam(gradient)


@register(
    "Guided Grad-CAM++",
    paper="Chattopadhay et al., WACV 2018, arXiv 1710.11063",
    summary="The positive part of GradCAM++ times the guided gradient in the image.",
    caveat=_CAVEAT,
    cost=_COST,
    gives="weights",
    aliases=("GuidedGradCAM++",),
    guided="times",
)
def guided_gradcam_plus_plus(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Weigh each channel as in GradCAM++; see `guided_gradcam`."""
    return gradcam_plus_plus(activation, gradient)
