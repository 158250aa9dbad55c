"""Operations that torch differentiates once only, replaced by ones that it differentiates twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from camanim.execution.function_mode import FunctionMode
from camanim.shared_flags import MATH_ATTENTION

_IN_PLACE = torch._C._nn.hardsigmoid_
_HARD_SIGMOIDS = frozenset({functional.hardsigmoid, torch._C._nn.hardsigmoid, _IN_PLACE})


def _hard_sigmoid(x: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    return (x.add_(3).clamp_(0, 6) if inplace else (x + 3).clamp(0, 6)).div_(6)


class _TwiceDifferentiable(FunctionMode):
    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Replace hard sigmoids."""
        if function is _IN_PLACE:
            return _hard_sigmoid(args[0], inplace=True)
        return (_hard_sigmoid if function in _HARD_SIGMOIDS else function)(*args, **kwargs)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Make gradients of hard sigmoids and of fast attention differentiable."""
    with MATH_ATTENTION.held(), _TwiceDifferentiable():
        yield
