"""Methods based on the activation, the weights of the classifier, or the bias of the layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camanim.cam_methods.registry import register
from camanim.declarations import NotNegative
from camanim.errors import NoMap
from camanim.precision import as_float64

if TYPE_CHECKING:
    import torch

#: Maximum difference between a layer's means and the classifier's features due to rounding, as a
#: fraction of the largest feature.
TOLERANCE = 1e-4


@register(
    "CAM",
    paper="Zhou et al., CVPR 2016, arXiv 1512.04150",
    summary="Layer before global average pooling, weighted by the classifier's weights of the class.",
    caveat="Defined only for the layer before global average pooling and a single linear layer.",
    gives="products",
    aliases=("ZhouCAM",),
)
def cam(activation: torch.Tensor, head: Any) -> torch.Tensor:
    """Weigh each channel by the last linear layer: ``sum_c w_c A_c``.

    Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, equation 2. The
    mean of the map is the logit of the class without its bias. If the network pools the ReLU of the
    layer, A is the ReLU.

    Raises
    ------
    NoMap
        If the network does not end in a linear layer, or its features are not the means of this layer.
    """
    if head is None:
        raise NoMap("no linear classifier")
    features = head.features
    if len(features) == len(activation):
        largest = features.abs().max()
        for used in (activation, activation.relu()):
            if bool(((used.flatten(1).mean(1) - features).abs() <= TOLERANCE * largest).all()):
                products: torch.Tensor = head.gradient.view(-1, *[1] * (used.ndim - 1)) * used
                return products
    raise NoMap("not what the classifier pools")


@register(
    "FEM",
    paper="Fuad et al., IPTA 2020",
    summary="Channels weighted by their fraction of outlier pixels.",
    caveat="It does not depend on the class: it highlights values that are rare in the layer.",
    gives="weights",
    class_specific=False,
)
def fem(activation: torch.Tensor, *, k: NotNegative = 2.0) -> torch.Tensor:
    """Weigh each channel by the fraction of pixels above ``mean + k standard deviations``.

    Fuad et al., "Features Understanding in 3D CNNs for Actions Recognition in Video", IPTA 2020.

    Parameters
    ----------
    k : float
        Threshold, in standard deviations above the channel's mean.
    """
    # In single precision, the mean of a constant channel may be below its value.
    flat = as_float64(activation.flatten(1))
    threshold = flat.mean(1, keepdim=True) + k * flat.std(1, correction=0, keepdim=True)
    return (flat > threshold).to(flat).mean(1).to(activation)


@register(
    "FullGrad",
    paper="Srinivas & Fleuret, NeurIPS 2019, arXiv 1905.00780",
    summary="Magnitude of the contribution of the layer's biases to the score, at each position.",
    caveat="It is unsigned, and only the sum over all layers and the input equals the score.",
    gives="products",
    aliases=("FullGradCAM",),
)
def fullgrad(gradient: torch.Tensor, module: Any) -> torch.Tensor:
    """Multiply the layer's bias by the gradient of its output: ``sum_c |b_c g_c|``.

    Srinivas & Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS 2019,
    equation 5 for one layer. The bias of a batch normalisation is ``b - mean w / sqrt(variance +
    epsilon)``. For layers that are not linear in their input (other normalisations) it is the bias
    parameter. grad-cam rescales each channel to [0, 1], sums over all layers, and adds the input times
    its gradient.

    Raises
    ------
    NoMap
        If the layer has no bias for each channel.
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
