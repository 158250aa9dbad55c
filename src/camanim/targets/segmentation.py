"""A class of a segmentation: its scores over the pixels where it is looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from camanim.errors import TargetError
from camanim.precision import as_float64
from camanim.targets.base import Kind, Of, Target, Unit
from camanim.targets.classes import check_of, number
from camanim.targets.outputs import columns, digest, read_scores

if TYPE_CHECKING:
    import torch

    from camanim.targets.context import Context

Region = Literal["mask", "predicted", "image"]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A class of a network that scores each pixel, within a mask.

    The score is the sum over the mask of the class's logits, as in grad-cam. Without a mask it is where
    the network finds the class, and the whole image where it finds it nowhere. For one image that place
    is fixed when the target is resolved; for a batch of slices each has its own, and slices without
    the class have the score 0.

    Attributes
    ----------
    index : int
        A name does too, until the target is resolved; None is the class that covers most, apart from the
        background 0.
    mask : array-like of the output's *S
        Bool, or weights from 0. Another size is brought to the output's by the nearest pixels.
    name : str
    kind : {"auto", "softmax", "sigmoid", "values"}
    of : {"logit", "probability"}
        What is summed and differentiated.
    region : {"mask", "predicted", "image"}
        Where the class is looked at.
    where : int or None
        With ``region="predicted"``: where this class is found, rather than the class itself.
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
            raise TargetError(f"A region is mask, predicted or image, not {self.region!r}.")
        if self.region == "mask" and self.mask is None:
            raise TargetError('Pass the mask of region="mask".')
        if self.mask is not None:
            object.__setattr__(self, "mask", _mask(self.mask))
            object.__setattr__(self, "region", "mask")

    @property
    def unit(self) -> Unit:
        """What `value` is."""
        return "score" if self.kind == "values" else "probability"

    def score(self, output: Any) -> torch.Tensor:
        """Return the sum of the class's logits over the mask, (B,), from (B, K, *S)."""
        scores = _read(output)
        own = columns(scores, self.kind, self.of)[:, self._number(scores)]
        return (own * self._weights(scores)).flatten(1).sum(1)

    def value(self, output: Any) -> torch.Tensor:
        """Return the mean probability within the mask, (B,) float64; 0 where the mask is empty."""
        scores = _read(output).detach()
        weights = as_float64(self._weights(scores)).flatten(1)
        own = columns(scores, self.kind, "probability")
        total = (as_float64(own[:, self._number(scores)]).flatten(1) * weights).sum(1)
        size = weights.sum(1).expand(len(total))
        return total / size.clamp(min=1e-300)

    def _number(self, scores: torch.Tensor) -> int:
        index, count = number(self.index), _count(scores, self.kind)
        if not -count <= index < count:
            raise TargetError(f"The network has the classes 0 to {count - 1}, there is no {index}.")
        return index

    def _weights(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the mask, (1, *S) or (B, *S)."""
        if self.region == "image":
            return scores.new_ones((1, *scores.shape[2:]))
        if self.region == "mask":
            return _fitted(self.mask, scores)
        index = self._number(scores) if self.where is None else self.where
        return found(scores, self.kind, index).to(scores.dtype)

    def describe(self) -> dict[str, Any]:
        """Return plain data for records."""
        about = {"index": self.index, "name": self.name, "outputs": self.kind, "of": self.of}
        place: dict[str, Any] = {"region": self.region}
        if self.region == "mask":
            place |= {"shape": list(self.mask.shape), "mask": digest(self.mask)}
        if self.where is not None:
            place["where"] = self.where
        return {"kind": "segmentation", **about, **place}

    def bound(self, context: Context) -> Segmentation:
        """Return this target with its class and, for a single image, its mask."""
        if not context.over_space:
            raise TargetError("The network does not score each pixel: name a class without a mask.")
        context = context.of_kind(self.kind)
        scores, kind = context.scores, context.kind
        index = covering(scores, kind) if self.index is None else context.index(self.index)
        own = replace(self, index=index, name=self.name or context.name(index), kind=kind)
        if own.region == "mask":
            _fitted(own.mask, scores)
        if own.region != "predicted":
            return own
        where = None if self.where is None else context.index(self.where)
        mask = None if kind == "values" else found(scores, kind, index if where is None else where)
        if mask is None or not bool(mask.any()):
            return replace(own, region="image", where=None)
        if len(mask) == 1:
            return replace(own, mask=mask[0], where=None)
        return replace(own, where=where)


def in_the_same_place(second: Target, first: Target) -> Target:
    """Look at the second class where the first is looked at."""
    if not isinstance(first, Segmentation) or not isinstance(second, Segmentation):
        return second
    where = first.index if first.where is None else first.where
    where = where if first.region == "predicted" else None
    return replace(second, mask=first.mask, region=first.region, where=where)


def found(scores: torch.Tensor, kind: Kind, index: int) -> torch.Tensor:
    """Tell where a class is predicted, (B, *S) bool, from (B, K, *S)."""
    scores = columns(scores.detach(), kind)
    return scores[:, index] > 0 if kind == "sigmoid" else scores.argmax(1) == index


def shares(scores: torch.Tensor, kind: Kind) -> list[float]:
    """Return the share of all pixels that each class is predicted on."""
    logits, count = columns(scores.detach(), kind), _count(scores, kind)
    if kind == "sigmoid":
        return [float(as_float64(logits[:, i] > 0).mean()) for i in range(count)]
    predicted = logits.argmax(1).flatten()
    return [float(n) / predicted.numel() for n in predicted.bincount(minlength=count)]


def covering(scores: torch.Tensor, kind: Kind) -> int:
    """Find the class that covers most pixels, apart from the background where there is another."""
    if kind == "values":
        return 0
    covered = shares(scores, kind)
    # Labels that do not exclude one another have no background, save for the other side of a single one.
    first = 0 if kind == "sigmoid" and scores.shape[1] > 1 else 1
    best = max(range(first, len(covered)), key=lambda i: covered[i])
    if covered[best] > 0:
        return best
    if first == 1:
        return 0
    return int(as_float64(scores).transpose(0, 1).flatten(1).mean(1).argmax())


def _count(scores: torch.Tensor, kind: Kind) -> int:
    return 2 if scores.shape[1] == 1 and kind != "values" else scores.shape[1]


def _read(output: Any) -> torch.Tensor:
    scores = read_scores(output)
    if scores.ndim == 2:
        raise TargetError("The network does not score each pixel: name a class without a mask.")
    return scores


def _mask(mask: Any) -> torch.Tensor:
    import torch

    try:
        weights = torch.as_tensor(mask).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TargetError(
            f"A mask is an array over the image, not {type(mask).__name__}."
        ) from error
    if weights.ndim not in (2, 3) or weights.is_complex():
        raise TargetError(
            f"A mask has the axes of the image, not the shape {tuple(weights.shape)}."
        )
    weights = weights if weights.is_floating_point() else weights.to(torch.float32)
    if not bool(weights.isfinite().all()) or bool((weights < 0).any()) or not bool(weights.any()):
        raise TargetError("A mask needs a pixel to look at, and no weight below 0.")
    return weights


def _fitted(mask: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Bring a mask to the output's size, (1, *S)."""
    from torch.nn.functional import interpolate

    size = tuple(scores.shape[2:])
    if mask.ndim != len(size):
        raise TargetError(f"The mask is {tuple(mask.shape)}, the network's output {size}.")
    weights = mask.to(scores.device, scores.dtype)[None, None]
    if tuple(mask.shape) != size:
        weights = interpolate(weights, size=size, mode="nearest-exact")
        if not bool(weights.any()):
            raise TargetError(f"Nothing is left of the mask at the network's output size {size}.")
    return weights[0]
