"""Inspect files of torch before they are read: their size when unpacked, and what they hold."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from camanim.errors import ModelError

#: An archive may unpack to this number of bytes, and to this multiple of its size. torch's are stored.
FREE_BYTES, MAX_RATIO = 2**26, 4


def check_archive(path: Path) -> None:
    """Refuse an archive of TorchScript, and one that unpacks to much more than its size.

    Nothing is unpacked for it.

    Raises
    ------
    ModelError
    """
    entries = _entries(path)
    unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if unpacked > max(FREE_BYTES, MAX_RATIO * size):
        raise ModelError(
            f"{path} is refused, because its {size / 1e6:.1f} MB unpack to {unpacked / 1e9:.1f} GB, and "
            "torch writes no compressed files: save the weights again with torch.save."
        )
    names = {entry.filename.partition("/")[2] for entry in entries}
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        raise ModelError(
            f"{path} is an archive of TorchScript, which has no layers that can be observed: save the "
            "weights of the Python module with torch.save(net.state_dict(), ...)."
        )


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    """Return the entries of a zip archive; none of another file, such as one of torch before 1.6."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return []
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()


def why_unreadable(path: Path, error: Exception) -> str:
    """Return why torch does not read a file as weights, and what to do.

    torch's message suggests to read the file without its protection against code, and is not shown.
    """
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    objects = f" ({found[1]})" if found else ""
    return (
        f"{path} holds Python objects{objects} besides weights, and reading those could run code: save "
        "the weights alone with torch.save(net.state_dict(), ...) where the file comes from."
    )
