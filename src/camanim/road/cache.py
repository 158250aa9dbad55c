"""Caches: inference settings per machine and network in a file, values of images in memory.

Benchmarks vary from run to run, and rounding depends on the selected settings. The selection is stored,
so that the same call returns identical numbers.
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
from camanim.road.imputation import is_builtin
from camanim.road.inference_settings import InferenceOverrides, InferenceSettings
from camanim.road.plan import Key
from camanim.writing import complete_or_absent

if TYPE_CHECKING:
    from camanim.models import Model

#: Environment variable with the folder of the file; by default the user's cache folder.
CACHE_VARIABLE = "CAMANIM_CACHE"
#: Maximum number of records in the file.
MAX_RECORDS = 500
#: Maximum number of value sets per network, each for one image, target and inference settings.
MAX_VALUE_SETS = 16

Values = dict[Key, float]


def settings_key(net: nn.Module, tensor: torch.Tensor, overrides: InferenceOverrides) -> str:
    """Return a hash of all that the benchmark depends on: processor, threads, torch, network, input."""
    device = tensor.device
    parts = [
        platform.node(),
        platform.processor() or platform.machine(),
        torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        torch.get_num_threads(),
        torch.__version__,
        tuple(tensor.shape),
        tensor.dtype,
        overrides,
        # Addresses of functions differ between processes.
        re.sub(r" at 0x[0-9a-f]+", "", repr(net)),
        [tuple(p.shape) for p in net.parameters()],
    ]
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def load_settings(key: str) -> InferenceSettings | None:
    """Return the stored settings; None if the record is missing or invalid."""
    try:
        records = json.loads(_file().read_text(encoding="utf-8"))
        return InferenceOverrides(**records[key]).apply_to(InferenceSettings())
    except (OSError, ValueError, KeyError, TypeError, ScoreError):
        return None


def save_settings(key: str, settings: InferenceSettings) -> None:
    """Store settings in the file; do nothing if the folder is not writable."""
    path = _file()
    with suppress(OSError, RenderError):
        path.parent.mkdir(parents=True, exist_ok=True)
        records: Any = {}
        with suppress(OSError, ValueError):
            records = json.loads(path.read_text(encoding="utf-8"))
        # A file with invalid content is replaced.
        records = records if isinstance(records, dict) else {}
        records = dict(list(records.items())[-MAX_RECORDS:])
        with complete_or_absent(path) as partial:
            partial.write_text(json.dumps({**records, key: asdict(settings)}, indent=1), "utf-8")


def _file() -> Path:
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE]) / "inference_settings.json"
    import pooch

    return Path(pooch.os_cache("camanim")) / "inference_settings.json"


_value_sets: WeakKeyDictionary[nn.Module, OrderedDict[Hashable, Values]] = WeakKeyDictionary()


def cached_values(
    model: Model, image: torch.Tensor, target: Any, imputer: Any, about: tuple[Hashable, ...]
) -> Values:
    """Return the values predicted before, as a dictionary to read and extend.

    Values are not cached for models with further inputs, for user-defined imputers, or for targets with
    other than plain values: their changes could not be detected.

    Parameters
    ----------
    model : Model
    image : torch.Tensor
        (1, C, *S)
    target, imputer
    about : tuple
        Everything else that a value depends on, except the mask and the seed.
    """
    if model.extra_inputs or not is_builtin(imputer) or not _is_plain(target):
        return {}
    net = model.forward().net
    key = (
        model.weights_hash(),
        _non_persistent_buffers_hash(net),
        blake2b(image.float().cpu().numpy().tobytes(), digest_size=16).digest(),
        (tuple(image.shape), str(image.dtype), str(image.device)),
        (type(target), _as_hashable(target)),
        imputer,
        *about,
    )
    sets = _value_sets.setdefault(net, OrderedDict())
    # Moved to the end: the least recently used set is evicted first.
    values = sets.pop(key, {})
    sets[key] = values
    while len(sets) > MAX_VALUE_SETS:
        sets.popitem(last=False)
    return values


def _non_persistent_buffers_hash(net: nn.Module) -> bytes:
    """Return a hash of the buffers that are not part of the state dictionary."""
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


def _as_hashable(value: Any) -> Hashable:
    """Return a plain value as nested tuples."""
    if is_dataclass(value):
        return tuple(_as_hashable(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, tuple):
        return tuple(_as_hashable(item) for item in value)
    hashable: Hashable = value
    return hashable
