"""Detected objects: the scores of one box, of all boxes of a class, or of given ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from camanim.errors import TargetError
from camanim.precision import as_float64
from camanim.targets.base import Unit
from camanim.targets.classes import number
from camanim.targets.outputs import detections, no_scores

if TYPE_CHECKING:
    import torch

    from camanim.targets.context import Context

Item = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Detection:
    """Objects in the output of a network that detects: per image a dict of boxes, labels and scores.

    Without boxes, the score is the sum of the scores of all detections of the class. With boxes, each is
    looked for in the output again, as in grad-cam: the detection that overlaps it most counts, by its
    score, if it overlaps by more than `overlap` and is of the same class.

    Attributes
    ----------
    index : int or None
        The class. A name does too, until the target is resolved; with neither class nor `box` nor
        `boxes`, the surest detection is taken.
    box : int or None
        The number of the detection to take, in the order of the output.
    boxes : array-like (N, 4), or (N, 6) in volumes
        Corners: the lower ones, then the upper ones.
    labels : sequence of int
        The class of each of `boxes`; by default `index` for all.
    overlap : float
        Intersection over union.
    place : bool
        Add the overlap to the score, as grad-cam does: what keeps the box where it is counts too.
    name : str
    """

    index: Any = None
    box: int | None = None
    boxes: Any = None
    labels: Any = None
    overlap: float = 0.5
    place: bool = False
    name: str = ""

    unit: Unit = "probability"

    def __post_init__(self) -> None:
        if self.boxes is None:
            return
        import torch

        try:
            boxes = torch.as_tensor(self.boxes).detach()
        except (TypeError, ValueError, RuntimeError) as error:
            raise TargetError("Boxes are an array (N, 4) or (N, 6).") from error
        if boxes.ndim != 2 or boxes.shape[1] not in (4, 6) or not len(boxes):
            raise TargetError(f"Boxes are (N, 4) or (N, 6), not {tuple(boxes.shape)}.")
        labels = [self.index] * len(boxes) if self.labels is None else list(self.labels)
        if None in labels or len(labels) != len(boxes):
            raise TargetError("Say of which class each of the boxes is: pass labels.")
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "labels", labels)

    def score(self, output: Any) -> torch.Tensor:
        """Return the sum of the scores, (B,)."""
        import torch

        return torch.stack([sum(self._terms(item), _zero(item)) for item in _read(output)])

    def value(self, output: Any) -> torch.Tensor:
        """Return the mean score of the boxes, or the surest of the class, (B,) float64; 0 where lost."""
        import torch

        values = []
        for item in _read(output):
            item = {key: value.detach() for key, value in item.items()}
            terms = [as_float64(t) for t in replace(self, place=False)._terms(item)]
            nothing = as_float64(_zero(item))
            if self.boxes is None:
                values.append(max(terms, default=nothing))
            else:
                values.append(sum(terms, nothing) / len(self.boxes))
        return torch.stack(values)

    def _terms(self, item: Item) -> list[torch.Tensor]:
        if self.boxes is None:
            return list(item["scores"][item["labels"] == number(self.index)])
        if len(item["boxes"]) == 0:
            return []
        terms = []
        for box, label in zip(self.boxes, self.labels, strict=True):
            overlaps = _overlaps(box.to(item["boxes"]), item["boxes"])
            best = int(overlaps.argmax())
            if overlaps[best] > self.overlap and int(item["labels"][best]) == number(label):
                terms.append(item["scores"][best] + (overlaps[best] if self.place else 0))
        return terms

    def describe(self) -> dict[str, Any]:
        """Return plain data for records."""
        boxes = None if self.boxes is None else self.boxes.tolist()
        about = {"index": self.index, "name": self.name, "boxes": boxes, "labels": self.labels}
        return {"kind": "detection", **about, "overlap": self.overlap, "place": self.place}

    def bound(self, context: Context) -> Detection:
        """Return this target with its class, its boxes and their classes."""
        items = context.detections
        if items is None:
            raise TargetError("The network does not detect objects: name a class instead.")
        index = None if self.index is None else context.index(self.index)
        if self.boxes is not None:
            return self._given(context)
        if self.box is None and index is not None:
            if not any(bool((item["labels"] == index).any()) for item in items):
                raise TargetError(f"There is no {context.name(index)} here. {_detected(context)}")
            return replace(self, index=index, name=self.name or context.name(index))
        return self._taken(context, items, index)

    def _given(self, context: Context) -> Detection:
        labels = [context.index(label) for label in self.labels]
        name = self.name or ", ".join(dict.fromkeys(context.name(label) for label in labels))
        one = labels[0] if len(set(labels)) == 1 else None
        return replace(self, index=one, labels=labels, name=name)

    def _taken(self, context: Context, items: list[Item], index: int | None) -> Detection:
        """Take a single detection: the one with a number, or the surest."""
        if len(items) > 1:
            raise TargetError("Say which class: in each of several images other objects are found.")
        item = items[0]
        count = len(item["scores"])
        if count == 0:
            raise TargetError("Nothing was detected here, so there is nothing to explain.")
        box = int(item["scores"].argmax()) if self.box is None else self.box
        if not 0 <= box < count:
            raise TargetError(
                f"The detections have the numbers 0 to {count - 1}, there is no {box}."
            )
        label = int(item["labels"][box])
        if index is not None and index != label:
            raise TargetError(f"Detection {box} is no {context.name(index)}. {_detected(context)}")
        name = self.name or f"{context.name(label)} (box {box})"
        own = {"index": label, "box": box, "boxes": item["boxes"][[box]], "labels": [label]}
        return replace(self, name=name, **own)


def detected_classes(items: list[Item]) -> dict[int, float]:
    """Return the highest score of each detected class, highest first."""
    best: dict[int, float] = {}
    for item in items:
        for label, score in zip(item["labels"].tolist(), item["scores"].tolist(), strict=True):
            best[label] = max(best.get(label, 0.0), score)
    return dict(sorted(best.items(), key=lambda pair: -pair[1]))


def _detected(context: Context) -> str:
    best = list(detected_classes(context.detections or []).items())[:5]
    listed = ", ".join(f"{context.name(label)} ({score:.2f})" for label, score in best)
    return f"Detected: {listed}." if listed else "Nothing was detected."


def _read(output: Any) -> list[Item]:
    items = detections(output)
    if items is None:
        raise TargetError(no_scores(output))
    return items


def _zero(item: Item) -> torch.Tensor:
    """A zero that the scores lead to, so that an image without the object has a gradient of 0."""
    zero: torch.Tensor = item["scores"].sum() * 0
    return zero


def _overlaps(box: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Intersection over union of one box with each of (N, 2 d)."""
    if boxes.shape[1] == 4:
        from torchvision.ops import box_iou
    else:
        from monai.data.box_utils import box_iou
    overlaps: torch.Tensor = box_iou(box[None], boxes)[0]
    return overlaps
