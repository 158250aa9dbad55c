"""``camanim demo``: explain a sample image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import camanim
from camanim.cli import options
from camanim.cli.terminal import report
from camanim.cli.window import missing_window, open_demo
from camanim.progress import console
from camanim.writing import checked_path, make_folder


@options.with_options("", ("out", "viewer", "quiet"))
def demo(**arguments: Any) -> None:
    """Explain a sample image, in napari or, with --out or without a display, in files.

    The network is a teaching aid trained on synthetic ultrasound, not for diagnosis.
    """
    if arguments["out"] is None and arguments["viewer"] and not missing_window():
        open_demo()
        return
    from camanim import samples

    folder = make_folder(arguments["out"] or Path())
    paths = [checked_path(folder / f"demo{suffix}", suffix) for suffix in (".mp4", ".png", ".csv")]
    with console(quiet=arguments["quiet"]) as progress:
        animation = camanim.animate(
            camanim.load_model("demo/ultrasound"), samples.image("malignant_1"), progress=progress
        )
        animation.score(progress=progress)
        animation.write_movie(paths[0], progress=progress)
        animation.write_picture(paths[1])
        animation.write_table(paths[2])
    report(animation, paths)
