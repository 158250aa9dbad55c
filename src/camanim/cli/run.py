"""``camanim run``: explain images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import camanim
from camanim.cli import options
from camanim.cli.batch import run_batch
from camanim.cli.findings import check_plot_kind
from camanim.cli.inputs import EXPLAINED, GROUPS, Explanation, Outcome, read_pixels
from camanim.cli.naming import (
    SUMMARY,
    Outputs,
    check_kept,
    check_place,
    has_field,
    input_files,
    input_paths,
    is_result_file,
    output_files,
)
from camanim.cli.terminal import print_json, say, say_error
from camanim.errors import CamError, RenderError
from camanim.images.dicom import is_dicom
from camanim.progress import IMAGES, Progress, console
from camanim.render.plots import SCORES

if TYPE_CHECKING:
    from camanim.animation import Animation
    from camanim.images import SourceImage

#: Options that name the outputs of an image.
OUTPUTS = ("movie", "table", "plot", "maps", "dicom", "save")


@options.with_options(
    "images",
    (
        *EXPLAINED, "estimate", "save_card", *OUTPUTS, "out", "plot_kind", "plot_second",
        *options.PRINTED,
    ),
    (*GROUPS, options.MOVIE_OPTIONS),
    context=True,
)  # fmt: skip
def run(images: list[str], **arguments: Any) -> None:
    """Explain images: maps of all layers, their scores, a movie, a table, a plot.

    Without --table the layers of a single image are listed in the terminal. Several images are listed
    in a table with one row for each; one that fails is a row as well. Their outputs are named with
    {stem}, as in --movie "{stem}.mp4". With --out, they are written to that folder, by default a movie
    and a table of each. With --estimate, only the expected passes and seconds are printed.

    Example: camanim run cat.jpg --model torchvision/mobilenet_v2 --road --movie cat.mp4
    """
    # All arguments are checked before the computation.
    paths = input_paths(images)
    folder = _folder(arguments["out"])
    named = {option: arguments[option] for option in OUTPUTS}
    if folder is not None and not any(named.values()):
        named |= {"movie": Path("{stem}.mp4"), "table": Path("{stem}.csv")}
    if arguments["save_card"] is not None:
        check_kept(input_files(arguments, paths), [arguments["save_card"]])
        check_place("save_card", arguments["save_card"])
    _check_output_options(arguments, named)
    summary = None if folder is None or len(paths) == 1 else folder / SUMMARY
    inputs = input_files(arguments, paths)
    outputs = output_files(paths, named, folder=folder, summary=summary, inputs=inputs)
    if named["dicom"] is not None:
        _check_dicom(paths)
    explanation = Explanation.of(arguments, paths)
    if named["plot"] is not None and not any(map(is_result_file, paths)):
        check_plot_kind(arguments["plot_kind"], explanation.requests)
    if arguments["estimate"]:
        _estimate(paths, explanation)
        return
    writer = _Writer(explanation, dict(zip(paths, outputs, strict=True)))
    run_batch(
        paths,
        explanation,
        writer.write,
        list_layers=named["table"] is None,
        summary=summary,
    )


class _Writer:
    """Writes the outputs of each image.

    Parameters
    ----------
    explanation : Explanation
    outputs : mapping of Path to dict
        Files of each image.
    """

    def __init__(self, explanation: Explanation, outputs: dict[Path, Outputs]) -> None:
        self.explanation, self.outputs = explanation, outputs
        self.card: Path | None = explanation.arguments["save_card"]

    def write(self, outcome: Outcome, progress: Progress) -> Iterator[Path]:
        """Write the outputs of an image; yield each file once it is complete."""
        arguments, animation = self.explanation.arguments, outcome.animation
        assert animation is not None
        files = self.outputs[outcome.path]
        # First, as all others can be written from it.
        if "save" in files:
            yield animation.save(files["save"], progress=progress)
        if "movie" in files:
            settings = options.MOVIE_OPTIONS.values(arguments)
            yield animation.write_movie(files["movie"], **settings, progress=progress)
        if "table" in files:
            yield animation.write_table(files["table"])
        if "plot" in files and outcome.error is None:
            yield animation.write_plot(
                files["plot"], arguments["plot_kind"], second=arguments["plot_second"]
            )
        if "maps" in files:
            yield animation.write_maps(files["maps"], progress=progress)
        if "dicom" in files:
            # The file is read again, as results hold no data of its header.
            source = camanim.open_image(outcome.path)
            yield from _dicom_files(animation, files["dicom"], source, progress)
        if self.card is not None:
            # Of the network, once for all images.
            card, self.card = self.card, None
            yield animation.model.save_card(card)


def _dicom_files(
    animation: Animation, folder: Path, source: SourceImage, progress: Progress
) -> Iterator[Path]:
    """Write the maps as DICOM files; yield each, those that are complete after an interrupt as well."""
    folder = folder.absolute()
    older = {path: path.stat().st_mtime_ns for path in folder.glob("*.dcm")}
    try:
        yield from animation.write_dicom(folder, source, progress=progress)
    except KeyboardInterrupt:
        for path in sorted(folder.glob("*.dcm")):
            if older.get(path) != path.stat().st_mtime_ns:
                yield path
        raise


def _check_dicom(paths: Sequence[Path]) -> None:
    """Raise `RenderError` if an image that exists is not of DICOM."""
    for path in paths:
        if is_result_file(path) or (path.exists() and not is_dicom(path)):
            raise RenderError(f"--dicom needs DICOM images, and {path} is none: leave --dicom out.")


def _folder(out: Path | None) -> Path | None:
    """Return the folder of ``--out``."""
    if out is not None and has_field(out):
        raise typer.BadParameter(
            f"--out of camanim run is a folder of all images, not {out}: name files by --movie, --table "
            "or --plot."
        )
    if out is not None and out.suffix and not out.is_dir():
        raise typer.BadParameter(
            f"--out of camanim run is a folder, not {out}: name files by --movie, --table or --plot."
        )
    return out


def _estimate(paths: Sequence[Path], explanation: Explanation) -> None:
    """Print the expected passes and seconds of each image."""
    if explanation.windows is not None:
        raise typer.BadParameter("--estimate is not known for --windows.")
    arguments = explanation.arguments
    rows: list[dict[str, Any]] = []
    errors: list[CamError] = []
    with console(quiet=arguments["quiet"]) as progress:
        for i, path in enumerate(paths):
            if len(paths) > 1:
                progress(IMAGES, i, len(paths))
            try:
                cost = camanim.estimate(
                    explanation.model(progress),
                    read_pixels(path),
                    findings=explanation.requests,
                    **explanation.settings,
                    progress=progress,
                )
            except CamError as error:
                errors.append(error)
                rows.append({"image": str(path), "error": str(error)})
                continue
            rows.append(
                {
                    "image": str(path),
                    "estimate": cost.words,
                    "forwards": cost.forwards,
                    "backwards": cost.backwards,
                    "seconds": cost.total_seconds,
                }
            )
    if arguments["as_json"]:
        print_json(rows)
    else:
        for row in rows:
            text = str(row.get("estimate") or row.get("error"))
            say(text if len(paths) == 1 else f"{row['image']}: {text}")
    if errors and len(paths) == 1:
        raise errors[0]
    if errors:
        say_error(f"{len(errors)} of {len(paths)} images failed.")
        raise typer.Exit(1)


def _check_output_options(arguments: dict[str, Any], named: dict[str, Path | None]) -> None:
    """Raise `typer.BadParameter` for an option of an output that is not written."""
    changed = options.MOVIE_OPTIONS.changed(arguments)
    if changed and named["movie"] is None:
        raise typer.BadParameter(f"{', '.join(changed)} needs --movie.")
    if arguments["plot_kind"] != SCORES and named["plot"] is None:
        raise typer.BadParameter("--plot-kind needs --plot.")
    if arguments["plot_second"] is not None and named["plot"] is None:
        raise typer.BadParameter("--plot-second needs --plot.")
