"""The list of methods: a method is a function, and the names of its parameters say what it needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeVar

from camanim.errors import MethodError

if TYPE_CHECKING:
    import torch

Function = TypeVar("Function", bound="Callable[..., torch.Tensor]")


@dataclass(frozen=True)
class Method:
    """A method and what is known about it.

    Attributes
    ----------
    name : str
        As the field writes it, such as ``GradCAM++``.
    function : callable
        Takes some of ``activation`` (C, h, w), ``gradient`` (C, h, w) and ``generator`` by keyword,
        and returns the raw, signed map (h, w).
    paper : str
        Where it was published.
    summary : str
        One sentence: what its map shows.
    class_specific : bool
        Whether another class gives another map.
    needs : frozenset of str
        The function's parameters.
    """

    name: str
    function: Callable[..., torch.Tensor]
    paper: str
    summary: str
    class_specific: bool
    needs: frozenset[str]

    @property
    def needs_gradient(self) -> bool:
        """Whether a backward pass is needed."""
        return "gradient" in self.needs

    def __call__(self, **available: object) -> torch.Tensor:
        """Compute a map from what is there, of which the function takes what it needs."""
        return self.function(**{name: available[name] for name in self.needs})


_METHODS: dict[str, Method] = {}


def register(
    name: str, *, paper: str, summary: str, class_specific: bool = True
) -> Callable[[Function], Function]:
    """Enter a function into the registry under `name`."""

    def enter(function: Function) -> Function:
        needs = frozenset(inspect.signature(function).parameters)
        _METHODS[name] = Method(name, function, paper, summary, class_specific, needs)
        return function

    return enter


def methods() -> dict[str, Method]:
    """List all methods.

    Returns
    -------
    dict of str to Method
        In the order in which they are best read.
    """
    return dict(_METHODS)


def find_method(name: str) -> Method:
    """Find a method by the papers' spelling (``GradCAM++``) or grad-cam's (``GradCAMPlusPlus``).

    Raises
    ------
    MethodError
        When there is none, with the nearest names.
    """
    known = {_plain(n): m for n, m in _METHODS.items()}
    if _plain(name) in known:
        return known[_plain(name)]
    near = get_close_matches(_plain(name), known, n=3, cutoff=0.4)
    names = [known[n].name for n in near] or list(_METHODS)
    raise MethodError(f"There is no method {name!r}. Did you mean {', '.join(names)}?")


def _plain(name: str) -> str:
    return name.lower().replace("++", "plusplus").replace("-", "").replace("_", "")
