"""Methods that use the activation alone, the classifier's weights, or the layer's bias."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camanim.cam_methods.registry import register
from camanim.declarations import NotNegative
from camanim.errors import NoMap

if TYPE_CHECKING:
    import torch

#: Largest difference between a layer's means and the classifier's features, as a share of the largest
#: feature: rounding in another order.
SAME = 1e-4


@register(
    "CAM",
    paper="Zhou et al., CVPR 2016, arXiv 1512.04150",
    summary="The layer that the classifier averages, weighted by the weights of the class.",
    caveat="Only a layer right before global average pooling and one linear layer has such a map.",
    gives="products",
    aliases=("ZhouCAM",),
)
def cam(activation: torch.Tensor, head: Any) -> torch.Tensor:
    """Weigh each channel by the last linear layer: ``sum_c w_c A_c``.

    Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, equation 2. The
    map's mean is the class's logit less its bias. Where the network pools the layer's ReLU, A is the
    ReLU.

    Raises
    ------
    NoMap
        When the network does not end in a linear layer, or its features are not this layer's means.
    """
    if head is None:
        raise NoMap("no linear classifier")
    features = head.features
    if len(features) == len(activation):
        largest = features.abs().max()
        for used in (activation, activation.relu()):
            if bool(((used.flatten(1).mean(1) - features).abs() <= SAME * largest).all()):
                products: torch.Tensor = head.gradient.view(-1, *[1] * (used.ndim - 1)) * used
                return products
    raise NoMap("not what the classifier pools")


@register(
    "FEM",
    paper="Fuad et al., IPTA 2020",
    summary="Channels weighted by the share of their pixels that stand out.",
    caveat="It does not depend on the class: it shows what is rare in the layer.",
    gives="weights",
    class_specific=False,
)
def fem(activation: torch.Tensor, *, k: NotNegative = 2.0) -> torch.Tensor:
    """Weigh each channel by the share of pixels above ``mean + k standard deviations``.

    Fuad et al., "Features Understanding in 3D CNNs for Actions Recognition in Video", IPTA 2020.

    Parameters
    ----------
    k : float
        Threshold, in standard deviations above the channel's mean.
    """
    flat = activation.flatten(1)
    limit = flat.mean(1, keepdim=True) + k * flat.std(1, correction=0, keepdim=True)
    return (flat > limit).to(activation).mean(1)


@register(
    "FullGrad",
    paper="Srinivas & Fleuret, NeurIPS 2019, arXiv 1905.00780",
    summary="How much each bias of the layer changed the score, at each position.",
    caveat="It has no sign, and only the sum over all layers accounts for the score.",
    gives="products",
    aliases=("FullGradCAM",),
)
def fullgrad(gradient: torch.Tensor, module: Any) -> torch.Tensor:
    """Multiply the layer's bias by the gradient of its output: ``sum_c |b_c g_c|``.

    Srinivas & Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS 2019,
    equation 5 for one layer. The bias of a batch normalisation is ``b - mean w / sqrt(variance +
    epsilon)``. For layers that are not linear in their input (other normalisations) it is their
    bias parameter. grad-cam rescales each channel to [0, 1], sums over all layers, and adds the input
    times its gradient.

    Raises
    ------
    NoMap
        When the layer has no bias for each channel.
    """
    bias = _bias(module)
    if bias is None or bias.shape != gradient.shape[:1]:
        raise NoMap("no bias")
    return (gradient * bias.detach().to(gradient).view(-1, *[1] * (gradient.ndim - 1))).abs()


def _bias(module: Any) -> torch.Tensor | None:
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    bias = getattr(module, "bias", None)
    if isinstance(module, _BatchNorm) and module.running_mean is not None:
        assert module.running_var is not None
        implicit = -module.running_mean / (module.running_var + module.eps).sqrt()
        return implicit * module.weight + module.bias if module.affine else implicit
    return bias if isinstance(bias, torch.Tensor) and bias.is_floating_point() else None
