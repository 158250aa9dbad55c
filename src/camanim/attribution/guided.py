"""Maps times the guided gradient in the input."""

from __future__ import annotations

import numpy as np
import torch

from camanim.attribution.map_settings import AttributionMaps
from camanim.execution.guided_gradient import guided_gradient
from camanim.execution.request import AttributionRequest
from camanim.stack import upsample


def times_guided(
    attribution: AttributionMaps, request: AttributionRequest, *, slices: bool
) -> list[torch.Tensor]:
    """Multiply the maps, upsampled to the input's size, with the guided gradient in the input.

    Parameters
    ----------
    attribution : AttributionMaps
        Its maps are replaced.
    request : AttributionRequest
    slices : bool
        Whether the images are slices of a volume.

    Returns
    -------
    list of torch.Tensor
        The guided gradient of each target that has maps, (B, C, *S).
    """
    size = request.batch_size if slices else 1
    gradients = []
    for maps, target in zip(attribution.maps, attribution.captured.targets, strict=True):
        if not maps:
            break
        images = request.tensor.split(size)
        parts = [guided_gradient(request.forward, part, target) for part in images]
        gradients.append(torch.cat(parts).cpu().float())
        summed = gradients[-1].sum(1).numpy()
        summed = summed if slices else summed[0]
        for index, raw in maps.items():
            maps[index] = upsample(np.maximum(raw, 0), summed.shape) * summed
    return gradients
