"""Load models from any source: `load_model` and `list_models`."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from camanim.errors import ModelError
from camanim.models import bundle, card, export, script
from camanim.models.base import Model, Outputs
from camanim.models.building import LOADS, Untrusted, loading_argument, parse_arguments
from camanim.models.classes import Classes
from camanim.models.files import load_into, read_weights
from camanim.models.names import PREFIXES, has_prefix, published_name
from camanim.models.overrides import ModelOverrides
from camanim.progress import Progress, silent

if TYPE_CHECKING:
    import torch
    from torch import nn


# A prefix is the name of a module here, which has `load`, `has_network`, and either `NAMES` or, where
# the list needs an import of its library, `names()`.
_SOURCES = {prefix: import_module(f"{__package__}.{prefix}") for prefix in PREFIXES}
_SCRIPT = re.compile(r"(?P<path>.+\.py)(:(?P<function>\w+))?", re.DOTALL)
_WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")


def list_models(source: str | None = None) -> list[str]:
    """Return the names of networks that `load_model` takes.

    Parameters
    ----------
    source : {"demo", "torchvision", "monai", "timm"}, optional
        Source to list; by default all but timm, whose list needs an import of timm.

    Returns
    -------
    list of str
        ``demo/ultrasound``, then ``torchvision/...``, then ``monai/...``.

    Raises
    ------
    ModelError
        If the source does not exist, or timm is not installed.
    """
    if source is not None and source not in _SOURCES:
        raise ModelError(f"There is no source {source!r}: the sources are {', '.join(_SOURCES)}.")
    if source is not None:
        module = _SOURCES[source]
        names = module.names() if hasattr(module, "names") else module.NAMES
        return [f"{source}/{name}" for name in names]
    listed = {prefix: getattr(module, "NAMES", ()) for prefix, module in _SOURCES.items()}
    return [f"{prefix}/{name}" for prefix, names in listed.items() for name in names]


def load_model(
    source: str | Path | Model | nn.Module,
    weights: str | Path | None = "DEFAULT",
    *,
    classes: Classes | None = None,
    size: int | Sequence[int] | str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    channels: int | None = None,
    outputs: Outputs | None = None,
    device: str | torch.device | None = None,
    trust: bool = False,
    progress: Progress = silent,
) -> Model:
    """Load a network with its preprocessing and the names of its classes.

    Parameters
    ----------
    source : str, path, Model or torch.nn.Module
        - ``torchvision/NAME``: classifiers, segmentation, detection, video (volumes).
        - ``monai/NAME?spatial_dims=2&in_channels=1&out_channels=3``: a network of MONAI with
          arguments.
        - ``timm/NAME``, or ``timm/NAME?in_chans=1``, if timm is installed.
        - ``demo/ultrasound``.
        - The folder of a MONAI bundle.
        - ``file.pt2``, an archive of ``torch.export`` (with `trust`).
        - ``file.py:build``, a function that returns a network or a `Model` (with `trust`).
        - ``card.toml``, from `Model.save_card`.
        - A network or a `Model`, which is not modified.
    weights : str, path or None
        - ``"DEFAULT"``: the weights that the source publishes or contains; random for ``monai/``.
        - Another name of weights of torchvision, such as ``"IMAGENET1K_V1"``.
        - A file with a state dict: ``.safetensors``, or a file of ``torch.save``.
        - None: reproducible random weights.
    classes : sequence of str, mapping or path, optional
        See `Model`.
    size : int, sequence of int or "native", optional
        Size of the network's input; ``"native"`` keeps the size of the image. By default that of the
        source.
    mean, std, channels : optional
        See `Preprocess`.
    outputs : {"auto", "softmax", "sigmoid", "values", "probabilities"}, optional
        See `Model`.
    device : str or torch.device, optional
        Device of the network; by default the CPU, or the current device of a given network.
    trust : bool
        Allow sources that run Python code (``.py``, ``.pt2``, and bundles unless they describe a network
        of MONAI by plain values), arguments with which MONAI downloads or reads weights
        (``pretrained``, ``pretrained_url``), and cards that refer to files outside of their folder.
    progress : Progress
        Called with the bytes of a download. An exception in it stops the download and leaves no file.

    Returns
    -------
    Model
        In evaluation mode, unless `source` is an object.

    Raises
    ------
    Untrusted
        A `ModelError`, if this is required and `trust` is False.
    ModelError
        If the network does not exist, or its weights cannot be loaded or do not fit.
    """
    overrides = ModelOverrides(
        classes=classes, size=size, mean=mean, std=std, channels=channels, outputs=outputs
    )
    if isinstance(source, str | Path):
        if str(source).lower().endswith(".toml"):
            path = Path(source)
            source, card_weights, settings = card.read_card(path, trust=trust)
            weights = card_weights if weights == "DEFAULT" else weights
            try:
                overrides = overrides.over(ModelOverrides(**settings))
                model = _from_text(source, weights, trust, progress)
                overrides.apply(model)
            except ModelError as error:
                # The user opened the card, and has to correct it.
                error.args = (f"{path}: {error}",)
                raise
        else:
            model = _from_text(str(source), weights, trust, progress)
            overrides.apply(model)
    else:
        model = _from_object(source, weights)
        overrides.apply(model)
    return model if device is None else model.to(device)


def _from_object(source: Model | nn.Module, weights: str | Path | None) -> Model:
    """Return a new `Model` of a network; with weights, of a copy of the network."""
    model = copy.copy(source) if isinstance(source, Model) else Model(source)
    if weights is not None and weights != "DEFAULT":
        model.net, model._hash = copy.deepcopy(model.net), None
        load_into(model.net, read_weights(weights), weights, model.name)
        # Of other weights, nothing is known.
        model.mark_random(False)
        model.domain = ""
        model.weights = Path(weights).absolute()
    return model


def _from_text(text: str, weights: str | Path | None, trust: bool, progress: Progress) -> Model:
    if has_prefix(text):
        model = _from_name(text, weights, trust, progress)
    else:
        model, text = _from_path(text, weights, trust)
    model.source = text
    # A file of Python code or an exported program brings its weights, and MONAI publishes none.
    if has_prefix(text) or bundle.is_bundle(Path(text)):
        unpublished = weights == "DEFAULT" and text.startswith("monai/")
        model.mark_random(weights is None or unpublished)
    model.weights = (
        weights if weights is None or published_name(weights) else Path(weights).absolute()
    )
    return model


def _from_name(text: str, weights: str | Path | None, trust: bool, progress: Progress) -> Model:
    prefix, _, rest = text.partition("/")
    name, _, query = rest.partition("?")
    source = _SOURCES[prefix]
    if not source.has_network(name):
        raise _unknown_network(text)
    arguments = parse_arguments(query)
    if prefix == "monai" and not trust and (argument := loading_argument(arguments)):
        raise Untrusted(text, LOADS.format(argument))
    model: Model = source.load(name, arguments, weights, progress)
    return model


def _from_path(text: str, weights: str | Path | None, trust: bool) -> tuple[Model, str]:
    """Load a file or a folder, and return the model and the absolute path."""
    path = Path(text).absolute()
    if match := _SCRIPT.fullmatch(text):
        path, function = Path(match["path"]).absolute(), match["function"] or "build"
        return script.load(path, function, weights, trust), f"{path}:{function}"
    if path.suffix.lower() == ".pt2":
        return export.load(path, weights, trust), str(path)
    if text and bundle.is_bundle(path):
        return bundle.load(path, weights, trust), str(path)
    if path.suffix.lower() in _WEIGHTS:
        if path.is_file():
            # A file of TorchScript, or with a whole network, is refused for that reason.
            read_weights(path)
        raise ModelError(
            f"{path.name} holds weights, not a network: pass the network as source, with "
            f"weights={text!r}."
        )
    raise _unknown_network(text)


def _unknown_network(text: str) -> ModelError:
    name = text.partition("?")[0]
    prefix = name.partition("/")[0]
    imported = prefix in PREFIXES and not hasattr(_SOURCES[prefix], "NAMES")
    names = list_models(prefix if imported else None)
    # A correct name without its prefix is more likely than a misspelt one.
    near = [other for other in names if name and other.endswith(f"/{name}")]
    near = near or get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return ModelError(f"There is no network {text!r}.{hint}")
