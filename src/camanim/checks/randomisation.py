"""Weight randomisation: similarity of the maps to those of networks with random weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from camanim.checks.cascade import (
    ModuleParameters,
    copy_network,
    group_steps,
    parameters_by_module,
    shuffle,
)
from camanim.checks.map_similarity import positive_part, similarity, spearman
from camanim.checks.recomputed import NO_MAP, check_has_maps, recompute_shown
from camanim.checks.transforms import random_transforms
from camanim.checks.verdict import Check, Correlation, is_below, median_of
from camanim.declarations import Positive, Seed
from camanim.errors import Cancelled, LayerError
from camanim.findings import register_finding
from camanim.models.base import unwrap
from camanim.plots import Band, HeatMap, Level, Line, Panel, Plot, PlotOffer
from camanim.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

    from camanim.result import Result
    from camanim.stack import FloatMap

Floats = npt.NDArray[np.float64]
Scheme = Literal["both", "permuted", "reinitialised"]

#: Number of transforms of the maps from which the threshold is computed, and the quantile.
ROLLED, QUANTILE = 200, 0.975
#: Names of the thirds of the depth.
THIRDS = ("first", "middle", "last")


@dataclass(frozen=True)
class Randomisation(Check):
    """Similarity of each layer's map to its map with random weights, from the output backwards.

    Cascading randomisation of Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, in two
    schemes. *Permuted*: the values within each parameter are permuted, which preserves their scale, and
    statistics of normalisations are unchanged. *Reinitialised*: weights are drawn anew, and statistics
    are recomputed (`camanim.checks.reinitialisation`). The worse of both counts.

    The check fails if the median over the layers is above that of the maps and their own copies, shifted
    around the image, turned and mirrored: in 97.5 % of the copies the median is lower. For methods with
    an arbitrary sign, absolute correlations of the whole maps are compared, otherwise those of the
    positive parts.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    schemes : tuple of V str
        ``"permuted"``, ``"reinitialised"``.
    steps : tuple of S str
        Name of the last module randomised in each step, nearest to the output first. Steps are
        cumulative.
    spearman : (V, S, L) array
        Rank correlation with the original at the layer's resolution, in the cascade with the first seed;
        NaN where either map is constant, or after a cancel.
    ssim : (V, S, L) array
        Structural similarity of the positive parts, each scaled to [0, 1]; NaN also for maps with fewer
        than 3 cells on a side.
    finals : (V, R, L) array
        Rank correlation with all weights randomised, for each of R seeds.
    threshold : float
        Median rank correlation above which the check fails.
    seed : int
        The first of R consecutive seeds.
    cancelled : bool
        Whether steps are missing.
    method : str
        Name of the method.
    sign_free : bool
        Whether absolute correlations are compared.
    """

    kind = "randomisation"
    title = "Randomisation"
    order = 30
    plot_names = ("randomisation",)
    derived: ClassVar[tuple[str, ...]] = ("medians", "median", "thirds", "passed", "verdict")

    schemes: tuple[str, ...]
    steps: tuple[str, ...]
    spearman: Floats
    ssim: Floats
    finals: Floats
    threshold: float
    seed: int
    cancelled: bool = False
    method: str = "The method"
    sign_free: bool = False

    @cached_property
    def by_scheme(self) -> Floats:
        """Mean over the seeds of the rank correlation with all weights randomised, (V, L)."""
        known = ~np.isnan(self.finals)
        sums = np.where(known, self.finals, 0.0).sum(axis=1)
        counts = known.sum(axis=1)
        mean: Floats = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        return mean

    @cached_property
    def medians(self) -> Floats:
        """Median over the layers for each scheme, (V,); NaN where undefined."""
        return np.array([median_of(row) for row in self.by_scheme], np.float64)

    @cached_property
    def worst(self) -> int:
        """Index of the scheme with the higher median."""
        return 0 if np.isnan(self.medians).all() else int(np.nanargmax(self.medians))

    @property
    def median(self) -> float:
        """Median over the layers in the worse scheme; NaN if it is undefined."""
        return float(self.medians[self.worst])

    @cached_property
    def thirds(self) -> Floats:
        """Median over the first, middle and last third of the layers in their worse scheme, (3,)."""
        parts = np.array_split(self.by_scheme, 3, axis=1)
        medians = [[median_of(row) for row in part] for part in parts]
        return np.array(
            [np.nan if np.isnan(m).all() else np.nanmax(m) for m in medians], np.float64
        )

    @property
    def final(self) -> Floats:
        """Rank correlation with all weights randomised, in the worse scheme, (L,)."""
        final: Floats = self.by_scheme[self.worst]
        return final

    @property
    def final_ssim(self) -> Floats:
        """Structural similarity after the last step, in the worse scheme, (L,)."""
        if not len(self.steps):
            return np.full(len(self.layers), np.nan)
        final: Floats = self.ssim[self.worst, -1]
        return final

    @cached_property
    def passed(self) -> bool | None:
        """Whether maps depend on the weights; None if that is undefined, or after a cancel."""
        is_undefined = self.cancelled or np.isnan(self.threshold)
        return None if is_undefined else is_below(self.median, self.threshold)

    @property
    def verdict(self) -> str:
        """Result of the check in one sentence."""
        if self.cancelled:
            return f"The randomisation check of {self.method} was cancelled before its end."
        if self.passed is None:
            return (
                f"The randomisation check of {self.method} is undefined: with random weights, no maps "
                "could be compared."
            )
        facts = (
            f"with all weights {self.schemes[self.worst]}, the median rank correlation is "
            f"{self.median:.2f} (threshold {self.threshold:.2f}; {self._thirds_in_words()})"
        )
        if self.passed:
            return f"{self.method} depends on the weights: {facts}."
        return (
            f"{self.method} FAILS the randomisation check: {facts}, so its maps depend little on the "
            "learned weights."
        )

    def _thirds_in_words(self) -> str:
        parts = [
            f"{name} {value:.2f}"
            for name, value in zip(THIRDS, self.thirds, strict=True)
            if not np.isnan(value)
        ]
        return f"thirds of the depth: {', '.join(parts)}"

    def columns(self) -> dict[str, Floats]:
        """Return the rank correlation in each scheme."""
        return {
            f"{scheme} Spearman": row
            for scheme, row in zip(self.schemes, self.by_scheme, strict=True)
        } | {"randomised SSIM": self.final_ssim}

    def listing(self) -> dict[str, list[str]]:
        """Return no columns, because the result applies to the method rather than to layers."""
        return {}

    @property
    def higher_is_better(self) -> bool:
        """False, as low similarities to the maps of random weights are better."""
        return False

    def panel(self) -> Panel:
        """Return the panel of the similarities after the last step, with the threshold."""
        colors = ("first", "second")
        lines = [
            Line(f"Spearman, {scheme}", row, color)  # type: ignore[arg-type]
            for scheme, row, color in zip(self.schemes, self.by_scheme, colors, strict=False)
        ]
        return Panel.over_layers(
            len(self.layers),
            lines=(Line("SSIM", self.final_ssim, "third", "dashed"), *lines),
            levels=(Level("passes below", self.threshold),),
            y_label="similarity to the map\nof the trained network",
            tip="Similarity of each layer's map to its map when all weights are random.",
        )

    def plots(self) -> dict[str, PlotOffer]:
        """Return the plot of similarities over the randomisation steps."""
        tip = "Similarity of the maps to the original ones, over the randomisation steps."
        return {"randomisation": PlotOffer(self._over_steps, False, "Steps", tip)}

    def _over_steps(self, i: int | None) -> Plot:
        worst = self.worst
        spearman, ssim = self.spearman[worst], self.ssim[worst]
        if i is None:
            words = "median of the layers, and quartiles"
            curves = [_quartiles(values) for values in (spearman, ssim)]
        else:
            words = self.layers[i].label
            curves = [np.tile(values[:, i], (3, 1)) for values in (spearman, ssim)]
        # Before the first step the similarity is 1.
        (a, b, c), (d, e, f) = (np.insert(curve, 0, 1.0, axis=1) for curve in curves)
        panel = Panel(
            np.arange(len(self.steps) + 1, dtype=np.float64),
            (
                Line("Spearman", b, band=Band("", a, c), marker="o"),
                Line("SSIM", e, "third", "dashed", Band("", d, f), marker="s"),
            ),
            levels=(Level("passes below", self.threshold),),
            x_label=f"steps of weights {self.schemes[worst]}, from the output backwards",
            y_label="similarity to the map\nof the trained network",
            x_limits=(0, max(len(self.steps), 1)),
            y_limits=(-0.55, 1.05),
            words=(words,),
        )
        heat = HeatMap(spearman, "layer, in order of execution", "steps", "Spearman")
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
    scheme: Scheme = "both",
    steps: Positive | None = None,
    repeats: Positive = 3,
    seed: Seed = 0,
    threshold: Correlation | None = None,
    progress: Progress = silent,
) -> Randomisation:
    """Compare the maps with those of networks whose weights are randomised step by step.

    Each step runs the method once, for all shown layers and the same target, on a copy of the network.
    Further seeds randomise all weights at once.

    Parameters
    ----------
    result : Result
        Maps of an image or a whole volume.
    scheme : {"both", "permuted", "reinitialised"}
        How weights are randomised; of both schemes the worse one counts.
    steps : int, optional
        Number of steps from the output to the input, with equal numbers of modules; by default one per
        module with weights, up to 20.
    repeats : int
        Number of seeds with which all weights are randomised.
    seed : int
        The first seed.
    threshold : float, optional
        Median rank correlation above which the check fails; by default the 97.5 % quantile of the median
        between the maps and their own shifted, turned and mirrored copies.
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
    sign_free = result.computed_with is not None and result.computed_with[0].sign_free
    originals = [_compared(raw, sign_free) for raw in result.maps]
    schemes = ("permuted", "reinitialised") if scheme == "both" else (scheme,)
    networks = [_RandomNetwork(result, each, steps) for each in schemes]
    count = len(networks[0].groups)
    total, done = len(schemes) * (count + repeats - 1), 0
    shape = (len(schemes), count, len(originals))
    correlations, similarities = np.full(shape, np.nan), np.full(shape, np.nan)
    finals = np.full((len(schemes), repeats, len(originals)), np.nan)

    def report(stage: str = "", step: int = 0, of: int = 0) -> None:
        # Called within steps too, so that the caller can cancel there.
        progress("randomisation", done, total)

    cancelled = False
    try:
        for v, network in enumerate(networks):
            for r in range(repeats):
                generator = torch.Generator("cpu").manual_seed((seed + r) % 2**63)
                # The first copy was made with the network.
                groups = network.groups if r == 0 else network.start(cascade=False)
                for k, group in enumerate(groups):
                    report()
                    network.randomise(group, generator)
                    maps = _maps_of(result, network.net, report)
                    row = [
                        _correlation(a, _compared(b, sign_free), sign_free)
                        for a, b in zip(originals, maps, strict=True)
                    ]
                    finals[v, r] = row
                    if r == 0:
                        correlations[v, k] = row
                        similarities[v, k] = [
                            similarity(positive_part(a), positive_part(b))
                            for a, b in zip(result.maps, maps, strict=True)
                        ]
                    done += 1
        report()
    except Cancelled:
        if not done:
            raise
        cancelled = done < total
    if threshold is None:
        threshold = _threshold(originals, tuple(result.tensor.shape[-2:]), seed, sign_free)
    return Randomisation(
        layers=result.layers,
        schemes=schemes,
        steps=tuple(name for name, _ in networks[0].groups),
        spearman=correlations,
        ssim=similarities,
        finals=finals,
        threshold=threshold,
        seed=seed,
        cancelled=cancelled,
        method=result.method,
        sign_free=sign_free,
    )


