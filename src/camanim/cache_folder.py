"""The folder for small files that are kept between sessions."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

#: Environment variable with the folder; by default the user's cache folder.
CACHE_VARIABLE = "CAMANIM_CACHE"
_chosen: list[Path] = []


def cache_folder() -> Path:
    """Return the folder; it may not exist.

    The environment variable comes first, then the folder of `set_cache_folder`.
    """
    folder = os.environ.get(CACHE_VARIABLE)
    if folder:
        return Path(folder)
    return _chosen[0] if _chosen else Path(platformdirs.user_cache_dir("camanim"))


def set_cache_folder(folder: str | Path | None) -> None:
    """Set the folder of this process; None for the user's cache folder."""
    _chosen[:] = [] if folder is None else [Path(folder).expanduser()]
