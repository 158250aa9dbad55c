"""Imputation by multigrid: many masks and all channels at once, on any device.

The stencil of `weights` is the filter [1 2 1] x [1 2 1] less its centre. With B for that filter, zero
outside of the image, and n = B(1), which is 1 except at the border, a removed pixel is the weighted mean
of its neighbours where ``n x - B x = 0``. B attenuates most high-frequency error, so two Jacobi sweeps
are sufficient on each grid; the remaining error is smooth enough for the next coarser grid.

A coarse cell is removed if any of its pixels is. Kept pixels within such cells are represented by
conductances, summed over the cell, as in a network of resistors. Without them an isolated kept pixel
would either vanish from the coarse grids or grow into a large square. One cycle over all grids is the
preconditioner of conjugate gradients.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType

import torch
from torch.nn import functional

from camanim.road.constants import LAST_CELLS, LAST_SWEEPS, MAX_ITERATIONS, STEPS
from camanim.road.imputation import processors


@dataclass(frozen=True)
class Grid:
    """System ``degree x - B x = b`` on the removed cells of one grid.

    Attributes
    ----------
    removed : (B, 1, *S) float
        1 where a cell is removed, else 0.
    degree : (B, 1, *S) float
        n plus the conductance to kept pixels within removed cells.
    inverse : (B, 1, *S) float
        Inverse of the system's diagonal where a cell is removed, else 0.
    """

    removed: torch.Tensor
    degree: torch.Tensor
    inverse: torch.Tensor

    def system(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``degree x - B x``."""
        return (self.degree * x).sub_(filtered(x))


def filtered(x: torch.Tensor) -> torch.Tensor:
    """Return x filtered with [1 2 1] / 4 along each spatial axis, with zero padding."""
    for axis in range(2, x.ndim):
        inner = x.shape[axis] - 1
        y = x * 0.5
        y.narrow(axis, 1, inner).add_(x.narrow(axis, 0, inner), alpha=0.25)
        y.narrow(axis, 0, inner).add_(x.narrow(axis, 1, inner), alpha=0.25)
        x = y
    return x


def pool(x: torch.Tensor, *, largest: bool = False) -> torch.Tensor:
    """Return the mean, or the maximum, of 2 x 2 (x 2) cells, with zero padding."""
    ndim = x.ndim - 2
    x = functional.pad(x, [p for n in reversed(x.shape[2:]) for p in (0, n % 2)])
    function = getattr(functional, f"{'max' if largest else 'avg'}_pool{ndim}d")
    result: torch.Tensor = function(x, 2)
    return result


