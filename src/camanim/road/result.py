"""ROAD scores of all layers, their spread over repeats, and the scores of random maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from camanim.findings import Finding
from camanim.layer_info import LayerInfo, Status
from camanim.plots import Band, Line, Panel, Plot, PlotOffer

Floats = npt.NDArray[np.float64]

CONSTANT = "constant map"
NOTHING_POSITIVE = "no positive evidence"
NOT_FINITE = "not finite"
OUTPUT_NOT_FINITE = "the network's output is not finite"
CANCELLED = Status.CANCELLED

#: Confidence level of the intervals.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Road(Finding):
    """ROAD scores of the shown layers ("ybROAD"), in order of execution.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    percentiles : tuple of P floats
        Fractions of the pixels that were kept, in percent.
    morfs, lerfs : (R, L, P) arrays
        The target's probability after removal of the most (MoRF) or the least (LeRF) relevant pixels,
        for each of R repeats, which differ in the seed of tie-break and noise. NaN where undefined.
    probability : float
        The target's probability for the unperturbed image.
    undefined : tuple of (str or None)
        Reason why a layer has no score; None if it has one.
    random_scores : (L, D) array
        Scores of D random maps at each layer's resolution; (L, 0) without a baseline.
    forwards : int
        Number of distinct perturbed images passed through the network.
    seed : int
        Seed of the first repeat.
    noise : float
        Standard deviation of the noise on imputed pixels.
    settings : dict
        Settings of the forward passes: ``batch_size``, ``memory_format``, ``precision``, as accepted by
        `Animation.score`.
    unit : {"probability", "score"}
        Unit of `probability` and of the values after removal.
    """

    kind = "road"
    title = "ROAD"
    order = 0
    plot_names = ("removal",)
    derived: ClassVar[tuple[str, ...]] = (
        "scores", "spread", "baseline", "baseline_spread", "excess", "margin", "above_noise", "morf",
        "lerf", "mean", "max", "highest",
    )  # fmt: skip

    percentiles: tuple[float, ...]
    morfs: Floats
    lerfs: Floats
    probability: float
    undefined: tuple[str | None, ...]
    random_scores: Floats
    forwards: int
    seed: int
    noise: float
    settings: dict[str, Any] = field(default_factory=dict)
    unit: str = "probability"

    @cached_property
    def morf(self) -> Floats:
        """Mean over the repeats of the probability without the most relevant pixels, (L, P)."""
        return _array(self.morfs.mean(axis=0))

    @cached_property
    def lerf(self) -> Floats:
        """Mean over the repeats of the probability without the least relevant pixels, (L, P)."""
        return _array(self.lerfs.mean(axis=0))

    @cached_property
    def repeated(self) -> Floats:
        """Score in each repeat, (R, L): the mean over percentiles of (LeRF - MoRF) / 2."""
        return _array(((self.lerfs - self.morfs) / 2).mean(axis=2))

    @cached_property
    def scores(self) -> Floats:
        """Mean score over the repeats, (L,); NaN where undefined."""
        return _array(self.repeated.mean(axis=0))

    @cached_property
    def spread(self) -> Floats:
        """Standard deviation of the score over the repeats, (L,); NaN with one repeat."""
        if len(self.repeated) < 2:
            return np.full(len(self.layers), np.nan)
        return _array(self.repeated.std(axis=0, ddof=1))

    @cached_property
    def baseline(self) -> Floats:
        """Mean score of random maps at the layer's resolution, (L,); NaN without a baseline."""
        if not self.random_scores.shape[1]:
            return np.full(len(self.layers), np.nan)
        return _array(self.random_scores.mean(axis=1))

    @cached_property
    def baseline_spread(self) -> Floats:
        """Standard deviation over the random maps, (L,); NaN with fewer than two."""
        if self.random_scores.shape[1] < 2:
            return np.full(len(self.layers), np.nan)
        return _array(self.random_scores.std(axis=1, ddof=1))

    @cached_property
    def excess(self) -> Floats:
        """Score minus baseline, (L,); NaN where either is undefined."""
        return _array(self.scores - self.baseline)

    @cached_property
    def margin(self) -> Floats:
        """Largest excess of random maps at 95 % confidence, (L,); NaN without a baseline.

        The prediction interval for one more random map, ``t(D - 1) s sqrt(1 + 1 / D)`` with the
        standard deviation s of D random maps. With R > 1 repeats, the confidence interval of the score,
        ``t(R - 1) spread / sqrt(R)``, is added in quadrature.
        """
        from scipy.stats import t

        draws, repeats = self.random_scores.shape[1], len(self.repeated)
        if draws < 2:
            return np.full(len(self.layers), np.nan)
        two_sided = (1 + CONFIDENCE) / 2
        squared = (t.ppf(two_sided, draws - 1) * self.baseline_spread) ** 2 * (1 + 1 / draws)
        if repeats > 1:
            squared = squared + (t.ppf(two_sided, repeats - 1) * self.spread) ** 2 / repeats
        return _array(np.sqrt(squared))

    @property
    def sums(self) -> Floats:
        """Scores summed over percentiles, as in Kaczmarek et al. 2024, (L,)."""
        return self.scores * len(self.percentiles)

    @cached_property
    def mean(self) -> float:
        """Mean score over the layers (ybROAD_mean), ignoring NaN; NaN if all are undefined."""
        known = self.scores[~np.isnan(self.scores)]
        return float(known.mean()) if known.size else float("nan")

    @cached_property
    def max(self) -> float:
        """Highest score over the layers (ybROAD_max), ignoring NaN; NaN if all are undefined."""
        known = self.scores[~np.isnan(self.scores)]
        return float(known.max()) if known.size else float("nan")

    @cached_property
    def highest(self) -> LayerInfo | None:
        """Layer with the highest score (ybROAD_max), the first of equals; None if all are undefined.

        Whether the score exceeds what chance gives over all layers is what `camanim.checks.test_layers`
        tests: some layer is highest in any case.
        """
        if np.isnan(self.scores).all():
            return None
        return self.layers[int(np.nanargmax(self.scores))]

    @property
    def shown_first(self) -> LayerInfo | None:
        """The layer with the highest score."""
        return self.highest

    @cached_property
    def above_noise(self) -> npt.NDArray[np.bool_]:
        """Whether a layer is above noise of its resolution, (L,); False where undefined.

        That is, whether its excess over random maps of the same resolution exceeds the margin. Random
        maps are rougher than those of any method: also maps of RandomCAM and SobelCAM are above noise
        in many layers (docs/trust.md).
        """
        with np.errstate(invalid="ignore"):
            above: npt.NDArray[np.bool_] = self.excess > self.margin
        return above

    @property
    def complete(self) -> bool:
        """Whether all layers, and the baseline if requested, were scored; False after a cancel."""
        defined = [reason is None for reason in self.undefined]
        return CANCELLED not in self.undefined and not np.isnan(self.random_scores[defined]).any()

    # -- Presentation ------------------------------------------------------------------------------

    def comparison(self) -> dict[str, Any]:
        """Return the mean and the highest score over the layers, and the layer of the latter."""
        layer = None if self.highest is None else self.highest.label
        return {"ROAD mean": self.mean, "ROAD max": self.max, "ROAD max layer": layer}

    def columns(self) -> dict[str, Any]:
        """Return score, spread, baseline, excess, above noise, and the reason if undefined."""
        known = ~np.isnan(self.excess - self.margin)
        above = [bool(a) if k else None for a, k in zip(self.above_noise, known, strict=True)]
        return {
            "ROAD": self.scores,
            "ROAD spread": self.spread,
            "ROAD baseline": self.baseline,
            "ROAD excess": self.excess,
            "ROAD above noise": above,
            "ROAD undefined": self.undefined,
        }

    @property
    def digits(self) -> int:
        """Number of decimals that do not depend on the settings of the forward passes.

        In half precision, another memory format or batch size changes a score by up to 0.002, in single
        precision by less than 0.0001.
        """
        return 3 if self.settings.get("precision", "float32") == "float32" else 2

    def listing(self) -> dict[str, list[str]]:
        """Return scores with their spread, and the baseline if it was scored."""
        digits = self.digits
        scores = [
            _with_spread(*pair, digits) for pair in zip(self.scores, self.spread, strict=True)
        ]
        if np.isnan(self.baseline).all():
            return {"ROAD": scores}
        random = ["" if np.isnan(value) else f"{value:.{digits}f}" for value in self.baseline]
        return {"ROAD": scores, "random maps": random}

    def caption(self, i: int) -> str:
        """Return two lines: score and baseline of layer `i`, and the layer with the highest score."""
        reason = self.undefined[i]
        if reason is not None:
            line = f"ROAD undefined ({reason})"
        else:
            line = f"ROAD {_with_spread(self.scores[i], self.spread[i], 2)}"
            if not np.isnan(self.baseline[i]):
                random = _with_spread(self.baseline[i], self.baseline_spread[i], 2)
                line += f"   random maps {random}"
        return f"{line}\n{self._highest_caption(i)}".rstrip()

    def badge(self, i: int) -> str:
        """Return the score of layer `i`, or that it is undefined; empty before it is scored."""
        reason = self.undefined[i]
        if reason is not None:
            return "" if reason == CANCELLED else "ROAD undefined"
        return f"ROAD {self.scores[i]:.2f}"

    def _highest_caption(self, i: int) -> str:
        if self.highest is None:
            return ""
        if self.highest is self.layers[i]:
            return "the highest score"
        return f"highest: {self.highest.label} {self.max:.2f}"

    def summary(self) -> str:
        """Return the mean score, the highest one, and how many layers are above noise."""
        if self.highest is None:
            return "ybROAD: no layer has a score."
        digits = self.digits
        mean, highest = f"{self.mean:.{digits}f}", f"{self.max:.{digits}f}"
        text = f"ybROAD: mean {mean}, highest {highest} at {self.highest.label}"
        if np.isfinite(self.margin).any():
            known = int(np.isfinite(self.scores).sum())
            above = int(self.above_noise.sum())
            text += f"; {above} of {known} layers are above noise of their resolution"
        return f"{text}{'' if self.complete else ', of the layers scored so far'}."

    def panel(self) -> Panel:
        """Return the panel of scores with their spread, the band of random maps, and the highest."""
        spread = Band.around(f"± SD of {len(self.repeated)} repeats", self.scores, self.spread)
        lines: tuple[Line, ...] = (Line("ROAD", self.scores, band=spread),)
        tip = "ROAD score of each layer (ybROAD)."
        if np.isfinite(self.baseline).any():
            margin = np.where(np.isnan(self.margin), self.baseline_spread, self.margin)
            random = Band.around("95 % of random maps", self.baseline, margin)
            reference = Line(
                "random maps", self.baseline, "reference", "dashed", random, faint=True
            )
            lines = (reference, *lines)
            tip = (
                "ROAD score of each layer (ybROAD). Scores above the band are above noise of the "
                "layer's resolution. Whether a layer is the best is tested by the layer test."
            )
        mark = self.mark(self.highest, self.scores, "highest")
        return Panel.over_layers(
            len(self.layers),
            lines=lines,
            marks=() if mark is None else (mark,),
            y_label="ROAD",
            words=() if self.highest is not None else ("no layer has a score",),
            tip=tip,
        )

    def main_values(self) -> Floats:
        """Return the scores; without the panel, which imports SciPy."""
        return self.scores

    def plots(self) -> dict[str, PlotOffer]:
        """Return the plot of one layer's removal curves."""
        tip = (
            f"The target's {self.unit} as pixels are removed. For a good map it decreases when the most "
            "relevant pixels are removed first (MoRF), but not when the least relevant are (LeRF)."
        )
        return {"removal": PlotOffer(self._removal, True, "Removal", tip)}

    def _removal(self, i: int | None) -> Plot:
        if i is None or self.undefined[i] is not None:
            words = "No layer is shown." if i is None else self._why_no_curve(i)
            return Plot((Panel(np.empty(0), instead=words),))
        order = np.argsort(self.percentiles)[::-1]

        def line(values: Floats, name: str, color: Any, style: Any, marker: Any) -> Line:
            repeats = np.insert(values[:, i, order], 0, self.probability, axis=1)
            band = Band("", repeats.min(axis=0), repeats.max(axis=0)) if len(repeats) > 1 else None
            return Line(name, repeats.mean(axis=0), color, style, band, marker=marker)

        panel = Panel(
            np.append(0, 100 - np.asarray(self.percentiles)[order]),
            (
                line(self.lerfs, "least relevant first (LeRF)", "first", "solid", "o"),
                line(self.morfs, "most relevant first (MoRF)", "second", "dashed", "s"),
            ),
            x_label="removed pixels (%)",
            y_label=f"{self.unit} after removal",
            x_limits=(-1.5, 100.0),
            y_limits=self._removal_limits(),
            words=("bands: range of the repeats",) if len(self.morfs) > 1 else (),
        )
        return Plot((panel,), title=f"{self.layers[i].label}: ROAD {self.scores[i]:.2f}")

    def _why_no_curve(self, i: int) -> str:
        name, reason = self.layers[i].label, self.undefined[i]
        return f"{name} has no ROAD score ({reason}): choose another layer."

    def _removal_limits(self) -> tuple[float, float]:
        """Return the limits of the y axis, the same for all layers."""
        if self.unit == "probability":
            return -0.02, 1.02
        known = np.concatenate([[0.0, self.probability], self.morfs.ravel(), self.lerfs.ravel()])
        known = known[np.isfinite(known)]
        padding = 0.02 * max(float(np.ptp(known)), 1e-12)
        return float(known.min()) - padding, float(known.max()) + padding


def _with_spread(value: float, spread: float, digits: int) -> str:
    if np.isnan(value):
        return ""
    return f"{value:.{digits}f}" + ("" if np.isnan(spread) else f" ± {spread:.{digits}f}")


def _array(values: Any) -> Floats:
    return np.asarray(values, np.float64)
