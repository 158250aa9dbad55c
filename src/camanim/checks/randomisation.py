"""Weight randomisation: similarity of the maps to those of networks with shuffled weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from camanim.checks.cascade import copy_network, group_steps, parameters_by_module, shuffle
from camanim.checks.map_similarity import positive_part, similarity, spearman
from camanim.checks.recomputed import NO_MAP, check_has_maps, positive_maps, recompute_shown
from camanim.checks.verdict import Check, Correlation, is_below, median_of
from camanim.declarations import Positive, Seed
from camanim.errors import Cancelled, LayerError
from camanim.findings import register_finding
from camanim.models.base import unwrap
from camanim.plots import Band, HeatMap, Level, Line, Panel, Plot, PlotOffer
from camanim.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn

    from camanim.result import Result
    from camanim.stack import FloatMap

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Randomisation(Check):
    """Similarity of each layer's map to its map with shuffled weights, from the output backwards.

    Cascading randomisation of Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018. Instead
    of drawing new weights, the values within each parameter are permuted. This preserves the scale of
    the weights, so that signals neither vanish nor explode with depth, and applies to any parameter.
    The statistics of normalisation layers are unchanged.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    steps : tuple of S str
        Name of the last module shuffled in each step, nearest to the output first. Steps are cumulative.
    spearman : (S, L) array
        Rank correlation of the map's positive part with that of the original, at the layer's resolution;
        NaN where either is constant.
    ssim : (S, L) array
        Structural similarity of the positive parts, each scaled to [0, 1]; NaN also for maps with fewer
        than 3 cells on a side.
    threshold : float
        Lowest median rank correlation, after the last step, with which the check fails.
    seed : int
    cancelled : bool
        Whether steps are missing.
    method : str
        Name of the method.
    """

    kind = "randomisation"
    title = "Randomisation"
    order = 30
    plot_names = ("randomisation",)
    derived: ClassVar[tuple[str, ...]] = ("median", "passed", "verdict")

    steps: tuple[str, ...]
    spearman: Floats
    ssim: Floats
    threshold: float
    seed: int
    cancelled: bool = False
    method: str = "The method"

    @property
    def final(self) -> Floats:
        """Rank correlation after the last step, (L,); NaN where undefined."""
        return self.spearman[-1] if len(self.steps) else np.full(len(self.layers), np.nan)

    @property
    def final_ssim(self) -> Floats:
        """Structural similarity after the last step, (L,); NaN where undefined."""
        return self.ssim[-1] if len(self.steps) else np.full(len(self.layers), np.nan)

    @cached_property
    def median(self) -> float:
        """Median of `final`; NaN if all are undefined."""
        return median_of(self.final)

    @cached_property
    def passed(self) -> bool | None:
        """Whether maps depend on the weights; None if the median is undefined, or after a cancel."""
        return None if self.cancelled else is_below(self.median, self.threshold)

    @property
    def verdict(self) -> str:
        """Result of the check in one sentence."""
        if self.cancelled:
            done = len(self.steps)
            return f"The randomisation check of {self.method} was cancelled after step {done}."
        if self.passed is None:
            return (
                f"The randomisation check of {self.method} is undefined: with shuffled weights, no maps "
                "could be compared."
            )
        if self.passed:
            return (
                f"{self.method} depends on the weights: with all weights shuffled, the median rank "
                f"correlation is {self.median:.2f}."
            )
        return (
            f"{self.method} FAILS the randomisation check: with all weights shuffled, the median rank "
            f"correlation is {self.median:.2f}, so its maps depend little on the learned weights."
        )

    def columns(self) -> dict[str, Floats]:
        """Return both similarities after the last step."""
        return {"randomised Spearman": self.final, "randomised SSIM": self.final_ssim}

    def listing(self) -> dict[str, list[str]]:
        """Return no columns, because the result applies to the method rather than to layers."""
        return {}

    def panel(self) -> Panel:
        """Return the panel of both similarities after the last step, with the threshold."""
        return Panel.over_layers(
            len(self.layers),
            lines=(
                Line("SSIM", self.final_ssim, "third", "dashed"),
                Line("Spearman", self.final),
            ),
            levels=(Level("passes below", self.threshold),),
            y_label="similarity to the map\nof the trained network",
            tip="Similarity of each layer's map to its map when all weights are shuffled.",
        )

    def plots(self) -> dict[str, PlotOffer]:
        """Return the plot of similarities over the randomisation steps."""
        tip = "Similarity of the maps to the original ones, over the randomisation steps."
        return {"randomisation": PlotOffer(self._over_steps, False, "Steps", tip)}

    def _over_steps(self, i: int | None) -> Plot:
        if i is None:
            words = "median of the layers, and quartiles"
            curves = [_quartiles(values) for values in (self.spearman, self.ssim)]
        else:
            words = self.layers[i].label
            curves = [np.tile(values[:, i], (3, 1)) for values in (self.spearman, self.ssim)]
        # Before the first step the similarity is 1.
        (a, b, c), (d, e, f) = (np.insert(curve, 0, 1.0, axis=1) for curve in curves)
        panel = Panel(
            np.arange(len(self.steps) + 1, dtype=np.float64),
            (
                Line("Spearman", b, band=Band("", a, c), marker="o"),
                Line("SSIM", e, "third", "dashed", Band("", d, f), marker="s"),
            ),
            levels=(Level("passes below", self.threshold),),
            x_label="randomisation steps, from the output backwards",
            y_label="similarity to the map\nof the trained network",
            x_limits=(0, max(len(self.steps), 1)),
            y_limits=(-0.55, 1.05),
            words=(words,),
        )
        heat = HeatMap(self.spearman, "layer, in order of execution", "steps", "Spearman")
        return Plot((panel, heat), title=self.verdict)


def _quartiles(values: Floats) -> Floats:
    """Return the quartiles over the layers at each step, (3, S); NaN if all layers are undefined."""
    quartiles = np.full((3, len(values)), np.nan)
    for k, row in enumerate(values):
        known = row[np.isfinite(row)]
        if known.size:
            quartiles[:, k] = np.percentile(known, (25, 50, 75))
    return quartiles


@register_finding(Randomisation)
def check_randomisation(
    result: Result,
    *,
    steps: Positive | None = None,
    seed: Seed = 0,
    threshold: Correlation = 0.5,
    progress: Progress = silent,
) -> Randomisation:
    """Compare the maps with those of networks whose weights are shuffled step by step.

    Each step runs the method once, for all shown layers and the same target, on a copy of the network.

    Parameters
    ----------
    result : Result
        Maps of an image or a whole volume.
    steps : int, optional
        Number of steps from the output to the input, with equal numbers of modules; by default one per
        module with weights, up to 20.
    seed : int
        Seed of the permutations.
    threshold : float
        Lowest median rank correlation, after the last step, with which the check fails.
    progress : Progress
        When it raises `Cancelled`, the steps completed so far are kept; if there are none, `Cancelled`
        is raised.

    Returns
    -------
    Randomisation

    Raises
    ------
    ScoreError
        If there are no maps or no weights, the network cannot be copied, or the maps are a plane of a
        volume.
    """
    import torch

    check_has_maps(result)
    net = copy_network(unwrap(result.model.net))
    groups = group_steps(parameters_by_module(net, result.layer_calls), steps)
    originals = [positive_part(raw) for raw in result.maps]
    generator = torch.Generator("cpu").manual_seed(seed)
    rows: list[list[tuple[float, float]]] = []

    def report(stage: str = "", done: int = 0, total: int = 0) -> None:
        # Called within steps too, so that the caller can cancel there.
        progress("randomisation", len(rows), len(groups))

    try:
        for _, parameters in groups:
            report()
            shuffle(parameters, generator)
            shuffled = _maps_of(result, net, report)
            rows.append(
                [
                    (spearman(*pair), similarity(*pair))
                    for pair in zip(originals, shuffled, strict=True)
                ]
            )
        report()
    except Cancelled:
        if not rows:
            raise
    table = np.array(rows, np.float64)
    return Randomisation(
        layers=result.layers,
        steps=tuple(name for name, _ in groups[: len(rows)]),
        spearman=table[..., 0],
        ssim=table[..., 1],
        threshold=threshold,
        seed=seed,
        cancelled=len(rows) < len(groups),
        method=result.method,
    )


def _maps_of(result: Result, net: nn.Module, progress: Progress) -> list[FloatMap]:
    """Return the positive parts of the maps with another network; empty where a layer has no map."""
    try:
        (other,) = recompute_shown(result, net=net, progress=progress)
    except LayerError:
        # Gradients can vanish with shuffled weights.
        return [NO_MAP] * len(result.layers)
    if other.cancelled:
        raise Cancelled("The check was cancelled.")
    return positive_maps(result, other)
