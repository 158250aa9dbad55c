"""An activation's channels as masks over the image; equal masks are scored once."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float64]

#: Masks whose root mean square difference is less, as a share of their range, are equal but for
#: rounding.
ALIKE = 1e-6
#: Numbers in the fingerprint of a mask.
PRINT = 8
#: As in grad-cam and torch-cam: avoids a division by zero for a constant channel.
EPS = 1e-8


def scaled(channels: torch.Tensor) -> torch.Tensor:
    """Scale each channel of (n, *s) to [0, 1], a constant one to 0."""
    flat = channels.flatten(1)
    low = flat.amin(1, keepdim=True)
    high = flat.amax(1, keepdim=True)
    return ((flat - low) / (high - low + EPS)).view(channels.shape)


def strongest(activation: torch.Tensor, channels: int | None) -> torch.Tensor:
    """Return the indices of the `channels` channels that vary most over space, in ascending order."""
    import torch

    count = len(activation)
    if channels is None or channels >= count:
        return torch.arange(count, device=activation.device)
    spread = activation.flatten(1).std(1, correction=0)
    return spread.topk(channels).indices.sort().values


def fingerprints(activation: torch.Tensor) -> Array:
    """Project each channel's mask on fixed random images, (C, `PRINT`).

    The projections of masks whose root mean square difference is d differ by about d. So two masks whose
    projections agree are equal but for rounding.
    """
    import torch

    from camanim.precision import as_float64

    masks = as_float64(scaled(activation).flatten(1))
    pixels = masks.shape[1]
    generator = torch.Generator("cpu").manual_seed(0)
    images = torch.randn(pixels, PRINT, generator=generator, dtype=torch.float64, device="cpu")
    array: Array = (masks @ images.to(masks.device) / pixels**0.5).cpu().numpy()
    return array


def scores_of_masks(
    prints: Array,
    memory: MutableMapping[Any, Any],
    key: tuple[Any, ...],
    score: Callable[[npt.NDArray[np.intp]], Array],
) -> Array:
    """Score each mask once, within a layer and across layers.

    A batch normalisation with positive gain has the masks of the convolution before it, all dead
    channels have the empty mask, and a block may return the output of its last layer.

    Parameters
    ----------
    prints : (C, `PRINT`) array
    memory : mutable mapping
        Fingerprints and scores from earlier layers of the same image and target; extended here.
    key : tuple
        Masks are compared only under the same key: their resolution, and how they are used.
    score : callable
        From the indices of new masks in `prints` to their scores.

    Returns
    -------
    (C,) array
        NaN where a mask is not finite; such a layer is not scored.
    """
    from scipy.spatial import cKDTree

    if not np.isfinite(prints).all():
        return np.full(len(prints), np.nan)

    known, scores = memory.get(key, (np.empty((0, PRINT)), np.empty(0)))
    both = np.concatenate([known, prints])
    near = cKDTree(both).query_ball_point(prints, ALIKE, p=np.inf)
    first = np.arange(len(both))
    for i, alike in enumerate(near, len(known)):
        first[i] = first[min(alike)]
    new = np.flatnonzero(first[len(known) :] == np.arange(len(known), len(both)))
    scored = np.full(len(both), np.nan)
    scored[: len(known)] = scores
    if len(new):
        scored[len(known) + new] = score(new)
    memory[key] = (
        np.concatenate([known, prints[new]]),
        np.concatenate([scores, scored[len(known) + new]]),
    )
    return scored[first[len(known) :]]
