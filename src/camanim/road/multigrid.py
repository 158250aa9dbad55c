"""Imputation by multigrid: many masks and all channels at once, on any device.

The stencil of `weights` is the filter [1 2 1] x [1 2 1] less its centre. With B for that filter, zero
outside of the image, and n = B(1), which is 1 but at the border, a removed pixel is the weighted mean of
its neighbours where ``n x - B x = 0``. B by itself takes most of an error's fine structure away, so two
of Jacobi's sweeps do on each grid, and what is left is smooth enough for the next coarser one.

A coarse cell is removed if any of its pixels is. The kept pixels within such cells hold their neighbours
by conductances, which are summed over the cell, as in a network of resistors; without them a kept pixel
on its own would either vanish from the coarse grids or grow into a large square. One cycle over all
grids is no solver yet, but a good preconditioner for conjugate gradients, whatever the mask.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType

import torch
from torch.nn import functional

from camanim.road.constants import LAST_CELLS, LAST_SWEEPS, MOST, STEPS
from camanim.road.imputation import processors


@dataclass(frozen=True)
class Grid:
    """The system ``own x - B x = b`` on the removed cells of one grid.

    Attributes
    ----------
    removed : (B, 1, *S) float
        1 where a cell is removed, else 0.
    own : (B, 1, *S) float
        n, and the conductance to kept pixels within removed cells.
    inverse : (B, 1, *S) float
        1 over the diagonal of the system where a cell is removed, else 0.
    """

    removed: torch.Tensor
    own: torch.Tensor
    inverse: torch.Tensor

    def system(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``own x - B x``."""
        return (self.own * x).sub_(blurred(x))


def blurred(x: torch.Tensor) -> torch.Tensor:
    """Filter with [1 2 1] / 4 along each axis of space, zero outside."""
    for axis in range(2, x.ndim):
        inner = x.shape[axis] - 1
        y = x * 0.5
        y.narrow(axis, 1, inner).add_(x.narrow(axis, 0, inner), alpha=0.25)
        y.narrow(axis, 0, inner).add_(x.narrow(axis, 1, inner), alpha=0.25)
        x = y
    return x


def pooled(x: torch.Tensor, *, largest: bool = False) -> torch.Tensor:
    """Take the mean, or the largest, of 2 x 2 (x 2) cells; beyond the border there are zeros."""
    ndim = x.ndim - 2
    x = functional.pad(x, [p for n in reversed(x.shape[2:]) for p in (0, n % 2)])
    names = ("max_pool", "avg_pool")
    pool = getattr(functional, f"{names[not largest]}{ndim}d")
    result: torch.Tensor = pool(x, 2)
    return result


def enlarged(coarse: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Hand each coarse cell's value to its pixels."""
    fine = functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
    for axis, count in enumerate(like.shape[2:], 2):
        fine = fine.narrow(axis, 0, count)
    return fine


def grids(kept: torch.Tensor) -> list[Grid]:
    """Set up all grids, the finest first.

    Parameters
    ----------
    kept : (B, 1, *S) bool
    """
    removed = (~kept).float()
    held = torch.zeros_like(removed)
    centre = 0.5 ** (kept.ndim - 2)
    found: list[Grid] = []
    while True:
        own = held + blurred(torch.ones_like(removed[:1]))
        found.append(Grid(removed, own, removed / (own - centre)))
        if max(removed.shape[2:]) <= LAST_CELLS:
            return found
        coarse = pooled(removed, largest=True)
        # Kept pixels in cells that are kept are there on the coarse grid too.
        hidden = enlarged(coarse, removed) * (1 - removed)
        held = pooled((held + blurred(hidden)).mul_(removed)).mul_(4)
        removed = coarse


class Cycle:
    """One cycle: down to the coarsest grid and up again, symmetrically, about to the solution.

    Parameters
    ----------
    levels : list of Grid
        The finest first.
    """

    def __init__(self, levels: list[Grid]) -> None:
        self.grid = levels[0]
        self._coarser = Cycle(levels[1:]) if levels[1:] else None

    def __call__(self, b: torch.Tensor) -> torch.Tensor:
        """Return about the solution for b, (B, C, *S), which is 0 where a cell is not removed."""
        grid, (first, second) = self.grid, STEPS
        x = self._relax((b * grid.inverse).mul_(first), b, second)
        if self._coarser is not None:
            below = pooled((b - grid.system(x)).mul_(grid.removed)).mul_(4)
            x.addcmul_(enlarged(self._coarser(below), x), grid.removed)
        for _ in range(1 if self._coarser else LAST_SWEEPS):
            x = self._relax(self._relax(x, b, second), b, first)
        return x

    def _relax(self, x: torch.Tensor, b: torch.Tensor, step: float) -> torch.Tensor:
        """Do one of Jacobi's sweeps."""
        return x.add((b - self.grid.system(x)).mul_(self.grid.inverse), alpha=step)


def solve(image: torch.Tensor, kept: torch.Tensor, small: float) -> torch.Tensor:
    """Impute by conjugate gradients, preconditioned with a `Cycle`.

    Parameters
    ----------
    image : (C, *S)
    kept : (B, *S) bool
    small : float
        Steps that change nothing by more are the last.

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
    left = grid.system(x).mul_(grid.removed).neg_()
    way, before = torch.zeros_like(x), torch.full_like(mean, float("inf"))
    going = torch.ones_like(mean[:, :1], dtype=torch.bool)
    for _ in range(MOST):
        change = cycle(left)
        along = (left * change).sum(space, keepdim=True)
        way = way.mul_(_ratio(along, before)).add_(change)
        bent = grid.system(way).mul_(grid.removed)
        # Each mask stops by itself: its result does not depend on those beside it.
        length = _ratio(along, (way * bent).sum(space, keepdim=True)).mul_(going)
        step = length * way
        x += step
        left.addcmul_(length, bent, value=-1)
        before = along
        going &= step.abs().amax((1, *space), keepdim=True) > small
        if not going.any():
            break
    return x


def _ratio(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Divide; 0 where there is nothing left to solve."""
    return torch.where(b > 0, a / b, 0.0)


def _compiled() -> ModuleType | None:
    """Give the compiled loops; None where numba does not work, as with a Python newer than it knows."""
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
    at the border. Without noise.

    Parameters
    ----------
    tolerance : float
        Largest difference to the exact solution, as a share of the image's range.
    compiled : bool
        Whether images on the CPU are solved by compiled loops (numba) instead of torch's operations.
    """

    tolerance: float = 1e-5
    compiled: bool = True

    def __call__(self, image: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Impute; see `Imputer`."""
        image = image.float().contiguous()
        # What a step changes is several times the error that is left then.
        small = 3 * self.tolerance * float(image.max() - image.min())
        compiled = _compiled() if self.compiled else None
        if image.device.type != "cpu" or image.ndim != 3 or compiled is None:
            return solve(image, kept, small)
        filled = image.new_empty(len(kept), *image.shape)
        count = min(processors(), len(kept))
        parts = zip(kept.contiguous().chunk(count), filled.chunk(count), strict=True)
        with ThreadPoolExecutor(count) as pool:
            done = [
                pool.submit(compiled.solve, image.numpy(), part.numpy(), small, out.numpy())
                for part, out in parts
            ]
            for each in done:
                each.result()
        return filled
