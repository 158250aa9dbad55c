"""Registry of methods: functions whose required parameters are their ingredients."""

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
    sign_free: bool = False,
    target: Callable[..., Any] | None = None,
    averages: Mapping[str, Callable[..., torch.Tensor]] | None = None,
    meta: Literal["", "layers", "windows"] = "",
    guided: Literal["", "times", "alone"] = "",
) -> Callable[[Function], Function]:
    """Return a decorator that registers a function as a method; see `Method` for the parameters.

    Parameters of the function without a default are ingredients, those with a default are options.
    """

    def decorate(function: Function) -> Function:
        _METHODS[name] = Method(
            name=name,
            function=function,
            paper=paper,
            summary=summary,
            caveat=caveat,
            cost=cost,
            aliases=aliases,
            class_specific=class_specific,
            sign_free=sign_free,
            gives=gives,
            needs=_needs(name, function, averages or {}),
            options=settings_of(function),
            target=target,
            averages=averages or {},
            meta=meta,
            guided=guided,
        )
        return function

    return decorate


def _needs(
    name: str, function: Callable[..., Any], averages: Mapping[str, object]
) -> tuple[str, ...]:
    """Return the ingredients among the parameters of a function, the activation first."""
    needs = ["activation"]
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise MethodError(
                f"{name} has variable arguments: use named parameters ({', '.join(INGREDIENTS)})."
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise MethodError(
                f"The parameter {parameter.name} of {name} must not be positional-only."
            )
        if parameter.default is not parameter.empty:
            continue
        if parameter.name not in (*INGREDIENTS, *averages):
            raise MethodError(
                f"The parameter {parameter.name!r} of {name} is not an ingredient "
                f"({', '.join(INGREDIENTS)}): give it a default value."
            )
        if parameter.name != "activation":
            needs.append(parameter.name)
    reevaluation, one_pass = REEVALUATION & set(needs), ONE_PASS & set(needs)
    if reevaluation and one_pass:
        raise MethodError(
            f"{name} combines {' and '.join(sorted(one_pass | reevaluation))}: a method uses either "
            "gradients or re-evaluation."
        )
    return tuple(needs)


def methods() -> dict[str, Method]:
    """Return all methods by name, and the classes of grad-cam that are not among them.

    Neither torch nor grad-cam is imported: for classes of grad-cam, only the name and the summary in the
    docstring are known until `find_method` imports them.

    Returns
    -------
    dict of str to Method
        In the order of the docs.
    """
    listed = dict(_METHODS)
    known = _by_normalised_name()
    for name, entry in grad_cam_classes().items():
        if normalised_name(name) not in known:
            listed[name] = Method(
                name=name,
                function=_raise_not_loaded,
                paper="pytorch-grad-cam",
                summary=entry.summary,
                caveat="The code of the class is run unchanged: volumes only if grad-cam supports them.",
                cost="as in grad-cam",
                gives="any map",
                source=entry.source,
            )
    return listed


def _raise_not_loaded(activation: object) -> None:
    raise MethodError("The method is not imported yet: use find_method.")


def find_method(request: object) -> Method:
    """Return the method with a name, or from a function or class.

    Parameters
    ----------
    request : str, Method, callable or type
        A name as in the papers (``Grad-CAM++``) or in grad-cam (``GradCAMPlusPlus``); a function whose
        parameters are ingredients and options; a subclass of grad-cam's ``BaseCAM``, or its import path
        (``"package.module:Class"``).

    Raises
    ------
    MethodError
        If the name does not exist, or the function or class is not a method.
    """
    if isinstance(request, Method):
        return _from_source(request.source) if request.source else request
    if isinstance(request, str):
        return _from_source(request) if ":" in request else _from_name(request)
    if isinstance(request, type):
        return _from_class(request)
    if callable(request):
        return _from_function(request)
    raise MethodError(f"A method is a name, a function or a class, not {request!r}.")


def find_registered(name: str) -> Method:
    """Return the method with a name, without importing a module that the name states.

    Raises
    ------
    MethodError
        If the name does not exist, or is an import path.
    """
    if not isinstance(name, str) or ":" in name:
        raise MethodError(f"{name!r} is not the name of a registered method.")
    return _from_name(name)


def _from_name(name: str) -> Method:
    known = _by_normalised_name()
    method = known.get(normalised_name(name))
    if method is not None:
        return method
    for listed in methods().values():
        if normalised_name(listed.name) == normalised_name(name):
            return find_method(listed)
    near = get_close_matches(normalised_name(name), known, n=3, cutoff=0.4)
    names = list(dict.fromkeys(known[n].name for n in near)) or list(_METHODS)
    raise MethodError(f"Unknown method {name!r}. Did you mean {', '.join(names)}?")


def _from_source(source: str) -> Method:
    # Imported here, because the adapter imports torch.
    from camanim.cam_methods.grad_cam_adapter import import_class

    return find_method(import_class(source))


def _from_class(cls: type) -> Method:
    from camanim.cam_methods.grad_cam_adapter import adapt, is_grad_cam

    known = _by_normalised_name().get(normalised_name(cls.__name__))
    if known is not None and cls.__module__.startswith(f"{PACKAGE}."):
        return known
    if is_grad_cam(cls):
        return adapt(cls)
    raise MethodError(f"{cls.__name__} is not a subclass of grad-cam's BaseCAM.")


def _from_function(function: Callable[..., Any]) -> Method:
    name = getattr(function, "__name__", type(function).__name__)
    text = (inspect.getdoc(function) or "").strip().partition("\n\n")[0].replace("\n", " ")
    return Method(
        name=name,
        function=function,
        paper="user-defined",
        summary=text or "A user-defined function.",
        caveat="Its limitations are not known.",
        needs=_needs(name, function, {}),
        options=settings_of(function),
    )


def _by_normalised_name() -> dict[str, Method]:
    return {
        normalised_name(name): method
        for method in _METHODS.values()
        for name in (method.name, *method.aliases)
    }


def normalised_name(name: str) -> str:
    """Return the common form of spellings such as ``Grad-CAM++`` and ``GradCAMPlusPlus``."""
    folded = name.casefold().replace("+", "plus")
    return "".join(letter for letter in folded if letter.isalnum())