def upsampled(coarse: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return the coarse grid repeated to the size of `like`."""
    fine = functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
    for axis, count in enumerate(like.shape[2:], 2):
        fine = fine.narrow(axis, 0, count)
    return fine


def grids(kept: torch.Tensor) -> list[Grid]:
    """Return the systems of all grids, the finest first.

    Parameters
    ----------
    kept : (B, 1, *S) bool
    """
    removed = (~kept).float()
    conductance = torch.zeros_like(removed)
    centre = 0.5 ** (kept.ndim - 2)
    levels: list[Grid] = []
    while True:
        degree = conductance + filtered(torch.ones_like(removed[:1]))
        levels.append(Grid(removed, degree, removed / (degree - centre)))
        if max(removed.shape[2:]) <= LAST_CELLS:
            return levels
        coarse = pool(removed, largest=True)
        # Kept pixels in kept cells are represented on the coarse grid.
        kept_inside = upsampled(coarse, removed) * (1 - removed)
        conductance = pool((conductance + filtered(kept_inside)).mul_(removed)).mul_(4)
        removed = coarse


class Cycle:
    """One symmetric V-cycle, an approximate solver.

    Parameters
    ----------
    levels : list of Grid
        Finest first.
    """

    def __init__(self, levels: list[Grid]) -> None:
        self.grid = levels[0]
        self._coarser = Cycle(levels[1:]) if levels[1:] else None

    def __call__(self, b: torch.Tensor) -> torch.Tensor:
        """Return the approximate solution for b, (B, C, *S); b must be 0 on kept cells."""
        grid, (first, second) = self.grid, STEPS
        x = self._jacobi_sweep((b * grid.inverse).mul_(first), b, second)
        if self._coarser is not None:
            coarse = pool((b - grid.system(x)).mul_(grid.removed)).mul_(4)
            x.addcmul_(upsampled(self._coarser(coarse), x), grid.removed)
        for _ in range(1 if self._coarser else LAST_SWEEPS):
            x = self._jacobi_sweep(self._jacobi_sweep(x, b, second), b, first)
        return x

    def _jacobi_sweep(self, x: torch.Tensor, b: torch.Tensor, step: float) -> torch.Tensor:
        """Return x after one weighted Jacobi sweep."""
        return x.add((b - self.grid.system(x)).mul_(self.grid.inverse), alpha=step)


def solve(image: torch.Tensor, kept: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the imputed images, by conjugate gradients preconditioned with a `Cycle`.

    Parameters
    ----------
    image : (C, *S)
    kept : (B, *S) bool
    threshold : float
        Iterations stop after a step with no larger change.

    Returns
    -------
    (B, C, *S)
    """
    kept = kept[:, None]
    space = tuple(range(2, kept.ndim))
    mean = torch.where(kept, image, 0.0).sum(space, keepdim=True) / kept.sum(
        space, keepdim=True
    ).clamp(min=1)
    x = torch.where(kept, image, mean)
    levels = grids(kept)
    grid, cycle = levels[0], Cycle(levels)
    residual = grid.system(x).mul_(grid.removed).neg_()
    direction, previous_rho = torch.zeros_like(x), torch.full_like(mean, float("inf"))
    active = torch.ones_like(mean[:, :1], dtype=torch.bool)
    for _ in range(MAX_ITERATIONS):
        preconditioned = cycle(residual)
        rho = (residual * preconditioned).sum(space, keepdim=True)
        direction = direction.mul_(_ratio(rho, previous_rho)).add_(preconditioned)
        applied = grid.system(direction).mul_(grid.removed)
        # Each mask stops separately, so that results do not depend on the other masks of the batch.
        length = _ratio(rho, (direction * applied).sum(space, keepdim=True)).mul_(active)
        step = length * direction
        x += step
        residual.addcmul_(length, applied, value=-1)
        previous_rho = rho
        active &= step.abs().amax((1, *space), keepdim=True) > threshold
        if not active.any():
            break
    return x


def _ratio(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return a / b; 0 where the residual is 0."""
    return torch.where(b > 0, a / b, 0.0)


def _compiled() -> ModuleType | None:
    """Return the module of compiled loops; None if numba does not support this Python version."""
    try:
        from camanim.road import compiled
    except ImportError:
        return None
    return compiled


@dataclass(frozen=True)
class MultigridImputer:
    """Solve the linear system of every mask by multigrid-preconditioned conjugate gradients.

    Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022:
    a removed pixel is the weighted mean of its neighbours, with the weights of `weights`, renormalised
    at the border. Noise is not added here.

    Parameters
    ----------
    tolerance : float
        Maximum difference from the exact solution, as a fraction of the image's range.
    compiled : bool
        Solve images on the CPU by loops compiled with numba instead of torch.
    """

    tolerance: float = 1e-5
    compiled: bool = True

    def __call__(self, image: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Return the imputed images; see `Imputer`."""
        image = image.float().contiguous()
        # The change of a step is several times the remaining error.
        threshold = 3 * self.tolerance * float(image.max() - image.min())
        compiled = _compiled() if self.compiled else None
        if image.device.type != "cpu" or image.ndim != 3 or compiled is None:
            return solve(image, kept, threshold)
        filled = image.new_empty(len(kept), *image.shape)
        count = min(processors(), len(kept))
        parts = zip(kept.contiguous().chunk(count), filled.chunk(count), strict=True)
        with ThreadPoolExecutor(count) as executor:
            futures = [
                executor.submit(compiled.solve, image.numpy(), part.numpy(), threshold, out.numpy())
                for part, out in parts
            ]
            for future in futures:
                future.result()
        return filled
