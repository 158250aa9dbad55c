"""ROAD over all layers: perturb, predict, compare.

For each map and each percentile the most relevant pixels are removed (MoRF), and then, apart from that,
the least relevant ones (LeRF). A map that explains the prediction loses probability in the first case
and keeps it in the second: its score is the mean over percentiles of ``(LeRF - MoRF) / 2``, where MoRF
and LeRF stand for the target's probability after removal. The probability before cancels.

What runs the network is imported within functions, so that the settings can be listed without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt

from camanim.declarations import NotNegative, Positive, Range, Seed, checked
from camanim.errors import Cancelled, ScoreError
from camanim.findings import register_finding
from camanim.precision import Precision
from camanim.progress import Progress, silent
from camanim.road.imputation import Imputer
from camanim.road.plan import Entry, Plan
from camanim.road.random_baseline import random_maps
from camanim.road.result import CANCELLED, CONSTANT, NO_ANSWER, NOT_FINITE, NOTHING_POSITIVE, Road
from camanim.road.settings import MemoryFormat, ScoringSettings
from camanim.stack import FloatMap, relevance

if TYPE_CHECKING:
    import torch
    from torch import nn

    from camanim.result import Result
    from camanim.road.cache import Values
    from camanim.road.inference_settings import InferenceOverrides, InferenceSettings
    from camanim.road.predictor import Predictor

Floats = npt.NDArray[np.float64]


@register_finding(Road)
@checked(ScoreError)
def score(
    result: Result,
    seed: Seed = 0,
    repeats: Annotated[int, Range(1, 1000)] = 1,
    baseline: bool = True,
    percentiles: Annotated[tuple[float, ...], Range(0.01, 99.99)] = (20, 40, 60, 80),
    *,
    draws: Annotated[int, Range(2, 1000)] = 8,
    noise: NotNegative = 0.01,
    imputer: Imputer | None = None,
    batch_size: Positive | None = None,
    memory_format: MemoryFormat | None = None,
    precision: Precision | None = None,
    progress: Progress = silent,
) -> Road:
    """Score how well each layer's map explains the target with ROAD.

    Identical masks are imputed and predicted once, whichever layer they come from, and what was
    predicted before for the same image and target is looked up. All masks of a repeat share one field
    of noise and one tie-break, so that layers differ by their maps alone.

    Parameters
    ----------
    result : Result
    seed : int
        Seed of the tie-break among equal pixels, of the noise on imputed pixels, and of random maps.
    repeats : int
        How often all is scored, with the seeds from `seed` on; 3 show how far a score spreads.
    baseline : bool
        Score random maps of each layer's resolution too: what chance scores.
    percentiles : sequence of float
        Shares of the pixels, in percent, that are *kept*.
    draws : int
        Random maps per resolution, for the baseline.
    noise : float
        Standard deviation of the noise on imputed pixels, in units of the network's input.
    imputer : Imputer, optional
        Fills removed pixels; by default each becomes the weighted mean of its neighbours, as in the
        paper (`camanim.road.MultigridImputer`).
    batch_size : int, optional
        Perturbed images per forward pass. By default this, and the next two, are found by a short
        measurement, once per machine and network; `Road.settings` says what was taken.
    memory_format : {"own", "contiguous", "channels_last"}, optional
        Memory format of the network: "own" is the network itself, the others are of a copy with its
        batch normalisations folded.
    precision : {"float32", "bfloat16", "float16"}, optional
        Precision of autocast. By default half precision is taken only where it is faster and moves a few
        images' values by no more than 0.002.
    progress : Progress
        Called after every batch. When it raises `Cancelled`, the layers scored so far are kept and the
        others are NaN; where no layer is scored yet, `Cancelled` is raised.

    Returns
    -------
    Road

    Raises
    ------
    ScoreError
        When no layer can be scored, or a setting is of the wrong type or out of range.
    """
    settings = ScoringSettings(
        seed=seed,
        repeats=repeats,
        percentiles=percentiles,
        draws=draws if baseline else 0,
        noise=noise,
        imputer=imputer,
        batch_size=batch_size,
        memory_format=memory_format,
        precision=precision,
    )
    return score_maps(result, settings, progress)


def score_maps(result: Result, scoring: ScoringSettings, progress: Progress) -> Road:
    """Score the maps of a result with settings that were checked; see `score`."""
    check_scorable(result)
    size = tuple(result.tensor.shape[2:])
    entries, undefined, chance = _entries(result.maps, size, scoring)
    plan = Plan(entries, size, scoring.percentiles, scoring.seeds, progress)
    values, asked, facts = _predict_all(result, scoring, plan, progress)
    morfs, lerfs = plan.look_up(values)
    predicted = np.stack(plan.look_up(asked))
    count = len(result.maps)
    for i in range(count):
        if undefined[i] is None and (predicted[:, :, i] == 0).any():
            undefined[i] = CANCELLED
        elif undefined[i] is None and np.isnan(morfs[:, i] + lerfs[:, i]).any():
            undefined[i] = NO_ANSWER
    # Each random map takes part in one repeat.
    drawn = np.nanmax(((lerfs - morfs) / 2).mean(axis=2), axis=0, initial=-np.inf)
    drawn = np.where(np.isfinite(drawn), drawn, np.nan)
    return Road(
        layers=result.layers,
        percentiles=scoring.percentiles,
        morfs=morfs[:, :count],
        lerfs=lerfs[:, :count],
        undefined=tuple(undefined),
        chance=drawn[chance],
        seed=scoring.seed,
        noise=scoring.noise,
        unit=result.target.unit,
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
    maps: Sequence[FloatMap], size: tuple[int, ...], scoring: ScoringSettings
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
    draws = scoring.draws
    places: dict[tuple[int, ...], list[int]] = {}
    for raw, why in zip(maps, undefined, strict=True):
        if why is None and raw.shape not in places:
            drawn = random_maps(raw.shape, draws, scoring.seed)
            places[raw.shape] = [len(entries) + d for d in range(len(drawn))]
            entries += [Entry(own, (d % scoring.repeats,)) for d, own in enumerate(drawn)]
    # An undefined layer is its own, undefined, baseline.
    chance = [[i] * draws if undefined[i] else places[raw.shape] for i, raw in enumerate(maps)]
    return entries, undefined, np.array(chance, np.intp).reshape(len(maps), draws)


def _predict_all(
    result: Result, scoring: ScoringSettings, plan: Plan, progress: Progress
) -> tuple[Floats, Floats, dict[str, Any]]:
    """Find the values of all perturbed images, which of them were, and what a `Road` tells of the way.

    On a cancel what was predicted so far is kept; the others are NaN.
    """
    from camanim.road.cache import known_values
    from camanim.road.inference_settings import InferenceOverrides
    from camanim.road.multigrid import MultigridImputer
    from camanim.road.predictor import Predictor

    model = result.model
    forward = model.forward()
    image = result.tensor.to(model.device, model.dtype)
    imputer = scoring.imputer or MultigridImputer()
    progress("prepare", 0, 0)
    with forward.evaluating(tuple(image.shape)):
        predictor = Predictor(forward, image, result.target, scoring.noise, imputer)
        report = partial(progress, "prepare", 0, 0)
        fixed = InferenceOverrides(scoring.batch_size, scoring.memory_format, scoring.precision)
        chosen = _inference_settings(predictor, fixed, plan, (forward.net, image), report)
        predictor.take(chosen)
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


def _inference_settings(
    predictor: Predictor,
    fixed: InferenceOverrides,
    plan: Plan,
    on: tuple[nn.Module, torch.Tensor],
    report: Callable[[], None],
) -> InferenceSettings:
    """Choose how the network is run: as the caller fixed it, as before, or as measured."""
    from camanim.road.cache import machine_and_network, recall_form, remember_form
    from camanim.road.inference_settings import InferenceSettings
    from camanim.road.predictor import BUDGET, FEW

    count = len(plan.keys)
    if predictor.alone:
        return replace(fixed.on(InferenceSettings()), batch_size=1)
    if count < FEW or None not in (fixed.batch_size, fixed.memory_format, fixed.precision):
        return fixed.on(InferenceSettings())
    name = machine_and_network(*on, fixed)
    chosen = recall_form(name)
    if chosen is not None and chosen.precision == "float32" and predictor.has(chosen):
        return chosen
    samples, _ = plan.images(range(0, count, max(count // 16, 1))[:16])
    measurement = predictor.measurement(samples, BUDGET * count, report)
    if chosen is None or not measurement.holds(chosen):
        chosen = measurement.best(fixed)
        remember_form(name, chosen)
    return chosen


def _predict(predictor: Predictor, plan: Plan, known: Values, progress: Progress) -> None:
    """Predict what is not known yet, batch by batch."""
    from camanim.model_state import run_callback

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
