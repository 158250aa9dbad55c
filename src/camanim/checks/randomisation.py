"""Whether maps depend on the weights: the same method with shuffled weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from camanim.checks.cascade import copied, grouped, shuffle, units
from camanim.checks.map_similarity import positive_part, similarity, spearman
from camanim.checks.verdict import Check, Correlation, is_below, median_of
from camanim.declarations import Positive, Seed, checked
from camanim.errors import Cancelled, LayerError, ScoreError
from camanim.findings import register_finding
from camanim.models.base import unwrap
from camanim.pipeline import recompute
from camanim.plots import Band, HeatMap, Level, Line, Panel, Plot, PlotOffer
from camanim.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn

    from camanim.result import Result
    from camanim.stack import FloatMap

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Randomisation(Check):
    """Similarity of each layer's map to itself with shuffled weights, from the output backwards.

    Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, cascading randomisation. They draw
    new weights; here the values within each parameter are permuted: weights keep their scale, so that
    signals neither die nor explode with depth, and any kind of parameter is served. The statistics of
    normalisation layers stay.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    steps : tuple of S str
        Down to which module the weights are shuffled, nearest to the output first; each step keeps what
        earlier ones have done.
    spearman : (S, L) array
        Rank correlation of the map's positive part with that of the original, at the layer's resolution;
        NaN where either is constant.
    ssim : (S, L) array
        Structural similarity of the same, each scaled to [0, 1]; NaN also for fewer than 3 cells on a
        side.
    threshold : float
        The median rank correlation after the last step from which on the check is failed.
    seed : int
    cancelled : bool
        Whether steps are missing.
    method : str
        For the verdict.
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
        """(L,) rank correlation after the last step; NaN where nothing could be compared."""
        return self.spearman[-1] if len(self.steps) else np.full(len(self.layers), np.nan)

    @property
    def final_ssim(self) -> Floats:
        """(L,) structural similarity after the last step; NaN where nothing could be compared."""
        return self.ssim[-1] if len(self.steps) else np.full(len(self.layers), np.nan)

    @cached_property
    def median(self) -> float:
        """Median of `final`; NaN where nothing could be compared."""
        return median_of(self.final)

    @cached_property
    def passed(self) -> bool | None:
        """Whether maps change with the weights; None where nothing could be compared, or steps miss."""
        return None if self.cancelled else is_below(self.median, self.threshold)

    @property
    def verdict(self) -> str:
        """What that says of the method, in one sentence."""
        if self.cancelled:
            done = len(self.steps)
            return f"The randomisation check of {self.method} was cancelled after step {done}."
        if self.passed is None:
            return (
                f"The randomisation check of {self.method} says nothing: with shuffled weights no map "
                "could be compared."
            )
        if self.passed:
            return (
                f"{self.method} depends on the weights: with all of them shuffled the median rank "
                f"correlation is {self.median:.2f}."
            )
        return (
            f"{self.method} FAILS the randomisation check: with all weights shuffled the median rank "
            f"correlation is still {self.median:.2f}, so its maps say little about what was learned."
        )

    def columns(self) -> dict[str, Floats]:
        """Return both similarities after the last step."""
        return {"randomised Spearman": self.final, "randomised SSIM": self.final_ssim}

    def listing(self) -> dict[str, list[str]]:
        """Return nothing: what the check says is of the method, not of a layer."""
        return {}

    def panel(self) -> Panel:
        """Return both similarities after the last step over the layers, and the limit."""
        return Panel.over_layers(
            len(self.layers),
            lines=(
                Line("SSIM", self.final_ssim, "third", "dashed"),
                Line("Spearman", self.final),
            ),
            levels=(Level("passes below", self.threshold),),
            y_label="similarity to the map\nof the trained network",
            tip="How much of every layer's map is left when all weights are shuffled.",
        )

    def plots(self) -> dict[str, PlotOffer]:
        """Return the plot over the steps of randomisation."""
        tip = "How much of the maps is left, the more of the network is randomised."
        return {"randomisation": PlotOffer(self._over_steps, False, "Steps", tip)}

    def _over_steps(self, i: int | None) -> Plot:
        if i is None:
            words = "median of the layers, and quartiles"
            curves = [_quartiles(values) for values in (self.spearman, self.ssim)]
        else:
            words = self.layers[i].label
            curves = [np.tile(values[:, i], (3, 1)) for values in (self.spearman, self.ssim)]
        # Before the first step every map is itself.
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
    """Return the quartiles over the layers of each step, (3, S); NaN where no layer has a value."""
    quartiles = np.full((3, len(values)), np.nan)
    for k, row in enumerate(values):
        known = row[np.isfinite(row)]
        if known.size:
            quartiles[:, k] = np.percentile(known, (25, 50, 75))
    return quartiles


@register_finding(Randomisation)
@checked(ScoreError)
def check_randomisation(
    result: Result,
    *,
    steps: Positive | None = None,
    seed: Seed = 0,
    threshold: Correlation = 0.5,
    progress: Progress = silent,
) -> Randomisation:
    """Shuffle the weights of a copy step by step, and compare each step's maps with the original ones.

    Each step is one run of the method, of all shown layers at once and about the same target; the user's
    own network is not touched.

    Parameters
    ----------
    result : Result
        Of an image or of a whole volume.
    steps : int, optional
        In so many steps from the output to the input, each with as many modules; by default one per
        module that has weights, up to 20.
    seed : int
        Of the shuffling.
    threshold : float
        The median rank correlation after the last step from which on the check is failed.
    progress : Progress
        When it raises `Cancelled`, the steps done so far are kept; where there is none, `Cancelled` is
        raised.

    Returns
    -------
    Randomisation

    Raises
    ------
    ScoreError
        When there is nothing to compare or to shuffle, the network cannot be copied, or the maps are a
        plane of a volume's.
    """
    import torch

    if not result.maps:
        raise ScoreError("There is no map to check: no selected layer has one.")
    net = copied(unwrap(result.model.net))
    groups = grouped(units(net, result.layer_calls), steps)
    originals = [positive_part(raw) for raw in result.maps]
    generator = torch.Generator("cpu").manual_seed(seed)
    rows: list[list[tuple[float, float]]] = []

    def report(stage: str = "", done: int = 0, total: int = 0) -> None:
        # Lets the caller cancel within a step, without another bar.
        progress("randomisation", len(rows), len(groups))

    try:
        for _, parameters in groups:
            report()
            shuffle(parameters, generator)
            shuffled = _maps_of(result, net, report)
            rows.append(
                [
                    (spearman(own, other), similarity(own, other))
                    for own, other in zip(originals, shuffled, strict=True)
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
    """Make the same maps of another network, their positive parts; an empty one where there is none."""
    shown = [(layer.name, layer.call) for layer in result.layers]
    try:
        (made,) = recompute(
            result,
            net=net,
            layers=lambda info: (info.name, info.call) in shown,
            progress=progress,
        )
    except LayerError:
        # The signal may die on its way through shuffled weights.
        return [np.zeros((0,), np.float32) for _ in shown]
    if made.cancelled:
        raise Cancelled("The check was cancelled.")
    found = {(a.name, a.call): m for a, m in zip(made.layers, made.maps, strict=True)}
    return [positive_part(found.get(call, np.zeros((0,), np.float32))) for call in shown]
