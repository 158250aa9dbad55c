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

    output.mkdir(parents=True, exist_ok=True)
    with console() as progress:
        animation = camanim.animate(
            camanim.load_model("demo/ultrasound"), samples.image("malignant_1"), progress=progress
        )
        animation.score(progress=progress)
        files = [
            animation.write_movie(output / "demo.mp4", progress=progress),
            animation.write_picture(output / "demo.png"),
            animation.write_table(output / "demo.csv"),
        ]
    report(animation, files)


def _has_display() -> bool:
    """Return whether napari can open a window."""
    if importlib.util.find_spec("napari") is None or importlib.util.find_spec("qtpy") is None:
        return False
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True
