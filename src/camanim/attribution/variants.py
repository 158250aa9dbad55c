"""The same question put to several inputs: the slices of a volume, or altered copies of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from camanim.attribution import AttributionMaps, Maps
from camanim.errors import OutOfMemory, TargetError
from camanim.execution.outputs import joined
from camanim.layer_info import LayerInfo, Status
from camanim.targets import Contrast, Counterfactual, Detection, Segmentation

MakeOne = Callable[[torch.Tensor, Any], AttributionMaps]

#: Factors on the input, for the image as it is and for its mirror image; as in grad-cam.
FACTORS = (0.9, 1.0, 1.1)
#: Status of a layer that not all of the images go through.
ELSEWHERE = "another course"


def augmented(make_one: MakeOne, tensor: torch.Tensor, aim: Any) -> AttributionMaps:
    """Average the raw maps of six variants of the input, mirrored back.

    grad-cam averages maps that were min-max scaled each; here a variant counts by its evidence.

    Parameters
    ----------
    make_one : callable
        From an input and an aim to its maps.
    tensor : torch.Tensor
        (B, C, *S)
    aim : callable
        The same targets for all variants.
    """
    parts: list[AttributionMaps] = []
    for flip in (False, True):
        for factor in FACTORS:
            variant = (tensor.flip(-1) if flip else tensor) * factor
            one = make_one(variant, partial(_mirrored, aim) if flip else aim)
            one.captured.check_whole()
            if flip:
                back = [{i: np.flip(m, -1) for i, m in own.items()} for own in one.maps]
                one = AttributionMaps(one.captured, back)
            # First what is shown: the image itself.
            parts.insert(0 if not flip and factor == 1.0 else len(parts), one)
    first = parts[0].captured
    maps: list[Maps] = [
        {i: np.mean([part.maps[t][i] for part in parts], 0) for i in _common(parts, t)}
        for t in range(len(first.targets))
    ]
    return AttributionMaps(replace(first, layer_calls=_traces(parts, maps)), maps)


def _mirrored(aim: Any, output: Any) -> list[Any]:
    """Mirror what targets know of places."""
    return [_mirrored_target(target) for target in aim(output)]


def _mirrored_target(target: Any) -> Any:
    if isinstance(target, Counterfactual):
        return Counterfactual(_mirrored_target(target.target))
    if isinstance(target, Contrast):
        first, second = (_mirrored_target(side) for side in (target.first, target.second))
        return replace(target, first=first, second=second)
    if isinstance(target, Segmentation) and target.mask is not None:
        return replace(target, mask=torch.as_tensor(target.mask).flip(-1))
    if isinstance(target, Detection):
        raise TargetError("A detection has a place of its own: explain it without augmentation.")
    return target


def in_chunks(
    make_one: MakeOne,
    tensor: torch.Tensor,
    aim: Any,
    size: int,
    note: Callable[[str], None],
) -> AttributionMaps:
    """Make the maps of many images, some at a time, and stack them along z.

    Parameters
    ----------
    make_one, tensor, aim
        As for `augmented`.
    size : int
        Images at a time; halved when memory runs out.
    note : callable
        Told when it was.
    """
    parts: list[AttributionMaps] = []
    start = 0
    while start < len(tensor):
        if parts:
            # A map is of all slices.
            parts[-1].captured.check_whole()
        try:
            parts.append(make_one(tensor[start : start + size], aim))
        except OutOfMemory:
            if size == 1:
                raise
            size = max(1, size // 2)
            note(f"Memory ran out: {size} slices at a time from there on.")
            continue
        start += size
    first = parts[0].captured
    maps = [
        {
            i: np.concatenate([_deep(part.maps[t][i], tensor.ndim - 2) for part in parts])
            for i in _common(parts, t)
        }
        for t in range(len(first.targets))
    ]
    gradients = [
        torch.cat(own) for own in zip(*(p.captured.input_gradients for p in parts), strict=False)
    ]
    captured = replace(
        first,
        layer_calls=_traces(parts, maps),
        input_gradients=gradients,
        output=joined([part.captured.output for part in parts]),
        cancelled=parts[-1].captured.cancelled,
    )
    if not any(maps):
        captured.check_whole()
    return AttributionMaps(captured, maps)


def _common(parts: list[AttributionMaps], t: int) -> list[int]:
    """List the layers that have a map in every part."""
    indices = set.intersection(*(set(part.maps[t]) for part in parts))
    return sorted(i for i in indices if len({_call(part, t, i) for part in parts}) == 1)


def _call(part: AttributionMaps, t: int, index: int) -> tuple[str, int] | None:
    """Which call it is; a network that decides by its input may make others for another."""
    trace = part.captured.layer_calls[t]
    return (trace[index].name, trace[index].call) if index < len(trace) else None


def _traces(parts: list[AttributionMaps], maps: list[Maps]) -> list[list[LayerInfo]]:
    """Take the first part's layer_calls; a layer that lost its map gets the status that says why."""
    layer_calls = [list(trace) for trace in parts[0].captured.layer_calls]
    for t, trace in enumerate(layer_calls):
        for i, layer in enumerate(trace):
            if layer.status == Status.OK and i not in maps[t]:
                own = _call(parts[0], t, i)
                found = [
                    part.captured.layer_calls[t][i].status
                    if _call(part, t, i) == own
                    else ELSEWHERE
                    for part in parts
                ]
                lost = [status for status in found if status != Status.OK]
                trace[i] = layer.with_status(lost[0] if lost else ELSEWHERE)
    return layer_calls


def _deep(raw: Any, ndim: int) -> Any:
    """Give the map of a single image its z axis."""
    return raw[None] if raw.ndim == ndim else raw
