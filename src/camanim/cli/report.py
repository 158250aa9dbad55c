"""What a command says at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table

if TYPE_CHECKING:
    from camanim.animation import Animation


def listing(animation: Animation) -> Table:
    """Lay the table out for the terminal: the shown layers, and what matters most of them."""
    listing = Table(Column("layer", overflow="fold"), "kind", "output", "raw max", "ROAD")
    for row, layer in zip(animation.table(), animation.trace, strict=True):
        if row["raw max"] is not None:
            score = "" if row["ROAD"] is None else f"{row['ROAD']:.3f}"
            listing.add_row(
                layer.label, layer.kind, row["output shape"], f"{row['raw max']:.3g}", score
            )
    return listing


def report(animation: Animation, files: list[Path]) -> None:
    """Say what was explained, how well, with which notes, and what was written."""
    out = Console(soft_wrap=True, highlight=False)
    worth = f"{animation.target.unit} {animation.probability:.3f}"
    out.print(
        f"{animation.target.name}, with {worth}; {len(animation)} layers with {animation.method}.",
        markup=False,
    )
    for note in animation.notes:
        out.print(note, markup=False)
    road = animation.road
    if road is not None and road.best is not None:
        best = f"best {road.best.label} with {road.max:.3f}"
        out.print(f"ybROAD: mean {road.mean:.3f}, {best}.", markup=False)
    for path in files:
        out.print(f"Wrote {path.resolve()}", markup=False)
