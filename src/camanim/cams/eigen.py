"""Methods that project onto the first principal component."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camanim.cams.registry import register

if TYPE_CHECKING:
    import torch


def first_component(features: torch.Tensor) -> torch.Tensor:
    """Project the channel-centred features on their first principal component.

    With X the pixels-by-channels matrix, less each channel's mean, this is ``X v``, v the first right
    singular vector of X. It comes from the smaller of the two Gram matrices (``X'X v = s^2 v``, or
    ``XX' u = s^2 u`` and ``X v = s u``), in float64 because squaring halves the digits. The sign of a
    singular vector is arbitrary: here the value of largest magnitude is positive.

    Parameters
    ----------
    features : torch.Tensor
        (C, h, w)

    Returns
    -------
    torch.Tensor
        (h, w), in the features' type; NaN where the features are not finite.
    """
    import torch

    if not bool(features.isfinite().all()):
        return torch.full_like(features[0], torch.nan)
    wide = features.flatten(1).double()
    wide = wide - wide.mean(1, keepdim=True)
    if wide.shape[0] <= wide.shape[1]:
        projection = torch.linalg.eigh(wide @ wide.T).eigenvectors[:, -1] @ wide
    else:
        values, vectors = torch.linalg.eigh(wide.T @ wide)
        projection = vectors[:, -1] * values[-1].clamp(min=0).sqrt()
    projection = projection * projection[projection.abs().argmax()].sign()
    result: torch.Tensor = projection.to(features.dtype).view(features.shape[1:])
    return result


@register(
    "EigenCAM",
    paper="Muhammad & Yeasin, IJCNN 2020, arXiv 2008.00299",
    summary="First principal component of the activation; knows no class, and its sign is a convention.",
    class_specific=False,
)
def eigencam(activation: torch.Tensor) -> torch.Tensor:
    """Show the activation's first principal component.

    Muhammad & Yeasin, "Eigen-CAM: Class Activation Map using Principal Components", IJCNN 2020;
    channel-centred, as in the reference implementation. See `first_component` for the sign.

    Parameters
    ----------
    activation : torch.Tensor
        (C, h, w)

    Returns
    -------
    torch.Tensor
        The raw map, (h, w).
    """
    return first_component(activation)


@register(
    "EigenGradCAM",
    paper="Gildenblat et al., pytorch-grad-cam, 2021",
    summary="First principal component of gradient times activation; its sign is a convention.",
)
def eigengradcam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Show the first principal component of gradient times activation.

    Gildenblat et al., pytorch-grad-cam, 2021. See `first_component` for the sign.

    Parameters
    ----------
    activation, gradient : torch.Tensor
        (C, h, w)

    Returns
    -------
    torch.Tensor
        The raw map, (h, w).
    """
    return first_component(gradient * activation)
