"""Methods that project onto the first principal component."""

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
    caveat="It knows no class, and its sign is a convention: bright may be background.",
    gives="map",
    class_specific=False,
)
def eigencam(activation: torch.Tensor) -> torch.Tensor:
    """Show the activation's first principal component.

    Muhammad & Yeasin, "Eigen-CAM: Class Activation Map using Principal Components", IJCNN 2020;
    channel-centred, as in the reference implementation. See `first_component` for the sign.

    Parameters
    ----------
    activation : torch.Tensor
        (C, *s)

    Returns
    -------
    torch.Tensor
        The raw map, (*s).
    """
    return first_component(activation)


@register(
    "EigenGradCAM",
    paper="Gildenblat et al., pytorch-grad-cam, 2021",
    summary="First principal component of gradient times activation.",
    caveat="Its sign is a convention: bright may speak against the class.",
    gives="map",
)
def eigengradcam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Show the first principal component of gradient times activation.

    Gildenblat et al., pytorch-grad-cam, 2021. See `first_component` for the sign.

    Parameters
    ----------
    activation, gradient : torch.Tensor
        (C, *s)

    Returns
    -------
    torch.Tensor
        The raw map, (*s).
    """
    return first_component(gradient * activation)


@register(
    "SegEigenCAM",
    paper="Chung & Ying, Applied Sciences 15(13):7562, 2025",
    summary="First principal component of the activation times the gradient's magnitude.",
    caveat="The gradient's sign is dropped, so it cannot tell what speaks for from what speaks against.",
    gives="map",
)
def segeigencam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Show the first principal component of ``|g| A``, its largest magnitude positive.

    Chung & Ying, "Seg-Eigen-CAM: Eigen-Value-Based Visual Explanations for Semantic Segmentation
    Models", Applied Sciences 15(13):7562, 2025, equations 10 to 13.

    Parameters
    ----------
    activation, gradient : torch.Tensor
        (C, *s)

    Returns
    -------
    torch.Tensor
        The raw map, (*s).
    """
    return first_component(gradient.abs() * activation)


@register(
    "KPCA-CAM",
    paper="Karmani et al., MMSP 2024, arXiv 2410.00267",
    summary="First component of a kernel PCA of the activation: EigenCAM, bent.",
    caveat="It knows no class, its sign is a convention, and its time grows with the pixels squared.",
    gives="map",
    class_specific=False,
    aliases=("KPCACAM",),
)
def kpca_cam(
    activation: torch.Tensor,
    *,
    kernel: Kernel = "sigmoid",
    gamma: NotNegative | None = None,
    pixels: Positive = 16384,
) -> torch.Tensor:
    """Show the first component of a kernel PCA, each pixel a sample and each channel a feature.

    Karmani et al., "KPCA-CAM: Visual Explainability of Deep Computer Vision Models Using Kernel PCA",
    MMSP 2024; kernels and their constants as scikit-learn has them (``coef0 = 1``, ``degree = 3``).

    Parameters
    ----------
    activation : torch.Tensor
        (C, *s)
    kernel : {"sigmoid", "rbf", "poly", "cosine", "linear"}
        How alike two pixels are; "linear" is EigenCAM.
    gamma : float or None
        The kernel's coefficient; None for 1 / C.
    pixels : int
        Largest layer, in pixels, that is still computed; doubling it takes four times as long.

    Returns
    -------
    torch.Tensor
        The raw map, (*s).

    Raises
    ------
    NoMap
        When the layer has more pixels.
    """
    if activation[0].numel() > pixels:
        raise NoMap(f"more than {pixels} pixels")
    return kernel_component(activation, kernel, gamma)
