"""What runs in the thread: a question of the dock in, an answer of the engine out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from camanim.errors import Cancelled, OutOfMemory, ScoreError
from camanim.progress import Progress
from napari_camanim._layers import Shown, View
from napari_camanim._networks import Asked, Networks

if TYPE_CHECKING:
    from camanim import Animation, Model
    from camanim.models import Prediction


@dataclass(frozen=True)
class Question:
    """What the dock asks, noted when a button is pressed.

    Attributes
    ----------
    network : Asked
    view : View
        Of the image.
    slices : bool
        Whether a 2-D network is to see every slice.
    targets : list
        One stack for each.
    method : str
    settings : dict
        Those of `camanim.animate`.
    road : bool
        Whether to score the layers.
    """

    network: Asked
    view: View
    slices: bool = False
    targets: list[Any] = field(default_factory=lambda: [None])
    method: str = "GradCAM"
    settings: dict[str, Any] = field(default_factory=dict)
    road: bool = False

    def shown_to(self, model: Model) -> tuple[Shown, dict[str, Any]]:
        """Read what a network is to see, and say how it sees it."""
        slices = self.slices and model.dims == 2
        shown = self.view.read(3 if slices else model.dims)
        return shown, {"fit": self.settings["fit"], "window": shown.window, "slices": slices}


@dataclass(frozen=True)
class Explained:
    """The answer: one animation for each target, and why they have no scores if they should."""

    animations: list[Animation]
    shown: Shown
    problem: str = ""


def explain(question: Question, networks: Networks, progress: Progress) -> Explained:
    """Make the maps, and score them; a cancel keeps what there is."""
    from camanim.pipeline import animate_targets

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
    if question.road and not cancelled:
        problem = _score(animations, question.settings, progress)
    for animation in animations:
        # A copy on the GPU would stay there for as long as its stack does.
        animation.model = model
    return Explained(animations, shown, problem)


def _score(animations: list[Animation], settings: dict[str, Any], progress: Progress) -> str:
    """Score all; return what was in the way, as the maps are kept without scores."""
    try:
        for animation in animations:
            animation.score(settings["seed"], batch_size=settings["batch_size"], progress=progress)
    except Cancelled:
        return ""
    except (ScoreError, OutOfMemory) as error:
        return str(error)
    except MemoryError:
        return "There is not enough memory to score the layers."
    return ""


def predict(
    question: Question, networks: Networks, progress: Progress
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
    """Say in a sentence or two what was found."""
    animations = explained.animations
    first = animations[0]
    said = f"{len(first)} layers"
    if len(animations) > 1:
        said = f"{len(animations)} stacks, the first of {said}"
    if any(a.cancelled for a in animations):
        said = f"Cancelled: kept {said}"
    road = first.road
    if road is not None and road.best is not None:
        kept = "" if road.complete else " of the layers scored so far"
        said += f"; ybROAD mean {road.mean:.3f}, best {road.best.label} {road.max:.3f}{kept}"
    more = [explained.problem, *dict.fromkeys(note for a in animations for note in a.notes)]
    if first.guided is not None:
        more.append("The guided image is a hidden layer of its own.")
    if first.model.name.startswith("demo/"):
        more.append("A teaching aid, not a diagnosis.")
    return " ".join([f"{said}.", *filter(None, more)])
