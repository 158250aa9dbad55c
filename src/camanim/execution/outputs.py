"""Outputs of any structure: mapped, detached, joined."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map

from camanim.errors import TargetError
from camanim.targets.outputs import count_images


def mapped(function: Callable[[Any], Any], output: Any, kind: type = torch.Tensor) -> Any:
    """Apply a function to all tensors, or leaves of another `kind`, in an output.

    Containers are copied, dataclasses among them, which `tree_map` takes for leaves.
    """

    def one(leaf: Any) -> Any:
        if isinstance(leaf, kind):
            return function(leaf)
        return _with_fields(leaf, lambda value: mapped(function, value, kind))

    return tree_map(one, output)


def _with_fields(leaf: Any, change: Callable[[Any], Any]) -> Any:
    """Change the fields of a dataclass, in a copy; return anything else unchanged."""
    if not dataclasses.is_dataclass(leaf) or isinstance(leaf, type):
        return leaf
    changed = copy.copy(leaf)
    for field in dataclasses.fields(leaf):
        if hasattr(leaf, field.name):
            # The dataclass may be frozen; its copy is still being made.
            object.__setattr__(changed, field.name, change(getattr(leaf, field.name)))
    return changed


def detached(output: Any) -> Any:
    """Detach all tensors of an output from the graph."""
    return mapped(torch.Tensor.detach, output)


def joined(outputs: list[Any]) -> Any:
    """Join the outputs for the parts of a batch."""
    if len(outputs) == 1:
        return outputs[0]

    def join(*parts: Any) -> Any:
        first = parts[0]
        if isinstance(first, torch.Tensor):
            # Without axes, it is not per image.
            return torch.cat(parts) if first.ndim else first
        if dataclasses.is_dataclass(first) and not isinstance(first, type):
            fields = [{f.name: getattr(p, f.name) for f in dataclasses.fields(p)} for p in parts]
            whole, changed = joined(fields), copy.copy(first)
            for name, value in whole.items():
                object.__setattr__(changed, name, value)
            return changed
        return first

    return tree_map(join, *outputs)


def check_count(output: Any, images: int) -> None:
    """Refuse an output without one entry per image.

    Raises
    ------
    TargetError
    """
    count = count_images(output)
    if count is not None and count != images:
        raise TargetError(
            f"The network returns {count} answers for {images} image{'s' * (images > 1)}: "
            "wrap it in a module that returns one for each, or pass target=a function of its output."
        )
