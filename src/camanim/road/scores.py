"""ROAD scores of all layers.

For each map and each percentile the most relevant pixels are removed (MoRF), and, independently, the
least relevant pixels (LeRF). If the map explains the prediction, the target's probability decreases in
the first case but not in the second. The score is the mean over percentiles of ``(LeRF - MoRF) / 2``,
where MoRF and LeRF are the probabilities after removal; the probability before removal cancels.

Modules that import torch are imported within functions, so that settings can be listed without torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt

from camanim.declarations import NotNegative, Positive, Range, Seed
from camanim.errors import Cancelled, ScoreError
from camanim.findings import register_finding
from camanim.precision import Precision
from camanim.progress import Progress, silent
from camanim.road.imputation import Imputer
from camanim.road.masks import Masks
from camanim.road.plan import Entry, Plan
from camanim.road.random_baseline import random_maps
from camanim.road.result import (
    CANCELLED,
    CONSTANT,
    NOT_FINITE,
    NOTHING_POSITIVE,
    OUTPUT_NOT_FINITE,
    Road,
)
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
T = TypeVar("T")

#: Seconds between two reports of partial scores.
INTERVAL = 0.25


def passes(
    result: Result,
    repeats: Annotated[int, Range(1, 1000)] = 1,
    baseline: bool = True,
    percentiles: Annotated[tuple[float, ...], Range(0.01, 99.99)] = (20, 40, 60, 80),
    draws: Annotated[int, Range(2, 1000)] = 8,
) -> int:
    """Return the largest number of images that are predicted: equal masks are predicted once."""
    resolutions = {raw.shape for raw in result.maps if raw.size > 1}
    random = draws * len(resolutions) if baseline else 0
    return 2 * len(percentiles) * (repeats * len(result.maps) + random)


@register_finding(Road, passes=passes)
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
    partial_scores: Callable[[Road], None] | None = None,
) -> Road:
    """Score how well each layer's map explains the target with ROAD.

    Masks that occur in several layers are imputed and predicted once, and predictions are cached for the
    same image and target. All masks of a repeat share one noise field and one tie-break, so that layers
    differ only in their maps.

    Parameters
    ----------
    result : Result
    seed : int
        Seed of the tie-break among equal pixels, of the noise on imputed pixels, and of random maps.
    repeats : int
        Number of scorings, with consecutive seeds from `seed` on; 3 give an estimate of the spread.
    baseline : bool
        Score random maps at each layer's resolution too, as a reference.
    percentiles : sequence of float
        Percentages of the pixels that are kept.
    draws : int
        Number of random maps per resolution, for the baseline.
    noise : float
        Standard deviation of the noise on imputed pixels, in units of the network's input.
    imputer : Imputer, optional
        Fill removed pixels; by default with the weighted mean of their neighbours, as in the paper
        (`camanim.road.MultigridImputer`).
    batch_size : int, optional
        Perturbed images per forward pass. By default this and the next two settings are selected by a
        short benchmark, once per machine and network; see `Road.settings`.
    memory_format : {"own", "contiguous", "channels_last"}, optional
        Memory format: "own" runs the network unchanged, the others run a copy with folded batch
        normalisations.
    precision : {"float32", "bfloat16", "float16"}, optional
        Precision of autocast. By default half precision is used only if it is faster and changes the
        values of a few images by at most 0.002.
    progress : Progress
        Called after every batch. When it raises `Cancelled`, the layers scored so far are kept and the
        others are NaN; if no layer is scored yet, `Cancelled` is raised.
    partial_scores : callable, optional
        Called with the scores so far, at most every `INTERVAL` seconds, to show them while others are
        computed. Layers that are not scored yet are undefined.

    Returns
    -------
    Road

    Raises
    ------
    ScoreError
        If no layer can be scored, or a setting is of the wrong type or out of range.
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
    return score_maps(result, settings, progress, partial_scores)


