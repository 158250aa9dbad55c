"""``camanim movie`` and ``camanim table``: one output of images or saved results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from camanim.cli import options
from camanim.cli.batch import run_batch
from camanim.cli.inputs import EXPLAINED, GROUPS, Explanation, Outcome
from camanim.cli.naming import SUFFIXES, Outputs, folder_or_file, input_paths, output_files
from camanim.progress import Progress


@options.with_options(
    "images", (*EXPLAINED, "out", *options.PRINTED), (*GROUPS, options.MOVIE_OPTIONS)
)
def movie(images: list[str], **arguments: Any) -> None:
    """Write the movie of images or saved results: one frame per layer.

    By default a movie has the name of its image, in the current folder.

    Example: camanim movie "scans/*.png" --road --out movies
    """
    paths = input_paths(images)
    outputs = _outputs(paths, "movie", arguments["out"] or Path("{stem}.mp4"))
    explanation = Explanation.of(arguments, paths)
    settings = options.MOVIE_OPTIONS.values(arguments)

    def write(outcome: Outcome, progress: Progress) -> Iterator[Path]:
        assert outcome.animation is not None
        file = outputs[outcome.path]["movie"]
        yield outcome.animation.write_movie(file, **settings, progress=progress)

    run_batch(paths, explanation, write)


@options.with_options("images", (*EXPLAINED, "out", *options.PRINTED), GROUPS)
def table(images: list[str], **arguments: Any) -> None:
    """Write the table of images or saved results: one row per layer call, with the scores.

    Without --out the layers of a single image are listed in the terminal.

    Example: camanim table cat.jpg --model torchvision/mobilenet_v2 --road --out cat.csv
    """
    paths = input_paths(images)
    out = arguments["out"]
    outputs: dict[Path, Outputs] = {} if out is None else _outputs(paths, "table", out)
    explanation = Explanation.of(arguments, paths)

    def write(outcome: Outcome, progress: Progress) -> Iterator[Path]:
        assert outcome.animation is not None
        if outputs:
            yield outcome.animation.write_table(outputs[outcome.path]["table"])

    run_batch(paths, explanation, write, list_layers=out is None)


def _outputs(paths: Sequence[Path], kind: str, out: Path) -> dict[Path, Outputs]:
    """Return the output of each image, in a folder if ``--out`` has no suffix."""
    folder, out = folder_or_file(out, "{stem}" + SUFFIXES[kind][0])
    outputs = output_files(paths, {kind: out}, folder=folder, called="--out")
    return dict(zip(paths, outputs, strict=True))
