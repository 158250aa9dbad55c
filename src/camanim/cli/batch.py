"""Commands over several images: rows, files, JSON, and what is left after an interrupt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from camanim.cli.inputs import Explanation, Outcome, each_result
from camanim.cli.terminal import (
    print_json,
    print_layers,
    print_table,
    report,
    result_record,
    say,
    say_error,
)
from camanim.errors import CamError
from camanim.findings import short
from camanim.progress import Progress, console
from camanim.table import cell_value, write_rows

if TYPE_CHECKING:
    from camanim.animation import Animation

#: Writes the outputs of an image, and yields each file once it is complete.
Writer = Callable[["Outcome", Progress], Iterator[Path]]

INTERRUPTED = "interrupted"


@dataclass
class Row:
    """One image in the summary.

    Attributes
    ----------
    path : Path
    facts : dict
        Class, value and what the findings say about all layers; empty if the image failed.
    files : list of Path
        Complete files.
    error : str
    notes : list of str
        Notes and warnings.
    record : dict
        Data for ``--json``.
    more : list of str
        Those of `notes` that are of further runs.
    """

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    error: str = ""
    notes: list[str] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    more: list[str] = field(default_factory=list)

    def describe(self, animation: Animation, *, as_json: bool) -> None:
        """Take from a result what is printed later, so that its maps can be released."""
        self.facts = {
            "class": animation.target.name,
            animation.target.unit: float(animation.probability),
        }
        for finding in animation.findings.values():
            self.facts |= {key: cell_value(v) for key, v in finding.comparison().items()}
        self.notes = [*animation.notes, *animation.warnings]
        if as_json:
            self.record = result_record(animation)

    def add_notes(self, notes: Sequence[str]) -> None:
        """Add notes of further runs."""
        self.more = list(notes)
        self.notes = [*self.notes, *notes]
        if self.record:
            self.record["notes"] = [*self.record["notes"], *notes]

    @property
    def data(self) -> dict[str, Any]:
        """The row as data of JSON."""
        files = [str(file.resolve()) for file in self.files]
        data: dict[str, Any] = {"image": str(self.path), **self.record, "files": files}
        return data | ({"error": self.error} if self.error else {})


def run_batch(
    paths: Sequence[Path],
    explanation: Explanation,
    write: Writer,
    *,
    list_layers: bool = False,
    summary: Path | None = None,
    conclude: Callable[[list[Row], Progress], Path] | None = None,
) -> None:
    """Explain each image, write its outputs, and print what became of all of them.

    A single image is reported in full, several in a table with one row for each.

    Parameters
    ----------
    paths : sequence of Path
    explanation : Explanation
        With the arguments ``as_json`` and ``quiet``.
    write : callable
    list_layers : bool
        Whether to print the layers of a single image.
    summary : Path, optional
        File for the table of all images (.csv).
    conclude : callable, optional
        Writes a file of all images, and returns it.

    Raises
    ------
    CamError
        The error of a single image.
    typer.Exit
        With code 1 if one of several images failed, and 130 after an interrupt.
    """
    as_json = explanation.arguments["as_json"]
    single = len(paths) == 1
    rows: list[Row] = []
    shown: Animation | None = None
    error: CamError | None = None
    try:
        with console(quiet=explanation.arguments["quiet"]) as progress:
            for outcome in each_result(paths, explanation, progress):
                row = Row(outcome.path)
                rows.append(row)
                error = _finish(row, outcome, write, progress, as_json=as_json)
                row.error = "" if error is None else str(error)
                # Of several, only the rows are kept.
                shown = outcome.animation if single else None
            if conclude is not None and any(row.facts for row in rows):
                file = conclude(rows, progress)
                for row in rows:
                    row.files.append(file)
    except KeyboardInterrupt:
        _interrupted(rows, paths, summary, as_json=as_json)
        raise typer.Exit(130) from None
    failed = any(row.error for row in rows)
    if not single:
        _print_rows(rows, summary, as_json=as_json)
        raise typer.Exit(1 if failed else 0)
    if as_json:
        print_json([row.data for row in rows])
    elif shown is not None:
        if list_layers:
            print_layers(shown)
        report(shown, rows[0].files, rows[0].more)
    if error is not None:
        raise error


def _finish(
    row: Row, outcome: Outcome, write: Writer, progress: Progress, *, as_json: bool
) -> CamError | None:
    """Write the outputs of an image; return the error, if any."""
    if outcome.animation is None:
        return outcome.error
    # An interrupt leaves the row with its complete files.
    row.error = INTERRUPTED
    row.describe(outcome.animation, as_json=as_json)
    try:
        for file in write(outcome, progress):
            row.files.append(file)
    except CamError as error:
        return error
    finally:
        row.add_notes(outcome.notes)
    return outcome.error


def _interrupted(
    rows: list[Row], paths: Sequence[Path], summary: Path | None, *, as_json: bool
) -> None:
    """Print what was complete before an interrupt."""
    kept = [row for row in rows if row.files or row.error != INTERRUPTED]
    done = sum(not row.error for row in rows)
    if len(paths) > 1 and kept:
        _print_rows(kept, summary, as_json=as_json)
    elif as_json:
        print_json([row.data for row in kept])
    else:
        say(*(f"Wrote {file.resolve()}" for row in kept for file in row.files))
    say(f"Interrupted: {done} of {len(paths)} images are complete.", error=True)


def _notes(rows: list[Row]) -> list[str]:
    """Return the notes of all images, each once with the images that it is about."""
    images: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            images.setdefault(note, []).append(str(row.path))
    explained = sum(bool(row.facts) for row in rows)
    return [
        f"{'All images' if len(names) == explained else ', '.join(names)}: {note}"
        for note, names in images.items()
    ]


def _print_rows(rows: list[Row], summary: Path | None, *, as_json: bool) -> None:
    keys = dict.fromkeys(key for row in rows for key in row.facts)
    errors = any(row.error for row in rows)
    tabular = [
        {
            "image": str(row.path),
            **{key: row.facts.get(key) for key in keys},
            "files": ", ".join(map(str, row.files)),
            **({"error": row.error} if errors else {}),
        }
        for row in rows
    ]
    if summary is not None:
        write_rows(tabular, summary)
    if as_json:
        print_json([row.data for row in rows])
    else:
        texts = [[short(value) for value in row.values()] for row in tabular]
        print_table(list(tabular[0]), texts, prose=("error",))
        say(*_notes(rows))
        if summary is not None:
            say(f"Wrote {summary.resolve()}")
    failed = sum(bool(row.error) for row in rows)
    if failed:
        say_error(f"{failed} of {len(rows)} images failed.")
