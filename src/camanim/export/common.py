"""What the files of results have in common: the layers, the metadata, and complete files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from numbers import Integral
from pathlib import Path
from typing import Any

from camanim._version import __version__
from camanim.errors import LayerError, LayerIndexError, RenderError
from camanim.findings import plain
from camanim.result import Result
from camanim.writing import cannot_write, checked_path, complete_or_absent

#: Stands in every file that looks like an image of a patient.
NOT_A_DIAGNOSIS = "not for diagnosis"
LayerChoice = int | str | Iterable[int | str] | None
"""Layers of a result: indices, labels, globs or kinds; None for all."""


def chosen_layers(result: Result, layers: LayerChoice = None) -> list[int]:
    """Return the indices of some shown layers, in their order.

    Parameters
    ----------
    result : Result
    layers : int, str or iterable of these, optional
        Indices into ``result.layers``, labels, globs or kinds; by default all.

    Raises
    ------
    LayerIndexError
        If an index is out of range.
    LayerError
        If a text matches no shown layer, or nothing is chosen.
    """
    count = len(result)
    if layers is None:
        return list(range(count))
    several = isinstance(layers, Iterable) and not isinstance(layers, str)
    indices: set[int] = set()
    for choice in layers if several else [layers]:  # type: ignore[union-attr]
        if isinstance(choice, str):
            matching = [i for i, info in enumerate(result.layers) if _matches(choice, info)]
            if not matching:
                raise LayerError(f"No shown layer matches {choice!r:.100}: see animation.layers.")
            indices.update(matching)
        elif isinstance(choice, Integral) and not isinstance(choice, bool):
            index = int(choice)
            if not -count <= index < count:
                raise LayerIndexError(f"The layers are 0 to {count - 1}, not {index}.")
            indices.add(index % count)
        else:
            raise LayerError(
                f"Layers are chosen by indices, labels or kinds, not by {choice!r:.100}."
            )
    if not indices:
        raise LayerError("The selection of layers is empty: leave out layers= for all.")
    return sorted(indices)


def _matches(text: str, info: Any) -> bool:
    return any(
        text == word or fnmatchcase(word, text) for word in (info.label, info.name, info.kind)
    )


def check_maps(result: Result) -> None:
    """Raise `RenderError` if a result has no maps."""
    if not len(result):
        raise RenderError("The result has no maps: compute them with camanim.animate.")


def record(result: Result, indices: Sequence[int] | None = None) -> dict[str, Any]:
    """Return what is known about a result besides its maps, as strict JSON data.

    Numbers that are not finite are None. Of the source only shape, spacing and affine are included.

    Parameters
    ----------
    result : Result
    indices : sequence of int, optional
        Layers that are included; by default all.
    """
    shown = range(len(result)) if indices is None else indices
    known: dict[str, Any] = strict(
        {
            "camanim": __version__,
            "use": NOT_A_DIAGNOSIS,
            "method": result.method,
            "model": str(result.provenance.get("model", "")),
            "target": result.target.describe(),
            "class_name": result.target.name,
            "probability": result.probability,
            "unit": result.target.unit,
            "layers": [result.layers[i].label for i in shown],
            "kinds": [result.layers[i].kind for i in shown],
            "geometry": {
                "size": result.source_geometry.size,
                "scale": result.source_geometry.scale,
                "offset": result.source_geometry.offset,
            },
            "source": None if result.source is None else result.source.record(),
            "findings": {key: finding.record() for key, finding in result.findings.items()},
            "notes": result.notes,
            "warnings": result.warnings,
            "provenance": result.provenance,
        }
    )
    return known


def strict(value: Any) -> Any:
    """Convert to data that JSON can hold: numbers that are not finite to None, objects to texts."""
    value = plain(value)
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list):
        return [strict(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def to_json(value: Any, indent: int | None = None) -> str:
    """Return strict JSON."""
    return json.dumps(strict(value), allow_nan=False, indent=indent, ensure_ascii=True)


def checked_suffix(path: str | Path, suffixes: Iterable[str]) -> tuple[Path, str]:
    """Return the absolute path of an output file, and which suffix it has.

    Raises
    ------
    RenderError
        If it has none of them, or cannot be written.
    """
    known = tuple(suffixes)
    name = Path(path).name.lower()
    suffix = next((s for s in sorted(known, key=len, reverse=True) if name.endswith(s)), None)
    if suffix is None:
        raise RenderError(f"{Path(path).name} must end in {', '.join(known[:-1])} or {known[-1]}.")
    # Of ``.nii.gz`` the last part.
    return checked_path(path, f".{suffix.rpartition('.')[2]}"), suffix


@contextmanager
def complete_file(target: Path) -> Iterator[Path]:
    """Yield the path of a part file that replaces `target`; a full disk is a `RenderError`."""
    with complete_or_absent(target) as partial:
        try:
            yield partial
        except OSError as error:
            raise cannot_write(target, error) from error
