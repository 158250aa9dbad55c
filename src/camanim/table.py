"""Table of the layers: one row for each call of each module, including those without a map."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from camanim.layer_info import LayerInfo, Status
from camanim.result import Result
from camanim.writing import checked_path, write_file


def table(result: Result) -> list[dict[str, Any]]:
    """Return one row for every call of every module, as input of ``pandas.DataFrame``.

    Parameters
    ----------
    result : Result

    Returns
    -------
    list of dict
        Keys: index, name, call, kind, output shape, layout, parameters, status, raw min, raw max,
        milliseconds; "weights" if those of the network are random; then the columns of each finding.
        Missing values are None; see the status.
    """
    shown = {layer.index: i for i, layer in enumerate(result.layers)}
    labels = {layer.index: layer.label for layer in result.layer_calls}
    columns = {
        name: values
        for finding in result.findings.values()
        for name, values in finding.columns().items()
    }
    rows = []
    for layer in result.layer_calls:
        i = shown.get(layer.index)
        findings = {name: None if i is None else cell_value(v[i]) for name, v in columns.items()}
        rows.append(_row(result, layer, i, labels) | findings)
    return rows


def _row(result: Result, layer: LayerInfo, i: int | None, labels: dict[int, str]) -> dict[str, Any]:
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
        row["raw min"] = float(result.maps[i].min())
        row["raw max"] = float(result.maps[i].max())
        row["milliseconds"] = round(layer.milliseconds, 3)
    if result.random_weights:
        row["weights"] = "random"
    return row


def cell_value(value: Any) -> Any:
    """Convert a value to a Python scalar; NaN to None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value


def write_rows(rows: list[dict[str, Any]], path: str | Path) -> Path:
    """Write rows with the same keys as a CSV file.

    Parameters
    ----------
    rows : list of dict
    path : path-like
        Must end in ``.csv``.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RenderError
        If the suffix differs, or the file cannot be written.
    """
    target = checked_path(path, ".csv")
    text = StringIO(newline="")
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    # A name that is not valid Unicode, as of a file, must not prevent the table.
    write_file(target, text.getvalue().encode("utf-8", "backslashreplace"))
    return target
