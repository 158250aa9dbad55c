"""What ROAD says of all layers: scores, how far they spread, and what chance would score."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.layer_info import LayerInfo, Status

Floats = npt.NDArray[np.float64]

CONSTANT = "constant map"
NOTHING_POSITIVE = "no positive evidence"
NOT_FINITE = "not finite"
NO_ANSWER = "the network's answer is not finite"
CANCELLED = Status.CANCELLED

#: Of intervals: a random map reaches beyond in 5 % of cases.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Road:
    """The ROAD scores of the shown layers ("ybROAD"), in order of execution.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    percentiles : tuple of P floats
        Shares of the pixels that were kept, in percent.
    morfs, lerfs : (R, L, P) arrays
        The target's probability after the most or the least relevant pixels were removed, for each of R
        repeats, which differ in the seed of tie-break and noise. NaN where there is none.
    probability : float
        The target's probability for the image itself.
    undefined : tuple of (str or None)
        For each layer, why it has no score; None where it has one.
    chance : (L, D) array
        Scores of D random maps of each layer's own resolution; (L, 0) where none were asked for.
    forwards : int
        Perturbed images that went through the network; what was the same went once.
    seed : int
        Of the first repeat.
    noise : float
        Standard deviation of what was added to imputed pixels.
    settings : dict
        How the network was asked in the end: ``batch_size``, ``memory_format``, ``precision``; they can
        be passed to `Animation.score` again.
    """

    layers: list[LayerInfo]
    percentiles: tuple[float, ...]
    morfs: Floats
    lerfs: Floats
    probability: float
    undefined: tuple[str | None, ...]
    chance: Floats
    forwards: int
    seed: int
    noise: float
    settings: dict[str, Any] = field(default_factory=dict)

    # Computed once: captions ask for them once per layer, movies once per frame.

    @cached_property
    def morf(self) -> Floats:
        """(L, P) mean over the repeats of the probability without the most relevant pixels."""
        return _array(self.morfs.mean(axis=0))

    @cached_property
    def lerf(self) -> Floats:
        """(L, P) mean over the repeats of the probability without the least relevant pixels."""
        return _array(self.lerfs.mean(axis=0))

    @cached_property
    def repeated(self) -> Floats:
        """(R, L) score of each layer in each repeat: mean over percentiles of (LeRF - MoRF) / 2."""
        return _array(((self.lerfs - self.morfs) / 2).mean(axis=2))

    @cached_property
    def scores(self) -> Floats:
        """(L,) score of each layer, mean over the repeats; NaN where undefined."""
        return _array(self.repeated.mean(axis=0))

    @cached_property
    def spread(self) -> Floats:
        """(L,) standard deviation over the repeats; NaN with one repeat."""
        if len(self.repeated) < 2:
            return np.full(len(self.layers), np.nan)
        return _array(self.repeated.std(axis=0, ddof=1))

    @cached_property
    def baseline(self) -> Floats:
        """(L,) mean score of random maps of the layer's own resolution; NaN without them."""
        if not self.chance.shape[1]:
            return np.full(len(self.layers), np.nan)
        return _array(self.chance.mean(axis=1))

    @cached_property
    def baseline_spread(self) -> Floats:
        """(L,) standard deviation over the random maps; NaN with fewer than two."""
        if self.chance.shape[1] < 2:
            return np.full(len(self.layers), np.nan)
        return _array(self.chance.std(axis=1, ddof=1))

    @cached_property
    def excess(self) -> Floats:
        """(L,) score less baseline; NaN where either is undefined."""
        return _array(self.scores - self.baseline)

    @cached_property
    def margin(self) -> Floats:
        """(L,) how large an excess chance explains, with 95 % confidence; NaN without a baseline.

        The prediction interval for one more random map, ``t(D - 1) s sqrt(1 + 1 / D)`` with the
        standard deviation s of D of them, and in quadrature the confidence interval of the score
        itself, ``t(R - 1) spread / sqrt(R)``, where there are R > 1 repeats.
        """
        from scipy.stats import t

        draws, repeats = self.chance.shape[1], len(self.repeated)
        if draws < 2:
            return np.full(len(self.layers), np.nan)
        two_sided = (1 + CONFIDENCE) / 2
        squared = (t.ppf(two_sided, draws - 1) * self.baseline_spread) ** 2 * (1 + 1 / draws)
        if repeats > 1:
            squared = squared + (t.ppf(two_sided, repeats - 1) * self.spread) ** 2 / repeats
        return _array(np.sqrt(squared))

    @property
    def sums(self) -> Floats:
        """(L,) scores with the sum over percentiles, as Kaczmarek et al. 2024 write it."""
        return self.scores * len(self.percentiles)

    @cached_property
    def mean(self) -> float:
        """Mean score over the layers that have one (ybROAD_mean); NaN if none has."""
        known = self.scores[~np.isnan(self.scores)]
        return float(known.mean()) if known.size else float("nan")

    @cached_property
    def max(self) -> float:
        """Best score of all layers (ybROAD_max); NaN if none has one."""
        known = self.scores[~np.isnan(self.scores)]
        return float(known.max()) if known.size else float("nan")

    @cached_property
    def best_plain(self) -> LayerInfo | None:
        """The layer with the best score, the earliest of equals; None if none has one."""
        return self._best(self.scores)

    @cached_property
    def best(self) -> LayerInfo | None:
        """The layer that is furthest above chance: the largest excess of those beyond their margin.

        None where no layer is above chance. Without a baseline the same as `best_plain`.
        """
        if np.isnan(self.margin).all():
            return self.best_plain
        return self._best(np.where(self.above_chance, self.excess, np.nan))

    @cached_property
    def above_chance(self) -> npt.NDArray[np.bool_]:
        """(L,) whether the excess is larger than its margin; False where undefined."""
        with np.errstate(invalid="ignore"):
            above: npt.NDArray[np.bool_] = self.excess > self.margin
        return above

    def _best(self, values: Floats) -> LayerInfo | None:
        if np.isnan(values).all():
            return None
        return self.layers[int(np.nanargmax(values))]

    @property
    def complete(self) -> bool:
        """Whether every layer was scored, and chance where that was asked for; not after a cancel."""
        defined = [reason is None for reason in self.undefined]
        return CANCELLED not in self.undefined and not np.isnan(self.chance[defined]).any()

    def caption(self, i: int) -> str:
        """Say in a few words how layer `i` scores, what chance would score, and which is best."""
        reason = self.undefined[i]
        own = f"ROAD {self.scores[i]:.2f}" if reason is None else f"ROAD undefined ({reason})"
        if reason is None and not np.isnan(self.spread[i]):
            own += f" ± {self.spread[i]:.2f}"
        if reason is None and not np.isnan(self.baseline[i]):
            own += f"   chance {self.baseline[i]:.2f} ± {self.baseline_spread[i]:.2f}"
        return f"{own}\n{self._best_said(i)}".rstrip()

    def _best_said(self, i: int) -> str:
        if self.best_plain is None:
            return ""
        if self.best is None:
            return "no layer is above chance"
        if self.best is self.layers[i]:
            return "the best layer"
        return f"best: {self.best.label} {self.scores[self.layers.index(self.best)]:.2f}"


def _array(values: Any) -> Floats:
    return np.asarray(values, np.float64)
