"""Maps layer by layer, by re-evaluation of the network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from camanim.attribution.map_settings import (
    AttributionMaps,
    FloatMap,
    Maps,
    MapSettings,
    as_array,
    as_float32,
)
from camanim.errors import Cancelled, NoMap
from camanim.execution.capture import capture
from camanim.execution.consumer import ForwardOutput, Layer
from camanim.execution.control_flow import max_batch
from camanim.execution.fast_copy import fast_copy
from camanim.execution.forward import Batches, Forward
from camanim.execution.reevaluation import Predict, Rest
from camanim.execution.request import AttributionRequest
from camanim.layer_info import Status
from camanim.model_state import as_model_error, run_callback
from camanim.targets import Target


class _LayerList:
    """Lists the selected layers, and the scores of the targets."""

    needs_gradient, needs_graph, needs_head = False, False, False

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.scores: list[torch.Tensor] = []

    def begin_target(self, target: Target, forward_output: ForwardOutput) -> None:
        """Append the score of a target."""
        self.scores.append(forward_output.score.cpu().double())

    def consume(
        self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None
    ) -> None:
        """Append a layer."""
        self.layers.append(layer)


def layerwise_maps(settings: MapSettings, request: AttributionRequest) -> AttributionMaps:
    """Return the maps of all selected layers, computed one after the other."""
    consumer = _LayerList()
    captured = capture(request, consumer)
    captured.check_complete()
    layer_calls = captured.layer_calls[0]
    maps: list[Maps] = [{} for _ in captured.targets]
    layerwise = _LayerwiseMaps(settings, request, len(consumer.layers))
    for i, layer in enumerate(consumer.layers):
        start = time.perf_counter()
        try:
            layerwise.begin_layer(i)
            with request.forward.evaluating(tuple(request.tensor.shape)):
                layer_maps = layerwise.maps_of(layer, captured.targets, consumer.scores)
        except NoMap as reason:
            status = str(reason)
        except Cancelled:
            if not any(maps):
                raise
            rest = {later.index for later in consumer.layers[i:]}
            layer_calls = [
                info.with_status(Status.CANCELLED) if info.index in rest else info
                for info in layer_calls
            ]
            captured = replace(captured, cancelled=True)
            break
        else:
            status = Status.OK
            for target_maps, layer_map in zip(maps, layer_maps, strict=True):
                target_maps[layer.index] = layer_map
        milliseconds = (time.perf_counter() - start) * 1000
        layer_calls[layer.index] = layer_calls[layer.index].with_status(status, milliseconds)
    return AttributionMaps(replace(captured, layer_calls=[list(layer_calls) for _ in maps]), maps)


class _LayerwiseMaps:
    """Computes one layer's maps by re-evaluation of the network."""

    def __init__(self, settings: MapSettings, request: AttributionRequest, count: int) -> None:
        self.settings, self.request, self.count = settings, request, count
        #: What methods keep from layer to layer, per target and image.
        self._memory: dict[tuple[int, int], dict[Any, Any]] = {}
        self._done = 0

    @cached_property
    def batches(self) -> Batches:
        """The batches of re-evaluation."""
        request = self.request
        size = max_batch(request.forward, request.tensor, request.batch_size, request.note)
        return Batches(size, request.note)

    @cached_property
    def _fast(self) -> Forward:
        return fast_copy(self.request.forward, self.request.tensor[:1])

    def begin_layer(self, done: int) -> None:
        """Report that so many layers are done."""
        self._done = done
        self.request.progress("maps", 1000 * done, 1000 * self.count)

    @property
    def _predicting(self) -> Forward:
        predicts = "predict" in self.settings.method.needs
        return self._fast if predicts else self.request.forward

    def _report(self, done: int, total: int) -> None:
        # Per mille of a layer, so that a layer of a thousand channels moves the bar too.
        share = 1000 * done // total if total else 0
        run_callback(self.request.progress, "maps", 1000 * self._done + share, 1000 * self.count)

    def maps_of(
        self, layer: Layer, targets: Sequence[Target], scores: list[torch.Tensor]
    ) -> list[FloatMap]:
        """Return the maps of a layer, one per target."""
        forward, shape = self.request.forward, tuple(self.request.tensor.shape)
        image_maps: list[list[torch.Tensor]] = [[] for _ in targets]
        for b in range(len(self.request.tensor)):
            image = self.request.tensor[b : b + 1]
            rest = Rest(forward, image, layer, self.batches)
            for t, target in enumerate(targets):

                def rerun(count: int, make: Any, rest: Rest = rest, to: Target = target) -> Any:
                    with as_model_error(shape):
                        return rest.scores(to, count, make, self._report)

                def predict(count: int, make: Any, to: Target = target) -> Any:
                    with as_model_error(shape):
                        return Predict(self._predicting, to, self.batches, self._report)(
                            count, make
                        )

                ingredients = {
                    "activation": as_float32(rest.activation),
                    "memory": self._memory.setdefault((t, b), {}),
                    "module": layer.module,
                    "image": image[0],
                    "net": forward.net,
                    "target": target,
                    "score": float(scores[t][b]),
                    "predict": predict,
                    "rerun": rerun,
                }
                image_maps[t].append(self.settings.map_of(layer.index, ingredients))
        return [as_array(maps) for maps in image_maps]
