"""Import of OpenCV, and of packages that import it, with the environment of Qt unchanged."""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType

#: Environment variables that the opencv-python wheel sets on import.
_SET_BY_OPENCV = ("QT_QPA_PLATFORM_PLUGIN_PATH", "QT_QPA_FONTDIR")


def import_with_opencv(module: str = "cv2") -> ModuleType:
    """Import a module that imports OpenCV.

    OpenCV's Linux wheel points Qt to its bundled plugins. These are incompatible with PyQt: opening a
    window afterwards would abort the process.

    Raises
    ------
    ImportError
        If the import fails.
    """
    before = {name: os.environ.get(name) for name in _SET_BY_OPENCV}
    try:
        return import_module(module)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
