"""Networks of torchvision, with weights, classes and preprocessing from its metadata."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camanim.errors import ModelError
from camanim.images import Preprocess
from camanim.models.base import Model
from camanim.models.building import first_line, seeded
from camanim.models.files import download, load_into, read_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from camanim.progress import Progress

# The lists are static so that they need no import of torch or torchvision. A test compares them with
# those of torchvision.
# fmt: off
CLASSIFIERS = (
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
SEGMENTATION = (
    "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet101", "deeplabv3_resnet50", "fcn_resnet101",
    "fcn_resnet50", "lraspp_mobilenet_v3_large",
)
DETECTION = (
    "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fcos_resnet50_fpn",
    "keypointrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2",
    "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
)
VIDEO = (
    "mc3_18", "mvit_v1_b", "mvit_v2_s", "r2plus1d_18", "r3d_18", "s3d", "swin3d_b", "swin3d_s",
    "swin3d_t",
)
# fmt: on
NAMES = CLASSIFIERS + SEGMENTATION + DETECTION + VIDEO


def has_network(name: str) -> bool:
    """Return whether `name` is a network of torchvision."""
    return name in NAMES


def load(
    name: str, arguments: dict[str, Any], weights: str | Path | None, progress: Progress
) -> Model:
    """Load a network of torchvision; see `camanim.load_model` for the parameters."""
    from torchvision.models import get_model_weights

    if arguments:
        raise ModelError(f"torchvision/{name} takes no arguments.")
    published = get_model_weights(name)
    metadata, classes, domain = published.DEFAULT, None, ""
    if isinstance(weights, str) and weights in ("DEFAULT", *published.__members__):
        metadata = published[weights]
        net, classes = _published(name, metadata, progress), metadata.meta["categories"]
        domain = _domain(name)
    elif weights is None:
        net = _build(name)
    else:
        net, classes = _from_file(name, Path(weights), metadata.meta["categories"])
    preprocess = _preprocess(name, metadata)
    return Model(net.eval(), preprocess, classes, name=f"torchvision/{name}", domain=domain)


def _domain(name: str) -> str:
    """Return what the published weights of a network were trained on."""
    if name in VIDEO:
        return "Kinetics videos"
    return "ImageNet photographs" if name in CLASSIFIERS else "COCO photographs"


def _published(name: str, weights: Any, progress: Progress) -> nn.Module:
    import torch
    from torchvision.models import get_model

    # torchvision loads the file from this path, and would download it without reporting progress.
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    download(weights.url, path, progress)
    try:
        with _quiet(), seeded():
            net: nn.Module = get_model(name, weights=weights, progress=False)
    except Exception as error:
        raise ModelError(
            f"{path} cannot be loaded ({first_line(error)}): delete it to download it again."
        ) from error
    return net


def _build(name: str, **settings: Any) -> nn.Module:
    from torchvision.models import get_model

    if name in SEGMENTATION + DETECTION:
        # By default, weights of the backbone are downloaded.
        settings["weights_backbone"] = None
    with _quiet(), seeded():
        net: nn.Module = get_model(name, weights=None, **settings)
    return net


def _from_file(name: str, path: Path, categories: list[str]) -> tuple[nn.Module, list[str] | None]:
    """Build a network for a state dict with any number of classes, and load it.

    Returns
    -------
    net : torch.nn.Module
    classes : list of str or None
        `categories`, or None if the number of classes differs.
    """
    state = read_weights(path)
    settings: dict[str, Any] = {}
    # State dicts may contain or lack the auxiliary heads.
    auxiliary = any("aux" in key.lower() for key in state)
    if name in ("googlenet", "inception_v3"):
        settings["aux_logits"] = auxiliary
    elif name.startswith(("deeplabv3_", "fcn_")):
        settings["aux_loss"] = auxiliary
    net = _build(name, **settings)
    count = _class_count(name, net, state, len(categories))
    if count != len(categories):
        net = _build(name, num_classes=count, **settings)
    load_into(net, state, path, f"torchvision/{name}")
    return net, categories if count == len(categories) else None


def _class_count(name: str, net: nn.Module, state: dict[str, torch.Tensor], usual: int) -> int:
    """Return the number of classes of a state dict, or `usual` if it lacks the classifier's weights."""
    # The classifier is the last weight with one row per class (in detection, per class and anchor),
    # apart from auxiliary classifiers.
    pattern = re.compile("cls_score|classification_head" if name in DETECTION else "")
    rows = {
        key: len(weight)
        for key, weight in net.state_dict().items()
        if weight.ndim > 1 and "aux" not in key.lower() and pattern.search(key)
        if (len(weight) % usual == 0 if name in DETECTION else len(weight) == usual)
    }
    key = list(rows)[-1]
    weight = state.get(key)
    if weight is None or weight.numel() == 0 or weight.ndim == 0:
        return usual
    return usual * len(weight) // rows[key]


def _preprocess(name: str, weights: Any) -> Preprocess:
    preset = weights.transforms()
    if name in DETECTION:
        # These networks resize and normalise their input themselves.
        return Preprocess()
    if name in SEGMENTATION:
        size: tuple[int, ...] = (preset.resize_size[0],) * 2
    else:
        size = (preset.crop_size[0], preset.crop_size[-1])
    resize = preset.resize_size[0]
    if name in VIDEO:
        # As many frames as the clips of the training.
        size, resize = (max(16, weights.meta.get("min_temporal_size", 0)), *size), None
    return Preprocess(
        size=size,
        resize=resize,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        channels=3,
        interpolation=preset.interpolation.value,
    )


def _quiet() -> warnings.catch_warnings[None]:
    """Suppress warnings of torchvision about its future defaults, such as `init_weights`."""
    return warnings.catch_warnings(action="ignore", category=FutureWarning)
