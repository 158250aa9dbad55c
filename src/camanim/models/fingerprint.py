"""The hash of a network's weights, computed again only when one has changed."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from torch import nn

# Rows of this length are multiplied with the same factors, which stay in the processor's cache.
_ROW = 16384


def sha256(net: nn.Module) -> str:
    """Hash all weights and buffers, by their names and bytes."""
    import torch

    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(name.encode())
        known = isinstance(value, torch.Tensor)
        digest.update(_bytes(value).data if known else str(value).encode())
    return digest.hexdigest()


def fingerprint(net: nn.Module) -> tuple[object, ...] | None:
    """Return what identifies a network's state, many times faster than `sha256`.

    It has each tensor's name, memory and version, and the product of all values with random factors:
    writing through ``.data``, as averaging of weights often does, leaves the version unchanged. The
    factors make the order of the values matter. The product is summed in rows and then in float64, so
    that small changes are not lost among large sums, and fetched once per device.

    Returns
    -------
    tuple or None
        None where values are not finite, and so is their product.
    """
    import torch

    state: list[object] = []
    values: dict[torch.device, list[torch.Tensor]] = defaultdict(list)
    for name, value in _state(net):
        if not isinstance(value, torch.Tensor):
            state.append((name, str(value)))
            continue
        version = None if value.is_inference() else value._version
        state.append((name, value.data_ptr(), version, value.dtype))
        values[value.device].append(value)
    with torch.no_grad():
        products = {str(device): _product(tensors) for device, tensors in values.items()}
    if not all(math.isfinite(product) for product in products.values()):
        return None
    return (*state, *products.items())


def _state(net: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the entries of the state dict, which takes longer to make."""
    from torch import nn

    for prefix, module in net.named_modules(remove_duplicate=False):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield f"{prefix}.{name}", parameter
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield f"{prefix}.{name}", buffer
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            yield f"{prefix}.extra", module.get_extra_state()


def _product(tensors: list[torch.Tensor]) -> float:
    """Multiply all values of one device with random factors, and sum."""
    import torch

    device = tensors[0].device
    exact = torch.float32 if device.type == "mps" else torch.float64
    parts: dict[torch.dtype, list[torch.Tensor]] = defaultdict(list)
    for tensor in tensors:
        flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)
        if flat.numel() > _ROW and flat.is_floating_point():
            flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
            factors = _factors(_ROW, flat.dtype, device)
            whole = flat.numel() // _ROW * _ROW
            parts[flat.dtype].append(flat[:whole].view(-1, _ROW) @ factors)
            parts[flat.dtype].append((flat[whole:] @ factors[: flat.numel() - whole])[None])
        else:
            parts[flat.dtype].append(flat)
    values = torch.cat([torch.cat(same).to(exact) for same in parts.values()])
    return float(values @ _factors(_rounded(len(values)), exact, device)[: len(values)])


def _rounded(length: int) -> int:
    # So that few factors serve all networks.
    return 1 << length.bit_length()


@lru_cache(maxsize=16)
def _factors(length: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    import torch

    generator = torch.Generator().manual_seed(0)
    factors = torch.rand(length, generator=generator, dtype=torch.float64) + 0.5
    return factors.to(device, dtype)


def _bytes(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    array: npt.NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return array