class _RandomNetwork:
    """A copy of a result's network, whose weights are randomised by one scheme."""

    def __init__(self, result: Result, scheme: str, steps: int | None) -> None:
        self._result, self._scheme, self._steps = result, scheme, steps
        self.start(cascade=True)

    def start(self, *, cascade: bool) -> list[ModuleParameters]:
        """Copy the network anew; return its parameters in steps, or all as one step."""
        result = self._result
        self.net = copy_network(unwrap(result.model.net))
        modules = parameters_by_module(self.net, result.layer_calls)
        self.groups = group_steps(modules, self._steps)
        self.randomise: Callable[[ModuleParameters, torch.Generator], None] = self._permute
        if self._scheme == "reinitialised":
            from camanim.checks.reinitialisation import Reinitialisation

            model = copy.copy(result.model)
            model.net = self.net
            image = result.tensor[:1].to(model.device, model.dtype)
            reinitialise = Reinitialisation(self.net, model.forward(), image)
            self.randomise = partial(self._reinitialise, reinitialise)
        return self.groups if cascade else group_steps(modules, 1)

    @staticmethod
    def _permute(group: ModuleParameters, generator: torch.Generator) -> None:
        shuffle(group[1], generator)

    @staticmethod
    def _reinitialise(
        reinitialise: Callable[..., None], group: ModuleParameters, generator: torch.Generator
    ) -> None:
        reinitialise(group[1], generator, shuffle)


