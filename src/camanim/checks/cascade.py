"""Cascading randomisation: shuffle a network's weights by module, from the output backwards."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from camanim.errors import ScoreError
from camanim.layer_info import LayerInfo

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Name of a module and its parameters.
ModuleParameters = tuple[str, list["nn.Parameter"]]

#: Default limit on the number of steps.
STEPS = 20


def copy_network(net: nn.Module) -> nn.Module:
    """Return a copy of a network, whose weights can be shuffled.

    Raises
    ------
    ScoreError
        If the network cannot be copied.
    """
    import torch

    from camanim.exclusive import exclusively

    try:
        with torch.inference_mode(False):
            # Not while another thread computes with it, and has its hooks on it.
            return exclusively(net, partial(copy.deepcopy, net))
    except Exception as error:
        # User-defined attributes can raise any exception.
        first_line = str(error).strip().partition("\n")[0]
        raise ScoreError(
            f"The check requires a copy of the network, but copy.deepcopy fails: {first_line}"
        ) from error


def parameters_by_module(
    net: nn.Module, layer_calls: Sequence[LayerInfo]
) -> list[ModuleParameters]:
    """Return the parameters of each module, the module nearest to the output first.

    The order is that of execution, backwards. A module that is called several times is placed at its
    last call. A module with submodules is placed where its first submodule is called, because its
    direct parameters are mostly tokens or position embeddings. Parameters of submodules that are not
    called belong to the parent module if it is called, as in torch's attention; all others come last.
    Each parameter is listed once, even if modules share it.

    Parameters
    ----------
    net : torch.nn.Module
    layer_calls : sequence of LayerInfo
        Every call of every module.
    """
    last_call: dict[str, int] = {}
    first_subcall: dict[str, int] = {}
    for info in layer_calls:
        last_call[info.name] = info.index
        name = info.name
        while name:
            name = name.rpartition(".")[0]
            first_subcall.setdefault(name, info.index)
    parameters: defaultdict[str, list[nn.Parameter]] = defaultdict(list)
    uncalled: list[nn.Parameter] = []
    for name, module in net.named_modules():
        owner = name
        while owner and owner not in last_call:
            owner = owner.rpartition(".")[0]
        belongs = owner in last_call and (owner == name or owner not in first_subcall)
        (parameters[owner] if belongs else uncalled).extend(module.parameters(recurse=False))
    # Of two modules placed at the same call, the inner one is nearer to the output.
    order = sorted(
        (name for name, listed in parameters.items() if listed),
        key=lambda name: (first_subcall.get(name, last_call[name]), name.count(".") + bool(name)),
        reverse=True,
    )
    modules = [(name, parameters[name]) for name in order]
    if modules:
        modules[-1][1].extend(uncalled)
    return _remove_duplicates(modules)


def _remove_duplicates(modules: list[ModuleParameters]) -> list[ModuleParameters]:
    """Return the modules with the first occurrence of each parameter, without empty modules."""
    listed: set[int] = set()
    unique: list[ModuleParameters] = []
    for name, parameters in modules:
        new = [p for p in parameters if id(p) not in listed and p.numel()]
        listed.update(id(p) for p in new)
        if new:
            unique.append((name, new))
    return unique


def group_steps(modules: list[ModuleParameters], steps: int | None) -> list[ModuleParameters]:
    """Return modules grouped evenly into steps, each named after its last module.

    Parameters
    ----------
    modules : list of ModuleParameters
    steps : int or None
        Number of steps, at most that of modules; by default one per module, up to 20.

    Raises
    ------
    ScoreError
        If there are no modules or no steps.
    """
    if steps is not None and steps < 1:
        raise ScoreError(f"steps= must be at least 1, not {steps}.")
    if not modules:
        raise ScoreError("The check requires a network with weights.")
    count = min(STEPS if steps is None else steps, len(modules))
    groups = np.array_split(np.arange(len(modules)), count)
    return [
        (modules[group[-1]][0] or "(network)", [p for i in group for p in modules[i][1]])
        for group in groups
    ]


def shuffle(parameters: Sequence[nn.Parameter], generator: torch.Generator) -> None:
    """Permute the values within each parameter, in place."""
    import torch

    with torch.inference_mode(False), torch.no_grad():
        for parameter in parameters:
            values = parameter.reshape(-1)
            order = torch.randperm(len(values), generator=generator, device="cpu")
            parameter.copy_(values[order.to(values.device)].reshape(parameter.shape))
