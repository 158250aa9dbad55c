"""Selection of layers by name, glob, kind or predicate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from camanim.errors import LayerError
from camanim.layer_info import LayerInfo

if TYPE_CHECKING:
    from torch import nn

Predicate = Callable[[LayerInfo], bool]
Layers = str | Predicate | Iterable[str]
"""Values of the setting ``layers``."""

_KEYWORDS = ("unique", "all", "blocks")


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
    several = isinstance(layers, Iterable) and not isinstance(layers, str)
    patterns: list[Any] = list(layers) if several else [layers]
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise LayerError(
            'Layers are chosen by "unique", "all", "blocks", names, kinds or a function, '
            f"not by {layers!r}."
        )
    if not patterns:
        raise LayerError('The selection of layers is empty: use "unique", "all" or names.')
    predicates = [_of_keyword(pattern, net) for pattern in patterns if pattern in _KEYWORDS]
    others = [pattern for pattern in patterns if pattern not in _KEYWORDS]
    if others:
        kinds = {name: type(module).__name__ for name, module in net.named_modules()}
        words = list(dict.fromkeys([*kinds, *kinds.values()]))
        for pattern in others:
            _check(pattern, words)
        predicates.append(_matching(others))
    return predicates[0] if len(predicates) == 1 else lambda info: any(p(info) for p in predicates)


def _of_keyword(keyword: str, net: nn.Module) -> Predicate:
    if keyword == "unique":
        return lambda info: info.same_as is None
    if keyword == "all":
        return lambda info: True
    names = _blocks(net)
    return lambda info: info.name in names


def _matching(patterns: list[str]) -> Predicate:
    """Return a predicate of calls whose name, numbered name or kind matches one of the patterns."""
    # A set for plain names, of which there may be hundreds.
    globs = [pattern for pattern in patterns if _is_glob(pattern)]
    exact = frozenset(patterns).difference(globs)

    def matches(info: LayerInfo) -> bool:
        words = (info.name, f"{info.name}:{info.call}", info.kind)
        return not exact.isdisjoint(words) or any(
            fnmatchcase(word, glob) for glob in globs for word in words
        )

    return matches


def _is_glob(pattern: str) -> bool:
    return any(character in pattern for character in "*?[")


def _check(pattern: str, words: list[str]) -> None:
    name = pattern.partition(":")[0]
    if name in words or (_is_glob(name) and any(fnmatchcase(word, name) for word in words)):
        return
    near = get_close_matches(pattern, words, n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    raise LayerError(f"The network has no layer or kind of layer {pattern!r}.{hint}")


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
