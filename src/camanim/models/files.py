"""Weights from files, and files from the net."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camanim.errors import ModelError
from camanim.progress import Progress

if TYPE_CHECKING:
    import torch


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict without running any code that the file might hold.

    Parameters
    ----------
    path : path-like
        ``.safetensors``, or anything of ``torch.save`` (read with ``weights_only=True``); a checkpoint
        that keeps its state dict under ``state_dict`` or ``model`` is opened.

    Raises
    ------
    ModelError
        When the file is missing, broken, or holds something else.
    """
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise ModelError(f"There is no weights file {path}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        first_line = str(error).partition("\n")[0]
        raise ModelError(f"{path} cannot be read as weights: {first_line}") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ModelError(
            f"{path} holds no state dict: save it with torch.save(net.state_dict(), ...)."
        )
    # A network trained inside DataParallel has its names one level down.
    return {name.removeprefix("module."): value for name, value in state.items()}


def download(url: str, path: Path, progress: Progress) -> None:
    """Download a weights file unless it is there; the bytes are reported while it runs.

    The file's name carries the beginning of its SHA-256, as torch hub's do
    (``resnet50-11ad3fa6.pth``); a download that does not match is thrown away.

    Parameters
    ----------
    url : str
    path : pathlib.Path
        Written only when complete.
    progress : Progress
        ``progress("download", bytes so far, bytes in all)``.

    Raises
    ------
    ModelError
        When it cannot be had.
    """
    import pooch
    import requests

    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    fetch = pooch.HTTPDownloader(progressbar=_Bytes(progress), timeout=30)
    try:
        fetch(url, str(part), None)
        expected = re.search(r"-([0-9a-f]{8,})\.", path.name)
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if expected and not digest.startswith(expected[1]):
            raise ModelError(f"{url} came damaged (its SHA-256 is {digest}): try again.")
        part.replace(path)
    except (requests.RequestException, OSError) as error:
        raise ModelError(
            f"The weights are not at {path} and cannot be downloaded from {url} "
            f"({type(error).__name__}). Put the file there by hand, or pass weights=FILE, or "
            "weights=None for random weights."
        ) from error
    finally:
        part.unlink(missing_ok=True)


class _Bytes:
    """What pooch takes for a progress bar: counts bytes and hands them on."""

    total = 0

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.done = 0

    def update(self, count: int) -> None:
        self.done += count
        self.progress("download", self.done, self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        self.progress("download", self.done, self.total)
