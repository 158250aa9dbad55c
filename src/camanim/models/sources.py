"""The one door: ``SOURCE/NAME`` to a `Model`. Each source has a file of its own."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from camanim.errors import ModelError
from camanim.models import demo, torchvision
from camanim.progress import Progress, silent

if TYPE_CHECKING:
    from camanim.models.base import Model

_SOURCES = {"demo": demo, "torchvision": torchvision}


def list_models() -> list[str]:
    """List what `load_model` knows by name.

    Returns
    -------
    list of str
        ``demo/ultrasound``, then ``torchvision/...``.
    """
    return [f"{prefix}/{name}" for prefix, source in _SOURCES.items() for name in source.NAMES]


def load_model(
    name: str, weights: str | Path | None = "DEFAULT", *, progress: Progress = silent
) -> Model:
    """Load a network with its preprocessing and its classes.

    Parameters
    ----------
    name : str
        ``torchvision/NAME`` for any of torchvision's classifiers, or ``demo/ultrasound``.
    weights : str, path or None
        ``"DEFAULT"`` or another name of torchvision's for these weights (downloaded once, into
        torch's own cache), a file (``.safetensors``, or ``.pth`` with ``weights_only``), or None for
        random weights, which are the same every time.
    progress : Progress
        Told the bytes of a download; raising in it leaves no file.

    Returns
    -------
    Model
        On the CPU, in evaluation mode. ``model.net.to("cuda")`` moves it.

    Raises
    ------
    ModelError
        When there is no such network, or its weights cannot be had or do not fit.
    """
    prefix, _, bare = name.partition("/")
    source = _SOURCES.get(prefix)
    if source is None or bare not in source.NAMES:
        near = get_close_matches(name, list_models(), n=3, cutoff=0.4)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise ModelError(f"There is no network {name!r}.{hint}")
    model: Model = source.load(bare, weights, progress)
    return model
