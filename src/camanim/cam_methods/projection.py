"""Reductions of channels to a map: weighted sums and first principal components."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from camanim.errors import NoMap
from camanim.precision import as_float64

if TYPE_CHECKING:
    import torch

#: Kernel matrices with up to `MAX_DOUBLE` values are stored in float64 (256 MB), up to `MAX_SINGLE` in
#: float32 (1 GB). Larger matrices are recomputed for each product, `BLOCK` values at a time.
MAX_DOUBLE, MAX_SINGLE, BLOCK = 2**25, 2**28, 2**23


def weighted_sum(weights: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """Return the sum of the channels (C, *s) with weights (C,), without a copy of the activation."""
    return (weights @ activation.flatten(1)).view(activation.shape[1:])


def first_component(features: torch.Tensor) -> torch.Tensor:
    """Return the projection of channel-centred features on their first principal component.

    For the centred pixels-by-channels matrix X this is ``X v``, with the first right singular vector v.
    It is computed from the smaller of the two Gram matrices (``X'X v = s^2 v``, or ``XX' u = s^2 u`` and
    ``X v = s u``), in float64 because squaring halves the number of significant digits. The sign of a
    singular vector is arbitrary: here the value of largest magnitude is positive.

    Parameters
    ----------
    features : torch.Tensor
        (C, *s)

    Returns
    -------
    torch.Tensor
        (*s), of the data type of the features; all NaN if any feature is not finite.
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
    return fix_sign(projection).to(features).view(features.shape[1:])


def fix_sign(projection: torch.Tensor) -> torch.Tensor:
    """Return the projection with the sign that makes the value of largest magnitude positive."""
    return projection * projection[projection.abs().argmax()].sign()


def kernel_component(features: torch.Tensor, kernel: str, gamma: float | None) -> torch.Tensor:
    """Return the projection of channel-centred features on the first component of a kernel PCA.

    Equals scikit-learn's ``KernelPCA(n_components=1, kernel=kernel, gamma=gamma)`` with pixels as
    samples and channels as features. Large matrices (pixels x pixels) are not stored, because the
    Lanczos iteration requires only their products with vectors.

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
        (*s), of the data type of the features; the value of largest magnitude is positive. All NaN if
        any feature is not finite.

    Raises
    ------
    NoMap
        If the iteration does not converge.
    """
    import torch

    if kernel == "linear" or not bool(features.isfinite().all()):
        return first_component(features)
    pixels = as_float64(features.flatten(1).T)
    pixels = pixels - pixels.mean(0)
    scale = 1 / pixels.shape[1] if gamma is None else gamma
    if kernel == "cosine":
        pixels = torch.nn.functional.normalize(pixels, eps=1e-300)
    kernel_rows = {
        "sigmoid": lambda rows: torch.tanh(scale * (rows @ pixels.T) + 1),
        "rbf": lambda rows: torch.exp(-scale * torch.cdist(rows, pixels) ** 2),
        "poly": lambda rows: (scale * (rows @ pixels.T) + 1) ** 3,
        "cosine": lambda rows: rows @ pixels.T,
    }[kernel]
    value, vector = _first_eigenvector(pixels, kernel_rows)
    projection = fix_sign(vector) * max(value, 0.0) ** 0.5
    component: torch.Tensor = projection.to(features).view(features.shape[1:])
    return component


def _first_eigenvector(
    pixels: torch.Tensor, kernel_rows: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[float, torch.Tensor]:
    """Return the largest eigenvalue of the centred kernel matrix, and its eigenvector."""
    import torch

    count = len(pixels)
    rows = max(1, BLOCK // count)
    single = MAX_DOUBLE < count**2 <= MAX_SINGLE
    whole = None
    if count**2 <= MAX_SINGLE:
        whole = pixels.new_empty((count, count), dtype=torch.float32 if single else torch.float64)
        for start in range(0, count, rows):
            whole[start : start + rows] = kernel_rows(pixels[start : start + rows])
    if whole is not None and count <= 200:
        centred = whole - whole.mean(0)
        centred = centred - centred.mean(1, keepdim=True)
        values, vectors = torch.linalg.eigh(centred)
        return float(values[-1]), vectors[:, -1]

    import numpy as np
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    def times(vector: np.ndarray) -> np.ndarray:
        # Centring the vector before and after equals a product with the centred matrix.
        centred = torch.from_numpy(vector.ravel()).to(pixels)
        centred = centred - centred.mean()
        if whole is not None:
            product = (whole @ centred.to(whole)).to(centred)
        else:
            product = torch.cat([kernel_rows(part) @ centred for part in pixels.split(rows)])
        array: np.ndarray = (product - product.mean()).cpu().numpy()
        return array

    # The initial vector must not be constant over space; the linear component is close to the result.
    initial = as_float64(first_component(pixels.T)).cpu().numpy()
    if not initial.any():
        return 0.0, torch.zeros_like(pixels[:, 0])
    initial = initial / np.abs(initial).max() + 1e-3 * np.cos(np.arange(count))
    matrix = LinearOperator((count, count), matvec=times, dtype=np.float64)
    try:
        values, vectors = eigsh(matrix, 1, which="LA", v0=initial, tol=1e-6 if single else 1e-9)
    except ArpackError as error:
        raise NoMap("no first component") from error
    return float(values[0]), torch.from_numpy(vectors[:, 0]).to(pixels)
