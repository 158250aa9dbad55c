"""``camanim rerun`` and ``camanim diff``: saved results computed again, or compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import camanim
from camanim.cli import options
from camanim.cli.terminal import print_json, print_table, say
from camanim.progress import console
from camanim.store.differences import sentence

if TYPE_CHECKING:
    from camanim.store import Difference


@options.with_options("result", ("trust", *options.PRINTED))
def rerun(result: Path, **arguments: Any) -> None:
    """Compute a saved result again with its settings, and compare maps and findings.

    The exit code is 1 if numbers differ.

    Example: camanim rerun cat.camanim.zarr
    """
    with console(quiet=arguments["quiet"]) as progress:
        opened = camanim.load(result, trust=arguments["trust"], progress=progress)
        again = camanim.rerun(opened, progress=progress)
    _print(again.differences, equal=again.equal, as_json=arguments["as_json"])


@options.with_options("results", ("trust", "as_json"))
def diff(results: list[Path], **arguments: Any) -> None:
    """Compare two saved results: settings, probability, maps and findings.

    The exit code is 1 if anything differs, a setting or a version, too.

    Example: camanim diff before.camanim.zarr after.camanim.zarr
    """
    if len(results) != 2:
        raise typer.BadParameter(f"Give two saved results, not {len(results)}.")
    first, second = (camanim.load(path, trust=arguments["trust"]) for path in results)
    differences = camanim.diff(first, second)
    equal = all(each.verdict != "different" for each in differences)
    _print(differences, equal=equal, as_json=arguments["as_json"])


def _print(differences: Sequence[Difference], *, equal: bool, as_json: bool) -> None:
    if as_json:
        print_json({"equal": equal, "differences": list(differences)})
    else:
        rows = [
            [
                each.part,
                each.verdict,
                "" if each.largest is None else f"{each.largest:.1e}",
                each.words,
            ]
            for each in differences
        ]
        print_table(["part", "verdict", "largest", "words"], rows, prose=("words",))
        say(sentence(differences))
    if not equal:
        raise typer.Exit(1)