def score_maps(
    result: Result,
    scoring: ScoringSettings,
    progress: Progress,
    partial_scores: Callable[[Road], None] | None = None,
) -> Road:
    """Return the ROAD scores of a result's maps with validated settings; see `score`."""
    check_scorable(result)
    size = tuple(result.tensor.shape[2:])
    entries, undefined, random = _entries(result.maps, size, scoring)
    plan = Plan(entries, size, scoring.percentiles, scoring.seeds, progress)
    road = partial(_road, result, scoring, plan, undefined, random)

    def predict(scorer: Scorer) -> Road:
        report = (
            progress
            if partial_scores is None
            else _Reporter(progress, partial_scores, scorer, road)
        )
        # After a cancel, the values predicted so far are kept and the others are NaN.
        with suppress(Cancelled):
            scorer.predict(plan, report)
        return road(scorer)

    return with_scorer(result, scoring, progress, predict)


class _Reporter:
    """Progress callback that also passes on the scores so far."""

    def __init__(
        self,
        progress: Progress,
        partial_scores: Callable[[Road], None],
        scorer: Scorer,
        road: Callable[[Scorer], Road],
    ) -> None:
        self._progress, self._partial_scores = progress, partial_scores
        self._scorer, self._road = scorer, road
        self._last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._progress(stage, done, total)
        if stage == "ROAD" and 0 < done < total and time.monotonic() - self._last > INTERVAL:
            self._partial_scores(self._road(self._scorer))
            self._last = time.monotonic()


def _road(
    result: Result,
    scoring: ScoringSettings,
    plan: Plan,
    undefined: Sequence[str | None],
    random: npt.NDArray[np.intp],
    scorer: Scorer,
) -> Road:
    """Return the scores by the values that are predicted so far."""
    values, predicted = scorer.values_of(plan)
    morfs, lerfs = plan.look_up(values)
    is_predicted = np.stack(plan.look_up(predicted))
    count = len(result.maps)
    reasons = list(undefined)
    for i in range(count):
        if reasons[i] is None and (is_predicted[:, :, i] == 0).any():
            reasons[i] = CANCELLED
        elif reasons[i] is None and np.isnan(morfs[:, i] + lerfs[:, i]).any():
            reasons[i] = OUTPUT_NOT_FINITE
    # Each random map is scored in one repeat and NaN in the others.
    single = np.nanmax(((lerfs - morfs) / 2).mean(axis=2), axis=0, initial=-np.inf)
    single = np.where(np.isfinite(single), single, np.nan)
    return Road(
        layers=result.layers,
        percentiles=scoring.percentiles,
        morfs=morfs[:, :count],
        lerfs=lerfs[:, :count],
        undefined=tuple(reasons),
        random_scores=single[random],
        seed=scoring.seed,
        noise=scoring.noise,
        unit=result.target.unit,
        probability=scorer.probability,
        forwards=scorer.forwards,
        settings=scorer.settings,
    )


def check_scorable(result: Result) -> None:
    """Raise `ScoreError` if a result cannot be scored."""
    if not result.maps:
        raise ScoreError("None of the selected layers has a map to score.")
    if result.extremes is not None:
        raise ScoreError("A single plane cannot be scored: score the result of the whole volume.")
    if len(result.tensor) > 1:
        raise ScoreError(
            f"ROAD scores the maps of a single prediction, not of {len(result.tensor)} slices: "
            "animate one slice."
        )


def why_undefined(raw: FloatMap, size: tuple[int, ...]) -> str | None:
    """Return the reason why a map has no score at the network's input size; None if it has one."""
    if not np.isfinite(raw).all():
        return NOT_FINITE
    large = relevance(raw, size)
    # Downsampling can remove the positive cells of a map larger than the input.
    if large.max() <= 0:
        return NOTHING_POSITIVE
    return CONSTANT if large.min() == large.max() else None


