"""How maps are to be made, and what comes of it."""

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
#: For each layer, what a method's averages are called and what they are.
Means = dict[int, dict[str, torch.Tensor]]


@dataclass(frozen=True)
class MapSettings:
    """How maps are to be made.

    Attributes
    ----------
    method : Method
    options : mapping
        Of the method, checked.
    eigen_smooth : bool
        Take the first principal component of what the channels contribute, not their sum.
    seed : int
        Of random methods.
    """

    method: Method
    options: Mapping[str, Any] = field(default_factory=dict)
    eigen_smooth: bool = False
    seed: int = 0

    def generator(self, index: int) -> torch.Generator:
        """Seed the random numbers of one layer."""
        return torch.Generator("cpu").manual_seed((self.seed * 1_000_003 + index) % 2**63)

    def map_of(self, index: int, ingredients: dict[str, Any]) -> torch.Tensor:
        """Make one layer's map for one image, (*s)."""
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
        Its layer_calls say what became of each layer.
    maps : list of dict
        Per target, by index into its trace: (*s), or (z, *s) where there were several images.
    """

    captured: Captured
    maps: list[Maps]


def selected_maps(made: AttributionMaps, t: int) -> tuple[list[LayerInfo], list[FloatMap]]:
    """List the layers that have a map for target `t`, and their maps, in order of execution."""
    shown = [layer for layer in made.captured.layer_calls[t] if layer.index in made.maps[t]]
    return shown, [made.maps[t][layer.index] for layer in shown]


def full(tensor: torch.Tensor) -> torch.Tensor:
    """Give half precision the digits that sums need."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def finished(planes: list[torch.Tensor]) -> FloatMap:
    """Bring the maps of B images to numpy: (*s), or (B, *s) where B > 1.

    Raises
    ------
    NoMap
        Where a value is not finite.
    """
    raw = planes[0] if len(planes) == 1 else torch.stack(planes)
    array: FloatMap = raw.float().cpu().numpy()
    if not np.isfinite(array).all():
        raise NoMap(Status.NOT_FINITE)
    return array
