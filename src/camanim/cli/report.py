"""Output of commands in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table

if TYPE_CHECKING:
    from camanim.result import Result


def listing(result: Result) -> Table:
    """Return the shown layers as a table for the terminal, with the columns of the findings."""
    columns = {
        name: texts
        for finding in result.findings.values()
        for name, texts in finding.listing().items()
        if any(texts)
    }
    table = Table(Column("layer", overflow="fold"), "kind", "output", "raw max", *columns)
    for i, layer in enumerate(result.layers):
        shape = "" if layer.shape is None else "x".join(map(str, layer.shape))
        highest = f"{result.maps[i].max():.3g}"
        table.add_row(
            layer.label, layer.kind, shape, highest, *(texts[i] for texts in columns.values())
        )
    return table


def report(result: Result, files: list[Path]) -> None:
    """Print the target, notes, summaries of findings, warnings and the paths of written files."""
    value = f"{result.target.unit} {result.probability:.3f}"
    lines = [
        f"{result.target.name}, with {value}; {len(result)} layers with {result.method}.",
        *result.notes,
        *filter(None, (finding.summary() for finding in result.findings.values())),
        *result.warnings,
        *(f"Wrote {path.resolve()}" for path in files),
    ]
    out = Console(soft_wrap=True, highlight=False)
    for line in lines:
        out.print(line, markup=False)


def notes_of(results: Mapping[str, Result]) -> list[str]:
    """Return the notes, summaries and warnings of several runs, each with the name of its run."""
    return [
        f"{name}: {line}"
        for name, result in results.items()
        for line in (
            *result.notes,
            *filter(None, (finding.summary() for finding in result.findings.values())),
            *result.warnings,
        )
    ]
