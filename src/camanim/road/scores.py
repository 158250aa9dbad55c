"""ROAD over all layers: perturb, predict, compare.

For each map and each percentile the most relevant pixels are removed (MoRF), and then, apart from that,
the least relevant ones (LeRF). A map that explains the prediction loses probability in the first case
and keeps it in the second: its score is the mean over percentiles of ``(LeRF - MoRF) / 2``, where MoRF
and LeRF stand for the target's probability after removal. The probability before cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import Cancelled, ScoreError
from camanim.model_state import run_callback
from camanim.progress import Progress
from camanim.road.cache import (
    Values,
    known_values,
    machine_and_network,
    recall_form,
    remember_form,
)
from camanim.road.imputation import Imputer
from camanim.road.inference_settings import InferenceOverrides, InferenceSettings, MemoryFormat
from camanim.road.multigrid import MultigridImputer
from camanim.road.plan import Entry, Plan
from camanim.road.predictor import BUDGET, FEW, Predictor
from camanim.road.random_baseline import random_maps
from camanim.road.result import CANCELLED, CONSTANT, NO_ANSWER, NOT_FINITE, NOTHING_POSITIVE, Road
from camanim.stack import FloatMap, relevance

if TYPE_CHECKING:
    import torch
    from torch import nn

    from camanim.execution.forward import Precision
    from camanim.result import Result

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scoring:
    """How layers are scored: the keywords of `Animation.score`.

    Raises
    ------
    ScoreError
        Where one is out of range.
    """

    seed: int = 0
    repeats: int = 1
    baseline: bool = True
    percentiles: Sequence[float] = (20, 40, 60, 80)
    draws: int = 8
    noise: float = 0.01
    imputer: Imputer | None = None
    batch_size: int | None = None
    memory_format: MemoryFormat | None = None
    precision: Precision | None = None

    def __post_init__(self) -> None:
        for name in ("seed", "repeats", "draws"):
            if not isinstance(getattr(self, name), int | np.integer):
                raise ScoreError(f"{name} is a whole number, not {getattr(self, name)!r}.")
        if self.seed < 0:
            raise ScoreError("The seed is 0 or more.")
        if not self.shares or not all(0 < p < 100 for p in self.shares):
            raise ScoreError("Percentiles are shares of kept pixels, each between 0 and 100.")
        if not (np.isfinite(self.noise) and self.noise >= 0):
            raise ScoreError("The noise is a standard deviation: 0 or more.")
        if self.repeats < 1:
            raise ScoreError("There is 1 repeat at least; 3 tell how far a score spreads.")
        if self.baseline and self.draws < 2:
            raise ScoreError(
                "A baseline takes 2 random maps at least, to tell how far they spread."
            )
        # Checked when it is made.
        assert self.wish is not None

    @property
    def shares(self) -> tuple[float, ...]:
        """The percentiles as numbers."""
        try:
            return tuple(float(p) for p in self.percentiles)
        except (TypeError, ValueError) as error:
            raise ScoreError(
                "Percentiles are several numbers, such as (20, 40, 60, 80)."
            ) from error

    @property
    def wish(self) -> InferenceOverrides:
        """What is fixed of the form in which the network is asked."""
        return InferenceOverrides(self.batch_size, self.memory_format, self.precision)

    @property
    def seeds(self) -> tuple[int, ...]:
        """One seed per repeat."""
        return tuple(range(self.seed, self.seed + self.repeats))


def score(result: Result, scoring: Scoring, progress: Progress) -> Road:
    """Score the maps of a result with ROAD; see `Animation.score`.

    Identical masks are imputed and predicted once, whichever layer they come from, and what was
    predicted before for the same image and target is looked up. All masks of a repeat share one field
    of noise and one tie-break, so that layers differ by their maps alone.
    """
    check_scorable(result)
    size = tuple(result.tensor.shape[2:])
    entries, undefined, chance = _entries(result.maps, size, scoring)
    plan = Plan(entries, size, scoring.shares, scoring.seeds, progress)
    values, asked, facts = _ask(result, scoring, plan, progress)
    morfs, lerfs = plan.look_up(values)
    there = np.stack(plan.look_up(asked))
    count = len(result.maps)
    for i in range(count):
        if undefined[i] is None and (there[:, :, i] == 0).any():
            undefined[i] = CANCELLED
        elif undefined[i] is None and np.isnan(morfs[:, i] + lerfs[:, i]).any():
            undefined[i] = NO_ANSWER
    # Each random map takes part in one repeat.
    drawn = np.nanmax(((lerfs - morfs) / 2).mean(axis=2), axis=0, initial=-np.inf)
    drawn = np.where(np.isfinite(drawn), drawn, np.nan)
    return Road(
        layers=result.layers,
        percentiles=scoring.shares,
        morfs=morfs[:, :count],
        lerfs=lerfs[:, :count],
        undefined=tuple(undefined),
        chance=drawn[chance],
        seed=scoring.seed,
        noise=scoring.noise,
        **facts,
    )


def check_scorable(result: Result) -> None:
    """Refuse what cannot be scored.

    Raises
    ------
    ScoreError
    """
    if not result.maps:
        raise ScoreError("There is no map to score: no selected layer has one.")
    if result.extremes is not None:
        raise ScoreError("ROAD scores a volume as a whole: score that, not one of its planes.")
    if len(result.tensor) > 1:
        raise ScoreError(
            f"ROAD scores the explanation of one prediction, and this is of {len(result.tensor)} "
            "slices: animate the slice in question."
        )


def why_undefined(raw: FloatMap, size: tuple[int, ...]) -> str | None:
    """Say why a map has no score at the network's input size; None where it has one."""
    if not np.isfinite(raw).all():
        return NOT_FINITE
    large = relevance(raw, size)
    # Also where the map has more cells than the input, and its only positive ones get lost.
    if large.max() <= 0:
        return NOTHING_POSITIVE
    return CONSTANT if large.min() == large.max() else None


