"""The layers as a table: one row for each call of each module, also for those without a map."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camanim.trace import LayerInfo, Status
from camanim.writing import cannot_write, checked_path, complete_or_absent

if TYPE_CHECKING:
    from camanim.animation import Animation


def rows(animation: Animation) -> list[dict[str, Any]]:
    """List every call of every module; see `Animation.table`."""
    shown = {layer.index: i for i, layer in enumerate(animation.layers)}
    labels = {layer.index: layer.label for layer in animation.trace}
    return [_row(animation, layer, shown.get(layer.index), labels) for layer in animation.trace]


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
        "ROAD": None,
    }
    if i is not None:
        row["raw min"] = float(animation.maps[i].min())
        row["raw max"] = float(animation.maps[i].max())
        row["milliseconds"] = round(layer.milliseconds, 3)
        if animation.road is not None and not np.isnan(animation.road.scores[i]):
            row["ROAD"] = float(animation.road.scores[i])
    return row


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
