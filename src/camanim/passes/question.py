"""What a network is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from camanim.layers import Predicate
from camanim.passes.forward import Batches, Forward
from camanim.passes.outputs import joined
from camanim.progress import Progress
from camanim.reading import Reader
from camanim.targets import Target

#: From the network's output to what is explained.
Aim = Callable[[Any], Sequence[Target]]


@dataclass(frozen=True)
class Question:
    """One input, and what is to be found out about it.

    Attributes
    ----------
    forward : Forward
    tensor : torch.Tensor
        (B, C, *S), on the network's device.
    aim : callable
        From the network's output to the targets.
    select : predicate of LayerInfo
    reader : Reader
        Knows how outputs become channels over space.
    progress : Progress
    note : callable
        Told in one sentence what was done otherwise than asked.
    batch_size : int
        Images per forward pass, where there are several.
    """

    forward: Forward
    tensor: torch.Tensor
    aim: Aim
    select: Predicate
    reader: Reader
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

        with self.forward.asking(tuple(self.tensor.shape)):
            self.batches()(len(self.tensor), ask)
            return list(self.aim(joined(outputs)))
