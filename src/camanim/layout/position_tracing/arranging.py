"""Derive the arrangement of an output, and its name, from its position map."""

from __future__ import annotations

import math

import torch

from camanim.images.geometry import format_size
from camanim.layout.arrangement import Arrangement, Gathered
from camanim.layout.position_tracing.position_map import (
    PositionMap,
    contracted,
    is_constant,
    subsampled,
)


def arrangement_of(position_map: PositionMap, images: int) -> Arrangement | None:
    """Return the arrangement of an output.

    Parameters
    ----------
    position_map : PositionMap
        Position map of the output.
    images : int
        Number of images in the network's input.

    Returns
    -------
    Arrangement or None
        None unless each cell of each image occurs exactly once, in the same order for all images.
    """
    if position_map.pairs:
        return None
    return _find_channels(position_map, images) or _find_channels(subsampled(position_map), images)


def _find_channels(position_map: PositionMap, images: int) -> Arrangement | None:
    """Return the arrangement with the axes as channels along which the cells are constant."""
    cells = position_map.cells
    channels: list[int] = []
    for axis in reversed(range(cells.ndim)):
        if cells.shape[axis] > 1 and is_constant(cells, axis):
            channels.insert(0, axis)
            cells = cells.narrow(axis, 0, 1)
    single = [axis for axis in (cells.ndim - 1, 1) if cells.ndim > 2 and cells.shape[axis] == 1]
    arrangement = _gather(position_map, cells, channels or single[:1], images)
    if arrangement is not None or channels or cells.ndim < 3:
        return arrangement
    # The channels of a patch may belong to several cells, as before a patch merging.
    for axis in (cells.ndim - 1, 1):
        merged = contracted(position_map, [axis])
        if merged is not None:
            arrangement = _gather(merged, merged.cells.unsqueeze(axis), [axis], images)
            if arrangement is not None:
                return arrangement
    return None


def _gather(
    position_map: PositionMap, cells: torch.Tensor, channels: list[int], images: int
) -> Arrangement | None:
    """Return the arrangement of complete cells, with the axis along which images are joined."""
    space = position_map.space
    rows_of_cells = _rows_of_cells(cells, images * math.prod(space))
    if rows_of_cells is None:
        return None
    rows_of_cells = rows_of_cells.view(images, -1)
    for axis in (a for a in range(cells.ndim) if a not in channels):
        if cells.shape[axis] % images:
            continue
        per_image = cells.shape[axis] // images
        by_image = torch.arange(cells.numel(), device=cells.device).view(cells.shape)
        by_image = by_image.unflatten(axis, (images, per_image)).movedim(axis, 0).flatten(1)
        positions = torch.empty(cells.numel(), dtype=torch.int64, device=cells.device)
        width = by_image.shape[1]
        positions[by_image.flatten()] = torch.arange(cells.numel(), device=cells.device)
        actual = positions[rows_of_cells]
        index = actual[:1] % width
        starts = torch.arange(images, device=cells.device)[:, None] * width
        if torch.equal(actual, index + starts):
            name = _name(cells.narrow(axis, 0, per_image), space, axis, tuple(channels))
            return Gathered(name, space, index[0], tuple(channels), axis, per_image)
    return None


def _rows_of_cells(cells: torch.Tensor, count: int) -> torch.Tensor | None:
    """Return the row of each cell, (count,); None unless each cell occurs exactly once."""
    flat = cells.reshape(-1)
    rows = (flat >= 0).nonzero()[:, 0]
    if len(rows) != count:
        return None
    rows_of_cells = torch.full((count,), -1, dtype=torch.int64, device=flat.device)
    rows_of_cells[flat[rows].long()] = rows
    return None if bool((rows_of_cells < 0).any()) else rows_of_cells


def _name(
    cells: torch.Tensor, space: tuple[int, ...], images: int, channels: tuple[int, ...]
) -> str:
    """Return the name of an arrangement, from the cells of one image with length 1 along channels."""
    moved = cells.movedim(images, 0)
    flat = moved.reshape(-1)
    count = math.prod(space)
    leading = int((flat >= 0).int().argmax())
    in_order = bool((flat[flat >= 0].diff() == 1).all())
    if in_order and len(flat) == count and cells.ndim == len(space) + 2 and len(channels) == 1:
        depth = "D" * (len(space) == 3)
        if channels == (1,):
            return f"NC{depth}HW"
        if channels == (cells.ndim - 1,):
            return f"N{depth}HWC"
    if in_order and bool((flat[leading : leading + count] >= 0).all()):
        return f"tokens {format_size(space)}" + (f" after {leading}" if leading else "")
    sizes = [size for size in moved.shape if size > 1]
    # The first axes may count groups whose cells are on the last axes; or all cells are one group.
    for count in sorted({max(len(sizes) - len(space), 0), 1, 0}, reverse=True):
        name = _window_name(flat.reshape(math.prod(sizes[:count]), -1), space)
        if name is not None and count < max(len(sizes), 1):
            return name
    return f"rearranged {format_size(space)}"


def _window_name(groups: torch.Tensor, space: tuple[int, ...]) -> str | None:
    """Return the name of groups of cells, (count, cells per group), if they are windows or a grid.

    The cells of a window are adjacent. Those of a grid are spread evenly over the image.
    """
    fullest = groups[(groups >= 0).sum(1).argmax()]
    fullest = fullest[fullest >= 0]
    sides, steps, shifted = [], [], False
    stride = math.prod(space)
    for side in space:
        stride //= side
        along = (fullest // stride % side).unique()
        gaps = along.diff()
        sides.append(len(along))
        steps.append(int(gaps.min()) if len(gaps) else 1)
        if len(gaps) and int(gaps.max()) != steps[-1]:
            return None
    if math.prod(sides) != len(fullest) or 1 in sides:
        return None
    if tuple(sides) == space and len(fullest) == groups.shape[1]:
        # A single group of all cells is no window.
        return None
    side = round(groups.shape[1] ** (1 / len(space)))
    if groups.shape[1] != len(fullest) and side ** len(space) == groups.shape[1]:
        sides = [side] * len(space)
    kind, stride = "windows" if max(steps) == 1 else "grid", math.prod(space)
    if kind == "windows":
        for length, side in zip(space, sides, strict=True):
            stride //= length
            along = groups // stride % length
            lowest = torch.where(groups >= 0, along, length).amin(1)
            shifted |= bool((lowest[lowest < length] % side).any())
    return f"{'shifted ' * shifted}{kind} {format_size(sides)}"
