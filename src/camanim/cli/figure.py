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
from camanim.cli.inputs import check_unchanged, load_network, read_pixels
from camanim.cli.naming import (
    Outputs,
    check_kept,
    folder_or_file,
    input_files,
    input_paths,
    is_result_file,
    output_files,
)
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
        context=True,
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
    inputs = input_files(arguments, paths)
    files = output_files(shown, {"figure": out}, folder=folder, called="--out", inputs=inputs)
    # Captions are beside the figures.
    check_kept(inputs, [each["figure"].with_suffix(".txt") for each in files])
    if saved:
        check_unchanged(arguments, ("model", "weights", "method", "target"))
        settings = _with_finding(kind, settings, arguments["find"])
        make: Callable[[Path, Progress], PrintedFigure] = partial(
            _of_saved, kind, paths, settings, arguments
        )
    else:
        make = _maker(kind, settings, arguments)
    outcomes: list[dict[str, Any]] = []
    try:
        _draw_all(outcomes, shown, files, make, arguments)
    except KeyboardInterrupt:
        outcomes = [row for row in outcomes if len(row) > 1]
        if arguments["as_json"]:
            print_json(outcomes)
        elif outcomes:
            _print(outcomes)
        say_error(f"interrupted after {len(outcomes)} of {len(shown)} figures.")
        raise typer.Exit(130) from None
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


def _with_finding(
    kind: FigureKind, settings: dict[str, Any], find: Sequence[str] | None
) -> dict[str, Any]:
    """Return the settings with the finding of saved results that ``--find`` chooses."""
    if not find:
        return settings
    if "finding" not in kind.settings:
        raise typer.BadParameter(
            f"--find has no effect on a saved result in the figure {kind.name}: leave it out."
        )
    if len(find) > 1:
        raise typer.BadParameter("A figure shows one finding: give --find once.")
    name, colon, _ = find[0].partition(":")
    if colon:
        raise typer.BadParameter(
            f"--find {find[0]} has settings, and a finding of a saved result was computed before: give "
            f"its name {name}."
        )
    return settings | {"finding": name}


def _draw_all(
    rows: list[dict[str, Any]],
    paths: Sequence[Path],
    files: Sequence[Outputs],
    make: Callable[[Path, Progress], PrintedFigure],
    arguments: Mapping[str, Any],
) -> None:
    """Draw and write the figure of each path; add a row with its file and caption, or the error."""
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
    if len(rows) > 1 or "error" in rows[0]:
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
