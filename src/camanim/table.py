"""The layers as a table: one row for each call of each module, also for those without a map."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camanim.layer_info import LayerInfo, Status
from camanim.writing import cannot_write, checked_path, complete_or_absent

if TYPE_CHECKING:
    from camanim.animation import Animation


def rows(animation: Animation) -> list[dict[str, Any]]:
    """List every call of every module; see `Animation.table`."""
    shown = {layer.index: i for i, layer in enumerate(animation.layers)}
    labels = {layer.index: layer.label for layer in animation.layer_calls}
    return [
        _row(animation, layer, shown.get(layer.index), labels) for layer in animation.layer_calls
    ]


def _row(
    animation: Animation, layer: LayerInfo, i: int | None, labels: dict[int, str]
) -> dict[str, Any]:
    status = layer.status
    if status == Status.NOT_SELECTED and layer.same_as is not None:
        status = f"same as {labels[layer.same_as]}"
    row: dict[str, Any] = {
        "index": layer.index,
        "name": layer.name,
        "call": layer.call,
        "kind": layer.kind,
        "output shape": None if layer.shape is None else "x".join(map(str, layer.shape)),
        "layout": layer.layout or None,
        "parameters": layer.parameters,
        "status": status,
        "raw min": None,
        "raw max": None,
        "milliseconds": None,
    }
    if i is not None:
        row["raw min"] = float(animation.maps[i].min())
        row["raw max"] = float(animation.maps[i].max())
        row["milliseconds"] = round(layer.milliseconds, 3)
    measured = {
        label: None if i is None else _number(found.values[i])
        for label, found in animation.measures.items()
    }
    judged = _road(animation, i) | measured | _localisation(animation, i)
    return row | judged | _checks(animation, i)


def _road(animation: Animation, i: int | None) -> dict[str, Any]:
    """Give what ROAD says of layer `i`."""
    names = ("ROAD", "ROAD spread", "ROAD baseline", "ROAD excess")
    row: dict[str, Any] = dict.fromkeys((*names, "ROAD above chance", "ROAD undefined"))
    road = animation.road
    if road is None or i is None:
        return row
    values = (road.scores, road.spread, road.baseline, road.excess)
    row |= {name: _number(own[i]) for name, own in zip(names, values, strict=True)}
    if not np.isnan(road.excess[i] - road.margin[i]):
        row["ROAD above chance"] = bool(road.above_chance[i])
    return row | {"ROAD undefined": road.undefined[i]}


def _localisation(animation: Animation, i: int | None) -> dict[str, Any]:
    """Give how the map of layer `i` agrees with a mask."""
    names = ("pointing", "energy inside", "IoU", "average precision")
    found = animation.localisation
    if found is None or i is None:
        return dict.fromkeys(names)
    values = (found.pointing, found.energy, found.iou, found.average_precision)
    return {name: _number(own[i]) for name, own in zip(names, values, strict=True)}


def _checks(animation: Animation, i: int | None) -> dict[str, Any]:
    """Give how much of the map of layer `i` is left with other weights, and for other classes."""
    row: dict[str, Any] = dict.fromkeys(
        ("randomised Spearman", "randomised SSIM", "other labels Spearman")
    )
    if i is not None and animation.randomisation is not None:
        row["randomised Spearman"] = _number(animation.randomisation.final[i])
        row["randomised SSIM"] = _number(animation.randomisation.final_ssim[i])
    if i is not None and animation.labels is not None:
        row["other labels Spearman"] = _number(animation.labels.medians[i])
    return row


def _number(value: Any) -> float | None:
    """Give a number; None where there is none."""
    return None if np.isnan(value) else float(value)


def write_table(animation: Animation, path: str | Path) -> Path:
    """Write the table as CSV; see `Animation.write_table`."""
    target = checked_path(path, ".csv")
    table = rows(animation)
    with complete_or_absent(target) as partial:
        try:
            with partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, table[0])
                writer.writeheader()
                writer.writerows(table)
        except OSError as error:
            raise cannot_write(target, error) from error
    return target
