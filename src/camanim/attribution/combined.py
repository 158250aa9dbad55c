"""Methods that are made of another method's maps: of all layers, or of windows of the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from camanim.attribution.map_settings import AttributionMaps, FloatMap, Maps, MapSettings
from camanim.cam_methods import find_method
from camanim.cam_methods.meta import Fusion, Window, patches, refine, sess_weights, sess_windows
from camanim.errors import MethodError
from camanim.execution.request import AttributionRequest
from camanim.layer_info import Status
from camanim.model_state import run_callback
from camanim.targets import Target


def base_of(recipe: MapSettings) -> MapSettings:
    """Take the recipe of the maps that others are made of.

    Raises
    ------
    MethodError
        When there is no such method, or it is itself made of others.
    """
    base = find_method(recipe.options["base"])
    if base.meta:
        raise MethodError(f"{base.name} is itself made of other maps: take a base such as GradCAM.")
    return replace(recipe, method=base, options=base.checked({}))


def refined(made: AttributionMaps, tensor: torch.Tensor) -> AttributionMaps:
    """Multiply each layer's map with those of all later ones.

    Parameters
    ----------
    made : AttributionMaps
    tensor : torch.Tensor
        (B, C, *S), the network's input.

    Raises
    ------
    Cancelled
        When no layer has the maps of all later ones.
    """
    size, layer_calls = tuple(tensor.shape[2:]), []
    for maps, trace in zip(made.maps, made.captured.layer_calls, strict=True):
        last = max((x.index for x in trace if x.status == Status.CANCELLED), default=-1)
        for index in [index for index in maps if index < last]:
            del maps[index]
        layer_calls.append(
            [
                x.with_status(Status.CANCELLED) if x.index < last and x.status == Status.OK else x
                for x in trace
            ]
        )
        order = sorted(maps)
        products = _products([maps[i] for i in order], size, len(tensor))
        maps.update(zip(reversed(order), products, strict=True))
    captured = replace(made.captured, layer_calls=layer_calls)
    if not any(made.maps):
        captured.check_whole()
    return AttributionMaps(captured, made.maps)


def _products(maps: list[FloatMap], size: tuple[int, ...], images: int) -> Iterator[FloatMap]:
    if images == 1:
        yield from refine(maps, size)
        return
    each = [refine([raw[b] for raw in maps], size) for b in range(images)]
    for planes in zip(*each, strict=True):
        yield np.stack(planes)


def windowed(
    recipe: MapSettings, question: AttributionRequest, made: AttributionMaps, make_one: Any
) -> AttributionMaps:
    """Put the maps of windows that slide over the image together.

    Parameters
    ----------
    recipe : MapSettings
        Of the method that asks for windows.
    question : AttributionRequest
        About one image.
    made : AttributionMaps
        The base method's maps of the whole image, which say what layers there are.
    make_one : callable
        From a question to the base method's maps.

    Raises
    ------
    MethodError
        When windows do not fit into the image.
    """
    options, size = recipe.options, tuple(question.tensor.shape[2:])
    if len(question.tensor) > 1:
        raise MethodError(f"{recipe.method.name} explains one image at a time, not slices.")
    if options["window"] is not None and options["window"] > min(size):
        raise MethodError(f"A window of {options['window']} does not fit into the image of {size}.")
    windows = sess_windows(
        size, **{name: options[name] for name in ("scales", "growth", "window", "step")}
    )
    made.captured.check_whole()
    targets = made.captured.targets
    worth = _worth(question, windows, targets)
    maps: list[Maps] = []
    for t, target in enumerate(targets):
        chosen, weights = sess_weights(worth[t], options["discard"])
        fusions = {i: Fusion(size, options["pool"], options["threshold"]) for i in made.maps[t]}
        weight_of = dict(zip(chosen, weights, strict=True))
        for i, patch in enumerate(patches(question.tensor[0], windows)):
            question.progress("windows", t * len(windows) + i, len(targets) * len(windows))
            if i in weight_of:
                one = make_one(_about(question, patch[None], target))
                one.captured.check_whole()
                for index in fusions.keys() & one.maps[0].keys():
                    fusions[index].add(one.maps[0][index], windows[i], weight_of[i])
        maps.append({i: f.result(smooth=options["smooth"]) for i, f in fusions.items()})
    return AttributionMaps(made.captured, maps)


def _about(question: AttributionRequest, patch: torch.Tensor, target: Target) -> AttributionRequest:
    progress = question.progress

    def inside(stage: str, done: int, total: int) -> None:
        # Lets the caller cancel within a window, without another bar.
        progress("windows", 0, 0)

    return replace(
        question,
        tensor=patch,
        aim=lambda output: [target],
        reader=question.reader.for_input(tuple(patch.shape)),
        progress=inside,
    )


def _worth(question: AttributionRequest, windows: list[Window], targets: list[Target]) -> Any:
    """Ask what each target is worth in each window, (T, W)."""
    worth = np.zeros((len(targets), len(windows)))
    with question.forward.evaluating(tuple(question.tensor.shape)):
        for i, patch in enumerate(patches(question.tensor[0], windows)):
            run_callback(question.progress, "windows", i, len(windows))
            output = question.forward(patch[None])
            for t, target in enumerate(targets):
                worth[t, i] = float(target.value(output)[0])
    return worth
