"""Garbage collection without pauses of the window.

A full collection visits every object of the process; with napari and torch imported, this takes 0.2 to
1 s, during which the window is frozen, whichever thread collects. Objects that exist when a job starts
are therefore excluded from collections (`gc.freeze`), so that a collection visits only what was created
since. They are included again when layers are removed or the dock is closed, as only then can they be
garbage.
"""

from __future__ import annotations

import gc
import sys


def exclude_existing() -> None:
    """Exclude all existing objects from collections until `include_all`."""
    gc.freeze()


def include_all() -> None:
    """Let the next collection visit all objects."""
    gc.unfreeze()


def release_device_memory() -> None:
    """Return cached memory of the GPU to the driver; without torch, none is in use."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
