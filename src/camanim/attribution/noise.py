"""Means over noisy copies of the input, for the methods that need them."""

from __future__ import annotations

from dataclasses import replace

import torch

from camanim.attribution.map_settings import MapSettings, Means, as_float32
from camanim.cam_methods import Method
from camanim.execution.capture import capture
from camanim.execution.consumer import ForwardOutput, Layer
from camanim.execution.request import AttributionRequest
from camanim.targets import Target


class _Averager:
    """Sums a method's functions of activation and gradient over noisy passes, per target and layer."""

    needs_gradient, needs_graph, needs_head = True, False, False

    def __init__(self, method: Method, samples: int, sums: list[Means]) -> None:
        self.method, self.samples, self.sums = method, samples, sums
        self._target = -1

    def begin_target(self, target: Target, forward_output: ForwardOutput) -> None:
        """Continue with the sums of the next target."""
        self._target += 1
        if self._target == len(self.sums):
            self.sums.append({})

    def consume(
        self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None
    ) -> None:
        """Add the terms of one layer."""
        assert gradient is not None
        sums = self.sums[self._target].setdefault(layer.index, {})
        for name, function in self.method.averages.items():
            term = function(as_float32(activation), as_float32(gradient)) / self.samples
            sums[name] = sums[name] + term if name in sums else term


def averages(settings: MapSettings, request: AttributionRequest) -> list[Means]:
    """Return the means that a method needs, per target.

    Parameters
    ----------
    settings : MapSettings
        With the options ``samples`` and ``noise``, a standard deviation.
    request : AttributionRequest
        With the same targets for all inputs.
    """
    samples, noise = int(settings.options["samples"]), float(settings.options["noise"])
    tensor, progress = request.tensor, request.progress
    sums: list[Means] = []
    generator = settings.generator(0)
    for sample in range(samples):
        progress("noise", sample, samples)

        def report(stage: str, done: int, total: int, sample: int = sample) -> None:
            # Lets the caller cancel within a pass, without another bar.
            progress("noise", sample, samples)

        drawn = torch.randn(tensor.shape, generator=generator, device="cpu")
        noisy = tensor + noise * drawn.to(tensor)
        noisy_request = replace(request, tensor=noisy, progress=report)
        consumer = _Averager(settings.method, samples, sums)
        capture(noisy_request, consumer).check_complete()
    return sums
