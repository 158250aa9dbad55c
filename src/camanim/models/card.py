"""Model cards: where a network comes from and how it is used, in a small TOML file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camanim.errors import ModelError
from camanim.images import Preprocess
from camanim.models.overrides import NATIVE, ModelOverrides, published_name
from camanim.writing import cannot_write, checked_path, complete_or_absent

if TYPE_CHECKING:
    from camanim.models.base import Model

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


def write_card(model: Model, path: str | Path) -> Path:
    """Write a card; see `Model.save_card`."""
    import tomli_w

    target = checked_path(path, ".toml")
    if model.source is None:
        raise ModelError(
            f"{model.name} was given as an object, so that no card can lead back to it: "
            "load it with camanim.load_model."
        )
    try:
        text = tomli_w.dumps(_entries(model, target.parent)).encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"A name in this card is no valid text: {error}.") from error
    with complete_or_absent(target) as partial:
        try:
            partial.write_bytes(text)
        except OSError as error:
            raise cannot_write(target, error) from error
    return target


def _entries(model: Model, folder: Path) -> dict[str, Any]:
    """All that is to be written, in the order in which it is read."""
    assert model.source is not None
    entries: dict[str, Any] = {
        "source": _relative(model.source, folder) if _is_path(model.source) else model.source,
        "name": model.name,
        "outputs": model.outputs,
    }
    weights = model.weights
    if weights is None:
        entries["weights"] = _RANDOM
    elif isinstance(weights, Path):
        entries["weights"] = _relative(str(weights), folder)
    else:
        entries["weights"] = weights
    if isinstance(prep := model.preprocess, Preprocess):
        entries["size"] = NATIVE if prep.size is None else [int(n) for n in prep.size]
        if prep.size is None:
            entries["dims"] = prep.dims
        if prep.resize is not None:
            entries["resize"] = int(prep.resize)
        entries["channels"] = int(prep.channels)
        entries["mean"], entries["std"] = ([float(v) for v in vs] for vs in (prep.mean, prep.std))
        entries["interpolation"] = prep.interpolation
    if model.classes is not None:
        entries["classes"] = model.classes
    return entries


def read_card(path: Path) -> tuple[str, str | Path | None, ModelOverrides]:
    """Read a card.

    Returns
    -------
    source : str
    weights : str, Path or None
    changes : ModelOverrides
        Of all that it says besides.

    Raises
    ------
    ModelError
        When it cannot be read; the error names the key.
    """
    entries = _read(path)
    source, weights = entries.pop("source"), entries.pop("weights", "DEFAULT")
    folder = path.absolute().parent
    if _is_path(source):
        source = str(folder / source)
    if weights == _RANDOM:
        weights = None
    elif not published_name(weights):
        weights = folder / weights
    if isinstance(entries.get("classes"), str):
        entries["classes"] = folder / entries["classes"]
    return source, weights, ModelOverrides(**entries)


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


def _is_path(source: str) -> bool:
    from camanim.models.sources import has_prefix

    return not has_prefix(source)


def _relative(path: str, folder: Path) -> str:
    """Write a path as seen from the card, in a way that no name is written."""
    try:
        seen = Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        # On Windows no path leads from one drive to another.
        return Path(path).as_posix()
    return seen if seen.startswith(".") else f"./{seen}"
