"""The folder for small files that are kept between sessions."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

#: Environment variable with the folder; by default the user's cache folder.
CACHE_VARIABLE = "CAMANIM_CACHE"


def cache_folder() -> Path:
    """Return the folder; it may not exist."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("camanim"))
