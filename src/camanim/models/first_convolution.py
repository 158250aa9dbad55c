"""Channels and axes of a network's images, from its first convolution; networks that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from camanim.errors import ModelError

if TYPE_CHECKING:
    from torch import nn


def check_has_layers(net: nn.Module) -> None:
    """Raise `ModelError` if the layers of a network cannot be observed."""
    import torch

    if isinstance(net, torch.jit.ScriptModule):
        raise ModelError(
            "A network of TorchScript has no layers that can be observed: pass the Python module that "
            "it was made from, or export that with torch.export and load the .pt2 file."
        )


def check_initialised(net: nn.Module) -> None:
    """Raise `ModelError` if a network has lazy weights that do not exist yet."""
    from torch.nn.parameter import is_lazy

    tensors = chain(net.named_parameters(), net.named_buffers())
    lazy = next((name for name, tensor in tensors if is_lazy(tensor)), None)
    if lazy is not None:
        raise ModelError(
            f"The network has lazy weights that do not exist yet ({lazy}): run it once on an input of "
            "the right shape, or load its weights first."
        )


def infer_input(net: nn.Module) -> tuple[int, int]:
    """Return the number of channels and spatial axes that the first convolution takes.

    Containers may have attributes like those of a convolution, and do not count; neither do 1-D
    convolutions. Where another module precedes the convolution, it may fold pixels into channels:
    torch's ``PixelUnshuffle`` is accounted for, and networks of timm declare their channels. Without a
    convolution, 3 channels and 2 axes are returned.
    """
    from torch import nn

    leaves = [module for module in net.modules() if not any(module.children())]
    for position, module in enumerate(leaves):
        dims = _axes(module)
        if dims not in (2, 3):
            continue
        channels: int = module.in_channels  # type: ignore[assignment]
        if position > 0:
            channels = _declared_channels(net) or channels
        for earlier in leaves[:position]:
            if isinstance(earlier, nn.PixelUnshuffle):
                channels //= earlier.downscale_factor**2
        return max(channels, 1), dims
    return _declared_channels(net) or 3, 2


def _axes(module: nn.Module) -> int:
    """Return the number of spatial axes of a convolution; 0 for any other module."""
    weight: Any = getattr(module, "weight", None)
    channels = getattr(module, "in_channels", None)
    is_convolution = isinstance(channels, int) and channels > 0 and hasattr(weight, "ndim")
    return weight.ndim - 2 if is_convolution else 0


def _declared_channels(net: nn.Module) -> int | None:
    """Return the channels of images that a network of timm declares, or None."""
    config: Any = getattr(net, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or "input_size" not in config:
        return None
    arguments: Any = getattr(net, "_model_args", {})
    return int(arguments.get("in_chans", config["input_size"][0]))
