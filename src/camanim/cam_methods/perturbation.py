"""Methods that re-evaluate the network: on masked images, or with channels of the layer set to zero.

``predict(count, make)`` returns the scores of `count` images, ``rerun(count, make)`` those of the
network with the output of the layer replaced; ``make(start, stop)`` returns a batch of images or
outputs. ``memory`` is shared by all layers. All functions return weights (C,).
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.cam_methods.masks import fingerprints, scaled, scores_of_masks, strongest
from camanim.cam_methods.registry import register
from camanim.declarations import NotNegative, Positive
from camanim.resampling import resize

if TYPE_CHECKING:
    import torch

    Make = Callable[[int, int], torch.Tensor]
    Evaluate = Callable[[int, Make], torch.Tensor]

Indices = npt.NDArray[np.intp]


@register(
    "ScoreCAM",
    paper="Wang et al., CVPR Workshops 2020, arXiv 1910.01279",
    summary="Channels weighted by the score of the image masked by them, without gradients.",
    caveat="The softmax over logits often selects one channel; masked images differ from training data.",
    cost="1 forward for each distinct mask, of each channel of each layer",
    gives="weights",
)
def scorecam(
    activation: torch.Tensor,
    image: torch.Tensor,
    predict: Evaluate,
    memory: MutableMapping[Any, Any],
    *,
    channels: Positive | None = None,
    align_corners: bool = False,
) -> torch.Tensor:
    """Weigh each channel by the softmax over channels of the score of the image times its mask.

    Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR
    Workshops 2020. A mask is the channel, resized to the image and then scaled to [0, 1], as in
    grad-cam. Masks that are equal up to rounding are scored once.

    Parameters
    ----------
    channels : int or None
        Number of channels to score, those with the largest variance over space; the others are ignored,
        which is an approximation.
    align_corners : bool
        Resize with aligned centres of the corner pixels, as in grad-cam, instead of aligned with the
        maps.
    """
    chosen = strongest(activation, channels)
    layer = activation[chosen]
    size = image.shape[1:]

    def score(new: Indices) -> npt.NDArray[np.float64]:
        def make(start: int, stop: int) -> torch.Tensor:
            part = layer[new[start:stop]]
            masks = scaled(resize(part, size, align_corners=align_corners))
            return masks[:, None].to(image) * image

        return predict(len(new), make).numpy()

    key = ("ScoreCAM", tuple(layer.shape[1:]), align_corners)
    return _softmax(scores_of_masks(fingerprints(layer), memory, key, score), chosen, activation)


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
    caveat="The published noise has twice the amplitude of the masks and hides most of them.",
    cost="1 forward for each sample of each channel of each layer",
    gives="weights",
)
def sscam(
    activation: torch.Tensor,
    image: torch.Tensor,
    predict: Evaluate,
    generator: torch.Generator,
    *,
    channels: Positive | None = None,
    samples: Positive = 35,
    std: NotNegative = 2.0,
) -> torch.Tensor:
    """Weigh each channel by the softmax of its mean score under noisy masks.

    Wang et al., "SS-CAM: Smoothed Score-CAM for Sharper Visual Feature Localization", arXiv 2006.14255,
    as in torch-cam: noise is added to the channel, scaled to [0, 1] and then resized to the image.

    Parameters
    ----------
    channels : int or None
        Number of channels to score, those with the largest variance over space; an approximation.
    samples : int
        Number of noisy masks for each channel.
    std : float
        Standard deviation of the noise; masks are in [0, 1].
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
        masks = resize(layer[[item % count for item in items]], size)
        noise = torch.stack([sscam_noise(generator, item, size) for item in items])
        return (masks.to(image) + std * noise.to(image))[:, None] * image

    scores = predict(samples * count, make).view(samples, count).mean(0)
    return _softmax(scores.numpy(), chosen, activation)


