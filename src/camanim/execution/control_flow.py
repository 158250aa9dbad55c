"""Whether a network's way depends on what it sees, so that images must not share a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from camanim.execution.forward import Forward

#: What turns values of tensors into something that Python can decide by.
_LOOKS = frozenset(
    {
        "__array__", "__bool__", "__complex__", "__contains__", "__float__", "__index__", "__int__",
        "allclose", "equal", "is_nonzero", "item", "numpy", "tolist",
    }
)  # fmt: skip


class ValueAccessDetector(TorchFunctionMode):
    """Sees whether Python looks at values of tensors, as in ``if x.mean() > 0``."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.seen |= getattr(func, "__name__", "") in _LOOKS
        return func(*args, **(kwargs or {}))


def max_batch(
    forward: Forward, tensor: torch.Tensor, size: int, note: Callable[[str], None]
) -> int:
    """Say how many images may share a batch: one, where the network may decide by what it sees.

    In a batch it would decide for all images at once.

    Parameters
    ----------
    forward : Forward
        Within `Forward.evaluating`.
    tensor : torch.Tensor
        (B, C, *S), of which the first is tried.
    size : int
        How many are wanted.
    note : callable
        Told when it is fewer.
    """
    if size == 1:
        return 1
    with ValueAccessDetector() as looking:
        forward(tensor[:1])
    if looking.seen:
        note("The network looks at values to find its way: images go through it one at a time.")
    return 1 if looking.seen else size
