"""``camanim view``: napari with saved results or images."""

from __future__ import annotations

from typing import Any

import camanim
from camanim.cli import options
from camanim.cli.inputs import read_pixels
from camanim.cli.naming import input_paths, is_result_file, stem
from camanim.cli.window import missing_window, open_view
from camanim.errors import CamError
from camanim.progress import console


@options.with_options("images", ("model", "trust", "quiet"), context=True)
def view(images: list[str], **arguments: Any) -> None:
    """Open napari with saved results, or with images and the dock that explains them.

    Example: camanim view cat.camanim.zarr
    """
    paths = input_paths(images)
    missing = missing_window()
    if missing:
        raise CamError(f"napari cannot open a window. {missing}")
    pictures = [path for path in paths if not is_result_file(path)]
    for path in pictures:
        # What cannot be read is an error here, not in a window.
        read_pixels(path)
    with console(quiet=arguments["quiet"]) as progress:
        results = [
            (stem(path), camanim.load(path, trust=arguments["trust"], progress=progress))
            for path in paths
            if is_result_file(path)
        ]
    # The dock suggests a network for each image, which a default must not replace.
    given = "--model" in options.given(arguments["context"])
    open_view(results, pictures, arguments["model"] if given else None)
