"""``camanim movie`` and ``camanim table``: one output of images or saved results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import typer

import camanim
from camanim.cli import options
from camanim.cli.batch import run_batch
from camanim.cli.inputs import EXPLAINED, GROUPS, Explanation, Outcome
from camanim.cli.naming import (
    SUFFIXES,
    Outputs,
    folder_or_file,
    has_field,
    input_files,
    input_paths,
    output_files,
)
from camanim.cli.terminal import print_json, say
from camanim.errors import ScoreError
from camanim.progress import Progress, console
from camanim.render.folder import holds_frames
from camanim.result import Result

#: Options of a movie of frames that are drawn.
_OF_FOLDERS = ("--out", "--fps", "--quality", "--json", "--quiet")


@options.with_options(
    "images",
    (*EXPLAINED, "out", "frames", *options.PRINTED),
    (*GROUPS, options.MOVIE_OPTIONS),
    repeated=("method", "target"),
    context=True,
)
def movie(images: list[str], **arguments: Any) -> None:
    """Write the movie of images or saved results: one frame per layer.

    By default a movie has the name of its image, in the current folder. Several methods or targets are
    side by side. A folder that --frames has written becomes a movie again.

    Example: camanim movie "scans/*.png" --road --out movies
    """
    if len(images) == 1 and holds_frames(images[0]):
        _from_folder(Path(images[0]), arguments)
        return
    paths = input_paths(images)
    variants = _variants(arguments)
    settings = _movie_settings(arguments, grid=len(variants) > 1)
    first, *others = variants
    base = Explanation.of({**arguments, **variants[first]}, paths)
    runs = {name: base.variant({**arguments, **variants[name]}, paths) for name in others}
    outputs = _movie_files(paths, arguments)

    def write(outcome: Outcome, progress: Progress) -> Iterator[Path]:
        assert outcome.animation is not None
        file = outputs[outcome.path]
        if not others:
            yield outcome.animation.write_movie(file, **settings, progress=progress)
            return
        results: dict[str, Result] = {first: outcome.animation}
        problems = [] if outcome.error is None else [f"{first}: {outcome.error}"]
        for name, run in runs.items():
            another = run.outcome(outcome.path, progress)
            if another.animation is None:
                assert another.error is not None
                raise another.error
            results[name] = another.animation
            problems += [] if another.error is None else [f"{name}: {another.error}"]
            more = [*another.animation.notes, *another.animation.warnings]
            outcome.notes += [f"{name}: {note}" for note in more]
        yield camanim.write_grid_movie(results, file, **settings, progress=progress)
        if problems:
            raise ScoreError(" ".join(problems))

    run_batch(paths, base, write)


def _variants(arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return method and target of each run by its name in the movie."""
    methods = arguments["method"] or [options.EXTRA_OPTIONS["method"].default]
    targets = arguments["target"] or [None]
    variants = {}
    for method, target in product(dict.fromkeys(methods), dict.fromkeys(targets)):
        parts = [method] if len(methods) > 1 or target is None else []
        name = ", ".join([*parts, *([] if target is None else [target])])
        variants[name] = {"method": method, "target": target}
    return variants


def _movie_settings(arguments: Mapping[str, Any], *, grid: bool) -> dict[str, Any]:
    """Return the settings of a movie; of a grid without those that it does not have."""
    settings = options.MOVIE_OPTIONS.values(arguments)
    if grid:
        layout = settings.pop("layout")
        if layout != options.MOVIE_OPTIONS.defaults["layout"]:
            raise typer.BadParameter("--movie-layout is that of one run: leave it out.")
        if settings["size"] == options.MOVIE_OPTIONS.defaults["size"]:
            # That of grids by default.
            del settings["size"]
    return settings


def _movie_files(paths: Sequence[Path], arguments: Mapping[str, Any]) -> dict[Path, str | Path]:
    out = arguments["out"]
    if not arguments["frames"]:
        outputs = _outputs(paths, "movie", out or Path("{stem}.mp4"), arguments)
        return {path: files["movie"] for path, files in outputs.items()}
    is_name = out is not None and (len(paths) == 1 or has_field(out))
    folder, name = (None, out) if is_name else (out, Path("{stem}-frames"))
    inputs = input_files(arguments, paths)
    files = output_files(paths, {"frames": name}, folder=folder, called="--out", inputs=inputs)
    # With a slash, as a name may contain a dot.
    return {path: f"{each['frames']}/" for path, each in zip(paths, files, strict=True)}


def _from_folder(folder: Path, arguments: Mapping[str, Any]) -> None:
    """Write the movie of a folder of frames."""
    given = options.given(arguments["context"])
    others = [name for name in given if name not in _OF_FOLDERS]
    if others:
        raise typer.BadParameter(f"{', '.join(others)} has no effect on frames that are drawn.")
    target = arguments["out"] or Path(f"{folder.name}.mp4")
    settings = options.MOVIE_OPTIONS.values(arguments)
    fps = settings["fps"] if "--fps" in given else None
    with console(quiet=arguments["quiet"]) as progress:
        file = camanim.movie_from_folder(
            folder, target, fps=fps, quality=settings["quality"], progress=progress
        )
    if arguments["as_json"]:
        print_json([{"image": str(folder), "files": [str(file.resolve())]}])
    else:
        say(f"Wrote {file.resolve()}")


@options.with_options("images", (*EXPLAINED, "out", *options.PRINTED), GROUPS, context=True)
def table(images: list[str], **arguments: Any) -> None:
    """Write the table of images or saved results: one row per layer call, with the scores.

    Without --out the layers of a single image are listed in the terminal.

    Example: camanim table cat.jpg --model torchvision/mobilenet_v2 --road --out cat.csv
    """
    paths = input_paths(images)
    out = arguments["out"]
    outputs: dict[Path, Outputs] = {} if out is None else _outputs(paths, "table", out, arguments)
    explanation = Explanation.of(arguments, paths)

    def write(outcome: Outcome, progress: Progress) -> Iterator[Path]:
        assert outcome.animation is not None
        if outputs:
            yield outcome.animation.write_table(outputs[outcome.path]["table"])

    run_batch(paths, explanation, write, list_layers=out is None)


def _outputs(
    paths: Sequence[Path], kind: str, out: Path, arguments: Mapping[str, Any]
) -> dict[Path, Outputs]:
    """Return the output of each image, in a folder if ``--out`` has no suffix."""
    folder, out = folder_or_file(out, "{stem}" + SUFFIXES[kind][0])
    inputs = input_files(arguments, paths)
    outputs = output_files(paths, {kind: out}, folder=folder, called="--out", inputs=inputs)
    return dict(zip(paths, outputs, strict=True))
