"""Model cards: TOML files with the source, weights, preprocessing and classes of a model."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from camanim.errors import ModelError
from camanim.models.building import Untrusted
from camanim.models.names import NATIVE, has_prefix, published_name
from camanim.writing import checked_path, write_file

_RANDOM = "random"
_CODE = r"\.(py(:\w+)?|pt2)$"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_list(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(check(v) for v in value)


# The check of each key's value, and its description for error messages.
_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "source": (_is_text, "the name or the path of a network"),
    "weights": (_is_text, f'the name or the path of weights, or "{_RANDOM}"'),
    "name": (_is_text, "text"),
    "outputs": (_is_text, "auto, softmax, sigmoid, values or probabilities"),
    "domain": (_is_text, 'what the network was trained on, such as "ImageNet photographs"'),
    "size": (lambda v: v == NATIVE or (_is_list(_is_count)(v) and len(v) in (2, 3)),
             f'two or three lengths, or "{NATIVE}"'),
    "dims": (lambda v: v in (2, 3) and type(v) is int, "2 or 3"),
    "resize": (_is_count, "a length"),
    "channels": (_is_count, "a number of channels"),
    "mean": (lambda v: _is_list(_is_number)(v) and len(v) > 0, "a list of numbers"),
    "std": (lambda v: _is_list(_is_number)(v) and len(v) > 0, "a list of numbers"),
    "interpolation": (_is_text, "bilinear, bicubic, nearest or nearest-exact"),
    "classes": (lambda v: _is_text(v) or _is_list(lambda name: isinstance(name, str))(v),
                "a list of names, or the path of a file"),
}  # fmt: skip


def write_card(entries: Mapping[str, Any], path: str | Path) -> Path:
    """Write a model card.

    Parameters
    ----------
    entries : mapping
        ``source``, ``weights`` (a name, a path, or None for random weights), ``name``, ``outputs``,
        and further entries, which are written unchanged.
    path : path-like
        Must end in ``.toml``. Paths are written relative to it.

    Raises
    ------
    ModelError
        If a name cannot be encoded as UTF-8.
    RenderError
        If the file cannot be written.
    """
    import tomli_w

    target = checked_path(path, ".toml")
    document = card_document(entries, target.parent)
    try:
        text = tomli_w.dumps(document).encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"A name in this card is not valid text: {error}.") from error
    write_file(target, text)
    return target


def card_document(entries: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the entries of a card as plain data, with paths relative to a folder.

    Parameters
    ----------
    entries : mapping
        See `write_card`.
    folder : pathlib.Path
        Folder of the file that holds the data.
    """
    source, weights = str(entries["source"]), entries["weights"]
    document = {
        "source": source if has_prefix(source) else _relative(source, folder),
        "name": entries["name"],
        "outputs": entries["outputs"],
        "weights": _RANDOM if weights is None else weights,
    }
    if isinstance(weights, Path):
        document["weights"] = _relative(str(weights), folder)
    return document | {key: value for key, value in entries.items() if key not in document}


def read_card(path: Path, *, trust: bool) -> tuple[str, str | Path | None, dict[str, Any]]:
    """Read a model card.

    Parameters
    ----------
    path : pathlib.Path
    trust : bool
        Allow paths outside of the card's folder.

    Returns
    -------
    source : str
    weights : str, Path or None
    overrides : dict
        The other entries, by key; see `camanim.models.overrides.ModelOverrides`.

    Raises
    ------
    ModelError
        If the file cannot be read or an entry is invalid; the message names the key.
    Untrusted
        If a path leads out of the card's folder and `trust` is False.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as a model card: {error}") from error
    return card_arguments(entries, path, trust=trust)


def card_arguments(
    document: Mapping[str, Any], path: Path, *, trust: bool
) -> tuple[str, str | Path | None, dict[str, Any]]:
    """Return the source, the weights and the other entries of a card's data.

    Parameters
    ----------
    document : mapping
        See `card_document`.
    path : pathlib.Path
        File that holds the data.
    trust : bool
        See `read_card`, also for the errors.
    """
    entries = dict(document)
    _check(entries, path)
    source, weights = entries.pop("source"), entries.pop("weights", "DEFAULT")
    folder = path.absolute().parent
    paths: list[str] = []
    if not has_prefix(source):
        paths.append(source)
        source = str(folder / source)
    if weights == _RANDOM:
        weights = None
    elif not published_name(weights):
        paths.append(weights)
        weights = folder / weights
    if isinstance(entries.get("classes"), str):
        paths.append(entries["classes"])
        entries["classes"] = folder / entries["classes"]
    outside = [text for text in paths if not _is_inside(folder, text)]
    if outside and not trust:
        code = f", and runs {source}" if re.search(_CODE, source) else ""
        raise Untrusted(path, f"refers to a file outside of its folder ({outside[0]}){code}")
    return source, weights, entries


def _is_inside(folder: Path, path: str) -> bool:
    """Return whether a relative path stays in a folder, before and after links are followed."""
    written = Path(os.path.normpath(folder / path))
    # In this order: links of a path on another computer would be followed there.
    return written.is_relative_to(os.path.normpath(folder)) and (
        written.resolve().is_relative_to(folder.resolve())
    )


def _check(entries: Mapping[str, Any], path: Path) -> None:
    """Raise `ModelError` for an entry that is unknown, invalid or missing."""
    for key, value in entries.items():
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(_KEYS)}."
            raise ModelError(f"{path}: a model card has no key {key}: {hint}")
        is_valid, expected = _KEYS[key]
        if not is_valid(value):
            raise ModelError(f"{path}: {key} must be {expected}, not {value!r}.")
    if "source" not in entries:
        raise ModelError(f"{path}: source ({_KEYS['source'][1]}) is missing.")
    if str(entries["source"]).lower().endswith(".toml"):
        raise ModelError(f"{path}: source must be a network, not another card.")


def _relative(path: str, folder: Path) -> str:
    """Return a path relative to the card's folder; it begins with a dot, unlike published names."""
    try:
        relative = Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        # Windows has no relative path between drives.
        return Path(path).as_posix()
    return relative if relative.startswith(".") else f"./{relative}"
