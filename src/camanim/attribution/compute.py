"""From a network's input to the raw maps of all layers, whatever the method asks of the network.

Three ways, told apart by what the method's parameters are called:

- from one pass: the method sees each layer's activation, and its gradient, as they come by;
- from several noisy passes, whose means are kept for each layer until the method sees them too;
- layer by layer, asking the network again for each (`camanim.rerun`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from camanim.attribution.combined import base_of, refined, windowed
from camanim.attribution.layerwise import layerwise_maps
from camanim.attribution.map_settings import (
    AttributionMaps,
    Maps,
    MapSettings,
    Means,
    finished,
    full,
)
from camanim.attribution.noise import averages
from camanim.errors import NoMap
from camanim.execution.capture import capture
from camanim.execution.consumer import ForwardOutput, Layer
from camanim.execution.request import AttributionRequest
from camanim.targets import Target


def make_maps(recipe: MapSettings, question: AttributionRequest) -> AttributionMaps:
    """Make the maps of all selected layers.

    Raises
    ------
    CamError
        When the network fails, has no such target, does not fit into memory, or the caller cancelled
        before there was a map.
    """
    method, means = recipe.method, []
    if method.meta:
        base = base_of(recipe)
        made = make_maps(base, question)
        if method.meta == "layers":
            return refined(made, question.tensor)
        return windowed(recipe, question, made, partial(make_maps, base))
    if method.averages:
        targets = question.targets()
        question = replace(question, aim=lambda output: targets)
        means = averages(recipe, question)
    if method.guided == "alone":
        question = replace(question, forward=replace(question.forward, guided=True))
    if method.needs_reevaluation:
        return layerwise_maps(recipe, question)
    maker = _Maker(recipe, question, means)
    captured = capture(question, maker)
    missing = len(captured.targets) - len(maker.maps)
    if maker.needs_gradient:
        return AttributionMaps(captured, [*maker.maps, *({} for _ in range(missing))])
    # Copies, so that no target's maps change with another's.
    own = [{i: raw.copy() for i, raw in maker.shared.items()} for _ in captured.targets]
    return AttributionMaps(captured, own)


class _Maker:
    """Makes each layer's map as its activation and gradient come by."""

    def __init__(
        self,
        recipe: MapSettings,
        question: AttributionRequest,
        means: list[Means],
    ) -> None:
        self.recipe, self.question, self.means = recipe, question, means
        needs = recipe.method.needs
        self.needs_gradient = recipe.method.needs_gradient
        self.needs_graph = "curvature" in needs
        self.needs_head = "head" in needs
        #: Maps that no target changes, and those of each target.
        self.shared: Maps = {}
        self.maps: list[Maps] = []
        self._target: Target | None = None
        self._seen: ForwardOutput | None = None

    def start(self, target: Target, seen: ForwardOutput) -> None:
        """Begin the maps of a target."""
        self._target, self._seen = target, seen
        self.maps.append({})

    def take(self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None) -> None:
        """Make the map of a layer."""
        curvature = None
        if self.needs_graph and gradient is not None:
            curvature = self._curvature(layer, activation, gradient)
            gradient = gradient.detach()
        with torch.no_grad():
            self._make(layer, activation, gradient, curvature)

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

    def _make(
        self,
        layer: Layer,
        activation: torch.Tensor,
        gradient: torch.Tensor | None,
        curvature: torch.Tensor | None,
    ) -> None:
        planes = []
        for b in range(len(activation)):
            found: dict[str, Any] = {
                "activation": full(activation[b]),
                "gradient": None if gradient is None else full(gradient[b]),
                "curvature": None if curvature is None else full(curvature[b]),
                "module": layer.module,
                "image": self.question.tensor[b],
                "net": self.question.forward.net,
                "target": self._target,
            }
            if self._seen is not None:
                head = self._seen.head
                found |= {
                    "head": None if head is None else head.of(b),
                    "score": float(self._seen.score[b]),
                }
            if self.means:
                means = self.means[len(self.maps) - 1].get(layer.index)
                if means is None:
                    raise NoMap("another course with noise")
                found |= {name: full(mean[b]) for name, mean in means.items()}
            planes.append(self.recipe.map_of(layer.index, found))
        where = self.maps[-1] if self.needs_gradient else self.shared
        where[layer.index] = finished(planes)
