"""Functions shared by the sources: parse arguments, build networks, refuse untrusted code."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from camanim.errors import CamError, ModelError

if TYPE_CHECKING:
    from torch import nn


#: Why an argument needs trust; see `loading_argument`.
LOADS = "would download or read other weights ({})"


class Untrusted(ModelError):
    """Raised without ``trust=True`` if a source would run code, or reach files or servers that it names.

    Attributes
    ----------
    source : object
        The file or folder.
    why : str
        Reason, as a predicate of the source: ``"is Python code"``.
    """

    def __init__(self, source: object, why: str) -> None:
        self.source, self.why = source, why
        super().__init__(f"{source} {why}: pass trust=True if you trust its origin.")


def parse_arguments(query: str) -> dict[str, Any]:
    """Return the arguments in a query such as ``a=2&b=(1, 2)&c=text``.

    Values are Python literals; a value that is not a literal is text.

    Raises
    ------
    ModelError
        If a part is not of the form ``name=value``, or a name occurs twice.
    """
    arguments: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if not equals or not name.isidentifier():
            raise ModelError(f"Arguments of a network are written name=value, not {part!r}.")
        if name in arguments:
            raise ModelError(f"The argument {name} is given twice.")
        arguments[name] = _literal(unquote(value))
    return arguments


def loading_argument(arguments: Mapping[str, Any]) -> str:
    """Return the name of an argument with which a constructor would download or read weights, or ""."""
    for name, value in arguments.items():
        is_path = isinstance(value, str) and name.endswith(("_path", "_dir", "_file"))
        loads = name.startswith("pretrained") or "url" in name.split("_") or name == "cache_dir"
        if value and (loads or is_path):
            return name
    return ""


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


@contextmanager
def seeded() -> Iterator[None]:
    """Seed torch's random numbers with a constant, and restore their state on exit."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type without one."""
    if "weights_only" in str(error):
        # torch suggests to read such files without its protection against code.
        return "the file holds Python objects besides weights, and reading those could run code"
    return str(error).strip().partition("\n")[0] or type(error).__name__


def build(name: str, constructor: Callable[..., Any], arguments: dict[str, Any]) -> nn.Module:
    """Return a new network in evaluation mode, with reproducible random weights.

    Parameters
    ----------
    name : str
        Name of the network, for error messages.
    constructor : callable
        The network's class, or a function that returns a network.
    arguments : dict

    Raises
    ------
    ModelError
        If `constructor` does not take the arguments; the message lists its parameters.
    """
    known = inspect.signature(constructor).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in known.values())
    named = [p.name for p in known.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for argument in arguments:
        if argument not in named and not open_ended:
            near = get_close_matches(argument, named, n=2, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}" if near else f"it takes {', '.join(named)}"
            raise ModelError(f"{name} takes no argument {argument}: {hint}.")
    try:
        with seeded():
            net: nn.Module = constructor(**arguments)
    except CamError:
        raise
    except Exception as error:
        # A constructor may raise any exception for arguments that do not fit together.
        if missing := re.search(r"No module named '(\w+)", str(error)):
            raise ModelError(f"{name} needs {missing[1]}: pip install {missing[1]}.") from error
        raise ModelError(
            f"{name} cannot be built with {arguments} ({first_line(error)}): "
            f"it takes {', '.join(named)}."
        ) from error
    return net.eval()
