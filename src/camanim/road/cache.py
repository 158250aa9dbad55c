"""Caches: inference settings per machine and network in a file, values of images in memory.

Benchmarks vary from run to run, and rounding depends on the selected settings. The selection is stored,
so that the same call returns identical numbers.
"""

from __future__ import annotations

import json
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
from filelock import FileLock
from torch import nn

from camanim.cache_folder import cache_folder
from camanim.errors import RenderError, ScoreError
from camanim.road.imputation import is_builtin
from camanim.road.inference_settings import BATCH_SIZES, InferenceOverrides, InferenceSettings
from camanim.road.plan import Key
from camanim.writing import write_file

if TYPE_CHECKING:
    from camanim.models import Model

#: Maximum number of records in the file.
MAX_RECORDS = 500
#: Size of a file in bytes above which it is not one of this module.
MAX_BYTES = 1_000_000
#: Seconds to wait for another process that writes the file.
LOCK_TIMEOUT = 10
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


def load_settings(key: str, overrides: InferenceOverrides) -> InferenceSettings | None:
    """Return the stored settings; None if there are none, or the benchmark cannot have selected them."""
    return _settings_of(_records().get(key), overrides)


def save_settings(
    key: str,
    settings: InferenceSettings,
    overrides: InferenceOverrides,
    replaced: InferenceSettings | None = None,
) -> InferenceSettings:
    """Store settings in the file, and return those to use.

    Parameters
    ----------
    key : str
    settings : InferenceSettings
    overrides : InferenceOverrides
    replaced : InferenceSettings, optional
        Stored settings that are invalid for this network.

    Returns
    -------
    InferenceSettings
        Those that another process has stored in the meantime, else `settings`.
    """
    path = _file()
    # Without a writable folder, or if another process holds the lock, nothing is stored.
    with suppress(OSError, RenderError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT):
            records = _records()
            stored = _settings_of(records.pop(key, None), overrides)
            if stored is not None and stored != replaced:
                return stored
            recent = dict(list(records.items())[-MAX_RECORDS:])
            text = json.dumps({**recent, key: asdict(settings)}, indent=1)
            write_file(path, text.encode())
    return settings


def _records() -> dict[str, Any]:
    """Return the content of the file; empty if there is none or it is damaged."""
    path = _file()
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return {}
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return records if isinstance(records, dict) else {}


def _settings_of(record: Any, overrides: InferenceOverrides) -> InferenceSettings | None:
    names = {field.name for field in fields(InferenceSettings)}
    if not isinstance(record, dict) or set(record) != names:
        return None
    try:
        InferenceOverrides(**record)
    except (TypeError, ScoreError):
        return None
    # Of another type, such as 8.0 or True, if it was edited.
    if type(record["batch_size"]) is not int:
        return None
    settings = InferenceSettings(**record)
    if overrides.apply_to(settings) != settings:
        return None
    is_selectable = overrides.batch_size is not None or settings.batch_size in BATCH_SIZES
    return settings if is_selectable else None


def _file() -> Path:
    return cache_folder() / "inference_settings.json"


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
