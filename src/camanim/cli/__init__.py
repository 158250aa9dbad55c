"""The command line, ``camanim``: one command per file.

Exit codes: 0 success; 1 an error, or one of several images failed; 2 wrong usage; 130 interrupted.
SIGTERM and SIGHUP end it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer

from camanim._version import __version__
from camanim.cli.compare import compare
from camanim.cli.demo import demo
from camanim.cli.doctor import doctor
from camanim.cli.figure import figure
from camanim.cli.findings import findings
from camanim.cli.html_report import report
from camanim.cli.layers import layers
from camanim.cli.lists import methods, models
from camanim.cli.movie import movie, table
from camanim.cli.predict import predict
from camanim.cli.rerun import diff, rerun
from camanim.cli.run import run
from camanim.cli.terminal import say_error
from camanim.cli.view import view
from camanim.cli.what_if import what_if
from camanim.errors import CamError
from camanim.termination import unwound_when_terminated

#: Errors of wrong usage have this class, of typer or of click, which newer ones contain a copy of.
_UsageError: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="camanim",
    help="Class activation maps of all layers of a network.",
    epilog="Exit codes: 0 success; 1 an error, or one of several images failed; 2 wrong usage; "
    "130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"camanim {__version__}")
        raise typer.Exit


@app.callback()
def _camanim(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version, and stop."
        ),
    ] = False,
) -> None:
    """Class activation maps of all layers of a network."""


for command in (
    run, predict, movie, table, report, compare, what_if, rerun, diff, view, layers, models, methods,
    findings, demo, doctor,
):  # fmt: skip
    app.command()(command)
app.add_typer(figure, name="figure")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and exit with its code; a `CamError` is printed without traceback.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.
    """
    code: Any = 0
    with unwound_when_terminated():
        try:
            given = None if arguments is None else list(arguments)
            code = app(given, prog_name="camanim", standalone_mode=False)
        except _UsageError as error:
            _print_usage(error)
            code = error.exit_code
        except CamError as error:
            say_error(str(error))
            code = 1
        except OSError as error:
            # Standard output has no name; errors of named files are `CamError`.
            if error.filename is not None:
                raise
            _discard_output()
            say_error(
                f"The output cannot be written ({error.strerror or error}): redirect it elsewhere."
            )
            code = 1
        except KeyboardInterrupt:
            code = 130
    # Of a command that returns, `code` is None.
    sys.exit(code or 0)


def _print_usage(error: Any) -> None:
    """Print an error of usage on one line, as frames would break names."""
    message = error.format_message()
    if not message or error.ctx is None:
        error.show()
        return
    typer.echo(error.ctx.get_usage(), err=True)
    typer.echo(f"Try '{error.ctx.command_path} --help' for help.", err=True)
    say_error(message)


def _discard_output() -> None:
    """Redirect standard output, as Python would write what is left in its buffer at exit."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
