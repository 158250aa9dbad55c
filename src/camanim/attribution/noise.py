"""Means over noisy copies of the input, for the methods that ask for them."""

from __future__ import annotations

from dataclasses import replace

import torch

from camanim.attribution.map_settings import MapSettings, Means, full
from camanim.cam_methods import Method
from camanim.execution.capture import capture
from camanim.execution.consumer import ForwardOutput, Layer
from camanim.execution.request import AttributionRequest
from camanim.targets import Target


class _Averager:
    """Sums up what a method asks for, for each target and layer, over noisy passes."""

    needs_gradient, needs_graph, needs_head = True, False, False

    def __init__(self, method: Method, samples: int, sums: list[Means]) -> None:
        self.method, self.samples, self.sums = method, samples, sums
        self._at = -1

    def start(self, target: Target, seen: ForwardOutput) -> None:
        """Go on with the next target's sums."""
        self._at += 1
        if self._at == len(self.sums):
            self.sums.append({})

    def take(self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None) -> None:
        """Add one layer's part."""
        assert gradient is not None
        into = self.sums[self._at].setdefault(layer.index, {})
        for name, function in self.method.averages.items():
            part = function(full(activation), full(gradient)) / self.samples
            into[name] = into[name] + part if name in into else part


def averages(recipe: MapSettings, question: AttributionRequest) -> list[Means]:
    """Average what a method asks for, one result per target.

    Parameters
    ----------
    recipe : MapSettings
        Its options say how many ``samples`` there are, and how strong the ``noise`` is.
    question : AttributionRequest
        Whose targets are settled.
    """
    samples, noise = int(recipe.options["samples"]), float(recipe.options["noise"])
    tensor, progress = question.tensor, question.progress
    sums: list[Means] = []
    generator = recipe.generator(0)
    for sample in range(samples):
        progress("noise", sample, samples)

        def inside(stage: str, done: int, total: int, sample: int = sample) -> None:
            # Lets the caller cancel within a pass, without another bar.
            progress("noise", sample, samples)

        drawn = torch.randn(tensor.shape, generator=generator, device="cpu")
        noisy = tensor + noise * drawn.to(tensor)
        asked = replace(question, tensor=noisy, progress=inside)
        capture(asked, _Averager(recipe.method, samples, sums)).check_whole()
    return sums
