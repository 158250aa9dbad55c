"""The result of a run as plain data: layers, maps, target and provenance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.findings import Finding, in_order
from camanim.layer_info import LayerInfo, Status
from camanim.words import short_value

if TYPE_CHECKING:
    import torch

    from camanim.cam_methods import Method
    from camanim.images import Geometry, SourcePlace
    from camanim.models import Model
    from camanim.settings import Settings
    from camanim.targets import Target
    from camanim.window_grid import Windows


#: Notes of a result of a file without its image, by what the file has instead.
NO_IMAGE = {
    "thumbnail": "The image is a thumbnail: the file does not hold more of it.",
    "none": "The file does not hold the image.",
}


@dataclass(repr=False)
class Result:
    """The maps of all shown layers of one network for one image and one target.

    `maps` and `layers` are aligned, in order of execution; `layer_calls` lists every call of every
    module with its status, including those without a map.

    Attributes
    ----------
    maps : list of numpy.ndarray
        One float32 array per shown layer: **raw**, signed, at the resolution of the layer. (h, w); for
        a volume (d, h, w), or (z, h, w) if a 2-D network explained each slice.
    layers : list of LayerInfo
        The shown layers.
    layer_calls : list of LayerInfo
        Every call of every module.
    method : str
        Name of the method, such as ``GradCAM``.
    target : Target
        The explained target.
    probability : float
        The target's probability for this image, or its score if it has no probability (see
        ``target.unit``); the mean over the slices of a volume.
    image : numpy.ndarray
        The image as shown, uint8, (H, W) or (H, W, 3); a volume (Z, Y, X) or (Z, Y, X, 3).
    geometry : Geometry
        Maps coordinates of the network's input to the image.
    tensor : torch.Tensor
        The network's input, (1, C, *S); (Z, C, h, w) if a 2-D network explained the slices of a volume.
    model : Model
        The network that was explained.
    provenance : dict
        Versions, hashes and settings that reproduce the result.
    findings : dict of str to Finding
        Findings about the maps by key, such as ROAD scores; see `add`.
    input_gradient : torch.Tensor or None
        Gradient of the target's score with respect to `tensor`; None for methods without gradients.
    guided : torch.Tensor or None
        Guided gradient with respect to `tensor`; for guided methods only.
    forward_seconds : float
        Time of one forward pass with the hooks, for estimates; 0 if it is not known.
    notes : list of str
        Deviations from the settings, such as smaller batches when memory ran out.
    extremes : list of (min, max) or None
        Extremes of the raw maps of the whole volume, if `maps` are planes of them (see `plane`).
    placement : Geometry or None
        Maps coordinates of `image` to the larger image that it was taken from, where a box of that was
        explained or its picture was reduced; None for a whole image. See `source_geometry`.
    windows : Windows or None
        The windows of `animate_windows`. With windows, `tensor` is on the meta device: it has a shape
        and no values, and findings that need the network's input are refused.
    computed_with : (Method, Settings) or None
        Method and settings, for `camanim.pipeline.recompute`; None if the result was not computed by
        `animate`.
    source : SourcePlace or None
        Shape, spacing, units and affine of the image that was passed, if it was a `SourceImage`:
        `source_geometry` leads to its pixels, and its affine from there to the patient.
    """

    maps: list[npt.NDArray[np.float32]]
    layers: list[LayerInfo]
    layer_calls: list[LayerInfo]
    method: str
    target: Target
    probability: float
    image: npt.NDArray[np.uint8]
    geometry: Geometry
    tensor: torch.Tensor
    model: Model
    provenance: dict[str, Any]
    findings: dict[str, Finding] = field(default_factory=dict)
    input_gradient: torch.Tensor | None = None
    guided: torch.Tensor | None = None
    forward_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    extremes: list[tuple[float, float]] | None = None
    placement: Geometry | None = None
    windows: Windows | None = None
    computed_with: tuple[Method, Settings] | None = None
    source: SourcePlace | None = None

    def __repr__(self) -> str:
        findings = f", {', '.join(self.findings)}" if self.findings else ""
        # A name with random weights says so.
        model = str(self.provenance.get("model") or getattr(self.model, "name", "no model"))
        random = " (random weights)" if self.random_weights and "random" not in model else ""
        return (
            f"<{type(self).__name__}: {self.method} of {self.target.name} ({self.probability:.3g}), "
            f"{len(self)} layers, {model}{random}{findings}>"
        )

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def cancelled(self) -> bool:
        """Whether the run was stopped before all layers, or all windows, had a map."""
        unfinished = self.windows is not None and not self.windows.complete
        return unfinished or any(info.status == Status.CANCELLED for info in self.layer_calls)

    @property
    def source_geometry(self) -> Geometry:
        """Maps coordinates of the network's input to the image that was passed, as of a whole slide."""
        if self.placement is None:
            return self.geometry
        return self.geometry.within(self.placement)

    @property
    def initial_index(self) -> int:
        """Index of the layer to show first, as the last finding with a preference says, or the last."""
        for finding in reversed(self.findings.values()):
            if finding.shown_first is not None:
                return self.layers.index(finding.shown_first)
        return len(self) - 1

    @property
    def warnings(self) -> list[str]:
        """Warnings of the findings, such as a failed check."""
        return [text for finding in self.findings.values() for text in finding.warnings()]

    @property
    def random_weights(self) -> bool:
        """Whether the network had random weights, which nothing was learnt with."""
        return self.provenance.get("weights") == "random"

    def add(self, finding: Finding) -> None:
        """Store a finding; it replaces a finding with the same key."""
        self.findings = in_order({**self.findings, finding.key: finding}.values())

    def highest(self, i: int) -> float:
        """Return the highest raw value of the map of layer `i`; of a plane, that of the whole volume."""
        return float(self.maps[i].max()) if self.extremes is None else self.extremes[i][1]

    def no_evidence(self, i: int) -> str:
        """Return that layer `i` has no positive evidence, or none in the plane; empty if it has some."""
        if self.maps[i].max() > 0:
            return ""
        return f"no positive evidence{' in this plane' if self.highest(i) > 0 else ''}"

    @property
    def image_note(self) -> str:
        """The note that `image` is black or a thumbnail, as the file does not hold it; or empty."""
        return next((note for note in NO_IMAGE.values() if note in self.notes), "")

    def caption(self, i: int) -> str:
        """Return the caption of layer `i`: its name and kind, the target, and captions of findings."""
        layer = self.layers[i]
        value = short_value(self.probability)
        facts = [f"{layer.kind}  {i + 1}/{len(self)}", f"{self.target.name} {value}"]
        if self.random_weights:
            facts.append("random weights")
        highest = self.highest(i)
        # Normalised by its maximum, weak evidence would look like strong evidence.
        facts.append(f"raw max {highest:.2g}" if highest > 0 else "no positive evidence")
        captions = [finding.caption(i) for finding in self.findings.values()]
        return "\n".join([layer.label, "   ".join(facts), *filter(None, captions)])
