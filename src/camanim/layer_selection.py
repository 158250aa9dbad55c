"""Selection of layers by name, glob, kind or predicate."""

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
"""Values of the setting ``layers``."""


def selector(layers: Layers, net: nn.Module) -> Predicate:
    """Return the predicate of a selection.

    Parameters
    ----------
    layers : str, callable or iterable of str
        ``"unique"``: every call, except those with the identical output tensor of an earlier layer.
        ``"all"``: every call. ``"blocks"``: the children of the network, with the children of
        Sequentials and lists in their place.
        Otherwise a name (``layer1.0.relu`` for all calls, ``layer1.0.relu:1`` for the second), a glob
        (``layer*.conv1``), a kind (``Conv2d``), a predicate of `LayerInfo`, or several strings.
    net : torch.nn.Module

    Returns
    -------
    callable
        From a `LayerInfo` to whether the layer is selected.

    Raises
    ------
    LayerError
        If a string matches no module of the network.
    """
    if callable(layers):
        return layers
    if isinstance(layers, str):
        return _predicate(layers, net)
    patterns = list(layers) if isinstance(layers, Iterable) else [layers]
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise LayerError(
            'Layers are chosen by "unique", "all", "blocks", names, kinds or a function, '
            f"not by {layers!r}."
        )
    predicates = [_predicate(pattern, net) for pattern in patterns]
    if not predicates:
        raise LayerError('The selection of layers is empty: use "unique", "all" or names.')
    return lambda info: any(predicate(info) for predicate in predicates)


def _predicate(pattern: str, net: nn.Module) -> Predicate:
    if pattern == "unique":
        return lambda info: info.same_as is None
    if pattern == "all":
        return lambda info: True
    if pattern == "blocks":
        names = _blocks(net)
        return lambda info: info.name in names
    kinds = {name: type(module).__name__ for name, module in net.named_modules()}
    without_call = pattern.partition(":")[0]
    candidates = [*kinds, *kinds.values()]
    if not any(fnmatchcase(name, without_call) for name in candidates):
        near = get_close_matches(pattern, candidates, n=3, cutoff=0.5)
        hint = f" Did you mean {', '.join(dict.fromkeys(near))}?" if near else ""
        raise LayerError(f"The network has no layer or kind of layer {pattern!r}.{hint}")
    return lambda info: any(
        fnmatchcase(name, pattern) for name in (info.name, f"{info.name}:{info.call}", info.kind)
    )


def _blocks(net: nn.Module) -> set[str]:
    from torch.nn import ModuleDict, ModuleList, Sequential

    names: set[str] = set()
    for name, child in net.named_children():
        if isinstance(child, Sequential | ModuleList | ModuleDict):
            # The output of a Sequential is that of its last child; lists and dictionaries have none.
            names.update(f"{name}.{inner}" for inner, _ in child.named_children())
        else:
            names.add(name)
    return names