def sscam_noise(generator: torch.Generator, item: int, size: tuple[int, ...]) -> torch.Tensor:
    """Return the noise of one item, reproducibly, because batches may be computed more than once."""
    import torch

    seed = (generator.initial_seed() + 1 + item) % 2**63
    return torch.randn(size, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")


@register(
    "IS-CAM",
    paper="Naidu et al. 2020, arXiv 2010.03023",
    summary="ScoreCAM with the masked image brightened step by step, averaged.",
    caveat="The steps are summed as in torch-cam: the last images are brighter than the original.",
    cost="1 forward for each step of each distinct mask, of each channel of each layer",
    gives="weights",
)
def iscam(
    activation: torch.Tensor,
    image: torch.Tensor,
    predict: Evaluate,
    memory: MutableMapping[Any, Any],
    *,
    channels: Positive | None = None,
    samples: Positive = 10,
) -> torch.Tensor:
    """Weigh each channel by the softmax of its mean score over steps of brightness.

    Naidu et al., "IS-CAM: Integrated Score-CAM for axiomatic-based explanations", arXiv 2010.03023, as
    in torch-cam: step i is the image times its mask times ``(1 + 2 + ... + i) / samples``.

    Parameters
    ----------
    channels : int or None
        Number of channels to score, those with the largest variance over space; an approximation.
    samples : int
        Number of steps.
    """
    import torch

    chosen = strongest(activation, channels)
    layer = scaled(activation[chosen])
    steps = torch.arange(1, samples + 1, dtype=torch.float64).cumsum(0) / samples

    def score(new: Indices) -> npt.NDArray[np.float64]:
        def make(start: int, stop: int) -> torch.Tensor:
            items = np.arange(start, stop)
            masks = resize(layer[new[items % len(new)]], image.shape[1:]).to(image)
            factors = steps[items // len(new)].to(image)
            return (masks * factors.view(-1, *[1] * (masks.ndim - 1)))[:, None] * image

        return predict(samples * len(new), make).view(samples, len(new)).mean(0).numpy()

    key = ("IS-CAM", tuple(layer.shape[1:]), samples)
    return _softmax(scores_of_masks(fingerprints(layer), memory, key, score), chosen, activation)


@register(
    "AblationCAM",
    paper="Desai & Ramaswamy, WACV 2020",
    summary="Channels weighted by the drop of the score without them, without gradients.",
    caveat="Channels are removed one at a time, so redundant channels each appear unimportant.",
    cost="1 forward through the rest of the network for each channel of each layer",
    gives="weights",
)
def ablationcam(
    activation: torch.Tensor, rerun: Evaluate, score: float, *, channels: Positive | None = None
) -> torch.Tensor:
    """Weigh each channel by ``(s - s_c) / |s|``, s_c the score with channel c set to zero.

    Desai & Ramaswamy, "Ablation-CAM: Visual Explanations for Deep Convolutional Network via
    Gradient-free Localization", WACV 2020, equation 4. The drop is divided by the magnitude of the
    score. The paper and grad-cam divide by the score, which inverts the map of a negative score.
    grad-cam sets channels to -1e7 if the layer has negative values; here they are set to zero, as in the
    paper. Channels that are zero have weight 0 and are not evaluated.

    Parameters
    ----------
    channels : int or None
        Number of channels to ablate, those with the largest norm; the others are ignored, which is an
        approximation.
    """
    import torch

    norms = activation.flatten(1).norm(dim=1)
    chosen = norms.topk(min(channels or len(norms), len(norms))).indices
    chosen = chosen[norms[chosen] != 0].sort().values

    def make(start: int, stop: int) -> torch.Tensor:
        ablated = activation.repeat(stop - start, *[1] * activation.ndim)
        ablated[torch.arange(stop - start, device=ablated.device), chosen[start:stop]] = 0
        return ablated

    weights = torch.zeros(len(activation), dtype=torch.float64)
    if len(chosen):
        drops = score - rerun(len(chosen), make).cpu()
        weights[chosen.cpu()] = drops / (abs(score) or 1.0)
    return weights.to(activation)
