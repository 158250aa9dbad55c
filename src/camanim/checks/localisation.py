"""Agreement of the maps with a mask of the object."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.checks.localisation_metrics import average_precision, energy, overlap, pointing
from camanim.checks.mask import object_cells
from camanim.declarations import checked
from camanim.errors import ScoreError
from camanim.findings import Finding, register_finding
from camanim.layer_info import LayerInfo
from camanim.plots import Level, Line, Panel
from camanim.progress import Progress, silent
from camanim.road.result import CONSTANT, NOT_FINITE, NOTHING_POSITIVE
from camanim.stack import relevance

if TYPE_CHECKING:
    from camanim.result import Result
    from camanim.stack import FloatMap

Floats = npt.NDArray[np.float64]

#: Cells count as equal when they differ by less than this part of the maximum: float32 has not more.
DECIMALS = 6


@dataclass(frozen=True)
class Localisation(Finding):
    """Agreement of the positive part of each layer's map with a mask, at the network's input size.

    That a map is bright on the object is no proof that it is right: a network may look elsewhere, and a
    right map then shows that.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    pointing : (L,) array
        Share of the brightest cells that lie inside: 1 or 0 where one is brightest (pointing game
        without its tolerance, Zhang et al., IJCV 2018).
    energy : (L,) array
        Share of the positive evidence that lies inside (Wang et al., CVPR Workshops 2020).
    iou : (L,) array
        Intersection over union of the mask and as many of the highest cells.
    average_precision : (L,) array
        Of finding the mask's cells by their values.
    share : float
        Of the mask in what is explained: what chance gives, but for `iou`.
    undefined : tuple of (str or None)
        For each layer, why all four are NaN; None where they are not.
    """

    kind = "localisation"
    title = "Mask"
    order = 20

    pointing: Floats
    energy: Floats
    iou: Floats
    average_precision: Floats
    share: float
    undefined: tuple[str | None, ...]

    @cached_property
    def best(self) -> LayerInfo | None:
        """The layer with the highest average precision, the earliest of equals; None if none has one."""
        if np.isnan(self.average_precision).all():
            return None
        return self.layers[int(np.nanargmax(self.average_precision))]

    def columns(self) -> dict[str, Floats]:
        """Return the four measures of agreement."""
        return {
            "pointing": self.pointing,
            "energy inside": self.energy,
            "IoU": self.iou,
            "average precision": self.average_precision,
        }

    def listing(self) -> dict[str, list[str]]:
        """Return the average precision."""
        return {"AP": ["" if np.isnan(v) else f"{v:.3f}" for v in self.average_precision]}

    def caption(self, i: int) -> str:
        """Return the agreement of layer `i`, and that of chance."""
        if self.undefined[i] is not None:
            return f"mask: undefined ({self.undefined[i]})"
        return (
            f"mask: average precision {self.average_precision[i]:.2f}   "
            f"energy inside {self.energy[i]:.2f}   chance {self.share:.2f}"
        )

    def summary(self) -> str:
        """Return the layer that agrees best, and what chance gives."""
        if self.best is None:
            return "Mask: no layer has a map to compare."
        value = self.average_precision[self.layers.index(self.best)]
        return (
            f"Mask: best {self.best.label} with average precision {value:.3f}, "
            f"where chance gives {self.share:.3f}."
        )

    def panel(self) -> Panel:
        """Return three measures over the layers, where the peak lies inside, and chance."""
        # Yes or no: a mark where the highest value lies in the mask.
        hits = np.where(np.nan_to_num(self.pointing) >= 0.5, 1.04, np.nan)
        mark = self.mark(self.best, self.average_precision, "best")
        return Panel.over_layers(
            len(self.layers),
            lines=(
                Line("energy inside", self.energy, "third", "dashed"),
                Line("IoU", self.iou, "fourth", "dashdot"),
                Line("peak inside", hits, "second", marker="|"),
                Line("average precision", self.average_precision),
            ),
            marks=() if mark is None else (mark,),
            levels=(Level(f"chance ({self.share:.2f})", self.share),),
            y_label="agreement with the mask",
            y_limits=(-0.03, 1.1),
            tip="How well each layer's map agrees with the mask, from 0 to 1.",
        )


@register_finding(Localisation)
@checked(ScoreError)
def localise(
    result: Result, mask: Any, *, label: int | None = None, progress: Progress = silent
) -> Localisation:
    """Compare the positive part of each map, at the network's input size, with a mask of the object.

    Parameters
    ----------
    result : Result
        Of an image, a volume, or a plane of one.
    mask : array-like
        As large as the image as shown: (H, W) or (Z, Y, X), bool or integer; numpy, dask, torch. A cell
        of the network's input belongs to the object when half of its area or more does; where none
        does, the fullest ones are taken.
    label : int, optional
        Value of the mask that is the object; by default all but 0.
    progress : Progress
        Not called: the comparison takes milliseconds.

    Returns
    -------
    Localisation

    Raises
    ------
    ScoreError
        When there is no map; when the mask has another size, holds no object within what the network
        saw, or covers all of that.
    """
    if not result.maps:
        raise ScoreError("There is no map to compare: no selected layer has one.")
    geometry = result.geometry
    shape = result.image.shape[: len(geometry.size)]
    inside = object_cells(mask, label, shape, geometry).reshape(-1)
    rows, reasons = [], []
    for raw in result.maps:
        values, reason = _cells(raw, geometry.size)
        reasons.append(reason)
        measures = (pointing, energy, overlap, average_precision)
        rows.append([np.nan if reason else measure(values, inside) for measure in measures])
    columns = np.array(rows, np.float64).T
    return Localisation(
        layers=result.layers,
        pointing=columns[0],
        energy=columns[1],
        iou=columns[2],
        average_precision=columns[3],
        share=float(inside.mean()),
        undefined=tuple(reasons),
    )


def _cells(raw: FloatMap, size: tuple[int, ...]) -> tuple[Floats, str | None]:
    """Bring a map's positive part to the network's input, as shares of the maximum, (N,)."""
    nothing = np.zeros(0)
    if not np.isfinite(raw).all():
        return nothing, NOT_FINITE
    large = relevance(raw, size)
    values: Floats = large.reshape(-1).astype(np.float64).round(DECIMALS)
    # Also where the map has more cells than the input, and its only ones got lost.
    if values.max() == values.min():
        return nothing, NOTHING_POSITIVE if values.max() <= 0 else CONSTANT
    return values, None
