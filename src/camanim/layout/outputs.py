"""The tensors in whatever a module returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def tensors_of(output: Any) -> list[tuple[str, torch.Tensor]]:
    """List the tensors in an output, each with its path.

    Parameters
    ----------
    output : object
        A tensor, or tuples, lists, mappings, named tuples and dataclasses of such, nested as they like.

    Returns
    -------
    list of (str, torch.Tensor)
        In the order in which the output holds them. Paths read as in Python: ``[0]``, ``['out']``,
        ``.logits``, ``[0]['boxes']``; that of a bare tensor is empty.
    """
    return list(_walk(output, "", ()))


def _walk(value: Any, path: str, around: tuple[int, ...]) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    if isinstance(value, torch.Tensor):
        yield path, value
        return
    if id(value) in around:
        return
    for step, inner in _entries(value):
        yield from _walk(inner, path + step, (*around, id(value)))


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    # HuggingFace's outputs are mappings as well as dataclasses.
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", inner) for key, inner in value.items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from ((f".{name}", getattr(value, name)) for name in value._fields)
    elif isinstance(value, tuple | list):
        yield from ((f"[{i}]", inner) for i, inner in enumerate(value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (f.name for f in dataclasses.fields(value))
        yield from ((f".{name}", getattr(value, name)) for name in names if hasattr(value, name))
