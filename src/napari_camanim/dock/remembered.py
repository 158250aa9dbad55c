"""The values of the dock's fields between sessions, as JSON in the user's cache folder.

magicgui's own persistence (``persist=True``) pickles values: unpickling runs code, and layers would be
pickled with their pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camanim.cache_folder import cache_folder
from camanim.errors import RenderError
from camanim.writing import make_folder, write_file

NAME = "dock.json"


def remembered() -> dict[str, Any]:
    """Return the values of the last session; empty without any, or if the file is damaged."""
    try:
        values = json.loads((cache_folder() / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def remember(values: Mapping[str, Any]) -> None:
    """Write the values of this session; a folder that cannot be written is left as it is."""
    target: Path = cache_folder() / NAME
    try:
        make_folder(target.parent)
        write_file(target, json.dumps(values, indent=1, default=str).encode())
    except (OSError, RenderError):
        # As for other caches: nothing of the user's is lost.
        return
