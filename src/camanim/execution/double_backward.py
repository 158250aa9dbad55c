"""Operations that torch can derive once only, done in a way that it can derive twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

_IN_PLACE = torch._C._nn.hardsigmoid_
_HARD_SIGMOIDS = frozenset({functional.hardsigmoid, torch._C._nn.hardsigmoid, _IN_PLACE})


def _hard_sigmoid(x: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    return (x.add_(3).clamp_(0, 6) if inplace else (x + 3).clamp(0, 6)).div_(6)


class _Twice(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is _IN_PLACE:
            return _hard_sigmoid(args[0], inplace=True)
        return (_hard_sigmoid if func in _HARD_SIGMOIDS else func)(*args, **(kwargs or {}))


@contextmanager
def twice_derivable() -> Iterator[None]:
    """Run a network such that gradients have gradients: of hard sigmoids, and of fast attention."""
    with sdpa_kernel(SDPBackend.MATH), _Twice():
        yield
