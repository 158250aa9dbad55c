"""The layers as a table: one row for each call of each module, also for those without a map."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camanim.animation import LayerInfo, Status
from camanim.errors import RenderError

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
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise RenderError(f"A table is written as .csv, not {path.suffix or 'without a suffix'}.")
    part = path.with_name(f"{path.stem}.part.csv")
    table = rows(animation)
    try:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, table[0])
            writer.writeheader()
            writer.writerows(table)
        os.replace(part, path)
    except OSError as error:
        raise RenderError(f"The table cannot be written to {path}: {error.strerror}.") from error
    finally:
        part.unlink(missing_ok=True)
    return path
