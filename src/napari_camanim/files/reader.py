"""Reader of saved results: File > Open, drag and drop, and ``viewer.open``."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QCoreApplication

from camanim.errors import CamError
from camanim.store.format import KEY, holds_result, is_result_path

#: What a reader returns for a file without layers.
NOTHING: list[Any] = [(None,)]


def reader(path: str | list[str]) -> Callable[[str], list[Any]] | None:
    """Return the function that reads a saved result; None for other files, which others may read."""
    if not isinstance(path, str) or not is_result_path(path):
        return None
    source = Path(path)
    if holds_result(source) or f".{KEY}." in source.name.lower():
        return read
    # What should be a zip file, and is none, is damaged, and not for another reader.
    is_damaged = source.is_file() and not zipfile.is_zipfile(source)
    return read if is_damaged else None


def read(path: str) -> list[Any]:
    """Return the layers of a saved result, which the viewer's session takes over.

    With a window, an error is shown as a notification.

    Raises
    ------
    camanim.StoreError
        See `camanim.load`.
    """
    # Here, as napari asks the reader about every folder.
    from napari_camanim.files.opened import read_result, take_over, when_added

    try:
        layers = read_result(path).layers()
    except CamError as error:
        if QCoreApplication.instance() is None:
            raise
        show_error(str(error))
        return NOTHING
    when_added(layers, take_over)
    return list(layers)
