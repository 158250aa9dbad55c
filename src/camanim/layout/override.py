"""Layouts that the user sets, in place of the inferred ones."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from camanim.errors import LayerError
from camanim.layout.arrangement import Arrangement, Custom, Stripes
from camanim.layout.shapes import LayoutInference

if TYPE_CHECKING:
    import torch

#: The name of a layout (see `parse`), or a function from an output to (B, C, *s).
Override = str | Callable[["torch.Tensor"], "torch.Tensor"]

_NAMES = '"NCHW", "NHWC", "NCDHW", "NDHWC", "tokens", "tokens:2", "1-D", "stripes"'


def parse(
    override: Override, shape: tuple[int, ...], inference: LayoutInference
) -> Arrangement | None:
    """Return the arrangement that an override sets for an output.

    Parameters
    ----------
    override : str or callable
        ``"NCHW"``, ``"NHWC"`` (for volumes ``"NCDHW"``, ``"NDHWC"``); ``"tokens"``, or ``"tokens:2"``
        for tokens after two leading ones; ``"1-D"`` for no space; ``"stripes"`` for one cell per
        element. Or a function from the output to (B, C, *s), such as a ``reshape_transform`` of
        grad-cam.
    shape : tuple of int
        Shape of the output.
    inference : LayoutInference
        The state of the inference, to which the sides of this output are added.

    Returns
    -------
    Arrangement or None
        None for ``"1-D"``, or if the override does not fit the shape.

    Raises
    ------
    LayerError
        If the override is another name, or a function that fails or returns something else.
    """
    if callable(override):
        return inference.record(_custom(override, shape, inference.dims))
    name, _, leading = str(override).strip().partition(":")
    name = name.lower()
    if name == "tokens" and re.fullmatch(r"\d*", leading):
        return inference.record(inference.tokens(shape, int(leading or 0)))
    if not leading and name in ("1-d", "1d"):
        return None
    if not leading and name == "stripes":
        return stripes(shape, inference.dims)
    if not leading and name in ("nchw", "ncdhw", "nhwc", "ndhwc"):
        return inference.record(inference.image(shape, last=name.endswith("c")))
    raise LayerError(f"The layout of a layer must be {_NAMES} or a function, not {override!r}.")


def stripes(shape: tuple[int, ...], dims: int = 2) -> Arrangement | None:
    """Return the arrangement of an output without space as one channel over (1, K) or (1, 1, K).

    Parameters
    ----------
    shape : tuple of int
        (B, K), or (B, K, 1, 1) and the like.
    dims : int
        Number of axes of the space.

    Returns
    -------
    Arrangement or None
        None unless the output has one number for each of several units.
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
        result = function(torch.zeros(shape))
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise LayerError(
            f"The function {name!r} fails on an output of {shape}: {error}. "
            "Set it only for layers whose output it can convert."
        ) from error
    is_tensor = isinstance(result, torch.Tensor)
    if not is_tensor or result.ndim != dims + 2:
        actual = tuple(result.shape) if is_tensor else type(result).__name__
        raise LayerError(
            f"The function {name!r} must return channels over space, a tensor with {dims + 2} axes; "
            f"for an output of {shape} it returns {actual}."
        )
    return Custom(name, tuple(result.shape[2:]), function)
