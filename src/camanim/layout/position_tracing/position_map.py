"""The `PositionMap` of a tensor: the cell of a grid over the image for each element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, eq=False)
class PositionMap:
    """The cell of a grid over the image to which each element of a tensor belongs.

    Attributes
    ----------
    cells : torch.Tensor
        int32, with the shape of the tensor; channels usually have stride 0. Each value is the index of
        the image times the number of cells, plus the index of the cell in the order of `space`; -1 for
        elements without a cell (padding, class tokens).
    space : tuple of int
        The sides of the grid.
    pairs : bool
        Whether elements belong to pairs of cells, as in an attention matrix. `cells` then holds the
        first cell of each pair.
    """

    cells: torch.Tensor
    space: tuple[int, ...]
    pairs: bool = False

    def with_cells(self, cells: torch.Tensor) -> PositionMap:
        """Return a map of other cells on the same grid."""
        return replace(self, cells=cells)

    def without_cells(self, shape: torch.Size, *, pairs: bool) -> PositionMap:
        """Return a map of a tensor of `shape` on the same grid, in which no element has a cell."""
        no_cell = torch.full((), -1, dtype=torch.int32, device=self.cells.device)
        return replace(self, cells=no_cell.expand(shape), pairs=pairs)

    def has_cells(self) -> bool:
        """Return whether any element has a cell."""
        axes = [axis for axis in range(self.cells.ndim) if self.cells.stride(axis) == 0]
        return bool((_first_along(self.cells, axes) >= 0).any())

    def equals(self, other: PositionMap) -> bool:
        """Return whether two maps of tensors of one shape have the same grid and cells."""
        if self.space != other.space:
            return False
        a, b = self.cells, other.cells
        axes = [axis for axis in range(a.ndim) if a.stride(axis) == 0 == b.stride(axis)]
        return a is b or torch.equal(_first_along(a, axes), _first_along(b, axes))


def whole_grid(
    images: int, space: tuple[int, ...], channels: int, device: torch.device
) -> PositionMap:
    """Return the map of a feature map (B, C, *space), with one cell per pixel."""
    count = images * math.prod(space)
    cells = torch.arange(count, dtype=torch.int32, device=device).view(images, 1, *space)
    return PositionMap(cells.expand(-1, channels, *space), space)


def is_constant(cells: torch.Tensor, axis: int) -> bool:
    """Return whether cells do not change along an axis."""
    if cells.shape[axis] == 1 or cells.stride(axis) == 0:
        return True
    first = cells.narrow(axis, 0, 1)
    # Comparing two neighbours first is faster, as most axes that vary differ there.
    if not torch.equal(first, cells.narrow(axis, 1, 1)):
        return False
    return bool((cells == first).all())


def apply_unexpanded(
    cells: torch.Tensor, touched: Sequence[int], move: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Move cells along some axes, without copying axes of stride 0.

    Parameters
    ----------
    cells : torch.Tensor
    touched : sequence of int
        The axes along which `move` works; all other axes keep their length.
    move : callable
    """
    kept = [a for a in range(cells.ndim) if a not in touched and cells.stride(a) == 0]
    result = move(_first_along(cells, kept))
    sizes = [cells.shape[a] if a in kept else -1 for a in range(result.ndim)]
    return result.expand(sizes)


def subsampled(position_map: PositionMap) -> PositionMap:
    """Return the map on a coarser grid if only every n-th cell occurs, and the same map otherwise."""
    space, stride = position_map.space, math.prod(position_map.space)
    total = stride
    present = position_map.cells[position_map.cells >= 0].unique()
    images, coarse, sides = len((present // total).unique()), position_map.cells // total, []
    for side in space:
        stride //= side
        along = (present // stride % side).unique()
        step = int(along.diff().min()) if len(along) > 1 else 1
        even = bool((along.diff() == step).all())
        if not len(along) or not even or int(along[0]) >= step or int(along[-1]) + step < side:
            return position_map
        sides.append(len(along))
        coarse = coarse * sides[-1] + position_map.cells // stride % side // step
    if tuple(sides) == space or len(present) != images * math.prod(sides) or max(sides) < 2:
        return position_map
    cells = torch.where(position_map.cells >= 0, coarse, -1).int()
    return replace(position_map, cells=cells, space=tuple(sides))


def contracted(position_map: PositionMap, axes: Sequence[int]) -> PositionMap | None:
    """Return the map after a sum over axes, or after a choice along them.

    A sum of several cells becomes one cell of a coarser grid if all sums are aligned blocks of one size,
    as in patch merging. A sum of all cells has no cell.

    Parameters
    ----------
    position_map : PositionMap
    axes : sequence of int
        Non-negative; the result lacks them.

    Returns
    -------
    PositionMap or None
        None for sums of other sets of cells.
    """
    cells, mixed = position_map.cells, False
    for axis in axes:
        if is_constant(cells, axis):
            cells = cells.narrow(axis, 0, 1)
        else:
            mixed = True
    if not mixed:
        return position_map.with_cells(cells.squeeze(tuple(axes)))
    kept = [axis for axis in range(cells.ndim) if axis not in axes]
    shape = [cells.shape[axis] for axis in kept]
    unexpanded = _first_along(cells, [axis for axis in kept if cells.stride(axis) == 0])
    rows = unexpanded.permute(*kept, *axes).flatten(len(kept))
    merged = _merge_blocks(position_map, rows)
    return None if merged is None else merged.with_cells(merged.cells.expand(shape))


def _merge_blocks(position_map: PositionMap, rows: torch.Tensor) -> PositionMap | None:
    """Merge the cells in each row, (..., count), to one cell of a coarser grid."""
    space, stride = position_map.space, math.prod(position_map.space)
    valid = rows >= 0
    nonempty = valid.any(-1)
    if not bool(nonempty.any()):
        return None
    images, other_images = _extremes(rows // stride, valid)
    if bool((images != other_images)[nonempty].any()):
        return None
    merged, coarse, volume = [], images, torch.ones_like(images)
    for side in space:
        stride //= side
        highest, lowest = _extremes(rows // stride % side, valid)
        extent = highest - lowest + 1
        size = int(extent[nonempty].max())
        if bool((lowest % size)[nonempty].any()):
            return None
        merged.append(-(-side // size))
        coarse = coarse * merged[-1] + lowest // size
        volume = volume * extent
    if math.prod(merged) < 2:
        return replace(position_map, cells=torch.full_like(images, -1).int())
    # Each cell of a block must occur equally often, and no other cell.
    if bool((valid.sum(-1) % volume)[nonempty].any()):
        return None
    cells = torch.where(nonempty, coarse, -1).int()
    return replace(position_map, cells=cells, space=tuple(merged))


def _extremes(values: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the highest and the lowest valid value of each row; 0 for rows without one."""
    largest = torch.iinfo(values.dtype).max
    highest = torch.where(valid, values, -1).amax(-1)
    lowest = torch.where(valid, values, largest).amin(-1)
    nonempty = valid.any(-1)
    return torch.where(nonempty, highest, 0), torch.where(nonempty, lowest, 0)


def _first_along(cells: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """Return a view with length 1 along some axes."""
    for axis in axes:
        cells = cells.narrow(axis, 0, 1)
    return cells
