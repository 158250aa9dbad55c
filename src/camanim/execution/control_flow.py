"""Whether a network's control flow depends on its input, so that images must not share a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from camanim.execution.forward import Forward
from camanim.execution.function_mode import FunctionMode

#: Functions that return values of tensors to Python.
_ACCESSES = frozenset(
    {
        "__array__", "__bool__", "__complex__", "__contains__", "__float__", "__index__", "__int__",
        "allclose", "equal", "is_nonzero", "item", "numpy", "tolist",
    }
)  # fmt: skip


class ValueAccessDetector(FunctionMode):
    """Detect whether Python reads values of tensors, as in ``if x.mean() > 0``."""

    def __init__(self) -> None:
        super().__init__()
        self.detected = False

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note whether the function returns values to Python."""
        self.detected |= getattr(function, "__name__", "") in _ACCESSES
        return function(*args, **kwargs)


def max_batch(
    forward: Forward, tensor: torch.Tensor, size: int, note: Callable[[str], None]
) -> int:
    """Return how many images may share a batch: one where the control flow may depend on values.

    In a batch, one branch would be taken for all images.

    Parameters
    ----------
    forward : Forward
        Within `Forward.evaluating`.
    tensor : torch.Tensor
        (B, C, *S), of which the first is tried.
    size : int
        The most images.
    note : callable
        Called with a message when it is fewer.
    """
    if size == 1:
        return 1
    with ValueAccessDetector() as detector:
        forward(tensor[:1])
    if detector.detected:
        note("The network's control flow depends on values: images go through it one at a time.")
    return 1 if detector.detected else size
