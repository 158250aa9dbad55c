"""What runs in the thread: a question of the dock in, an answer of the engine out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from camanim.errors import CamError, Cancelled
from camanim.findings import FindingRequest
from camanim.progress import Progress
from napari_camanim._networks import ModelSpec, Networks
from napari_camanim._views import Mask, Part, Shown, View

if TYPE_CHECKING:
    from camanim import Animation, Model
    from camanim.models import Prediction


@dataclass(frozen=True)
class RunRequest:
    """What the dock asks, noted when a button is pressed.

    Attributes
    ----------
    network : ModelSpec
    view : View
        Of the image.
    slices : bool
        Whether a 2-D network is to see every slice.
    targets : list
        One stack for each.
    method : str
    settings : dict
        Those of `camanim.animate`.
    findings : list of FindingRequest
        What is computed about the maps.
    mask : Mask or None
        What the maps are compared with.
    """

    network: ModelSpec
    view: View
    slices: bool = False
    targets: list[Any] = field(default_factory=lambda: [None])
    method: str = "GradCAM"
    settings: dict[str, Any] = field(default_factory=dict)
    findings: list[FindingRequest] = field(default_factory=list)
    mask: Mask | None = None

    def shown_to(self, model: Model) -> tuple[Shown, dict[str, Any]]:
        """Read what a network is to see, and say how it sees it."""
        slices = self.slices and model.dims == 2
        shown = self.view.read(3 if slices else model.dims)
        return shown, {"fit": self.settings["fit"], "window": shown.window, "slices": slices}


@dataclass(frozen=True)
class Explained:
    """The answer: one animation for each target, and why what was asked of them is not there."""

    animations: list[Animation]
    shown: Shown
    problem: str = ""


def explain(question: RunRequest, networks: Networks, progress: Progress) -> Explained:
    """Make the maps, and measure what is asked; a cancel keeps what there is."""
    from camanim.animation import animate_targets

    model = networks.load(question.network, progress)
    shown, seen = question.shown_to(model)
    animations = animate_targets(
        model,
        shown.pixels,
        question.targets,
        method=question.method,
        **question.settings | seen,
        progress=progress,
    )
    problem = ""
    cancelled = len(animations) < len(question.targets) or any(a.cancelled for a in animations)
    if not cancelled:
        problem = _measure(_computations(question, animations, shown.part, progress))
    for animation in animations:
        # A copy on the GPU would stay there for as long as its stack does.
        animation.model = model
    return Explained(animations, shown, problem)


def _computations(
    request: RunRequest, animations: list[Animation], part: Part, progress: Progress
) -> list[Callable[[], Any]]:
    """List what is to be computed, comparisons with a mask first: a cancel ends all that comes after."""
    seed = request.settings["seed"]
    computations: list[Callable[[], Any]] = []
    if request.mask is not None:
        computations += [partial(_compare, a, request.mask, part) for a in animations]
    for finding in request.findings:
        arguments = finding.arguments({"seed": seed, "progress": progress})
        computations += [partial(a.find, finding.name, **arguments) for a in animations]
    return computations


def _measure(measurements: Iterable[Callable[[], Any]]) -> str:
    """Measure; return what was in the way, as the maps are kept without."""
    from camanim.model_state import is_out_of_memory

    problems = []
    for measurement in measurements:
        try:
            measurement()
        except Cancelled:
            break
        except CamError as error:
            problems.append(str(error))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            problems.append("There is not enough memory to measure the maps.")
    return " ".join(dict.fromkeys(problems))


def _compare(animation: Animation, mask: Mask, part: Part) -> None:
    animation.localise(mask.read(part))


def localise(animation: Animation, mask: Mask | None, part: Part) -> tuple[str, str]:
    """Compare the maps with another mask, or with none; return the summary and what went wrong."""
    animation.findings.pop("localisation", None)
    if mask is None:
        return "No mask.", ""
    problem = _measure([partial(_compare, animation, mask, part)])
    return "" if animation.localisation is None else animation.localisation.summary(), problem


def predict(
    question: RunRequest, networks: Networks, progress: Progress
) -> tuple[list[Prediction], list[str] | None]:
    """Ask for the five likeliest classes; the names of all come along."""
    model = networks.load(question.network, progress)
    shown, seen = question.shown_to(model)
    progress("predict", 0, 0)
    device = question.settings["device"]
    return model.to(device).predict(shown.pixels, 5, **seen), model.classes


def devices() -> list[str]:
    """List where this computer can compute; imports torch."""
    import torch

    mps = getattr(torch.backends, "mps", None)
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": mps and mps.is_available()}
    return [name for name, there in found.items() if there]


def summary(explained: Explained) -> str:
    """Say in a few sentences what was found."""
    animations = explained.animations
    first = animations[0]
    said = f"{len(first)} layers"
    if len(animations) > 1:
        said = f"{len(animations)} stacks, the first of {said}"
    if any(a.cancelled for a in animations):
        said = f"Cancelled: kept {said}"
    lines = [f"{said}."]
    lines += [finding.summary() for finding in first.findings.values()]
    lines += [*first.warnings, explained.problem]
    lines += [note for a in animations for note in a.notes]
    if first.guided is not None:
        lines.append("The guided image is a hidden layer of its own.")
    if first.model.name.startswith("demo/"):
        lines.append("A teaching aid, not a diagnosis.")
    return " ".join(filter(None, dict.fromkeys(lines)))
