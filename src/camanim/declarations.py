"""Declarations of settings, and checks of their values.

A setting is an annotated field of a dataclass, or an annotated parameter with a default. The annotation
gives its type, with a `Range` or a `Check` if the type is not specific enough; the numpydoc docstring of
the class or function gives its help. The options of the command line, the forms of the dock and the
tables of the documentation are generated from `Setting`.
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
    """The lowest and the highest value of a number; None for no bound."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Check:
    """A condition on values that a type cannot express.

    Attributes
    ----------
    accepts : callable
        From a value to whether it is valid.
    expected : str
        Description of valid values, for error messages.
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
        bool, int, float or str, of each item of a sequence; None for any other type.
    optional : bool
        Whether None is valid.
    choices : tuple of str
        All valid values; empty if they are not enumerated.
    range : Range
    count : int or None
        Number of items of a sequence, 0 for one or more; None for a single value.
    check : Check or None
    help : str
        Description in one sentence.
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
    def is_textual(self) -> bool:
        """Whether values can be written as text, unlike objects and functions."""
        return self.kind is not None or self.check is not None

    @property
    def expected(self) -> str:
        """Description of valid values."""
        text = self._expected_items() if self.count is not None else self._expected_value()
        return f"{text}, or None" if self.optional else text

    def _expected_value(self) -> str:
        if self.check is not None:
            return self.check.expected
        if self.choices:
            return " or ".join(f'"{choice}"' for choice in self.choices)
        names = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
        return ("anything" if self.kind is None else names[self.kind]) + self._bounds()

    def _expected_items(self) -> str:
        items = {int: "integers", float: "numbers", str: "texts"}.get(self.kind or object, "values")
        return f"{self.count or 'one or more'} {items}{self._bounds()}"

    def _bounds(self) -> str:
        low, high = self.range.low, self.range.high
        if low is not None and high is not None:
            return f" from {self._number(low)} to {self._number(high)}"
        return "" if low is None else f" of at least {self._number(low)}"

    def _number(self, bound: float) -> str:
        return str(bound) if self.kind is int else f"{bound:g}"

    def checked(self, value: Any, error: type[CamError]) -> Any:
        """Return a value, converted to the declared type.

        Parameters
        ----------
        value : object
        error : type
            Class of the error.

        Raises
        ------
        CamError
            An `error`, if the value is of another type or out of range.
        """
        if value is None and self.optional:
            return None
        is_valid = self._are_valid_items if self.count is not None else self._is_valid
        if not is_valid(value):
            raise error(f"{self.name} must be {self.expected}, not {repr(value)[:200]}.")
        if self.kind in (int, float):
            return tuple(map(self.kind, value)) if self.count is not None else self.kind(value)
        return value

    def _are_valid_items(self, value: Any) -> bool:
        if isinstance(value, str) or not (
            isinstance(value, Iterable) and hasattr(value, "__len__")
        ):
            return False
        items = list(value)
        return len(items) == (self.count or max(len(items), 1)) and all(map(self._is_valid, items))

    def _is_valid(self, value: Any) -> bool:
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
    """Return the settings declared by a dataclass, or by the parameters of a function with defaults.

    Parameters
    ----------
    declared : type or callable

    Returns
    -------
    mapping of str to Setting
        In order of declaration.
    """
    return _settings_of(declared)


@functools.lru_cache(maxsize=256)
def _settings_of(declared: Any) -> Mapping[str, Setting]:
    docstring = inspect.getdoc(declared) or ""
    if isinstance(declared, type) and is_dataclass(declared):
        described = descriptions(docstring, "Attributes")
        scope = vars(sys.modules[declared.__module__])
        declarations = [(f.name, f.type, _default(f)) for f in fields(declared) if f.init]
    else:
        described = descriptions(docstring, "Parameters")
        scope = getattr(inspect.unwrap(declared), "__globals__", {})
        parameters = inspect.signature(declared).parameters.values()
        declarations = [
            (p.name, p.annotation, p.default) for p in parameters if p.default is not p.empty
        ]
    return {
        name: _setting(name, annotation, default, scope, described.get(name, ""))
        for name, annotation, default in declarations
    }


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _setting(
    name: str, annotation: Any, default: Any, scope: Mapping[str, Any], text: str
) -> Setting:
    if isinstance(annotation, str):
        names = vars(types) | {"Literal": Literal, "Any": Any, "Mapping": Mapping} | dict(scope)
        try:
            annotation = eval(annotation, names)
        except (NameError, SyntaxError, TypeError, AttributeError):
            # A name imported under TYPE_CHECKING.
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
    """Return the members of a union, and the metadata of its `Annotated` members."""
    if get_origin(annotation) is Annotated:
        inner, *extras = get_args(annotation)
        members, more = _members(inner)
        return members, (*extras, *more)
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [_members(member) for member in get_args(annotation)]
        return tuple(m for ms, _ in parts for m in ms), tuple(e for _, es in parts for e in es)
    return (annotation,), ()


def descriptions(docstring: str, heading: str = "Parameters") -> dict[str, str]:
    """Return the first sentence about each parameter or attribute in a numpydoc docstring."""
    texts: dict[str, str] = {}
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
            texts[name] = f"{texts.get(name, '')} {line.strip()}".strip()
    return {name: text.partition(". ")[0].rstrip(".") + "." for name, text in texts.items()}


def check_values(
    declared: Callable[..., Any], values: Mapping[str, Any], error: type[CamError]
) -> dict[str, Any]:
    """Check values of declared settings; other values are returned unchanged.

    Parameters
    ----------
    declared : type or callable
        See `settings_of`.
    values : mapping
    error : type
        Class of the error.

    Returns
    -------
    dict
        The values, converted to their declared types.

    Raises
    ------
    CamError
        An `error`, if a value is of another type or out of range.
    """
    settings = settings_of(declared)
    return {
        name: settings[name].checked(value, error) if name in settings else value
        for name, value in values.items()
    }


def bind(
    function: Callable[..., Any], error: type[CamError], args: Any, kwargs: Any
) -> inspect.BoundArguments:
    """Return the arguments of a call, with defaults, and with its settings checked.

    Raises
    ------
    CamError
        Of the given type, if a setting is invalid.
    TypeError
        If the arguments do not fit the function, as for the call.
    """
    bound = _signature(function).bind(*args, **kwargs)
    bound.arguments.update(check_values(function, bound.arguments, error))
    bound.apply_defaults()
    return bound


_signature = functools.lru_cache(maxsize=256)(inspect.signature)


def checked(error: type[CamError]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that checks the settings of a function at each call.

    Parameters
    ----------
    error : type
        Type of the error for an invalid setting.
    """

    def around(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = bind(function, error, args, kwargs)
            return function(*bound.args, **bound.kwargs)

        return cast("Callable[P, R]", call)

    return around


class Checked:
    """Base class of dataclasses that check their fields on construction.

    A subclass sets the class of the error with the keyword `error`, by default `SettingError`.
    """

    _error: ClassVar[type[CamError]] = SettingError

    def __init_subclass__(cls, *, error: type[CamError] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if error is not None:
            cls._error = error

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in settings_of(type(self))}
        for name, value in check_values(type(self), values, self._error).items():
            # The dataclass may be frozen.
            object.__setattr__(self, name, value)
