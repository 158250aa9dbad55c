"""Layer by layer, asking the network again: the way of the methods without gradients."""

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
    finished,
    full,
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


class _Lister:
    """Lists the layers that will be asked for again."""

    needs_gradient, needs_graph, needs_head = False, False, False

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.scores: list[torch.Tensor] = []

    def start(self, target: Target, seen: ForwardOutput) -> None:
        """Note the score to compare with."""
        self.scores.append(seen.score.cpu().double())

    def take(self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None) -> None:
        """Note the layer."""
        self.layers.append(layer)


def layerwise_maps(recipe: MapSettings, question: AttributionRequest) -> AttributionMaps:
    """Make the maps of all selected layers, one after the other."""
    lister = _Lister()
    captured = capture(question, lister)
    captured.check_whole()
    trace = captured.layer_calls[0]
    maps: list[Maps] = [{} for _ in captured.targets]
    asker = _Asker(recipe, question, len(lister.layers))
    for i, layer in enumerate(lister.layers):
        start = time.perf_counter()
        try:
            asker.begin(i)
            with question.forward.evaluating(tuple(question.tensor.shape)):
                made = asker.maps_of(layer, captured.targets, lister.scores)
        except NoMap as reason:
            status = str(reason)
        except Cancelled:
            if not any(maps):
                raise
            rest = {later.index for later in lister.layers[i:]}
            trace = [x.with_status(Status.CANCELLED) if x.index in rest else x for x in trace]
            captured = replace(captured, cancelled=True)
            break
        else:
            status = Status.OK
            for kept, own in zip(maps, made, strict=True):
                kept[layer.index] = own
        spent = (time.perf_counter() - start) * 1000
        trace[layer.index] = trace[layer.index].with_status(status, spent)
    return AttributionMaps(replace(captured, layer_calls=[list(trace) for _ in maps]), maps)


class _Asker:
    """Makes one layer's maps by asking the network again."""

    def __init__(self, recipe: MapSettings, question: AttributionRequest, count: int) -> None:
        self.recipe, self.question, self.count = recipe, question, count
        #: What methods remember from layer to layer, per target and image.
        self._memory: dict[tuple[int, int], dict[Any, Any]] = {}
        self._done = 0

    @cached_property
    def batches(self) -> Batches:
        """What feeds the network."""
        asked = self.question
        size = max_batch(asked.forward, asked.tensor, asked.batch_size, asked.note)
        return Batches(size, asked.note)

    @cached_property
    def _fast(self) -> Forward:
        return fast_copy(self.question.forward, self.question.tensor[:1])

    def begin(self, done: int) -> None:
        """Say that another layer's turn has come."""
        self._done = done
        self.question.progress("maps", 1000 * done, 1000 * self.count)

    @property
    def _predicting(self) -> Forward:
        asks = "predict" in self.recipe.method.needs
        return self._fast if asks else self.question.forward

    def _report(self, done: int, total: int) -> None:
        # Per mille of a layer, so that a layer of a thousand channels moves the bar too.
        share = 1000 * done // total if total else 0
        run_callback(self.question.progress, "maps", 1000 * self._done + share, 1000 * self.count)

    def maps_of(
        self, layer: Layer, targets: Sequence[Target], scores: list[torch.Tensor]
    ) -> list[FloatMap]:
        """Make the maps of a layer, one per target."""
        forward, shape = self.question.forward, tuple(self.question.tensor.shape)
        planes: list[list[torch.Tensor]] = [[] for _ in targets]
        for b in range(len(self.question.tensor)):
            image = self.question.tensor[b : b + 1]
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

                found = {
                    "activation": full(rest.activation),
                    "memory": self._memory.setdefault((t, b), {}),
                    "module": layer.module,
                    "image": image[0],
                    "net": forward.net,
                    "target": target,
                    "score": float(scores[t][b]),
                    "predict": predict,
                    "rerun": rerun,
                }
                planes[t].append(self.recipe.map_of(layer.index, found))
        return [finished(own) for own in planes]
