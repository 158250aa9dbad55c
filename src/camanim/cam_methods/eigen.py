"""Methods based on the first principal component of the activation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from camanim.cam_methods.projection import first_component, kernel_component
from camanim.cam_methods.registry import register
from camanim.declarations import NotNegative, Positive
from camanim.errors import NoMap

if TYPE_CHECKING:
    import torch

Kernel = Literal["sigmoid", "rbf", "poly", "cosine", "linear"]


@register(
    "EigenCAM",
    paper="Muhammad & Yeasin, IJCNN 2020, arXiv 2008.00299",
    summary="First principal component of the activation.",
    caveat="It does not depend on the class; its sign is arbitrary: high values may be background.",
    gives="map",
    class_specific=False,
    sign_free=True,
)
def eigencam(activation: torch.Tensor) -> torch.Tensor:
    """Project the activation on its first principal component.

    Muhammad & Yeasin, "Eigen-CAM: Class Activation Map using Principal Components", IJCNN 2020;
    channel-centred, as in the reference implementation. See `first_component` for the sign.
    """
    return first_component(activation)


@register(
    "EigenGradCAM",
    paper="Gildenblat et al., pytorch-grad-cam, 2021",
    summary="First principal component of gradient times activation.",
    caveat="Its sign is arbitrary: high values may be evidence against the class.",
    gives="map",
    sign_free=True,
)
def eigengradcam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Project gradient times activation on its first principal component.

    Gildenblat et al., pytorch-grad-cam, 2021. See `first_component` for the sign.
    """
    return first_component(gradient * activation)


@register(
    "SegEigenCAM",
    paper="Chung & Ying, Applied Sciences 15(13):7562, 2025",
    summary="First principal component of the activation times the gradient's magnitude.",
    caveat="The gradient's sign is dropped: evidence for and against the class looks alike.",
    gives="map",
    sign_free=True,
)
def segeigencam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Project ``|g| A`` on its first principal component.

    Chung & Ying, "Seg-Eigen-CAM: Eigen-Value-Based Visual Explanations for Semantic Segmentation
    Models", Applied Sciences 15(13):7562, 2025, equations 10 to 13.
    """
    return first_component(gradient.abs() * activation)


@register(
    "KPCA-CAM",
    paper="Karmani et al., MMSP 2024, arXiv 2410.00267",
    summary="First component of a kernel PCA of the activation: a nonlinear EigenCAM.",
    caveat="It does not depend on the class; its sign is arbitrary; its time grows with pixels squared.",
    gives="map",
    class_specific=False,
    aliases=("KPCACAM",),
    sign_free=True,
)
def kpca_cam(
    activation: torch.Tensor,
    *,
    kernel: Kernel = "sigmoid",
    gamma: NotNegative | None = None,
    pixels: Positive = 16384,
) -> torch.Tensor:
    """Project the activation on the first component of a kernel PCA.

    Pixels are samples and channels are features.

    Karmani et al., "KPCA-CAM: Visual Explainability of Deep Computer Vision Models Using Kernel PCA",
    MMSP 2024; the kernels and their constants are those of scikit-learn (``coef0 = 1``, ``degree = 3``).

    Parameters
    ----------
    kernel : {"sigmoid", "rbf", "poly", "cosine", "linear"}
        Similarity of two pixels; "linear" is EigenCAM.
    gamma : float or None
        Coefficient of the kernel; None for 1 / C.
    pixels : int
        Maximum number of pixels of a layer; the time grows with its square.

    Raises
    ------
    NoMap
        If the layer has more pixels.
    """
    if activation[0].numel() > pixels:
        raise NoMap(f"more than {pixels} pixels")
    return kernel_component(activation, kernel, gamma)
