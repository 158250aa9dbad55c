"""From the positions in an output to its arrangement, and the name of that."""

from __future__ import annotations

import math

import torch

from camanim.layout.arrangement import Arrangement, Gathered, times
from camanim.layout.position_tracing.companion import (
    PositionMap,
    contracted,
    is_constant,
    thinned_out,
)


def arrange(companion: PositionMap, images: int) -> Arrangement | None:
    """Find the arrangement of an output.

    Parameters
    ----------
    companion : PositionMap
        Of the output.
    images : int
        How many the network was given.

    Returns
    -------
    Arrangement or None
        None unless each cell of each image is there exactly once, and all images alike.
    """
    if companion.pairs:
        return None
    return _arrange(companion, images) or _arrange(thinned_out(companion), images)


def _arrange(companion: PositionMap, images: int) -> Arrangement | None:
    cells = companion.cells
    channels: list[int] = []
    for axis in reversed(range(cells.ndim)):
        if cells.shape[axis] > 1 and is_constant(cells, axis):
            channels.insert(0, axis)
            cells = cells.narrow(axis, 0, 1)
    single = [axis for axis in (cells.ndim - 1, 1) if cells.ndim > 2 and cells.shape[axis] == 1]
    found = _complete(companion, cells, channels or single[:1], images)
    if found is not None or channels or cells.ndim < 3:
        return found
    # Parts of a cell side by side, as before patches are merged.
    for axis in (cells.ndim - 1, 1):
        merged = contracted(companion, [axis])
        if merged is not None:
            found = _complete(merged, merged.cells.unsqueeze(axis), [axis], images)
            if found is not None:
                return found
    return None


def _complete(
    companion: PositionMap, cells: torch.Tensor, channels: list[int], images: int
) -> Arrangement | None:
    index = _places(cells, images * math.prod(companion.space))
    return None if index is None else _alike(companion, cells, index, tuple(channels), images)


def _places(cells: torch.Tensor, count: int) -> torch.Tensor | None:
    """Find the row of each cell, (count,); None where one is missing or there twice."""
    flat = cells.reshape(-1)
    rows = (flat >= 0).nonzero()[:, 0]
    if len(rows) != count:
        return None
    places = torch.full((count,), -1, dtype=torch.int64, device=flat.device)
    places[flat[rows].long()] = rows
    return None if bool((places < 0).any()) else places


def _alike(
    companion: PositionMap,
    cells: torch.Tensor,
    index: torch.Tensor,
    channels: tuple[int, ...],
    images: int,
) -> Arrangement | None:
    """Find the axis along which images follow each other, all with the same order of cells."""
    index = index.view(images, -1)
    for axis in (a for a in range(cells.ndim) if a not in channels):
        if cells.shape[axis] % images:
            continue
        per_image = cells.shape[axis] // images
        rows = torch.arange(cells.numel(), device=cells.device).view(cells.shape)
        rows = rows.unflatten(axis, (images, per_image)).movedim(axis, 0).flatten(1)
        places = torch.empty(cells.numel(), dtype=torch.int64, device=cells.device)
        width = rows.shape[1]
        places[rows.flatten()] = torch.arange(cells.numel(), device=cells.device)
        there = places[index]
        own = there[:1] % width
        first = torch.arange(images, device=cells.device)[:, None] * width
        if torch.equal(there, own + first):
            one = cells.narrow(axis, 0, per_image)
            name = _name(one, companion.space, axis, channels)
            return Gathered(name, companion.space, own[0], channels, axis, per_image)
    return None


def _name(
    cells: torch.Tensor, space: tuple[int, ...], images: int, channels: tuple[int, ...]
) -> str:
    """Describe one image's cells, (...) with length 1 along the channels."""
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
        return f"tokens {times(space)}" + (f" after {leading}" if leading else "")
    sizes = [size for size in moved.shape if size > 1]
    # Groups lie along the first axes, each of them in the last ones; or all is one group.
    for count in sorted({max(len(sizes) - len(space), 0), 1, 0}, reverse=True):
        name = _windows(flat.reshape(math.prod(sizes[:count]), -1), space)
        if name is not None and count < max(len(sizes), 1):
            return name
    return f"rearranged {times(space)}"


def _windows(groups: torch.Tensor, space: tuple[int, ...]) -> str | None:
    """Name groups of cells, (count, cells per group), where they are windows or spread evenly."""
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
        # A single group of all cells, in an order of its own.
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
    return f"{'shifted ' * shifted}{kind} {times(sides)}"
