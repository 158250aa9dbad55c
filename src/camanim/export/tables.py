"""The table of the layers as a file, and as a DataFrame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from camanim import table as tables
from camanim.errors import RenderError
from camanim.export.common import checked_suffix, complete_file, record, strict, to_json
from camanim.optional import library
from camanim.result import Result
from camanim.writing import write_file

SUFFIXES = (".csv", ".json", ".parquet")


def write_table(result: Result, path: str | Path) -> Path:
    """Write the table of the layers: one row for each call of each module.

    - ``.csv``: the rows; missing values are empty.
    - ``.json``: one object with the rows, the target, findings, notes and provenance; missing values and
      numbers that are not finite are null.
    - ``.parquet``: the rows with their types, and the rest as JSON in the metadata ``camanim``; needs
      pandas and pyarrow (``napari-camanim[data]``).

    Parameters
    ----------
    result : Result
    path : path-like
        Ends in ``.csv``, ``.json`` or ``.parquet``.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RenderError
        If the suffix is another one, a library is missing, or the file cannot be written.
    """
    # Before the rows are made.
    target, suffix = checked_suffix(path, SUFFIXES)
    if suffix == ".csv":
        return tables.write_rows(tables.table(result), target)
    if suffix == ".json":
        content = {"rows": tables.table(result)} | record(result)
        write_file(target, (to_json(content, indent=1) + "\n").encode())
        return target
    arrow = library("pyarrow", "data", RenderError)
    parquet = library("pyarrow.parquet", "data", RenderError)
    frame = to_pandas(result)
    frame.attrs = {}
    made = arrow.Table.from_pandas(frame)
    metadata = dict(made.schema.metadata or {}) | {b"camanim": to_json(record(result)).encode()}
    with complete_file(target) as partial:
        parquet.write_table(made.replace_schema_metadata(metadata), partial)
    return target


def to_pandas(result: Result) -> Any:
    """Return the table of the layers as a DataFrame: one row for each call of each module.

    Parameters
    ----------
    result : Result

    Returns
    -------
    pandas.DataFrame
        Indexed by ``layer``, the label of the call, in order of execution. Columns are those of
        `camanim.table.table`; missing numbers are NaN, missing texts None. ``attrs`` has method, target,
        notes and provenance.

    Raises
    ------
    RenderError
        If pandas is not installed (``napari-camanim[data]``).
    """
    pandas = library("pandas", "data", RenderError)
    rows = tables.table(result)
    columns: dict[str, Any] = {
        name: pandas.Series([row[name] for row in rows]) for name in (rows[0] if rows else ())
    }
    for name, column in columns.items():
        if column.dtype == object:
            columns[name] = _of_one_type(pandas, [row[name] for row in rows])
    index = pandas.Index([layer.label for layer in result.layer_calls], name="layer")
    frame = pandas.DataFrame(columns)
    frame.index = index
    frame.attrs = strict(
        {
            "method": result.method,
            "target": result.target.describe(),
            "class_name": result.target.name,
            "probability": result.probability,
            "notes": result.notes,
            "provenance": result.provenance,
        }
    )
    return frame


def _of_one_type(pandas: Any, values: list[Any]) -> Any:
    """Return a column whose values are booleans, or all texts, as files with types need them."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in present):
        return pandas.Series(values, dtype="boolean")
    if all(isinstance(value, bool | int | float) for value in present):
        return pandas.Series([None if v is None else float(v) for v in values], dtype="float64")
    return pandas.Series([None if v is None else str(v) for v in values])
