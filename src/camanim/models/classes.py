"""Class names from a list, a mapping or a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camanim.errors import ModelError

Classes = Sequence[str] | Mapping[Any, Any] | str | Path


def class_names(classes: Classes | None) -> list[str] | None:
    """Return the names of classes as a list.

    Parameters
    ----------
    classes : sequence of str, mapping from index to name, path, or None
        A file is ``.json`` (a list, or an object from indices to names), or text with one name per
        line. Of a list of names for one class, such as ImageNet's ``["n01440764", "tench"]``, the
        last is used.

    Raises
    ------
    ModelError
        If the file cannot be read, or the indices are not 0 to K - 1.
    """
    if classes is None:
        return None
    where = "The classes"
    if isinstance(classes, str | Path):
        where, classes = str(classes), _read(Path(classes))
    if isinstance(classes, Mapping):
        classes = _in_order(classes, where)
    if not isinstance(classes, Sequence) or isinstance(classes, str | bytes):
        raise ModelError(f"{where} must be a list of names, or a mapping from indices to names.")
    return [_name(entry) for entry in classes]


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as class names: {error}") from error
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _in_order(names: Mapping[Any, Any], where: str) -> list[Any]:
    try:
        numbered = {int(number): name for number, name in names.items()}
    except (TypeError, ValueError) as error:
        raise ModelError(f"{where} must have integers as keys: {error}.") from error
    if sorted(numbered) != list(range(len(names))):
        raise ModelError(
            f"{where} must be numbered from 0 to {len(names) - 1}, without repetition."
        )
    return [numbered[i] for i in range(len(numbered))]


def _name(entry: Any) -> str:
    if isinstance(entry, list | tuple) and entry:
        entry = entry[-1]
    return str(entry)
