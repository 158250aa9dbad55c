"""Methods that ask the network again: with parts of the image masked, or channels of the layer off."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.cam_methods.masks import enlarged, fingerprints, scaled, scores_of_masks, strongest
from camanim.cam_methods.registry import register
from camanim.declarations import NotNegative, Positive

if TYPE_CHECKING:
    import torch

    Make = Callable[[int, int], torch.Tensor]
    Ask = Callable[[int, Make], torch.Tensor]

Indices = npt.NDArray[np.intp]


@register(
    "ScoreCAM",
    paper="Wang et al., CVPR Workshops 2020, arXiv 1910.01279",
    summary="Channels weighted by the score of the image seen through them; needs no gradients.",
    caveat="The softmax over logits often leaves one channel, and a masked image is no photograph.",
    cost="1 forward for each channel of each layer whose mask is new",
    gives="weights",
)
def scorecam(
    activation: torch.Tensor,
    image: torch.Tensor,
    predict: Ask,
    memory: MutableMapping[Any, Any],
    *,
    channels: Positive | None = None,
    align_corners: bool = False,
) -> torch.Tensor:
    """Weigh each channel by the softmax over channels of the score of the image times its mask.

    Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR
    Workshops 2020. A mask is the channel, enlarged to the image and then brought to [0, 1], as in
    grad-cam. A mask that was scored before is not scored again, nor is one that differs from it by
    rounding alone.

    Parameters
    ----------
    activation : torch.Tensor
        (C, *s)
    image : torch.Tensor
        (Cin, *S)
    predict : callable
        Scores of images.
    memory : mutable mapping
        Scores known from other layers of the same image and target.
    channels : int or None
        Score only so many channels, those that vary most over space, and leave out all others: an
        approximation.
    align_corners : bool
        Enlarge as grad-cam does, with the centres of the corners kept in place; otherwise masks lie
        where the maps are shown.

    Returns
    -------
    torch.Tensor
        Weights, (C,).
    """
    chosen = strongest(activation, channels)
    layer = activation[chosen]
    size = image.shape[1:]

    def ask(new: Indices) -> npt.NDArray[np.float64]:
        def make(start: int, stop: int) -> torch.Tensor:
            part = layer[new[start:stop]]
            masks = scaled(enlarged(part, size, align_corners=align_corners))
            return masks[:, None].to(image) * image

        return predict(len(new), make).numpy()

    key = ("ScoreCAM", tuple(layer.shape[1:]), align_corners)
    return _softmax(scores_of_masks(fingerprints(layer), memory, key, ask), chosen, activation)


def _softmax(
    scores: npt.NDArray[np.float64], chosen: torch.Tensor, activation: torch.Tensor
) -> torch.Tensor:
    import torch

    weights = torch.zeros(len(activation), dtype=torch.float64)
    weights[chosen.cpu()] = torch.from_numpy(scores).softmax(0)
    return weights.to(activation)


@register(
    "SS-CAM",
    paper="Wang et al. 2020, arXiv 2006.14255",
    summary="ScoreCAM with noise on the masks, averaged.",
    caveat="The published noise is twice as large as the masks: little of a mask is left in a sample.",
    cost="1 forward for each sample of each channel of each layer",
    gives="weights",
)
def sscam(
    activation: torch.Tensor,
    image: torch.Tensor,
    predict: Ask,
    generator: torch.Generator,
    *,
    channels: Positive | None = None,
    samples: Positive = 35,
    std: NotNegative = 2.0,
) -> torch.Tensor:
    """Weigh each channel by the softmax of its mean score under noisy masks.

    Wang et al., "SS-CAM: Smoothed Score-CAM for Sharper Visual Feature Localization", arXiv 2006.14255,
    as in torch-cam: a mask is the channel brought to [0, 1], then enlarged; the noise is added to it.

    Parameters
    ----------
    activation : torch.Tensor
        (C, *s)
    image : torch.Tensor
        (Cin, *S)
    predict : callable
        Scores of images.
    generator : torch.Generator
        Its seed decides on the noise.
    channels : int or None
        Score only so many channels, those that vary most over space: an approximation.
    samples : int
        Noisy masks for each channel.
    std : float
        Standard deviation of the noise; a mask goes from 0 to 1.

    Returns
    -------
    torch.Tensor
        Weights, (C,).
    """
    import torch

    chosen = strongest(activation, channels)
    layer = scaled(activation[chosen])
    size = tuple(image.shape[1:])
    count = len(layer)
    if not bool(layer.isfinite().all()):
        return activation.new_full((len(activation),), torch.nan)

    def make(start: int, stop: int) -> torch.Tensor:
        items = range(start, stop)
        masks = enlarged(layer[[item % count for item in items]], size)
        noise = torch.stack([sscam_noise(generator, item, size) for item in items])
        return (masks.to(image) + std * noise.to(image))[:, None] * image

    scores = predict(samples * count, make).view(samples, count).mean(0)
    return _softmax(scores.numpy(), chosen, activation)


def sscam_noise(generator: torch.Generator, item: int, size: tuple[int, ...]) -> torch.Tensor:
    """Draw the noise of one item, the same whenever it is asked for: batches may be made again."""
    import torch

    seed = (generator.initial_seed() + 1 + item) % 2**63
    return torch.randn(size, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")


@register(
    "IS-CAM",
    paper="Naidu et al. 2020, arXiv 2010.03023",
    summary="ScoreCAM with the masked image turned up step by step, averaged.",
    caveat="As torch-cam sums its steps, the last of them are brighter than the image itself.",
    cost="1 forward for each step of each channel of each layer whose mask is new",
    gives="weights",
)
def iscam(
    activation: torch.Tensor,
    image: torch.Tensor,
    predict: Ask,
    memory: MutableMapping[Any, Any],
    *,
    channels: Positive | None = None,
    samples: Positive = 10,
) -> torch.Tensor:
    """Weigh each channel by the softmax of its mean score over steps of brightness.

    Naidu et al., "IS-CAM: Integrated Score-CAM for axiomatic-based explanations", arXiv 2010.03023, as
    in torch-cam: step i shows the image times its mask times ``(1 + 2 + ... + i) / samples``.

    Parameters
    ----------
    activation : torch.Tensor
        (C, *s)
    image : torch.Tensor
        (Cin, *S)
    predict : callable
        Scores of images.
    memory : mutable mapping
        Scores known from other layers of the same image and target.
    channels : int or None
        Score only so many channels, those that vary most over space: an approximation.
    samples : int
        Number of steps.

    Returns
    -------
    torch.Tensor
        Weights, (C,).
    """
    import torch

    chosen = strongest(activation, channels)
    layer = scaled(activation[chosen])
    steps = torch.arange(1, samples + 1, dtype=torch.float64).cumsum(0) / samples

    def ask(new: Indices) -> npt.NDArray[np.float64]:
        def make(start: int, stop: int) -> torch.Tensor:
            items = np.arange(start, stop)
            masks = enlarged(layer[new[items % len(new)]], image.shape[1:]).to(image)
            factors = steps[items // len(new)].to(image)
            return (masks * factors.view(-1, *[1] * (masks.ndim - 1)))[:, None] * image

        return predict(samples * len(new), make).view(samples, len(new)).mean(0).numpy()

    key = ("IS-CAM", tuple(layer.shape[1:]), samples)
    return _softmax(scores_of_masks(fingerprints(layer), memory, key, ask), chosen, activation)


@register(
    "AblationCAM",
    paper="Desai & Ramaswamy, WACV 2020",
    summary="Channels weighted by how far the score drops without them; needs no gradients.",
    caveat="Channels that stand in for each other each look unimportant, for they go one at a time.",
    cost="the rest of the network for each channel of each layer",
    gives="weights",
)
def ablationcam(
    activation: torch.Tensor, rerun: Ask, score: float, *, channels: Positive | None = None
) -> torch.Tensor:
    """Weigh each channel by ``(s - s_c) / |s|``, s_c the score with channel c set to zero.

    Desai & Ramaswamy, "Ablation-CAM: Visual Explanations for Deep Convolutional Network via
    Gradient-free Localization", WACV 2020, equation 4. Divided by the score's magnitude, where the
    paper and grad-cam divide by the score: else a negative score would turn the map into its opposite.
    grad-cam sets channels to -1e7 where the layer has negative values; here it is zero, as in the paper.
    Channels that are zero already weigh nothing and are not asked for.

    Parameters
    ----------
    activation : torch.Tensor
        (C, *s)
    rerun : callable
        Scores of the network with the layer replaced.
    score : float
        With the layer as it is.
    channels : int or None
        Ablate only so many channels, those of the largest norm, and leave out all others: an
        approximation.

    Returns
    -------
    torch.Tensor
        Weights, (C,).
    """
    import torch

    norms = activation.flatten(1).norm(dim=1)
    chosen = norms.topk(min(channels or len(norms), len(norms))).indices
    chosen = chosen[norms[chosen] != 0].sort().values

    def make(start: int, stop: int) -> torch.Tensor:
        off = activation.repeat(stop - start, *[1] * activation.ndim)
        off[torch.arange(stop - start, device=off.device), chosen[start:stop]] = 0
        return off

    weights = torch.zeros(len(activation), dtype=torch.float64)
    if len(chosen):
        drops = score - rerun(len(chosen), make).cpu()
        weights[chosen.cpu()] = drops / (abs(score) or 1.0)
    return weights.to(activation)
