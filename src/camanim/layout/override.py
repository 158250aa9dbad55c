"""How to read an output, in the user's words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from camanim.errors import LayerError
from camanim.layout.arrangement import Arrangement, Custom, Stripes
from camanim.layout.shapes import Layout

if TYPE_CHECKING:
    import torch

#: A word (see `parse`), or a function from an output to (B, C, *s).
Override = str | Callable[["torch.Tensor"], "torch.Tensor"]

_WORDS = '"NCHW", "NHWC", "NCDHW", "NDHWC", "tokens", "tokens:2", "1-D", "stripes"'


def parse(override: Override, shape: tuple[int, ...], layout: Layout) -> Arrangement | None:
    """Read an output as the user says.

    Parameters
    ----------
    override : str or callable
        ``"NCHW"``, ``"NHWC"`` (for volumes ``"NCDHW"``, ``"NDHWC"``); ``"tokens"``, ``"tokens:2"`` with
        that many before the cells; ``"1-D"``: it has no space; ``"stripes"``: one cell per number. Or
        a function from the output to (B, C, *s), such as grad-cam's ``reshape_transform``.
    shape : tuple of int
        Of the output.
    layout : Layout
        Knows the sides of earlier outputs, and learns those of this one.

    Returns
    -------
    Arrangement or None
        None where an output of this shape cannot be read so.

    Raises
    ------
    LayerError
        For another word, and for a function that fails or gives something else.
    """
    if callable(override):
        return layout.note(_custom(override, shape, layout.dims))
    word, _, leading = str(override).strip().partition(":")
    word = word.lower()
    if word == "tokens" and re.fullmatch(r"\d*", leading):
        return layout.note(layout.tokens(shape, int(leading or 0)))
    if not leading and word in ("1-d", "1d"):
        return None
    if not leading and word == "stripes":
        return stripes(shape, layout.dims)
    if not leading and word in ("nchw", "ncdhw", "nhwc", "ndhwc"):
        return layout.note(layout.image(shape, last=word.endswith("c")))
    raise LayerError(f"A layer's output is read as {_WORDS} or by a function, not as {override!r}.")


def stripes(shape: tuple[int, ...], dims: int = 2) -> Arrangement | None:
    """Read an output without space as one channel over (1, K) or (1, 1, K), a cell per number.

    Parameters
    ----------
    shape : tuple of int
        (B, K), or (B, K, 1, 1) and the like.
    dims : int
        How many axes the space is to have.

    Returns
    -------
    Arrangement or None
        None where there is not one number per unit, or a single one.
    """
    if len(shape) < 2 or max(shape[1:]) < 2 or math.prod(shape) != shape[0] * max(shape[1:]):
        return None
    return Stripes("stripes", (*[1] * (dims - 1), max(shape[1:])))


def _custom(
    function: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...], dims: int
) -> Arrangement:
    import torch

    name = getattr(function, "__name__", type(function).__name__)
    try:
        given = function(torch.zeros(shape))
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise LayerError(
            f"The function {name!r} fails on an output of {shape}: {error}. "
            "Name only layers whose output it can take."
        ) from error
    if not isinstance(given, torch.Tensor) or given.ndim != dims + 2:
        got = tuple(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
        raise LayerError(
            f"The function {name!r} makes {got} of an output of {shape}, where channels over space, "
            f"with {dims + 2} axes, are needed."
        )
    return Custom(name, tuple(given.shape[2:]), function)
