"""Filling removed pixels: each becomes the weighted mean of its eight neighbours."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

#: Direct neighbours weigh 1/6, diagonal ones 1/12 (Rong et al. 2022, section 4.1).
WEIGHTS = {(dy, dx): 1 / 6 if dy == 0 or dx == 0 else 1 / 12
           for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx}  # fmt: skip


class Imputer(Protocol):
    """Fills the removed pixels of one image, for a batch of masks."""

    def __call__(self, image: torch.Tensor, kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Impute.

        Parameters
        ----------
        image : torch.Tensor
            (C, H, W) float32, on the CPU.
        kept : (B, H, W) bool
            True where a pixel stays as it is. Every removed pixel must be connected to a kept one.

        Returns
        -------
        torch.Tensor
            (B, C, H, W) float32, on the CPU.
        """
        ...


class DirectImputer:
    """Solve the linear system of each mask directly (sparse LU, one factorisation for all channels).

    Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022:
    a removed pixel is the weighted mean of its neighbours, with the weights of `WEIGHTS`, renormalised
    at the border. Without noise.

    Parameters
    ----------
    threads : int, optional
        Masks that are solved at once; by default one per processor that this process may use. SuperLU
        works outside of Python's lock.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or _processors()

    def __call__(self, image: torch.Tensor, kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Impute; see `Imputer`."""
        import torch

        channels, height, width = image.shape
        laplacian = _laplacian(height, width)
        pixels = image.reshape(channels, -1).double().numpy().T
        flat = kept.reshape(len(kept), -1)
        with ThreadPoolExecutor(self.threads) as pool:
            filled = list(pool.map(lambda mask: _solve(laplacian, pixels, mask), flat))
        batch = np.stack(filled).astype(np.float32).transpose(0, 2, 1)
        return torch.from_numpy(np.ascontiguousarray(batch)).reshape(-1, channels, height, width)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def _laplacian(height: int, width: int) -> Any:
    """Assemble the system of all pixels: a row says that a pixel is the mean of its neighbours."""
    from scipy.sparse import coo_array, diags_array

    index = np.arange(height * width, dtype=np.int32).reshape(height, width)
    rows, columns, weights = [], [], []
    for (dy, dx), weight in WEIGHTS.items():
        here = index[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
        there = index[max(0, dy) : height - max(0, -dy), max(0, dx) : width - max(0, -dx)]
        rows.append(here.ravel())
        columns.append(there.ravel())
        weights.append(np.full(here.size, weight))
    place = (np.concatenate(rows), np.concatenate(columns))
    neighbours = coo_array((np.concatenate(weights), place), shape=(index.size, index.size)).tocsr()
    return (diags_array(neighbours.sum(axis=1)) - neighbours).tocsr()


def _solve(
    laplacian: Any, pixels: npt.NDArray[np.float64], kept: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    from scipy.sparse.linalg import splu

    filled = pixels.copy()
    removed = np.flatnonzero(~kept)
    if removed.size == 0:
        return filled
    rows = laplacian[removed]
    # The known pixels' part of each equation goes to the right-hand side.
    known = pixels * kept[:, None]
    system = rows[:, removed].tocsc()
    # The system is symmetric and positive definite: no pivoting, and an ordering for symmetry.
    factors = splu(
        system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    filled[removed] = factors.solve(-(rows @ known))
    return filled
