"""Jobs of the dock that run in a thread: run, predict, compare with a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from camanim.errors import CamError, Cancelled, ScoreError
from camanim.findings import FindingRequest, find_kind
from camanim.progress import Progress
from napari_camanim.layers.views import Mask, Region, RegionData, View
from napari_camanim.work.networks import ModelSpec, Networks

if TYPE_CHECKING:
    from camanim import Animation, Model
    from camanim.models import Prediction


@dataclass(frozen=True)
class RunRequest:
    """Contents of the dock when a button was pressed.

    Attributes
    ----------
    network : ModelSpec
    view : View
        View of the image.
    slices : bool
        Whether a 2-D network explains every slice.
    targets : list
        Targets to explain, one stack for each.
    method : str
    settings : dict
        Settings of `camanim.animate`.
    findings : list of FindingRequest
        Findings to compute.
    mask : Mask or None
        Mask to compare the maps with.
    """

    network: ModelSpec
    view: View
    slices: bool = False
    targets: list[Any] = field(default_factory=lambda: [None])
    method: str = "GradCAM"
    settings: dict[str, Any] = field(default_factory=dict)
    findings: list[FindingRequest] = field(default_factory=list)
    mask: Mask | None = None

    def input_for(self, model: Model) -> tuple[RegionData, dict[str, Any]]:
        """Return the part of the image for a network, and the settings of its preprocessing."""
        slices = self.slices and model.dims == 2
        shown = self.view.read(3 if slices else model.dims)
        return shown, {"fit": self.settings["fit"], "window": shown.window, "slices": slices}


@dataclass(frozen=True)
class RunResult:
    """One animation for each target, and messages about findings that could not be computed."""

    animations: list[Animation]
    shown: RegionData
    problem: str = ""


def run(request: RunRequest, networks: Networks, progress: Progress) -> RunResult:
    """Compute maps and findings; after a cancel, return those computed so far."""
    from camanim.animation import animate_targets

    model = networks.load(request.network, progress)
    shown, preprocessing = request.input_for(model)
    animations = animate_targets(
        model,
        shown.pixels,
        request.targets,
        method=request.method,
        **request.settings | preprocessing,
        progress=progress,
    )
    problem = ""
    cancelled = len(animations) < len(request.targets) or any(a.cancelled for a in animations)
    if not cancelled:
        problem = _compute(_computations(request, animations, shown.region, progress))
    for animation in animations:
        # The copy of the network on the GPU is released; the stack may exist for long.
        animation.model = model
    return RunResult(animations, shown, problem)


def _computations(
    request: RunRequest, animations: list[Animation], region: Region, progress: Progress
) -> list[Callable[[], Any]]:
    """Return the computations of findings; masks come first, as a cancel skips the rest."""
    seed = request.settings["seed"]
    computations: list[Callable[[], Any]] = []
    if request.mask is not None:
        computations += [partial(_localise, a, request.mask, region) for a in animations]
    for finding in request.findings:
        arguments = finding.arguments({"seed": seed, "progress": progress})
        computations += [
            partial(_find, a, finding, arguments, request.mask, region) for a in animations
        ]
    return computations


def _find(
    animation: Animation,
    finding: FindingRequest,
    arguments: dict[str, Any],
    mask: Mask | None,
    region: Region,
) -> None:
    if finding.kind.needs_mask:
        if mask is None:
            raise ScoreError(f"{finding.kind.title}: choose a Labels layer as the mask.")
        arguments = arguments | {"mask": mask.read(region)}
    animation.find(finding.name, **arguments)


def _compute(computations: Iterable[Callable[[], Any]]) -> str:
    """Call each computation, and return the messages of those that fail."""
    from camanim.model_state import is_out_of_memory

    problems = []
    for computation in computations:
        try:
            computation()
        except Cancelled:
            break
        except CamError as error:
            problems.append(str(error))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            problems.append("There is not enough memory to score the maps.")
    return " ".join(dict.fromkeys(problems))


def _localise(animation: Animation, mask: Mask, region: Region) -> None:
    animation.localise(mask.read(region))


def localise(animation: Animation, mask: Mask | None, region: Region) -> tuple[str, str]:
    """Compare the maps with another mask, or with none; return the summary and error messages."""
    # Those of the mask before.
    for key in [key for key, f in animation.findings.items() if find_kind(f.kind).needs_mask]:
        animation.findings.pop(key)
    if mask is None:
        return "No mask.", ""
    problem = _compute([partial(_localise, animation, mask, region)])
    return "" if animation.localisation is None else animation.localisation.summary(), problem


def predict(
    request: RunRequest, networks: Networks, progress: Progress
) -> tuple[list[Prediction], list[str] | None]:
    """Return the five likeliest classes, and the names of all classes."""
    model = networks.load(request.network, progress)
    shown, preprocessing = request.input_for(model)
    progress("predict", 0, 0)
    device = request.settings["device"]
    return model.to(device).predict(shown.pixels, 5, **preprocessing), model.classes


def devices() -> list[str]:
    """Return the names of available devices; imports torch."""
    import torch

    mps = getattr(torch.backends, "mps", None)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": mps and mps.is_available()}
    return [name for name, is_available in available.items() if is_available]


def summary(result: RunResult) -> str:
    """Return the message of the dock after a run."""
    animations = result.animations
    first = animations[0]
    size = f"{len(first)} layers"
    if len(animations) > 1:
        size = f"{len(animations)} stacks, the first of {size}"
    if any(a.cancelled for a in animations):
        size = f"Cancelled: kept {size}"
    explained = (f"{a.target.name} ({a.target.unit} {a.probability:.3f})" for a in animations)
    lines = [f"{size}.", f"Explained: {'; '.join(explained)}."]
    lines += [finding.summary() for finding in first.findings.values()]
    lines += [*first.warnings, result.problem]
    lines += [note for a in animations for note in a.notes]
    if first.guided is not None:
        lines.append("The guided image is a hidden layer.")
    if first.model.name.startswith("demo/"):
        lines.append("A teaching aid, not for diagnosis.")
    return " ".join(filter(None, dict.fromkeys(lines)))
