"""Steps from channels over space to one map: weighted sum and first principal components."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from camanim.errors import NoMap
from camanim.precision import as_float64

if TYPE_CHECKING:
    import torch

#: Kernel matrices with up to `KEPT` values are kept in float64 (256 MB), up to `KEPT_SINGLE` in float32
#: (1 GB). Larger ones are recomputed for each product, `BLOCK` values at a time.
KEPT, KEPT_SINGLE, BLOCK = 2**25, 2**28, 2**23


def weighted_sum(weights: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """Sum the channels (C, *s) with weights (C,), without a copy of the activation."""
    return (weights @ activation.flatten(1)).view(activation.shape[1:])


def first_component(features: torch.Tensor) -> torch.Tensor:
    """Project the channel-centred features on their first principal component.

    With X the pixels-by-channels matrix, less each channel's mean, this is ``X v``, v the first right
    singular vector of X. It comes from the smaller of the two Gram matrices (``X'X v = s^2 v``, or
    ``XX' u = s^2 u`` and ``X v = s u``), in float64 because squaring halves the digits. The sign of a
    singular vector is arbitrary: here the value of largest magnitude is positive.

    Parameters
    ----------
    features : torch.Tensor
        (C, *s)

    Returns
    -------
    torch.Tensor
        (*s), in the features' type; NaN where the features are not finite.
    """
    import torch

    if not bool(features.isfinite().all()):
        return torch.full_like(features[0], torch.nan)
    centred = as_float64(features.flatten(1))
    centred = centred - centred.mean(1, keepdim=True)
    if centred.shape[0] <= centred.shape[1]:
        projection = torch.linalg.eigh(centred @ centred.T).eigenvectors[:, -1] @ centred
    else:
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        projection = vectors[:, -1] * values[-1].clamp(min=0).sqrt()
    return upright(projection).to(features).view(features.shape[1:])


def upright(projection: torch.Tensor) -> torch.Tensor:
    """Choose the sign that makes the value of largest magnitude positive."""
    return projection * projection[projection.abs().argmax()].sign()


def kernel_component(features: torch.Tensor, kernel: str, gamma: float | None) -> torch.Tensor:
    """Project the channel-centred features on the first component of a kernel PCA.

    Equals scikit-learn's ``KernelPCA(n_components=1, kernel=kernel, gamma=gamma)`` with pixels as
    samples and channels as features. A large matrix (pixels x pixels) is not stored: Lanczos' iteration
    needs only its products with vectors.

    Parameters
    ----------
    features : torch.Tensor
        (C, *s)
    kernel : {"sigmoid", "rbf", "poly", "cosine", "linear"}
    gamma : float or None
        None for 1 / C.

    Returns
    -------
    torch.Tensor
        (*s), in the features' type; the value of largest magnitude is positive. NaN where the features
        are not finite.

    Raises
    ------
    NoMap
        When the iteration does not converge.
    """
    import torch

    if kernel == "linear" or not bool(features.isfinite().all()):
        return first_component(features)
    pixels = as_float64(features.flatten(1).T)
    pixels = pixels - pixels.mean(0)
    scale = 1 / pixels.shape[1] if gamma is None else gamma
    if kernel == "cosine":
        pixels = torch.nn.functional.normalize(pixels, eps=1e-300)
    similar = {
        "sigmoid": lambda rows: torch.tanh(scale * (rows @ pixels.T) + 1),
        "rbf": lambda rows: torch.exp(-scale * torch.cdist(rows, pixels) ** 2),
        "poly": lambda rows: (scale * (rows @ pixels.T) + 1) ** 3,
        "cosine": lambda rows: rows @ pixels.T,
    }[kernel]
    value, vector = _top(pixels, similar)
    projection = upright(vector) * max(value, 0.0) ** 0.5
    component: torch.Tensor = projection.to(features).view(features.shape[1:])
    return component


def _top(
    pixels: torch.Tensor, similar: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[float, torch.Tensor]:
    """Return the largest eigenvalue of the centred kernel matrix, and its vector."""
    import torch

    count = len(pixels)
    rows = max(1, BLOCK // count)
    single = KEPT < count**2 <= KEPT_SINGLE
    whole = None
    if count**2 <= KEPT_SINGLE:
        whole = pixels.new_empty((count, count), dtype=torch.float32 if single else torch.float64)
        for start in range(0, count, rows):
            whole[start : start + rows] = similar(pixels[start : start + rows])
    if whole is not None and count <= 200:
        centred = whole - whole.mean(0)
        centred = centred - centred.mean(1, keepdim=True)
        values, vectors = torch.linalg.eigh(centred)
        return float(values[-1]), vectors[:, -1]

    import numpy as np
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    def times(vector: np.ndarray) -> np.ndarray:
        # The product with the centred matrix: the vector is centred before and after.
        centred = torch.from_numpy(vector.ravel()).to(pixels)
        centred = centred - centred.mean()
        if whole is not None:
            product = (whole @ centred.to(whole)).to(centred)
        else:
            product = torch.cat([similar(part) @ centred for part in pixels.split(rows)])
        array: np.ndarray = (product - product.mean()).cpu().numpy()
        return array

    # The start must not be constant over space; the linear component is near the result.
    start_at = as_float64(first_component(pixels.T)).cpu().numpy()
    if not start_at.any():
        return 0.0, torch.zeros_like(pixels[:, 0])
    start_at = start_at / np.abs(start_at).max() + 1e-3 * np.cos(np.arange(count))
    matrix = LinearOperator((count, count), matvec=times, dtype=np.float64)
    try:
        values, vectors = eigsh(matrix, 1, which="LA", v0=start_at, tol=1e-6 if single else 1e-9)
    except ArpackError as error:
        raise NoMap("no first component") from error
    return float(values[0]), torch.from_numpy(vectors[:, 0]).to(pixels)
