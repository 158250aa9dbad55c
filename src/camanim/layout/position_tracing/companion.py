"""What runs along with a tensor: for each of its numbers, the cell of a grid over the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, eq=False)
class PositionMap:
    """Which cell each number of a tensor is about.

    Attributes
    ----------
    cells : torch.Tensor
        int32, of the tensor's shape (channels usually with stride 0): image times the number of cells,
        plus the cell in the order of `space`; -1 where there is none (padding, class tokens).
    space : tuple of int
        The sides of the grid.
    pairs : bool
        Whether the tensor relates cells to cells, as attention does: it is about the first of each pair.
    """

    cells: torch.Tensor
    space: tuple[int, ...]
    pairs: bool = False

    def moved(self, cells: torch.Tensor) -> PositionMap:
        """The same grid, elsewhere in a tensor."""
        return replace(self, cells=cells)

    def without_cells(self, shape: torch.Size, *, pairs: bool) -> PositionMap:
        """Of a tensor of that shape that is about no single cell."""
        nothing = torch.full((), -1, dtype=torch.int32, device=self.cells.device)
        return replace(self, cells=nothing.expand(shape), pairs=pairs)

    def has_cells(self) -> bool:
        """Whether there is a cell at all."""
        axes = [axis for axis in range(self.cells.ndim) if self.cells.stride(axis) == 0]
        return bool((_thin(self.cells, axes) >= 0).any())

    def agrees(self, other: PositionMap) -> bool:
        """Whether both say the same, about tensors of one shape."""
        if self.space != other.space:
            return False
        a, b = self.cells, other.cells
        return a is b or torch.equal(*_thin_together(a, b))


def fresh(images: int, space: tuple[int, ...], channels: int, device: torch.device) -> PositionMap:
    """The grid of a (B, C, *space) tensor, as convolutions give it."""
    count = images * math.prod(space)
    cells = torch.arange(count, dtype=torch.int32, device=device).view(images, 1, *space)
    return PositionMap(cells.expand(-1, channels, *space), space)


def is_constant(cells: torch.Tensor, axis: int) -> bool:
    """Whether cells do not change along an axis."""
    if cells.shape[axis] == 1 or cells.stride(axis) == 0:
        return True
    first = cells.narrow(axis, 0, 1)
    # Two neighbours that differ are found at once, and without a comparison of all.
    if not torch.equal(first, cells.narrow(axis, 1, 1)):
        return False
    return bool((cells == first).all())


def on_thin(
    cells: torch.Tensor, touched: Sequence[int], move: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Move cells along some axes, without copying what is the same along the others.

    Parameters
    ----------
    cells : torch.Tensor
    touched : sequence of int
        The axes along which `move` works; all other axes keep their length.
    move : callable
    """
    kept = [a for a in range(cells.ndim) if a not in touched and cells.stride(a) == 0]
    result = move(_thin(cells, kept))
    sizes = [cells.shape[a] if a in kept else -1 for a in range(result.ndim)]
    return result.expand(sizes)


def thinned_out(companion: PositionMap) -> PositionMap:
    """Make a grid of every second cell (or third, ...) the grid that it is; else change nothing."""
    space, stride = companion.space, math.prod(companion.space)
    total = stride
    there = companion.cells[companion.cells >= 0].unique()
    number, coarse, sides = len((there // total).unique()), companion.cells // total, []
    for side in space:
        stride //= side
        along = (there // stride % side).unique()
        step = int(along.diff().min()) if len(along) > 1 else 1
        even = bool((along.diff() == step).all())
        if not len(along) or not even or int(along[0]) >= step or int(along[-1]) + step < side:
            return companion
        sides.append(len(along))
        coarse = coarse * sides[-1] + companion.cells // stride % side // step
    if tuple(sides) == space or len(there) != number * math.prod(sides) or max(sides) < 2:
        return companion
    cells = torch.where(companion.cells >= 0, coarse, -1).int()
    return replace(companion, cells=cells, space=tuple(sides))


def contracted(companion: PositionMap, axes: Sequence[int]) -> PositionMap | None:
    """What is left when numbers are summed, or chosen from, along some axes.

    Where several cells are summed they make one cell of a coarser grid, if they are aligned blocks of
    one size, as in patch merging. Where all are summed none is left; otherwise nothing is known.

    Parameters
    ----------
    companion : PositionMap
    axes : sequence of int
        Not negative; they are gone in the result.
    """
    cells, mixed = companion.cells, False
    for axis in axes:
        if is_constant(cells, axis):
            cells = cells.narrow(axis, 0, 1)
        else:
            mixed = True
    if not mixed:
        return companion.moved(cells.squeeze(tuple(axes)))
    kept = [axis for axis in range(cells.ndim) if axis not in axes]
    shape = [cells.shape[axis] for axis in kept]
    thin = _thin(cells, [axis for axis in kept if cells.stride(axis) == 0])
    rows = thin.permute(*kept, *axes).flatten(len(kept))
    merged = _blocks(companion, rows)
    return None if merged is None else merged.moved(merged.cells.expand(shape))


def _blocks(companion: PositionMap, rows: torch.Tensor) -> PositionMap | None:
    """Merge the cells in each row, (..., count), to one of a coarser grid."""
    space, stride = companion.space, math.prod(companion.space)
    valid = rows >= 0
    some = valid.any(-1)
    if not bool(some.any()):
        return None
    images, other = _span(rows // stride, valid)
    if bool((images != other)[some].any()):
        return None
    merged, coarse, volume = [], images, torch.ones_like(images)
    for side in space:
        stride //= side
        highest, lowest = _span(rows // stride % side, valid)
        extent = highest - lowest + 1
        size = int(extent[some].max())
        if bool((lowest % size)[some].any()):
            return None
        merged.append(-(-side // size))
        coarse = coarse * merged[-1] + lowest // size
        volume = volume * extent
    if math.prod(merged) < 2:
        return replace(companion, cells=torch.full_like(images, -1).int())
    # As many numbers from each cell of a block, and none from elsewhere.
    if bool((valid.sum(-1) % volume)[some].any()):
        return None
    cells = torch.where(some, coarse, -1).int()
    return replace(companion, cells=cells, space=tuple(merged))


def _span(values: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest and the lowest of the valid values in each row; 0 and 0 where there are none."""
    huge = torch.iinfo(values.dtype).max
    highest = torch.where(valid, values, -1).amax(-1)
    lowest = torch.where(valid, values, huge).amin(-1)
    some = valid.any(-1)
    return torch.where(some, highest, 0), torch.where(some, lowest, 0)


def _thin(cells: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    for axis in axes:
        cells = cells.narrow(axis, 0, 1)
    return cells


def _thin_together(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    axes = [axis for axis in range(a.ndim) if a.stride(axis) == 0 == b.stride(axis)]
    return _thin(a, axes), _thin(b, axes)
