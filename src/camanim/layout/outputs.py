"""List the tensors in the output of a module."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def tensors_of(output: Any) -> list[tuple[str, torch.Tensor]]:
    """Return the tensors in an output, each with its path.

    Parameters
    ----------
    output : object
        A tensor, or nested tuples, lists, mappings, named tuples and dataclasses of tensors.

    Returns
    -------
    list of (str, torch.Tensor)
        Paths and tensors, in the order of the output. Paths are Python expressions: ``[0]``,
        ``['out']``, ``.logits``, ``[0]['boxes']``; the path of a tensor that is the output is empty.
    """
    return list(_walk(output, "", ()))


def _walk(value: Any, path: str, parents: tuple[int, ...]) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    if isinstance(value, torch.Tensor):
        yield path, value
        return
    if id(value) in parents:
        # A container that contains itself.
        return
    for suffix, inner in _entries(value):
        yield from _walk(inner, path + suffix, (*parents, id(value)))


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    # Outputs of Hugging Face are both mappings and dataclasses.
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", inner) for key, inner in value.items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from ((f".{name}", getattr(value, name)) for name in value._fields)
    elif isinstance(value, tuple | list):
        yield from ((f"[{i}]", inner) for i, inner in enumerate(value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (f.name for f in dataclasses.fields(value))
        yield from ((f".{name}", getattr(value, name)) for name in names if hasattr(value, name))
