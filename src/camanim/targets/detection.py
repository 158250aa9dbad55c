"""Scores of detected objects: of one box, of all boxes of a class, or of given boxes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from camanim.errors import TargetError
from camanim.precision import as_float64
from camanim.short_repr import ShortRepr
from camanim.targets.base import Unit
from camanim.targets.classes import number
from camanim.targets.outputs import detections, no_scores_message

if TYPE_CHECKING:
    import torch

    from camanim.targets.context import Context

Item = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Detection(ShortRepr):
    """Detected objects: per image, a dictionary of boxes, labels and scores.

    Without boxes, the score is the sum of the scores of all detections of the class. With boxes, each is
    matched to the detection with the largest overlap, as in grad-cam. The score of the match counts if
    the intersection over union exceeds `overlap` and the class is the same.

    Attributes
    ----------
    index : int, str or None
        Class index, or a name before the target is resolved. Without `index`, `box` and `boxes`, the
        detection with the highest score is used.
    box : int or None
        Index of a single detection in the output.
    boxes : array-like (N, 4), or (N, 6) in volumes
        Corners: the lower ones, then the upper ones.
    labels : sequence of int
        Class of each box; by default `index` for all.
    overlap : float
        Intersection over union above which a detection matches a box.
    place : bool
        Add the intersection over union to the score, as grad-cam does, so that the box position counts.
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
            raise TargetError("Boxes must be an array (N, 4) or (N, 6).") from error
        if boxes.ndim != 2 or boxes.shape[1] not in (4, 6) or not len(boxes):
            raise TargetError(f"Boxes must be (N, 4) or (N, 6), not {tuple(boxes.shape)}.")
        labels = [self.index] * len(boxes) if self.labels is None else list(self.labels)
        if None in labels or len(labels) != len(boxes):
            raise TargetError("Each box needs a class: pass labels= of the same length as boxes=.")
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "labels", labels)

    def score(self, output: Any) -> torch.Tensor:
        """Return the sum of the scores, (B,)."""
        import torch

        return torch.stack(
            [sum(self._terms(item), _differentiable_zero(item)) for item in _read(output)]
        )

    def value(self, output: Any) -> torch.Tensor:
        """Return the mean score of the boxes, or the highest score of the class, (B,) float64.

        Boxes without a matching detection count as 0.
        """
        import torch

        values = []
        for item in _read(output):
            item = {key: value.detach() for key, value in item.items()}
            terms = [as_float64(t) for t in replace(self, place=False)._terms(item)]
            zero = as_float64(_differentiable_zero(item))
            if self.boxes is None:
                values.append(max(terms, default=zero))
            else:
                values.append(sum(terms, zero) / len(self.boxes))
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
        """Return the target as plain data for metadata."""
        boxes = None if self.boxes is None else self.boxes.tolist()
        about = {"index": self.index, "name": self.name, "boxes": boxes, "labels": self.labels}
        return {"kind": "detection", **about, "overlap": self.overlap, "place": self.place}

    def bind(self, context: Context) -> Detection:
        """Return this target with its class index, boxes and labels."""
        items = context.detections
        if items is None:
            raise TargetError("The network has no detections: pass a class instead.")
        index = None if self.index is None else context.index(self.index)
        if self.boxes is not None:
            return self._bind_boxes(context)
        if self.box is None and index is not None:
            if not any(bool((item["labels"] == index).any()) for item in items):
                raise TargetError(
                    f"No {context.name(index)} was detected. {_detected_message(context)}"
                )
            return replace(self, index=index, name=self.name or context.name(index))
        return self._bind_single(context, items, index)

    def _bind_boxes(self, context: Context) -> Detection:
        labels = [context.index(label) for label in self.labels]
        name = self.name or ", ".join(dict.fromkeys(context.name(label) for label in labels))
        index = labels[0] if len(set(labels)) == 1 else None
        return replace(self, index=index, labels=labels, name=name)

    def _bind_single(self, context: Context, items: list[Item], index: int | None) -> Detection:
        """Return this target for detection `box`, by default the one with the highest score."""
        if len(items) > 1:
            raise TargetError(
                f"Detections differ between the {len(items)} images: pass a class as the target."
            )
        item = items[0]
        count = len(item["scores"])
        if count == 0:
            raise TargetError("The network detected no objects.")
        box = int(item["scores"].argmax()) if self.box is None else self.box
        if not 0 <= box < count:
            raise TargetError(
                f"Detection {box} does not exist: the detections are 0 to {count - 1}."
            )
        label = int(item["labels"][box])
        if index is not None and index != label:
            raise TargetError(
                f"Detection {box} is not a {context.name(index)}. {_detected_message(context)}"
            )
        name = self.name or f"{context.name(label)} (box {box})"
        boxes = item["boxes"][[box]]
        return replace(self, name=name, index=label, box=box, boxes=boxes, labels=[label])


def detected_classes(items: list[Item]) -> dict[int, float]:
    """Return the highest score of each detected class, highest first."""
    best: dict[int, float] = {}
    for item in items:
        for label, score in zip(item["labels"].tolist(), item["scores"].tolist(), strict=True):
            best[label] = max(best.get(label, 0.0), score)
    return dict(sorted(best.items(), key=lambda pair: -pair[1]))


def _detected_message(context: Context) -> str:
    best = list(detected_classes(context.detections or []).items())[:5]
    listed = ", ".join(f"{context.name(label)} ({score:.2f})" for label, score in best)
    return f"Detected: {listed}." if listed else "Nothing was detected."


def _read(output: Any) -> list[Item]:
    items = detections(output)
    if items is None:
        raise TargetError(no_scores_message(output))
    return items


def _differentiable_zero(item: Item) -> torch.Tensor:
    """Return 0 as a function of the scores, so that images without the object have a gradient of 0."""
    zero: torch.Tensor = item["scores"].sum() * 0
    return zero


def _overlaps(box: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union of one box with each of (N, 2 d), (N,)."""
    if boxes.shape[1] == 4:
        from torchvision.ops import box_iou
    else:
        from monai.data.box_utils import box_iou
    overlaps: torch.Tensor = box_iou(box[None], boxes)[0]
    return overlaps
