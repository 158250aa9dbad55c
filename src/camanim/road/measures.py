"""Perturbation measures other than ROAD: deletion, insertion, confidence drop and increase.

Modules that import torch are imported within functions, so that settings can be listed without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt

from camanim.declarations import Range, Seed
from camanim.errors import Cancelled, ScoreError
from camanim.findings import Finding, register_finding
from camanim.layer_info import LayerInfo
from camanim.plots import Line, Panel
from camanim.progress import Progress, silent
from camanim.road.imputation import Imputer
from camanim.road.result import CANCELLED
from camanim.road.scores import check_scorable, score_maps, why_undefined
from camanim.road.settings import ScoringSettings
from camanim.stack import relevance

if TYPE_CHECKING:
    import torch

    from camanim.result import Result

Floats = npt.NDArray[np.float64]
Name = Literal["deletion", "insertion", "drop", "increase"]
Imputation = Literal["blur", "mean", "road"]


@dataclass(frozen=True)
class Measure(Finding):
    """Value of one measure for each shown layer.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    name : {"deletion", "insertion", "drop", "increase"}
    imputation : {"blur", "mean", "road"}
    values : (L,) array
        NaN where undefined.
    undefined : tuple of (str or None)
        Reason why a layer has no value; None if it has one.
    shares : tuple of S floats
        Fractions of the pixels removed by deletion, or inserted, from 0 to 1; empty for the others.
    curves : (L, S) array
        The target's probability at each fraction.
    """

    kind = "measure"
    title = "Measure"
    order = 10

    name: Name
    imputation: Imputation
    values: Floats
    undefined: tuple[str | None, ...]
    shares: tuple[float, ...]
    curves: Floats

    @property
    def key(self) -> str:
        """Key in `Result.findings`; a result can have several measures."""
        return self.label

    @property
    def label(self) -> str:
        """Name of the column in tables, such as "deletion (blur)"."""
        return f"{self.name} ({self.imputation})"

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values are better."""
        return self.name in ("insertion", "increase")

    @cached_property
    def best(self) -> LayerInfo | None:
        """Layer with the best value, the first of equals; None if all values are undefined."""
        if np.isnan(self.values).all():
            return None
        argbest = np.nanargmax if self.higher_is_better else np.nanargmin
        return self.layers[int(argbest(self.values))]

    def columns(self) -> dict[str, Floats]:
        """Return the values."""
        return {self.label: self.values}

    def caption(self, i: int) -> str:
        """Return the value of layer `i`; empty if it is undefined."""
        reason = self.undefined[i]
        return f"{self.label} {self.values[i]:.2f}" if reason is None else ""

    def summary(self) -> str:
        """Return the layer with the best value, and the value."""
        if self.best is None:
            return f"{self.label}: undefined for all layers."
        value = self.values[self.layers.index(self.best)]
        side = "highest" if self.higher_is_better else "lowest"
        return f"{self.label}: {side} {value:.3f} of {self.best.label}."

    def panel(self) -> Panel:
        """Return the values over the layers, with the highest or lowest one, whichever is better."""
        side = "highest" if self.higher_is_better else "lowest"
        mark = self.mark(self.best, self.values, side)
        better = "high" if self.higher_is_better else "low"
        return Panel.over_layers(
            len(self.layers),
            lines=(Line(self.label, self.values),),
            marks=() if mark is None else (mark,),
            y_label=self.label,
            tip=f"{self.label} of each layer. A {better} value indicates a good map.",
        )


def passes(
    result: Result,
    name: Name = "deletion",
    steps: Annotated[int, Range(2, 1000)] = 20,
) -> int:
    """Return the largest number of images that the network predicts."""
    curves = name in ("deletion", "insertion")
    # Both sides of the curves are predicted, of which one is used.
    return len(result.maps) * (2 * (steps - 1) if curves else 1)


@register_finding(Measure, passes=passes)
def measure(
    result: Result,
    name: Name = "deletion",
    imputation: Imputation = "blur",
    *,
    steps: Annotated[int, Range(2, 1000)] = 20,
    seed: Seed = 0,
    progress: Progress = silent,
) -> Measure:
    """Measure how the target's value changes when pixels are perturbed according to each map.

    Parameters
    ----------
    result : Result
    name : {"deletion", "insertion", "drop", "increase"}
        Measure to compute. Deletion, insertion: area under the curve of the target's probability while
        the most relevant pixels are removed from the image, or inserted into a fully imputed image
        (Petsiuk et al., BMVC 2018). Drop, increase: relative loss of probability when the image is
        multiplied by the map, and whether the probability increases (Chattopadhay et al., WACV 2018).
    imputation : {"blur", "mean", "road"}
        Replacement of removed pixels. Drop and increase blend the image with it, weighted by the map;
        with "road" they remove pixels below half of the map's maximum.
    steps : int
        Number of steps of the curves of deletion and insertion.
    seed : int
        Seed of the tie-break among equal pixels.
    progress : Progress
        Called after every batch. When it raises `Cancelled`, the values computed so far are kept.

    Returns
    -------
    Measure

    Raises
    ------
    ScoreError
        If no layer can be measured, or a setting is of the wrong type or out of range.
    """
    check_scorable(result)
    shares: Sequence[float] = ()
    if name in ("deletion", "insertion"):
        from scipy.integrate import trapezoid

        shares, curves = _curves(result, name, imputation, steps, seed, progress)
        values = np.asarray(trapezoid(curves, shares, axis=1))
    else:
        curves = np.empty((len(result.maps), 0))
        values = _confidence(result, name, imputation, progress)
    size = tuple(result.tensor.shape[2:])
    reasons = [
        why_undefined(raw, size) or (CANCELLED if np.isnan(value) else None)
        for raw, value in zip(result.maps, values, strict=True)
    ]
    return Measure(
        layers=result.layers,
        name=name,
        imputation=imputation,
        values=values,
        undefined=tuple(reasons),
        shares=tuple(shares),
        curves=curves,
    )


