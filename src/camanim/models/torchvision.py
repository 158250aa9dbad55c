"""torchvision's classifiers, with their weights, classes and preprocessing from its own metadata."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camanim.errors import ModelError
from camanim.images import Preprocess
from camanim.models.files import download, load_into, read_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from camanim.models.base import Model
    from camanim.progress import Progress

# Spelled out, so that listing them imports neither torch nor torchvision; a test compares it with
# torchvision's own list.
# fmt: off
NAMES = (
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny",
    "densenet121", "densenet161", "densenet169", "densenet201", "efficientnet_b0",
    "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
    "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_l",
    "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2",
    "mobilenet_v3_large", "mobilenet_v3_small", "regnet_x_16gf", "regnet_x_1_6gf",
    "regnet_x_32gf", "regnet_x_3_2gf", "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf",
    "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf", "regnet_y_3_2gf",
    "regnet_y_400mf", "regnet_y_800mf", "regnet_y_8gf", "resnet101", "resnet152", "resnet18",
    "resnet34", "resnet50", "resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
    "squeezenet1_0", "squeezenet1_1", "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s",
    "swin_v2_t", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19",
    "vgg19_bn", "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32", "wide_resnet101_2",
    "wide_resnet50_2",
)
# fmt: on


def load(name: str, weights: str | Path | None, progress: Progress) -> Model:
    """Load one of torchvision's classifiers; ``weights`` as in `camanim.load_model`."""
    from torchvision.models import get_model_weights

    from camanim.models.base import Model

    known = get_model_weights(name)
    default = known.DEFAULT
    if isinstance(weights, str) and weights in ("DEFAULT", *known.__members__):
        chosen = known[weights]
        net, classes = _published(name, chosen, progress), chosen.meta["categories"]
    elif weights is None:
        chosen, classes = default, None
        net = _build(name)
    else:
        chosen = default
        net, classes = _from_file(name, Path(weights), default.meta["categories"])
    return Model(net.eval(), _preprocess(chosen), classes, name=f"torchvision/{name}")


def _published(name: str, weights: Any, progress: Progress) -> nn.Module:
    import torch
    from torchvision.models import get_model

    # We download where torchvision looks, so that it finds the file and loads it in its own way.
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    download(weights.url, path, progress)
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
            net: nn.Module = get_model(name, weights=weights, progress=False)
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        raise ModelError(
            f"{path} cannot be loaded ({first_line}): delete it to fetch it again."
        ) from error
    return net


def _build(name: str, **settings: Any) -> nn.Module:
    import torch
    from torchvision.models import get_model

    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: nn.Module = get_model(name, weights=None, **settings)
    return net


def _from_file(name: str, path: Path, categories: list[str]) -> tuple[nn.Module, list[str] | None]:
    """Load a state dict of one's own, whatever its number of classes."""
    state = read_weights(path)
    settings: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # The published weights come without or with the auxiliary heads; so may one's own.
        settings["aux_logits"] = any("aux" in key.lower() for key in state)
    net = _build(name, **settings)
    count = _class_count(net, state)
    if count != len(categories):
        net = _build(name, num_classes=count, **settings)
    load_into(net, state, path, f"torchvision/{name}")
    return net, categories if count == len(categories) else None


def _class_count(net: nn.Module, state: dict[str, torch.Tensor]) -> int:
    """Read the number of classes off the classifier's weights; torchvision's where there are none."""
    # The classifier is the last to have one row per class, but for auxiliary ones.
    keys = [
        key
        for key, weight in net.state_dict().items()
        if weight.ndim > 1 and len(weight) == 1000 and "aux" not in key.lower()
    ]
    weight = state.get(keys[-1])
    return 1000 if weight is None or weight.numel() == 0 or weight.ndim == 0 else len(weight)


def _preprocess(weights: Any) -> Preprocess:
    preset = weights.transforms()
    return Preprocess(
        size=(preset.crop_size[0], preset.crop_size[-1]),
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        channels=3,
        interpolation=preset.interpolation.value,
    )


def _quiet() -> warnings.catch_warnings[None]:
    """Keep torchvision's advice to its own developers (init_weights) from our users."""
    return warnings.catch_warnings(action="ignore", category=FutureWarning)
