"""Methods that weigh the activation A (C, *s) by the gradient g (C, *s) of the target's score.

The functions return weights (C,) or products (C, *s), as declared by ``gives``. torch is not imported at
module level, so that methods can be listed without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camanim.cam_methods.registry import register
from camanim.declarations import NotNegative, Positive

if TYPE_CHECKING:
    import torch


@register(
    "GradCAM",
    paper="Selvaraju et al., ICCV 2017, arXiv 1610.02391",
    summary="Channels weighted by their mean gradient.",
    caveat="The mean gradient can highlight regions that did not contribute to the score.",
    gives="weights",
)
def gradcam(gradient: torch.Tensor) -> torch.Tensor:
    """Weigh each channel by its mean gradient: ``sum_c mean(g_c) A_c``.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017, equations 1 and 2 (before the ReLU).
    """
    return gradient.flatten(1).mean(1)


@register(
    "HiResCAM",
    paper="Draelos & Carin 2020, arXiv 2011.08891",
    summary="Gradient times activation, pixel by pixel; highlights only regions that contributed.",
    caveat="This holds for a last convolution followed by one linear layer, but not for all layers.",
    gives="products",
)
def hirescam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Multiply gradient and activation pixel by pixel: ``sum_c g_c A_c``.

    Draelos & Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations", arXiv 2011.08891.
    """
    return gradient * activation


