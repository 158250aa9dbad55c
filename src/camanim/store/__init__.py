"""Results in files: saved, opened again, computed again and compared.

The functions are imported on first use, so that a file can be recognised without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from camanim.store.format import holds_result, is_result_path

if TYPE_CHECKING:
    from camanim.store.differences import Difference, diff
    from camanim.store.opening import load
    from camanim.store.recomputation import Rerun, rerun
    from camanim.store.saving import save

__all__ = [
    "Difference",
    "Rerun",
    "diff",
    "holds_result",
    "is_result_path",
    "load",
    "rerun",
    "save",
]

_MODULES = {
    "Difference": "differences",
    "Rerun": "recomputation",
    "diff": "differences",
    "load": "opening",
    "rerun": "recomputation",
    "save": "saving",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
