"""`camanim.road.multigrid.solve` as compiled loops, for images on the CPU.

The same steps on the same grids. Each loop goes over memory once, where torch's operations do so for
every term of a sum; and one channel of one mask at a time stays near the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from camanim.road.constants import LAST_CELLS, LAST_SWEEPS, MOST, STEPS

Array = npt.NDArray[np.float32]
Shapes = npt.NDArray[np.int64]
Loop = TypeVar("Loop", bound=Callable[..., Any])

ONE, HALF, QUARTER = np.float32(1), np.float32(0.5), np.float32(0.25)
FIRST, SECOND = np.float32(STEPS[0]), np.float32(STEPS[1])


def _loop(function: Loop, *signature: str) -> Loop:
    # Without Python's lock, so that masks can be solved at the same time. Sums may go in any order, and
    # nothing is NaN.
    flags = {"contract", "reassoc", "nsz", "arcp", "nnan"}
    settings: dict[str, Any] = {"nogil": True, "fastmath": flags}
    compiler: Any = numba.njit
    try:
        compiled = compiler(*signature, cache=True, **settings)(function)
    except RuntimeError:
        # There is no folder where what was compiled could be kept.
        compiled = compiler(*signature, **settings)(function)
    return cast("Loop", compiled)


# -- On one grid: x, b and their like are 0 where a cell is kept, and so is `inverse`


@_loop
def _down(x: Array, y: int, row: Array) -> None:
    """Write row y of x, filtered with [1 2 1] / 4 down the columns, between two zeros."""
    height, width = x.shape
    row[0] = row[width + 1] = 0
    if 0 < y < height - 1:
        for j in range(width):
            row[j + 1] = HALF * x[y, j] + QUARTER * (x[y - 1, j] + x[y + 1, j])
    elif height == 1:
        for j in range(width):
            row[j + 1] = HALF * x[y, j]
    else:
        beside = 1 if y == 0 else y - 1
        for j in range(width):
            row[j + 1] = HALF * x[y, j] + QUARTER * x[beside, j]


@_loop
def _across(row: Array, j: int) -> Any:
    """Filter a row with [1 2 1] / 4 at j."""
    return QUARTER * (row[j] + row[j + 2]) + HALF * row[j + 1]


@_loop
def _relax(x: Array, b: Array, inverse: Array, step: np.float32, row: Array, out: Array) -> float:
    """Write x after one of Jacobi's sweeps; return its product with b."""
    height, width = x.shape
    product = 0.0
    for y in range(height):
        _down(x, y, row)
        part = np.float32(0)
        for j in range(width):
            # ``inverse * own`` is one and a quarter of the inverse.
            inv = inverse[y, j]
            change = inv * (b[y, j] + _across(row, j)) - x[y, j] * (ONE + QUARTER * inv)
            value = x[y, j] + step * change
            out[y, j] = value
            part += value * b[y, j]
        product += float(part)
    return product


@_loop
def _apply(x: Array, own: Array, inverse: Array, row: Array, out: Array) -> float:
    """Write ``own x - B x`` on the removed cells; return its product with x."""
    height, width = x.shape
    product = 0.0
    for y in range(height):
        _down(x, y, row)
        part = np.float32(0)
        for j in range(width):
            value = own[y, j] * x[y, j] - _across(row, j)
            value = value if inverse[y, j] > 0 else np.float32(0)
            out[y, j] = value
            part += value * x[y, j]
        product += float(part)
    return product


