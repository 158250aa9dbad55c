"""One input, its targets, and the settings of a pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from camanim.execution.forward import Batches, Forward
from camanim.execution.outputs import joined
from camanim.layer_selection import Predicate
from camanim.layout.reader import LayoutReader
from camanim.progress import Progress
from camanim.targets import Target

#: From the network's output to the targets.
TargetFunction = Callable[[Any], Sequence[Target]]


@dataclass(frozen=True)
class AttributionRequest:
    """One input, and what is to be computed for it.

    Attributes
    ----------
    forward : Forward
    tensor : torch.Tensor
        (B, C, *S), on the network's device.
    target_function : callable
        From the network's output to the targets.
    select : predicate of LayerInfo
    reader : LayoutReader
        Arranges outputs as channels over space.
    progress : Progress
    note : callable
        Called with a message where settings were changed.
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

    def with_input(self, tensor: torch.Tensor) -> AttributionRequest:
        """Return the same request for another input."""
        return replace(self, tensor=tensor, reader=self.reader.for_input(tuple(tensor.shape)))

    def batches(self) -> Batches:
        """Return new batches of this size."""
        return Batches(self.batch_size, self.note)

    def targets(self) -> list[Target]:
        """Return the targets over all images at once, from forward passes without gradients."""
        outputs: list[Any] = []

        def run(start: int, stop: int) -> torch.Tensor:
            outputs.append(self.forward(self.tensor[start:stop].clone()))
            return torch.zeros(stop - start)

        with self.forward.evaluating(tuple(self.tensor.shape)):
            self.batches()(len(self.tensor), run)
            return list(self.target_function(joined(outputs)))
