"""``camanim run``: explain one image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.console import Console

import camanim
from camanim.cli import options
from camanim.cli.findings import check_plot_kind, compute, parse_requests
from camanim.cli.masks import read_mask
from camanim.cli.report import listing, report
from camanim.errors import ScoreError
from camanim.findings import NO_SINGLE_INPUT, FindingRequest
from camanim.models.overrides import ModelOverrides
from camanim.progress import Progress, console
from camanim.render.plots import SCORES, checked_plot
from camanim.settings import Settings, WindowSettings
from camanim.writing import checked_path


@options.with_options(
    options.EXTRA_OPTIONS,
    (
        options.NETWORK_OPTIONS,
        options.RUN_OPTIONS,
        options.WINDOW_OPTIONS,
        options.ROAD_OPTIONS,
        options.MOVIE_OPTIONS,
    ),
)
def run(image: Path, **arguments: Any) -> None:
    """Explain one image: maps of all layers, their scores, a movie, a table, a plot.

    Without --table the layers are listed in the terminal. With --estimate, only the expected passes and
    seconds are printed.

    Example: camanim run cat.jpg --model torchvision/mobilenet_v2 --road --movie cat.mp4
    """
    # All arguments are checked before the computation.
    for name, suffix in (("movie", ".mp4"), ("table", ".csv"), ("save_card", ".toml")):
        if arguments[name] is not None:
            checked_path(arguments[name], suffix)
    _check_output_options(arguments)
    overrides = options.NETWORK_OPTIONS.values(arguments)
    settings = options.RUN_OPTIONS.values(arguments)
    ModelOverrides(**overrides)
    Settings(**settings)
    windows = _window_settings(arguments)
    requests = _requests(arguments)
    if windows is not None:
        _check_computable(requests)
    if arguments["plot"] is not None:
        checked_plot(arguments["plot"])
        check_plot_kind(arguments["plot_kind"], requests)
    pixels = camanim.open_image(image)
    mask = None if arguments["mask"] is None else read_mask(arguments["mask"])
    run_settings = {"method": arguments["method"], "target": arguments["target"], **settings}
    if arguments["estimate"]:
        if windows is not None:
            raise typer.BadParameter("--estimate is not known for --windows.")
        with console() as progress:
            model = _load(arguments, overrides, progress)
            cost = camanim.estimate(
                model, pixels, findings=requests, **run_settings, progress=progress
            )
        Console(soft_wrap=True, highlight=False).print(cost.words, markup=False)
        return
    with console() as progress:
        model = _load(arguments, overrides, progress)
        explain = camanim.animate if windows is None else camanim.animate_windows
        animation = explain(model, pixels, **run_settings, **(windows or {}), progress=progress)
        defaults = {
            "mask": mask,
            "label": arguments["mask_label"],
            "seed": settings["seed"],
            "progress": progress,
        }
        problems = compute(animation, requests, defaults)
        if arguments["movie"] is not None:
            animation.write_movie(
                arguments["movie"], **options.MOVIE_OPTIONS.values(arguments), progress=progress
            )
    if arguments["save_card"] is not None:
        model.save_card(arguments["save_card"])
    if arguments["plot"] is not None and not problems:
        animation.write_plot(
            arguments["plot"], arguments["plot_kind"], second=arguments["plot_second"]
        )
    if arguments["table"] is not None:
        animation.write_table(arguments["table"])
    else:
        Console().print(listing(animation))
    files = [
        arguments["movie"],
        arguments["table"],
        None if problems else arguments["plot"],
        arguments["save_card"],
    ]
    report(animation, [path for path in files if path is not None])
    if problems:
        raise ScoreError(" ".join(problems))


def _window_settings(arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Return the checked settings of ``--windows``; None without it."""
    values = options.WINDOW_OPTIONS.values(arguments)
    if arguments["windows"]:
        WindowSettings(**values)
        return values
    changed = options.WINDOW_OPTIONS.changed(arguments)
    if changed:
        raise typer.BadParameter(f"{', '.join(changed)} needs --windows.")
    return None


def _check_computable(requests: list[FindingRequest]) -> None:
    """Raise `ScoreError` if a finding needs the network's input, which windows do not have."""
    for request in requests:
        if request.kind.needs_input:
            raise ScoreError(NO_SINGLE_INPUT)


def _load(
    arguments: dict[str, Any], overrides: dict[str, Any], progress: Progress
) -> camanim.Model:
    return camanim.load_model(
        arguments["model"],
        None if arguments["weights"].lower() == "none" else arguments["weights"],
        **overrides,
        trust=arguments["trust"],
        progress=progress,
    )


def _requests(arguments: dict[str, Any]) -> list[FindingRequest]:
    """Return the requested findings, including ROAD by ``--road``."""
    masked = arguments["mask"] is not None
    requests = parse_requests(
        arguments["find"], arguments["measure"], mask=masked, checks=arguments["checks"]
    )
    road = options.ROAD_OPTIONS.values(arguments)
    if arguments["road"]:
        requests.append(FindingRequest("road", road))
    elif road != options.ROAD_OPTIONS.defaults:
        raise typer.BadParameter("--repeats, --draws and --no-baseline need --road.")
    if not masked and arguments["mask_label"] is not None:
        raise typer.BadParameter("--mask-label needs --mask.")
    return requests


def _check_output_options(arguments: dict[str, Any]) -> None:
    """Raise `typer.BadParameter` for an option of an output that is not written."""
    changed = options.MOVIE_OPTIONS.changed(arguments)
    if changed and arguments["movie"] is None:
        raise typer.BadParameter(f"{', '.join(changed)} needs --movie.")
    if arguments["plot_kind"] != SCORES and arguments["plot"] is None:
        raise typer.BadParameter("--plot-kind needs --plot.")
    if arguments["plot_second"] is not None and arguments["plot"] is None:
        raise typer.BadParameter("--plot-second needs --plot.")
