"""Calls of a network: with its further inputs, in a precision, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from camanim.errors import ModelError
from camanim.execution.guided_backpropagation import PositiveOnly
from camanim.model_state import is_out_of_memory, run_callback, without_gradients
from camanim.precision import Precision


@dataclass(frozen=True)
class Forward:
    """A network with all arguments of its call but the image.

    Attributes
    ----------
    net : torch.nn.Module
    positional, keywords
        Further inputs. Tensors whose first axis has length 1 are repeated for a batch, wherever they
        are in tuples, lists and dictionaries.
    precision : {"float32", "bfloat16", "float16"}
        Of autocast; "float32" leaves the network as it is.
    guided : bool
        Whether gradients follow the rule of guided backpropagation.
    """

    net: nn.Module
    positional: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    precision: Precision = "float32"
    guided: bool = False

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            known = ", ".join(get_args(Precision))
            raise ModelError(f"A precision is one of {known}, not {self.precision!r}.")

    def __call__(self, batch: torch.Tensor) -> Any:
        """Run the network on copies of (B, C, *S) and of the further inputs."""
        copied = partial(_for_batch, count=len(batch), device=batch.device)
        positional = tree_map_only(torch.Tensor, copied, list(self.positional))
        keywords = tree_map_only(torch.Tensor, copied, dict(self.keywords))
        with self._autocast(batch.device), PositiveOnly() if self.guided else nullcontext():
            return self.net(batch.clone(), *positional, **keywords)

    def _autocast(self, device: torch.device) -> Any:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, getattr(torch, self.precision))

    def evaluating(self, input_shape: tuple[int, ...]) -> AbstractContextManager[None]:
        """Prepare the network for forward passes without gradients, and restore it after."""
        return without_gradients(self.net, input_shape)


def _for_batch(value: torch.Tensor, count: int, device: torch.device) -> torch.Tensor:
    repeats = count if value.ndim > 0 and value.shape[0] == 1 else 1
    value = value.to(device)
    return value.repeat(repeats, *[1] * (value.ndim - 1)) if value.ndim else value.clone()


class Batches:
    """Calls a function batch by batch, and halves the batch whenever memory runs out.

    Parameters
    ----------
    size : int
        Items per batch at first.
    note : callable
        Called with a message when the batch was made smaller.
    """

    def __init__(self, size: int, note: Callable[[str], None]) -> None:
        self.size = size
        self._note = note

    def __call__(
        self,
        count: int,
        score: Callable[[int, int], torch.Tensor],
        report: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        """Join ``score(start, stop)``, each (stop - start,), to (count,) float64 on the CPU."""
        parts: list[torch.Tensor] = []
        start = 0
        while start < count:
            stop = min(start + self.size, count)
            try:
                parts.append(score(start, stop).detach().cpu().double().reshape(-1))
            except Exception as error:
                if self.size == 1 or not is_out_of_memory(error):
                    raise
                self.size = max(1, (stop - start) // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                self._note(f"Memory ran out: batches of {self.size} from here on.")
                continue
            if len(parts[-1]) != stop - start:
                raise ModelError(
                    f"The network returns {len(parts[-1])} scores for {stop - start} images: "
                    "it does not take batches, so this method cannot be used."
                )
            start = stop
            if report is not None:
                run_callback(report, start)
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
