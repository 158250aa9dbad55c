"""Networks from MONAI bundles: folders with a config in ``configs/`` and weights in ``models/``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camanim.errors import ModelError
from camanim.models import monai
from camanim.models.base import Model
from camanim.models.building import LOADS, Untrusted, first_line, loading_argument, seeded
from camanim.models.files import load_into, read_weights
from camanim.models.first_convolution import infer_input

if TYPE_CHECKING:
    from torch import nn


_CONFIGS = [f"{stem}.{end}" for stem in ("inference", "train") for end in ("json", "yaml", "yml")]
#: Largest number of values in the arguments of a network.
_MAX_VALUES = 10_000
_TARGET = re.compile(r"(monai\.networks\.nets\.(\w+\.)?)?(?P<name>\w+)")


class _NeedsCode(Exception):
    """Raised for a config that is not a network of MONAI with plain values."""


def is_bundle(folder: Path) -> bool:
    """Return whether a folder has a config file of a bundle."""
    return any((folder / "configs" / name).is_file() for name in _CONFIGS)


def load(folder: Path, weights: str | Path | None, trust: bool) -> Model:
    """Load the network of a bundle.

    A network of MONAI with plain values as arguments is built without running code of the bundle. Any
    other config may contain Python code, and MONAI runs it only with `trust`; the same holds for
    arguments with which a constructor downloads or reads weights.
    """
    path = next(p for name in _CONFIGS if (p := folder / "configs" / name).is_file())
    config = _read(path)
    name = f"bundle {folder.name}"
    try:
        name_in_monai, arguments = _plain_definition(config)
        if not trust and (argument := loading_argument(arguments)):
            raise Untrusted(folder, LOADS.format(argument))
        net = monai.build_network(name_in_monai, arguments)
        preprocess = monai.preprocess(net, name_in_monai, arguments)
    except _NeedsCode as error:
        if not trust:
            raise Untrusted(folder, f"would run Python code ({error})") from error
        net = _network_from_code(folder, path)
        channels, dims = infer_input(net)
        preprocess = monai.preprocess(net, "", {"in_channels": channels, "spatial_dims": dims})
    if weights is not None:
        file = _weights_file(folder) if weights == "DEFAULT" else Path(weights)
        load_into(net, read_weights(file), file, name)
    model = Model(net, preprocess, name=name)
    _apply_metadata(model, folder / "configs" / "metadata.json")
    return model


def _read(path: Path) -> dict[str, Any]:
    from monai.bundle import ConfigParser

    try:
        # This parses JSON or YAML, and neither resolves references nor runs code.
        config = ConfigParser.load_config_file(str(path))
    except Exception as error:
        # The parsers raise different errors, and deep nesting a RecursionError.
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a configuration of a bundle.")
    return config


def _plain_definition(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments of a network of MONAI, and raise `_NeedsCode` at code."""
    definition = config.get("network_def")
    if not isinstance(definition, dict):
        raise _NeedsCode("it has no network_def")
    target = definition.get("_target_")
    match = _TARGET.fullmatch(target) if isinstance(target, str) else None
    if match is None or not monai.has_network(match["name"]):
        raise _NeedsCode(f"its network is {target}")
    special = {k for k in definition if str(k).startswith("_")} - {"_target_", "_desc_"}
    if special:
        raise _NeedsCode(f"it uses {special.pop()}")
    counter = count(1)
    arguments = {
        key: _plain(value, config, counter)
        for key, value in definition.items()
        if not key.startswith("_")
    }
    return match["name"], arguments


def _plain(value: Any, config: dict[str, Any], counter: count[int], depth: int = 0) -> Any:
    """Return a value with its references resolved, and raise `_NeedsCode` at code."""
    if depth > 20:
        raise _NeedsCode("its references are circular")
    if next(counter) > _MAX_VALUES:
        # References to references may grow without bounds.
        raise ModelError(f"The network of the bundle has more than {_MAX_VALUES} arguments.")
    if isinstance(value, str) and value.startswith(("$", "%")):
        raise _NeedsCode(value[:60])
    if isinstance(value, str) and value.startswith("@"):
        target: Any = config
        for key in re.split("::|#", value[1:]):
            if isinstance(target, list) and key.isdigit() and int(key) < len(target):
                target = target[int(key)]
            elif isinstance(target, dict) and key in target:
                target = target[key]
            else:
                raise _NeedsCode(f"it refers to {value}")
        return _plain(target, config, counter, depth + 1)
    if isinstance(value, dict):
        if "_target_" in value:
            raise _NeedsCode(f"it constructs {value['_target_']}")
        return {k: _plain(v, config, counter, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v, config, counter, depth + 1) for v in value]
    return value


def _network_from_code(folder: Path, path: Path) -> nn.Module:
    """Return the network that MONAI builds from the config, which runs the code in it."""
    from monai.bundle import ConfigParser
    from torch import nn

    parser = ConfigParser()
    try:
        with _importable(folder), seeded():
            parser.read_config(str(path))
            parser.config["bundle_root"] = str(folder)
            net = parser.get_parsed_content("network_def")
    except (Exception, SystemExit) as error:
        # The code in a bundle may raise any exception, and call sys.exit.
        raise ModelError(f"network_def of {path} cannot be built: {first_line(error)}") from error
    if not isinstance(net, nn.Module):
        raise ModelError(f"network_def of {path} must be a network, not {type(net).__name__}.")
    return net.eval()


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Make the modules in a bundle's folder importable, such as ``scripts.net``."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _weights_file(folder: Path) -> Path:
    names = ("model.safetensors", "model.pt", "model.pth")
    paths = (p for name in names if (p := folder / "models" / name).is_file())
    return next(paths, folder / "models" / "model.pt")


def _apply_metadata(model: Model, metadata: Path) -> None:
    """Set the size and classes of a model from the bundle's metadata, where they are plain values."""
    from camanim.models.overrides import ModelOverrides

    formats = _entries(_read(metadata) if metadata.is_file() else {}, "network_data_format")
    image, prediction = (
        next(iter(_entries(formats, side).values()), None) for side in ("inputs", "outputs")
    )
    shape: Any = image.get("spatial_shape") if isinstance(image, Mapping) else None
    plain = isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
    names = _entries(prediction, "channel_def")
    ModelOverrides(
        size=shape if plain and len(shape) == model.dims else None, classes=names or None
    ).apply(model)


def _entries(mapping: Any, key: str) -> Mapping[str, Any]:
    """Return ``mapping[key]`` if both are mappings, and an empty mapping otherwise."""
    value = mapping.get(key) if isinstance(mapping, Mapping) else None
    return value if isinstance(value, Mapping) else {}
