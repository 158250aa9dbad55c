"""Which layers are shown: a selection turned into a yes or no for each call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from camanim.errors import LayerError
from camanim.layer_info import LayerInfo

if TYPE_CHECKING:
    from torch import nn

Predicate = Callable[[LayerInfo], bool]
Layers = str | Predicate | Iterable[str]
"""What a user may pass as ``layers=``."""


def selector(layers: Layers, net: nn.Module) -> Predicate:
    """Turn a selection into a predicate.

    Parameters
    ----------
    layers : str, callable or iterable of str
        ``"unique"``: every call, except those that hand on an earlier layer's very output.
        ``"all"``: those too. ``"blocks"``: the children of the network; of its Sequentials and
        lists, theirs.
        Else a name (``layer1.0.relu``, with all its calls; ``layer1.0.relu:1`` for its second), a
        glob (``layer*.conv1``), a kind (``Conv2d``), a predicate of `LayerInfo`, or several of the
        strings.
    net : torch.nn.Module

    Raises
    ------
    LayerError
        For what names no module of the network.
    """
    if callable(layers):
        return layers
    if isinstance(layers, str):
        return _one(layers, net)
    patterns = list(layers) if isinstance(layers, Iterable) else [layers]
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise LayerError(
            'Layers are chosen by "unique", "all", "blocks", names, kinds or a function, '
            f"not by {layers!r}."
        )
    chosen = [_one(pattern, net) for pattern in patterns]
    if not chosen:
        raise LayerError('The selection of layers is empty: use "unique", "all" or names.')
    return lambda info: any(predicate(info) for predicate in chosen)


def _one(pattern: str, net: nn.Module) -> Predicate:
    if pattern == "unique":
        return lambda info: info.same_as is None
    if pattern == "all":
        return lambda info: True
    if pattern == "blocks":
        names = _blocks(net)
        return lambda info: info.name in names
    known = {name: type(module).__name__ for name, module in net.named_modules()}
    bare = pattern.partition(":")[0]
    words = [*known, *known.values()]
    if not any(fnmatchcase(word, bare) for word in words):
        near = get_close_matches(pattern, words, n=3, cutoff=0.5)
        hint = f" Did you mean {', '.join(dict.fromkeys(near))}?" if near else ""
        raise LayerError(f"The network has no layer or kind of layer {pattern!r}.{hint}")
    return lambda info: any(
        fnmatchcase(word, pattern) for word in (info.name, f"{info.name}:{info.call}", info.kind)
    )


def _blocks(net: nn.Module) -> set[str]:
    from torch.nn import ModuleDict, ModuleList, Sequential

    names: set[str] = set()
    for name, child in net.named_children():
        if isinstance(child, Sequential | ModuleList | ModuleDict):
            # A Sequential's output is its last child's; a list or dictionary has none.
            names.update(f"{name}.{inner}" for inner, _ in child.named_children())
        else:
            names.add(name)
    return names
