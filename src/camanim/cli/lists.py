"""``camanim models`` and ``camanim methods``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

import camanim


def models(
    source: Annotated[
        str | None,
        typer.Argument(help="demo, torchvision, monai or timm; by default all but timm."),
    ] = None,
) -> None:
    """List the networks that --model takes."""
    for name in camanim.list_models(source):
        typer.echo(name)


def methods(
    name: Annotated[
        str | None, typer.Argument(help="Show the caveat and the options of this method.")
    ] = None,
) -> None:
    """List the methods with summary, cost and paper."""
    if name is not None:
        _describe(name)
        return
    listing = Table(Column("method", no_wrap=True), "class", "gradient", "summary", "cost", "paper")
    for method in camanim.methods().values():
        listing.add_row(
            method.name,
            "yes" if method.class_specific else "no",
            "as its base" if method.meta else "yes" if method.needs_gradient else "no",
            method.summary,
            method.cost,
            method.paper,
        )
    Console().print(listing)


def _describe(name: str) -> None:
    from camanim.cam_methods import find_method

    method, out = find_method(name), Console(highlight=False)
    out.print(f"{method.name}: {method.summary}", markup=False)
    out.print(f"Caveat: {method.caveat}", markup=False)
    out.print(f"Cost: {method.cost}. Paper: {method.paper}.", markup=False)
    out.print(f"Class-specific: {'yes' if method.class_specific else 'no'}.", markup=False)
    for option in method.options.values():
        out.print(
            f"  --option {option.name}={option.default}  {option.help} ({option.expected})",
            markup=False,
        )
