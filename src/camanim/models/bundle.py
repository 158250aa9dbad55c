"""MONAI bundles: a folder with ``configs/`` that describe a network, and ``models/`` with weights."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camanim.errors import ModelError
from camanim.models import monai
from camanim.models.base import Model, input_of
from camanim.models.building import Untrusted, first_line, seeded
from camanim.models.files import load_into, read_weights

if TYPE_CHECKING:
    from torch import nn


_CONFIGS = [f"{stem}.{end}" for stem in ("inference", "train") for end in ("json", "yaml", "yml")]
_TARGET = re.compile(r"(monai\.networks\.nets\.(\w+\.)?)?(?P<name>\w+)")


class _NeedsCode(Exception):
    """A config that says more than which of MONAI's networks, with which plain values."""


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like a bundle."""
    return any((folder / "configs" / name).is_file() for name in _CONFIGS)


def load(folder: Path, weights: str | Path | None, trust: bool) -> Model:
    """Load a bundle's network.

    A network that is described by plain values is built without running anything of the bundle's. All
    else may be Python code, and is run by MONAI only when it is trusted.
    """
    path = next(p for name in _CONFIGS if (p := folder / "configs" / name).is_file())
    config = _read(path)
    name = f"bundle {folder.name}"
    try:
        net, preprocess = _plain_network(config)
    except _NeedsCode as error:
        if not trust:
            raise Untrusted(folder, f"would run Python code of its own ({error})") from error
        net = _any_network(folder, path)
        channels, dims = input_of(net)
        preprocess = monai.preprocess(net, "", {"in_channels": channels, "spatial_dims": dims})
    if weights is not None:
        file = _weights_file(folder) if weights == "DEFAULT" else Path(weights)
        load_into(net, read_weights(file), file, name)
    model = Model(net, preprocess, name=name)
    _describe(model, folder / "configs" / "metadata.json")
    return model


def _read(path: Path) -> dict[str, Any]:
    from monai.bundle import ConfigParser

    try:
        # JSON or YAML's plain values; nothing is resolved or run here.
        config = ConfigParser.load_config_file(str(path))
    except Exception as error:
        # Each parser has errors of its own, and nesting may exhaust the stack.
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is no configuration of a bundle.")
    return config


def _plain_network(config: dict[str, Any]) -> tuple[nn.Module, Any]:
    definition = config.get("network_def")
    if not isinstance(definition, dict):
        raise _NeedsCode("it has no network_def")
    target = definition.get("_target_")
    match = _TARGET.fullmatch(target) if isinstance(target, str) else None
    if match is None or not monai.knows(match["name"]):
        raise _NeedsCode(f"its network is {target}")
    special = {k for k in definition if str(k).startswith("_")} - {"_target_", "_desc_"}
    if special:
        raise _NeedsCode(f"it uses {special.pop()}")
    arguments = {
        key: _plain(value, config) for key, value in definition.items() if not key.startswith("_")
    }
    net = monai.make(match["name"], arguments)
    return net, monai.preprocess(net, match["name"], arguments)


def _plain(value: Any, config: dict[str, Any], depth: int = 0) -> Any:
    """Follow references to plain values, and stop at all that would be run."""
    if depth > 20:
        raise _NeedsCode("its references go round")
    if isinstance(value, str) and value.startswith(("$", "%")):
        raise _NeedsCode(value[:60])
    if isinstance(value, str) and value.startswith("@"):
        found: Any = config
        for key in re.split("::|#", value[1:]):
            if isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                raise _NeedsCode(f"it refers to {value}")
        return _plain(found, config, depth + 1)
    if isinstance(value, dict):
        if "_target_" in value:
            raise _NeedsCode(f"it makes {value['_target_']}")
        return {k: _plain(v, config, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v, config, depth + 1) for v in value]
    return value


def _any_network(folder: Path, path: Path) -> nn.Module:
    """Let MONAI parse the config, with all the code in it."""
    from monai.bundle import ConfigParser
    from torch import nn

    parser = ConfigParser()
    try:
        with _importable(folder), seeded():
            parser.read_config(str(path))
            parser.config["bundle_root"] = str(folder)
            net = parser.get_parsed_content("network_def")
    except Exception as error:
        # The code in a bundle may raise anything.
        raise ModelError(f"{path} gives no network_def: {first_line(error)}") from error
    if not isinstance(net, nn.Module):
        raise ModelError(f"network_def of {path} is no network, but {type(net).__name__}.")
    return net.eval()


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Bundles import their own modules (``scripts.net``) from their folder."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _weights_file(folder: Path) -> Path:
    names = ("model.safetensors", "model.pt", "model.pth")
    found = (p for name in names if (p := folder / "models" / name).is_file())
    return next(found, folder / "models" / "model.pt")


def _describe(model: Model, metadata: Path) -> None:
    """Take size, channels and classes from the bundle's metadata, as far as they are plain there."""
    from camanim.models.overrides import ModelOverrides

    formats = _dig(_read(metadata) if metadata.is_file() else {}, "network_data_format")
    image, prediction = (
        next(iter(_dig(formats, side).values()), None) for side in ("inputs", "outputs")
    )
    shape: Any = image.get("spatial_shape") if isinstance(image, Mapping) else None
    plain = isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
    names = _dig(prediction, "channel_def")
    ModelOverrides(
        size=shape if plain and len(shape) == model.dims else None, classes=names or None
    ).apply(model)


def _dig(mapping: Any, key: str) -> Mapping[str, Any]:
    value = mapping.get(key) if isinstance(mapping, Mapping) else None
    return value if isinstance(value, Mapping) else {}
