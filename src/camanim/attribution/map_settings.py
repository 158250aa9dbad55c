"""Settings of maps, and maps of all layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from camanim.cam_methods import Method
from camanim.errors import NoMap
from camanim.execution.capture import Captured
from camanim.layer_info import LayerInfo, Status
from camanim.model_state import as_method_error

FloatMap = npt.NDArray[np.float32]
Maps = dict[int, FloatMap]
#: By layer and by name, the means that a method needs.
Means = dict[int, dict[str, torch.Tensor]]


@dataclass(frozen=True)
class MapSettings:
    """The method and settings of maps.

    Attributes
    ----------
    method : Method
    options : mapping
        Of the method, as `Method.checked` returns them.
    eigen_smooth : bool
        Take the first principal component of the channels' contributions instead of their sum.
    seed : int
        Of random methods.
    slices : bool
        Treat the images of a batch as the slices of a volume, some at a time.
    augment : bool
        Average the maps of six variants of the input.
    """

    method: Method
    options: Mapping[str, Any] = field(default_factory=dict)
    eigen_smooth: bool = False
    seed: int = 0
    slices: bool = False
    augment: bool = False

    def generator(self, index: int) -> torch.Generator:
        """Return the seeded random numbers of one layer."""
        return torch.Generator("cpu").manual_seed((self.seed * 1_000_003 + index) % 2**63)

    def map_of(self, index: int, ingredients: dict[str, Any]) -> torch.Tensor:
        """Return one layer's map for one image, (*s)."""
        if "generator" in self.method.needs:
            ingredients["generator"] = self.generator(index)
        needed = {name: ingredients[name] for name in self.method.needs}
        with as_method_error(self.method.name, NoMap):
            return self.method.weigh(needed, self.options, eigen_smooth=self.eigen_smooth)


@dataclass
class AttributionMaps:
    """The maps of all layers.

    Attributes
    ----------
    captured : Captured
        Its `layer_calls` have each layer's status.
    maps : list of dict
        Per target, by index of the layer call: (*s), or (z, *s) of several images.
    guided : list of torch.Tensor
        Of guided methods, the guided gradient in the input of each target that has maps, (B, C, *S).
    """

    captured: Captured
    maps: list[Maps]
    guided: list[torch.Tensor] = field(default_factory=list)


def selected_maps(attribution: AttributionMaps, t: int) -> tuple[list[LayerInfo], list[FloatMap]]:
    """Return the layers that have a map for target `t`, and their maps, in order of execution."""
    maps = attribution.maps[t]
    layers = [layer for layer in attribution.captured.layer_calls[t] if layer.index in maps]
    return layers, [maps[layer.index] for layer in layers]


def as_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Convert half precision, in which sums lose too many digits, to float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def as_array(maps: list[torch.Tensor]) -> FloatMap:
    """Convert the maps of B images to numpy: (*s), or (B, *s) where B > 1.

    Raises
    ------
    NoMap
        Where a value is not finite.
    """
    raw = maps[0] if len(maps) == 1 else torch.stack(maps)
    array: FloatMap = raw.float().cpu().numpy()
    if not np.isfinite(array).all():
        raise NoMap(Status.NOT_FINITE)
    return array
