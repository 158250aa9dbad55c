"""Imputation of removed pixels as the weighted mean of their 8 or 26 neighbours."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float64]


def weights(ndim: int) -> dict[tuple[int, ...], float]:
    """Return the weight of each neighbour of a pixel or voxel, by its offset along each axis.

    Direct neighbours weigh 1/6, diagonal ones 1/12 (Rong et al. 2022, section 4.1). That is
    ``[1 2 1] x [1 2 1]`` less its centre; in three dimensions the same product has three factors.
    """
    steps = [step for step in product((-1, 0, 1), repeat=ndim) if any(step)]
    return {step: prod(2 - abs(d) for d in step) / (4**ndim - 2**ndim) for step in steps}


def noise_field(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Return standard normal noise, drawn on the CPU, so that it does not depend on the device."""
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, device="cpu")


class Imputer(Protocol):
    """Callable that fills the removed pixels of one image, for a batch of masks."""

    def __call__(self, image: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Return the imputed images.

        Parameters
        ----------
        image : torch.Tensor
            (C, *S) float32.
        kept : torch.Tensor
            (B, *S) bool, on the same device: True where a pixel is unchanged. At least one is.

        Returns
        -------
        torch.Tensor
            (B, C, *S) float32.
        """
        ...


def is_builtin(imputer: object) -> bool:
    """Return whether an imputer is part of camanim: immutable, and its errors are not the user's."""
    return type(imputer).__module__.startswith("camanim.road.")


@dataclass(frozen=True)
class DirectImputer:
    """Solve the linear system of each mask: directly for images, by conjugate gradients for volumes.

    Reference implementation for `MultigridImputer`, which is many times as fast.

    Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022:
    a removed pixel is the weighted mean of its neighbours, with the weights of `weights`, renormalised
    at the border. Noise is not added here. Images use one sparse LU factorisation for all channels. For
    volumes it would not fit into memory; they use conjugate gradients to a relative residual of 1e-6.

    Parameters
    ----------
    threads : int, optional
        Number of masks solved in parallel; by default the processors available to this process. SuperLU
        releases the GIL.
    """

    threads: int | None = None

    def __call__(self, image: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Return the imputed images; see `Imputer`."""
        import torch

        channels, *size = image.shape
        laplacian = _laplacian(tuple(size))
        pixels = image.reshape(channels, -1).double().cpu().numpy().T
        flat = kept.reshape(len(kept), -1).cpu().numpy()
        solve = _directly if len(size) == 2 else _by_gradients
        with ThreadPoolExecutor(self.threads or processors()) as executor:
            filled = list(executor.map(lambda mask: _fill(laplacian, pixels, mask, solve), flat))
        batch = np.stack(filled).astype(np.float32).transpose(0, 2, 1)
        images = torch.from_numpy(np.ascontiguousarray(batch)).to(image.device)
        return images.reshape(-1, channels, *size)


def processors() -> int:
    """Return the number of processors available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def _laplacian(size: tuple[int, ...]) -> Any:
    """Return the weighted graph Laplacian of all pixels: 0 where a pixel is its neighbours' mean."""
    from scipy.sparse import coo_array, diags_array

    index = np.arange(prod(size), dtype=np.int32).reshape(size)
    rows, columns, values = [], [], []
    for step, weight in weights(len(size)).items():
        pixels = index[
            tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(step, size, strict=True))
        ]
        shifted = index[
            tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip(step, size, strict=True))
        ]
        rows.append(pixels.ravel())
        columns.append(shifted.ravel())
        values.append(np.full(pixels.size, weight))
    indices = (np.concatenate(rows), np.concatenate(columns))
    neighbours = coo_array(
        (np.concatenate(values), indices), shape=(index.size, index.size)
    ).tocsr()
    return (diags_array(neighbours.sum(axis=1)) - neighbours).tocsr()


def _fill(
    laplacian: Any, pixels: Floats, kept: npt.NDArray[np.bool_], solve: Callable[..., Floats]
) -> Floats:
    filled = pixels.copy()
    removed = np.flatnonzero(~kept)
    if removed.size == 0:
        return filled
    rows = laplacian[removed]
    # The terms of kept pixels are moved to the right-hand side.
    known = pixels * kept[:, None]
    filled[removed] = solve(rows[:, removed].tocsc(), -(rows @ known))
    return filled


def _directly(system: Any, right: Floats) -> Floats:
    from scipy.sparse.linalg import splu

    # The system is symmetric and positive definite: no pivoting, and an ordering for symmetry.
    factors = splu(
        system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    solution: Floats = factors.solve(right)
    return solution


def _by_gradients(system: Any, right: Floats) -> Floats:
    from scipy.sparse.linalg import cg

    columns = [cg(system, column, rtol=1e-6, maxiter=10_000)[0] for column in right.T]
    return np.stack(columns, axis=1)
