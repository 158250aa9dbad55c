"""Networks of timm, with weights from the hub, and preprocessing and classes from its metadata."""

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
from camanim.models.building import build, first_line, loading_argument
from camanim.models.files import load_into, read_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from camanim.progress import Progress


def names() -> list[str]:
    """Return the names of all networks, without and with the tags of their weights."""
    timm = _library()
    return [*timm.list_models(), *timm.list_models(pretrained=True)]


def has_network(name: str) -> bool:
    """Return whether `name` is a network of timm, with published weights if it has a tag."""
    return bool(_library().is_model(name)) and ("." not in name or name in names())


def load(
    name: str, arguments: dict[str, Any], weights: str | Path | None, progress: Progress
) -> Model:
    """Load a network of timm; see `camanim.load_model` for the parameters.

    `arguments` are passed to ``timm.create_model``: ``in_chans``, ``num_classes``, ``img_size``, ...
    """
    classes, domain = None, ""
    if refused := loading_argument(arguments):
        raise ModelError(f"timm/{name} takes no argument {refused}: pass weights= instead.")
    if weights == "DEFAULT":
        net = _published(name, arguments, progress)
        classes = _classes(net)
        domain = "" if classes is None else "ImageNet photographs"
    elif weights is None:
        net = _create(name, arguments)
    else:
        state = read_weights(weights)
        arguments = _arguments_from(state, name) | arguments
        net = _create(name, arguments)
        load_into(net, state, weights, f"timm/{name}")
    preprocess = _preprocess(net, arguments)
    return Model(net.eval(), preprocess, classes, name=f"timm/{name}", domain=domain)


def _library() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModelError("timm is not installed: pip install napari-camanim[timm].") from error
    library: ModuleType = timm
    return library


def _create(name: str, arguments: dict[str, Any]) -> nn.Module:
    timm = _library()

    def constructor(**settings: Any) -> Any:
        return timm.create_model(name, pretrained=False, **settings)

    return build(f"timm/{name}", constructor, arguments)


def _published(name: str, arguments: dict[str, Any], progress: Progress) -> nn.Module:
    timm = _library()
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ModelError(f"timm has no weights for {name}: pass weights=None or weights=FILE.")
    try:
        if config.hf_hub_id:
            _download(config.hf_hub_id, config.hf_hub_filename or "model.safetensors", progress)
        net: nn.Module = timm.create_model(name, pretrained=True, **arguments)
    except CamError:
        raise
    except Exception as error:
        # The hub, the connection, the constructor and the file's reader raise different errors.
        raise ModelError(
            f"The weights of timm/{name} cannot be loaded ({first_line(error)}). Pass weights=FILE, "
            "or weights=None for random weights."
        ) from error
    return net


def _download(repository: str, filename: str, progress: Progress) -> None:
    """Download a file into the hub's cache, from which timm loads it, and report the bytes."""
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

    hub_download = huggingface_hub.hf_hub_download
    parameters = inspect.signature(hub_download).parameters
    identifier, _, revision = repository.partition("@")
    # Older versions of huggingface_hub cannot report the bytes.
    reporting: dict[str, Any] = {"tqdm_class": Bytes} if "tqdm_class" in parameters else {}
    try:
        hub_download(identifier, filename, revision=revision or None, **reporting)
    except huggingface_hub.errors.LocalEntryNotFoundError:
        # No connection and no cached file. This is a subclass of the next error.
        raise
    except huggingface_hub.errors.EntryNotFoundError:
        # Older weights are published in another format, which timm downloads and reads without code.
        progress("download", 0, 0)


def _arguments_from(state: dict[str, torch.Tensor], name: str) -> dict[str, Any]:
    """Return the numbers of classes and channels of a state dict, as arguments."""
    config = _library().get_pretrained_cfg(name)
    settings: dict[str, Any] = {}
    for key, axis, argument in (("classifier", 0, "num_classes"), ("first_conv", 1, "in_chans")):
        module = getattr(config, key, None)
        weight = state.get(f"{module}.weight") if isinstance(module, str) else None
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
    """Return one value per channel, or the mean if their number differs from `channels`.

    The mean fits weights that timm converts to other channels by summing the first filters.
    """
    if len(values) in (1, channels):
        return tuple(values)
    return (sum(values) / len(values),)


def _classes(net: nn.Module) -> list[str] | None:
    """Return the names of ImageNet's classes: the first synonym, or more if that is ambiguous."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(net)
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    synonyms, detailed = info.label_descriptions(), info.label_descriptions(detailed=True)
    first = [text.partition(",")[0] for text in synonyms]
    counts = [Counter(names) for names in (first, synonyms, detailed)]
    return [
        next((n for n, count in zip(names, counts, strict=True) if count[n] == 1), names[-1])
        for names in zip(first, synonyms, detailed, strict=True)
    ]
