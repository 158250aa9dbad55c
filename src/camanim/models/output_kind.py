"""Notice networks that end in a softmax or sigmoid: their outputs are probabilities already."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from camanim.targets.outputs import PROBABILITIES, find_scores, kind_of_probabilities

if TYPE_CHECKING:
    import torch

    from camanim.execution.forward import Forward
    from camanim.targets.base import Kind, Target

#: Operations in autograd's graph that return probabilities, and those that only move or resize values.
_ACTIVATIONS = re.compile(r"(Sigmoid|Hardsigmoid|Softmax)Backward\d*")
_MOVES = re.compile(
    r"(View|UnsafeView|ReshapeAlias|Alias|AsStrided|Squeeze|Unsqueeze|Permute|Transpose|T|Clone|ToCopy"
    r"|Slice|Select|Index|IndexSelect|Split|Unbind|Expand|Cat|Stack|Upsample\w+)Backward\d*"
)
_USED = (
    "The network's outputs are probabilities already ({reason}), and are used as they are: "
    'outputs="softmax" or "sigmoid" would take them for logits.'
)
_CONTRADICTED = (
    "The network's outputs seem to be probabilities ({reason}), but are taken for logits as requested: "
    'use outputs="probabilities" if they are.'
)


def output_kind(
    forward: Forward, tensor: torch.Tensor, output: Any, outputs: Kind
) -> tuple[Kind, str]:
    """Return the kind of a network's scores, and a note where it differs from what was requested.

    Scores are probabilities if all of them lie in [0, 1] and they sum to one over the classes, or the
    network's last operation is a sigmoid or a softmax. This must hold for the image and for noise in
    the image's range of values, so that a coincidence is not taken for it.

    Parameters
    ----------
    forward : Forward
        Within `Forward.evaluating`, or a context with gradients.
    tensor : torch.Tensor
        The network's input, (B, C, *S).
    output : object
        The network's output for it.
    outputs : {"auto", "softmax", "sigmoid", "values", "probabilities"}
        The requested kind.

    Returns
    -------
    kind : str
        The requested kind, unless that is "auto" or "probabilities" and the scores are probabilities.
    note : str
        Empty without a difference.
    """
    if outputs == "values":
        return outputs, ""
    scores = find_scores(output)
    seen = None if scores is None else kind_of_probabilities(scores.detach())
    if seen is None:
        return outputs, ""
    graph = None if scores is None else scores.grad_fn
    if (
        outputs != "probabilities"
        and seen == PROBABILITIES[1]
        and graph is not None
        and not _ends_in_activation(graph)
    ):
        # Logits in [0, 1] by coincidence: no second pass is needed.
        return outputs, ""
    kind, reason = _confirmed(seen, *_on_noise(forward, tensor))
    if outputs == "probabilities":
        # Without confirmation, by the sums alone.
        return kind or seen, ""
    if kind is None:
        return outputs, ""
    if outputs == "auto":
        return kind, _USED.format(reason=reason)
    return outputs, _CONTRADICTED.format(reason=reason)


def _confirmed(seen: Kind, on_noise: Kind | None, activated: bool) -> tuple[Kind | None, str]:
    if on_noise is None:
        return None, ""
    if seen == on_noise == "probabilities":
        return seen, "in [0, 1], with a sum of one over the classes"
    return (
        (PROBABILITIES[1], "the last operation is a sigmoid or softmax")
        if activated
        else (None, "")
    )


def _on_noise(forward: Forward, tensor: torch.Tensor) -> tuple[Kind | None, bool]:
    """Return the kind of the scores of noise, and whether an activation is the last operation."""
    import torch

    low, high = tensor.amin(), tensor.amax()
    generator = torch.Generator("cpu").manual_seed(0)
    noise = torch.rand(tensor[:1].shape, generator=generator, device="cpu").to(tensor)
    noise = low + noise * (high - low if bool(high > low) else 1)
    # The graph is read, but no backward pass follows: nothing needs to be stored for it.
    nothing_saved = torch.autograd.graph.saved_tensors_hooks(_empty, _empty)
    try:
        with torch.enable_grad(), nothing_saved:
            scores = find_scores(forward(noise.clone().requires_grad_()))
            activated = scores is not None and _ends_in_activation(scores.grad_fn)
    except RuntimeError:
        # A network that leaves torch, or was made in inference mode, has no graph.
        with torch.no_grad():
            scores, activated = find_scores(forward(noise)), False
    return None if scores is None else kind_of_probabilities(scores.detach()), activated


def _empty(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.new_empty(0)


def _ends_in_activation(node: Any) -> bool:
    """Return whether all values of a tensor come from an activation, at most moved or resized since."""
    pending, seen = [node], set()
    while pending:
        node = pending.pop()
        name = "" if node is None else node.name()
        if _MOVES.fullmatch(name):
            pending += [inner for inner, _ in node.next_functions if inner not in seen]
            seen.update(pending)
        elif not _ACTIVATIONS.fullmatch(name):
            return False
    return True


def gradient_note(target: Target, gradient: torch.Tensor | None) -> str:
    """Return a note if a probability that rounds to 0 or 1 has no gradient; empty otherwise."""
    is_probability = getattr(target, "kind", "auto") in PROBABILITIES
    if gradient is None or not is_probability or bool(gradient.any()):
        return ""
    return (
        f"The gradient is zero, because the probability of {target.name} rounds to 0 or 1: explain the "
        "network without its last sigmoid or softmax, or use a method without gradients."
    )
