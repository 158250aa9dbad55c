"""What runs in the thread: a question of the dock in, an answer of the engine out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from camanim.errors import CamError, Cancelled
from camanim.progress import Progress
from napari_camanim._networks import ModelSpec, Networks
from napari_camanim._scoring import ScoringSettings
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
    road : bool
        Whether to score the layers.
    wanted : ScoringSettings
        How, and what else is measured.
    mask : Mask or None
        What the maps are compared with.
    """

    network: ModelSpec
    view: View
    slices: bool = False
    targets: list[Any] = field(default_factory=lambda: [None])
    method: str = "GradCAM"
    settings: dict[str, Any] = field(default_factory=dict)
    road: bool = False
    wanted: ScoringSettings = field(default_factory=ScoringSettings)
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
    if not cancelled:
        problem = _measure(_asked(question, animations, shown.part, progress))
    for animation in animations:
        # A copy on the GPU would stay there for as long as its stack does.
        animation.model = model
    return Explained(animations, shown, problem)


def _asked(
    question: RunRequest, animations: list[Animation], part: Part, progress: Progress
) -> list[Callable[[], Any]]:
    """List what is to be measured, the quick things first: a cancel ends all that comes after."""
    wanted, seed = question.wanted, question.settings["seed"]
    measurements: list[Callable[[], Any]] = []
    if question.mask is not None:
        measurements += [partial(_compare, a, question.mask, part) for a in animations]
    if question.road:
        how: dict[str, Any] = {
            "repeats": wanted.repeats,
            "baseline": wanted.baseline,
            "progress": progress,
        }
        measurements += [partial(a.score, seed, **how) for a in animations]
    if wanted.checks:
        for a in animations:
            measurements.append(partial(a.check_randomisation, seed=seed, progress=progress))
            measurements.append(partial(a.check_labels, seed=seed, progress=progress))
    return measurements


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
    """Compare the maps with another mask, or with none; say what was found, and what is in the way."""
    animation.localisation = None
    if mask is None:
        return "No mask.", ""
    problem = _measure([partial(_compare, animation, mask, part)])
    return _sentence(_inside(animation)), problem


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
    found = "; ".join(filter(None, [said, _scored(first), _inside(first)]))
    checks = [check for check in (first.randomisation, first.labels) if check is not None]
    more = [*(check.verdict for check in checks), explained.problem]
    more += [note for a in animations for note in a.notes]
    if first.guided is not None:
        more.append("The guided image is a hidden layer of its own.")
    if first.model.name.startswith("demo/"):
        more.append("A teaching aid, not a diagnosis.")
    return " ".join([_sentence(found), *filter(None, dict.fromkeys(more))])


def _sentence(said: str) -> str:
    return said and f"{said[0].upper()}{said[1:]}."


def _scored(animation: Animation) -> str:
    road = animation.road
    if road is None or road.best_plain is None:
        return ""
    kept = "" if road.complete else " of the layers scored so far"
    said = f"ybROAD mean {road.mean:.3f}, "
    if road.best is None:
        return f"{said}no layer is above chance{kept}"
    at = road.layers.index(road.best)
    chance = "" if np.isnan(road.baseline[at]) else f" (chance {road.baseline[at]:.3f})"
    return f"{said}best {road.best.label} {road.scores[at]:.3f}{chance}{kept}"


def _inside(animation: Animation) -> str:
    found = animation.localisation
    if found is None or found.best is None:
        return ""
    precision = found.average_precision[found.layers.index(found.best)]
    return (
        f"closest to the mask {found.best.label}, average precision {precision:.2f} "
        f"(chance {found.share:.2f})"
    )
