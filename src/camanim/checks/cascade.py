"""A network's weights, shuffled one module after the other, from the output backwards."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from camanim.errors import ScoreError
from camanim.layer_info import LayerInfo

if TYPE_CHECKING:
    import torch
    from torch import nn

#: A module's name, and the parameters that are its own.
Unit = tuple[str, list["nn.Parameter"]]

#: How many steps there are at most, where nobody says.
STEPS = 20


def copied(net: nn.Module) -> nn.Module:
    """Copy a network, so that the user's own keeps its weights.

    Raises
    ------
    ScoreError
        When it cannot be copied.
    """
    import torch

    try:
        with torch.inference_mode(False):
            return copy.deepcopy(net)
    except Exception as error:
        # A network may hold anything, and each thing refuses in its own way.
        first_line = str(error).strip().partition("\n")[0]
        raise ScoreError(
            f"The network cannot be copied, so its weights cannot be shuffled ({first_line}): "
            "make it of what copy.deepcopy takes."
        ) from error


def units(net: nn.Module, trace: Sequence[LayerInfo]) -> list[Unit]:
    """List the modules that own parameters, the one nearest to the output first.

    The order is that of execution, backwards. A module that ran several times counts where it ran last;
    one that calls others counts where it began, as what it owns itself is mostly a token or an embedding
    of positions. Where a module uses the parameters of parts that it does not call, as torch's attention
    does, they are its own. Any others of parts that were never called come last. Each parameter is
    listed once, also where modules share it.

    Parameters
    ----------
    net : torch.nn.Module
    layer_calls : sequence of LayerInfo
        Every call of every module.
    """
    last: dict[str, int] = {}
    began: dict[str, int] = {}
    for info in trace:
        last[info.name] = info.index
        name = info.name
        while name:
            name = name.rpartition(".")[0]
            began.setdefault(name, info.index)
    found: defaultdict[str, list[nn.Parameter]] = defaultdict(list)
    late: list[nn.Parameter] = []
    for name, module in net.named_modules():
        owner = name
        while owner and owner not in last:
            owner = owner.rpartition(".")[0]
        belongs = owner in last and (owner == name or owner not in began)
        (found[owner] if belongs else late).extend(module.parameters(recurse=False))
    # Of two that began at the same call, the inner one is nearer to the output.
    order = sorted(
        (name for name, own in found.items() if own),
        key=lambda name: (began.get(name, last[name]), name.count(".") + bool(name)),
        reverse=True,
    )
    return _once([(name, found[name]) for name in order], late)


def _once(listed: list[Unit], late: list[nn.Parameter]) -> list[Unit]:
    """Keep the first of each parameter, and put what nobody called to the last module."""
    if listed:
        listed[-1] = (listed[-1][0], [*listed[-1][1], *late])
    seen: set[int] = set()
    kept: list[Unit] = []
    for name, parameters in listed:
        own = [p for p in parameters if id(p) not in seen and p.numel()]
        seen.update(id(p) for p in own)
        if own:
            kept.append((name, own))
    return kept


def grouped(listed: list[Unit], steps: int | None) -> list[Unit]:
    """Spread modules evenly over steps; each step has the name of its last module.

    Parameters
    ----------
    listed : list of Unit
    steps : int or None
        At most as many as there are modules; None for as many, up to 20.

    Raises
    ------
    ScoreError
        When there is nothing to shuffle, or no step to do it in.
    """
    if steps is not None and steps < 1:
        raise ScoreError(f"Weights are shuffled in 1 step or more, not {steps}.")
    if not listed:
        raise ScoreError(
            "The network has no weights that could be shuffled: this check is not for it."
        )
    count = min(STEPS if steps is None else steps, len(listed))
    parts = np.array_split(np.arange(len(listed)), count)
    return [
        (listed[part[-1]][0] or "(network)", [p for i in part for p in listed[i][1]])
        for part in parts
    ]


def shuffle(parameters: Sequence[nn.Parameter], generator: torch.Generator) -> None:
    """Permute the values within each parameter, in place."""
    import torch

    with torch.inference_mode(False), torch.no_grad():
        for parameter in parameters:
            values = parameter.reshape(-1)
            order = torch.randperm(len(values), generator=generator, device="cpu")
            parameter.copy_(values[order.to(values.device)].reshape(parameter.shape))
