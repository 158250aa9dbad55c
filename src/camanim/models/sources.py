"""The one door: what a user names becomes a `Model`. Each source has a file of its own."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from camanim.errors import ModelError
from camanim.models import bundle, card, demo, export, monai, script, timm, torchvision
from camanim.models.base import Model, Outputs
from camanim.models.building import arguments_of
from camanim.models.classes import Classes
from camanim.models.names import has_prefix, published_name
from camanim.models.overrides import ModelOverrides
from camanim.progress import Progress, silent

if TYPE_CHECKING:
    import torch
    from torch import nn


_SOURCES = {"demo": demo, "torchvision": torchvision, "monai": monai, "timm": timm}
_SCRIPT = re.compile(r"(?P<path>.+\.py)(:(?P<function>\w+))?", re.DOTALL)
_WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")


def list_models(source: str | None = None) -> list[str]:
    """List what `load_model` knows by name.

    Parameters
    ----------
    source : {"demo", "torchvision", "monai", "timm"}, optional
        One source only. timm's thousand networks are listed only when asked for, as that imports timm.

    Returns
    -------
    list of str
        ``demo/ultrasound``, then ``torchvision/...``, then ``monai/...``.

    Raises
    ------
    ModelError
        When there is no such source, or timm is not installed.
    """
    if source is not None and source not in _SOURCES:
        raise ModelError(f"There is no source {source!r}: there are {', '.join(_SOURCES)}.")
    wanted = _SOURCES if source is None else [source]
    return [f"{prefix}/{name}" for prefix in wanted for name in _names(prefix, source)]


def _names(prefix: str, asked_for: str | None) -> Sequence[str]:
    if prefix == "timm" and asked_for == "timm":
        return timm.names()
    names: Sequence[str] = _SOURCES[prefix].NAMES
    return names


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
    """Load a network with its preprocessing and its classes.

    Parameters
    ----------
    source : str, path, Model or torch.nn.Module
        - ``torchvision/NAME``: classifiers, segmentation, detection, video (volumes).
        - ``monai/NAME?spatial_dims=2&in_channels=1&out_channels=3``: MONAI's networks with their
          arguments.
        - ``timm/NAME``, or ``timm/NAME?in_chans=1``, where timm is installed.
        - ``demo/ultrasound``.
        - A folder that is a MONAI bundle.
        - ``file.pt2``, an archive of ``torch.export`` (with `trust`).
        - ``file.py:build``, a function that returns a network or a `Model` (with `trust`).
        - ``card.toml``, from `Model.save_card`.
        - A network, or a `Model`, which stay as they are.
    weights : str, path or None
        ``"DEFAULT"``: what the source publishes, or has in it; random for MONAI's networks. Another
        name of torchvision's for its weights. A file with a state dict (``.safetensors``, or ``.pth``
        with ``weights_only``). None: random weights, which are the same every time.
    classes : sequence of str, mapping or path, optional
        See `Model`.
    size : int, sequence of int or "native", optional
        Of the network's input, instead of the source's; ``"native"`` is the image's own.
    mean, std, channels : optional
        See `Preprocess`.
    outputs : {"auto", "softmax", "sigmoid", "values"}, optional
        See `Model`.
    device : str or torch.device, optional
        Where the network goes; the CPU, or where it is, by default.
    trust : bool
        Allow what runs Python code from files: ``.py``, ``.pt2``, and bundles that are more than one
        of MONAI's networks with plain values.
    progress : Progress
        Told the bytes of a download; raising in it leaves no file.

    Returns
    -------
    Model
        In evaluation mode, if it was loaded here.

    Raises
    ------
    Untrusted
        A `ModelError`: when code would be run, and `trust` is False.
    ModelError
        When there is no such network, or its weights cannot be had or do not fit.
    """
    changes = ModelOverrides(
        classes=classes, size=size, mean=mean, std=std, channels=channels, outputs=outputs
    )
    if isinstance(source, str | Path):
        if str(source).lower().endswith(".toml"):
            path = Path(source)
            source, from_card, settings = card.read_card(path)
            weights = from_card if weights == "DEFAULT" else weights
            try:
                changes = changes.over(ModelOverrides(**settings))
                model = _by_text(source, weights, trust, progress)
                changes.apply(model)
            except ModelError as error:
                # The card is what the user opened, and what has to be mended.
                error.args = (f"{path}: {error}",)
                raise
        else:
            model = _by_text(str(source), weights, trust, progress)
            changes.apply(model)
    else:
        model = _by_object(source, weights)
        changes.apply(model)
    return model if device is None else model.to(device)


def _by_object(source: Model | nn.Module, weights: str | Path | None) -> Model:
    """Take a network as it is; the caller's stays what it was."""
    from camanim.models.files import load_into, read_weights

    model = copy.copy(source) if isinstance(source, Model) else Model(source)
    if weights is not None and weights != "DEFAULT":
        model.net, model._hash = copy.deepcopy(model.net), None
        load_into(model.net, read_weights(weights), weights, model.name)
        model.weights = Path(weights).absolute()
    return model


def _by_text(text: str, weights: str | Path | None, trust: bool, progress: Progress) -> Model:
    if has_prefix(text):
        model = _by_name(text, weights, progress)
    else:
        model, text = _by_path(text, weights, trust)
    model.source = text
    model.weights = (
        weights if weights is None or published_name(weights) else Path(weights).absolute()
    )
    return model


def _by_name(text: str, weights: str | Path | None, progress: Progress) -> Model:
    prefix, _, rest = text.partition("/")
    name, _, query = rest.partition("?")
    source = _SOURCES[prefix]
    if not source.knows(name):
        raise _unknown(text)
    model: Model = source.load(name, arguments_of(query), weights, progress)
    return model


def _by_path(text: str, weights: str | Path | None, trust: bool) -> tuple[Model, str]:
    """Load what is a file or a folder; its absolute path comes along."""
    path = Path(text).absolute()
    if match := _SCRIPT.fullmatch(text):
        path, function = Path(match["path"]).absolute(), match["function"] or "build"
        return script.load(path, function, weights, trust), f"{path}:{function}"
    if path.suffix == ".pt2":
        return export.load(path, weights, trust), str(path)
    if text and bundle.is_bundle(path):
        return bundle.load(path, weights, trust), str(path)
    if path.suffix in _WEIGHTS:
        raise ModelError(
            f"{path.name} holds weights, not a network: say which network, and pass weights={text!r}."
        )
    raise _unknown(text)


def _unknown(text: str) -> ModelError:
    name = text.partition("?")[0]
    known = list_models("timm" if name.startswith("timm/") else None)
    # The right name without its source, or else something like it.
    near = [other for other in known if name and other.endswith(f"/{name}")]
    near = near or get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return ModelError(f"There is no network {text!r}.{hint}")
