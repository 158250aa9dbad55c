"""``camanim figure NAME``: a figure for print; one command for each registered figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer

import camanim
from camanim.cli import options
from camanim.cli.findings import parse_requests
from camanim.cli.inputs import load_network, read_pixels
from camanim.cli.naming import Outputs, folder_or_file, input_paths, is_result_file, output_files
from camanim.cli.terminal import print_json, print_table, say, say_error
from camanim.errors import CamError
from camanim.figures import FigureKind, PrintedFigure, figure_kinds
from camanim.models.overrides import ModelOverrides
from camanim.progress import IMAGES, Progress, console
from camanim.settings import Settings

figure = typer.Typer(
    help="Draw a figure for print: PDF, SVG or PNG, with its caption beside it.",
    no_args_is_help=True,
)


def _register(kind: FigureKind) -> None:
    groups = options.figure_options(kind)

    @options.with_options(
        "images",
        (*options.SOURCE, "method", "target", "find", "out", "dpi", *options.PRINTED),
        (options.NETWORK_OPTIONS, options.RUN_OPTIONS, *groups),
        repeated=("model", "method", "target"),
    )
    def command(images: list[str], **arguments: Any) -> None:
        _draw(kind, groups, images, arguments)

    name = kind.name.replace("_", "-")
    command.__doc__ = (
        f"{kind.help}\n\nShows {kind.needs}. Each image has one figure; saved results are shown in one."
        f"\n\nExample: camanim figure {name} cat.jpg --model torchvision/mobilenet_v2 --out {name}.pdf"
    )
    figure.command(name)(command)


def _draw(
    kind: FigureKind,
    groups: Sequence[options.Group],
    images: Sequence[str],
    arguments: Mapping[str, Any],
) -> None:
    settings = {name: value for group in groups for name, value in group.values(arguments).items()}
    # Those of the figure, where the user has set none.
    settings = {k: v for k, v in settings.items() if v is not None}
    kind.checked(settings)
    paths = input_paths(images)
    saved = all(map(is_result_file, paths))
    shown = paths[:1] if saved else paths
    folder, out = folder_or_file(arguments["out"], f"{{stem}}-{kind.name.replace('_', '-')}.pdf")
    files = output_files(shown, {"figure": out}, folder=folder, called="--out")
    if saved:
        make: Callable[[Path, Progress], PrintedFigure] = partial(
            _of_saved, kind, paths, settings, arguments
        )
    else:
        make = _maker(kind, settings, arguments)
    outcomes = _outcomes(shown, files, make, arguments)
    failed = [row for row in outcomes if "error" in row]
    if arguments["as_json"]:
        print_json(outcomes)
    elif len(outcomes) == 1 and failed:
        raise CamError(failed[0]["error"])
    else:
        _print(outcomes)
    if failed:
        say_error(f"{len(failed)} of {len(outcomes)} figures failed.")
        raise typer.Exit(1)


def _outcomes(
    paths: Sequence[Path],
    files: Sequence[Outputs],
    make: Callable[[Path, Progress], PrintedFigure],
    arguments: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Draw and write the figure of each path; return its file and caption, or the error."""
    rows: list[dict[str, Any]] = []
    with console(quiet=arguments["quiet"]) as progress:
        for i, (path, outputs) in enumerate(zip(paths, files, strict=True)):
            if len(paths) > 1:
                progress(IMAGES, i, len(paths))
            row: dict[str, Any] = {"image": str(path)}
            rows.append(row)
            try:
                drawn = make(path, progress)
                file = drawn.save(outputs["figure"], dpi=arguments["dpi"])
                row |= {"file": str(file.resolve()), "caption": drawn.caption}
            except CamError as error:
                row["error"] = str(error)
        if len(paths) > 1:
            progress(IMAGES, len(paths), len(paths))
    return rows


def _of_saved(
    kind: FigureKind,
    paths: Sequence[Path],
    settings: Mapping[str, Any],
    arguments: Mapping[str, Any],
    path: Path,
    progress: Progress,
) -> PrintedFigure:
    results = [camanim.load(each, trust=arguments["trust"], progress=progress) for each in paths]
    return kind.draw(results, settings)


def _maker(
    kind: FigureKind, settings: Mapping[str, Any], arguments: Mapping[str, Any]
) -> Callable[[Path, Progress], PrintedFigure]:
    """Return a function that computes and draws the figure of an image; networks are loaded once."""
    run = options.RUN_OPTIONS.values(arguments)
    Settings(**run)
    ModelOverrides(**options.NETWORK_OPTIONS.values(arguments))
    changed = {name: run[name] for name in run if run[name] != options.RUN_OPTIONS.defaults[name]}
    requests = parse_requests(arguments["find"], None, mask=False, checks=False)
    if len(requests) > 1:
        raise typer.BadParameter("A figure shows one finding: give --find once.")
    find = dict(requests[0].settings) if requests else None
    if requests and "finding" in kind.settings:
        settings = {**settings, "finding": requests[0].name}
    sources = arguments["model"] or [options.EXTRA_OPTIONS["model"].default]
    models: list[camanim.Model] = []

    def make(path: Path, progress: Progress) -> PrintedFigure:
        if is_result_file(path):
            raise CamError(
                f"{path.name} is a saved result: give images or saved results, not both."
            )
        pixels = read_pixels(path)
        if not models:
            models.extend(load_network(arguments, progress, source=name) for name in sources)
        return camanim.make_figure(
            kind.name,
            pixels,
            models,
            arguments["method"] or (),
            arguments["target"] or (),
            run=changed,
            find=find,
            progress=progress,
            **settings,
        )

    return make


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    if len(rows) > 1:
        texts = [[row["image"], row.get("file", ""), row.get("error", "")] for row in rows]
        print_table(["image", "file", "error"], texts, prose=("error",))
        return
    for line in _lines(rows[0]):
        say(line)


def _lines(row: Mapping[str, Any]) -> Iterator[str]:
    yield row["caption"]
    yield f"Wrote {row['file']}"
    yield f"Wrote {Path(row['file']).with_suffix('.txt')}"


for _kind in figure_kinds().values():
    _register(_kind)
