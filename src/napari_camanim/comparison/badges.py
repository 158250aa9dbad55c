"""What the badge of each cell says, and where it stands on the canvas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari_camanim.canvas.badge import evidence, shortened
from napari_camanim.layers.metadata import KEY
from napari_camanim.layers.stack import name_of

if TYPE_CHECKING:
    from napari.layers import Image

FONT_SIZE = 8
#: Width of a character, and the margin beside the text, in pixels.
CHARACTER, MARGINS = 7.4, 26
SEPARATOR = "  "
#: Key of the metadata of differences: the short names of both runs.
DIFFERENCE = f"{KEY} difference"
#: Minus sign of names.
MINUS = " − "
#: Most columns and rows of cells; the canvas has a place for a text in each.
COLUMNS, ROWS = ("left", "center", "right"), ("top", "bottom")


def grid_shape(count: int, canvas: Sequence[float], image: Sequence[float]) -> tuple[int, int]:
    """Return the rows and columns of cells in which an image is largest.

    Parameters
    ----------
    count : int
        Number of cells, at most 6.
    canvas : (height, width)
        Size of the canvas in pixels.
    image : (height, width)
        Size of an image, in any unit.
    """
    shapes = [(rows, -(-count // rows)) for rows in (1, 2) if -(-count // rows) <= len(COLUMNS)]

    def zoom(shape: tuple[int, int]) -> float:
        return min(c / (n * i) for c, n, i in zip(canvas, shape, image, strict=True))

    return max(shapes, key=zoom)


def place_of(at: tuple[int, int], shape: tuple[int, int]) -> str:
    """Return the position of the text of a cell on the canvas, such as ``"top_left"``.

    Texts stand at the outer edges of the canvas, where they cover the least of the images.
    """
    row = ROWS[0] if shape[0] == 1 or at[0] == 0 else ROWS[1]
    columns = (COLUMNS[0], COLUMNS[-1]) if shape[1] <= 2 else COLUMNS
    return f"{row}_{columns[at[1]]}"


def short_names(stacks: Sequence[Image]) -> list[str]:
    """Return short names of runs: what distinguishes them, or the name that the user gave them."""
    facts = []
    runs = [stack for stack in stacks if DIFFERENCE not in stack.metadata]
    for stack in runs:
        data, animation = stack.data, stack.data.animation
        facts.append(
            (
                data.run.image_name,
                data.run.place,
                # Without its source, such as "torchvision/".
                animation.model.name.rpartition("/")[2],
                animation.method,
                animation.target.name,
                data.normalization,
                "signed" if data.signed else "",
            )
        )
    # An axis of facts that is the same for all runs distinguishes none of them.
    differing = [i for i, values in enumerate(zip(*facts, strict=True)) if len(set(values)) > 1]
    short = {
        id(stack): " ".join(filter(None, (values[i] for i in differing)))
        for stack, values in zip(runs, facts, strict=True)
    }
    names = []
    for stack in stacks:
        name = stack.metadata.get(DIFFERENCE) or short[id(stack)]
        renamed = id(stack) in short and not stack.name.startswith(name_of(stack.data.run))
        names.append(stack.name if renamed or not name else name)
    # Equal names say nothing.
    return [n if names.count(n) == 1 else s.name for n, s in zip(names, stacks, strict=True)]


def cell_text(
    name: str, stack: Image, index: int | None, width: float, *, volume: bool = False
) -> str:
    """Return the name of a run, the shown layer and the values of its findings, on one or two lines.

    Parameters
    ----------
    name : str
    stack : napari.layers.Image
    index : int or None
        Index of the shown layer; None if no map is shown.
    width : float
        Width of the cell in pixels.
    volume : bool
        Whether the maps of all layers are shown as a volume.
    """
    length = max(10, int((width - MARGINS) / CHARACTER))
    if not stack.visible:
        second = "hidden"
    elif volume:
        second = f"{len(stack.data.animation)} layers"
    elif index is None:
        place = stack.data.run.place
        second = f"no map here: {place}" if place else "no map here"
    else:
        animation = stack.data.animation
        label = animation.layers[index].label
        values = [finding.badge(index) for finding in animation.findings.values()]
        # In a difference, a map without positive values says where the other one is higher.
        problem = "" if stack.data.signed else evidence(animation, index)
        # From the most important one.
        facts = list(filter(None, [problem, *values]))
        count = f"{index + 1}/{len(animation)}"
        whole = SEPARATOR.join([name, label, *facts, count])
        if len(whole) <= length:
            return whole
        if len(SEPARATOR.join([label, *facts, count])) <= length:
            facts.append(count)
        while len(facts) > 1 and len(SEPARATOR.join([label, *facts])) > length:
            facts.pop()
        left = length - len(SEPARATOR.join(["", *facts]))
        second = SEPARATOR.join([shortened(label, max(left, 6)), *facts])
    return f"{shortened(name, length)}\n{second}"
