"""The result of a run, as plain data: which layers there are, what each looked at, and where from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.findings import Finding, in_order
from camanim.layer_info import LayerInfo, Status

if TYPE_CHECKING:
    import torch

    from camanim.cam_methods import Method
    from camanim.images import Geometry
    from camanim.models import Model
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
    findings : dict of str to Finding
        What was computed about the maps, such as ROAD scores, by key; see `add`.
    input_gradient : torch.Tensor or None
        Gradient of the target's score in the network's input, as `tensor`; None for methods that
        take none.
    guided : torch.Tensor or None
        The guided gradient in the network's input, as `tensor`; for guided methods only.
    notes : list of str
        What was done otherwise than asked, such as smaller batches when memory ran out.
    extremes : list of (min, max) or None
        Of the raw maps, where `maps` are planes of them (see `plane`).
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
    findings: dict[str, Finding] = field(default_factory=dict)
    input_gradient: torch.Tensor | None = field(default=None, repr=False)
    guided: torch.Tensor | None = field(default=None, repr=False)
    notes: list[str] = field(default_factory=list)
    extremes: list[tuple[float, float]] | None = field(default=None, repr=False)
    computed_with: tuple[Method, Settings] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def cancelled(self) -> bool:
        """Whether the run was stopped before every selected layer had its map."""
        return any(layer.status == Status.CANCELLED for layer in self.layer_calls)

    @property
    def best_index(self) -> int:
        """Index of the layer to show first: the one that a finding chooses, or the last."""
        for finding in self.findings.values():
            if finding.chooses_layer and finding.best is not None:
                return self.layers.index(finding.best)
        return len(self) - 1

    @property
    def warnings(self) -> list[str]:
        """Return what findings say against the maps, such as a failed check."""
        return [words for finding in self.findings.values() for words in finding.warnings()]

    def add(self, finding: Finding) -> None:
        """Keep a finding, in place of one of the same key."""
        self.findings = in_order({**self.findings, finding.key: finding}.values())

    def caption(self, i: int) -> str:
        """Return short lines: which layer `i` is, what was explained, and what findings say of it."""
        layer = self.layers[i]
        value = (
            f"{self.probability:.2f}"
            if self.target.unit == "probability"
            else (f"{self.probability:.3g}")
        )
        about = [f"{layer.kind}  {i + 1}/{len(self)}", f"{self.target.name} {value}"]
        highest = float(self.maps[i].max()) if self.extremes is None else self.extremes[i][1]
        # Scaled by its maximum, weak evidence looks like strong evidence.
        about.append(f"raw max {highest:.2g}" if highest > 0 else "no positive evidence")
        captions = [finding.caption(i) for finding in self.findings.values()]
        return "\n".join([layer.label, "   ".join(about), *filter(None, captions)])
