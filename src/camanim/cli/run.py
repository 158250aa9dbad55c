"""``camanim run``: explain one image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.console import Console

import camanim
from camanim.cli import options
from camanim.cli.findings import check_plot_kind, compute, requested
from camanim.cli.report import listing, report
from camanim.errors import ScoreError
from camanim.findings import FindingRequest
from camanim.models.overrides import ModelOverrides
from camanim.progress import console
from camanim.render.plots import checked_plot
from camanim.settings import Settings
from camanim.writing import checked_path


@options.with_options
def run(image: Path, **given: Any) -> None:
    """Explain one image: the maps of all layers, their scores, a movie, a table, a plot.

    Without --table the layers are listed on the terminal.

    Example: camanim run cat.jpg --model torchvision/mobilenet_v2 --road --movie cat.mp4
    """
    # Everything that can be refused is refused before the work.
    for name, suffix in (("movie", ".mp4"), ("table", ".csv"), ("save_card", ".toml")):
        if given[name] is not None:
            checked_path(given[name], suffix)
    overrides = options.NETWORK_OPTIONS.values(given)
    settings = options.RUN_OPTIONS.values(given)
    ModelOverrides(**overrides)
    Settings(**settings)
    requests = _requests(given)
    if given["plot"] is not None:
        checked_plot(given["plot"])
        check_plot_kind(given["plot_kind"], requests)
    pixels = camanim.read_image(image)
    mask = None if given["mask"] is None else _read_mask(given["mask"])
    with console() as progress:
        model = camanim.load_model(
            given["model"],
            None if given["weights"].lower() == "none" else given["weights"],
            **overrides,
            trust=given["trust"],
            progress=progress,
        )
        animation = camanim.animate(
            model,
            pixels,
            method=given["method"],
            target=given["target"],
            **settings,
            progress=progress,
        )
        further = {
            "mask": mask,
            "label": given["mask_label"],
            "seed": settings["seed"],
            "progress": progress,
        }
        refused = compute(animation, requests, further)
        if given["movie"] is not None:
            animation.write_movie(
                given["movie"], **options.MOVIE_OPTIONS.values(given), progress=progress
            )
    if given["save_card"] is not None:
        model.save_card(given["save_card"])
    if given["plot"] is not None and not refused:
        animation.write_plot(given["plot"], given["plot_kind"])
    if given["table"] is not None:
        animation.write_table(given["table"])
    else:
        Console().print(listing(animation))
    files = [given["movie"], given["table"], None if refused else given["plot"], given["save_card"]]
    report(animation, [path for path in files if path is not None])
    if refused:
        raise ScoreError(" ".join(refused))


def _requests(given: dict[str, Any]) -> list[FindingRequest]:
    """Return the findings that were requested, ROAD by its short form, too."""
    masked = given["mask"] is not None
    requests = requested(given["find"], given["measure"], mask=masked, checks=given["checks"])
    road = options.ROAD_OPTIONS.values(given)
    if given["road"]:
        requests.append(FindingRequest("road", road))
    elif road != options.ROAD_OPTIONS.defaults:
        raise typer.BadParameter("--repeats, --draws and --no-baseline are of --road: add it.")
    return requests


def _read_mask(path: Path) -> Any:
    """Read a mask; a grey one that is stored in colour becomes grey."""
    labels = camanim.read_image(path)
    if labels.ndim == 3 and labels.shape[2] in (3, 4):
        colours = labels[..., :3]
        if (colours == colours[..., :1]).all():
            return colours[..., 0]
    return labels
