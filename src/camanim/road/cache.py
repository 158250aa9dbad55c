"""What was found once: forms per machine and network, in a file; values of images, in memory.

A measurement may choose another form every time, and another form rounds otherwise. What it chose is
therefore kept, so that the same call gives the same numbers to the bit.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from camanim.errors import RenderError, ScoreError
from camanim.road.imputation import is_own
from camanim.road.inference_settings import InferenceOverrides, InferenceSettings
from camanim.road.plan import Key
from camanim.writing import complete_or_absent

if TYPE_CHECKING:
    from camanim.models import Model

#: Environment variable with the folder for the file, instead of the user's cache.
FOLDER = "CAMANIM_CACHE"
#: ConfiguredNetworks that the file keeps.
NAMES = 500
#: Sets of values that are kept per network, each of one image, target and form.
SETS = 16

Values = dict[Key, float]


def machine_and_network(net: nn.Module, tensor: torch.Tensor, wish: InferenceOverrides) -> str:
    """Name all that a measurement depends on: processor, threads, torch, network and input."""
    device = tensor.device
    parts = [
        platform.node(),
        platform.processor() or platform.machine(),
        torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        torch.get_num_threads(),
        torch.__version__,
        tuple(tensor.shape),
        tensor.dtype,
        wish,
        # Without the addresses of functions, which are others in every process.
        re.sub(r" at 0x[0-9a-f]+", "", repr(net)),
        [tuple(p.shape) for p in net.parameters()],
    ]
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def recall_form(name: str) -> InferenceSettings | None:
    """Give the form that was chosen before; None where there is none."""
    try:
        known = json.loads(_file().read_text(encoding="utf-8"))
        return InferenceOverrides(**known[name]).on(InferenceSettings())
    except (OSError, ValueError, KeyError, TypeError, ScoreError):
        # There is no file, or no such name in it, or something else wrote it.
        return None


def remember_form(name: str, form: InferenceSettings) -> None:
    """Keep a form; without a place to write it, it is measured again next time."""
    path = _file()
    with suppress(OSError, RenderError):
        path.parent.mkdir(parents=True, exist_ok=True)
        known: Any = {}
        with suppress(OSError, ValueError):
            known = json.loads(path.read_text(encoding="utf-8"))
        # Whatever else a spoilt file holds is given up.
        known = known if isinstance(known, dict) else {}
        known = dict(list(known.items())[-NAMES:])
        with complete_or_absent(path) as partial:
            partial.write_text(json.dumps({**known, name: asdict(form)}, indent=1), "utf-8")


def _file() -> Path:
    if FOLDER in os.environ:
        return Path(os.environ[FOLDER]) / "forms.json"
    import pooch

    return Path(pooch.os_cache("camanim")) / "forms.json"


_known: WeakKeyDictionary[nn.Module, OrderedDict[Hashable, Values]] = WeakKeyDictionary()


def known_values(
    model: Model, image: torch.Tensor, target: Any, imputer: Any, about: tuple[Hashable, ...]
) -> Values:
    """Give the values that a network gave before, to be looked up and added to.

    Parameters
    ----------
    model : Model
        One with further inputs is always asked again: they are too many things to compare.
    image : torch.Tensor
        (1, C, *S)
    target, imputer
        Those that hold more than plain values, or are not our own, can change unseen: with them the
        network is always asked again, too.
    about : tuple
        All else that a value depends on, but the mask and the seed.
    """
    if model.extra_inputs or not is_own(imputer) or not _is_plain(target):
        return {}
    net = model.forward().net
    key = (
        model.weights_hash(),
        _further_buffers(net),
        blake2b(image.float().cpu().numpy().tobytes(), digest_size=16).digest(),
        (tuple(image.shape), str(image.dtype), str(image.device)),
        (type(target), _facts(target)),
        imputer,
        *about,
    )
    sets = _known.setdefault(net, OrderedDict())
    values = sets.pop(key, {})
    # The latest stands last; the first to go is the one that was not asked for longest.
    sets[key] = values
    while len(sets) > SETS:
        sets.popitem(last=False)
    return values


def _further_buffers(net: nn.Module) -> bytes:
    """Hash the buffers that are no part of the weights."""
    digest = blake2b(digest_size=16)
    for module in net.modules():
        for name in sorted(module._non_persistent_buffers_set):
            buffer = module._buffers.get(name)
            if buffer is not None:
                digest.update(buffer.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()


def _is_plain(value: Any) -> bool:
    if is_dataclass(value):
        return all(_is_plain(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, str | int | float | bool)


def _facts(value: Any) -> Hashable:
    """Give a plain value's parts."""
    if is_dataclass(value):
        return tuple(_facts(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, tuple):
        return tuple(_facts(item) for item in value)
    hashable: Hashable = value
    return hashable
