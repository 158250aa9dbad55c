"""Compiled version of `camanim.road.multigrid.solve`, for images on the CPU.

The algorithm and its grids are the same. Each loop reads memory once, whereas torch does so for every
term of a sum, and the working set of one channel of one mask fits into the processor's cache.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba.core.caching import FunctionCache

from camanim.road.constants import LAST_CELLS, LAST_SWEEPS, MAX_ITERATIONS, STEPS

Array = npt.NDArray[np.float32]
Shapes = npt.NDArray[np.int64]
Loop = TypeVar("Loop", bound=Callable[..., Any])

ONE, HALF, QUARTER = np.float32(1), np.float32(0.5), np.float32(0.25)
FIRST, SECOND = np.float32(STEPS[0]), np.float32(STEPS[1])


#: Errors of pickle for a damaged file.
DAMAGED = (
    *(
        pickle.PickleError,
        EOFError,
        AttributeError,
        ImportError,
        LookupError,
        TypeError,
        ValueError,
    ),
    *(ArithmeticError, AssertionError, BufferError, MemoryError, NameError, OSError, SyntaxError),
)
#: Functions that were compiled, or will be when they are called.
_functions: list[Callable[..., Any]] = []


def _loop(function: Loop, *signature: str) -> Loop:
    _functions.append(function)
    try:
        return _compiled(function, *signature, cache=True)
    except RuntimeError:
        # No writable cache folder.
        return _compiled(function, *signature, cache=False)
    except DAMAGED:
        for each in _functions:
            FunctionCache(each).flush()
        return _compiled(function, *signature, cache=True)


def _compiled(function: Loop, *signature: str, cache: bool) -> Loop:
    # nogil: masks are solved in parallel. fastmath: sums may be reordered, and no value is NaN.
    flags = {"contract", "reassoc", "nsz", "arcp", "nnan"}
    compiler: Any = numba.njit
    decorate = compiler(*signature, cache=cache, nogil=True, fastmath=flags)
    return cast("Loop", decorate(function))


# -- One grid. Solutions, right-hand sides and `inverse` are 0 where a cell is kept.


@_loop
def _filter_columns(x: Array, y: int, row: Array) -> None:
    """Write row y of x, filtered with [1 2 1] / 4 along the columns and padded with zeros."""
    height, width = x.shape
    row[0] = row[width + 1] = 0
    if 0 < y < height - 1:
        for j in range(width):
            row[j + 1] = HALF * x[y, j] + QUARTER * (x[y - 1, j] + x[y + 1, j])
    elif height == 1:
        for j in range(width):
            row[j + 1] = HALF * x[y, j]
    else:
        neighbour = 1 if y == 0 else y - 1
        for j in range(width):
            row[j + 1] = HALF * x[y, j] + QUARTER * x[neighbour, j]


@_loop
def _filter_row(row: Array, j: int) -> Any:
    """Return a padded row, filtered with [1 2 1] / 4, at j."""
    return QUARTER * (row[j] + row[j + 2]) + HALF * row[j + 1]


@_loop
def _jacobi_sweep(
    x: Array, b: Array, inverse: Array, step: np.float32, row: Array, out: Array
) -> float:
    """Write x after one weighted Jacobi sweep; return its dot product with b."""
    height, width = x.shape
    product = 0.0
    for y in range(height):
        _filter_columns(x, y, row)
        part = np.float32(0)
        for j in range(width):
            # ``inverse * degree`` equals ``1 + inverse / 4``.
            inv = inverse[y, j]
            change = inv * (b[y, j] + _filter_row(row, j)) - x[y, j] * (ONE + QUARTER * inv)
            value = x[y, j] + step * change
            out[y, j] = value
            part += value * b[y, j]
        product += float(part)
    return product


@_loop
def _apply(x: Array, degree: Array, inverse: Array, row: Array, out: Array) -> float:
    """Write ``degree x - B x`` on the removed cells; return its dot product with x."""
    height, width = x.shape
    product = 0.0
    for y in range(height):
        _filter_columns(x, y, row)
        part = np.float32(0)
        for j in range(width):
            value = degree[y, j] * x[y, j] - _filter_row(row, j)
            value = value if inverse[y, j] > 0 else np.float32(0)
            out[y, j] = value
            part += value * x[y, j]
        product += float(part)
    return product


@_loop
def _restrict(
    x: Array, b: Array, degree: Array, inverse: Array, row: Array, residual: Array, out: Array
) -> None:
    """Write the residual of x, summed over the cells of the next coarser grid."""
    height, width = x.shape
    residual[width] = 0
    for y in range(height):
        _filter_columns(x, y, row)
        for j in range(width):
            value = b[y, j] - degree[y, j] * x[y, j] + _filter_row(row, j)
            residual[j] = value if inverse[y, j] > 0 else np.float32(0)
        coarse = out[y // 2]
        if y % 2 == 0:
            for j in range(coarse.size):
                coarse[j] = residual[2 * j] + residual[2 * j + 1]
        else:
            for j in range(coarse.size):
                coarse[j] += residual[2 * j] + residual[2 * j + 1]


@_loop
def _add_coarse(x: Array, coarse: Array, inverse: Array) -> None:
    """Add the correction of the coarser grid to x."""
    height, width = x.shape
    for y in range(height):
        above = coarse[y // 2]
        for j in range(width // 2):
            left, right = inverse[y, 2 * j] > 0, inverse[y, 2 * j + 1] > 0
            x[y, 2 * j] += above[j] if left else np.float32(0)
            x[y, 2 * j + 1] += above[j] if right else np.float32(0)
        if width % 2 and inverse[y, width - 1] > 0:
            x[y, width - 1] += above[width // 2]


@_loop
def _assemble(removed: Array, conductance: Array, degree: Array, inverse: Array) -> None:
    """Write the system of a grid; see `camanim.road.multigrid.grids`."""
    height, width = removed.shape
    for y in range(height):
        # Sum of the filter's weights within the image.
        down = np.float32(1 - 0.25 * (y == 0) - 0.25 * (y == height - 1))
        for j in range(width):
            across = np.float32(1 - 0.25 * (j == 0) - 0.25 * (j == width - 1))
            degree[y, j] = conductance[y, j] + down * across
            inverse[y, j] = removed[y, j] / (degree[y, j] - QUARTER)


@_loop
def _coarsen(
    removed: Array,
    conductance: Array,
    row: Array,
    kept_inside: Array,
    coarse: Array,
    coarse_conductance: Array,
) -> None:
    """Write the removed cells of the next coarser grid, and their conductance to kept pixels."""
    height, width = removed.shape
    coarse[:] = 0
    coarse_conductance[:] = 0
    for y in range(height):
        for j in range(width):
            coarse[y // 2, j // 2] = max(coarse[y // 2, j // 2], removed[y, j])
    for y in range(height):
        for j in range(width):
            kept_inside[y, j] = coarse[y // 2, j // 2] * (ONE - removed[y, j])
    for y in range(height):
        _filter_columns(kept_inside, y, row)
        for j in range(width):
            coarse_conductance[y // 2, j // 2] += removed[y, j] * (
                conductance[y, j] + _filter_row(row, j)
            )


# -- All grids, stored in one array


@_loop
def _shapes(height: int, width: int) -> Shapes:
    """Return the height, the width and the offset in cells of each level."""
    sizes = [(height, width, 0)]
    while max(sizes[-1][0], sizes[-1][1]) > LAST_CELLS:
        h, w, start = sizes[-1]
        sizes.append(((h + 1) // 2, (w + 1) // 2, start + h * w))
    return np.array(sizes)


@_loop
def _level(flat: Array, shapes: Shapes, level: int) -> Array:
    """Return a view of one level, (H, W)."""
    height, width, start = shapes[level]
    return flat[start : start + height * width].reshape(height, width)


@_loop
def _assemble_all(
    shapes: Shapes,
    removed: Array,
    conductance: Array,
    kept_inside: Array,
    degree: Array,
    inverse: Array,
    row: Array,
) -> None:
    """Write the systems of all levels, from the removed pixels of the finest."""
    first = _level(conductance, shapes, 0)
    first[:] = 0
    for k in range(len(shapes)):
        level_removed, level_conductance = (
            _level(removed, shapes, k),
            _level(conductance, shapes, k),
        )
        _assemble(
            level_removed, level_conductance, _level(degree, shapes, k), _level(inverse, shapes, k)
        )
        if k + 1 < len(shapes):
            coarse, coarse_level_conductance = (
                _level(removed, shapes, k + 1),
                _level(conductance, shapes, k + 1),
            )
            _coarsen(
                level_removed,
                level_conductance,
                row,
                _level(kept_inside, shapes, k),
                coarse,
                coarse_level_conductance,
            )


@_loop
def _cycle(
    shapes: Shapes,
    degree: Array,
    inverse: Array,
    xs: Array,
    ys: Array,
    bs: Array,
    row: Array,
    residual: Array,
) -> float:
    """Write the approximate solution for the finest b to the finest x; return their dot product.

    See `camanim.road.multigrid.Cycle`.
    """
    product = 0.0
    last = len(shapes) - 1
    for k in range(last + 1):
        x, y, b = _level(xs, shapes, k), _level(ys, shapes, k), _level(bs, shapes, k)
        inv = _level(inverse, shapes, k)
        for i in range(inv.shape[0]):
            for j in range(inv.shape[1]):
                y[i, j] = FIRST * inv[i, j] * b[i, j]
        _jacobi_sweep(y, b, inv, SECOND, row, x)
        if k < last:
            coarse_b = _level(bs, shapes, k + 1)
            _restrict(x, b, _level(degree, shapes, k), inv, row, residual, coarse_b)
    for k in range(last, -1, -1):
        x, y, b = _level(xs, shapes, k), _level(ys, shapes, k), _level(bs, shapes, k)
        inv = _level(inverse, shapes, k)
        if k < last:
            _add_coarse(x, _level(xs, shapes, k + 1), inv)
        for _ in range(LAST_SWEEPS if k == last else 1):
            _jacobi_sweep(x, b, inv, SECOND, row, y)
            product = _jacobi_sweep(y, b, inv, FIRST, row, x)
    return product


# -- Conjugate gradients


@_loop
def _update_direction(direction: Array, ratio: np.float32, preconditioned: Array) -> None:
    for i in range(direction.shape[0]):
        for j in range(direction.shape[1]):
            direction[i, j] = ratio * direction[i, j] + preconditioned[i, j]


@_loop
def _update_solution(
    x: Array, residual: Array, direction: Array, applied: Array, length: np.float32, row: Array
) -> Any:
    """Add a step along the direction to x; return its largest absolute change."""
    height, width = x.shape
    row[:] = 0
    for i in range(height):
        for j in range(width):
            x[i, j] += length * direction[i, j]
            residual[i, j] -= length * applied[i, j]
            # A maximum per column vectorises; a single maximum does not.
            change = abs(direction[i, j])
            row[j] = change if change > row[j] else row[j]
    return abs(length) * row.max()


@_loop
def _initialise(channel: Array, kept: npt.NDArray[np.bool_], x: Array) -> None:
    """Fill removed pixels with the mean of the kept pixels."""
    total, count = 0.0, 0
    for i in range(channel.shape[0]):
        for j in range(channel.shape[1]):
            if kept[i, j]:
                total += channel[i, j]
                count += 1
    mean = np.float32(total / max(count, 1))
    for i in range(channel.shape[0]):
        for j in range(channel.shape[1]):
            x[i, j] = channel[i, j] if kept[i, j] else mean


def solve(image: Array, kept: npt.NDArray[np.bool_], threshold: float, out: Array) -> None:
    """Write the imputed images; see `camanim.road.multigrid.solve`.

    Parameters
    ----------
    image : (C, H, W)
    kept : (B, H, W) bool
    threshold : float
        Iterations stop after a step with no larger change.
    out : (B, C, H, W)
        Output.
    """
    channels, height, width = image.shape
    shapes = _shapes(height, width)
    cells = shapes[-1, 2] + shapes[-1, 0] * shapes[-1, 1]
    # Allocated once: an allocation takes longer than a sweep.
    removed, conductance, kept_inside, degree, inverse = [
        np.zeros(cells, np.float32) for _ in range(5)
    ]
    xs, ys, bs = [np.zeros(cells, np.float32) for _ in range(3)]
    direction = np.zeros((height, width), np.float32)
    row, spare_row = np.zeros(width + 2, np.float32), np.zeros(width + 2, np.float32)
    system, inv = _level(degree, shapes, 0), _level(inverse, shapes, 0)
    finest = _level(removed, shapes, 0)
    # Between cycles the intermediate array `ys` is unused.
    preconditioned, residual = _level(xs, shapes, 0), _level(bs, shapes, 0)
    applied = _level(ys, shapes, 0)
    for m in range(len(kept)):
        finest[:] = ~kept[m]
        _assemble_all(shapes, removed, conductance, kept_inside, degree, inverse, row)
        for c in range(channels):
            x = out[m, c]
            _initialise(image[c], kept[m], x)
            _apply(x, system, inv, row, residual)
            residual *= np.float32(-1)
            previous_rho = 0.0
            for _ in range(MAX_ITERATIONS):
                rho = _cycle(shapes, degree, inverse, xs, ys, bs, row, spare_row)
                ratio = np.float32(rho / previous_rho if previous_rho > 0 else 0.0)
                _update_direction(direction, ratio, preconditioned)
                curvature = _apply(direction, system, inv, row, applied)
                length = np.float32(rho / curvature if curvature > 0 else 0.0)
                previous_rho = rho
                change = _update_solution(x, residual, direction, applied, length, spare_row)
                if change <= threshold:
                    break


# Compiled for these types only: each further signature takes seconds to compile.
solve = _loop(solve, "void(f4[:,:,::1], b1[:,:,::1], f8, f4[:,:,:,::1])")
