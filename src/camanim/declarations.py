"""Settings declared once, and what follows from a declaration: checks, forms, options, tables.

A declaration is an annotated field of a dataclass, or an annotated parameter with a default. Its type is
the annotation, with a `Range` or a `Check` where the type does not say enough; its sentence is what the
numpydoc docstring of the class or function says about it. The command line, the dock and the tables of
the docs are made from the same `Setting`.

"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

from camanim.errors import CamError, SettingError

P = ParamSpec("P")
R = TypeVar("R")

#: The largest seed that both torch and numpy take.
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Range:
    """The lowest and the highest value of a number; None where there is no bound."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Check:
    """What a value has to be, where its type does not say it.

    Attributes
    ----------
    accepts : callable
        From a value to whether it can be used.
    expected : str
        What a value has to be, to be read after "is".
    """

    accepts: Callable[[Any], bool]
    expected: str


Positive = Annotated[int, Range(1)]
NotNegative = Annotated[float, Range(0.0)]
Seed = Annotated[int, Range(0, _LARGEST_SEED)]


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes
    ----------
    name : str
    default : object
    kind : type or None
        bool, int, float or str, of each item where there are several; None where the type is another.
    optional : bool
        Whether None is a value too.
    choices : tuple of str
        All values there are; empty where there are more.
    range : Range
    count : int or None
        How many items a sequence has, 0 for any number but none; None for a single value.
    check : Check or None
    help : str
        One sentence.
    """

    name: str
    default: Any
    kind: type | None = None
    optional: bool = False
    choices: tuple[str, ...] = ()
    range: Range = Range()
    count: int | None = None
    check: Check | None = None
    help: str = ""

    @property
    def expected(self) -> str:
        """What a value has to be, in words."""
        words = self._several() if self.count is not None else self._single()
        return f"{words}, or None" if self.optional else words

    def _single(self) -> str:
        if self.check is not None:
            return self.check.expected
        if self.choices:
            return " or ".join(f'"{choice}"' for choice in self.choices)
        names = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
        return ("anything" if self.kind is None else names[self.kind]) + self._bounds()

    def _several(self) -> str:
        what = {int: "integers", float: "numbers", str: "texts"}.get(self.kind or object, "values")
        return f"{self.count or 'one or more'} {what}{self._bounds()}"

    def _bounds(self) -> str:
        low, high = self.range.low, self.range.high
        if low is not None and high is not None:
            return f" from {low:g} to {high:g}"
        return "" if low is None else f" of at least {low:g}"

    def checked(self, value: Any, error: type[CamError]) -> Any:
        """Return a value in the type that was declared.

        Parameters
        ----------
        value : object
        error : type
            Which error to raise.

        Raises
        ------
        CamError
            Of the given type, when the value is of another type or out of range.
        """
        if value is None and self.optional:
            return None
        fits = self._are_several if self.count is not None else self._fits
        if not fits(value):
            shown = repr(value)
            raise error(f"{self.name} is {self.expected}, not {shown[:200]}.")
        if self.kind in (int, float):
            return tuple(map(self.kind, value)) if self.count is not None else self.kind(value)
        return value

    def _are_several(self, value: Any) -> bool:
        if (
            isinstance(value, str)
            or not isinstance(value, Iterable)
            or not hasattr(value, "__len__")
        ):
            return False
        items = list(value)
        return len(items) == (self.count or max(len(items), 1)) and all(map(self._fits, items))

    def _fits(self, value: Any) -> bool:
        if self.check is not None:
            return bool(self.check.accepts(value))
        if self.choices:
            return isinstance(value, str) and value in self.choices
        if self.kind is None:
            return True
        if self.kind in (bool, str):
            return isinstance(value, self.kind)
        number = numbers.Integral if self.kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool) and self._within(value)

    def _within(self, value: Any) -> bool:
        low, high = self.range.low, self.range.high
        within = (low is None or value >= low) and (high is None or value <= high)
        return within and (self.kind is int or math.isfinite(value))


def settings_of(declared: Callable[..., Any]) -> Mapping[str, Setting]:
    """List the settings that a dataclass, or a function's parameters with defaults, declare.

    Parameters
    ----------
    declared : type or callable

    Returns
    -------
    mapping of str to Setting
        In the order of their declaration.
    """
    return _settings_of(declared)


@functools.lru_cache(maxsize=256)
def _settings_of(declared: Any) -> Mapping[str, Setting]:
    docstring = inspect.getdoc(declared) or ""
    if isinstance(declared, type) and is_dataclass(declared):
        described = descriptions(docstring, "Attributes")
        scope = vars(sys.modules[declared.__module__])
        found = [(f.name, f.type, _default(f)) for f in fields(declared) if f.init]
    else:
        described = descriptions(docstring, "Parameters")
        scope = getattr(inspect.unwrap(declared), "__globals__", {})
        parameters = inspect.signature(declared).parameters.values()
        found = [(p.name, p.annotation, p.default) for p in parameters if p.default is not p.empty]
    return {
        name: _setting(name, annotation, default, scope, described.get(name, ""))
        for name, annotation, default in found
    }


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _setting(
    name: str, annotation: Any, default: Any, scope: Mapping[str, Any], text: str
) -> Setting:
    if isinstance(annotation, str):
        known = vars(types) | {"Literal": Literal, "Any": Any, "Mapping": Mapping} | dict(scope)
        try:
            annotation = eval(annotation, known)
        except (NameError, SyntaxError, TypeError, AttributeError):
            # A name that only the type checker knows.
            annotation = Any
    if annotation is inspect.Parameter.empty:
        annotation = type(default)
    members, extras = _members(annotation)
    optional = default is None or types.NoneType in members
    inner = [member for member in members if member is not types.NoneType]
    only = inner[0] if len(inner) == 1 else None
    declared: dict[str, Any] = {
        "range": next((e for e in extras if isinstance(e, Range)), Range()),
        "check": next((e for e in extras if isinstance(e, Check)), None),
        "optional": optional,
        "help": text,
    }
    if get_origin(only) is Literal:
        return Setting(name, default, str, choices=get_args(only), **declared)
    if get_origin(only) in (tuple, Sequence) and declared["check"] is None:
        items = get_args(only)
        declared["count"] = 0 if get_origin(only) is Sequence or Ellipsis in items else len(items)
        only = items[0]
    kind = only if only in (bool, int, float, str) else None
    return Setting(name, default, kind, **declared)


def _members(annotation: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Take an annotation apart: the members of its union, and what was noted about any of them."""
    if get_origin(annotation) is Annotated:
        inner, *extras = get_args(annotation)
        members, more = _members(inner)
        return members, (*extras, *more)
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [_members(member) for member in get_args(annotation)]
        return tuple(m for ms, _ in parts for m in ms), tuple(e for _, es in parts for e in es)
    return (annotation,), ()


