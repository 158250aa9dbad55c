"""The command line: ``camanim demo | run | models | methods | findings``.

Exit codes: 0 success, 1 a `CamError`, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from camanim.cli.demo import demo
from camanim.cli.findings import findings
from camanim.cli.lists import methods, models
from camanim.cli.run import run
from camanim.errors import CamError

app = typer.Typer(
    name="camanim",
    help="Class activation maps of all layers of a network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run, demo, models, methods, findings):
    app.command()(command)


def main() -> None:
    """Run the command line; print a `CamError` without traceback and exit with code 1."""
    try:
        app()
    except CamError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"Error: {error}", style="red", markup=False
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
