"""The registry of methods: functions whose parameter names are their ingredients."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from camanim.cam_methods.grad_cam_listing import PACKAGE, grad_cam_classes
from camanim.cam_methods.method import INGREDIENTS, ONE_PASS, REEVALUATION, Gives, Method
from camanim.declarations import settings_of
from camanim.errors import MethodError

if TYPE_CHECKING:
    import torch

Function = TypeVar("Function", bound="Callable[..., Any]")

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

    The function's parameters without a default are ingredients, those with a default are options.
    """

    def enter(function: Function) -> Function:
        _METHODS[name] = Method(
            name=name,
            function=function,
            paper=paper,
            summary=summary,
            caveat=caveat,
            cost=cost,
            aliases=aliases,
            class_specific=class_specific,
            gives=gives,
            needs=_needs(name, function, averages or {}),
            options=settings_of(function),
            target=target,
            averages=averages or {},
            meta=meta,
            guided=guided,
        )
        return function

    return enter


def _needs(
    name: str, function: Callable[..., Any], averages: Mapping[str, object]
) -> tuple[str, ...]:
    """List the ingredients among a function's parameters, the activation first."""
    needs = ["activation"]
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise MethodError(
                f"{name} takes any arguments: name those that it needs ({', '.join(INGREDIENTS)})."
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise MethodError(f"{name} takes {parameter.name} by position only: take it by name.")
        if parameter.default is not parameter.empty:
            continue
        if parameter.name not in (*INGREDIENTS, *averages):
            raise MethodError(
                f"{name} needs {parameter.name!r}, which is no ingredient: give it a default, or use "
                f"{', '.join(INGREDIENTS)}."
            )
        if parameter.name != "activation":
            needs.append(parameter.name)
    reevaluation, one_pass = REEVALUATION & set(needs), ONE_PASS & set(needs)
    if reevaluation and one_pass:
        raise MethodError(
            f"{name} needs {' and '.join(sorted(one_pass | reevaluation))}: a method uses either "
            "gradients or re-evaluation."
        )
    return tuple(needs)


def methods() -> dict[str, Method]:
    """List all methods, and the classes of grad-cam that are not among them.

    Neither torch nor grad-cam is imported: of a class, only the name and the summary in its docstring
    are known until `find_method` loads it.

    Returns
    -------
    dict of str to Method
        In the order of the docs.
    """
    listed = dict(_METHODS)
    known = _by_plain_name()
    for name, entry in grad_cam_classes().items():
        if plain(name) not in known:
            listed[name] = Method(
                name=name,
                function=_not_loaded,
                paper="pytorch-grad-cam",
                summary=entry.summary,
                caveat="It runs as it was written: volumes only where grad-cam supports them.",
                cost="as in grad-cam",
                gives="own",
                source=entry.source,
            )
    return listed


def _not_loaded(activation: object) -> None:
    raise MethodError("The method is not loaded: take it from find_method.")


def find_method(request: object) -> Method:
    """Return the method of a name, function or class.

    Parameters
    ----------
    request : str, Method, callable or type
        A name in the papers' spelling (``Grad-CAM++``) or grad-cam's (``GradCAMPlusPlus``); a function
        whose parameters are ingredients and options; a subclass of grad-cam's ``BaseCAM``, or where to
        import one from (``"package.module:Class"``).

    Raises
    ------
    MethodError
        When there is no such method, with the nearest names, or when the function or class cannot be
        one.
    """
    if isinstance(request, Method):
        return _imported(request.source) if request.source else request
    if isinstance(request, str):
        return _imported(request) if ":" in request else _named(request)
    if isinstance(request, type):
        return _of_class(request)
    if callable(request):
        return _of_function(request)
    raise MethodError(f"A method is a name, a function or a class, not {request!r}.")


def _named(name: str) -> Method:
    known = _by_plain_name()
    method = known.get(plain(name))
    if method is not None:
        return method
    for listed in methods().values():
        if plain(listed.name) == plain(name):
            return find_method(listed)
    near = get_close_matches(plain(name), known, n=3, cutoff=0.4)
    names = list(dict.fromkeys(known[n].name for n in near)) or list(_METHODS)
    raise MethodError(f"There is no method {name!r}. Did you mean {', '.join(names)}?")


def _imported(source: str) -> Method:
    # In a function: the adapter imports torch.
    from camanim.cam_methods.grad_cam_adapter import import_class

    return find_method(import_class(source))


def _of_class(cls: type) -> Method:
    from camanim.cam_methods.grad_cam_adapter import adapt, is_grad_cam

    known = _by_plain_name().get(plain(cls.__name__))
    if known is not None and cls.__module__.startswith(f"{PACKAGE}."):
        return known
    if is_grad_cam(cls):
        return adapt(cls)
    raise MethodError(f"{cls.__name__} is no subclass of grad-cam's BaseCAM.")


def _of_function(function: Callable[..., Any]) -> Method:
    name = getattr(function, "__name__", type(function).__name__)
    text = (inspect.getdoc(function) or "").strip().partition("\n\n")[0].replace("\n", " ")
    return Method(
        name=name,
        function=function,
        paper="your own",
        summary=text or "A function of your own.",
        caveat="Nothing is known about its limits.",
        needs=_needs(name, function, {}),
        options=settings_of(function),
    )


def _by_plain_name() -> dict[str, Method]:
    return {
        plain(name): method
        for method in _METHODS.values()
        for name in (method.name, *method.aliases)
    }


def plain(name: str) -> str:
    """Return what all spellings of a name share: ``Grad-CAM++`` and ``GradCAMPlusPlus``."""
    folded = name.casefold().replace("+", "plus")
    return "".join(letter for letter in folded if letter.isalnum())
