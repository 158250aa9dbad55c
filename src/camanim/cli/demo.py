"""``camanim demo``: explain a sample image."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import camanim
from camanim.cli.report import report
from camanim.progress import console
from camanim.writing import checked_path, make_folder


def demo(
    output: Annotated[
        Path, typer.Option(help="Folder for the files that are written without a display.")
    ] = Path("."),
    window: Annotated[
        bool, typer.Option(help="Open napari; by default if a display is available.")
    ] = True,
) -> None:
    """Explain a sample image, in napari or, without a display, in files.

    The network is a teaching aid trained on synthetic ultrasound, not for diagnosis.
    """
    if window and _has_display():
        from napari_camanim._demo import open_demo

        open_demo()
        return
    from camanim import samples

    make_folder(output)
    paths = [checked_path(output / f"demo{suffix}", suffix) for suffix in (".mp4", ".png", ".csv")]
    with console() as progress:
        animation = camanim.animate(
            camanim.load_model("demo/ultrasound"), samples.image("malignant_1"), progress=progress
        )
        animation.score(progress=progress)
        animation.write_movie(paths[0], progress=progress)
        animation.write_picture(paths[1])
        animation.write_table(paths[2])
    report(animation, paths)


def _has_display() -> bool:
    """Return whether napari can open a window."""
    if importlib.util.find_spec("napari") is None or importlib.util.find_spec("qtpy") is None:
        return False
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True