def descriptions(docstring: str, heading: str = "Parameters") -> dict[str, str]:
    """Take the first sentence about each parameter or attribute out of a numpydoc docstring."""
    found: dict[str, str] = {}
    names: list[str] = []
    _, _, section = docstring.partition(f"{heading}\n{'-' * len(heading)}\n")
    lines = section.splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=False):
        if after and set(after.strip()) == {"-"}:
            break
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.partition(" :")[0].split(",")]
            continue
        for name in names:
            found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return {name: text.partition(". ")[0].rstrip(".") + "." for name, text in found.items()}


def check_values(
    declared: Callable[..., Any], values: Mapping[str, Any], error: type[CamError]
) -> dict[str, Any]:
    """Check values of what was declared; names without a declaration pass.

    Parameters
    ----------
    declared : type or callable
        See `settings_of`.
    values : mapping
    error : type
        Which error to raise.

    Returns
    -------
    dict
        The values in the types that were declared.

    Raises
    ------
    CamError
        Of the given type.
    """
    known = settings_of(declared)
    return {
        name: known[name].checked(value, error) if name in known else value
        for name, value in values.items()
    }


def checked(error: type[CamError]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Check the settings of a function at each call; `error` is what a wrong one raises."""

    def around(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.arguments.update(check_values(function, bound.arguments, error))
            return function(*bound.args, **bound.kwargs)

        return cast("Callable[P, R]", call)

    return around


class Checked:
    """Base of dataclasses whose fields are checked when they are made.

    The keyword `error` of a subclass is what a wrong value raises, by default `SettingError`.
    """

    _error: ClassVar[type[CamError]] = SettingError

    def __init_subclass__(cls, *, error: type[CamError] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if error is not None:
            cls._error = error

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in settings_of(type(self))}
        for name, value in check_values(type(self), values, self._error).items():
            # The dataclass may be frozen; here it is still being made.
            object.__setattr__(self, name, value)
