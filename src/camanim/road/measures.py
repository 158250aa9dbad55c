"""Other measures of the same kind as ROAD: what the prediction loses, or keeps, without some pixels.

What runs the network is imported within functions, so that the settings can be listed without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt

from camanim.declarations import Range, Seed, checked
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
    """The value of one measure for each shown layer.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    name : {"deletion", "insertion", "drop", "increase"}
    imputation : {"blur", "mean", "road"}
    values : (L,) array
        NaN where undefined.
    undefined : tuple of (str or None)
        For each layer, why it has no value.
    shares : tuple of S floats
        Of deletion and insertion: shares of the pixels that were removed, or inserted, from 0 to 1.
    curves : (L, S) array
        The target's probability at each of them.
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
        """Name in `Result.findings`: a result can have several measures."""
        return self.label

    @property
    def label(self) -> str:
        """Name of its column in tables, such as "deletion (blur)"."""
        return f"{self.name} ({self.imputation})"

    @property
    def higher_is_better(self) -> bool:
        """Whether a good map has a high value."""
        return self.name in ("insertion", "increase")

    @cached_property
    def best(self) -> LayerInfo | None:
        """The layer with the best value, the earliest of equals; None if none has one."""
        if np.isnan(self.values).all():
            return None
        find = np.nanargmax if self.higher_is_better else np.nanargmin
        return self.layers[int(find(self.values))]

    def columns(self) -> dict[str, Floats]:
        """Return the values."""
        return {self.label: self.values}

    def caption(self, i: int) -> str:
        """Return the value of layer `i`, or why it has none."""
        reason = self.undefined[i]
        return f"{self.label} {self.values[i]:.2f}" if reason is None else ""

    def summary(self) -> str:
        """Return the best layer and its value."""
        if self.best is None:
            return f"{self.label}: no layer has a map to measure."
        value = self.values[self.layers.index(self.best)]
        side = "highest" if self.higher_is_better else "lowest"
        return f"{self.label}: {side} {value:.3f} of {self.best.label}."

    def panel(self) -> Panel:
        """Return the values over the layers, with the best one."""
        mark = self.mark(self.best, self.values, "best")
        better = "high" if self.higher_is_better else "low"
        return Panel.over_layers(
            len(self.layers),
            lines=(Line(self.label, self.values),),
            marks=() if mark is None else (mark,),
            y_label=self.label,
            tip=f"{self.label} of every layer: a good map has a {better} value.",
        )


@register_finding(Measure)
@checked(ScoreError)
def measure(
    result: Result,
    name: Name = "deletion",
    imputation: Imputation = "blur",
    *,
    steps: Annotated[int, Range(2, 1000)] = 20,
    seed: Seed = 0,
    progress: Progress = silent,
) -> Measure:
    """Measure the maps by what the prediction loses or keeps.

    Parameters
    ----------
    result : Result
    name : {"deletion", "insertion", "drop", "increase"}
        Area under the target's probability while the most relevant pixels are removed, or inserted
        into nothing (Petsiuk et al., BMVC 2018); or how much is lost of it, as a share, where only
        what the map lights is shown, and whether it is more (Chattopadhay et al., WACV 2018).
    imputation : {"blur", "mean", "road"}
        What replaces removed pixels. Of drop and increase, maps fade into it; with "road" what is below
        half of the map's maximum is removed.
    steps : int
        Steps of the curves of deletion and insertion.
    seed : int
        Seed of the tie-break among equal pixels.
    progress : Progress

    Returns
    -------
    Measure

    Raises
    ------
    ScoreError
        When no layer can be measured, or a setting is of the wrong type or out of range.
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
    """Remove the most relevant pixels step by step, or insert them."""
    kept = tuple(100 * i / steps for i in range(1, steps))
    scoring = ScoringSettings(seed, percentiles=kept, noise=0.0, imputer=_imputer(imputation))
    road = score_maps(result, scoring, progress)
    nothing = _value_of_nothing(result, imputation)
    ends = np.full((len(result.maps), 1), 1.0)
    if name == "insertion":
        curves = np.hstack([ends * nothing, road.lerf, ends * road.probability])
    else:
        # MoRF at a share kept is deletion at the share removed.
        curves = np.hstack([ends * road.probability, road.morf[:, ::-1], ends * nothing])
    curves[np.isnan(road.scores)] = np.nan
    return [i / steps for i in range(steps + 1)], curves


def _value_of_nothing(result: Result, imputation: str) -> float:
    """Return the target's value for an image whose every pixel is imputed."""
    # From no pixel at all ROAD imputes nothing; what is left is the mean.
    nothing = _nothing_of(result.tensor[0], "mean" if imputation == "road" else imputation)
    assert nothing is not None
    return float(_values(result, nothing)[0])


def _confidence(result: Result, name: str, imputation: str, progress: Progress) -> Floats:
    """Show the network what each map lights up, and compare its confidence with that for the image."""
    import torch

    image, size = result.tensor[0], tuple(result.tensor.shape[2:])
    before = float(_values(result, image[None])[0])
    if name == "drop" and before <= 0:
        raise ScoreError(
            f"There is nothing to lose: {result.target.name} is worth {before:.3g}. "
            "Measure deletion or insertion."
        )
    values, nothing = np.full(len(result.maps), np.nan), _nothing_of(image, imputation)
    # On a cancel the layers measured so far are kept.
    with suppress(Cancelled):
        for i, raw in enumerate(result.maps):
            progress("confidence", i, len(result.maps))
            if why_undefined(raw, size) is not None:
                continue
            soft = torch.from_numpy(relevance(raw, size))
            after = float(_values(result, _lit(image, soft / soft.max(), nothing))[0])
            gain = float(after > before)
            values[i] = gain if name == "increase" else max(0.0, before - after) / before
    return values


def _nothing_of(image: torch.Tensor, imputation: str) -> torch.Tensor | None:
    """Impute every pixel, (1, C, *S); None where there must be some left to impute from."""
    import torch

    if imputation == "road":
        return None
    return _imputer(imputation)(image, torch.zeros(1, *image.shape[1:], dtype=torch.bool))


def _lit(image: torch.Tensor, soft: torch.Tensor, nothing: torch.Tensor | None) -> torch.Tensor:
    """Show the image where a map in [0, 1] is high, and what is imputed where it is low."""
    if nothing is None:
        return _imputer("road")(image, soft[None] >= 0.5)
    return soft * image + (1 - soft) * nothing


def _values(result: Result, images: torch.Tensor) -> torch.Tensor:
    from camanim.model_state import run_callback

    forward = result.model.forward()
    images = images.to(result.model.device, result.model.dtype)
    with forward.evaluating(tuple(images.shape)):
        values: torch.Tensor = run_callback(result.target.value, forward(images))
    return values.cpu().double()