@register(
    "GradCAMElementWise",
    paper="Gildenblat et al., pytorch-grad-cam, after Pillai & Pirsiavash, AAAI 2021",
    summary="HiResCAM with only the positive products of each channel.",
    caveat="Negative products are dropped in each channel, so evidence against the class is lost.",
    gives="products",
)
def gradcam_elementwise(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Sum the positive products: ``sum_c relu(g_c A_c)``.

    As in pytorch-grad-cam (Gildenblat et al. 2021), after the element-wise product of Pillai &
    Pirsiavash, "Explainable Models with Consistent Interpretations", AAAI 2021.
    """
    return (gradient * activation).relu_()


@register(
    "GradCAM++",
    paper="Chattopadhay et al., WACV 2018, arXiv 1710.11063",
    summary="Positive gradients weighted by higher-order terms; covers several objects of a class.",
    caveat="Its weights are never negative, so it cannot show evidence against the class.",
    gives="weights",
    aliases=("GradCAMpp",),
)
def gradcam_plus_plus(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Weigh each channel by ``sum relu(g) a`` with ``a = g^2 / (2 g^2 + (sum A) g^3 + 1e-6)``.

    Chattopadhay et al., "Grad-CAM++: Improved Visual Explanations for Deep Convolutional Networks",
    WACV 2018, equation 19; a = 0 where g = 0. The 1e-6 is that of the reference implementation.
    """
    slope = gradient.flatten(1)
    square = slope**2
    total = activation.flatten(1).sum(1, keepdim=True)
    alpha = square / (2 * square + total * (square * slope) + 1e-6)
    return (slope.relu() * alpha).sum(1)


@register(
    "XGradCAM",
    paper="Fu et al., BMVC 2020, arXiv 2008.02312",
    summary="Gradients weighted by the activation they belong to.",
    caveat="If the activations of a channel cancel out, its weight is divided by almost zero.",
    gives="weights",
)
def xgradcam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Weigh each channel by ``sum(g A) / (sum A + 1e-7)``.

    Fu et al., "Axiom-based Grad-CAM", BMVC 2020, equation 6. The 1e-7 is that of the reference
    implementation.
    """
    total = activation.flatten(1).sum(1)
    product = (gradient * activation).flatten(1).sum(1)
    return product / (total + 1e-7)


@register(
    "LayerCAM",
    paper="Jiang et al., IEEE TIP 2021",
    summary="Positive gradients weigh the activation pixel by pixel; fine detail in early layers.",
    caveat="Negative gradients are dropped, so it cannot show evidence against the class.",
    gives="products",
)
def layercam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Weigh each pixel of each channel by its positive gradient: ``sum_c relu(g_c) A_c``.

    Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization",
    IEEE TIP 30, 2021.
    """
    return gradient.relu() * activation


@register(
    "ShapleyCAM",
    paper="Cai, arXiv 2501.06261, 2025",
    summary="GradCAM less half the score's curvature: a second-order Shapley value.",
    caveat="In a network of ReLUs the curvature of a logit is zero, and the map equals GradCAM's.",
    cost="1 forward, 1 backward, and a backward of the gradient for each layer",
    gives="weights",
)
def shapleycam(gradient: torch.Tensor, curvature: torch.Tensor) -> torch.Tensor:
    """Weigh each channel by ``mean(g - H A / 2)``, H the Hessian of the score in the activation.

    The curvature (C, *s) is ``H A``. Cai, "CAMs as Shapley Value-based Explainers", arXiv 2501.06261.
    """
    return (gradient - curvature / 2).flatten(1).mean(1)


def _finer_target(
    target: Any, output: Any, *, alpha: float, comparisons: int, weighted: bool
) -> Any:
    """Return the contrast of the class with the nearest classes in this output."""
    # Imported here, because targets import torch.
    from camanim.targets import against_nearest

    return against_nearest(target, output, alpha, comparisons, weighted)


@register(
    "FinerCAM",
    paper="Zhang et al., CVPR 2025, arXiv 2501.11309",
    summary="GradCAM of the difference between the class and the classes nearest to it.",
    caveat="It shows what distinguishes the class from its neighbours, not all evidence for it.",
    gives="weights",
    target=_finer_target,
)
def finercam(
    gradient: torch.Tensor,
    *,
    alpha: NotNegative = 1.0,
    comparisons: Positive = 3,
    weighted: bool = True,
) -> torch.Tensor:
    """Weigh each channel by the mean gradient of a difference of scores.

    The score is ``sum_d p_d (y_c - alpha y_d) / sum_d p_d`` over the classes d whose scores are nearest
    to that of the class c, with their probabilities p. Zhang et al., "Finer-CAM: Spotting the Difference
    Reveals Finer Details for Visual Explanation", CVPR 2025.

    Parameters
    ----------
    alpha : float
        Weight of the other classes.
    comparisons : int
        Number of classes to compare with.
    weighted : bool
        Weight the classes by their probabilities, as in grad-cam, instead of equally, as in the paper.
    """
    del alpha, comparisons, weighted  # Options of the target.
    return gradcam(gradient)


def _slope(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return gradient


def _square(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return gradient**2


def _cube(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return gradient**3


@register(
    "SmoothGradCAM++",
    paper="Omeiza et al. 2019, arXiv 1908.01224",
    summary="GradCAM++ with gradients averaged over noisy copies of the image.",
    caveat="Its weights are never negative, and the map depends on the noise.",
    cost="1 forward and 1 backward for each sample, for all layers",
    gives="weights",
    aliases=("SmoothGradCAMpp", "SmoothGrad++"),
    averages={"mean_slope": _slope, "mean_square": _square, "mean_cube": _cube},
)
def smooth_gradcam_plus_plus(
    activation: torch.Tensor,
    mean_slope: torch.Tensor,
    mean_square: torch.Tensor,
    mean_cube: torch.Tensor,
    *,
    samples: Positive = 4,
    noise: NotNegative = 0.3,
) -> torch.Tensor:
    """Weigh each channel by ``sum relu(<g>) a`` with ``a = <g^2> / (2 <g^2> + sum(A <g^3>) + 1e-8)``.

    <.> is the mean over noisy copies of the image. Omeiza et al., "Smooth Grad-CAM++", arXiv 1908.01224,
    with the numerator as corrected in torch-cam, and its sum. torch-cam uses the gradient and the
    activation of the last noisy copy; here the gradient is the mean, as in the paper, and the activation
    that of the image without noise.

    Parameters
    ----------
    samples : int
        Number of noisy copies of the image.
    noise : float
        Standard deviation of the noise, in units of the normalised input of the network.
    """
    del samples, noise  # Options of the means.
    square = mean_square.flatten(1)
    total = (mean_cube * activation).flatten(1).sum(1, keepdim=True)
    alpha = square / (2 * square + total + 1e-8)
    return (alpha * mean_slope.flatten(1).relu()).sum(1)
