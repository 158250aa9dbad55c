"""Explain an image that is larger than a network's input, window by window."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.cam_methods import Method, find_method
from camanim.errors import Cancelled, ImageError, LayerError, OutOfMemory, SettingError, TargetError
from camanim.images import Geometry, LazyImage, Prepared, Preprocess, Window, intensity_window
from camanim.images.geometry import format_size
from camanim.layer_info import LayerInfo, Status
from camanim.models.base import Model, unwrap
from camanim.models.output_kind import output_kind
from camanim.pipeline import explain_prepared, network_record, opened
from camanim.progress import silent
from camanim.result import Result
from camanim.settings import Settings, WindowSettings, checked_settings
from camanim.stitching import Stitcher
from camanim.window_grid import Windows, place_windows

if TYPE_CHECKING:
    import torch
    from torch import nn

    from camanim.execution.forward import Forward
    from camanim.targets import Kind, Segmentation, Target
    from camanim.targets.segmentation import Region

#: Pixels of a picture above which it has every second, third, ... pixel of the image.
_MAX_PIXELS = 2**24
#: Probability below which a class counts as absent from a window, for a note.
_ABSENT = 0.1
_ONE_CLASS = "Windows of a segmentation explain one class, without a mask: pass its number or name."


def explain_windows(
    model: Model | nn.Module,
    image: Any,
    *,
    method: Any = "GradCAM",
    target: Any = None,
    **settings: Any,
) -> Result:
    """Return the maps of an image that is explained window by window; see `animate_windows`."""
    if not isinstance(model, Model):
        model = Model(model)
    names = ("size", "overlap", "blending", "max_cells")
    window_settings = WindowSettings(**{n: settings.pop(n) for n in names if n in settings})
    image, checked, place, notes = opened(image, checked_settings(settings))
    _check_supported(checked)
    source = LazyImage(image, model.dims, checked.box)
    size = _window_size(model, window_settings)
    windows = place_windows(source.shape, size, window_settings.overlap, window_settings.blending)
    run = _WindowedRun(
        model, source, windows, find_method(method), target, checked, window_settings, notes
    )
    return replace(run.result(), source=place)


def _check_supported(settings: Settings) -> None:
    for wrong, text in (
        (
            settings.fit == "crop",
            'fit="crop" would leave out the margins of windows: use "stretch"',
        ),
        (settings.slices, "slices=True is for whole slices: explain windows of one slice"),
        (settings.show_1d, "show_1d=True has no place in the image, so windows cannot be joined"),
    ):
        if wrong:
            raise SettingError(f"{text}.")


def _window_size(model: Model, settings: WindowSettings) -> tuple[int, ...]:
    """Return the size of the windows along each axis."""
    axes, size = model.dims, settings.size
    if size is None:
        size = model.preprocess.size if isinstance(model.preprocess, Preprocess) else None
        if size is None:
            raise SettingError(
                f"{model.name} takes images of any size: set the size of the windows."
            )
    sides = tuple(int(n) for n in size) if isinstance(size, Iterable) else (int(size),) * axes
    if len(sides) != axes:
        raise SettingError(f"The windows need {axes} sides, not {len(sides)}: {sides}.")
    return sides


@dataclass
class _WindowedRun:
    """One computation: the maps of all windows of an image."""

    model: Model
    source: LazyImage
    windows: Windows
    method: Method
    request: Any
    settings: Settings
    window_settings: WindowSettings
    notes: list[str] = field(default_factory=list)
    _picture: _Picture | None = None
    _digests: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.corners = list(self.windows)
        self.intensities: Window | None = self.settings.window
        self.notes += self.source.notes

    def result(self) -> Result:
        """Compute while no other thread uses the network."""
        from camanim.exclusive import exclusively

        waiting = partial(self.settings.progress, "wait", 0, 0)
        return exclusively(unwrap(self.model.net), self._result, waiting)

    def _result(self) -> Result:
        if self.settings.device is not None:
            self.model = self.model.to(self.settings.device)
        self._settle_intensities()
        self._note_padding()
        targets = _Targets(self)
        progress, total = self.settings.progress, len(self.corners)
        window = 0

        def within(stage: str, done: int, of: int) -> None:
            """Let the caller cancel within a window, and report the number of those before it."""
            progress("windows", window, total)

        settings = replace(self.settings, device=None, progress=within)
        stitcher = Stitcher(self.source.shape, self.windows, self.window_settings.max_cells)
        values, finished = self.windows.values.reshape(-1), self.windows.done.reshape(-1)
        parts = _Parts()
        # The first window with maps defines the layers; those without the class have maps of 0.
        present = [w for w in range(total) if not targets.is_absent(w)]
        order = [*present[:1], *(w for w in range(total) if targets.is_absent(w)), *present[1:]]
        try:
            for window, w in enumerate(order):
                progress("windows", window, total)
                if targets.is_absent(w):
                    stitcher.add(self.corners[w], None)
                    values[w], finished[w] = 0.0, True
                    continue
                result = self._explain(w, targets.function, settings)
                if result.cancelled:
                    break
                parts.add(result, stitcher, self.corners[w])
                values[w], finished[w] = result.probability, True
            progress("windows", total, total)
        except Cancelled:
            if parts.first is None:
                raise
        if parts.first is None:
            raise Cancelled("The run was cancelled.")
        return self._joined(parts, stitcher, targets)

    def _explain(self, w: int, function: Any, settings: Settings) -> Result:
        prepared = self.prepare(w)
        result = explain_prepared(self.model, prepared, function, self.method, settings, {})
        # It is on the CPU from then on if the device's memory ran out.
        self.model = result.model
        return result

    # -- Input ---------------------------------------------------------------------------------

    def prepare(self, w: int) -> Prepared:
        """Read and prepare a window, and copy it to the picture."""
        corner, size = self.corners[w], self.windows.size
        stops = [min(a + s, n) for a, s, n in zip(corner, size, self.source.shape, strict=True)]
        ranges = list(zip(corner, stops, strict=True))
        pixels = self.source.read(ranges)
        if w not in self._digests:
            self._digests[w] = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).digest()
        margins = [(0, s - (b - a)) for s, (a, b) in zip(size, ranges, strict=True)]
        if any(after for _, after in margins):
            margins += [(0, 0)] * (pixels.ndim - len(margins))
            pixels = np.pad(pixels, margins, constant_values=self._black(pixels.dtype))
        prepared = self.model.prepare(pixels, fit=self.settings.fit, window=self.intensities)
        if self._picture is None:
            self._picture = _Picture(self.source.shape, prepared.image.shape[len(size) :])
        self._picture.paste(prepared.image, ranges)
        self.notes += prepared.notes
        return prepared

    def _black(self, dtype: np.dtype[Any]) -> Any:
        """Return the value of black, or the nearest one that the type can hold."""
        black = 0.0 if self.intensities is None else self.intensities[0]
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            black = int(min(max(black, limits.min), limits.max))
        return np.asarray(black).astype(dtype)

    def _settle_intensities(self) -> None:
        """Take the limits of the intensities from the whole image, read once in parts."""
        dtype, model = self.source.dtype, self.model
        if self.settings.window is not None or dtype == np.uint8 or dtype.kind not in "iuf":
            return
        low, high = math.inf, -math.inf
        tiles = place_windows(self.source.shape, self.windows.size, 0.0, "constant")
        for i, corner in enumerate(tiles):
            self.settings.progress("intensities", i, len(tiles))
            sides = zip(corner, self.windows.size, self.source.shape, strict=True)
            values = self.source.read([(a, min(a + s, n)) for a, s, n in sides])
            channels = getattr(model.preprocess, "channels", 3)
            if values.ndim > model.dims and values.shape[-1] == 4 != channels:
                # The transparency is no intensity.
                values = values[..., :3]
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ImageError("The image holds NaN or infinite values: replace them first.")
        if dtype.kind == "f" and not isinstance(model.preprocess, Preprocess):
            # As of `Model.prepare`: the callable defines the meaning of the values.
            self.intensities = (min(low, 0.0), max(high, 1.0))
        else:
            self.intensities = intensity_window(dtype, low, high, self.notes.append)

    def _note_padding(self) -> None:
        if any(n < s for n, s in zip(self.source.shape, self.windows.size, strict=True)):
            self.notes.append(
                f"The image of {format_size(self.source.shape)} is smaller than a window of "
                f"{format_size(self.windows.size)}: it was padded with black at the far edges."
            )

    # -- Output --------------------------------------------------------------------------------

    def _joined(self, parts: _Parts, stitcher: Stitcher, targets: _Targets) -> Result:
        import torch

        first = parts.first
        assert first is not None
        assert self._picture is not None
        maps = stitcher.maps
        layers = [info for info in first.layers if _key(info) in maps]
        if not layers:
            raise LayerError("No layer has a map of the same size in all windows: select others.")
        layer_calls = parts.layer_calls(set(maps))
        by_index = {info.index: info for info in layer_calls}
        picture = self._picture.pixels
        scale = (float(self._picture.step),) * len(self.source.shape)
        placed = Geometry(picture.shape[: len(scale)], scale, self.source.placement.offset)
        geometry = self._geometry(first.geometry)
        self.notes += [*parts.notes, *self._deviations(stitcher, targets)]
        provenance = network_record(self.model, Prepared(first.tensor, geometry, picture))
        provenance |= {
            "device": str(self.model.device),
            "windows sha256": hashlib.sha256(
                b"".join(digest for _, digest in sorted(self._digests.items()))
            ).hexdigest(),
            "image shape": list(self.source.shape),
            "image dtype": str(self.source.dtype),
            **self.settings.record(),
            "windows": self.windows.record() | {"overlap": self.window_settings.overlap},
            "method": self.method.name,
            "target": first.target.describe()
            if targets.whole is None
            else targets.whole.describe(),
        }
        return Result(
            maps=[maps[_key(info)] for info in layers],
            layers=[by_index[info.index] for info in layers],
            layer_calls=layer_calls,
            method=self.method.name,
            target=first.target if targets.whole is None else targets.whole,
            probability=targets.mean(self.windows),
            image=picture,
            geometry=geometry,
            tensor=torch.empty(1, first.tensor.shape[1], *geometry.size, device="meta"),
            model=self.model,
            provenance=provenance,
            forward_seconds=parts.forward_seconds,
            notes=list(dict.fromkeys(self.notes)),
            placement=None if placed == Geometry(self.source.shape) else placed,
            windows=self.windows,
            computed_with=(self.method, replace(self.settings, progress=silent, device=None)),
        )

    def _geometry(self, window: Geometry) -> Geometry:
        """Return the geometry of all windows together, by that of one; reduced as the picture is."""
        assert self._picture is not None
        sides = zip(self.source.shape, window.size, self.windows.size, strict=True)
        size = tuple(max(1, round(n * cells / side)) for n, cells, side in sides)
        shown = self._picture.pixels.shape[: len(size)]
        if math.prod(size) > _MAX_PIXELS:
            size = shown
        covered = (n / self._picture.step for n in self.source.shape)
        return Geometry(size, tuple(n / side for n, side in zip(covered, size, strict=True)))

    def _deviations(self, stitcher: Stitcher, targets: _Targets) -> list[str]:
        """Return notes on what differs from the maps of one pass over the whole image."""
        windows, picture = self.windows, self._picture
        done = windows.values[windows.done]
        notes = []
        if not windows.complete:
            notes.append(
                f"Cancelled after {windows.computed} of {len(windows)} windows: elsewhere the maps are "
                "0 for lack of a window, and the picture is black where nothing was read."
            )
        if len(windows) > 1 and targets.per_pixel_class is not None:
            absent = int((done == 0).sum())
            if absent:
                notes.append(
                    f"The class is predicted in {len(done) - absent} of {len(done)} windows; the maps "
                    "of the others are 0."
                )
        elif len(windows) > 1 and targets.has_probability:
            low = int((done < _ABSENT).sum())
            absent_in = (
                f"; it is below {_ABSENT} in {low}, where maps say little about this class"
                if low
                else ""
            )
            notes.append(
                f"The probability is the mean of {len(done)} windows, from {done.min():.2g} to "
                f"{done.max():.2g}{absent_in}."
            )
        if stitcher.resampled:
            notes.append(
                f"Maps of {stitcher.resampled} layers were resampled by area, as their cells do not "
                "coincide in all windows."
            )
        if stitcher.reduced:
            notes.append(
                f"Maps of {stitcher.reduced} layers were reduced to at most "
                f"{self.window_settings.max_cells:,} cells: see max_cells."
            )
        if picture is not None and picture.step > 1:
            notes.append(
                f"The picture has one of {picture.step} pixels of the image along each axis."
            )
        if self.method.guided:
            notes.append("The guided gradient of each window was not kept.")
        return notes


def _key(info: LayerInfo) -> tuple[str, int]:
    return info.name, info.call


@dataclass
class _Parts:
    """What is kept of the results for windows, besides their maps."""

    first: Result | None = None
    count: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    _milliseconds: dict[tuple[str, int], float] = field(default_factory=dict)
    _reasons: dict[tuple[str, int], str] = field(default_factory=dict)

    @property
    def forward_seconds(self) -> float:
        """Mean time of a forward pass."""
        return self.seconds / max(1, self.count)

    def add(self, result: Result, stitcher: Stitcher, corner: tuple[int, ...]) -> None:
        """Add the maps of one window to the stitched ones."""
        maps = {_key(i): raw for i, raw in zip(result.layers, result.maps, strict=True)}
        if self.first is None:
            stitcher.start(maps)
            # Its maps are stitched, and need not be kept.
            self.first = replace(result, maps=[])
        statuses = {_key(info): info.status for info in result.layer_calls}
        for key in stitcher.add(corner, maps):
            status = statuses.get(key, Status.OK)
            self._reasons[key] = Status.OTHER_PATH if status == Status.OK else status
        for info in result.layers:
            key = _key(info)
            self._milliseconds[key] = self._milliseconds.get(key, 0.0) + info.milliseconds
        self.seconds += result.forward_seconds
        self.count += 1
        self.notes = list(dict.fromkeys([*self.notes, *result.notes]))

    def layer_calls(self, shown: set[Any]) -> list[LayerInfo]:
        """Return the layers of the first window, with the statuses of all windows."""
        assert self.first is not None
        calls = []
        for info in self.first.layer_calls:
            key = _key(info)
            if key in shown:
                info = info.with_status(info.status, self._milliseconds[key])
            elif key in self._reasons:
                info = info.with_status(self._reasons[key])
            calls.append(info)
        return calls


class _Picture:
    """The image for display, of every n-th pixel."""

    def __init__(self, shape: tuple[int, ...], channels: tuple[int, ...]) -> None:
        self.step = 1
        while math.prod(-(-n // self.step) for n in shape) > _MAX_PIXELS:
            self.step += 1
        counts = [-(-n // self.step) for n in shape]
        # The pixels that are shown along each axis.
        self._shown = [
            np.minimum(np.arange(count) * self.step + self.step // 2, n - 1)
            for count, n in zip(counts, shape, strict=True)
        ]
        self.pixels = np.zeros((*counts, *channels), np.uint8)

    def paste(self, image: npt.NDArray[np.uint8], ranges: list[tuple[int, int]]) -> None:
        """Copy a window that begins and ends at these pixels of the whole image."""
        spans, indices = [], []
        for shown, (start, stop) in zip(self._shown, ranges, strict=True):
            first, last = np.searchsorted(shown, [start, stop])
            spans.append(slice(first, last))
            indices.append(shown[first:last] - start)
        self.pixels[tuple(spans)] = image[np.ix_(*indices)]


class _Targets:
    """The target of all windows, resolved once.

    A survey predicts all windows first where the target depends on them: the likeliest class, and of a
    segmentation the windows in which the class is predicted.
    """

    def __init__(self, run: _WindowedRun) -> None:
        self.run = run
        self.kind: Kind = "auto"
        #: The class of a segmentation; its region is that of each window.
        self.per_pixel_class: Segmentation | None = None
        #: The target for all windows, if it differs from that of each.
        self.whole: Target | None = None
        self._fractions: npt.NDArray[np.float64] | None = None
        self._resolved: Any = run.request
        self._resolve()

    @property
    def has_probability(self) -> bool:
        """Whether values of the target are probabilities."""
        return getattr(self._resolved, "unit", None) == "probability"

    def is_absent(self, w: int) -> bool:
        """Whether the class of a segmentation is not predicted in a window, but in others."""
        return self._fractions is not None and bool(self._fractions[w] == 0)

    def mean(self, windows: Windows) -> float:
        """Return the mean over windows; of a segmentation, over the pixels that are predicted."""
        values = windows.values[windows.done]
        if self._fractions is None:
            return float(values.mean())
        weights = self._fractions[windows.done.reshape(-1)]
        return float((values * weights).sum() / weights.sum())

    def function(self, output: Any) -> list[Target]:
        """Return the target of a window, from the network's output."""
        from camanim.targets import resolve_all

        run, change = self.run, self.run.method.target
        options = run.method.checked(run.settings.options)
        return resolve_all(
            [self._resolved],
            output,
            run.model.classes,
            self.kind,
            change=None if change is None else partial(change, **options),
            counterfactual=run.settings.counterfactual,
        )

    def _resolve(self) -> None:
        from camanim.targets import FunctionTarget, Segmentation, resolve
        from camanim.targets.outputs import detections, find_scores

        run = self.run
        output = self._predict(0)
        if detections(output) is not None:
            raise TargetError("Detections lie at places of windows: explain a region with box=.")
        scores = find_scores(output)
        target = resolve(run.request, output, run.model.classes, self.kind)
        if scores is None or isinstance(target, FunctionTarget):
            self._resolved = target
        elif scores.ndim > 2:
            self._resolve_class(output)
        elif run.request is None and len(run.corners) > 1:
            joined = self._survey(output)
            self._resolved = resolve(None, joined, run.model.classes, self.kind)
        else:
            self._resolved = target
        if isinstance(self._resolved, Segmentation):
            self.per_pixel_class = self._resolved

    def _resolve_class(self, output: Any) -> None:
        """Choose the class of a segmentation, by its pixels in all windows."""
        from camanim.targets import ClassTarget, Counterfactual, Segmentation, resolve
        from camanim.targets.segmentation import largest_of

        run, request = self.run, self.run.request
        if isinstance(request, Segmentation) and (
            request.mask is not None or request.where is not None
        ):
            raise TargetError(_ONE_CLASS)
        target = resolve(request, output, run.model.classes, self.kind)
        if isinstance(target, Counterfactual) or not isinstance(target, Segmentation):
            raise TargetError(_ONE_CLASS)
        index = target.index
        region: Region = request.region if isinstance(request, Segmentation) else "predicted"
        is_open = request is None or (
            isinstance(request, Segmentation | ClassTarget) and request.index is None
        )
        if target.kind == "values":
            region = "image"
        if target.kind != "values" and (is_open or region == "predicted"):
            fractions, means = self._survey_pixels(output, target.kind)
            if is_open:
                index = largest_of(fractions.mean(0).tolist(), means.mean(0).tolist(), target.kind)
            if region == "predicted" and fractions[:, index].any():
                self._fractions = fractions[:, index]
            else:
                region = "image"
        name = getattr(request, "name", "")
        whole = Segmentation(index, None, name, target.kind, target.of, "image")
        # Named, and of all pixels; the region of the class is that of each window.
        bound = resolve(whole, output, run.model.classes, self.kind)
        assert isinstance(bound, Segmentation)
        self._resolved = replace(bound, region=region)
        if len(run.corners) > 1:
            self.whole = self._as_explained(self._resolved)

    def _as_explained(self, target: Target) -> Target:
        from camanim.targets import Counterfactual

        return Counterfactual(target) if self.run.settings.counterfactual else target

    def _survey(self, first: Any) -> torch.Tensor:
        """Return the scores of all windows, (N, K)."""
        import torch

        from camanim.targets.outputs import class_scores

        outputs = [first, *(self._predict(w) for w in range(1, len(self.run.corners)))]
        return torch.cat([class_scores(output).cpu() for output in outputs])

    def _survey_pixels(
        self, first: Any, kind: Kind
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return for each window the fraction of pixels of each class, and the mean of each score."""
        from camanim.targets.outputs import read_scores
        from camanim.targets.segmentation import class_fractions

        fractions, means = [], []
        for w in range(len(self.run.corners)):
            scores = read_scores(first if w == 0 else self._predict(w))
            fractions.append(class_fractions(scores, kind))
            means.append(scores.transpose(0, 1).flatten(1).double().mean(1).tolist())
        return np.array(fractions), np.array(means)

    def _predict(self, w: int) -> Any:
        """Return the network's output for a window; on the CPU if the device's memory runs out."""
        run = self.run
        run.settings.progress("target", w, len(run.corners))
        prepared = run.prepare(w)
        try:
            return self._predict_on(run.model, prepared, w)
        except OutOfMemory:
            if run.model.device.type == "cpu":
                raise
            run.notes.append("The device's memory ran out: computed on the CPU.")
            run.model = run.model.to("cpu")
            return self._predict_on(run.model, prepared, w)

    def _predict_on(self, model: Model, prepared: Prepared, w: int) -> Any:
        from camanim.execution.outputs import check_count
        from camanim.models.fitting import fitting_images

        tensor = prepared.tensor.to(model.device, model.dtype)
        forward: Forward = model.forward(self.run.settings.precision)
        fitting_images(model, tensor, 1, gradients=False)
        with forward.evaluating(tuple(tensor.shape)):
            output = forward(tensor)
            check_count(output, 1)
            if w == 0:
                self.kind, note = output_kind(forward, tensor, output, model.outputs)
                self.run.notes.extend([note] if note else [])
        return output
