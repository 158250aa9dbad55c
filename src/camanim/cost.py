"""The cost of a run before it starts: passes of the network, and seconds.

`estimate` runs the network a few times and computes no map. Methods that evaluate other images are
called with functions that count these images instead of predicting them, so that their number is that of
the run, whatever the method is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from camanim import catalogue  # noqa: F401 (registers all kinds of findings)
from camanim.errors import NoMap
from camanim.findings import FindingRequest
from camanim.layer_info import LayerInfo, Status
from camanim.layer_selection import Predicate, selector
from camanim.pipeline import with_request
from camanim.result import Result
from camanim.words import duration, rounded

if TYPE_CHECKING:
    import torch
    from torch import nn

    from camanim.attribution import MapSettings
    from camanim.execution.capture import Captured
    from camanim.execution.consumer import ForwardOutput, Layer
    from camanim.execution.request import AttributionRequest
    from camanim.images import Prepared
    from camanim.models import Model

#: Seconds from which a cheaper alternative is offered, and how much cheaper it must be.
SLOW, CHEAPER = 5.0, 0.5
#: Value of the option `channels` that is offered where a method has it.
CHANNELS = 32
#: Largest number of further images that a run passes to prepare itself: the check of control flow, the
#: comparison with a faster copy, noise that tells probabilities from logits.
PREPARATION = 16
#: Maps of one layer in so many are computed for their time, with methods of one pass.
_EVERY = 8
#: Variants of the image with ``augment``.
_VARIANTS = 6
#: Ingredients without which a dry call of a method is not possible.
_OPAQUE = frozenset({"net", "target"})


@dataclass(frozen=True)
class Cost:
    """The expected cost of a run.

    Attributes
    ----------
    title : str
        What is computed, such as "ScoreCAM over 149 layers".
    layers : int
        Number of layers with a map; 0 for a finding.
    forwards, backwards : int
        Images that pass the network forward, and gradients that are computed. The forward passes of a
        run are at most `PREPARATION` more; those of findings are upper bounds. None if not known.
    seconds : float
        Expected time, from the time of a pass; NaN if not known.
    at_most : bool
        Whether the numbers are upper bounds.
    findings : tuple of Cost
        One for each requested finding.
    cheaper : tuple of Cost
        Cheaper alternatives, whose title is the setting: "blocks" for ``layers="blocks"``, or
        "32 channels" for ``options={"channels": 32}``. Empty for a run of seconds.
    """

    title: str
    layers: int
    forwards: int | None
    backwards: int
    seconds: float
    at_most: bool = False
    findings: tuple[Cost, ...] = ()
    cheaper: tuple[Cost, ...] = ()

    @property
    def total_seconds(self) -> float:
        """Seconds of the run and its findings; NaN if one of them is not known."""
        return self.seconds + sum(finding.seconds for finding in self.findings)

    @property
    def words(self) -> str:
        """The cost in one sentence, with cheaper alternatives, and a sentence for each finding."""
        text = f"{self.title}: {self._passes}{self._time}"
        text += "".join(f"; {other.title}: {duration(other.seconds)}" for other in self.cheaper)
        return " ".join([f"{text}.", *(finding.words for finding in self.findings)])

    def __str__(self) -> str:
        return self.words

    @property
    def _passes(self) -> str:
        if self.forwards is None:
            return "the number of passes is known only afterwards"
        if (self.forwards, self.backwards) == (1, 1):
            return "one forward and backward pass"
        about = "at most " if self.at_most else "about " if self.forwards >= 100 else ""
        noun = "pass" if self.forwards == 1 else "passes"
        forward = f"{about}{rounded(self.forwards)} forward {noun}"
        return f"{forward} and {rounded(self.backwards)} backward" if self.backwards else forward

    @property
    def _time(self) -> str:
        return "" if np.isnan(self.seconds) else f", {duration(self.seconds)}"


def estimate(
    model: Model | nn.Module,
    image: Any,
    *,
    method: Any = "GradCAM",
    target: Any = None,
    findings: Sequence[str | FindingRequest] | Mapping[str, Mapping[str, Any]] = (),
    **settings: Any,
) -> Cost:
    """Estimate the cost of a run of `animate` with the same arguments, without computing maps.

    The network runs twice forward, and once as in the run, without maps. Of methods that score masks,
    the masks are compared as in the run, since equal ones are scored once.

    Parameters
    ----------
    model, method, target, **settings
        As for `camanim.animate`.
    image : array-like or tuple of int
        The image; or its shape, such as (480, 640, 3), for which noise is used: how many of ScoreCAM's
        masks are equal depends on the image.
    findings : sequence or mapping
        Names of kinds of findings, such as ``["road"]``, or their settings by name, as in
        ``{"road": {"repeats": 3}}``.

    Returns
    -------
    Cost
        Printed in words by ``print``.

    Raises
    ------
    CamError
        As `animate`, since the arguments are checked alike; `ScoreError` for a wrong finding.

    Examples
    --------
    >>> model = load_model("torchvision/mobilenet_v2")  # doctest: +SKIP
    >>> print(estimate(model, (480, 640, 3), method="ScoreCAM"))  # doctest: +SKIP
    """
    if isinstance(image, tuple) and image and all(isinstance(side, int) for side in image):
        image = np.random.default_rng(0).integers(0, 256, image, dtype=np.uint8)
    requests = _requests(findings)

    def measure(
        on_device: Model, prepared: Prepared, request: AttributionRequest, maps: MapSettings
    ) -> Cost:
        return _Estimate(on_device, prepared, request, maps).cost(requests)

    return with_request(model, image, measure, method=method, target=target, **settings)


def _requests(
    findings: Sequence[str | FindingRequest] | Mapping[str, Mapping[str, Any]],
) -> list[FindingRequest]:
    if isinstance(findings, Mapping):
        requests = [FindingRequest(name, settings) for name, settings in findings.items()]
    else:
        requests = [FindingRequest(f) if isinstance(f, str) else f for f in findings]
    for request in requests:
        request.kind.check_names(request.settings)
    return requests


@dataclass
class _Variant:
    """What the method evaluates for some layers, with some options.

    Attributes
    ----------
    title : str
    select : predicate of LayerInfo
    options : mapping
    chosen : set of int
        Calls that `select` chooses.
    indices : list of int
        Layers with a map.
    images : list of int
        Images per layer that the method evaluates.
    passes : float
        Cost of these images, in passes of the whole network.
    """

    title: str
    select: Predicate
    options: Mapping[str, Any]
    chosen: set[int] = field(default_factory=set)
    indices: list[int] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    passes: float = 0.0
    _memory: dict[Any, Any] = field(default_factory=dict)


class _Counter:
    """Consumer of a pass that counts what the method would evaluate for each layer."""

    needs_graph, needs_head = False, False

    def __init__(
        self, settings: MapSettings, image: torch.Tensor, variants: list[_Variant]
    ) -> None:
        self.settings, self.method, self.image = settings, settings.method, image
        self.needs_gradient = self.method.needs_gradient and not self.method.needs_reevaluation
        self.variants = variants
        self.opaque = bool(_OPAQUE & set(self.method.needs))
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.arrivals: dict[int, float] = {}
        #: Seconds in this consumer, and of the sampled maps.
        self.own = 0.0
        self.sampled: list[float] = []

    def select(self, info: LayerInfo) -> bool:
        """Return whether any variant chooses a layer call."""
        for variant in self.variants:
            if variant.select(info):
                variant.chosen.add(info.index)
        return any(info.index in variant.chosen for variant in self.variants)

    def begin_target(self, target: Any, forward_output: ForwardOutput) -> None:
        """Do nothing: no value of the target is used."""

    def consume(
        self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None
    ) -> None:
        """Record the shape of a layer, and count the images that the method evaluates for it."""
        start = time.perf_counter()
        self.arrivals[layer.index] = start - self.own
        try:
            self._count(layer, activation[0], None if gradient is None else gradient[0])
        finally:
            self.own += time.perf_counter() - start

    def _count(self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None) -> None:
        size = tuple(activation.shape[1:])
        if self.method.guided == "times":
            size = tuple(self.image.shape[1:])
        self.shapes[layer.index] = size
        for variant in self.variants:
            if layer.index not in variant.chosen:
                continue
            images = 0
            if self.method.needs_reevaluation and not self.opaque:
                images = self._dry_call(layer, activation, variant)
            variant.indices.append(layer.index)
            variant.images.append(images)
        calls_no_network = not self.method.needs_reevaluation and not self.opaque
        if calls_no_network and len(self.shapes) % _EVERY == 1:
            self._sample(layer, activation, gradient)

    def _dry_call(self, layer: Layer, activation: torch.Tensor, variant: _Variant) -> int:
        """Call the method with functions that count; return the number of images."""
        import torch

        counted = [0]

        def evaluate(count: int, make: Callable[[int, int], torch.Tensor]) -> torch.Tensor:
            counted[0] += count
            return torch.zeros(count, dtype=torch.float64)

        settings = replace(self.settings, options=variant.options, eigen_smooth=False)
        ingredients = self._ingredients(layer, activation, None)
        ingredients |= {"predict": evaluate, "rerun": evaluate, "memory": variant._memory}
        settings.map_of(layer.index, ingredients)
        return counted[0]

    def _sample(
        self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None
    ) -> None:
        """Time one map; the values do not matter."""
        start = time.perf_counter()
        try:
            self.settings.map_of(layer.index, self._ingredients(layer, activation, gradient))
        except NoMap:
            # Such as a layer without a bias, of FullGrad: other layers have a map.
            return
        self.sampled.append(time.perf_counter() - start)

    def _ingredients(
        self, layer: Layer, activation: torch.Tensor, gradient: torch.Tensor | None
    ) -> dict[str, Any]:
        # Means and curvature have the shape of the gradient.
        shaped = activation if gradient is None else gradient
        return dict.fromkeys(self.method.needs, shaped) | {
            "activation": activation,
            "image": self.image,
            "module": layer.module,
            "score": 1.0,
            "head": None,
        }


class _Estimate:
    """The estimate for one request."""

    def __init__(
        self,
        model: Model,
        prepared: Prepared,
        request: AttributionRequest,
        settings: MapSettings,
    ) -> None:
        self.model, self.prepared, self.request, self.settings = model, prepared, request, settings
        #: The method that computes maps, where another one combines them.
        self.base = settings
        if settings.method.meta:
            from camanim.attribution.combined import base_settings

            self.base = base_settings(settings)
        middle = len(request.tensor) // 2
        self.one = request.with_input(request.tensor[middle : middle + 1])

    def cost(self, requests: Sequence[FindingRequest]) -> Cost:
        """Measure passes, count, and return the cost."""
        self._measure_pass()
        variants = self._variants()
        counter, captured = self._capture(variants)
        title = f"{self.settings.method.name} over {_layers(len(variants[0].indices))}"
        whole = self._cost_of(title, variants[0], counter)
        cheaper = tuple(self._cost_of(v.title, v, counter) for v in variants[1:] if v.indices)
        planned = self._planned(captured, counter, variants[0].indices)
        return replace(
            whole,
            cheaper=tuple(
                c for c in cheaper if whole.seconds > SLOW and c.seconds < CHEAPER * whole.seconds
            ),
            findings=tuple(self._finding(request, planned) for request in requests),
        )

    def _measure_pass(self) -> None:
        """Time one forward pass, after one that prepares the libraries."""
        with self.request.forward.evaluating(tuple(self.one.tensor.shape)):
            self.request.forward(self.one.tensor)
            start = time.perf_counter()
            self.request.forward(self.one.tensor)
            self.pass_seconds = time.perf_counter() - start

    def _variants(self) -> list[_Variant]:
        """Return what was requested, and alternatives."""
        options = self.base.options
        variants = [_Variant("", self.request.select, options)]
        if self.base.method.needs_reevaluation:
            blocks = selector("blocks", self.request.forward.net)
            variants.append(_Variant("blocks", blocks, options))
            if "channels" in options and options["channels"] is None:
                fewer = {**options, "channels": CHANNELS}
                variants.append(_Variant(f"{CHANNELS} channels", self.request.select, fewer))
        return variants

    def _capture(self, variants: list[_Variant]) -> tuple[_Counter, Captured]:
        """Run the network once, counting."""
        from camanim.execution.capture import capture

        counter = _Counter(self.base, self.one.tensor[0], variants)
        start = time.perf_counter()
        captured = capture(replace(self.one, select=counter.select), counter)
        self.capture_seconds = time.perf_counter() - start - counter.own
        captured.check_complete()
        self._count_passes(counter, start, captured)
        return counter, captured

    def _count_passes(self, counter: _Counter, start: float, captured: Captured) -> None:
        """Weigh images by the part of the network that they pass."""
        method = self.base.method
        # Including the hooks, as the arrivals.
        forward = max(captured.forward_seconds - counter.own, 1e-9)
        if counter.needs_gradient:
            forward = max(captured.forward_seconds, 1e-9)
        for variant in counter.variants:
            for index, count in zip(variant.indices, variant.images, strict=True):
                share = 1.0
                if "rerun" in method.needs:
                    # What runs before the layer is not run again.
                    share = 1.0 - min(1.0, max(0.0, (counter.arrivals[index] - start) / forward))
                variant.passes += count * share

    def _cost_of(self, title: str, variant: _Variant, counter: _Counter) -> Cost:
        method, images = self.settings.method, len(self.request.tensor)
        forwards, backwards, seconds = self._of_one_image(variant, counter)
        unknown = counter.opaque and self.base.method.needs_reevaluation
        forwards, backwards, seconds = forwards * images, backwards * images, seconds * images
        if method.meta == "windows":
            whole = (forwards, backwards, seconds)
            windows, chosen, share = self._windows()
            forwards = whole[0] * (1 + chosen) + windows
            backwards = whole[1] * (1 + chosen)
            seconds = whole[2] * (1 + share * chosen) + windows * share * self.pass_seconds
        if self.settings.augment:
            forwards, backwards, seconds = (
                _VARIANTS * forwards, _VARIANTS * backwards, _VARIANTS * seconds,
            )  # fmt: skip
        if self.settings.slices or self.settings.augment:
            # The targets are settled first.
            forwards, seconds = forwards + images, seconds + images * self.pass_seconds
        return Cost(
            title,
            len(variant.indices),
            None if unknown else int(forwards),
            int(backwards),
            float("nan") if unknown else float(seconds),
            at_most="curvature" in method.needs,
        )

    def _of_one_image(self, variant: _Variant, counter: _Counter) -> tuple[int, int, float]:
        """Return forward passes, backward passes and seconds of one image."""
        method, layers = self.base.method, len(variant.indices)
        pair = self.capture_seconds
        arithmetic = float(np.mean(counter.sampled)) * layers if counter.sampled else 0.0
        if method.needs_reevaluation:
            # Beside the images, a recorded pass for each layer, and for replaced outputs a check.
            check = 3 if "rerun" in method.needs else 0
            forwards = 1 + layers * (1 + check) + sum(variant.images)
            passes = 1 + layers * (0.5 + check / 2) + variant.passes
            return forwards, 0, passes * self.pass_seconds + counter.own
        forwards, backwards = 1, int(counter.needs_gradient)
        seconds = pair + arithmetic
        if method.averages:
            samples = int(self.base.options["samples"])
            forwards, backwards = samples + 2, samples + 1
            seconds += samples * (pair + arithmetic) + self.pass_seconds
        if "curvature" in method.needs:
            backwards += layers
            # Through what is behind the layer, twice as long as a forward pass.
            seconds += layers * self.pass_seconds
        if method.guided == "times":
            forwards, backwards, seconds = forwards + 1, backwards + 1, seconds + pair
        return forwards, backwards, seconds

    def _windows(self) -> tuple[int, int, float]:
        """Return the numbers of windows and of those explained, and a window's share of the image."""
        from camanim.cam_methods.meta import sess_windows

        options, size = self.settings.options, tuple(self.request.tensor.shape[2:])
        windows = sess_windows(
            size, **{name: options[name] for name in ("scales", "growth", "window", "step")}
        )
        chosen = len(windows) - int(len(windows) * options["discard"])
        return len(windows), chosen, windows[0].side ** len(size) / prod(size)

    def _planned(self, captured: Captured, counter: _Counter, indices: list[int]) -> Result:
        """Return a result without values in its maps, for the prices of findings."""
        layer_calls = captured.layer_calls[0]
        layers = [layer_calls[i] for i in sorted(indices) if layer_calls[i].status == Status.OK]
        meta = bool(self.settings.method.meta)
        size = tuple(self.request.tensor.shape[2:])
        depth = (len(self.request.tensor),) if len(self.request.tensor) > 1 else ()
        shapes = [depth + (size if meta else counter.shapes[layer.index]) for layer in layers]
        return Result(
            maps=[np.broadcast_to(np.float32(0), shape) for shape in shapes],
            layers=layers,
            layer_calls=layer_calls,
            method=self.settings.method.name,
            target=captured.targets[0],
            probability=float("nan"),
            image=self.prepared.image,
            geometry=self.prepared.geometry,
            tensor=self.request.tensor,
            model=self.model,
            provenance={},
            forward_seconds=self.pass_seconds,
        )

    def _finding(self, request: FindingRequest, planned: Result) -> Cost:
        kind = request.kind
        passes = kind.passes_for(planned, request.settings)
        seconds = float("nan") if passes is None else passes * self.pass_seconds
        return Cost(kind.title, 0, passes, 0, seconds, at_most=True)


def _layers(count: int) -> str:
    return f"{count} {'layer' if count == 1 else 'layers'}"
