"""Suggested names of files of a result."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camanim.result import Result

#: Most characters of each part of a name.
LONGEST = 32
#: Names of devices on Windows, which cannot be files.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)


def suggested_name(result: Result, suffix: str = "", image: str = "") -> str:
    """Return a name for a file: image, network, method and class, joined by underscores.

    Parameters
    ----------
    result : Result
    suffix : str
        Such as ``".mp4"``.
    image : str
        Name or path of the image, which a result does not know; left out if empty.

    Returns
    -------
    str
        Of ASCII letters, digits, hyphens, underscores and the suffix, so that it is valid on every file
        system. Parts are at most 32 characters long.

    Examples
    --------
    >>> from types import SimpleNamespace as Namespace
    >>> result = Namespace(
    ...     provenance={"model": "torchvision/mobilenet_v2"},
    ...     method="GradCAM",
    ...     target=Namespace(name="Egyptian cat"),
    ... )
    >>> suggested_name(result, ".mp4", image="photos/my cat.jpg")
    'my-cat_mobilenet_v2_GradCAM_Egyptian-cat.mp4'
    """
    # A query of arguments, and the source before the last slash, say little.
    model = str(result.provenance.get("model", "")).partition("?")[0]
    named = PurePath(image.replace("\\", "/"))
    known = (
        named.suffix.lower() if re.fullmatch(r"\.[A-Za-z][A-Za-z0-9]{1,4}", named.suffix) else ""
    )
    stem = named.name[: -len(known)] if known else named.name
    parts = [
        _safe(part) for part in (stem, model.rpartition("/")[2], result.method, result.target.name)
    ]
    name = "_".join(part for part in parts if part) or "layers"
    return f"{name}{suffix}" if not _RESERVED.fullmatch(name) else f"{name}-{suffix}"


def _safe(text: str) -> str:
    """Return a text in characters that are valid in every file system."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-_")
    return safe[:LONGEST].rstrip("-_")
