"""The format of saved results: its version, its names, and the schema of its metadata."""

from __future__ import annotations

import json
import zipfile
import zlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from camanim.store.container import ARCHIVES, FOLDER
from camanim.store.nodes import LONGEST

#: Version of the format, and the attribute that holds the result.
FORMAT, KEY = 1, "camanim"
#: Suffixes of saved results.
SUFFIXES = (FOLDER, *ARCHIVES)
#: Fields of a result that are encoded separately.
SPECIAL = (
    "maps", "layers", "layer_calls", "image", "tensor", "model", "findings", "computed_with",
    "input_gradient", "guided", "target",
)  # fmt: skip


def is_result_path(path: str | Path) -> bool:
    """Return whether a path has a name of saved results: ``.zarr``, ``.ozx`` or ``.camanim.zip``.

    Other zip files are results if they have the metadata of one.
    """
    name = Path(path).name.lower()
    if name.endswith((FOLDER, ".ozx", f".{KEY}.zip")):
        return True
    return name.endswith(ARCHIVES) and holds_result(path)


def holds_result(path: str | Path) -> bool:
    """Return whether a folder or zip file has the metadata of a saved result, of any version.

    Nothing else of it is read. False also where it cannot be read.
    """
    source = Path(path)
    try:
        if source.is_dir():
            root = source / "zarr.json"
            text = root.read_bytes() if root.stat().st_size <= LONGEST else b""
        else:
            with zipfile.ZipFile(source) as archive:
                entry = archive.getinfo("zarr.json")
                stored = entry.compress_type == zipfile.ZIP_STORED
                fits = stored and entry.file_size <= LONGEST
                text = archive.read(entry) if fits else b""
        about = json.loads(text)["attributes"][KEY]
        return isinstance(about, dict) and "format" in about
    except (OSError, ValueError, LookupError, TypeError, RecursionError, RuntimeError):
        return False
    except (zipfile.BadZipFile, NotImplementedError, zlib.error):
        return False


@cache
def schema() -> dict[str, Any]:
    """Return the JSON schema of the attribute ``camanim``."""
    text = files("camanim.store").joinpath("schema.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


@cache
def validator() -> Any:
    """Return the validator of the schema."""
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema())
