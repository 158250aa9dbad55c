"""Read weights from files, load them into networks, and download published files."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camanim.errors import ModelError
from camanim.models.archives import check_archive, why_unreadable
from camanim.models.building import first_line
from camanim.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn

_WRAPPERS = ("module.", "_orig_mod.")


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict without running code that the file may contain.

    Parameters
    ----------
    path : path-like
        ``.safetensors``, or a file of ``torch.save``, which is read with ``weights_only=True``. Of a
        checkpoint, the entry ``state_dict`` or ``model`` is used.

    Returns
    -------
    dict
        Without the prefixes that DataParallel and ``torch.compile`` add to names.

    Raises
    ------
    ModelError
        If the file is missing or damaged, unpacks to much more than its size, or holds no state dict.
    """
    import torch
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise ModelError(f"There is no weights file {path}.")
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        check_archive(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except Exception as error:
        # A damaged file may raise any exception.
        if "weights_only" in str(error):
            raise ModelError(why_unreadable(path, error)) from error
        raise ModelError(f"{path} cannot be read as weights: {first_line(error)}") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        raise ModelError(
            f"{path} holds no state dict: save it with torch.save(net.state_dict(), ...)."
        )
    return _without_prefixes(state)


def _without_prefixes(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Remove the prefixes of names that DataParallel and ``torch.compile`` add."""
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
    """Load a state dict into a network.

    Parameters
    ----------
    net : torch.nn.Module
    state : dict
        From `read_weights`.
    path, name
        The file and the name of the network, for error messages.

    Raises
    ------
    ModelError
        If names or shapes do not match.
    """
    if not hasattr(state, "_metadata"):
        state = _with_versions(state, net)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        lines = " ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise ModelError(f"{path} does not fit {name}: {lines[:300]}") from error


def _with_versions(state: dict[str, torch.Tensor], net: nn.Module) -> dict[str, torch.Tensor]:
    """Add the versions of the modules' state, which safetensors does not store.

    The current versions are assumed, except for batch normalisations without ``num_batches_tracked``:
    those were saved before torch 0.4.1, and have no version.
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
    """Download a weights file, unless it exists.

    If the file's name contains the beginning of its SHA-256, as names of torch hub do
    (``resnet50-11ad3fa6.pth``), the hash is checked.

    Parameters
    ----------
    url : str
    path : pathlib.Path
        The file, which is written only after a complete download.
    progress : Progress
        Called as ``progress("download", bytes_done, bytes_in_total)``; 0 for an unknown total.

    Raises
    ------
    ModelError
        If the download fails, or the file cannot be written.
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
            raise ModelError(
                f"The download of {url} is damaged (its SHA-256 is {digest}): try again."
            )
        part.replace(path)
    except (requests.RequestException, OSError) as error:
        raise ModelError(
            f"The weights are not at {path} and cannot be downloaded from {url} "
            f"({type(error).__name__}). Copy the file to this path, or pass weights=FILE, or "
            "weights=None for random weights."
        ) from error
    finally:
        if part.exists():
            part.unlink()


class _Bytes:
    """Progress bar in the form that pooch expects, which reports the number of bytes."""

    total = 0

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.done = 0

    def update(self, count: int) -> None:
        # pooch reports whole chunks, and the last chunk may be shorter.
        self.done = min(self.done + count, self.total or self.done + count)
        self.progress("download", self.done, self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        self.progress("download", self.done, self.total)
