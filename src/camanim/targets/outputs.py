"""Read scores, detections and embeddings from network outputs.

Outputs are tensors, tuples, dictionaries, dataclasses or detections.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from camanim.errors import TargetError
from camanim.precision import as_float64

if TYPE_CHECKING:
    import torch

    from camanim.targets.base import Kind, Of

#: Names of the scores and of the embedding among several named outputs (torchvision, HuggingFace).
_SCORES = ("logits", "out")
_EMBEDDINGS = ("image_embeds", "pooler_output", "embeddings", "embedding")
#: Keys of a detection in torchvision, and in MONAI.
_DETECTION = {"boxes": "box", "labels": "label", "scores": "label_scores"}
#: Kinds of scores that are probabilities: of mutually exclusive classes, and of independent labels.
PROBABILITIES: tuple[Kind, Kind] = ("probabilities", "independent probabilities")
#: Largest difference of a sum of probabilities from one, due to rounding in half precision.
SUM_TOLERANCE = 2e-3
#: Probabilities below it are constant in logarithms: the gradient of a smaller one may overflow.
_LEAST = 1e-30


def entries(output: Any) -> list[tuple[str, Any]]:
    """Return the parts of an output as (name, value); names may be empty, and tensors have no parts."""
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


def primary_tensor(output: Any, preferred: Sequence[str] = _SCORES) -> torch.Tensor | None:
    """Return the tensor that holds the scores; None if there is no such tensor.

    This is the output itself, else a part with one of the `preferred` names, else the first tensor with
    two axes or more. Auxiliary outputs (Inception, GoogLeNet, torchvision's segmentation) are ignored.
    """
    named = dict(entries(output))
    for name in preferred:
        tensor = None if named.get(name) is None else primary_tensor(named[name], preferred)
        if tensor is not None:
            return tensor
    return next((t for t in tensors(output) if t.ndim >= 2 and t.is_floating_point()), None)


def tensors(output: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in an output, except auxiliary ones."""
    import torch

    if isinstance(output, torch.Tensor):
        yield output
    for name, value in entries(output):
        if not name.startswith("aux"):
            yield from tensors(value)


def find_scores(output: Any) -> torch.Tensor | None:
    """Return the scores in a network's output, (B, K) or (B, K, *S); None if it has none.

    Half precision is converted to float32, because sums over pixels may overflow. Spatial axes that all
    have length 1 are removed: (B, K, 1, 1) becomes (B, K). A single logit without an axis for classes,
    (B,), becomes (B, 1).
    """
    import torch

    if detections(output) is not None:
        return None
    scores = primary_tensor(output)
    if scores is None:
        # Among other outputs, such a tensor may be anything.
        single = isinstance(output, torch.Tensor) and output.ndim == 1
        if not single or not output.is_floating_point():
            return None
        scores = output.reshape(-1, 1)
    if scores.ndim > 2 and set(scores.shape[2:]) == {1}:
        scores = scores.flatten(1)
    if scores.ndim == 3 or 0 in scores.shape:
        return None
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def read_scores(output: Any) -> torch.Tensor:
    """Return the scores in a network's output; see `find_scores`.

    Raises
    ------
    TargetError
        If the output has no scores.
    """
    scores = find_scores(output)
    if scores is None:
        raise TargetError(no_scores_message(output))
    return scores


def class_scores(output: Any) -> torch.Tensor:
    """Return the class scores in a network's output, (B, K).

    Raises
    ------
    TargetError
        If the output has no class scores, or they are not finite.
    """
    scores = read_scores(output)
    if scores.ndim != 2:
        raise TargetError(no_scores_message(output))
    return check_finite(scores)


def check_finite(scores: torch.Tensor) -> torch.Tensor:
    """Return the scores; raise `TargetError` if they are not finite."""
    if not bool(scores.isfinite().all()):
        raise TargetError("The network's scores are not finite: check its weights and input.")
    return scores


def columns(scores: torch.Tensor, kind: Kind, of: Of = "logit") -> torch.Tensor:
    """Return one column per class, (B, K, ...).

    A single logit l is expanded to two classes, with the scores -l and l and sigmoid probabilities; a
    single probability likewise. From probabilities, logits are recovered: ``log p - log(1 - p)`` of
    independent labels, which is the logit, and ``log p_c - mean_k log p_k`` of mutually exclusive
    classes, which is the logit less the mean of all logits. Unlike that of a probability, the gradient
    of these does not vanish where the probability is close to 0 or 1.

    Parameters
    ----------
    scores : torch.Tensor
        (B, K, ...)
    kind : {"auto", "softmax", "sigmoid", "values", "probabilities", "independent probabilities"}
        Values are returned unchanged.
    of : {"logit", "probability"}
    """
    import torch

    if kind == "values":
        return scores
    if kind in PROBABILITIES:
        if of == "probability":
            return torch.cat([1 - scores, scores], 1) if scores.shape[1] == 1 else scores
        if kind == "probabilities" and scores.shape[1] > 1:
            logs = scores.clamp(min=_LEAST).log()
            return logs - logs.mean(1, keepdim=True)
        scores = scores.clamp(min=_LEAST).log() - (1 - scores).clamp(min=_LEAST).log()
    if scores.shape[1] == 1:
        scores = torch.cat([-scores, scores], 1)
        return scores if of == "logit" else scores.sigmoid()
    if of == "logit":
        return scores
    return scores.sigmoid() if kind == "sigmoid" else scores.softmax(1)


def are_independent(kind: Kind) -> bool:
    """Return whether scores of this kind belong to independent labels."""
    return kind in ("sigmoid", "independent probabilities")


def kind_of_probabilities(scores: torch.Tensor) -> Kind | None:
    """Return the kind of scores if they can be probabilities: all of them lie in [0, 1].

    Parameters
    ----------
    scores : torch.Tensor
        (B, K, ...)

    Returns
    -------
    str or None
        "probabilities" if the sum over the classes is one everywhere, else "independent probabilities".
    """
    # Rounding may exceed 1, as when probabilities are resized.
    if not bool(((scores >= -1e-6) & (scores <= 1 + 1e-6)).all()):
        return None
    sums = as_float64(scores).sum(1)
    whole = scores.shape[1] > 1 and bool(((sums - 1).abs() <= SUM_TOLERANCE).all())
    return "probabilities" if whole else "independent probabilities"


def probabilities(scores: torch.Tensor, kind: Kind = "auto") -> torch.Tensor:
    """Return the probability of each class, (B, K, ...) float64; two classes for a single score.

    Float64 distinguishes probabilities close to 1. Plain values are returned unchanged.

    Parameters
    ----------
    scores : torch.Tensor
        (B, K, ...)
    kind : {"auto", "softmax", "sigmoid", "values", "probabilities", "independent probabilities"}
    """
    return columns(as_float64(scores), kind, "probability")


def detections(output: Any) -> list[dict[str, torch.Tensor]] | None:
    """Return the boxes, labels and scores of each image; None if the output is not detections."""
    items = output if isinstance(output, list | tuple) else [output]
    read = []
    for item in items:
        if not isinstance(item, Mapping):
            return None
        keys = {key: key if key in item else monai for key, monai in _DETECTION.items()}
        if not all(key in item for key in keys.values()):
            return None
        read.append({key: item[present] for key, present in keys.items()})
    return read or None


def embedding(output: Any) -> torch.Tensor:
    """Return one vector per image, (B, D): the output, or its mean over space.

    Raises
    ------
    TargetError
        If the output has no such vectors.
    """
    import torch

    vectors = primary_tensor(output, (*_EMBEDDINGS, *_SCORES))
    if vectors is None or vectors.ndim == 3 or 0 in vectors.shape:
        raise TargetError(
            f"The network returns {summary(output)}, which is not one vector per image: "
            "pass target=a function of its output."
        )
    vectors = vectors.float() if vectors.dtype in (torch.float16, torch.bfloat16) else vectors
    return vectors if vectors.ndim == 2 else vectors.flatten(2).mean(2)


def count_images(output: Any) -> int | None:
    """Return the batch size of an output; None if it is unknown."""
    items = detections(output)
    if items is not None:
        return len(items)
    tensor = next((t for t in tensors(output) if t.ndim >= 1), None)
    return None if tensor is None else len(tensor)


def digest(values: torch.Tensor) -> str:
    """Return a short hash of an array, for metadata."""
    from hashlib import sha256

    return sha256(values.detach().cpu().double().contiguous().numpy().tobytes()).hexdigest()[:16]


def no_scores_message(output: Any) -> str:
    """Return the error message for an output without class scores."""
    if getattr(output, "shape", None) == ():
        return (
            "The network returns (), a number without an axis for images: return (B,) or (B, 1), "
            "as squeeze(1) does, or pass target=a function of its output."
        )
    return (
        f"The network returns {summary(output)}, which has no class scores (B, K): "
        "pass target=a function of its output."
    )


def summary(output: Any) -> str:
    """Return the type and shapes of an output as short text."""
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

    return summary(value) if isinstance(value, torch.Tensor) else type(value).__name__
