"""Where the scores are in what a network gives: tensors, tuples, dicts, dataclasses, detections."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from camanim.errors import TargetError
from camanim.precision import as_float64

if TYPE_CHECKING:
    import torch

    from camanim.targets.base import Kind, Of

#: Where scores are when several outputs have names (torchvision, HuggingFace); and where embeddings are.
_SCORES = ("logits", "out")
_EMBEDDINGS = ("image_embeds", "pooler_output", "embeddings", "embedding")
#: What a detection is called by torchvision, and by MONAI.
_DETECTION = {"boxes": "box", "labels": "label", "scores": "label_scores"}


def entries(output: Any) -> list[tuple[str, Any]]:
    """List what an output is made of, by name where it has names; empty for a tensor."""
    import torch

    if isinstance(output, torch.Tensor):
        return []
    if isinstance(output, Mapping):
        return [(str(key), value) for key, value in output.items()]
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return [(f.name, getattr(output, f.name)) for f in dataclasses.fields(output)]
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return list(zip(output._fields, output, strict=True))
    if isinstance(output, tuple | list):
        return [("", value) for value in output]
    return []


def pick(output: Any, preferred: Sequence[str] = _SCORES) -> torch.Tensor | None:
    """Find the tensor that holds the scores.

    The output itself, else what is called `preferred`, else the first tensor with two axes or more.
    Auxiliary outputs (Inception, GoogLeNet, torchvision's segmentation) are never taken.
    """
    named = dict(entries(output))
    for name in preferred:
        found = None if named.get(name) is None else pick(named[name], preferred)
        if found is not None:
            return found
    return next((t for t in tensors(output) if t.ndim >= 2 and t.is_floating_point()), None)


def tensors(output: Any) -> Iterator[torch.Tensor]:
    """Walk through the tensors in an output, but for auxiliary ones."""
    import torch

    if isinstance(output, torch.Tensor):
        yield output
    for name, value in entries(output):
        if not name.startswith("aux"):
            yield from tensors(value)


def read_scores(output: Any) -> torch.Tensor:
    """Return the scores in a network's output, (B, K) or over space (B, K, *S).

    Half precision becomes float32, in which sums over pixels have room. Axes of length 1 at the end of
    scores without space go: (B, K, 1, 1) becomes (B, K).

    Raises
    ------
    TargetError
        When there are none.
    """
    import torch

    scores = pick(output)
    if scores is None or detections(output) is not None:
        raise TargetError(no_scores(output))
    if scores.ndim > 2 and set(scores.shape[2:]) == {1}:
        scores = scores.flatten(1)
    if scores.ndim == 3 or 0 in scores.shape or scores.ndim < 2:
        raise TargetError(no_scores(output))
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def class_scores(output: Any) -> torch.Tensor:
    """Return the class scores in a network's output, (B, K), as the network gave them.

    Raises
    ------
    TargetError
        When there are none, or they are not finite.
    """
    scores = read_scores(output)
    if scores.ndim != 2:
        raise TargetError(no_scores(output))
    return finite(scores)


def finite(scores: torch.Tensor) -> torch.Tensor:
    """Hand on scores; raise `TargetError` where they are not finite."""
    if not bool(scores.isfinite().all()):
        raise TargetError("The network's scores are not finite: check its weights and input.")
    return scores


def columns(scores: torch.Tensor, kind: Kind, of: Of = "logit") -> torch.Tensor:
    """Return one column per class, (B, K, ...).

    A single logit l becomes two classes with the scores -l and l and the probabilities of a sigmoid.

    Parameters
    ----------
    scores : torch.Tensor
        (B, K, ...)
    kind : {"auto", "softmax", "sigmoid", "values"}
        Values stay as they are.
    of : {"logit", "probability"}
    """
    import torch

    if kind == "values":
        return scores
    if scores.shape[1] == 1:
        scores = torch.cat([-scores, scores], 1)
        return scores if of == "logit" else scores.sigmoid()
    if of == "logit":
        return scores
    return scores.sigmoid() if kind == "sigmoid" else scores.softmax(1)


def probabilities(logits: torch.Tensor, kind: Kind = "auto") -> torch.Tensor:
    """Return each class's probability, (B, K, ...); two classes for a single logit.

    In float64, so that neighbours of 1 stay apart. Of plain values there are no probabilities, and they
    come back as they are.

    Parameters
    ----------
    logits : torch.Tensor
        (B, K, ...)
    kind : {"auto", "softmax", "sigmoid", "values"}
    """
    return columns(as_float64(logits), kind, "probability")


def detections(output: Any) -> list[dict[str, torch.Tensor]] | None:
    """Read an output as detections: per image the boxes, labels and scores; None where it is none."""
    items = output if isinstance(output, list | tuple) else [output]
    found = []
    for item in items:
        if not isinstance(item, Mapping):
            return None
        keys = {ours: ours if ours in item else other for ours, other in _DETECTION.items()}
        if not all(key in item for key in keys.values()):
            return None
        found.append({ours: item[key] for ours, key in keys.items()})
    return found or None


def embedding(output: Any) -> torch.Tensor:
    """Return one vector per image, (B, D); the mean over space where there is space.

    Raises
    ------
    TargetError
        When there is none.
    """
    import torch

    found = pick(output, (*_EMBEDDINGS, *_SCORES))
    if found is None or found.ndim == 3 or 0 in found.shape:
        raise TargetError(
            f"The network gives {shown(output)}, which is no vector per image: "
            "pass target=a function of its output."
        )
    found = found.float() if found.dtype in (torch.float16, torch.bfloat16) else found
    return found if found.ndim == 2 else found.flatten(2).mean(2)


def count_images(output: Any) -> int | None:
    """Tell how many images an output is about; None where it cannot be told."""
    found = detections(output)
    if found is not None:
        return len(found)
    tensor = next((t for t in tensors(output) if t.ndim >= 1), None)
    return None if tensor is None else len(tensor)


def digest(values: torch.Tensor) -> str:
    """Return a short hash of an array, for records."""
    from hashlib import sha256

    return sha256(values.detach().cpu().double().contiguous().numpy().tobytes()).hexdigest()[:16]


def no_scores(output: Any) -> str:
    """Say that an output has no scores, and what to do."""
    return (
        f"The network gives {shown(output)}, which has no class scores (B, K): "
        "pass target=a function of its output."
    )


def shown(output: Any) -> str:
    """Describe an output in a few words."""
    import torch

    if isinstance(output, torch.Tensor):
        kind = "" if output.is_floating_point() else f" of {output.dtype}"
        return f"{tuple(output.shape)}{kind}"
    parts = entries(output)
    listed = [f"{name}: {_brief(v)}" if name else _brief(v) for name, v in parts[:4]]
    if len(parts) > 4:
        listed.append("...")
    return type(output).__name__ + (f" ({', '.join(listed)})" if parts else "")


def _brief(value: Any) -> str:
    import torch

    return shown(value) if isinstance(value, torch.Tensor) else type(value).__name__
