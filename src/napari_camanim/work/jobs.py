"""Jobs of the dock that run in a thread: maps, findings, prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from camanim.errors import CamError, Cancelled, ImageError, ScoreError
from camanim.findings import FindingRequest, find_kind, plain
from camanim.images.contents import why_labels
from camanim.progress import Progress
from napari_camanim.layers.metadata import CamMetadata, metadata
from napari_camanim.layers.run import Run
from napari_camanim.layers.views import Mask
from napari_camanim.work.networks import Networks, load_stored
from napari_camanim.work.request import RunRequest

if TYPE_CHECKING:
    from napari.layers import Image

    from camanim import Animation, Model
    from camanim.findings import Finding
    from camanim.models import Prediction
    from camanim.stack import Normalization

#: Receives a run with findings that have been computed or are being computed.
Report = Callable[[Run], None]
#: Number of likeliest classes that are listed.
LIKELY = 20


@dataclass(frozen=True)
class Classes:
    """The likeliest classes of an image, and the names of all classes, if the network has names."""

    predictions: list[Prediction]
    names: list[str] | None


@dataclass
class Explained:
    """Maps of one request.

    Attributes
    ----------
    request : RunRequest
    runs : list of Run
        One for each target; fewer after a cancel.
    about : list of CamMetadata
        Metadata of their layers.
    cancelled : bool
        Whether maps are missing because of a cancel.
    classes : Classes or None
        The likeliest classes; None if they are not known.
    checksum : int or None
        See `Region.checksum`.
    """

    request: RunRequest
    runs: list[Run]
    about: list[CamMetadata]
    cancelled: bool = False
    classes: Classes | None = None
    checksum: int | None = None

    def is_of(self, request: RunRequest) -> bool:
        """Return whether the image still has the pixels of this result."""
        return self.runs[0].region.checksum(request.view.data) == self.checksum

    def again(self, request: RunRequest, image: Image, normalization: Normalization) -> Explained:
        """Return the same maps for an equal request, with those findings that it asks for."""
        view = request.view
        runs, about = [], []
        for run, described in zip(self.runs, self.about, strict=True):
            animation = copy(run.animation)
            animation.findings = {
                key: finding
                for key, finding in run.animation.findings.items()
                if any(_answers(finding, asked, request) for asked in request.findings)
            }
            region = replace(run.region, corners=view.corners, labels=view.labels)
            runs.append(Run.of(animation, region, image, request))
            if animation.findings.keys() == run.animation.findings.keys():
                described = described.copy()
                described["normalization"] = normalization
            else:
                described = metadata(animation, normalization)
            about.append(described)
        return Explained(request, runs, about, classes=self.classes, checksum=self.checksum)


def explain(
    request: RunRequest,
    image: Image,
    normalization: Normalization,
    networks: Networks,
    progress: Progress,
) -> Explained:
    """Compute the maps of all targets; after a cancel, return those computed so far."""
    model = networks.load(request.network, progress)
    read = request.source_for if request.is_lazy else request.input_for
    shown, preprocessing = read(model)
    # Of large images, which are not read as a whole, it is not known.
    labels = None if request.is_lazy else why_labels(shown.pixels)
    if labels is not None:
        raise ImageError(
            f"{labels} Convert it to a Labels layer, or to floating numbers to explain it nevertheless."
        )
    settings = {**request.settings, **preprocessing, "method": request.method}
    animations = _animations(model, shown.pixels, request, settings, progress)
    cancelled = len(animations) < len(request.targets) or any(a.cancelled for a in animations)
    for animation in animations:
        # The copy of the network on the GPU is released; the stack may exist for long.
        animation.model = model
        if request.view.box is not None:
            animation.notes.insert(0, f"Explained: {request.view.words(len(shown.region.axes))}.")
    runs = [Run.of(animation, shown.region, image, request) for animation in animations]
    # Metadata, and the first plane that is shown, take too long for the thread of the window.
    about = [metadata(animation, normalization) for animation in animations]
    checksum = shown.region.checksum(request.view.data)
    return Explained(request, runs, about, cancelled, checksum=checksum)


def _animations(
    model: Model, pixels: Any, request: RunRequest, settings: dict[str, Any], progress: Progress
) -> list[Animation]:
    """Return the maps of all targets, as one image or window by window."""
    from camanim.animation import animate_targets, animate_windows

    if request.windows is None:
        return animate_targets(model, pixels, request.targets, **settings, progress=progress)
    animations: list[Animation] = []
    settings |= request.windows
    try:
        for target in request.targets:
            animations.append(
                animate_windows(model, pixels, target=target, **settings, progress=progress)
            )
            if animations[-1].cancelled:
                break
    except Cancelled:
        if not animations:
            raise
    return animations


@dataclass(frozen=True)
class Found:
    """Why findings could not be computed, if so, and whether they were cancelled."""

    problem: str = ""
    cancelled: bool = False


def find(runs: list[Run], request: RunRequest, report: Report, progress: Progress) -> Found:
    """Compute the findings of runs.

    Masks come first, as a cancel skips the rest. Findings that are complete already are kept.
    """
    for run in runs:
        if not all(_is_answered(run, finding, request) for finding in request.findings):
            load_stored(run.animation, progress)
    computations: list[Callable[[], Any]] = []
    if request.mask is not None:
        computations += [partial(_localise, run, request.mask, report) for run in runs]
    for finding in request.findings:
        computations += [partial(_find, run, finding, request, report, progress) for run in runs]
    return _compute(computations)


def _is_answered(run: Run, finding: FindingRequest, request: RunRequest) -> bool:
    return any(_answers(known, finding, request) for known in run.animation.findings.values())


def _find(
    run: Run, finding: FindingRequest, request: RunRequest, report: Report, progress: Progress
) -> None:
    animation, kind = run.animation, finding.kind
    if _is_answered(run, finding, request):
        return
    defaults = {"seed": request.settings.get("seed", 0), "progress": progress}
    arguments = finding.arguments(defaults)
    if kind.needs_mask:
        if request.mask is None:
            raise ScoreError(f"{kind.title}: choose a Labels layer as the mask.")
        arguments["mask"] = request.mask.read(run.region)
    if "partial_scores" in signature(kind.compute).parameters:
        arguments["partial_scores"] = partial(_add, run, report)
    found = kind.compute(animation, **arguments)
    _add(run, report, found)
    if not _is_complete(found):
        raise Cancelled("The run was cancelled.")


def _is_complete(finding: Finding) -> bool:
    """Return whether a finding was not cancelled."""
    return bool(getattr(finding, "complete", True)) and not getattr(finding, "cancelled", False)


def _answers(finding: Finding, asked: FindingRequest, request: RunRequest) -> bool:
    """Return whether a finding is the requested one, with the same settings."""
    kind = asked.kind
    # The pixels of a mask can be changed in place.
    if finding.kind != asked.name or kind.needs_mask or not _is_complete(finding):
        return False
    defaults = {name: setting.default for name, setting in kind.settings.items()}
    settings = defaults | asked.arguments({"seed": request.settings.get("seed", 0)})
    return bool(plain(settings) == dict(finding.parameters))


def _add(run: Run, report: Report, finding: Finding) -> None:
    run.animation.add(finding)
    report(run)


def _localise(run: Run, mask: Mask, report: Report) -> None:
    run.animation.localise(mask.read(run.region))
    report(run)


def _compute(computations: Iterable[Callable[[], Any]]) -> Found:
    """Call each computation, and return the messages of those that fail."""
    from camanim.model_state import is_out_of_memory

    problems = []
    cancelled = False
    for computation in computations:
        try:
            computation()
        except Cancelled:
            cancelled = True
            break
        except CamError as error:
            problems.append(str(error))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            problems.append("There is not enough memory to score the maps.")
    return Found(" ".join(dict.fromkeys(problems)), cancelled)


def drop_mask_findings(animation: Animation) -> bool:
    """Remove the findings that compare with a mask; return whether there were any."""
    dropped = [key for key, f in animation.findings.items() if find_kind(f.kind).needs_mask]
    # Another mapping, as another thread may be writing the one before to a file.
    kept = {key: f for key, f in animation.findings.items() if key not in dropped}
    animation.findings = kept
    return bool(dropped)


def localise(run: Run, mask: Mask | None, report: Report) -> tuple[str, str]:
    """Compare the maps with another mask, or with none; return the summary and error messages."""
    animation = run.animation
    # Those of the mask before.
    drop_mask_findings(animation)
    if mask is None:
        report(run)
        return "No mask.", ""
    problem = _compute([partial(_localise, run, mask, report)]).problem
    if problem:
        report(run)
    return "" if animation.localisation is None else animation.localisation.summary(), problem


def test_region(
    run: Run,
    mask: Callable[[], Any],
    settings: dict[str, Any],
    report: Report,
    progress: Progress,
) -> tuple[Finding | None, str]:
    """Test whether the network uses a region; return the finding and the message of an error."""
    load_stored(run.animation, progress)
    request = FindingRequest("region_test", settings)
    arguments = request.arguments({"progress": progress}) | {"mask": mask()}
    found: list[Finding] = []

    def compute() -> None:
        found.append(request.kind.compute(run.animation, **arguments))
        _add(run, report, found[0])

    result = _compute([compute])
    if result.cancelled:
        raise Cancelled("The region test was cancelled.")
    return (found[0] if found else None), result.problem


def predict(request: RunRequest, networks: Networks, progress: Progress) -> Classes:
    """Return the likeliest classes, and the names of all classes."""
    model = networks.load(request.network, progress)
    shown, preprocessing = request.input_for(model)
    progress("predict", 0, 0)
    device = request.settings.get("device")
    on_device: Model = model if device is None else model.to(device)
    return Classes(on_device.predict(shown.pixels, LIKELY, **preprocessing), model.classes)


def devices() -> list[str]:
    """Return the names of available devices; imports torch."""
    import torch

    mps = getattr(torch.backends, "mps", None)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": mps and mps.is_available()}
    return [name for name, is_available in available.items() if is_available]


def summary(explained: Explained) -> str:
    """Return the message of the dock after the maps were computed."""
    animations = [run.animation for run in explained.runs]
    first = animations[0]
    size = f"{len(first)} layers"
    if len(animations) > 1:
        size = f"{len(animations)} stacks, the first of {size}"
    if explained.cancelled:
        size = f"Cancelled: kept {size}"
    words = (f"{a.target.name} ({a.target.unit} {a.probability:.3f})" for a in animations)
    lines = [f"{size}.", f"Explained: {'; '.join(words)}.", *first.warnings]
    lines += [note for a in animations for note in a.notes]
    if first.guided is not None:
        lines.append("The guided image is a hidden layer.")
    if first.model.name.startswith("demo/"):
        lines.append("A teaching aid, not for diagnosis.")
    return " ".join(filter(None, dict.fromkeys(lines)))


def findings_summary(runs: list[Run]) -> str:
    """Return what the findings of the first run say."""
    animation: Animation = runs[0].animation
    lines = [finding.summary() for finding in animation.findings.values()]
    return " ".join(filter(None, [*lines, *animation.warnings]))
