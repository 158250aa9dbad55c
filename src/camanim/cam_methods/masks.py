"""Channels of an activation as masks of the image, scored without duplicates."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float64]

#: Root mean square difference, as a fraction of the range, below which masks are equal up to rounding.
TOLERANCE = 1e-6
#: Length of the fingerprint of a mask.
FINGERPRINT_SIZE = 8
#: Avoids a division by zero for constant channels, as in grad-cam and torch-cam.
EPS = 1e-8


def scaled(channels: torch.Tensor) -> torch.Tensor:
    """Return the channels (n, *s), each scaled to [0, 1]; constant channels are 0."""
    flat = channels.flatten(1)
    low = flat.amin(1, keepdim=True)
    high = flat.amax(1, keepdim=True)
    return ((flat - low) / (high - low + EPS)).view(channels.shape)


def strongest(activation: torch.Tensor, channels: int | None) -> torch.Tensor:
    """Return the indices of the channels with the largest variance over space, in ascending order."""
    import torch

    count = len(activation)
    if channels is None or channels >= count:
        return torch.arange(count, device=activation.device)
    spread = activation.flatten(1).std(1, correction=0)
    return spread.topk(channels).indices.sort().values


def fingerprints(activation: torch.Tensor) -> Array:
    """Return the projections of each channel's mask on fixed random images, (C, `FINGERPRINT_SIZE`).

    The projections of masks with the root mean square difference d differ by about d. Two masks with
    equal projections are therefore equal up to rounding.
    """
    import torch

    from camanim.precision import as_float64

    masks = as_float64(scaled(activation).flatten(1))
    pixels = masks.shape[1]
    generator = torch.Generator("cpu").manual_seed(0)
    images = torch.randn(
        pixels, FINGERPRINT_SIZE, generator=generator, dtype=torch.float64, device="cpu"
    )
    array: Array = (masks @ images.to(masks.device) / pixels**0.5).cpu().numpy()
    return array


def scores_of_masks(
    prints: Array,
    memory: MutableMapping[Any, Any],
    key: tuple[Any, ...],
    score: Callable[[npt.NDArray[np.intp]], Array],
) -> Array:
    """Return the score of each mask; equal masks are scored once, within and across layers.

    Equal masks are frequent: a batch normalisation with positive gain has the masks of the convolution
    before it, all dead channels have the empty mask, and a block may return the output of its last
    layer.

    Parameters
    ----------
    prints : (C, `FINGERPRINT_SIZE`) array
    memory : mutable mapping
        Fingerprints and scores from earlier layers for the same image and target; extended in place.
    key : tuple
        Resolution and use of the masks; only masks with the same key are compared.
    score : callable
        Map the indices of new masks in `prints` to their scores.

    Returns
    -------
    (C,) array
        All NaN if any mask is not finite.
    """
    from scipy.spatial import cKDTree

    if not np.isfinite(prints).all():
        return np.full(len(prints), np.nan)

    known, scores = memory.get(key, (np.empty((0, FINGERPRINT_SIZE)), np.empty(0)))
    both = np.concatenate([known, prints])
    near = cKDTree(both).query_ball_point(prints, TOLERANCE, p=np.inf)
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
