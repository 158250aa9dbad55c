"""Keep torch's import from crashing a process that draws with Mesa.

torch imports triton where it is installed (all Linux builds with CUDA), and triton has an LLVM of its
own whose symbols it shares. Mesa's OpenGL drivers (llvmpipe, AMD's) have loaded theirs, for all to see,
when napari's first canvas was drawn. triton then binds to Mesa's and dies at import with a
segmentation fault. Loaded with RTLD_DEEPBIND it prefers its own.
"""

from __future__ import annotations

import importlib.util
import os
import sys


def load_apart() -> None:
    """Import triton so that it keeps to its own LLVM; do nothing where that is no question."""
    if "triton" in sys.modules or not hasattr(os, "RTLD_DEEPBIND"):
        return
    if importlib.util.find_spec("triton") is None:
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
    try:
        importlib.import_module("triton")
    except ImportError:
        # A broken triton is torch's business, which goes on without.
        return
    finally:
        sys.setdlopenflags(flags)
