"""The layers that a figure shows, and the names of results."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from camanim.errors import LayerError, LayerIndexError
from camanim.layer_info import LayerInfo
from camanim.result import Result
from camanim.words import short_value


def percentile(count: int, share: float) -> int:
    """Return the index of the layer at a percentile of the depth.

    Parameters
    ----------
    count : int
        Number of layers.
    share : float
        0 is the first layer, 100 the last.
    """
    return round(share / 100 * (count - 1))


def percentiles(count: int, step: float) -> list[tuple[float, int]]:
    """Return percentiles from 0 to 100 with their layers, in steps, each layer once.

    The last layer is always one of them.
    """
    shares = [k * step for k in range(int(100 / step + 1e-9) + 1)]
    if shares[-1] < 100:
        shares.append(100.0)
    by_layer: dict[int, float] = {}
    for share in shares:
        by_layer.setdefault(percentile(count, share), share)
    # In a network of few layers, the last percentile is that of the last layer.
    by_layer[count - 1] = 100.0
    return [(share, i) for i, share in sorted(by_layer.items())]


def pick(layers: Sequence[LayerInfo], picked: Any, default: Sequence[str] = ()) -> list[int]:
    """Return the indices of picked layers.

    Parameters
    ----------
    layers : sequence of LayerInfo
    picked : str, int, or sequence of them
        Names or labels, indices from 0 on, percentiles of the depth such as ``"50%"``; a text may list
        several, separated by commas.
    default : sequence of str
        Used if nothing is picked.

    Raises
    ------
    LayerError
        If a layer does not exist.
    """
    return list(dict.fromkeys(_index(layers, item) for item in _items(picked, default)))


def pick_in_each(
    networks: Sequence[Sequence[LayerInfo]], picked: Any, default: Sequence[str] = ()
) -> list[tuple[str, list[int]]]:
    """Return a heading for each picked layer, with its index in each of several networks.

    A network of few layers may have one of them several times. What is the same in all networks is one.

    Parameters
    ----------
    networks : sequence of sequences of LayerInfo
        Layers of each network.
    picked, default
        As for `pick`.

    Raises
    ------
    LayerError
        If a layer does not exist.
    """
    found: dict[tuple[int, ...], str] = {}
    for item in _items(picked, default):
        indices = tuple(_index(layers, item) for layers in networks)
        found.setdefault(indices, _heading(item))
    return [(heading, list(indices)) for indices, heading in found.items()]


def _items(picked: Any, default: Sequence[str]) -> list[str | int]:
    items = picked.split(",") if isinstance(picked, str) else picked
    items = [items] if isinstance(items, int) else list(items)
    items = [item.strip() if isinstance(item, str) else item for item in items]
    return [item for item in items if item != ""] or list(default)


def _heading(item: str | int) -> str:
    if isinstance(item, str) and item.endswith("%") and _is_number(item[:-1]):
        return f"{float(item[:-1]):g} %"
    return f"layer {item}" if str(item).lstrip("-").isdecimal() else str(item)


def without_repeats(indices: Sequence[int]) -> list[int | None]:
    """Return indices with None in place of repeats: each is where it is first, the last one at the end.

    So the final layer of a network of few layers is at 100 %, not also at 75 %.
    """
    *others, last = indices
    return [None if i in others[:k] or i == last else i for k, i in enumerate(others)] + [last]


def _index(layers: Sequence[LayerInfo], item: str | int) -> int:
    if not layers:
        raise LayerError("The result has no map: select layers with a map.")
    names = [layer.label for layer in layers]
    if isinstance(item, str):
        if item in names:
            return names.index(item)
        if item.endswith("%") and _is_number(item[:-1]) and 0 <= float(item[:-1]) <= 100:
            return percentile(len(layers), float(item[:-1]))
        if not item.lstrip("-").isdecimal():
            near = get_close_matches(item, names, n=3, cutoff=0.4)
            hint = (
                f"did you mean {', '.join(near)}?" if near else "see Result.layers for their names."
            )
            raise LayerError(f"There is no map of a layer {item!r}: {hint}")
        item = int(item)
    if not -len(layers) <= item < len(layers):
        raise LayerIndexError(
            f"Layer {item} is out of range: the layers are 0 to {len(layers) - 1}."
        )
    return range(len(layers))[item]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def all_layers(results: Sequence[Result]) -> list[LayerInfo]:
    """Return the layers with a map in any of several results of one network, in order of execution."""
    by_label = {layer.label: layer for result in results for layer in result.layers}
    return sorted(by_label.values(), key=lambda layer: layer.index)


def index_of(result: Result, label: str) -> int | None:
    """Return the index of the map of a layer; None without a map."""
    return next((i for i, layer in enumerate(result.layers) if layer.label == label), None)


def why_no_map(result: Result, label: str) -> str:
    """Return the status of a layer without a map."""
    statuses = [call.status for call in result.layer_calls if call.label == label]
    return statuses[0] if statuses else "no such layer"


# -- Names of results ------------------------------------------------------------------------------


def network_of(result: Result) -> str:
    """Return the name of the network, or an empty string."""
    return str(result.provenance.get("model") or "")


def short_network(name: str) -> str:
    """Return the name of a network without its source: ``resnet50`` of ``torchvision/resnet50``."""
    return name.rpartition("/")[2] or name


def value_of(result: Result, *, word: bool = True) -> str:
    """Return the target's probability or score, such as ``probability 0.59``."""
    number = short_value(float(result.probability))
    return f"{result.target.unit} {number}" if word else number


def names_of(results: Sequence[Result]) -> list[str]:
    """Return names that tell results apart: their networks, methods or classes where these differ."""
    parts = {
        "network": [short_network(network_of(result)) for result in results],
        "method": [result.method for result in results],
        "class": [result.target.name for result in results],
    }
    varying = {key: values for key, values in parts.items() if len(set(values)) > 1}
    if "network" in varying and len(set(varying["network"])) == len(results):
        # Each network may have another likeliest class.
        varying = {"network": varying["network"]}
    names = [", ".join(values) for values in zip(*varying.values(), strict=True)]
    if len(set(names)) < len(results):
        names = names or [results[0].method] * len(results)
        names = [f"{name} ({k})" for k, name in enumerate(names, 1)]
    return names
