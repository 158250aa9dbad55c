"""``camanim report``: images or saved results on one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import camanim
from camanim.animation import Animation
from camanim.cli import options
from camanim.cli.batch import Row, run_batch
from camanim.cli.inputs import EXPLAINED, GROUPS, Explanation, Outcome
from camanim.cli.naming import check_kept, input_files, input_paths, stem
from camanim.progress import Progress
from camanim.writing import checked_path


@options.with_options(
    "images",
    (*EXPLAINED, "out", *options.PRINTED),
    (*GROUPS, options.REPORT_OPTIONS),
    context=True,
)
def report(images: list[str], **arguments: Any) -> None:
    """Write images or saved results on one HTML page, which opens without a server.

    An image that fails is a row of the page with its error.

    Example: camanim report "scans/*.png" --road --checks --out report.html
    """
    paths = input_paths(images)
    target = checked_path(arguments["out"] or Path("report.html"), ".html")
    check_kept(input_files(arguments, paths), [target])
    explanation = Explanation.of(arguments, paths)
    settings = options.REPORT_OPTIONS.values(arguments)
    names = _names(paths)
    results: dict[str, Animation] = {}

    def keep(outcome: Outcome, progress: Progress) -> Iterator[Path]:
        assert outcome.animation is not None
        results[names[outcome.path]] = outcome.animation
        # A finding that could not be computed is said on the page.
        outcome.animation.notes += [str(outcome.error)] if outcome.error is not None else []
        yield from ()

    def write(rows: list[Row], progress: Progress) -> Path:
        errors = {
            names[row.path]: row.error
            for row in rows
            if row.error and names[row.path] not in results
        }
        return camanim.write_report(results, target, errors=errors, **settings, progress=progress)

    run_batch(paths, explanation, keep, conclude=write)


def _names(paths: list[Path]) -> dict[Path, str]:
    """Return the name of each image on the page: without its suffix, where these differ."""
    stems = [stem(path) for path in paths]
    names = stems if len(set(stems)) == len(stems) else [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [f"{i + 1} {name}" for i, name in enumerate(names)]
    return dict(zip(paths, names, strict=True))
