"""What a network is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from camanim.execution.forward import Batches, Forward
from camanim.execution.outputs import joined
from camanim.layer_selection import Predicate
from camanim.layout.reader import LayoutReader
from camanim.progress import Progress
from camanim.targets import Target

#: From the network's output to what is explained.
TargetFunction = Callable[[Any], Sequence[Target]]


@dataclass(frozen=True)
class AttributionRequest:
    """One input, and what is to be found out about it.

    Attributes
    ----------
    forward : Forward
    tensor : torch.Tensor
        (B, C, *S), on the network's device.
    target_function : callable
        From the network's output to the targets.
    select : predicate of LayerInfo
    reader : LayoutReader
        Knows how outputs become channels over space.
    progress : Progress
    note : callable
        Told in one sentence what was done otherwise than asked.
    batch_size : int
        Images per forward pass, where there are several.
    """

    forward: Forward
    tensor: torch.Tensor
    target_function: TargetFunction
    select: Predicate
    reader: LayoutReader
    progress: Progress
    note: Callable[[str], None]
    batch_size: int = 16

    def batches(self) -> Batches:
        """Make what feeds the network batch by batch."""
        return Batches(self.batch_size, self.note)

    def targets(self) -> list[Target]:
        """Find the targets over all images at once, in one forward pass without gradients."""
        outputs: list[Any] = []

        def ask(start: int, stop: int) -> torch.Tensor:
            outputs.append(self.forward(self.tensor[start:stop].clone()))
            return torch.zeros(stop - start)

        with self.forward.evaluating(tuple(self.tensor.shape)):
            self.batches()(len(self.tensor), ask)
            return list(self.target_function(joined(outputs)))
