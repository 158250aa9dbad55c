"""From a network's input to the raw maps of all layers, by whatever a method needs of the network.

`attribute` also covers slices of a volume, variants of the input and guided gradients. The names of a
method's parameters decide between three ways:

- one pass: the method gets each layer's activation, and its gradient, as they are computed;
- several noisy passes first, whose means per layer the method gets as well;
- layer by layer, by re-evaluation of the network (`camanim.attribution.layerwise`).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from camanim.attribution.combined import base_settings, refined, windowed
from camanim.attribution.guided import times_guided
from camanim.attribution.layerwise import layerwise_maps
from camanim.attribution.map_settings import (
    AttributionMaps,
    Maps,
    MapSettings,
    Means,
    as_array,
    as_float32,
)
from camanim.attribution.noise import averages
from camanim.attribution.variants import ComputeMaps, augmented, in_chunks
from camanim.errors import NoMap
from camanim.execution.capture import capture
from camanim.execution.consumer import ForwardOutput, Layer
from camanim.execution.control_flow import max_batch
from camanim.execution.request import AttributionRequest
from camanim.layer_info import Status
from camanim.targets import Target

#: Ingredients that are equal for two layers with the same activation and gradient.
_SHARED = frozenset(
    {"activation", "gradient", "curvature", "head", "score", "image", "net", "target"}
)


def attribute(settings: MapSettings, request: AttributionRequest) -> AttributionMaps:
    """Return the maps of all selected layers for one image, or for all slices of a volume.

    Raises
    ------
    CamError
        As of `make_maps`.
    """
    if len(request.tensor) > 1:
        with request.forward.evaluating(tuple(request.tensor.shape)):
            size = max_batch(request.forward, request.tensor, request.batch_size, request.note)
        request = replace(request, batch_size=size)
    if settings.slices or settings.augment:
        # Over all images at once, so that every part explains the same targets.
        targets = request.targets()
        request = replace(request, target_function=lambda output: targets)
    compute: ComputeMaps = partial(make_maps, settings)
    if settings.slices:
        compute = partial(in_chunks, compute)
    attribution = augmented(compute, request) if settings.augment else compute(request)
    if settings.method.guided == "alone":
        gradients = attribution.captured.input_gradients
        attribution.guided = [gradient.cpu().float() for gradient in gradients]
    if settings.method.guided == "times":
        attribution.guided = times_guided(attribution, request, slices=settings.slices)
    return attribution


def make_maps(settings: MapSettings, request: AttributionRequest) -> AttributionMaps:
    """Return the maps of all selected layers.

    Raises
    ------
    CamError
        When the network fails, has no such target, does not fit into memory, or the caller cancelled
        before the first map.
    """
    method, means = settings.method, []
    if method.meta:
        base = base_settings(settings)
        attribution = make_maps(base, request)
        if method.meta == "layers":
            return refined(attribution, request)
        return windowed(settings, request, attribution, partial(make_maps, base))
    if method.averages:
        targets = request.targets()
        request = replace(request, target_function=lambda output: targets)
        means = averages(settings, request)
    if method.guided == "alone":
        request = replace(request, forward=replace(request.forward, guided=True))
    if method.needs_reevaluation:
        return layerwise_maps(settings, request)
    consumer = _MapConsumer(settings, request, means)
    captured = capture(request, consumer)
    missing = len(captured.targets) - len(consumer.target_maps)
    if consumer.needs_gradient:
        return AttributionMaps(captured, [*consumer.target_maps, *({} for _ in range(missing))])
    # Copies, so that no target's maps change with another's.
    maps = [{i: raw.copy() for i, raw in consumer.shared_maps.items()} for _ in captured.targets]
    return AttributionMaps(captured, maps)


class _MapConsumer:
    """Computes each layer's map when its activation and gradient arrive."""

    def __init__(
        self,
        settings: MapSettings,
        request: AttributionRequest,
        means: list[Means],
    ) -> None:
        self.settings, self.request, self.means = settings, request, means
        needs = settings.method.needs
        self.needs_gradient = settings.method.needs_gradient
        self.needs_graph = "curvature" in needs
        self.needs_head = "head" in needs
        self._may_share = _SHARED.issuperset(needs) and not means
        #: Maps of methods without gradients, which no target changes, and of the others per target.
        self.shared_maps: Maps = {}
        self.target_maps: list[Maps] = []
        self._target: Target | None = None
        self._forward_output: ForwardOutput | None = None

    def begin_target(self, target: Target, forward_output: ForwardOutput) -> None:
        """Start the maps of a target."""
        self._target, self._forward_output = target, forward_output
        self.target_maps.append({})

    def consume(
        self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None
    ) -> None:
        """Compute the map of a layer."""
        maps = self.target_maps[-1] if self.needs_gradient else self.shared_maps
        if layer.same_as in maps and self._may_share:
            maps[layer.index] = maps[layer.same_as].copy()
            return
        curvature = None
        if self.needs_graph and gradient is not None:
            curvature = self._curvature(layer, activation, gradient)
            gradient = gradient.detach()
        with torch.no_grad() if self.needs_graph else nullcontext():
            maps[layer.index] = as_array(
                [
                    self._map_of_image(b, layer, activation, gradient, curvature)
                    for b in range(len(activation))
                ]
            )

    @staticmethod
    def _curvature(layer: Layer, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Multiply the score's Hessian in the activation with the activation."""
        product = None
        if gradient.requires_grad:
            (product,) = torch.autograd.grad(
                gradient, layer.edge, activation, retain_graph=True, allow_unused=True
            )
        if product is None:
            # The gradient is the same whatever the activation.
            return torch.zeros_like(activation)
        assert layer.arrangement is not None
        return layer.arrangement.to_channels(product)

    def _map_of_image(
        self,
        b: int,
        layer: Layer,
        activation: torch.Tensor,
        gradient: torch.Tensor | None,
        curvature: torch.Tensor | None,
    ) -> torch.Tensor:
        ingredients: dict[str, Any] = {
            "activation": as_float32(activation[b]),
            "gradient": None if gradient is None else as_float32(gradient[b]),
            "curvature": None if curvature is None else as_float32(curvature[b]),
            "module": layer.module,
            "image": self.request.tensor[b],
            "net": self.request.forward.net,
            "target": self._target,
        }
        if self._forward_output is not None:
            head = self._forward_output.head
            ingredients["head"] = None if head is None else head.of(b)
            if "score" in self.settings.method.needs:
                ingredients["score"] = float(self._forward_output.score[b])
        if self.means:
            means = self.means[len(self.target_maps) - 1].get(layer.index)
            if means is None:
                raise NoMap(Status.OTHER_PATH)
            ingredients |= {name: as_float32(mean[b]) for name, mean in means.items()}
        return self.settings.map_of(layer.index, ingredients)