def _entries(
    maps: Sequence[FloatMap], size: tuple[int, ...], scoring: ScoringSettings
) -> tuple[list[Entry], list[str | None], npt.NDArray[np.intp]]:
    """Return the maps to score: those of the layers, then random maps of each resolution.

    Returns
    -------
    entries : list of Entry
    undefined : list of (str or None)
        Reason why a layer has no score.
    random : (L, D) int
        Indices of the random maps at each layer's resolution.
    """
    repeats = tuple(range(scoring.repeats))
    undefined = [why_undefined(raw, size) for raw in maps]
    entries = [Entry(raw, () if why else repeats) for raw, why in zip(maps, undefined, strict=True)]
    draws = scoring.draws
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for raw, why in zip(maps, undefined, strict=True):
        if why is None and raw.shape not in by_shape:
            drawn = random_maps(raw.shape, draws, scoring.seed)
            by_shape[raw.shape] = [len(entries) + d for d in range(len(drawn))]
            entries += [Entry(each, (d % scoring.repeats,)) for d, each in enumerate(drawn)]
    # The index of an undefined layer selects NaN as its baseline.
    random = [[i] * draws if undefined[i] else by_shape[raw.shape] for i, raw in enumerate(maps)]
    return entries, undefined, np.array(random, np.intp).reshape(len(maps), draws)


def with_scorer(
    result: Result,
    scoring: ScoringSettings,
    progress: Progress,
    function: Callable[[Scorer], T],
    expected: int = 0,
) -> T:
    """Prepare the network of a result for perturbed images, and call a function with the scorer.

    No other thread uses the network meanwhile.

    Parameters
    ----------
    result : Result
    scoring : ScoringSettings
    progress : Progress
    function : callable
    expected : int
        Number of images over all plans that will be predicted, if there are several.

    Returns
    -------
    object
        What the function returns.
    """
    from camanim.exclusive import exclusively
    from camanim.execution.fast_copy import FACTORS
    from camanim.models.fitting import fitting_images
    from camanim.road.multigrid import MultigridImputer
    from camanim.road.predictor import LARGE_BATCH, Predictor

    model = result.model
    forward = model.forward()
    image = result.tensor.to(model.device, model.dtype)
    imputer = scoring.imputer or MultigridImputer()

    def run() -> T:
        progress("prepare", 0, 0)
        with forward.evaluating(tuple(image.shape)):
            at_least = len(FACTORS)
            fitting = fitting_images(model, image, LARGE_BATCH, gradients=False, at_least=at_least)
            predictor = Predictor(forward, image, result.target, scoring.noise, imputer)
            scorer = Scorer(result, scoring, (forward.net, image), imputer, predictor, expected)
            if fitting < LARGE_BATCH:
                scorer.limit = fitting
                size = min(predictor.settings.batch_size, fitting)
                predictor.use(replace(predictor.settings, batch_size=size))
            return function(scorer)

    # Lets the caller cancel while another thread uses the network.
    return exclusively(forward.net, run, partial(progress, "wait", 0, 0))


