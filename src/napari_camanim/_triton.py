"""Import of triton that avoids a crash in processes that draw with Mesa.

torch imports triton if it is installed (all Linux builds with CUDA), and triton contains a copy of LLVM
with exported symbols. Mesa's OpenGL drivers (llvmpipe, AMD) load another LLVM with global symbols when
napari draws its first canvas. triton then binds to Mesa's LLVM, and its import ends in a segmentation
fault. With RTLD_DEEPBIND, triton binds to its bundled LLVM.
"""

from __future__ import annotations

import importlib.util
import os
import sys


def import_triton() -> None:
    """Import triton with RTLD_DEEPBIND, if it is installed and not yet imported."""
    if "triton" in sys.modules or not hasattr(os, "RTLD_DEEPBIND"):
        return
    if importlib.util.find_spec("triton") is None:
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
    try:
        importlib.import_module("triton")
    except ImportError:
        # torch works without triton.
        return
    finally:
        sys.setdlopenflags(flags)
