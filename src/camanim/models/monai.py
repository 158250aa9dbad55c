"""Networks of MONAI, by name and arguments: ``monai/UNet?spatial_dims=3&in_channels=1&...``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camanim.images import Preprocess
from camanim.models.base import Model
from camanim.models.building import build
from camanim.models.files import load_into, read_weights
from camanim.models.first_convolution import infer_input

if TYPE_CHECKING:
    from torch import nn

    from camanim.progress import Progress

# Networks that take one image and are built from plain values. The list is static so that it needs no
# import of torch or MONAI. For safety, nothing else can be built from a name or a bundle.
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


def has_network(name: str) -> bool:
    """Return whether `name` is in `NAMES`, or one of MONAI's aliases of them, such as ``Unet``."""
    return _constructor(name) is not None


def _constructor(name: str) -> Callable[..., Any] | None:
    """Return the class or function that builds a network, or None if it is not in `NAMES`."""
    from monai.networks import nets

    constructor = getattr(nets, name, None)
    listed = getattr(constructor, "__name__", None) in NAMES and name.isidentifier()
    return constructor if listed and callable(constructor) else None


def load(
    name: str, arguments: dict[str, Any], weights: str | Path | None, progress: Progress
) -> Model:
    """Build a network of MONAI, with weights from a file or else random ones."""
    net = build_network(name, arguments)
    if weights is not None and weights != "DEFAULT":
        load_into(net, read_weights(weights), weights, f"monai/{name}")
    return Model(net, preprocess(net, name, arguments), name=f"monai/{name}")


def build_network(name: str, arguments: dict[str, Any]) -> nn.Module:
    """Return a network with random weights.

    Parameters
    ----------
    name : str
        A name for which `has_network` is true.
    arguments : dict

    Raises
    ------
    ModelError
        If the network does not take the arguments; the message lists its parameters.
    """
    constructor = _constructor(name)
    assert constructor is not None
    if "pretrained" in inspect.signature(constructor).parameters:
        # Some constructors download weights by default.
        arguments = {"pretrained": False, **arguments}
    return build(f"monai/{name}", constructor, arguments)


def preprocess(net: nn.Module, name: str, arguments: dict[str, Any]) -> Preprocess:
    """Return the preprocessing that the arguments and the first convolution of a network imply."""
    constructor = _constructor(name)
    parameters = {} if constructor is None else inspect.signature(constructor).parameters
    channels, dims = infer_input(net)
    if "spatial_dims" in parameters and isinstance(parameters["spatial_dims"].default, int):
        dims = parameters["spatial_dims"].default
    dims = arguments.get("spatial_dims", dims)
    channels = arguments.get("in_channels", arguments.get("n_input_channels", channels))
    size = next((arguments[key] for key in ("img_size", "image_size") if key in arguments), None)
    if "in_shape" in arguments:
        channels, *size = arguments["in_shape"]
    if isinstance(size, int):
        size = (size,) * dims
    return Preprocess(size=None if size is None else tuple(size), channels=int(channels), dims=dims)
