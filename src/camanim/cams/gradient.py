"""Methods that weigh the activation A (C, h, w) by the gradient g of the class score.

No function here imports torch: all they do are operators and methods of the tensors they get, so that
listing the methods stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from camanim.cams.registry import register

if TYPE_CHECKING:
    import torch


def weighted_sum(weights: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """Sum the channels (C, h, w) with weights (C,): a product of a row and a matrix, nothing copied."""
    return (weights @ activation.flatten(1)).view(activation.shape[1:])


@register(
    "GradCAM",
    paper="Selvaraju et al., ICCV 2017, arXiv 1610.02391",
    summary="Channels weighted by their mean gradient; can light places the network did not use.",
)
def gradcam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Weigh each channel by its mean gradient: ``sum_c mean(g_c) A_c``.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017, equations 1 and 2 (before the ReLU).

    Parameters
    ----------
    activation, gradient : torch.Tensor
        (C, h, w)

    Returns
    -------
    torch.Tensor
        The raw map, (h, w).
    """
    return weighted_sum(gradient.flatten(1).mean(1), activation)


@register(
    "HiResCAM",
    paper="Draelos & Carin 2020, arXiv 2011.08891",
    summary="Gradient times activation, pixel by pixel; lights only places that were used.",
)
def hirescam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Multiply gradient and activation pixel by pixel: ``sum_c g_c A_c``.

    Draelos & Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations", arXiv 2011.08891.

    Parameters
    ----------
    activation, gradient : torch.Tensor
        (C, h, w)

    Returns
    -------
    torch.Tensor
        The raw map, (h, w).
    """
    return (gradient * activation).sum(0)


@register(
    "GradCAMElementWise",
    paper="Gildenblat et al., pytorch-grad-cam, after Pillai & Pirsiavash, AAAI 2021",
    summary="As HiResCAM, keeping only the positive products of each channel.",
)
def gradcam_elementwise(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Sum the positive products: ``sum_c relu(g_c A_c)``.

    As in pytorch-grad-cam (Gildenblat et al. 2021), after the element-wise product of Pillai &
    Pirsiavash, "Explainable Models with Consistent Interpretations", AAAI 2021.

    Parameters
    ----------
    activation, gradient : torch.Tensor
        (C, h, w)

    Returns
    -------
    torch.Tensor
        The raw map, (h, w), nowhere negative.
    """
    return (gradient * activation).relu_().sum(0)


@register(
    "GradCAM++",
    paper="Chattopadhay et al., WACV 2018, arXiv 1710.11063",
    summary="Weighs positive gradients by higher-order terms; covers several objects of a class.",
)
def gradcam_plus_plus(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Weigh each channel by ``sum relu(g) a`` with ``a = g^2 / (2 g^2 + (sum A) g^3 + 1e-6)``.

    Chattopadhay et al., "Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks",
    WACV 2018, equation 19; a = 0 where g = 0. The 1e-6 is that of the reference implementation.

    Parameters
    ----------
    activation, gradient : torch.Tensor
        (C, h, w)

    Returns
    -------
    torch.Tensor
        The raw map, (h, w).
    """
    square = gradient**2
    total = activation.flatten(1).sum(1)[:, None, None]
    alpha = square / (2 * square + total * (square * gradient) + 1e-6)
    weights = (gradient.relu() * alpha).flatten(1).sum(1)
    return weighted_sum(weights, activation)


@register(
    "XGradCAM",
    paper="Fu et al., BMVC 2020, arXiv 2008.02312",
    summary="Gradients weighted by the activation they belong to.",
)
def xgradcam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Weigh each channel by ``sum(g A) / (sum A + 1e-7)``.

    Fu et al., "Axiom-based Grad-CAM", BMVC 2020, equation 6. The 1e-7 is that of the reference
    implementation.

    Parameters
    ----------
    activation, gradient : torch.Tensor
        (C, h, w)

    Returns
    -------
    torch.Tensor
        The raw map, (h, w).
    """
    total = activation.flatten(1).sum(1)
    product = (gradient * activation).flatten(1).sum(1)
    return weighted_sum(product / (total + 1e-7), activation)


@register(
    "LayerCAM",
    paper="Jiang et al., IEEE TIP 2021",
    summary="Positive gradients weigh the activation pixel by pixel; fine detail in early layers.",
)
def layercam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Weigh each pixel of each channel by its positive gradient: ``sum_c relu(g_c) A_c``.

    Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization",
    IEEE TIP 30, 2021.

    Parameters
    ----------
    activation, gradient : torch.Tensor
        (C, h, w)

    Returns
    -------
    torch.Tensor
        The raw map, (h, w).
    """
    return (gradient.relu() * activation).sum(0)