def _imputer(imputation: str) -> Imputer:
    from camanim.road.multigrid import MultigridImputer
    from camanim.road.simple_imputers import BlurImputer, MeanImputer

    imputers: dict[str, type[Imputer]] = {
        "blur": BlurImputer,
        "mean": MeanImputer,
        "road": MultigridImputer,
    }
    return imputers[imputation]()


def _curves(
    result: Result, name: str, imputation: str, steps: int, seed: int, progress: Progress
) -> tuple[Sequence[float], Floats]:
    """Return the removed, or inserted, fractions and the target's values at each, (L, S)."""
    kept = tuple(100 * i / steps for i in range(1, steps))
    scoring = ScoringSettings(seed, percentiles=kept, noise=0.0, imputer=_imputer(imputation))
    road = score_maps(result, scoring, progress)
    baseline = _baseline_value(result, imputation)
    ends = np.full((len(result.maps), 1), 1.0)
    if name == "insertion":
        curves = np.hstack([ends * baseline, road.lerf, ends * road.probability])
    else:
        # MoRF at the kept fraction p is deletion at the removed fraction 1 - p.
        curves = np.hstack([ends * road.probability, road.morf[:, ::-1], ends * baseline])
    curves[np.isnan(road.scores)] = np.nan
    return [i / steps for i in range(steps + 1)], curves


def _baseline_value(result: Result, imputation: str) -> float:
    """Return the target's value for the fully imputed image."""
    # ROAD's imputation requires a kept pixel; without one, the image is filled with its mean.
    baseline = _baseline_image(result.tensor[0], "mean" if imputation == "road" else imputation)
    assert baseline is not None
    return float(_values(result, baseline)[0])


def _confidence(result: Result, name: str, imputation: str, progress: Progress) -> Floats:
    """Return the confidence drop, or increase, of each layer, (L,)."""
    import torch

    image, size = result.tensor[0], tuple(result.tensor.shape[2:])
    before = float(_values(result, image[None])[0])
    if name == "drop" and before <= 0:
        raise ScoreError(
            f"The confidence drop is undefined for {result.target.name} = {before:.3g}: "
            "use deletion or insertion."
        )
    values, baseline = np.full(len(result.maps), np.nan), _baseline_image(image, imputation)
    with suppress(Cancelled):
        for i, raw in enumerate(result.maps):
            progress("confidence", i, len(result.maps))
            if why_undefined(raw, size) is not None:
                continue
            weights = torch.from_numpy(relevance(raw, size))
            blended = _blend(image, weights / weights.max(), baseline)
            after = float(_values(result, blended)[0])
            increase = float(after > before)
            values[i] = increase if name == "increase" else max(0.0, before - after) / before
    return values


def _baseline_image(image: torch.Tensor, imputation: str) -> torch.Tensor | None:
    """Return the fully imputed image, (1, C, *S); None for "road", which requires kept pixels."""
    import torch

    if imputation == "road":
        return None
    return _imputer(imputation)(image, torch.zeros(1, *image.shape[1:], dtype=torch.bool))


def _blend(
    image: torch.Tensor, weights: torch.Tensor, baseline: torch.Tensor | None
) -> torch.Tensor:
    """Return the image blended with the baseline by weights in [0, 1]; thresholded without one."""
    if baseline is None:
        return _imputer("road")(image, weights[None] >= 0.5)
    return weights * image + (1 - weights) * baseline


def _values(result: Result, images: torch.Tensor) -> torch.Tensor:
    from camanim.exclusive import exclusively
    from camanim.model_state import run_callback

    forward = result.model.forward()
    images = images.to(result.model.device, result.model.dtype)

    def run() -> torch.Tensor:
        with forward.evaluating(tuple(images.shape)):
            values: torch.Tensor = run_callback(result.target.value, forward(images))
        return values.cpu().double()

    return exclusively(forward.net, run)