def _entries(
    maps: Sequence[FloatMap], size: tuple[int, ...], scoring: Scoring
) -> tuple[list[Entry], list[str | None], npt.NDArray[np.intp]]:
    """List what is scored: the layers' maps, and after them random ones of every resolution.

    Returns
    -------
    entries : list of Entry
    undefined : list of (str or None)
    chance : (L, D) int
        Which entries are random maps of each layer's resolution.
    """
    every = tuple(range(scoring.repeats))
    undefined = [why_undefined(raw, size) for raw in maps]
    entries = [Entry(raw, () if why else every) for raw, why in zip(maps, undefined, strict=True)]
    draws = scoring.draws if scoring.baseline else 0
    places: dict[tuple[int, ...], list[int]] = {}
    for raw, why in zip(maps, undefined, strict=True):
        if why is None and raw.shape not in places:
            drawn = random_maps(raw.shape, draws, scoring.seed)
            places[raw.shape] = [len(entries) + d for d in range(len(drawn))]
            entries += [Entry(own, (d % scoring.repeats,)) for d, own in enumerate(drawn)]
    # An undefined layer is its own, undefined, baseline.
    chance = [[i] * draws if undefined[i] else places[raw.shape] for i, raw in enumerate(maps)]
    return entries, undefined, np.array(chance, np.intp).reshape(len(maps), draws)


def _ask(
    result: Result, scoring: Scoring, plan: Plan, progress: Progress
) -> tuple[Floats, Floats, dict[str, Any]]:
    """Find the values of all perturbed images, which of them were, and what a `Road` tells of the way.

    On a cancel what was predicted so far is kept; the others are NaN.
    """
    model = result.model
    forward = model.forward()
    image = result.tensor.to(model.device, model.dtype)
    imputer = scoring.imputer or MultigridImputer()
    progress("prepare", 0, 0)
    with forward.evaluating(tuple(image.shape)):
        predictor = Predictor(forward, image, result.target, scoring.noise, imputer)
        report = partial(progress, "prepare", 0, 0)
        predictor.take(_form(predictor, scoring.wish, plan, (forward.net, image), report))
        about = (predictor.before, scoring.noise, predictor.form)
        known = known_values(model, image, result.target, imputer, about)
        already = len(known)
        with suppress(Cancelled):
            _predict(predictor, plan, known, progress)
    values = np.array([known.get(key, np.nan) for key in plan.keys], np.float64)
    asked = np.array([key in known for key in plan.keys], np.float64)
    facts = {
        "probability": predictor.before,
        "forwards": len(known) - already,
        "settings": asdict(predictor.form),
    }
    return values, asked, facts


def _form(
    predictor: Predictor,
    wish: InferenceOverrides,
    plan: Plan,
    on: tuple[nn.Module, torch.Tensor],
    report: Callable[[], None],
) -> InferenceSettings:
    """Choose in which form the network is asked: as the caller wishes, as before, or as measured."""
    count = len(plan.keys)
    if predictor.alone:
        return replace(wish.on(InferenceSettings()), batch_size=1)
    if count < FEW or None not in astuple(wish):
        return wish.on(InferenceSettings())
    name = machine_and_network(*on, wish)
    form = recall_form(name)
    if form is not None and form.precision == "float32" and predictor.has(form):
        return form
    samples, _ = plan.images(range(0, count, max(count // 16, 1))[:16])
    measurement = predictor.measurement(samples, BUDGET * count, report)
    if form is None or not measurement.holds(form):
        form = measurement.best(wish)
        remember_form(name, form)
    return form


def _predict(predictor: Predictor, plan: Plan, known: Values, progress: Progress) -> None:
    """Predict what is not known yet, batch by batch."""
    todo = [i for i, key in enumerate(plan.keys) if key not in known]
    done = len(plan.keys) - len(todo)
    run_callback(progress, "ROAD", done, len(plan.keys))
    while todo:
        batch, todo = todo[: predictor.at_once], todo[predictor.at_once :]
        keys = [plan.keys[i] for i in batch]
        values = predictor(*plan.images(batch), [key.seed for key in keys])
        known.update(zip(keys, values.tolist(), strict=True))
        done += len(batch)
        run_callback(progress, "ROAD", done, len(plan.keys))
