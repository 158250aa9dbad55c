"""`camanim.road.multigrid.solve` as compiled loops, for images on the CPU.

The same steps on the same grids. Each loop goes over memory once, where torch's operations do so for
every term of a sum, and one mask at a time stays near the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from camanim.road.constants import LAST_CELLS, LAST_SWEEPS, MOST, STEPS

Array = npt.NDArray[np.float32]
Loop = TypeVar("Loop", bound=Callable[..., Any])

ONE_HALF, ONE_QUARTER = np.float32(0.5), np.float32(0.25)
FIRST, SECOND = np.float32(STEPS[0]), np.float32(STEPS[1])


def _loop(function: Loop) -> Loop:
    # Without Python's lock, so that masks can be solved at the same time; sums in any order.
    flags = {"contract", "reassoc", "nsz", "arcp"}
    compiled: Any = numba.njit(nogil=True, fastmath=flags, cache=True)(function)
    return cast("Loop", compiled)


@_loop
def _down(x: Array, y: int, row: Array) -> None:
    """Write row y of x, filtered with [1 2 1] / 4 down the columns, between two zeros."""
    height, width = x.shape
    row[0] = row[width + 1] = 0
    for j in range(width):
        row[j + 1] = ONE_HALF * x[y, j]
    if y > 0:
        for j in range(width):
            row[j + 1] += ONE_QUARTER * x[y - 1, j]
    if y < height - 1:
        for j in range(width):
            row[j + 1] += ONE_QUARTER * x[y + 1, j]


@_loop
def _across(row: Array, j: int) -> Any:
    """Filter a row with [1 2 1] / 4 at j."""
    return ONE_QUARTER * (row[j] + row[j + 2]) + ONE_HALF * row[j + 1]


@_loop
def _relax(
    x: Array, b: Array, own: Array, inverse: Array, step: np.float32, row: Array, out: Array
) -> None:
    channels, height, width = x.shape
    for c in range(channels):
        for y in range(height):
            _down(x[c], y, row)
            for j in range(width):
                left = b[c, y, j] - own[y, j] * x[c, y, j] + _across(row, j)
                out[c, y, j] = x[c, y, j] + step * inverse[y, j] * left


@_loop
def _apply(x: Array, own: Array, removed: Array, row: Array, out: Array) -> None:
    channels, height, width = x.shape
    for c in range(channels):
        for y in range(height):
            _down(x[c], y, row)
            for j in range(width):
                out[c, y, j] = removed[y, j] * (own[y, j] * x[c, y, j] - _across(row, j))


@_loop
def _restrict(x: Array, b: Array, own: Array, removed: Array, row: Array, out: Array) -> None:
    channels, height, width = x.shape
    # An odd width leaves a zero beyond the border.
    left = np.zeros(width + 1, np.float32)
    for c in range(channels):
        for y in range(height):
            _down(x[c], y, row)
            for j in range(width):
                rest = b[c, y, j] - own[y, j] * x[c, y, j] + _across(row, j)
                left[j] = removed[y, j] * rest
            coarse = out[c, y // 2]
            if y % 2 == 0:
                coarse[:] = 0
            for j in range(coarse.size):
                coarse[j] += left[2 * j] + left[2 * j + 1]


@_loop
def _add_coarse(x: Array, coarse: Array, removed: Array) -> None:
    channels, height, width = x.shape
    for c in range(channels):
        for y in range(height):
            for j in range(width // 2):
                value = coarse[c, y // 2, j]
                x[c, y, 2 * j] += removed[y, 2 * j] * value
                x[c, y, 2 * j + 1] += removed[y, 2 * j + 1] * value
            if width % 2:
                x[c, y, width - 1] += removed[y, width - 1] * coarse[c, y // 2, width // 2]


@_loop
def _set_up(removed: Array, held: Array, own: Array, inverse: Array) -> None:
    """Fill in a grid's system; see `camanim.road.multigrid.grids`."""
    height, width = removed.shape
    for y in range(height):
        for j in range(width):
            inside = np.float32(1)
            if y == 0 or y == height - 1:
                inside *= np.float32(0.75) if height > 1 else ONE_HALF
            if j == 0 or j == width - 1:
                inside *= np.float32(0.75) if width > 1 else ONE_HALF
            own[y, j] = held[y, j] + inside
            inverse[y, j] = removed[y, j] / (own[y, j] - ONE_QUARTER)


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
            hidden[y, j] = coarse[y // 2, j // 2] * (1 - removed[y, j])
    for y in range(height):
        _down(hidden, y, row)
        for j in range(width):
            coarse_held[y // 2, j // 2] += removed[y, j] * (held[y, j] + _across(row, j))


@_loop
def _grid(flat: Array, shapes: npt.NDArray[np.int64], level: int) -> Array:
    """Give one level's (H, W) of a flat array that holds all levels."""
    height, width, start = shapes[level]
    return flat[start : start + height * width].reshape(height, width)


@_loop
def _field(flat: Array, shapes: npt.NDArray[np.int64], level: int, channels: int) -> Array:
    """Give one level's (C, H, W) of a flat array that holds all levels."""
    height, width, start = shapes[level]
    count = height * width
    return flat[channels * start : channels * (start + count)].reshape(channels, height, width)


@_loop
def _cycle(
    shapes: npt.NDArray[np.int64],
    removed: Array,
    own: Array,
    inverse: Array,
    xs: Array,
    ys: Array,
    bs: Array,
    channels: int,
    row: Array,
) -> None:
    """Turn the finest b into about its solution, the finest x; see `camanim.road.multigrid.Cycle`."""
    last = len(shapes) - 1
    for level in range(last + 1):
        x, y = _field(xs, shapes, level, channels), _field(ys, shapes, level, channels)
        b, inv = _field(bs, shapes, level, channels), _grid(inverse, shapes, level)
        for c in range(channels):
            for i in range(inv.shape[0]):
                for j in range(inv.shape[1]):
                    y[c, i, j] = FIRST * inv[i, j] * b[c, i, j]
        here = _grid(own, shapes, level)
        _relax(y, b, here, inv, SECOND, row, x)
        if level < last:
            below = _field(bs, shapes, level + 1, channels)
            _restrict(x, b, here, _grid(removed, shapes, level), row, below)
    for level in range(last, -1, -1):
        x, y = _field(xs, shapes, level, channels), _field(ys, shapes, level, channels)
        b, inv = _field(bs, shapes, level, channels), _grid(inverse, shapes, level)
        here = _grid(own, shapes, level)
        if level < last:
            coarse = _field(xs, shapes, level + 1, channels)
            _add_coarse(x, coarse, _grid(removed, shapes, level))
        for _ in range(LAST_SWEEPS if level == last else 1):
            _relax(x, b, here, inv, SECOND, row, y)
            _relax(y, b, here, inv, FIRST, row, x)


@_loop
def _dot(a: Array, b: Array) -> float:
    total = 0.0
    for i in range(a.shape[0]):
        part = np.float32(0)
        for j in range(a.shape[1]):
            part += a[i, j] * b[i, j]
        total += float(part)
    return total


@_loop
def _shapes(height: int, width: int) -> npt.NDArray[np.int64]:
    """Give each level's height, width, and how many cells the levels before it have."""
    sizes = [(height, width, 0)]
    while max(sizes[-1][0], sizes[-1][1]) > LAST_CELLS:
        h, w, start = sizes[-1]
        sizes.append(((h + 1) // 2, (w + 1) // 2, start + h * w))
    return np.array(sizes)


@_loop
def _set_up_all(
    shapes: npt.NDArray[np.int64],
    removed: Array,
    held: Array,
    hidden: Array,
    own: Array,
    inverse: Array,
    row: Array,
) -> None:
    """Fill in the systems of all levels, from what is removed on the finest."""
    _grid(held, shapes, 0)[:] = 0
    for level in range(len(shapes)):
        here, holds = _grid(removed, shapes, level), _grid(held, shapes, level)
        _set_up(here, holds, _grid(own, shapes, level), _grid(inverse, shapes, level))
        if level + 1 < len(shapes):
            coarse, holds_coarse = (
                _grid(removed, shapes, level + 1),
                _grid(held, shapes, level + 1),
            )
            _coarsen(here, holds, row, _grid(hidden, shapes, level), coarse, holds_coarse)


@_loop
def _turn(change: Array, left: Array, way: Array, before: npt.NDArray[np.float64]) -> None:
    """Turn the way by the change that a cycle proposes; see the method of conjugate gradients."""
    channels, height, width = change.shape
    for c in range(channels):
        along = _dot(left[c], change[c])
        ratio = np.float32(along / before[c] if before[c] > 0 else 0.0)
        before[c] = along
        for i in range(height):
            for j in range(width):
                way[c, i, j] = ratio * way[c, i, j] + change[c, i, j]


@_loop
def _step(
    x: Array, left: Array, way: Array, bent: Array, along: npt.NDArray[np.float64]
) -> np.float32:
    """Go along the way, and tell how far the pixel went that went furthest."""
    channels, height, width = x.shape
    furthest = np.float32(0)
    for c in range(channels):
        curved = _dot(way[c], bent[c])
        length = np.float32(along[c] / curved if curved > 0 else 0.0)
        for i in range(height):
            for j in range(width):
                step = length * way[c, i, j]
                x[c, i, j] += step
                left[c, i, j] -= length * bent[c, i, j]
                furthest = max(furthest, abs(step))
    return furthest


@_loop
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
    xs, ys, bs = [np.zeros(channels * cells, np.float32) for _ in range(3)]
    way, bent = np.zeros_like(image), np.zeros_like(image)
    row = np.zeros(width + 2, np.float32)
    finest, system = _grid(removed, shapes, 0), _grid(own, shapes, 0)
    change, left = _field(xs, shapes, 0, channels), _field(bs, shapes, 0, channels)
    for m in range(len(kept)):
        _start(image, kept[m], out[m])
        finest[:] = ~kept[m]
        _set_up_all(shapes, removed, held, hidden, own, inverse, row)
        _apply(out[m], system, finest, row, left)
        left *= np.float32(-1)
        along = np.zeros(channels)
        for _ in range(MOST):
            _cycle(shapes, removed, own, inverse, xs, ys, bs, channels, row)
            _turn(change, left, way, along)
            _apply(way, system, finest, row, bent)
            if _step(out[m], left, way, bent, along) <= small:
                break


@_loop
def _start(image: Array, kept: npt.NDArray[np.bool_], x: Array) -> None:
    """Fill removed pixels with the mean of those that are kept."""
    channels, height, width = image.shape
    for c in range(channels):
        total, count = 0.0, 0
        for i in range(height):
            for j in range(width):
                if kept[i, j]:
                    total += image[c, i, j]
                    count += 1
        mean = np.float32(total / max(count, 1))
        for i in range(height):
            for j in range(width):
                x[c, i, j] = image[c, i, j] if kept[i, j] else mean