def _compared(raw: FloatMap, sign_free: bool) -> FloatMap:
    """Return what is compared of a map: its positive part, as shown, or all of it."""
    return raw if sign_free else positive_part(raw)


def _correlation(first: FloatMap, second: FloatMap, sign_free: bool) -> float:
    value = spearman(first, second)
    return abs(value) if sign_free else value


def _threshold(
    originals: list[FloatMap], plane: tuple[int, ...], seed: int, sign_free: bool
) -> float:
    """Return the quantile of the median correlation of the maps with their own moved copies.

    NaN if no correlation is defined. `plane` has the last two sides of the network's input.
    """
    # Slices of a volume are shifted along its depth, too.
    size = (1,) * (originals[0].ndim - 2) + plane
    medians = [
        median_of([_correlation(raw, moved(raw), sign_free) for raw in originals])
        for moved in random_transforms(size, ROLLED, seed)
    ]
    known = [median for median in medians if not np.isnan(median)]
    return float(np.quantile(known, QUANTILE)) if known else float("nan")


def _maps_of(result: Result, net: nn.Module, progress: Progress) -> list[FloatMap]:
    """Return the maps with another network; empty where a layer has no map."""
    try:
        (other,) = recompute_shown(result, net=net, progress=progress)
    except LayerError:
        # Gradients can vanish with random weights.
        return [NO_MAP] * len(result.layers)
    if other.cancelled:
        raise Cancelled("The check was cancelled.")
    maps = {(a.name, a.call): m for a, m in zip(other.layers, other.maps, strict=True)}
    return [maps.get((a.name, a.call), NO_MAP) for a in result.layers]
