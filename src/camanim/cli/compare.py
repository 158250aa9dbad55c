"""``camanim compare``: explain one image with several networks or methods, and compare the results."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import camanim
from camanim.cli.findings import compute, parse_requests
from camanim.cli.masks import read_mask
from camanim.cli.report import notes_of
from camanim.comparison import comparison_table, overlaid, write_comparison
from camanim.errors import ScoreError
from camanim.findings import FindingRequest, short
from camanim.progress import console
from camanim.render.plots import checked_plot, write_described
from camanim.result import Result
from camanim.writing import checked_path


def compare(
    image: Annotated[Path, typer.Argument(help="The image file.", show_default=False)],
    model: Annotated[
        list[str] | None,
        typer.Option(help="A network, as for camanim run; can be repeated.", show_default=False),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="A method of camanim methods; can be repeated.", show_default=False),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Class to explain, of all networks; by default the likeliest of each."),
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option(help="Layers that get a map, as for camanim run.")
    ] = None,
    road: Annotated[bool, typer.Option("--road", help="Score every layer with ROAD.")] = False,
    mask: Annotated[
        Path | None, typer.Option(help="Compare the maps with this mask, as for camanim run.")
    ] = None,
    find: Annotated[
        list[str] | None,
        typer.Option(help="A finding of camanim findings, as for camanim run; can be repeated."),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Allow the networks' files to run code.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="Device, such as cuda.")] = None,
    table: Annotated[
        Path | None, typer.Option(help="Write one row per run to this file (.csv).")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a plot of all runs to this file (.png, .pdf, .svg).")
    ] = None,
    plot_key: Annotated[
        str, typer.Option(help="Finding of the plot, such as road or localisation.")
    ] = "road",
) -> None:
    """Explain one image with several networks or methods, each with each, and compare the results.

    Example: camanim compare cat.jpg --model torchvision/mobilenet_v2 --method GradCAM --method LayerCAM
    --road --plot scores.png
    """
    if table is not None:
        checked_path(table, ".csv")
    requests = parse_requests(find, None, mask=mask is not None, checks=False)
    if road:
        requests.append(FindingRequest("road"))
    if plot is not None:
        checked_plot(plot)
        if plot_key.partition(" ")[0] not in [request.name for request in requests] and not find:
            raise typer.BadParameter(f"--plot shows {plot_key}: add --road, --mask or --find.")
    pixels = camanim.open_image(image)
    labels = None if mask is None else read_mask(mask)
    results: dict[str, Result] = {}
    problems: list[str] = []
    with console() as progress:
        names = model or ["demo/ultrasound"]
        methods = method or ["GradCAM"]
        loaded = {name: camanim.load_model(name, trust=trust, progress=progress) for name in names}
        for (source, network), by in product(loaded.items(), methods):
            animation = camanim.animate(
                network,
                pixels,
                method=by,
                target=target,
                layers=layers or "unique",
                device=device,
                progress=progress,
            )
            name = _name(source, by, several=(len(loaded) > 1, len(methods) > 1))
            given = {"mask": labels, "progress": progress}
            problems += [f"{name}: {text}" for text in compute(animation, requests, given)]
            results[name] = animation
    _print(results)
    if table is not None:
        write_comparison(results, table)
    if plot is not None:
        write_described(overlaid(results, plot_key), plot)
    out = Console(soft_wrap=True, highlight=False)
    for line in notes_of(results):
        out.print(line, markup=False)
    for path in filter(None, (table, plot)):
        out.print(f"Wrote {path.resolve()}", markup=False)
    if problems:
        raise ScoreError(" ".join(problems))


def _name(source: str, method: str, *, several: tuple[bool, bool]) -> str:
    parts = [part for part, shown in zip((source, method), several, strict=True) if shown]
    return ", ".join(parts) or method


def _print(results: dict[str, Result]) -> None:
    rows: list[dict[str, Any]] = comparison_table(results)
    listing = Table(*rows[0])
    for row in rows:
        listing.add_row(*(short(value) for value in row.values()))
    Console().print(listing)
