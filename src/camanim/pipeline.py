"""From an image and a network to results: preprocessing, maps, and plain data."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from camanim._version import __version__
from camanim.cam_methods import Method, find_method
from camanim.errors import LayerError, ModelError, OutOfMemory, ScoreError, TargetError
from camanim.images import Prepared, as_array
from camanim.layer_info import Status
from camanim.layer_selection import Layers, Predicate, selector
from camanim.models.base import Model
from camanim.precision import as_float64
from camanim.progress import Progress, silent
from camanim.result import Result
from camanim.settings import Settings, checked_settings

if TYPE_CHECKING:
    import torch
    from torch import nn

    from camanim.attribution import AttributionMaps
    from camanim.execution.request import AttributionRequest, TargetFunction

#: The network's input, and the record of where it comes from.
_Ready = tuple[Prepared, dict[str, Any]]


def explain(
    model: Model | nn.Module,
    image: Any,
    targets: Sequence[Any],
    *,
    method: Any = "GradCAM",
    **settings: Any,
) -> list[Result]:
    """Return the maps of all layers for each of several targets; see `camanim.animate_targets`."""
    if not isinstance(model, Model):
        model = Model(model)
    if hasattr(image, "dask"):
        # Computed once, not each time somebody looks at it.
        image = as_array(image)
    asked = checked_settings(settings)
    if not targets:
        raise TargetError("There is no target: pass one at least, None for the likeliest class.")

    def prepare(there: Model) -> _Ready:
        prepared = there.prepare(image, fit=asked.fit, window=asked.window, slices=asked.slices)
        return prepared, _provenance(there, image, prepared) | asked.record()

    return _Run(find_method(method), list(targets), asked).answer(model, prepare)


def recompute(
    result: Result,
    *,
    net: nn.Module | None = None,
    targets: Sequence[Any] | TargetFunction | None = None,
    layers: Layers | None = None,
    progress: Progress = silent,
) -> list[Result]:
    """Ask the same once more, of another network or about other targets.

    The network's input, the method and the settings are those of `result`; nothing is prepared a
    second time, and no weights are hashed.

    Parameters
    ----------
    result : Result
        Of an image or of a whole volume, made by `animate`.
    net : torch.nn.Module, optional
        In place of the result's network, with the same inputs and on the same device.
    targets : sequence or callable, optional
        Each as for `animate`; or a function from the network's output to targets, which are then taken
        as they are. By default the very target of `result`.
    layers : optional
        As for `animate`, by default what `result` was asked for.
    progress : Progress

    Returns
    -------
    list of Result
        As of `explain`.

    Raises
    ------
    ScoreError
        When `result` is a plane of another one, or was put together by hand.
    CamError
        As of `animate_targets`.
    """
    if result.extremes is not None:
        raise ScoreError("A volume is looked at as a whole: check that, not one of its planes.")
    if result.computed_with is None:
        raise ScoreError("Nobody knows how these maps were made: make them with camanim.animate.")
    method, settings = result.computed_with
    settings = replace(settings, progress=progress)
    if layers is not None:
        settings = replace(settings, layers=layers)
    record = dict(result.provenance)
    model = result.model
    if net is not None:
        model = copy.copy(model)
        model.net = net
        record.pop("weights sha256", None)

    def prepare(there: Model) -> _Ready:
        tensor = result.tensor.to(there.device, there.dtype)
        return Prepared(tensor, result.geometry, result.image), record

    aim = (lambda output: [result.target]) if targets is None else targets
    return _Run(method, aim if callable(aim) else list(aim), settings).answer(model, prepare)


@dataclass
class _Run:
    """One question to one network."""

    method: Method
    targets: list[Any] | TargetFunction
    settings: Settings
    notes: list[str] = field(default_factory=list)

    def answer(self, model: Model, prepare: Callable[[Model], _Ready]) -> list[Result]:
        """Answer it where it is to be computed; where memory runs out, on the CPU."""
        where = model.device if self.settings.device is None else self.settings.device
        try:
            there = model if self.settings.device is None else model.to(where)
            return self._on(there, prepare)
        except OutOfMemory:
            if str(where).startswith("cpu"):
                raise
            self.notes.append("The device's memory ran out: computed on the CPU.")
            return self._on(model.to("cpu"), prepare)

    def _on(self, model: Model, prepare: Callable[[Model], _Ready]) -> list[Result]:
        options = self.method.checked(self.settings.options)
        if self.settings.eigen_smooth:
            self.method.check_smoothable()
        prepared, record = prepare(model)
        maker = _Maker(self, model, options, prepared.tensor)
        made = maker.make()
        return [
            self._animation(model, prepared, made, t, maker, record)
            for t in range(len(made.captured.targets))
            if t == 0 or made.maps[t]
        ]

    def _animation(
        self,
        model: Model,
        prepared: Prepared,
        made: AttributionMaps,
        t: int,
        maker: _Maker,
        record: dict[str, Any],
    ) -> Result:
        from camanim.attribution import selected_maps

        captured, target = made.captured, made.captured.targets[t]
        trace = captured.layer_calls[t]
        shown, maps = selected_maps(made, t)
        if not shown:
            raise LayerError(_why_none(self.method, [layer.status for layer in trace]))
        gradients = captured.input_gradients
        values = target.value(captured.output)
        return Result(
            maps=maps,
            layers=shown,
            layer_calls=trace,
            method=self.method.name,
            target=target,
            probability=float(as_float64(values).mean()),
            image=prepared.image,
            geometry=prepared.geometry,
            tensor=prepared.tensor.cpu().float(),
            model=model,
            provenance=record | {"method": self.method.name, "target": target.describe()},
            input_gradient=gradients[t].cpu().float() if t < len(gradients) else None,
            guided=maker.guided[t] if t < len(maker.guided) else None,
            notes=list(dict.fromkeys(self.notes)),
            # Without a caller's callback, and for where the network lies by now.
            computed_with=(self.method, replace(self.settings, progress=silent, device=None)),
        )


class _Maker:
    """Makes the maps of one prepared input, whatever variants of it that takes."""

    def __init__(
        self, run: _Run, model: Model, options: dict[str, Any], tensor: torch.Tensor
    ) -> None:
        from camanim.attribution import MapSettings
        from camanim.layout.reader import check_names

        settings = run.settings
        self.run, self.model, self.tensor, self.settings = run, model, tensor, settings
        self.forward = model.forward(settings.precision)
        self.select: Predicate = selector(settings.layers, self.forward.net)
        check_names(settings.layouts or {}, self.forward.net)
        self.recipe = MapSettings(run.method, options, settings.eigen_smooth, settings.seed)
        self.guided: list[torch.Tensor] = []

    def make(self) -> AttributionMaps:
        """Make them."""
        from camanim.attribution import variants
        from camanim.attribution.guided import times_guided

        settings, tensor = self.settings, self.tensor
        if settings.batch_size < 1:
            raise ModelError("The batch size is 1 or more.")
        make_one = self._make_one
        if settings.slices:
            make_one = partial(
                variants.in_chunks, make_one, size=self._at_once, note=self.run.notes.append
            )
        if settings.augment:
            made = variants.augmented(make_one, tensor, self.checked_settings(tensor))
        elif settings.slices:
            made = make_one(tensor, self.checked_settings(tensor))
        else:
            made = make_one(tensor, self._aim)
        if self.run.method.guided == "alone":
            self.guided = [g.cpu().float() for g in made.captured.input_gradients]
        if self.run.method.guided == "times":
            at_once = self._at_once if settings.slices else 1
            self.guided = times_guided(
                made, self.forward, tensor, at_once=at_once, slices=settings.slices
            )
        return made

    @cached_property
    def _at_once(self) -> int:
        """How many images may go through the network at a time."""
        from camanim.execution.control_flow import max_batch

        size, tensor = self.settings.batch_size, self.tensor
        if len(tensor) == 1:
            return size
        with self.forward.evaluating(tuple(tensor.shape)):
            return max_batch(self.forward, tensor, size, self.run.notes.append)

    def checked_settings(self, tensor: torch.Tensor) -> Any:
        """Settle the targets beforehand, over all images at once."""
        targets = self._question(tensor, self._aim).targets()
        return lambda output: targets

    def _aim(self, output: Any) -> list[Any]:
        from camanim.targets import Counterfactual, resolve

        targets = self.run.targets
        if callable(targets):
            return list(targets(output))
        found = [resolve(t, output, self.model.classes, self.model.outputs) for t in targets]
        change = self.run.method.target
        if change is not None:
            found = [change(t, output, **self.recipe.options) for t in found]
        return [Counterfactual(t) for t in found] if self.settings.counterfactual else found

    def _question(self, tensor: torch.Tensor, aim: Any) -> AttributionRequest:
        from camanim.execution.request import AttributionRequest
        from camanim.layout.reader import LayoutReader

        settings = self.settings
        return AttributionRequest(
            forward=self.forward,
            tensor=tensor,
            target_function=aim,
            select=self.select,
            reader=LayoutReader(tuple(tensor.shape), settings.layouts, show_1d=settings.show_1d),
            progress=settings.progress,
            note=self.run.notes.append,
            batch_size=self._at_once,
        )

    def _make_one(self, tensor: torch.Tensor, aim: Any) -> AttributionMaps:
        from camanim.attribution import make_maps

        return make_maps(self.recipe, self._question(tensor, aim))


def _provenance(model: Model, image: Any, prepared: Prepared) -> dict[str, Any]:
    """Note what the result depends on, so that it can be made again."""
    import torch
    import torchvision

    array = np.ascontiguousarray(image)
    return {
        "camanim": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "model": model.name,
        "weights sha256": model.weights_hash(),
        "image sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        "image shape": list(array.shape),
        "image dtype": str(array.dtype),
        "input shape": list(prepared.tensor.shape),
        "device": str(prepared.tensor.device),
    }


def _why_none(method: Method, statuses: list[str]) -> str:
    wanted = sorted({status for status in statuses if status != Status.NOT_SELECTED})
    if not wanted:
        return 'The selection of layers matches no layer that ran: use "unique", "all" or names.'
    caveat = f" {method.caveat}" if method.caveat else ""
    return f"None of the selected layers has a map ({', '.join(wanted)}): select others.{caveat}"