@_loop
def _restrict(
    x: Array, b: Array, own: Array, inverse: Array, row: Array, left: Array, out: Array
) -> None:
    """Write what x leaves of b, summed over the cells of the next coarser grid."""
    height, width = x.shape
    left[width] = 0
    for y in range(height):
        _down(x, y, row)
        for j in range(width):
            rest = b[y, j] - own[y, j] * x[y, j] + _across(row, j)
            left[j] = rest if inverse[y, j] > 0 else np.float32(0)
        coarse = out[y // 2]
        if y % 2 == 0:
            for j in range(coarse.size):
                coarse[j] = left[2 * j] + left[2 * j + 1]
        else:
            for j in range(coarse.size):
                coarse[j] += left[2 * j] + left[2 * j + 1]


@_loop
def _add_coarse(x: Array, coarse: Array, inverse: Array) -> None:
    """Add the coarser grid's correction to x."""
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
def _set_up(removed: Array, held: Array, own: Array, inverse: Array) -> None:
    """Fill in a grid's system; see `camanim.road.multigrid.grids`."""
    height, width = removed.shape
    for y in range(height):
        # What the filter has inside of the image.
        down = np.float32(1 - 0.25 * (y == 0) - 0.25 * (y == height - 1))
        for j in range(width):
            across = np.float32(1 - 0.25 * (j == 0) - 0.25 * (j == width - 1))
            own[y, j] = held[y, j] + down * across
            inverse[y, j] = removed[y, j] / (own[y, j] - QUARTER)


@_loop
def _coarsen(
    removed: Array, held: Array, row: Array, hidden: Array, coarse: Array, coarse_held: Array
) -> None:
    """Find the removed cells of the next grid, and how kept pixels within them hold their neighbours."""
    height, width = removed.shape
    coarse[:] = 0
    coarse_held[:] = 0
    for y in range(height):
        for j in range(width):
            coarse[y // 2, j // 2] = max(coarse[y // 2, j // 2], removed[y, j])
    for y in range(height):
        for j in range(width):
            hidden[y, j] = coarse[y // 2, j // 2] * (ONE - removed[y, j])
    for y in range(height):
        _down(hidden, y, row)
        for j in range(width):
            coarse_held[y // 2, j // 2] += removed[y, j] * (held[y, j] + _across(row, j))


# -- On all grids, each a part of one array


@_loop
def _shapes(height: int, width: int) -> Shapes:
    """Give each level's height, width, and how many cells the levels before it have."""
    sizes = [(height, width, 0)]
    while max(sizes[-1][0], sizes[-1][1]) > LAST_CELLS:
        h, w, start = sizes[-1]
        sizes.append(((h + 1) // 2, (w + 1) // 2, start + h * w))
    return np.array(sizes)


@_loop
def _level(flat: Array, shapes: Shapes, level: int) -> Array:
    """Give one level's (H, W)."""
    height, width, start = shapes[level]
    return flat[start : start + height * width].reshape(height, width)


@_loop
def _set_up_all(
    shapes: Shapes,
    removed: Array,
    held: Array,
    hidden: Array,
    own: Array,
    inverse: Array,
    row: Array,
) -> None:
    """Fill in the systems of all levels, from what is removed on the finest."""
    first = _level(held, shapes, 0)
    first[:] = 0
    for k in range(len(shapes)):
        here, holds = _level(removed, shapes, k), _level(held, shapes, k)
        _set_up(here, holds, _level(own, shapes, k), _level(inverse, shapes, k))
        if k + 1 < len(shapes):
            coarse, coarse_holds = _level(removed, shapes, k + 1), _level(held, shapes, k + 1)
            _coarsen(here, holds, row, _level(hidden, shapes, k), coarse, coarse_holds)


@_loop
def _cycle(
    shapes: Shapes,
    own: Array,
    inverse: Array,
    xs: Array,
    ys: Array,
    bs: Array,
    row: Array,
    left: Array,
) -> float:
    """Turn the finest b into about its solution, the finest x; return their product.

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
        _relax(y, b, inv, SECOND, row, x)
        if k < last:
            _restrict(x, b, _level(own, shapes, k), inv, row, left, _level(bs, shapes, k + 1))
    for k in range(last, -1, -1):
        x, y, b = _level(xs, shapes, k), _level(ys, shapes, k), _level(bs, shapes, k)
        inv = _level(inverse, shapes, k)
        if k < last:
            _add_coarse(x, _level(xs, shapes, k + 1), inv)
        for _ in range(LAST_SWEEPS if k == last else 1):
            _relax(x, b, inv, SECOND, row, y)
            product = _relax(y, b, inv, FIRST, row, x)
    return product


# -- Conjugate gradients


@_loop
def _turn(way: Array, ratio: np.float32, change: Array) -> None:
    for i in range(way.shape[0]):
        for j in range(way.shape[1]):
            way[i, j] = ratio * way[i, j] + change[i, j]


@_loop
def _step(x: Array, left: Array, way: Array, bent: Array, length: np.float32, row: Array) -> Any:
    """Go along the way, and tell how far the pixel went that went furthest."""
    height, width = x.shape
    row[:] = 0
    for i in range(height):
        for j in range(width):
            x[i, j] += length * way[i, j]
            left[i, j] -= length * bent[i, j]
            # The largest of each column: many at once, where a single largest is one after the other.
            far = abs(way[i, j])
            row[j] = far if far > row[j] else row[j]
    return abs(length) * row.max()


@_loop
def _start(channel: Array, kept: npt.NDArray[np.bool_], x: Array) -> None:
    """Fill removed pixels with the mean of those that are kept."""
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


def solve(image: Array, kept: npt.NDArray[np.bool_], small: float, out: Array) -> None:
    """Impute; see `camanim.road.multigrid.solve`.

    Parameters
    ----------
    image : (C, H, W)
    kept : (B, H, W) bool
    small : float
        Steps that change nothing by more are the last.
    out : (B, C, H, W)
        Is filled.
    """
    channels, height, width = image.shape
    shapes = _shapes(height, width)
    cells = shapes[-1, 2] + shapes[-1, 0] * shapes[-1, 1]
    # All memory at once: asking the system for it takes longer than a sweep.
    removed, held, hidden, own, inverse = [np.zeros(cells, np.float32) for _ in range(5)]
    xs, ys, bs = [np.zeros(cells, np.float32) for _ in range(3)]
    way = np.zeros((height, width), np.float32)
    row, rest = np.zeros(width + 2, np.float32), np.zeros(width + 2, np.float32)
    system, inv = _level(own, shapes, 0), _level(inverse, shapes, 0)
    finest = _level(removed, shapes, 0)
    # Between cycles the memory of a half-done sweep is free.
    change, left, bent = _level(xs, shapes, 0), _level(bs, shapes, 0), _level(ys, shapes, 0)
    for m in range(len(kept)):
        finest[:] = ~kept[m]
        _set_up_all(shapes, removed, held, hidden, own, inverse, row)
        for c in range(channels):
            x = out[m, c]
            _start(image[c], kept[m], x)
            _apply(x, system, inv, row, left)
            left *= np.float32(-1)
            before = 0.0
            for _ in range(MOST):
                along = _cycle(shapes, own, inverse, xs, ys, bs, row, rest)
                _turn(way, np.float32(along / before if before > 0 else 0.0), change)
                curved = _apply(way, system, inv, row, bent)
                length = np.float32(along / curved if curved > 0 else 0.0)
                before = along
                if _step(x, left, way, bent, length, rest) <= small:
                    break


# For these types alone: every other would be compiled anew, which takes seconds.
solve = _loop(solve, "void(f4[:,:,::1], b1[:,:,::1], f8, f4[:,:,:,::1])")
