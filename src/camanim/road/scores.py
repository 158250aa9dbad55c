"""ROAD over all layers: perturb, predict, compare.

For each map and each percentile the most relevant pixels are removed (MoRF), and then, apart from that,
the least relevant ones (LeRF). A map that explains the prediction loses probability in the first case
and keeps it in the second: its score is the mean over percentiles of ``(LeRF - MoRF) / 2``, where MoRF
and LeRF stand for the target's probability after removal. The probability before cancels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import Cancelled, ScoreError
from camanim.progress import Progress
from camanim.road.imputation import DirectImputer, Imputer
from camanim.road.masks import Masks, kept_pixels, tie_break
from camanim.road.result import CANCELLED, CONSTANT, Road
from camanim.stack import FloatMap, upsample
from camanim.trace import LayerInfo

if TYPE_CHECKING:
    import torch

    from camanim.models import Model
    from camanim.targets import Target

Floats = npt.NDArray[np.float64]


def score(
    model: Model,
    tensor: torch.Tensor,
    maps: Sequence[FloatMap],
    layers: list[LayerInfo],
    target: Target,
    *,
    seed: int,
    percentiles: Sequence[float],
    noise: float,
    batch_size: int,
    imputer: Imputer | None,
    progress: Progress,
) -> Road:
    """Score maps with ROAD; see `Animation.score` for the parameters.

    Identical masks are imputed and predicted once, whichever layer they come from. All masks share one
    field of noise, so that layers differ by their masks alone.
    """
    shares = _checked(percentiles, noise, batch_size)
    if len(tensor) > 1:
        raise ScoreError(
            f"ROAD scores the explanation of one prediction, and this is of {len(tensor)} slices: "
            "animate the slice in question."
        )
    plan = _Plan(maps, tuple(tensor.shape[2:]), shares, seed, progress)
    predict = _Predictor(model, tensor[0], target, noise, seed, imputer or DirectImputer())
    progress("ROAD", 0, len(plan.masks))
    before, alone = predict.first(tensor)
    batch_size = 1 if alone else batch_size
    after = np.full(len(plan.masks), np.nan)
    # On a cancel what was predicted so far is kept; the other layers stay NaN.
    with suppress(Cancelled):
        for start in range(0, len(plan.masks), batch_size):
            batch = slice(start, min(start + batch_size, len(plan.masks)))
            after[batch] = predict(plan.unpack(batch))
            progress("ROAD", batch.stop, len(plan.masks))
    morf, lerf = plan.look_up(after)
    reasons = [
        CONSTANT if flat else CANCELLED if np.isnan([*m, *le]).any() else None
        for flat, m, le in zip(plan.constant, morf, lerf, strict=True)
    ]
    return Road(
        layers=layers,
        percentiles=shares,
        morfs=morf[None],
        lerfs=lerf[None],
        probability=before,
        undefined=tuple(reasons),
        chance=np.empty((len(layers), 0)),
        forwards=predict.count,
        seed=seed,
        noise=noise,
    )


def _checked(percentiles: Sequence[float], noise: float, batch_size: int) -> tuple[float, ...]:
    shares = tuple(float(p) for p in percentiles)
    if not shares or not all(0 < p < 100 for p in shares):
        raise ScoreError("Percentiles are shares of kept pixels, each between 0 and 100.")
    if not (np.isfinite(noise) and noise >= 0):
        raise ScoreError("The noise is a standard deviation: 0 or more.")
    if batch_size < 1:
        raise ScoreError("The batch size is 1 or more.")
    return shares


class _Plan:
    """All masks of all maps, each distinct one kept once, and where each layer finds its own."""

    def __init__(
        self,
        maps: Sequence[FloatMap],
        size: tuple[int, ...],
        shares: tuple[float, ...],
        seed: int,
        progress: Progress,
    ) -> None:
        self.size = size
        self.masks: list[bytes] = []
        self.constant: list[bool] = []
        self._places = np.full((len(maps), 2, len(shares)), -1)
        known: dict[bytes, int] = {}
        order = tie_break(prod(size), seed)
        for i, raw in enumerate(maps):
            progress("masks", i, len(maps))
            positive = np.maximum(raw, 0)
            self.constant.append(bool(positive.max() == positive.min()))
            if self.constant[i]:
                continue
            both = kept_pixels(upsample(positive, size), shares, order)
            for j, masks in enumerate(both):
                for k, mask in enumerate(masks):
                    packed = np.packbits(mask).tobytes()
                    key = hashlib.blake2b(packed, digest_size=16).digest()
                    if key not in known:
                        known[key] = len(self.masks)
                        self.masks.append(packed)
                    self._places[i, j, k] = known[key]

    def unpack(self, batch: slice) -> Masks:
        """Return a batch of masks, (B, *S) bool."""
        rows = np.stack([np.frombuffer(mask, np.uint8) for mask in self.masks[batch]])
        return (
            np.unpackbits(rows, axis=1, count=prod(self.size)).astype(bool).reshape(-1, *self.size)
        )

    def look_up(self, after: Floats) -> tuple[Floats, Floats]:
        """Distribute the probabilities of the distinct masks to layers and percentiles."""
        # The last entry serves the place -1 of maps that have no mask.
        values = np.append(after, np.nan)[self._places]
        return values[:, 0], values[:, 1]


class _Predictor:
    """Masks in, the target's probabilities out."""

    def __init__(
        self,
        model: Model,
        image: torch.Tensor,
        target: Target,
        noise: float,
        seed: int,
        imputer: Imputer,
    ) -> None:
        import torch

        self.model, self.image, self.target, self.imputer = model, image.float(), target, imputer
        self.forward = model.forward()
        generator = torch.Generator("cpu").manual_seed(seed)
        self.noise = noise * torch.randn(image.shape, generator=generator, device="cpu")
        self.count = 0

    def __call__(self, kept: Masks) -> Floats:
        import torch

        imputed = self.imputer(self.image, kept)
        imputed += self.noise * torch.from_numpy(~kept)[:, None]
        self.count += len(kept)
        return self.values(imputed)

    def first(self, tensor: torch.Tensor) -> tuple[float, bool]:
        """Score the image itself; and tell whether the network must see one image at a time."""
        from camanim.passes.deciding import Looking

        looking = Looking()
        return float(self.values(tensor, looking)[0]), looking.seen

    def values(
        self, batch: torch.Tensor, looking: AbstractContextManager[Any] | None = None
    ) -> Floats:
        """Ask the network what the target is worth for each of the images."""
        with self.forward.asking(tuple(batch.shape)):
            with looking or nullcontext():
                output = self.forward(batch.to(self.model.device, self.model.dtype))
            worth: Floats = self.target.value(output).double().cpu().numpy()
        return worth
