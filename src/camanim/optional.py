"""Import libraries that only some formats need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from camanim.errors import CamError, ImageError


def library(name: str, extra: str, error: type[CamError] = ImageError) -> Any:
    """Return a module, or raise an error that names what to install.

    Parameters
    ----------
    name : str
        Name of the module, such as ``"pydicom"``.
    extra : str
        Extra of the package that installs it.
    error : type
        Type of the error.
    """
    try:
        return import_module(name)
    except ImportError as missing:
        package = name.partition(".")[0]
        raise error(
            f'{package} is not installed: pip install "napari-camanim[{extra}]".'
        ) from missing
