"""Maps of several inputs together: the slices of a volume, or altered copies of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from camanim.attribution.map_settings import AttributionMaps, Maps
from camanim.errors import OutOfMemory, TargetError
from camanim.execution.outputs import joined
from camanim.execution.request import AttributionRequest
from camanim.layer_info import LayerInfo, Status
from camanim.targets import Contrast, Counterfactual, Detection, Segmentation

ComputeMaps = Callable[[AttributionRequest], AttributionMaps]

#: Factors on the input, for the image as it is and for its mirror image; as in grad-cam.
FACTORS = (0.9, 1.0, 1.1)


def augmented(compute: ComputeMaps, request: AttributionRequest) -> AttributionMaps:
    """Average the raw maps of six variants of the input, mirrored back.

    grad-cam averages maps that were min-max scaled each; here a variant counts by its evidence.

    Parameters
    ----------
    compute : callable
        From a request to its maps.
    request : AttributionRequest
        Its target function returns the same targets for all variants.
    """
    tensor, function = request.tensor, request.target_function
    parts: list[AttributionMaps] = []
    for flip in (False, True):
        for factor in FACTORS:
            variant = (tensor.flip(-1) if flip else tensor) * factor
            varied = request.with_input(variant)
            if flip:
                varied = replace(varied, target_function=partial(_mirrored, function))
            part = compute(varied)
            part.captured.check_complete()
            if flip:
                maps = [{i: np.flip(m, -1) for i, m in of_one.items()} for of_one in part.maps]
                part = AttributionMaps(part.captured, maps)
            # The image as it is comes first: its targets and layers are those of the result.
            parts.insert(0 if not flip and factor == 1.0 else len(parts), part)
    first = parts[0].captured
    means: list[Maps] = [
        {i: np.mean([part.maps[t][i] for part in parts], 0) for i in _common(parts, t)}
        for t in range(len(first.targets))
    ]
    return AttributionMaps(replace(first, layer_calls=_layer_calls(parts, means)), means)


def _mirrored(target_function: Any, output: Any) -> list[Any]:
    """Mirror the places in targets."""
    return [_mirrored_target(target) for target in target_function(output)]


def _mirrored_target(target: Any) -> Any:
    if isinstance(target, Counterfactual):
        return Counterfactual(_mirrored_target(target.target))
    if isinstance(target, Contrast):
        first, second = (_mirrored_target(side) for side in (target.first, target.second))
        return replace(target, first=first, second=second)
    if isinstance(target, Segmentation) and target.mask is not None:
        return replace(target, mask=torch.as_tensor(target.mask).flip(-1))
    if isinstance(target, Detection):
        raise TargetError(
            "A detection lies at a place in the image: explain it without augmentation."
        )
    return target


def in_chunks(compute: ComputeMaps, request: AttributionRequest) -> AttributionMaps:
    """Return the maps of many images, `batch_size` at a time, stacked along z.

    The number is halved when memory runs out, with a note.

    Parameters
    ----------
    compute, request
        As for `augmented`.
    """
    tensor, size = request.tensor, request.batch_size
    parts: list[AttributionMaps] = []
    start = 0
    while start < len(tensor):
        if parts:
            parts[-1].captured.check_complete()
        try:
            parts.append(compute(request.with_input(tensor[start : start + size])))
        except OutOfMemory:
            if size == 1:
                raise
            size = max(1, size // 2)
            request.note(f"Memory ran out: {size} slices at a time from there on.")
            continue
        start += size
    first = parts[0].captured
    maps = [
        {
            i: np.concatenate([_with_depth(part.maps[t][i], tensor.ndim - 2) for part in parts])
            for i in _common(parts, t)
        }
        for t in range(len(first.targets))
    ]
    gradients = [
        torch.cat(of_target)
        for of_target in zip(*(p.captured.input_gradients for p in parts), strict=False)
    ]
    captured = replace(
        first,
        layer_calls=_layer_calls(parts, maps),
        input_gradients=gradients,
        output=joined([part.captured.output for part in parts]),
        cancelled=parts[-1].captured.cancelled,
    )
    if not any(maps):
        captured.check_complete()
    return AttributionMaps(captured, maps)


def _common(parts: list[AttributionMaps], t: int) -> list[int]:
    """Return the layers that have a map in every part."""
    indices = set.intersection(*(set(part.maps[t]) for part in parts))
    return sorted(i for i in indices if len({_call(part, t, i) for part in parts}) == 1)


def _call(part: AttributionMaps, t: int, index: int) -> tuple[str, int] | None:
    """Return the name and number of a call: control flow may make them differ between inputs."""
    infos = part.captured.layer_calls[t]
    return (infos[index].name, infos[index].call) if index < len(infos) else None


def _layer_calls(parts: list[AttributionMaps], maps: list[Maps]) -> list[list[LayerInfo]]:
    """Return the first part's layer calls; a layer that lost its map gets another part's status."""
    layer_calls = [list(infos) for infos in parts[0].captured.layer_calls]
    for t, infos in enumerate(layer_calls):
        for i, layer in enumerate(infos):
            if layer.status == Status.OK and i not in maps[t]:
                call = _call(parts[0], t, i)
                statuses = [
                    part.captured.layer_calls[t][i].status
                    if _call(part, t, i) == call
                    else Status.OTHER_PATH
                    for part in parts
                ]
                lost = [status for status in statuses if status != Status.OK]
                infos[i] = layer.with_status(lost[0] if lost else Status.OTHER_PATH)
    return layer_calls


def _with_depth(raw: Any, ndim: int) -> Any:
    """Add a z axis to the map of a single image."""
    return raw[None] if raw.ndim == ndim else raw
