"""Target of segmentation networks: the scores of a class, summed over a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from camanim.errors import TargetError
from camanim.precision import as_float64
from camanim.short_repr import ShortRepr
from camanim.targets.base import Kind, Of, Target, Unit
from camanim.targets.classes import check_of, number
from camanim.targets.outputs import are_independent, columns, digest, read_scores

if TYPE_CHECKING:
    import torch

    from camanim.targets.context import Context

Region = Literal["mask", "predicted", "image"]
_NOT_PER_PIXEL = "The network has no scores for each pixel: pass a class without a mask."


@dataclass(frozen=True, eq=False)
class Segmentation(ShortRepr):
    """Class of a network with scores for each pixel, summed over a region.

    The score is the sum of the class's logits over the mask, as in grad-cam. Without a mask, the region
    is where the class is predicted, or the whole image if it is not predicted. For a single image the
    region is fixed when the target is resolved. In a batch of slices each slice has a separate region,
    and slices without the class have the score 0.

    Attributes
    ----------
    index : int, str or None
        Class index. Before the target is resolved a name, or None for the class predicted on most
        pixels, except the background 0.
    mask : array-like (*S)
        Bool, or weights of at least 0. Resized to the output by nearest neighbours.
    name : str
    kind : {"auto", "softmax", "sigmoid", "values", "probabilities", "independent probabilities"}
    of : {"logit", "probability"}
        Quantity that is summed and differentiated.
    region : {"mask", "predicted", "image"}
        Region of the sum.
    where : int or None
        With ``region="predicted"``: use the region in which this class is predicted instead.
    """

    index: Any = None
    mask: Any = None
    name: str = ""
    kind: Kind = "auto"
    of: Of = "logit"
    region: Region = "predicted"
    where: int | None = None

    def __post_init__(self) -> None:
        check_of(self.of, self.kind)
        if self.region not in ("mask", "predicted", "image"):
            raise TargetError(f"region= must be mask, predicted or image, not {self.region!r}.")
        if self.region == "mask" and self.mask is None:
            raise TargetError('region="mask" requires mask=.')
        if self.mask is not None:
            object.__setattr__(self, "mask", _checked_mask(self.mask))
            object.__setattr__(self, "region", "mask")

    @property
    def unit(self) -> Unit:
        """Unit of `value`."""
        return "score" if self.kind == "values" else "probability"

    def score(self, output: Any) -> torch.Tensor:
        """Return the sum of the class's logits over the region, (B,), from (B, K, *S)."""
        scores = _read(output)
        class_scores = columns(scores, self.kind, self.of)[:, self._class_index(scores)]
        return (class_scores * self._weights(scores)).flatten(1).sum(1)

    def value(self, output: Any) -> torch.Tensor:
        """Return the mean probability in the region, (B,) float64; 0 if the region is empty."""
        scores = _read(output).detach()
        weights = as_float64(self._weights(scores)).flatten(1)
        values = columns(scores, self.kind, "probability")[:, self._class_index(scores)]
        total = (as_float64(values).flatten(1) * weights).sum(1)
        size = weights.sum(1).expand(len(total))
        return total / size.clamp(min=1e-300)

    def _class_index(self, scores: torch.Tensor) -> int:
        index, count = number(self.index), _class_count(scores, self.kind)
        if not -count <= index < count:
            raise TargetError(f"Class {index} does not exist: the classes are 0 to {count - 1}.")
        return index

    def _weights(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the weights of the pixels, (1, *S) or (B, *S)."""
        if self.region == "image":
            return scores.new_ones((1, *scores.shape[2:]))
        if self.region == "mask":
            return _resized_mask(self.mask, scores)
        index = self._class_index(scores) if self.where is None else self.where
        return predicted_mask(scores, self.kind, index).to(scores.dtype)

    def describe(self) -> dict[str, Any]:
        """Return the target as plain data for metadata."""
        about = {"index": self.index, "name": self.name, "outputs": self.kind, "of": self.of}
        region: dict[str, Any] = {"region": self.region}
        if self.region == "mask":
            region |= {"shape": list(self.mask.shape), "mask": digest(self.mask)}
        if self.where is not None:
            region["where"] = self.where
        return {"kind": "segmentation", **about, **region}

    def bind(self, context: Context) -> Segmentation:
        """Return this target with its class and, for a single image, its mask."""
        if not context.per_pixel:
            raise TargetError(_NOT_PER_PIXEL)
        context = context.with_kind(self.kind)
        scores, kind = context.scores, context.kind
        index = largest_class(scores, kind) if self.index is None else context.index(self.index)
        target = replace(self, index=index, name=self.name or context.name(index), kind=kind)
        if target.region == "mask":
            _resized_mask(target.mask, scores)
        if target.region != "predicted":
            return target
        where = None if self.where is None else context.index(self.where)
        predicted = index if where is None else where
        mask = None if kind == "values" else predicted_mask(scores, kind, predicted)
        if mask is None or not bool(mask.any()):
            return replace(target, region="image", where=None)
        if len(mask) == 1:
            return replace(target, mask=mask[0], where=None)
        return replace(target, where=where)


def with_region_of(second: Target, first: Target) -> Target:
    """Return the second target with the region of the first, if both are segmentations."""
    if not isinstance(first, Segmentation) or not isinstance(second, Segmentation):
        return second
    where = first.index if first.where is None else first.where
    where = where if first.region == "predicted" else None
    return replace(second, mask=first.mask, region=first.region, where=where)


def predicted_mask(scores: torch.Tensor, kind: Kind, index: int) -> torch.Tensor:
    """Return where a class is predicted, (B, *S) bool, from (B, K, *S)."""
    scores = columns(scores.detach(), kind)
    return scores[:, index] > 0 if are_independent(kind) else scores.argmax(1) == index


def class_fractions(scores: torch.Tensor, kind: Kind) -> list[float]:
    """Return the fraction of pixels on which each class is predicted."""
    logits, count = columns(scores.detach(), kind), _class_count(scores, kind)
    if are_independent(kind):
        return [float(as_float64(logits[:, i] > 0).mean()) for i in range(count)]
    predicted = logits.argmax(1).flatten()
    return [float(n) / predicted.numel() for n in predicted.bincount(minlength=count)]


def largest_class(scores: torch.Tensor, kind: Kind) -> int:
    """Return the class predicted on most pixels; the background only if no other class is predicted."""
    if kind == "values":
        return 0
    means = as_float64(scores).transpose(0, 1).flatten(1).mean(1)
    return largest_of(class_fractions(scores, kind), means.tolist(), kind)


def largest_of(fractions: Sequence[float], means: Sequence[float], kind: Kind) -> int:
    """Return the class with the largest fraction of pixels; the background only if there is no other.

    Parameters
    ----------
    fractions : sequence of float
        Of each class, see `class_fractions`.
    means : sequence of float
        Mean score of each channel, which decides between independent labels that are predicted nowhere.
    kind : str
        Kind of the scores.
    """
    # Independent labels have no background class, except for the negative side of a single logit.
    first = 0 if are_independent(kind) and len(means) > 1 else 1
    best = max(range(first, len(fractions)), key=lambda i: fractions[i])
    if fractions[best] > 0:
        return best
    if first == 1:
        return 0
    return max(range(len(means)), key=lambda i: means[i])


def _class_count(scores: torch.Tensor, kind: Kind) -> int:
    return 2 if scores.shape[1] == 1 and kind != "values" else scores.shape[1]


def _read(output: Any) -> torch.Tensor:
    scores = read_scores(output)
    if scores.ndim == 2:
        raise TargetError(_NOT_PER_PIXEL)
    return scores


def _checked_mask(mask: Any) -> torch.Tensor:
    import torch

    try:
        weights = torch.as_tensor(mask).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TargetError(
            f"mask= must be an array over the image, not {type(mask).__name__}."
        ) from error
    if weights.ndim not in (2, 3) or weights.is_complex():
        raise TargetError(
            f"mask= must have 2 or 3 spatial axes, not the shape {tuple(weights.shape)}."
        )
    weights = weights if weights.is_floating_point() else weights.to(torch.float32)
    if not bool(weights.isfinite().all()) or bool((weights < 0).any()) or not bool(weights.any()):
        raise TargetError("mask= must have a positive pixel, and no negative or infinite weights.")
    return weights


def _resized_mask(mask: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return the mask at the spatial size of the output, (1, *S)."""
    from torch.nn.functional import interpolate

    size = tuple(scores.shape[2:])
    if mask.ndim != len(size):
        raise TargetError(f"The mask has the shape {tuple(mask.shape)}, the output {size}.")
    weights = mask.to(scores.device, scores.dtype)[None, None]
    if tuple(mask.shape) != size:
        weights = interpolate(weights, size=size, mode="nearest-exact")
        if not bool(weights.any()):
            raise TargetError(f"The mask is empty at the size of the output, {size}.")
    return weights[0]
