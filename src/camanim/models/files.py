"""Weights from files, and files from the net."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camanim.errors import ModelError
from camanim.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn

_WRAPPERS = ("module.", "_orig_mod.")


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
    import torch
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise ModelError(f"There is no weights file {path}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged file may raise anything on its way through the readers.
        first_line = str(error).partition("\n")[0]
        raise ModelError(f"{path} cannot be read as weights: {first_line}") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        raise ModelError(
            f"{path} holds no state dict: save it with torch.save(net.state_dict(), ...)."
        )
    return _unwrapped(state)


def _unwrapped(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take off the prefixes of networks that were trained inside DataParallel or compiled."""
    names, versions = list(state), getattr(state, "_metadata", None)
    metadata = dict(versions or {})
    while names and (prefix := _shared_prefix(names)):
        names = [name.removeprefix(prefix) for name in names]
        metadata = {f"{name}.".removeprefix(prefix)[:-1]: v for name, v in metadata.items()}
    weights = OrderedDict(zip(names, state.values(), strict=True))
    if versions is not None:
        weights._metadata = metadata  # type: ignore[attr-defined]
    return weights


def _shared_prefix(names: list[str]) -> str:
    return next((p for p in _WRAPPERS if all(name.startswith(p) for name in names)), "")


def load_into(net: nn.Module, state: dict[str, torch.Tensor], path: str | Path, name: str) -> None:
    """Put a state dict into a network.

    Parameters
    ----------
    net : torch.nn.Module
    state : dict
        From `read_weights`.
    path, name
        Of the file and the network, for the error.

    Raises
    ------
    ModelError
        When they do not fit.
    """
    if not hasattr(state, "_metadata"):
        state = _with_versions(state, net)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        lines = " ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise ModelError(f"{path} does not fit {name}: {lines[:300]}") from error


def _with_versions(state: dict[str, torch.Tensor], net: nn.Module) -> dict[str, torch.Tensor]:
    """Add the versions of the modules' layouts, which safetensors does not keep and some ask for.

    They are taken to be today's, but for normalisations from the days before they counted batches.
    """
    versioned = OrderedDict(state)
    current = net.state_dict()
    versioned._metadata = {  # type: ignore[attr-defined]
        name: version
        for name, version in current._metadata.items()  # type: ignore[attr-defined]
        if (key := f"{name}.num_batches_tracked") not in current or key in state
    }
    return versioned


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
    part = path.with_name(path.name + ".part")
    fetch = pooch.HTTPDownloader(progressbar=_Bytes(progress), chunk_size=2**18, timeout=30)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
        if part.exists():
            part.unlink()


class _Bytes:
    """What pooch takes for a progress bar: counts bytes and hands them on."""

    total = 0

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.done = 0

    def update(self, count: int) -> None:
        # pooch counts whole chunks, of which the last may be shorter.
        self.done = min(self.done + count, self.total or self.done + count)
        self.progress("download", self.done, self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        self.progress("download", self.done, self.total)
