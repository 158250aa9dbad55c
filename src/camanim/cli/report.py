"""What a command says at its end."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

if TYPE_CHECKING:
    from camanim.animation import Animation
    from camanim.road import Road
    from camanim.road.measures import Measure


def listing(animation: Animation) -> Table:
    """Lay the table out for the terminal: the shown layers, and what matters most of them.

    Columns of scores are there where any layer has one.
    """
    rows = [row for row in animation.table() if row["raw max"] is not None]
    cells = {"ROAD": _score, "chance": _chance, "AP": _precision}
    scores = {name: [cell(row) for row in rows] for name, cell in cells.items()}
    there = {name: column for name, column in scores.items() if any(column)}
    listed = Table(Column("layer", overflow="fold"), "kind", "output", "raw max", *there)
    for i, (row, layer) in enumerate(zip(rows, animation.layers, strict=True)):
        about = (layer.label, layer.kind, row["output shape"], f"{row['raw max']:.3g}")
        listed.add_row(*about, *(column[i] for column in there.values()))
    return listed


def _score(row: dict[str, Any]) -> str:
    if row["ROAD"] is None:
        return ""
    spread = row["ROAD spread"]
    return f"{row['ROAD']:.3f}" + ("" if spread is None else f" ± {spread:.3f}")


def _chance(row: dict[str, Any]) -> str:
    return "" if row["ROAD baseline"] is None else f"{row['ROAD baseline']:.3f}"


def _precision(row: dict[str, Any]) -> str:
    return "" if row["average precision"] is None else f"{row['average precision']:.3f}"


def report(animation: Animation, files: list[Path]) -> None:
    """Say what was explained, how well, with which notes, and what was written."""
    worth = f"{animation.target.unit} {animation.probability:.3f}"
    lines = [
        f"{animation.target.name}, with {worth}; {len(animation)} layers with {animation.method}.",
        *animation.notes,
    ]
    if animation.road is not None and isfinite(animation.road.mean):
        lines.append(_said_by_road(animation.road))
    lines += [_said_by_measure(measure) for measure in animation.measures.values()]
    if animation.localisation is not None:
        lines.append(_said_by_mask(animation.localisation))
    checks = (animation.randomisation, animation.labels)
    # A check that failed has its verdict among the notes.
    verdicts = [check.verdict for check in checks if check is not None]
    lines += [verdict for verdict in verdicts if verdict not in lines]
    lines += [f"Wrote {path.resolve()}" for path in files]
    out = Console(soft_wrap=True, highlight=False)
    for line in lines:
        out.print(line, markup=False)


def _said_by_road(road: Road) -> str:
    """Name the layer that is furthest above chance, and that of the highest score if another."""
    parts = [f"ybROAD: mean {road.mean:.3f}"]
    if road.best is None:
        parts.append("no layer is above chance")
    else:
        score = road.scores[road.layers.index(road.best)]
        parts.append(f"best {road.best.label} with {score:.3f}")
    if road.best_plain is not None and road.best_plain is not road.best:
        parts.append(f"highest score {road.best_plain.label} with {road.max:.3f}")
    return f"{', '.join(parts)}."


def _said_by_measure(measure: Measure) -> str:
    if measure.best is None:
        return f"{measure.label}: no layer has a map to measure."
    value = measure.values[measure.layers.index(measure.best)]
    kind = "highest" if measure.higher_is_better else "lowest"
    return f"{measure.label}: {kind} {value:.3f} of {measure.best.label}."


def _said_by_mask(localisation: Any) -> str:
    if localisation.best is None:
        return "Mask: no layer has a map to compare."
    value = localisation.average_precision[localisation.layers.index(localisation.best)]
    return (
        f"Mask: best {localisation.best.label} with average precision {value:.3f}, "
        f"where chance gives {localisation.share:.3f}."
    )
