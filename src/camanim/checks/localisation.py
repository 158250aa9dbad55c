"""Localisation: agreement of the maps with a mask of the object."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.checks.localisation_metrics import average_precision, energy, overlap, pointing
from camanim.checks.mask import object_cells
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

#: Decimals to which values are compared, as fractions of the maximum: the precision of float32.
DECIMALS = 6


@dataclass(frozen=True)
class Localisation(Finding):
    """Agreement of the positive part of each layer's map with a mask, at the network's input size.

    Agreement does not prove that a map is correct: the prediction may depend on other parts of the
    image, and a correct map then disagrees with the mask.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    pointing : (L,) array
        Fraction of the maximal cells that are inside the mask; 0 or 1 if the maximum is unique (pointing
        game without tolerance, Zhang et al., IJCV 2018).
    energy : (L,) array
        Fraction of the positive evidence inside the mask (Wang et al., CVPR Workshops 2020).
    iou : (L,) array
        Intersection over union of the mask and an equal number of the highest cells.
    average_precision : (L,) array
        Average precision of the values as a classifier of the mask's cells.
    share : float
        Fraction of cells in the mask; the expected value of all measures but `iou` by chance.
    undefined : tuple of (str or None)
        Reason why all four measures of a layer are NaN; None if they are defined.
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
        """Layer with the highest average precision, the first of equals; None if all are undefined."""
        if np.isnan(self.average_precision).all():
            return None
        return self.layers[int(np.nanargmax(self.average_precision))]

    def comparison(self) -> dict[str, Any]:
        """Return the highest average precision and its layer."""
        i = None if self.best is None else self.layers.index(self.best)
        return {
            "average precision": None if i is None else self.average_precision[i],
            "average precision layer": None if self.best is None else self.best.label,
        }

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
        """Return the average precision and energy of layer `i`, and the value expected by chance."""
        if self.undefined[i] is not None:
            return f"mask: undefined ({self.undefined[i]})"
        return (
            f"mask: average precision {self.average_precision[i]:.2f}   "
            f"energy inside {self.energy[i]:.2f}   chance {self.share:.2f}"
        )

    def summary(self) -> str:
        """Return the best layer and its average precision, and the value expected by chance."""
        if self.best is None:
            return "Mask: undefined for all layers."
        value = self.average_precision[self.layers.index(self.best)]
        return (
            f"Mask: highest average precision {value:.3f} at {self.best.label} "
            f"(chance {self.share:.3f})."
        )

    def panel(self) -> Panel:
        """Return the panel of all measures over the layers, with the value expected by chance."""
        # Pointing is nearly binary: a mark above the curves where the maximum is inside the mask.
        hits = np.where(np.nan_to_num(self.pointing) >= 0.5, 1.04, np.nan)
        mark = self.mark(self.best, self.average_precision, "highest")
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


@register_finding(Localisation, needs_input=False)
def localise(
    result: Result, mask: Any, *, label: int | None = None, progress: Progress = silent
) -> Localisation:
    """Compare the positive part of each map, at the network's input size, with a mask of the object.

    Parameters
    ----------
    result : Result
        Maps of an image, a volume, or a plane of a volume.
    mask : array-like
        Mask of the size of the shown image, (H, W) or (Z, Y, X), bool or integer; numpy, dask or torch.
        A cell of the network's input is inside if the mask covers at least half of its area. If no cell
        is, those with the largest covered area are.
    label : int, optional
        Value of the mask that marks the object; by default any value except 0.
    progress : Progress
        Not called, because the comparison takes milliseconds.

    Returns
    -------
    Localisation

    Raises
    ------
    ScoreError
        If there are no maps, or the mask has another size, is empty within the network's input, or
        covers all of it.
    """
    if not result.maps:
        raise ScoreError("None of the selected layers has a map to compare.")
    geometry = result.geometry
    shape = result.image.shape[: len(geometry.size)]
    inside = object_cells(mask, label, shape, geometry).reshape(-1)
    rows, reasons = [], []
    for raw in result.maps:
        values, reason = _values(raw, geometry.size)
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


def _values(raw: FloatMap, size: tuple[int, ...]) -> tuple[Floats, str | None]:
    """Return a map's positive part at the input size, (N,), or why it is undefined."""
    if not np.isfinite(raw).all():
        return np.empty(0), NOT_FINITE
    large = relevance(raw, size)
    values: Floats = large.reshape(-1).astype(np.float64).round(DECIMALS)
    # Downsampling can remove the positive cells of a map larger than the input.
    if values.max() == values.min():
        return np.empty(0), NOTHING_POSITIVE if values.max() <= 0 else CONSTANT
    return values, None
