"""Whether a run of a network fits into memory, and the size of input that does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from camanim.errors import CamError, OutOfMemory
from camanim.images import Preprocess

if TYPE_CHECKING:
    import torch

    from camanim.models.base import Model

#: Bytes of a pass per byte of its input that suffice for any network, with and without gradients: up to
#: 960 and 250 were measured. Where they are free, nothing is estimated.
_SUFFICIENT = {True: 4000, False: 500}
#: Factor on the estimate for the workspace of operations and for fragments.
_MARGIN = 1.25
#: Fraction of the free memory up to which a size is proposed.
_SAFE = 0.8
#: Of proposed sizes, as most networks need.
_MULTIPLE = 32


def fitting_images(
    model: Model, tensor: torch.Tensor, count: int, *, gradients: bool, at_least: int = 1
) -> int:
    """Return how many images can be passed at once, `count` at most.

    Costs nothing unless the input is large, compared with the memory that is free.

    Parameters
    ----------
    model : Model
    tensor : torch.Tensor
        (B, C, *S)
    count : int
        The most images per pass.
    gradients : bool
        Whether the gradients of all layers are needed.
    at_least : int
        The fewest images per pass.

    Raises
    ------
    OutOfMemory
        If not even `at_least` images fit.
    """
    from camanim.execution.memory import available_memory, estimate

    free = available_memory(tensor.device)
    if free is None or tensor[:1].nbytes * count * _SUFFICIENT[gradients] <= free:
        return count
    try:
        empty = model.to("meta").forward()
    except CamError:
        # Not all networks can be copied.
        empty = None
    memory = estimate(model.forward(), empty, tensor[:1])
    if memory is None:
        return count
    needed = int(_MARGIN * (memory.gradients if gradients else memory.forward))
    fitting = count if needed == 0 else min(count, free // needed)
    if fitting < at_least:
        raise OutOfMemory(_message(model, tensor, needed * at_least, free))
    return fitting


def _message(model: Model, tensor: torch.Tensor, needed: int, free: int) -> str:
    size = tuple(tensor.shape[2:])
    wanted = " x ".join(map(str, size))
    factor = (_SAFE * free / needed) ** (1 / len(size))
    smaller = tuple(int(n * factor) // _MULTIPLE * _MULTIPLE for n in size)
    own = model.preprocess.size if isinstance(model.preprocess, Preprocess) else None
    if min(smaller) == 0:
        remedy = "free memory, or use a smaller network"
    elif not isinstance(model.preprocess, Preprocess):
        remedy = f"let preprocess return at most {' x '.join(map(str, smaller))}"
    elif own is not None and math.prod(own) <= math.prod(smaller):
        remedy = 'use fit="stretch" or fit="crop"'
    else:
        remedy = f"load the network with size={smaller} or less"
    return (
        f"An input of {wanted} needs about {_gigabytes(needed)} of memory with {model.name}, and "
        f"{_gigabytes(free)} are free on {tensor.device}: {remedy}."
    )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
