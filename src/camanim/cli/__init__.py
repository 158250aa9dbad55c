"""The command line: ``camanim demo | run | models | methods | findings``.

Exit codes: 0 done, 1 an error that one sentence explains, 2 a wrong call, 130 interrupted.
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
    help="See what every layer of a network looks at: class activation maps of all layers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run, demo, models, methods, findings):
    app.command()(command)


def main() -> None:
    """Run the command line; errors of ours end in one sentence and exit code 1."""
    try:
        app()
    except CamError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"Error: {error}", style="red", markup=False
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
