"""An activation's channels as masks over the image, and which of them are the same."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float64]

#: Masks that differ by less, in root mean square and parts of their range, count as the same: rounding.
ALIKE = 1e-6
#: Numbers that stand for a mask.
PRINT = 8
#: As in grad-cam and torch-cam: keeps a constant channel from a division by zero.
EPS = 1e-8


def scaled(channels: torch.Tensor) -> torch.Tensor:
    """Bring each channel of (n, *s) to [0, 1]; a constant one to 0."""
    flat = channels.flatten(1)
    low = flat.amin(1, keepdim=True)
    high = flat.amax(1, keepdim=True)
    return ((flat - low) / (high - low + EPS)).view(channels.shape)


def enlarged(
    channels: torch.Tensor, size: Sequence[int], *, align_corners: bool = False
) -> torch.Tensor:
    """Resize (n, *s) linearly to (n, *size)."""
    from torch.nn.functional import interpolate

    mode = {2: "bilinear", 3: "trilinear"}[len(size)]
    return interpolate(channels[:, None], list(size), mode=mode, align_corners=align_corners)[:, 0]


def strongest(activation: torch.Tensor, channels: int | None) -> torch.Tensor:
    """Choose the channels (at most `channels`) that vary most over space, in their own order."""
    import torch

    count = len(activation)
    if channels is None or channels >= count:
        return torch.arange(count, device=activation.device)
    spread = activation.flatten(1).std(1, correction=0)
    return spread.topk(channels).indices.sort().values


def fingerprints(activation: torch.Tensor) -> Array:
    """Describe each channel's mask by a few numbers, (C, `PRINT`): projections on fixed random images.

    Masks that differ by d in root mean square have numbers that differ by about d, so two masks that
    agree in all of them are the same but for rounding.
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
    ask: Callable[[npt.NDArray[np.intp]], Array],
) -> Array:
    """Score each mask, but no mask twice: neither within a layer nor from one layer to the next.

    A batch normalisation with positive gain has the masks of the convolution before it, all dead
    channels have the empty mask, and a block may hand on what its last layer gave.

    Parameters
    ----------
    prints : (C, `PRINT`) array
    memory : mutable mapping
        What is known from earlier layers of the same image and target; added to.
    key : tuple
        Under which masks can be compared: their resolution, and how they are used.
    ask : callable
        From the masks that are new, as indices into `prints`, to their scores.

    Returns
    -------
    (C,) array
        NaN where a mask is not finite; such a layer costs nothing.
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
    every = np.full(len(both), np.nan)
    every[: len(known)] = scores
    if len(new):
        every[len(known) + new] = ask(new)
    memory[key] = (
        np.concatenate([known, prints[new]]),
        np.concatenate([scores, every[len(known) + new]]),
    )
    return every[first[len(known) :]]
