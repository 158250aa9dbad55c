"""Maps times the guided gradient in the input."""

from __future__ import annotations

import numpy as np
import torch

from camanim.attribution.map_settings import AttributionMaps
from camanim.execution.forward import Forward
from camanim.execution.guided_gradient import guided_gradient
from camanim.stack import upsample


def times_guided(
    made: AttributionMaps, forward: Forward, tensor: torch.Tensor, *, at_once: int, slices: bool
) -> list[torch.Tensor]:
    """Multiply the maps, brought to the input's size, with the guided gradient there.

    Parameters
    ----------
    made : AttributionMaps
        Its maps are replaced.
    forward : Forward
    tensor : torch.Tensor
        (B, C, *S)
    at_once : int
        Images per pass.
    slices : bool
        Whether the images are slices of a volume.

    Returns
    -------
    list of torch.Tensor
        The guided gradient of each target that has maps, (B, C, *S).
    """
    gradients = []
    for maps, target in zip(made.maps, made.captured.targets, strict=True):
        if not maps:
            break
        parts = [guided_gradient(forward, part, target) for part in tensor.split(at_once)]
        gradients.append(torch.cat(parts).cpu().float())
        plane = gradients[-1].sum(1).numpy()
        plane = plane if slices else plane[0]
        for index, raw in maps.items():
            maps[index] = upsample(np.maximum(raw, 0), plane.shape) * plane
    return gradients
