"""What can be set about a method: read from its function's signature and docstring."""

from __future__ import annotations

import inspect
import numbers
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from camanim.errors import MethodError

#: Annotations of options that have a lowest value; the number is that value.
Positive = Annotated[int, 1]
NotNegative = Annotated[float, 0.0]


@dataclass(frozen=True)
class Option:
    """One thing that can be set about a method.

    Attributes
    ----------
    name : str
    default : object
    kind : type or None
        bool, int, float or str; None where anything goes.
    optional : bool
        Whether None is a value too.
    choices : tuple of str
        All values there are; empty where there are more.
    low : float or None
        The lowest value.
    help : str
        One sentence.
    """

    name: str
    default: Any
    kind: type | None = None
    optional: bool = False
    choices: tuple[str, ...] = ()
    low: float | None = None
    help: str = ""

    @property
    def expected(self) -> str:
        """What a value has to be, in words."""
        if self.choices:
            words = " or ".join(f'"{choice}"' for choice in self.choices)
        else:
            names = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
            words = "anything" if self.kind is None else names[self.kind]
            if self.low is not None:
                words += f" of at least {self.low:g}"
        return f"{words}, or None" if self.optional else words

    def checked(self, value: Any) -> Any:
        """Return the value as the method takes it.

        Raises
        ------
        MethodError
            When it is of another type, or out of range.
        """
        if value is None and self.optional:
            return None
        if self._fits(value):
            return value if self.kind in (None, bool, str) else self.kind(value)
        raise MethodError(f"{self.name} is {self.expected}, not {value!r}.")

    def _fits(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if self.kind is None:
            return True
        if self.kind in (bool, str):
            return isinstance(value, self.kind)
        number = numbers.Integral if self.kind is int else numbers.Real
        fits = isinstance(value, number) and not isinstance(value, bool)
        return fits and (self.low is None or value >= self.low)


def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """List a function's parameters that have defaults."""
    described = descriptions(inspect.getdoc(function) or "")
    scope = vars(types) | {"Literal": Literal} | getattr(function, "__globals__", {})
    return {
        name: _option(parameter, scope, described.get(name, ""))
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def _option(parameter: inspect.Parameter, scope: Mapping[str, Any], text: str) -> Option:
    annotation, default = parameter.annotation, parameter.default
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, dict(scope))
        except (NameError, SyntaxError, TypeError, AttributeError):
            annotation = inspect.Parameter.empty
    if annotation is inspect.Parameter.empty:
        annotation = type(default)
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
    optional = default is None or types.NoneType in members
    rest = [member for member in members or (annotation,) if member is not types.NoneType]
    inner = rest[0] if len(rest) == 1 else None
    low = None
    if get_origin(inner) is Annotated:
        inner, low = get_args(inner)[:2]
    if get_origin(inner) is Literal:
        return Option(parameter.name, default, str, optional, get_args(inner), None, text)
    kind = inner if inner in (bool, int, float, str) else None
    return Option(parameter.name, default, kind, optional, (), low, text)


def descriptions(docstring: str) -> dict[str, str]:
    """Take the first sentence about each parameter out of a numpydoc docstring."""
    found: dict[str, str] = {}
    names: list[str] = []
    _, _, section = docstring.partition("Parameters\n----------\n")
    for line in section.splitlines():
        if not line.strip() or set(line) == {"-"}:
            break
        if not line.startswith(" "):
            names = [name.strip() for name in line.partition(" :")[0].split(",")]
            continue
        for name in names:
            found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return {name: text.partition(". ")[0].rstrip(".") + "." for name, text in found.items()}
