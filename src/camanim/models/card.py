"""Model cards: where a network comes from and how it is used, in a small TOML file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from camanim.errors import ModelError
from camanim.models.names import NATIVE, has_prefix, published_name
from camanim.writing import cannot_write, checked_path, complete_or_absent

_RANDOM = "random"


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _count(value: Any) -> bool:
    return type(value) is int and value > 0


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(check(v) for v in value)


# What each key must be: a check, and the words for it.
_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "source": (_text, "the name or the path of a network"),
    "weights": (_text, f'the name or the path of weights, or "{_RANDOM}"'),
    "name": (_text, "text"),
    "outputs": (_text, "auto, softmax, sigmoid or values"),
    "size": (lambda v: v == NATIVE or (_list_of(_count)(v) and len(v) in (2, 3)),
             f'two or three lengths, or "{NATIVE}"'),
    "dims": (lambda v: v in (2, 3) and type(v) is int, "2 or 3"),
    "resize": (_count, "a length"),
    "channels": (_count, "a number of channels"),
    "mean": (lambda v: _list_of(_number)(v) and len(v) > 0, "a list of numbers"),
    "std": (lambda v: _list_of(_number)(v) and len(v) > 0, "a list of numbers"),
    "interpolation": (_text, "bilinear, bicubic, nearest or nearest-exact"),
    "classes": (lambda v: _text(v) or _list_of(lambda name: isinstance(name, str))(v),
                "a list of names, or the path of a file"),
}  # fmt: skip


def write_card(entries: Mapping[str, Any], path: str | Path) -> Path:
    """Write a card.

    Parameters
    ----------
    entries : mapping
        By key: ``source`` and ``weights`` (text, a path, or None for random ones) and the others as
        they are written.
    path : path-like
        Must end in ``.toml``. Paths are written relative to it.

    Raises
    ------
    ModelError
        When a name is no valid text.
    RenderError
        When the file cannot be written.
    """
    import tomli_w

    target = checked_path(path, ".toml")
    folder = target.parent
    source, weights = str(entries["source"]), entries["weights"]
    written = {
        "source": source if has_prefix(source) else _relative(source, folder),
        "name": entries["name"],
        "outputs": entries["outputs"],
        "weights": _RANDOM if weights is None else weights,
    }
    if isinstance(weights, Path):
        written["weights"] = _relative(str(weights), folder)
    written |= {key: value for key, value in entries.items() if key not in written}
    try:
        text = tomli_w.dumps(written).encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"A name in this card is no valid text: {error}.") from error
    with complete_or_absent(target) as partial:
        try:
            partial.write_bytes(text)
        except OSError as error:
            raise cannot_write(target, error) from error
    return target


def read_card(path: Path) -> tuple[str, str | Path | None, dict[str, Any]]:
    """Read a card.

    Returns
    -------
    source : str
    weights : str, Path or None
    overrides : dict
        The other entries, by key; see `camanim.models.overrides.ModelOverrides`.

    Raises
    ------
    ModelError
        When it cannot be read; the error names the key.
    """
    entries = _read(path)
    source, weights = entries.pop("source"), entries.pop("weights", "DEFAULT")
    folder = path.absolute().parent
    if not has_prefix(source):
        source = str(folder / source)
    if weights == _RANDOM:
        weights = None
    elif not published_name(weights):
        weights = folder / weights
    if isinstance(entries.get("classes"), str):
        entries["classes"] = folder / entries["classes"]
    return source, weights, entries


def _read(path: Path) -> dict[str, Any]:
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as a model card: {error}") from error
    for key, value in entries.items():
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, n=1)
            hint = f"did you mean {near[0]}" if near else f"there are {', '.join(_KEYS)}"
            raise ModelError(f"{path}: a model card has no {key}; {hint}.")
        check, wanted = _KEYS[key]
        if not check(value):
            raise ModelError(f"{path}: {key} must be {wanted}, not {value!r}.")
    if "source" not in entries:
        raise ModelError(f"{path}: source is missing, {_KEYS['source'][1]}.")
    if str(entries["source"]).lower().endswith(".toml"):
        raise ModelError(f"{path}: source must be a network, not another card.")
    return entries


def _relative(path: str, folder: Path) -> str:
    """Write a path as seen from the card, in a way that no name is written."""
    try:
        seen = Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        # On Windows no path leads from one drive to another.
        return Path(path).as_posix()
    return seen if seen.startswith(".") else f"./{seen}"
