"""Compute results for an image and a network: preprocessing, maps, plain data."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from camanim._version import __version__
from camanim.cam_methods import Method, find_method
from camanim.errors import LayerError, OutOfMemory, ScoreError, TargetError
from camanim.findings import check_has_input
from camanim.images import (
    Geometry,
    Prepared,
    Region,
    SourceImage,
    SourcePlace,
    as_array,
    take_region,
)
from camanim.layer_info import Status
from camanim.layer_selection import Layers, selector
from camanim.models.base import Model, unwrap
from camanim.models.domain import input_notes
from camanim.models.output_kind import gradient_note, output_kind
from camanim.precision import as_float64
from camanim.progress import Progress, silent
from camanim.result import Result
from camanim.settings import Settings, checked_settings

if TYPE_CHECKING:
    import torch
    from torch import nn

    from camanim.attribution import AttributionMaps, MapSettings
    from camanim.execution.forward import Forward
    from camanim.execution.request import AttributionRequest, TargetFunction
    from camanim.targets import Kind, Target

T = TypeVar("T")


@dataclass(frozen=True)
class _Input:
    """The input of a network, and the provenance of a result for it."""

    prepared: Prepared
    provenance: dict[str, Any]
    placement: Geometry | None = None
    source: SourcePlace | None = None


def explain(
    model: Model | nn.Module,
    image: Any,
    targets: Sequence[Any],
    *,
    method: Any = "GradCAM",
    **settings: Any,
) -> list[Result]:
    """Return the maps of all layers for each of several targets; see `camanim.animate_targets`."""
    model = _as_model(model)
    return _run_for(model, image, targets, method, settings).results(model)


def predict_target(
    model: Model | nn.Module,
    image: Any,
    target: Any = None,
    *,
    method: Any = "GradCAM",
    **settings: Any,
) -> Result:
    """Return a result without maps, by one forward pass: the input, the target and its probability.

    `recompute` adds the maps. Parameters and errors are those of `camanim.animate`.
    """
    model = _as_model(model)
    run = _run_for(model, image, [target], method, settings)
    run.without_maps = True
    return run.results(model)[0]


def _as_model(model: Model | nn.Module) -> Model:
    return model if isinstance(model, Model) else Model(model)


def _run_for(
    model: Model, image: Any, targets: Sequence[Any], method: Any, settings: dict[str, Any]
) -> _Run:
    """Return the run of an image for targets that are not resolved yet."""
    image, checked, source, notes = opened(image, checked_settings(settings))
    region: Region | None = None
    if checked.box is not None:
        region = take_region(image, checked.box, 3 if checked.slices else model.dims)
        image = region.pixels
    elif source is not None or hasattr(image, "dask"):
        # Computed once, instead of at each access.
        image = as_array(image)
    if not targets:
        raise TargetError("There is no target: pass at least one, or None for the likeliest class.")

    def prepare(on_device: Model) -> _Input:
        prepared = on_device.prepare(
            image, fit=checked.fit, window=checked.window, slices=checked.slices
        )
        notes = input_notes(on_device, image, slices=checked.slices)
        prepared = replace(prepared, notes=(*prepared.notes, *notes))
        provenance = network_record(on_device, prepared) | _image_record(image)
        placement = None if region is None else region.placement
        return _Input(prepared, provenance | checked.record(), placement, source)

    notes += [] if region is None else region.notes
    return _Run(find_method(method), list(targets), checked, prepare, notes)


def opened(image: Any, settings: Settings) -> tuple[Any, Settings, SourcePlace | None, list[str]]:
    """Return the pixels of an image, and what a `SourceImage` says about them.

    Parameters
    ----------
    image : array-like
        Anything but a `SourceImage` is returned unchanged.
    settings : Settings

    Returns
    -------
    pixels : array-like
    settings : Settings
        With the window of the file, unless another one is set.
    source : SourcePlace or None
    notes : list of str
        Those of the file, without its name or anything else that may tell a patient.
    """
    if not isinstance(image, SourceImage):
        return image, settings, None, []
    notes = list(image.notes)
    if settings.window is None and image.window is not None:
        settings = replace(settings, window=image.window)
        low, high = image.window
        notes.append(f"The window from {low:g} to {high:g} is that of the {image.kind} file.")
    return image.pixels, settings, image.place, notes


def explain_prepared(
    model: Model,
    prepared: Prepared,
    target_function: TargetFunction,
    method: Method,
    settings: Settings,
    provenance: dict[str, Any],
) -> Result:
    """Return the result for a prepared image, as one window of a larger image.

    Parameters
    ----------
    model : Model
    prepared : Prepared
    target_function : callable
        From the network's output to a list of one resolved target.
    method : Method
    settings : Settings
        Their `fit`, `box` and `window` have no effect, for the image is prepared already.
    provenance : dict
        Of the result.

    Raises
    ------
    CamError
        As of `animate`.
    """

    def prepare(on_device: Model) -> _Input:
        tensor = prepared.tensor.to(on_device.device, on_device.dtype)
        return _Input(replace(prepared, tensor=tensor), provenance)

    return _Run(method, target_function, settings, prepare).results(model)[0]


def with_request(
    model: Model | nn.Module,
    image: Any,
    function: Callable[[Model, Prepared, AttributionRequest, MapSettings], T],
    *,
    method: Any = "GradCAM",
    target: Any = None,
    **settings: Any,
) -> T:
    """Prepare a run as `explain` does, and call a function instead of computing the maps.

    No other thread uses the network meanwhile.

    Parameters
    ----------
    model, image, method, target, **settings
        As for `camanim.animate`.
    function : callable
        From the model on its device, the prepared image, the request and the settings of maps.

    Returns
    -------
    object
        What the function returns.

    Raises
    ------
    CamError
        As of `camanim.animate`.
    """
    from camanim.exclusive import exclusively

    model = _as_model(model)
    run = _run_for(model, image, [target], method, settings)
    device = run.settings.device
    on_device = model if device is None else model.to(device)

    def call() -> T:
        given, request, map_settings = run.prepared(on_device)
        return function(on_device, given.prepared, request, map_settings)

    return exclusively(unwrap(on_device.net), call, partial(run.settings.progress, "wait", 0, 0))


def recompute(
    result: Result,
    *,
    net: nn.Module | None = None,
    targets: Sequence[Any] | TargetFunction | None = None,
    layers: Layers | None = None,
    method: str | None = None,
    seed: int | None = None,
    progress: Progress = silent,
) -> list[Result]:
    """Compute a result again, for another network, other targets or by another method.

    The network's input and the settings are those of `result`; nothing is prepared a second time, and
    no weights are hashed.

    Parameters
    ----------
    result : Result
        Of an image or of a whole volume, computed by `animate`.
    net : torch.nn.Module, optional
        Replaces the result's network; takes the same inputs and is on the same device.
    targets : sequence or callable, optional
        Each as for `animate`; or a function from the network's output to resolved targets. By default
        the target of `result`.
    layers : optional
        As for `animate`, by default those of `result`.
    method : str, optional
        Replaces the method; with the defaults of its options, and without eigen smoothing.
    seed : int, optional
        Replaces the seed of random methods.
    progress : Progress

    Returns
    -------
    list of Result
        One for each target.

    Raises
    ------
    ScoreError
        If `result` is a plane of another one, or was not computed by `animate`.
    CamError
        As of `animate_targets`.
    """
    check_has_input(result)
    if result.extremes is not None:
        raise ScoreError("The result is one plane of a volume: pass that of the whole volume.")
    if result.computed_with is None:
        raise ScoreError(
            "Method and settings of these maps are unknown: compute them with camanim.animate."
        )
    computed_by, settings = result.computed_with
    settings = replace(settings, progress=progress)
    if method is not None:
        computed_by = find_method(method)
        settings = replace(settings, options={}, eigen_smooth=False)
    if seed is not None:
        settings = replace(settings, seed=seed)
    if layers is not None:
        settings = replace(settings, layers=layers)
    provenance = dict(result.provenance)
    model = result.model
    if net is not None:
        model = copy.copy(model)
        model.net = net
        for key in ("weights", "weights sha256"):
            provenance.pop(key, None)

    def prepare(on_device: Model) -> _Input:
        tensor = result.tensor.to(on_device.device, on_device.dtype)
        prepared = Prepared(tensor, result.geometry, result.image)
        return _Input(prepared, provenance, result.placement, result.source)

    requested = (lambda output: [result.target]) if targets is None else targets
    return _Run(computed_by, requested, settings, prepare).results(model)


@dataclass
class _Run:
    """One computation: a method and settings, for an input and targets."""

    method: Method
    targets: Sequence[Any] | TargetFunction
    settings: Settings
    prepare: Callable[[Model], _Input]
    notes: list[str] = field(default_factory=list)
    without_maps: bool = False

    def results(self, model: Model) -> list[Result]:
        """Compute while no other thread uses the network."""
        from camanim.exclusive import exclusively

        # Lets the caller cancel while another thread uses the network.
        waiting = partial(self.settings.progress, "wait", 0, 0)
        return exclusively(unwrap(model.net), partial(self._results, model), waiting)

    def _results(self, model: Model) -> list[Result]:
        """Compute on the requested device; if its memory runs out, on the CPU."""
        device = model.device if self.settings.device is None else self.settings.device
        try:
            on_device = model if self.settings.device is None else model.to(device)
            return self._results_on(on_device)
        except OutOfMemory:
            if str(device).startswith("cpu"):
                raise
            self.notes.append("The device's memory ran out: computed on the CPU.")
            return self._results_on(model.to("cpu"))

    def _results_on(self, model: Model) -> list[Result]:
        from camanim.attribution import attribute

        given, request, map_settings = self.prepared(model)
        if self.without_maps:
            return self._predicted(model, given, request)
        attribution = attribute(map_settings, request)
        # Without any map, the first target's result is the error that says why.
        return [
            self._result(model, given, attribution, t)
            for t, maps in enumerate(attribution.maps)
            if t == 0 or maps
        ]

    def prepared(self, model: Model) -> tuple[_Input, AttributionRequest, MapSettings]:
        """Return the input of a model, and what is to be computed for it."""
        from camanim.attribution import MapSettings

        settings = self.settings
        options = self.method.checked(settings.options)
        if settings.eigen_smooth:
            self.method.check_smoothable()
        given = self.prepare(model)
        self.notes += given.prepared.notes
        request = self._request(model, given.prepared.tensor, options)
        map_settings = MapSettings(
            self.method,
            options,
            settings.eigen_smooth,
            settings.seed,
            slices=settings.slices,
            augment=settings.augment,
        )
        return given, request, map_settings

    def _predicted(self, model: Model, given: _Input, request: AttributionRequest) -> list[Result]:
        """Return the results without maps."""
        from camanim.execution.outputs import check_count

        with request.forward.evaluating(tuple(request.tensor.shape)):
            output = request.forward(request.tensor)
            check_count(output, len(request.tensor))
            targets = request.target_function(output)
        return [self._plain_result(model, given, target, output) for target in targets]

    def _request(
        self, model: Model, tensor: torch.Tensor, options: Mapping[str, Any]
    ) -> AttributionRequest:
        from camanim.execution.request import AttributionRequest
        from camanim.layout.reader import LayoutReader, check_names

        settings = self.settings
        forward = model.forward(settings.precision)
        select = selector(settings.layers, forward.net)
        check_names(settings.layouts or {}, forward.net)
        return AttributionRequest(
            forward=forward,
            tensor=tensor,
            target_function=self._target_function(model, forward, tensor, options),
            select=select,
            reader=LayoutReader(tuple(tensor.shape), settings.layouts, show_1d=settings.show_1d),
            progress=settings.progress,
            note=self.notes.append,
            batch_size=self._batch_size(model, tensor),
        )

    def _batch_size(self, model: Model, tensor: torch.Tensor) -> int:
        """Return how many images to pass at once; raise `OutOfMemory` where not even one fits."""
        from camanim.models.fitting import fitting_images

        requested = self.settings.batch_size
        images = min(requested, len(tensor)) if self.settings.slices else 1
        if self.without_maps:
            # All slices at once, since targets are resolved on the whole output.
            count = len(tensor)
            return fitting_images(model, tensor, count, gradients=False, at_least=count)
        size = fitting_images(model, tensor, images, gradients=True)
        if size == images:
            # As many as requested, of other images.
            size = requested
        if self.method.needs_reevaluation:
            size = fitting_images(model, tensor, size, gradients=False)
        if size < requested:
            self.notes.append(f"Batches of {size}: more images do not fit into memory.")
        return size

    def _target_function(
        self, model: Model, forward: Forward, tensor: torch.Tensor, options: Mapping[str, Any]
    ) -> TargetFunction:
        from camanim.targets import resolve_all

        requests, change = self.targets, self.method.target
        if callable(requests):
            return requests
        # Settled once, on the first output: later ones may be of noisy copies or parts of the image.
        kinds: list[Kind] = []

        def resolve_requests(output: Any) -> list[Target]:
            if not kinds:
                kind, note = output_kind(forward, tensor, output, model.outputs)
                kinds.append(kind)
                self.notes.extend([note] if note else [])
            return resolve_all(
                requests,
                output,
                model.classes,
                kinds[0],
                change=None if change is None else partial(change, **options),
                counterfactual=self.settings.counterfactual,
            )

        return resolve_requests

    def _result(self, model: Model, given: _Input, attribution: AttributionMaps, t: int) -> Result:
        from camanim.attribution import selected_maps

        captured = attribution.captured
        target, layer_calls = captured.targets[t], captured.layer_calls[t]
        layers, maps = selected_maps(attribution, t)
        gradients = captured.input_gradients
        input_gradient = gradients[t].cpu().float() if t < len(gradients) else None
        if not layers:
            statuses = [info.status for info in layer_calls]
            raise LayerError(_why_none(self.method, statuses, input_gradient))
        notes = [*self.notes, *filter(None, [gradient_note(target, input_gradient)])]
        return replace(
            self._plain_result(model, given, target, captured.output),
            maps=maps,
            layers=layers,
            layer_calls=layer_calls,
            input_gradient=input_gradient,
            guided=attribution.guided[t] if t < len(attribution.guided) else None,
            forward_seconds=captured.forward_seconds / len(given.prepared.tensor),
            notes=list(dict.fromkeys(notes)),
        )

    def _plain_result(self, model: Model, given: _Input, target: Target, output: Any) -> Result:
        """Return the result of a target without its maps."""
        prepared = given.prepared
        values = target.value(output)
        return Result(
            maps=[],
            layers=[],
            layer_calls=[],
            method=self.method.name,
            target=target,
            probability=float(as_float64(values).mean()),
            image=prepared.image,
            geometry=prepared.geometry,
            tensor=prepared.tensor.cpu().float(),
            model=model,
            provenance=given.provenance | {"method": self.method.name, "target": target.describe()},
            notes=list(dict.fromkeys(self.notes)),
            placement=given.placement,
            source=given.source,
            # Without the caller's callback, and for the device of the network at that time.
            computed_with=(self.method, replace(self.settings, progress=silent, device=None)),
        )


def network_record(model: Model, prepared: Prepared) -> dict[str, Any]:
    """Return the versions, the network and the input that a result depends on."""
    import torch
    import torchvision

    return {
        "camanim": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "model": model.shown_name,
        **({"weights": "random"} if model.random_weights else {}),
        "weights sha256": model.weights_hash(),
        "input shape": list(prepared.tensor.shape),
        "device": str(prepared.tensor.device),
    }


def _image_record(image: Any) -> dict[str, Any]:
    array = np.ascontiguousarray(image)
    return {
        "image sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        "image shape": list(array.shape),
        "image dtype": str(array.dtype),
    }


def _why_none(method: Method, statuses: list[str], input_gradient: torch.Tensor | None) -> str:
    reasons = sorted({status for status in statuses if status != Status.NOT_SELECTED})
    if not reasons:
        return 'No layer that ran matches the selection: use "unique", "all" or names.'
    if Status.OFF_PATH in reasons and input_gradient is not None and not input_gradient.any():
        return (
            f"None of the selected layers has a map ({', '.join(reasons)}), because no gradient leads "
            "from the target to the image: let the forward method run without torch.no_grad, detach and "
            "numpy, or use a method without gradients, such as EigenCAM."
        )
    caveat = f" {method.caveat}" if method.caveat else ""
    return f"None of the selected layers has a map ({', '.join(reasons)}): select others.{caveat}"
