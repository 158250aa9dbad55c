"""Maps that combine those of another method: of all layers, or of windows of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from camanim.attribution.map_settings import AttributionMaps, FloatMap, Maps, MapSettings
from camanim.cam_methods import find_method
from camanim.cam_methods.meta import Fusion, Window, patches, refine, sess_weights, sess_windows
from camanim.errors import MethodError
from camanim.execution.request import AttributionRequest
from camanim.layer_info import Status
from camanim.model_state import run_callback
from camanim.targets import Target


def base_settings(settings: MapSettings) -> MapSettings:
    """Return the settings of the maps that are combined.

    Raises
    ------
    MethodError
        When there is no such method, or it combines maps as well.
    """
    base = find_method(settings.options["base"])
    if base.meta:
        raise MethodError(
            f"{base.name} combines maps of another method: use a base such as GradCAM."
        )
    return replace(settings, method=base, options=base.checked({}))


def refined(attribution: AttributionMaps, request: AttributionRequest) -> AttributionMaps:
    """Multiply each layer's map with those of all later ones.

    Parameters
    ----------
    attribution : AttributionMaps
    request : AttributionRequest
        The request of these maps.

    Raises
    ------
    Cancelled
        When no layer has the maps of all later ones.
    """
    size, layer_calls = tuple(request.tensor.shape[2:]), []
    captured = attribution.captured
    for maps, infos in zip(attribution.maps, captured.layer_calls, strict=True):
        last = max((info.index for info in infos if info.status == Status.CANCELLED), default=-1)
        for index in [index for index in maps if index < last]:
            del maps[index]
        layer_calls.append(
            [
                info.with_status(Status.CANCELLED)
                if info.index < last and info.status == Status.OK
                else info
                for info in infos
            ]
        )
        order = sorted(maps)
        empty = [info.label for info in infos if info.index in order and not maps[info.index].any()]
        if empty:
            request.note(f"Left out of the products, as their maps are 0: {', '.join(empty)}.")
        products = _products([maps[i] for i in order], size, len(request.tensor))
        maps.update(zip(reversed(order), products, strict=True))
    captured = replace(captured, layer_calls=layer_calls)
    if not any(attribution.maps):
        captured.check_complete()
    return AttributionMaps(captured, attribution.maps)


def _products(maps: list[FloatMap], size: tuple[int, ...], images: int) -> Iterator[FloatMap]:
    if images == 1:
        yield from refine(maps, size)
        return
    each = [refine([raw[b] for raw in maps], size) for b in range(images)]
    for image_maps in zip(*each, strict=True):
        yield np.stack(image_maps)


def windowed(
    settings: MapSettings,
    request: AttributionRequest,
    attribution: AttributionMaps,
    compute: Callable[[AttributionRequest], AttributionMaps],
) -> AttributionMaps:
    """Combine the maps of windows that slide over the image.

    Parameters
    ----------
    settings : MapSettings
        Of the method that combines them.
    request : AttributionRequest
        Of one image.
    attribution : AttributionMaps
        The base method's maps of the whole image, which define the layers.
    compute : callable
        From a request to the base method's maps.

    Raises
    ------
    MethodError
        When windows do not fit into the image.
    """
    options, size = settings.options, tuple(request.tensor.shape[2:])
    if len(request.tensor) > 1:
        raise MethodError(f"{settings.method.name} explains one image at a time, not slices.")
    if options["window"] is not None and options["window"] > min(size):
        raise MethodError(f"A window of {options['window']} does not fit into the image of {size}.")
    windows = sess_windows(
        size, **{name: options[name] for name in ("scales", "growth", "window", "step")}
    )
    attribution.captured.check_complete()
    targets = attribution.captured.targets
    values = _values_in_windows(request, windows, targets)
    maps: list[Maps] = []
    for t, target in enumerate(targets):
        chosen, weights = sess_weights(values[t], options["discard"])
        fusions = {
            i: Fusion(size, options["pool"], options["threshold"]) for i in attribution.maps[t]
        }
        weight_of = dict(zip(chosen, weights, strict=True))
        for i, patch in enumerate(patches(request.tensor[0], windows)):
            request.progress("windows", t * len(windows) + i, len(targets) * len(windows))
            if i in weight_of:
                window_maps = compute(_request_for_patch(request, patch[None], target))
                window_maps.captured.check_complete()
                for index in fusions.keys() & window_maps.maps[0].keys():
                    fusions[index].add(window_maps.maps[0][index], windows[i], weight_of[i])
        maps.append({i: f.result(smooth=options["smooth"]) for i, f in fusions.items()})
    return AttributionMaps(attribution.captured, maps)


def _request_for_patch(
    request: AttributionRequest, patch: torch.Tensor, target: Target
) -> AttributionRequest:
    progress = request.progress

    def report(stage: str, done: int, total: int) -> None:
        # Lets the caller cancel within a window, without another bar.
        progress("windows", 0, 0)

    return replace(
        request.with_input(patch), target_function=lambda output: [target], progress=report
    )


def _values_in_windows(
    request: AttributionRequest, windows: list[Window], targets: list[Target]
) -> npt.NDArray[np.float64]:
    """Return each target's value in each window, (T, W)."""
    values = np.zeros((len(targets), len(windows)))
    with request.forward.evaluating(tuple(request.tensor.shape)):
        for i, patch in enumerate(patches(request.tensor[0], windows)):
            run_callback(request.progress, "windows", i, len(windows))
            output = request.forward(patch[None])
            for t, target in enumerate(targets):
                values[t, i] = float(target.value(output)[0])
    return values
