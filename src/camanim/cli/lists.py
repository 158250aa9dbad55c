"""``camanim models`` and ``camanim methods``: what there is."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

import camanim
from camanim.models.names import PREFIXES


def models(
    source: Annotated[
        str | None, typer.Argument(help=f"One of {', '.join(PREFIXES)}; by default all but timm.")
    ] = None,
) -> None:
    """List the networks that --model takes."""
    for name in camanim.list_models(source):
        typer.echo(name)


def methods(
    name: Annotated[
        str | None, typer.Argument(help="One of them, with its caveat and its options.")
    ] = None,
) -> None:
    """List the methods: what each shows, what it costs, where it was published."""
    if name is not None:
        _describe(name)
        return
    listing = Table(
        Column("method", no_wrap=True), "class", "gradient", "what it shows", "cost", "paper"
    )
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
    out.print(f"Knows the class: {'yes' if method.class_specific else 'no'}.", markup=False)
    for option in method.options.values():
        out.print(
            f"  --option {option.name}={option.default}  {option.help} ({option.expected})",
            markup=False,
        )
