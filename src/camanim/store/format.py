"""The format of saved results: its version, its names, and the schema of its metadata."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from camanim.store.container import ARCHIVES, FOLDER

#: Version of the format, and the attribute that holds the result.
FORMAT, KEY = 1, "camanim"
#: Suffixes of saved results.
SUFFIXES = (FOLDER, *ARCHIVES)
#: Fields of a result that are encoded separately.
SPECIAL = (
    "maps", "layers", "layer_calls", "image", "tensor", "model", "findings", "computed_with",
    "input_gradient", "guided", "target",
)  # fmt: skip
#: Notes of a result whose image is not saved, by what is.
NO_IMAGE = {
    "thumbnail": "The image is a thumbnail: the file does not hold more of it.",
    "none": "The file does not hold the image.",
}


def is_result_path(path: str | Path) -> bool:
    """Return whether a path has a name of saved results: ``.zarr``, ``.ozx`` or ``.camanim.zip``."""
    return Path(path).name.lower().endswith((FOLDER, ".ozx", f".{KEY}.zip"))


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