class Scorer:
    """Predictions of perturbed images for one result; see `with_scorer`.

    Attributes
    ----------
    limit : int or None
        Number of images that fit into memory at once, if it is known to be small.
    """

    def __init__(
        self,
        result: Result,
        scoring: ScoringSettings,
        net_and_image: tuple[nn.Module, torch.Tensor],
        imputer: Imputer,
        predictor: Predictor,
        expected: int,
    ) -> None:
        self._result, self._scoring, self._imputer = result, scoring, imputer
        self._net_and_image, self._predictor, self._expected = net_and_image, predictor, expected
        self._cached: Values | None = None
        self._cached_before = 0
        self.limit: int | None = None

    @property
    def forwards(self) -> int:
        """Number of images that were predicted, and not taken from the cache."""
        return len(self._cached or {}) - self._cached_before

    @property
    def probability(self) -> float:
        """The target's value for the unperturbed image."""
        return self._predictor.before

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the forward passes, as `Road.settings`."""
        return asdict(self._predictor.settings)

    def predict(self, plan: Plan, progress: Progress) -> None:
        """Predict the images of a plan that were not predicted before.

        Raises
        ------
        Cancelled
            If the caller cancels; what was predicted until then is kept.
        """
        _predict(self._predictor, plan, self._prepared(plan, progress), progress)

    def values_of(self, plan: Plan) -> tuple[Floats, Floats]:
        """Return the values of a plan's images, NaN if not predicted, and 1 where they are."""
        cached = self._cached or {}
        values = np.array([cached.get(key, np.nan) for key in plan.keys], np.float64)
        return values, np.array([key in cached for key in plan.keys], np.float64)

    def scores(self, maps: Sequence[FloatMap], progress: Progress) -> Floats:
        """Return the score of each map with the first seed, (N,); NaN where undefined."""
        size = tuple(self._result.tensor.shape[2:])
        entries = [Entry(raw, () if why_undefined(raw, size) else (0,)) for raw in maps]
        seeds = self._scoring.seeds[:1]
        plan = Plan(entries, size, self._scoring.percentiles, seeds, silent)
        self.predict(plan, progress)
        morfs, lerfs = plan.look_up(self.values_of(plan)[0])
        return np.asarray(((lerfs - morfs) / 2).mean(axis=2)[0])

    def values_without(self, removed: Masks, seed: int) -> Floats:
        """Return the target's value without each of these regions, (N,).

        Parameters
        ----------
        removed : (N, *S) bool array
            Pixels that are imputed.
        seed : int
            Of the noise on them.
        """
        return self._predictor(~removed, np.arange(len(removed)), [seed] * len(removed))

    def _prepared(self, plan: Plan, progress: Progress) -> Values:
        """Return the values predicted before, after the settings of the forward passes are chosen."""
        from camanim.road.cache import cached_values
        from camanim.road.inference_settings import InferenceOverrides

        if self._cached is None:
            scoring, predictor = self._scoring, self._predictor
            report = partial(progress, "prepare", 0, 0)
            fixed = InferenceOverrides(scoring.batch_size, scoring.memory_format, scoring.precision)
            count = max(len(plan.keys), self._expected)
            settings = _inference_settings(
                predictor, fixed, plan, count, self._net_and_image, report, self.limit
            )
            if self.limit is not None:
                settings = replace(settings, batch_size=min(settings.batch_size, self.limit))
            predictor.use(settings)
            about = (predictor.before, scoring.noise, predictor.settings)
            model, image = self._result.model, self._net_and_image[1]
            self._cached = cached_values(model, image, self._result.target, self._imputer, about)
            self._cached_before = len(self._cached)
        return self._cached


def _inference_settings(
    predictor: Predictor,
    fixed: InferenceOverrides,
    plan: Plan,
    count: int,
    net_and_image: tuple[nn.Module, torch.Tensor],
    report: Callable[[], None],
    limit: int | None,
) -> InferenceSettings:
    """Return the inference settings: fixed by the caller, stored before, or selected by benchmark.

    `count` is the number of images to be predicted, those of the plan included.
    """
    from camanim.road.cache import load_settings, save_settings, settings_key
    from camanim.road.inference_settings import InferenceSettings
    from camanim.road.predictor import MEASUREMENT_SHARE, MIN_IMAGES

    if predictor.one_at_a_time:
        return replace(fixed.apply_to(InferenceSettings()), batch_size=1)
    if (
        not plan.keys
        or count < MIN_IMAGES
        or None not in (fixed.batch_size, fixed.memory_format, fixed.precision)
    ):
        return fixed.apply_to(InferenceSettings())
    key = settings_key(*net_and_image, fixed)
    settings = load_settings(key, fixed)
    if settings is not None and settings.precision == "float32" and predictor.supports(settings):
        return settings
    planned = len(plan.keys)
    samples, _ = plan.images(range(0, planned, max(planned // 16, 1))[:16])
    measurement = predictor.measurement(samples, MEASUREMENT_SHARE * count, report, limit)
    if settings is None or not measurement.is_valid(settings):
        best = measurement.best(fixed)
        stored = save_settings(key, best, fixed, replaced=settings)
        settings = stored if measurement.is_valid(stored) else best
    return settings


def _predict(predictor: Predictor, plan: Plan, cached: Values, progress: Progress) -> None:
    """Predict the images that are not cached, in batches, and add their values."""
    from camanim.model_state import run_callback

    todo = [i for i, key in enumerate(plan.keys) if key not in cached]
    done = len(plan.keys) - len(todo)
    run_callback(progress, "ROAD", done, len(plan.keys))
    while todo:
        batch, todo = todo[: predictor.group_size], todo[predictor.group_size :]
        keys = [plan.keys[i] for i in batch]
        values = predictor(*plan.images(batch), [key.seed for key in keys])
        cached.update(zip(keys, values.tolist(), strict=True))
        done += len(batch)
        run_callback(progress, "ROAD", done, len(plan.keys))
