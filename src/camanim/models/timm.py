"""timm's networks, where timm is installed: weights from the hub, the rest from its own metadata."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from camanim.errors import CamError, ModelError
from camanim.images import Preprocess
from camanim.models.base import Model
from camanim.models.building import build, first_line
from camanim.models.files import load_into, read_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from camanim.progress import Progress

# timm has more than a thousand, and listing them takes importing it: see `names`.
NAMES: tuple[str, ...] = ()


def names() -> list[str]:
    """List timm's networks, with and without the tags of their weights."""
    timm = _library()
    return [*timm.list_models(), *timm.list_models(pretrained=True)]


def knows(name: str) -> bool:
    """Whether there is such a network, with these weights where the name says which."""
    return bool(_library().is_model(name)) and ("." not in name or name in names())


def load(
    name: str, arguments: dict[str, Any], weights: str | Path | None, progress: Progress
) -> Model:
    """Load one of timm's networks; ``weights`` as in `camanim.load_model`.

    `arguments` go to ``timm.create_model``: ``in_chans``, ``num_classes``, ``img_size``, ...
    """
    classes = None
    if weights == "DEFAULT":
        net = _published(name, arguments, progress)
        classes = _classes(net)
    elif weights is None:
        net = _create(name, arguments)
    else:
        state = read_weights(weights)
        arguments = _as_in(state, name) | arguments
        net = _create(name, arguments)
        load_into(net, state, weights, f"timm/{name}")
    return Model(net.eval(), _preprocess(net, arguments), classes, name=f"timm/{name}")


def _library() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModelError(
            "timm is not installed: pip install napari-camanim[timm] brings it."
        ) from error
    library: ModuleType = timm
    return library


def _create(name: str, arguments: dict[str, Any]) -> nn.Module:
    timm = _library()
    refused = {"pretrained", "checkpoint_path", "cache_dir", "pretrained_cfg"} & set(arguments)
    if refused:
        raise ModelError(f"timm/{name}: say which weights with weights=, not {refused.pop()}=.")

    def make(**settings: Any) -> Any:
        return timm.create_model(name, pretrained=False, **settings)

    return build(f"timm/{name}", make, arguments)


def _published(name: str, arguments: dict[str, Any], progress: Progress) -> nn.Module:
    timm = _library()
    about = timm.get_pretrained_cfg(name)
    if about is None or not about.has_weights:
        raise ModelError(f"timm has no weights for {name}: pass weights=None or weights=FILE.")
    try:
        if about.hf_hub_id:
            _fetch(about.hf_hub_id, about.hf_hub_filename or "model.safetensors", progress)
        net: nn.Module = timm.create_model(name, pretrained=True, **arguments)
    except CamError:
        raise
    except Exception as error:
        # The hub's errors, the network's, and those of the file's readers.
        raise ModelError(
            f"The weights of timm/{name} cannot be had ({first_line(error)}). Pass weights=FILE, or "
            "weights=None for random weights."
        ) from error
    return net


def _fetch(repository: str, filename: str, progress: Progress) -> None:
    """Download into the hub's cache, where timm finds it, and tell the bytes."""
    import huggingface_hub
    from tqdm import tqdm

    class Bytes(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **settings: Any) -> None:
            settings.pop("name", None)
            super().__init__(*args, **settings | {"disable": True})
            self.done = int(settings.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            progress("download", self.done, int(self.total or 0))

    fetch = huggingface_hub.hf_hub_download
    known = inspect.signature(fetch).parameters
    identifier, _, revision = repository.partition("@")
    reported: dict[str, Any] = {"tqdm_class": Bytes} if "tqdm_class" in known else {}
    try:
        fetch(identifier, filename, revision=revision or None, **reported)
    except huggingface_hub.errors.LocalEntryNotFoundError:
        # No connection, and nothing in the cache; it counts as an entry that is not found, too.
        raise
    except huggingface_hub.errors.EntryNotFoundError:
        # Older weights are there in another format: timm knows which, and reads no code in them.
        progress("download", 0, 0)


def _as_in(state: dict[str, torch.Tensor], name: str) -> dict[str, Any]:
    """Read the numbers of classes and channels off a state dict of one's own."""
    about = _library().get_pretrained_cfg(name)
    settings: dict[str, Any] = {}
    for key, axis, argument in (("classifier", 0, "num_classes"), ("first_conv", 1, "in_chans")):
        where = getattr(about, key, None)
        weight = state.get(f"{where}.weight") if isinstance(where, str) else None
        if weight is not None and weight.ndim > axis:
            settings[argument] = int(weight.shape[axis])
    return settings


def _preprocess(net: nn.Module, arguments: dict[str, Any]) -> Preprocess:
    from timm.data import resolve_model_data_config

    size = arguments.get("img_size")
    config = resolve_model_data_config(net, args={"img_size": size} if type(size) is int else {})
    channels, height, width = config["input_size"]
    channels = arguments.get("in_chans", channels)
    mean, std = (_per_channel(config[key], channels) for key in ("mean", "std"))
    known = config["interpolation"] in ("bilinear", "bicubic", "nearest")
    return Preprocess(
        size=(height, width),
        resize=int(min(height, width) / config["crop_pct"]),
        mean=mean,
        std=std,
        channels=channels,
        interpolation=config["interpolation"] if known else "bicubic",
    )


def _per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """As for the channels, or their mean where there are others (timm sums its first filters)."""
    if len(values) in (1, channels):
        return tuple(values)
    return (sum(values) / len(values),)


def _classes(net: nn.Module) -> list[str] | None:
    """Name ImageNet's classes by the first of their synonyms, or by more where that is two classes'."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(net)
    if subset is None:
        return None
    about = ImageNetInfo(subset)
    synonyms, detailed = about.label_descriptions(), about.label_descriptions(detailed=True)
    first = [text.partition(",")[0] for text in synonyms]
    counts = [Counter(names) for names in (first, synonyms, detailed)]
    return [
        next((n for n, count in zip(names, counts, strict=True) if count[n] == 1), names[-1])
        for names in zip(first, synonyms, detailed, strict=True)
    ]
