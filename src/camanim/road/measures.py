"""Other measures of the same kind as ROAD: what the prediction loses, or keeps, without some pixels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from scipy.integrate import trapezoid

from camanim.errors import Cancelled, ScoreError
from camanim.layer_info import LayerInfo
from camanim.model_state import run_callback
from camanim.progress import Progress
from camanim.road.imputation import Imputer
from camanim.road.multigrid import MultigridImputer
from camanim.road.result import CANCELLED
from camanim.road.scores import Scoring, check_scorable, score, why_undefined
from camanim.road.simple_imputers import BlurImputer, MeanImputer
from camanim.stack import relevance

if TYPE_CHECKING:
    from camanim.result import Result

Floats = npt.NDArray[np.float64]
Name = Literal["deletion", "insertion", "drop", "increase"]
Imputation = Literal["blur", "mean", "road"]

IMPUTERS: dict[str, Imputer] = {
    "blur": BlurImputer(),
    "mean": MeanImputer(),
    "road": MultigridImputer(),
}


@dataclass(frozen=True)
class Measure:
    """What one measure says of each shown layer.

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

    layers: list[LayerInfo]
    name: Name
    imputation: Imputation
    values: Floats
    undefined: tuple[str | None, ...]
    shares: tuple[float, ...]
    curves: Floats

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


def measure(
    result: Result, name: str, imputation: str, *, steps: int, seed: int, progress: Progress
) -> Measure:
    """Measure the maps of a result; see `Animation.measure`."""
    check_names(name, imputation)
    if steps < 2:
        raise ScoreError("A curve takes 2 steps at least.")
    check_scorable(result)
    if name in ("deletion", "insertion"):
        shares, curves = _curves(result, name, imputation, steps, seed, progress)
        values = np.asarray(trapezoid(curves, shares, axis=1))
    else:
        shares, curves = (), np.empty((len(result.maps), 0))
        values = _confidence(result, name, imputation, progress)
    size = tuple(result.tensor.shape[2:])
    reasons = [
        why_undefined(raw, size) or (CANCELLED if np.isnan(value) else None)
        for raw, value in zip(result.maps, values, strict=True)
    ]
    return Measure(
        layers=result.layers,
        name=cast("Name", name),
        imputation=cast("Imputation", imputation),
        values=values,
        undefined=tuple(reasons),
        shares=tuple(shares),
        curves=curves,
    )


def check_names(name: str, imputation: str) -> None:
    """Refuse what there is not.

    Raises
    ------
    ScoreError
    """
    if name not in get_args(Name):
        raise ScoreError(f"A measure is one of {', '.join(get_args(Name))}, not {name!r}.")
    if imputation not in get_args(Imputation):
        raise ScoreError(f"An imputation is one of {', '.join(IMPUTERS)}, not {imputation!r}.")


def _curves(
    result: Result, name: str, imputation: str, steps: int, seed: int, progress: Progress
) -> tuple[Sequence[float], Floats]:
    """Remove the most relevant pixels step by step, or insert them."""
    kept = tuple(100 * i / steps for i in range(1, steps))
    scoring = Scoring(
        seed, baseline=False, percentiles=kept, noise=0.0, imputer=IMPUTERS[imputation]
    )
    road = score(result, scoring, progress)
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
    """Ask what the target is worth where every pixel is imputed."""
    # From no pixel at all ROAD imputes nothing; what is left is the mean.
    nothing = _nothing_of(result.tensor[0], "mean" if imputation == "road" else imputation)
    assert nothing is not None
    return float(_values(result, nothing)[0])


def _confidence(result: Result, name: str, imputation: str, progress: Progress) -> Floats:
    """Show the network what each map lights up, and compare its confidence with that for the image."""
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
    if imputation == "road":
        return None
    return IMPUTERS[imputation](image, torch.zeros(1, *image.shape[1:], dtype=torch.bool))


def _lit(image: torch.Tensor, soft: torch.Tensor, nothing: torch.Tensor | None) -> torch.Tensor:
    """Show the image where a map in [0, 1] is high, and what is imputed where it is low."""
    if nothing is None:
        return IMPUTERS["road"](image, soft[None] >= 0.5)
    return soft * image + (1 - soft) * nothing


def _values(result: Result, images: torch.Tensor) -> torch.Tensor:
    forward = result.model.forward()
    images = images.to(result.model.device, result.model.dtype)
    with forward.evaluating(tuple(images.shape)):
        values: torch.Tensor = run_callback(result.target.value, forward(images))
    return values.cpu().double()
