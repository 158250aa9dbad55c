"""What the sources share: arguments as text, networks from them, and whether code may be run."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from camanim.errors import CamError, ModelError

if TYPE_CHECKING:
    from torch import nn


class Untrusted(ModelError):
    """The source would run Python code of its own, and nobody said ``trust=True``.

    Attributes
    ----------
    source : object
        The file or folder.
    why : str
        What it is, to be read after its name.
    """

    def __init__(self, source: object, why: str) -> None:
        self.source, self.why = source, why
        super().__init__(f"{source} {why}: pass trust=True if you trust where it comes from.")


def arguments_of(query: str) -> dict[str, Any]:
    """Read ``a=2&b=(1, 2)&c=text``: Python's literals, and text for what is none.

    Raises
    ------
    ModelError
        For a part without ``=``, or a name that comes twice.
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


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


@contextmanager
def seeded() -> Iterator[None]:
    """Draw the same random weights every time, and leave the caller's random numbers as they were."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def first_line(error: BaseException) -> str:
    """Shorten what a library says to its first line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def build(name: str, make: Callable[..., Any], arguments: dict[str, Any]) -> nn.Module:
    """Make a network, with random weights that are the same every time.

    Parameters
    ----------
    name : str
        For the error.
    make : callable
        The network's class, or a function that returns a network.
    arguments : dict

    Raises
    ------
    ModelError
        When the arguments are not what `make` takes; the error names those that it takes.
    """
    known = inspect.signature(make).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in known.values())
    named = [p.name for p in known.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for argument in arguments:
        if argument not in named and not open_ended:
            near = get_close_matches(argument, named, n=2, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}" if near else f"it takes {', '.join(named)}"
            raise ModelError(f"{name} takes no argument {argument}: {hint}.")
    try:
        with seeded():
            net: nn.Module = make(**arguments)
    except CamError:
        raise
    except Exception as error:
        # A constructor may raise anything for arguments that do not go together.
        if missing := re.search(r"No module named '(\w+)", str(error)):
            raise ModelError(f"{name} takes {missing[1]}: pip install {missing[1]}.") from error
        raise ModelError(
            f"{name} cannot be built with these arguments ({first_line(error)}): "
            f"it takes {', '.join(named)}."
        ) from error
    return net.eval()
