"""Import of torch and the engine in a thread, without pauses of the window."""

from __future__ import annotations

import gc
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from napari_camanim.work.collection import exclude_existing


def import_engine() -> None:
    """Import torch and the engine, without collections in between, which the imports would trigger."""
    if "torchvision" in sys.modules:
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        if "torch" not in sys.modules:
            _load_libraries()
        import torchvision  # noqa: F401 (imports torch)

        import camanim.animation  # noqa: F401
    finally:
        if was_enabled:
            gc.enable()
    exclude_existing()


def _load_libraries() -> None:
    """Load torch's libraries, a gigabyte, without holding Python's lock.

    Python keeps its lock while it loads the library of an extension module: the import of torch would
    freeze the window for 0.2 s or more. A function of a library that is called by ctypes releases it.
    Where a library is missing or does not load, the import of torch fails with the reason.
    """
    spec = find_spec("torch")
    if not sys.platform.startswith("linux") or spec is None or spec.origin is None:
        return
    if "LD_LIBRARY_PATH" in os.environ:
        # torch then loads libraries of CUDA before its own, as that path may have other versions.
        return
    import ctypes

    try:
        load = ctypes.CDLL(None).dlopen
    except (AttributeError, OSError):
        # A C library without it among its symbols.
        return
    load.restype, load.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    folder = Path(spec.origin).parent / "lib"
    # As torch does, which makes the symbols of the first one global.
    load(bytes(folder / "libtorch_global_deps.so"), os.RTLD_NOW | os.RTLD_GLOBAL)
    load(bytes(folder / "libtorch.so"), os.RTLD_NOW)
