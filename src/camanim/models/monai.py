"""MONAI's networks, by name and arguments: ``monai/UNet?spatial_dims=3&in_channels=1&...``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camanim.images import Preprocess
from camanim.models.base import Model, input_of
from camanim.models.building import build
from camanim.models.files import load_into, read_weights

if TYPE_CHECKING:
    from torch import nn

    from camanim.progress import Progress

# Those that take one image and are built from plain values. Spelled out, so that listing them imports
# neither torch nor MONAI, and because nothing else is built from a name or from a bundle.
# fmt: off
NAMES = (
    "AHNet", "AttentionUnet", "AutoEncoder", "AutoencoderKL", "BasicUNet", "BasicUNetPlusPlus",
    "Classifier", "Critic", "DAF3D", "DenseNet", "DenseNet121", "DenseNet169", "DenseNet201",
    "DenseNet264", "Discriminator", "DynUNet", "EfficientNet", "EfficientNetBN", "FlexibleUNet",
    "HighResNet", "HoVerNet", "MaskedAutoEncoderViT", "MedNeXt", "PatchDiscriminator", "Quicknat",
    "RegUNet", "Regressor", "ResNet", "SENet", "SENet154", "SEResNet101", "SEResNet152",
    "SEResNet50", "SEResNext101", "SEResNext50", "SegResNet", "SegResNetDS", "SegResNetDS2",
    "SegResNetVAE", "SwinUNETR", "UNETR", "UNet", "VNet", "VQVAE", "VarAutoEncoder", "ViT",
    "ViTAutoEnc", "resnet10", "resnet101", "resnet152", "resnet18", "resnet200", "resnet34",
    "resnet50",
)
# fmt: on


def knows(name: str) -> bool:
    """Whether there is such a network; MONAI's other spellings (``Unet``) are understood."""
    return maker(name) is not None


def maker(name: str) -> Callable[..., Any] | None:
    """Find the class or function that makes a network, if it is one of `NAMES`."""
    from monai.networks import nets

    found = getattr(nets, name, None)
    listed = getattr(found, "__name__", None) in NAMES and name.isidentifier()
    return found if listed and callable(found) else None


def load(
    name: str, arguments: dict[str, Any], weights: str | Path | None, progress: Progress
) -> Model:
    """Build one of MONAI's networks; ``weights`` is a file, or else they are random."""
    net = make(name, arguments)
    if weights is not None and weights != "DEFAULT":
        load_into(net, read_weights(weights), weights, f"monai/{name}")
    return Model(net, preprocess(net, name, arguments), name=f"monai/{name}")


def make(name: str, arguments: dict[str, Any]) -> nn.Module:
    """Build a network with random weights.

    Raises
    ------
    ModelError
        When the arguments do not fit; the error names those that the network takes.
    """
    found = maker(name)
    assert found is not None, "knows() was not asked"
    if "pretrained" in inspect.signature(found).parameters:
        # Some would download by default.
        arguments = {"pretrained": False, **arguments}
    return build(f"monai/{name}", found, arguments)


def preprocess(net: nn.Module, name: str, arguments: dict[str, Any]) -> Preprocess:
    """Read size, channels and axes off a network's arguments, and off its first convolution."""
    found = maker(name)
    defaults = {} if found is None else inspect.signature(found).parameters
    channels, dims = input_of(net)
    if "spatial_dims" in defaults and isinstance(defaults["spatial_dims"].default, int):
        dims = defaults["spatial_dims"].default
    dims = arguments.get("spatial_dims", dims)
    channels = arguments.get("in_channels", arguments.get("n_input_channels", channels))
    size = next((arguments[key] for key in ("img_size", "image_size") if key in arguments), None)
    if "in_shape" in arguments:
        channels, *size = arguments["in_shape"]
    if isinstance(size, int):
        size = (size,) * dims
    return Preprocess(size=None if size is None else tuple(size), channels=int(channels), dims=dims)
