"""The list of methods: a method is a function, and the names of its parameters say what it needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from camanim.cam_methods.grad_cam_listing import grad_cam_classes
from camanim.cam_methods.method import INGREDIENTS, REEVALUATION, Gives, Method
from camanim.declarations import settings_of
from camanim.errors import MethodError

if TYPE_CHECKING:
    import torch

Function = TypeVar("Function", bound="Callable[..., Any]")

FORWARD = "1 forward for all layers"
BACKWARD = "1 forward and 1 backward for all layers"
ASKED = "1 forward for each layer, and what the function asks for"

_METHODS: dict[str, Method] = {}


def register(
    name: str,
    *,
    paper: str,
    summary: str,
    caveat: str,
    gives: Gives = "any",
    cost: str = "",
    aliases: tuple[str, ...] = (),
    class_specific: bool = True,
    target: Callable[..., Any] | None = None,
    averages: Mapping[str, Callable[..., torch.Tensor]] | None = None,
    meta: Literal["", "layers", "windows"] = "",
    guided: Literal["", "times", "alone"] = "",
) -> Callable[[Function], Function]:
    """Enter a function into the registry under `name`; see `Method` for the parameters.

    The function's parameters without a default are what it needs, those with one are its options.
    """

    def enter(function: Function) -> Function:
        needs = _needs(name, function, averages or {})
        method = Method(
            name=name,
            function=function,
            paper=paper,
            summary=summary,
            caveat=caveat,
            cost=cost,
            aliases=aliases,
            class_specific=class_specific,
            gives=gives,
            needs=needs,
            options=settings_of(function),
            target=target,
            averages=averages or {},
            meta=meta,
            guided=guided,
        )
        _METHODS[name] = method if cost else _with_cost(method)
        return function

    return enter


def _with_cost(method: Method) -> Method:
    return replace(method, cost=BACKWARD if method.needs_gradient else FORWARD)


def _needs(
    name: str, function: Callable[..., Any], averages: Mapping[str, object]
) -> tuple[str, ...]:
    known = {*INGREDIENTS, *averages}
    needs = ["activation"]
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise MethodError(
                f"{name} takes anything: name what it needs ({', '.join(INGREDIENTS)})."
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise MethodError(f"{name} takes {parameter.name} by position only: take it by name.")
        if parameter.default is not parameter.empty:
            continue
        if parameter.name not in known:
            raise MethodError(
                f"{name} needs {parameter.name!r}, which there is not: "
                f"there are {', '.join(INGREDIENTS)}; options have defaults."
            )
        if parameter.name != "activation":
            needs.append(parameter.name)
    asks = REEVALUATION & set(needs)
    one_pass = {"gradient", "curvature", "head"} & set(needs)
    if asks and one_pass:
        raise MethodError(
            f"{name} needs {' and '.join(sorted(one_pass | asks))}: a method has either gradients "
            "or asks the network again."
        )
    return tuple(needs)


def methods() -> dict[str, Method]:
    """List all methods, among them what an installed grad-cam has that is not ours.

    Neither torch nor grad-cam is imported: such a class shows its name and what its docstring says; the
    rest is known once `find_method` has loaded it.

    Returns
    -------
    dict of str to Method
        In the order in which they are best read.
    """
    found = dict(_METHODS)
    known = _names()
    for name, entry in grad_cam_classes().items():
        if plain(name) not in known:
            found[name] = Method(
                name=name,
                function=_not_loaded,
                paper="pytorch-grad-cam",
                summary=entry.summary,
                caveat="It runs as grad-cam wrote it, 3-D layers included only where it takes them.",
                cost="as in grad-cam",
                gives="own",
                source=entry.source,
            )
    return found


def _not_loaded(activation: object) -> None:
    raise MethodError("The method is not loaded: take it from find_method.")


def find_method(asked: object) -> Method:
    """Find or make a method.

    Parameters
    ----------
    asked : str, Method, callable or type
        A name in the papers' spelling (``Grad-CAM++``) or grad-cam's (``GradCAMPlusPlus``); a function
        whose parameters are ingredients and options; a subclass of grad-cam's ``BaseCAM``, or where to
        import one from (``"package.module:Class"``).

    Raises
    ------
    MethodError
        When there is none, with the nearest names, or when the function or class cannot be one.
    """
    if isinstance(asked, Method):
        return _loaded(asked.source) if asked.source else asked
    if isinstance(asked, str):
        return _loaded(asked) if ":" in asked else _named(asked)
    if isinstance(asked, type):
        from camanim.cam_methods.grad_cam_adapter import adapt, is_grad_cam

        own = _names().get(plain(asked.__name__))
        if own is not None and asked.__module__.startswith("pytorch_grad_cam."):
            return own
        if is_grad_cam(asked):
            return adapt(asked)
        raise MethodError(f"{asked.__name__} is no subclass of grad-cam's BaseCAM.")
    if callable(asked):
        return _of_function(asked)
    raise MethodError(f"A method is a name, a function or a class, not {asked!r}.")


def _named(name: str) -> Method:
    known = _names()
    method = known.get(plain(name))
    if method is None:
        listed = {plain(other): method for other, method in methods().items()}
        method = listed.get(plain(name))
        if method is not None:
            return find_method(method)
        near = get_close_matches(plain(name), known, n=3, cutoff=0.4)
        names = list(dict.fromkeys(known[n].name for n in near)) or list(_METHODS)
        raise MethodError(f"There is no method {name!r}. Did you mean {', '.join(names)}?")
    return method


def _loaded(source: str) -> Method:
    module, _, name = source.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise MethodError(f"A class is named as in package.module:Class, not {source!r}.")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise MethodError(f"There is no {source!r} to import: {error}.") from error
    return find_method(found)


def _of_function(function: Callable[..., Any]) -> Method:
    name = getattr(function, "__name__", type(function).__name__)
    text = (inspect.getdoc(function) or "").strip().partition("\n\n")[0].replace("\n", " ")
    method = Method(
        name=name,
        function=function,
        paper="your own",
        summary=text or "A function of your own.",
        caveat="What it cannot say is for you to know.",
        cost="",
        needs=_needs(name, function, {}),
        options=settings_of(function),
    )
    return replace(method, cost=ASKED) if method.needs_reevaluation else _with_cost(method)


def _names() -> dict[str, Method]:
    return {
        plain(name): method
        for method in _METHODS.values()
        for name in (method.name, *method.aliases)
    }


def plain(name: str) -> str:
    """Bring a name to what all its spellings share: ``Grad-CAM++`` and ``GradCAMPlusPlus``."""
    folded = name.casefold().replace("+", "plus")
    return "".join(letter for letter in folded if letter.isalnum())
