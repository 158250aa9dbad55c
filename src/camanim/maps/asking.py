"""Layer by layer, asking the network again: the way of the methods without gradients."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from camanim.cams.registry import NoMap
from camanim.errors import Cancelled
from camanim.guard import call_back, networks_errors
from camanim.maps.recipe import FloatMap, Made, Maps, Recipe, finished, full
from camanim.passes.capture import capture
from camanim.passes.consumer import Layer, Seen
from camanim.passes.deciding import images_at_once
from camanim.passes.fast import fast_copy
from camanim.passes.forward import Batches, Forward
from camanim.passes.question import Question
from camanim.passes.rerun import Predict, Rest
from camanim.targets import Target
from camanim.trace import Status


class _Lister:
    """Lists the layers that will be asked for again."""

    needs_gradient, needs_graph, needs_head = False, False, False

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.scores: list[torch.Tensor] = []

    def start(self, target: Target, seen: Seen) -> None:
        """Note the score to compare with."""
        self.scores.append(seen.score.cpu().double())

    def take(self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None) -> None:
        """Note the layer."""
        self.layers.append(layer)


def by_asking_again(recipe: Recipe, question: Question) -> Made:
    """Make the maps of all selected layers, one after the other."""
    lister = _Lister()
    captured = capture(question, lister)
    captured.check_whole()
    trace = captured.traces[0]
    maps: list[Maps] = [{} for _ in captured.targets]
    asker = _Asker(recipe, question, len(lister.layers))
    for i, layer in enumerate(lister.layers):
        start = time.perf_counter()
        try:
            asker.begin(i)
            with question.forward.asking(tuple(question.tensor.shape)):
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
    return Made(replace(captured, traces=[list(trace) for _ in maps]), maps)


class _Asker:
    """Makes one layer's maps by asking the network again."""

    def __init__(self, recipe: Recipe, question: Question, count: int) -> None:
        self.recipe, self.question, self.count = recipe, question, count
        #: What methods remember from layer to layer, per target and image.
        self._memory: dict[tuple[int, int], dict[Any, Any]] = {}
        self._done = 0

    @cached_property
    def batches(self) -> Batches:
        """What feeds the network."""
        asked = self.question
        size = images_at_once(asked.forward, asked.tensor, asked.batch_size, asked.note)
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
        call_back(self.question.progress, "maps", 1000 * self._done + share, 1000 * self.count)

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
                    with networks_errors(shape):
                        return rest.scores(to, count, make, self._report)

                def predict(count: int, make: Any, to: Target = target) -> Any:
                    with networks_errors(shape):
                        return Predict(self._predicting, to, self.batches, self._report)(
                            count, make
                        )

                found = {
                    "activation": full(rest.activation),
                    "arrangement": layer.arrangement,
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
