"""Output of commands: text and tables whose names are never broken, and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from camanim.declarations import Setting
from camanim.result import Result
from camanim.table import table
from camanim.words import value_in_words

#: Fewest characters of a column of prose, in a table that fits the terminal.
_PROSE = 24
_INDENT = "  "


def say(*lines: str, error: bool = False) -> None:
    """Print lines as they are: not wrapped, without markup.

    Parameters
    ----------
    *lines : str
    error : bool
        Whether to print to standard error.
    """
    out = Console(soft_wrap=True, highlight=False, stderr=error)
    for line in lines:
        out.print(printable(line), markup=False)


def printable(text: str) -> str:
    """Return a text without bytes of file names that are not valid Unicode, which cannot be printed."""
    return text.encode("utf-8", "backslashreplace").decode()


def say_error(message: str) -> None:
    """Print an error to standard error."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"Error: {printable(message)}", style="red", markup=False
    )


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    prose: Collection[str] = (),
    console: Console | None = None,
) -> None:
    """Print a table, with each cell on one line except those of prose.

    A table that is wider than the terminal is printed as a list: the first cell of each row alone on
    a line, and the others below it. What is not printed to a terminal is as wide as it has to be.

    Parameters
    ----------
    headings : sequence of str
    rows : sequence of sequence of str
        Cells of each row.
    prose : collection of str
        Headings of columns with sentences, which may be wrapped.
    console : rich.console.Console, optional
        By default standard output.
    """
    out = console or Console(highlight=False)
    columns = [
        Column(heading, min_width=_PROSE) if heading in prose else Column(heading, no_wrap=True)
        for heading in headings
    ]
    grid = Table(*columns)
    rows = [[printable(cell) for cell in row] for row in rows]
    for row in rows:
        grid.add_row(*map(Text, row))
    unlimited = out.options.update(max_width=100_000)
    needed = Measurement.get(out, unlimited, grid)
    if not out.is_terminal:
        # As wide as it has to be, whatever COLUMNS says.
        out.width = needed.maximum
        out.print(grid)
    elif needed.minimum <= out.width:
        out.print(grid)
    else:
        for row in rows:
            for line in _stacked(headings, row, out.width):
                out.print(line, soft_wrap=True, markup=False)


def _stacked(headings: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """Return the lines of a row: the first cell, then the others with their headings."""
    lines, line = [row[0]], ""
    for heading, cell in zip(headings[1:], row[1:], strict=True):
        if not cell:
            continue
        fact = f"{heading} {cell}"
        if line and len(line) + 3 + len(fact) > width:
            lines.append(line)
            line = ""
        line = f"{line} · {fact}" if line else _INDENT + fact
    return [*lines, line] if line else lines


def print_json(value: Any) -> None:
    """Print a value as strict JSON: numbers that are not finite become null."""
    typer.echo(json.dumps(plain(value), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """Return a value as data of JSON."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)


def setting_record(setting: Setting) -> dict[str, Any]:
    """Return a setting as data of JSON."""
    return {
        "name": setting.name,
        "default": setting.default,
        "expected": setting.expected,
        "help": setting.help,
    }


# -- Results ---------------------------------------------------------------------------------------


def print_layers(result: Result) -> None:
    """Print the shown layers as a table, with the columns of the findings."""
    columns = {
        name: texts
        for finding in result.findings.values()
        for name, texts in finding.listing().items()
        if any(texts)
    }
    rows = [
        [
            layer.label,
            layer.kind,
            "" if layer.shape is None else "x".join(map(str, layer.shape)),
            f"{result.maps[i].max():.3g}",
            *(texts[i] for texts in columns.values()),
        ]
        for i, layer in enumerate(result.layers)
    ]
    print_table(["layer", "kind", "output", "raw max", *columns], rows)


def report(result: Result, files: Sequence[Path], notes: Sequence[str] = ()) -> None:
    """Print the target, notes, summaries of findings, warnings and the paths of written files."""
    value = value_in_words(result.probability, result.target.unit)
    say(
        f"{result.target.name}, with {value}; {len(result)} layers with {result.method}.",
        *result.notes,
        *notes,
        *_summaries(result),
        *result.warnings,
        *(f"Wrote {path.resolve()}" for path in files),
    )


def notes_of(results: Mapping[str, Result]) -> list[str]:
    """Return the notes, summaries and warnings of several runs, each with the name of its run."""
    return [
        f"{name}: {line}"
        for name, result in results.items()
        for line in (*result.notes, *_summaries(result), *result.warnings)
    ]


def _summaries(result: Result) -> list[str]:
    return [text for finding in result.findings.values() if (text := finding.summary())]


def result_record(result: Result) -> dict[str, Any]:
    """Return a result as data of JSON."""
    return {
        "model": result.provenance.get("model"),
        "method": result.method,
        "target": result.target.name,
        "unit": result.target.unit,
        "probability": result.probability,
        "layers": table(result),
        "findings": {
            key: {"title": finding.title, "summary": finding.summary(), **finding.comparison()}
            for key, finding in result.findings.items()
        },
        "notes": list(result.notes),
        "warnings": list(result.warnings),
    }
