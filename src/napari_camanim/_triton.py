"""Import of triton that avoids a crash in processes that draw with Mesa.

torch imports triton if it is installed (all Linux builds with CUDA), and triton contains a copy of LLVM
with exported symbols. Mesa's OpenGL drivers (llvmpipe, AMD) load another LLVM with global symbols when
napari draws its first canvas. triton then binds to Mesa's LLVM, and its import ends in a segmentation
fault. With RTLD_DEEPBIND, triton binds to its bundled LLVM.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from types import ModuleType

#: The extension module with LLVM.
LIBRARY = "triton._C.libtriton"


def protect_triton() -> None:
    """Let any later import of triton, also by other code, bind to its bundled LLVM.

    Nothing is imported now.
    """
    is_needed = hasattr(os, "RTLD_DEEPBIND") and LIBRARY not in sys.modules
    if is_needed and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds triton's extension module as Python does, with another loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != LIBRARY:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, ExtensionFileLoader):
            spec.loader = _DeepBindLoader(fullname, spec.loader.path)
        return spec


class _DeepBindLoader(ExtensionFileLoader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        flags = sys.getdlopenflags()
        sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
        try:
            return super().create_module(spec)
        finally:
            sys.setdlopenflags(flags)
