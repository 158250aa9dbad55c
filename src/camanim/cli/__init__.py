"""The command line: ``camanim demo | run | what-if | compare | models | methods | findings``.

Exit codes: 0 success, 1 a `CamError`, 2 wrong usage, 130 interrupted. SIGTERM and SIGHUP end it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

import typer
from rich.console import Console

from camanim.cli.compare import compare
from camanim.cli.demo import demo
from camanim.cli.findings import findings
from camanim.cli.lists import methods, models
from camanim.cli.run import run
from camanim.cli.what_if import what_if
from camanim.errors import CamError
from camanim.termination import unwound_when_terminated

app = typer.Typer(
    name="camanim",
    help="Class activation maps of all layers of a network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run, what_if, compare, demo, models, methods, findings):
    app.command()(command)


def main() -> None:
    """Run the command line; print a `CamError` without traceback and exit with code 1."""
    with unwound_when_terminated():
        try:
            app()
        except CamError as error:
            _fail(str(error))
        except OSError as error:
            # Standard output has no name; errors of named files are `CamError`.
            if error.filename is not None:
                raise
            _discard_output()
            _fail(
                f"The output cannot be written ({error.strerror or error}): redirect it elsewhere."
            )
        except KeyboardInterrupt:
            sys.exit(130)


def _fail(message: str) -> NoReturn:
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"Error: {message}", style="red", markup=False
    )
    sys.exit(1)


def _discard_output() -> None:
    """Redirect standard output, as Python would write what is left in its buffer at exit."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
