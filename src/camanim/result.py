"""The result of a run, as plain data: which layers there are, what each looked at, and where from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.layer_info import LayerInfo, Status

if TYPE_CHECKING:
    import torch

    from camanim.cam_methods import Method
    from camanim.checks import LabelRandomisation, Localisation, Randomisation
    from camanim.images import Geometry
    from camanim.models import Model
    from camanim.road import Road
    from camanim.road.measures import Measure
    from camanim.settings import Settings
    from camanim.targets import Target


@dataclass
class Result:
    """The maps of all shown layers of one network for one image and one target.

    `maps` and `layers` run in parallel, in order of execution; `trace` lists every call of every
    module, also those without a map, each with its status.

    Attributes
    ----------
    maps : list of numpy.ndarray
        One float32 array per shown layer: **raw**, signed, at the layer's own resolution. (h, w); of a
        volume (d, h, w), or (z, h, w) where a 2-D network saw each of its slices.
    layers : list of LayerInfo
        The shown layers.
    layer_calls : list of LayerInfo
        Every call of every module.
    method : str
        Name of the method, such as ``GradCAM``.
    target : Target
        What was explained.
    probability : float
        What the target is worth for this image: its probability where there is one, else its score (see
        ``target.unit``); the mean over the slices of a volume.
    image : numpy.ndarray
        The image as shown, uint8, (H, W) or (H, W, 3); a volume (Z, Y, X) or (Z, Y, X, 3).
    geometry : Geometry
        Leads from the network's input back to the image.
    tensor : torch.Tensor
        The network's input, (1, C, *S); (Z, C, h, w) where a 2-D network saw the slices of a volume.
    model : Model
        The network that was explained.
    provenance : dict
        Versions, hashes and settings with which the result can be made again.
    road : Road or None
        ROAD scores of the shown layers, once `score` was called.
    input_gradient : torch.Tensor or None
        Gradient of the target's score in the network's input, as `tensor`; None for methods that
        take none.
    guided : torch.Tensor or None
        The guided gradient in the network's input, as `tensor`; for guided methods only.
    notes : list of str
        What was done otherwise than asked, such as smaller batches when memory ran out.
    extremes : list of (min, max) or None
        Of the raw maps, where `maps` are planes of them (see `plane`).
    randomisation : Randomisation or None
        How the maps change when the weights are shuffled, once `check_randomisation` was called.
    labels : LabelRandomisation or None
        How the maps change when another class is explained, once `check_labels` was called.
    localisation : Localisation or None
        How the maps agree with a mask, once `localise` was called.
    measures : dict of str to Measure
        Other measures, by label, such as "deletion (blur)"; see `measure`.
    computed_with : (Method, Settings) or None
        How the maps were made, for `camanim.pipeline.recompute`; None where nobody made them.
    """

    maps: list[npt.NDArray[np.float32]]
    layers: list[LayerInfo]
    layer_calls: list[LayerInfo]
    method: str
    target: Target
    probability: float
    image: npt.NDArray[np.uint8]
    geometry: Geometry
    tensor: torch.Tensor = field(repr=False)
    model: Model = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)
    road: Road | None = None
    input_gradient: torch.Tensor | None = field(default=None, repr=False)
    guided: torch.Tensor | None = field(default=None, repr=False)
    notes: list[str] = field(default_factory=list)
    extremes: list[tuple[float, float]] | None = field(default=None, repr=False)
    randomisation: Randomisation | None = field(default=None, repr=False)
    labels: LabelRandomisation | None = field(default=None, repr=False)
    localisation: Localisation | None = field(default=None, repr=False)
    measures: dict[str, Measure] = field(default_factory=dict, repr=False)
    computed_with: tuple[Method, Settings] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def cancelled(self) -> bool:
        """Whether the run was stopped before every selected layer had its map."""
        return any(layer.status == Status.CANCELLED for layer in self.layer_calls)

    @property
    def best_index(self) -> int:
        """The shown layer to look at first: ROAD's best, or the last where there are no scores."""
        best = None if self.road is None else self.road.best
        return len(self) - 1 if best is None else self.layers.index(best)

    def caption(self, i: int) -> str:
        """Say what layer `i` is, what was explained, and how it scores, in short lines."""
        layer = self.layers[i]
        worth = (
            f"{self.probability:.2f}"
            if self.target.unit == "probability"
            else (f"{self.probability:.3g}")
        )
        about = [f"{layer.kind}  {i + 1}/{len(self)}", f"{self.target.name} {worth}"]
        highest = float(self.maps[i].max()) if self.extremes is None else self.extremes[i][1]
        # Scaled by its own maximum, weak evidence looks like strong.
        about.append(f"raw max {highest:.2g}" if highest > 0 else "no positive evidence")
        lines = [layer.label, "   ".join(about)]
        if self.road is not None:
            lines.append(self.road.caption(i))
        if self.localisation is not None:
            lines.append(self.localisation.caption(i))
        lines += [
            check.short for check in (self.randomisation, self.labels) if check and check.short
        ]
        return "\n".join(lines)
