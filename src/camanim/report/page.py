"""Results as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from camanim._version import __version__
from camanim.comparison import comparison_table
from camanim.declarations import Positive, checked
from camanim.errors import RenderError
from camanim.progress import Progress, silent
from camanim.render.frames import FrameSize, Opacity
from camanim.render.overlay import COLORMAPS, Overlay, lookup_table
from camanim.report import wording
from camanim.report.charts import Chart, chart, dark_rules
from camanim.report.encoding import (
    LayerLevels,
    as_text,
    covered,
    data_uri,
    evenly,
    levels,
    longest_side,
    packed,
    picture,
)
from camanim.report.templates_folder import source, template
from camanim.result import Result
from camanim.slicing import plane_in_words, plane_index, take_plane
from camanim.stack import Normalization, Stack, stack_maps
from camanim.table import table
from camanim.words import value_in_words
from camanim.writing import checked_path, write_file

#: Largest number of cells of the maps of a result, and of a page.
_RESULT_CELLS, _PAGE_CELLS = 2**22, 2**24
#: Number of pictures on paper, and the longer side of these and of the overview's in pixels.
_STRIP, _STRIP_SIDE, _OVERVIEW_SIDE = 24, 176, 72


@dataclass(frozen=True)
class _Look:
    """How maps are shown."""

    normalization: Normalization
    signed: bool
    size: int
    colormap: str
    opacity: float
    max_layers: int | None
    planes: int

    @property
    def colors(self) -> Any:
        return lookup_table(self.colormap)


@checked(RenderError)
def write_report(
    results: Result | Mapping[str, Result] | Sequence[Result],
    path: str | Path,
    *,
    title: str | None = None,
    errors: Mapping[str, str] | None = None,
    normalization: Normalization = "local",
    signed: bool = False,
    size: FrameSize = 512,
    colormap: str | None = None,
    opacity: Opacity = 0.5,
    max_layers: Positive | None = None,
    planes: Positive = 9,
    progress: Progress = silent,
) -> Path:
    """Write a report: one HTML page with predictions, maps of all layers, curves, checks and settings.

    The page holds all that it shows, requests nothing from a network, and opens without a server. A
    slider shows the map of each layer over the image, with local and global normalisation; without
    scripts and on paper, the page shows pictures of up to 24 layers instead. Absolute paths in names,
    notes and records are written without their folders. Text that is part of an image stays in it.

    Maps are stored with 256 levels at the resolution of their layer. They are reduced by area where they
    have more than 2**22 cells in a result, or 2**24 in a page; the page says so.

    Parameters
    ----------
    results : Result, mapping of str to Result, or sequence of Result
        One result, or several of any images and networks, by name or numbered; the page of several
        begins with a table.
    path : path-like
        Must end in ``.html``.
    title : str, optional
        By default the target and the method, or the number of results.
    errors : mapping of str to str, optional
        Messages by name, for images that have no result; rows of the table.
    normalization : {"local", "global"}
        Scale of the maps that is shown first: of each layer, or of all layers.
    signed : bool
        Show negative evidence too, in diverging colours.
    size : int
        Longer side of the image in pixels.
    colormap : str, optional
        Name of a colour map of ``cmap``; by default turbo, or a diverging one with ``signed``.
    opacity : float
        Opacity of the maps over the image that is shown first, in [0, 1].
    max_layers : int, optional
        Largest number of layers with a map in the page, at equal distances in the order of execution and
        with the one to show first; by default all. The table of layers and the curves contain all.
    planes : int
        Largest number of planes of a volume, at equal distances in the range that the maps cover, among
        them the middle one.
    progress : Progress
        Called after every result; it can raise `Cancelled`, and no file is written.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RenderError
        If the path or a setting is invalid, a result has no map, there is nothing to report, or writing
        fails.
    """
    target = checked_path(path, ".html")
    named = _named(results)
    failed: dict[str, str] = {}
    for name, message in (errors or {}).items():
        unique = _unique(wording.file_name(str(name)), {*named, *failed})
        failed[unique] = wording.without_folders(str(message))
    if not named and not failed:
        raise RenderError("There is nothing to report: pass a result, or the errors of images.")
    for name, result in named.items():
        if not result.maps:
            raise RenderError(
                f"The result {name or result.target.name!r} has no map: select layers with a map."
            )
    look = _Look(
        normalization,
        signed,
        size,
        COLORMAPS[signed] if colormap is None else colormap,
        opacity,
        max_layers,
        planes,
    )
    colors = look.colors
    sections = []
    for k, (name, result) in enumerate(named.items()):
        sections.append(_section(f"r{k + 1}", name, result, look, len(named)))
        progress("report", k + 1, len(named))
    script, style = source("report.js"), f"{source('report.css')}\n{_dark_style()}\n"
    page = template("report.html.j2").render(
        title=_title(title, named, failed),
        policy=_policy(script, style),
        script=Markup(script),
        style=Markup(style),
        sections=sections,
        overview=_overview(named, failed, sections),
        errors=failed,
        limits=wording.LIMITS,
        colors=as_text(colors.tobytes()),
        color_bar=data_uri(Image.fromarray(np.repeat(colors[None], 4, axis=0))),
        signed=signed,
        version=__version__,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )
    # A name that is not valid Unicode, as of a file, must not prevent the report.
    write_file(target, page.encode("utf-8", "replace"))
    return target


def _named(results: Any) -> dict[str, Result]:
    """Return results by unique names without folders; a single one has an empty name."""
    if isinstance(results, Result):
        return {"": results}
    if isinstance(results, Mapping):
        items = [(wording.file_name(str(name)), result) for name, result in results.items()]
    elif isinstance(results, Sequence) and not isinstance(results, str):
        items = [(f"{k + 1}", result) for k, result in enumerate(results)]
    else:
        raise RenderError(
            f"A report needs a result, or several by name, not {type(results).__name__}."
        )
    named: dict[str, Result] = {}
    for name, result in items:
        if not isinstance(result, Result):
            raise RenderError(f"{name!r} is no result but {type(result).__name__}: pass results.")
        named[_unique(name, named)] = result
    return named


def _unique(name: str, taken: Collection[str]) -> str:
    """Return a name that is not taken, as images in several folders may have the same."""
    unique, k = name, 2
    while unique in taken:
        unique, k = f"{name} ({k})", k + 1
    return unique


def _title(title: str | None, named: Mapping[str, Result], failed: Mapping[str, str]) -> str:
    if title is not None:
        return title
    if len(named) == 1 and not failed:
        name, result = next(iter(named.items()))
        return f"{name or result.target.name}: {result.method}"
    count = len(named)
    return f"Class activation maps: {count} result{'' if count == 1 else 's'}"


def _policy(script: str, style: str) -> str:
    """Return the content security policy: this script and style, images of the page, nothing else."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src 'sha256-{digest(style)}'",
            f"script-src 'sha256-{digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _dark_style() -> str:
    rules = "\n".join(dark_rules())
    return f"@media screen and (prefers-color-scheme: dark) {{\n{rules}\n}}"


# -- One result ------------------------------------------------------------------------------------


def _section(key: str, name: str, result: Result, look: _Look, count: int) -> dict[str, Any]:
    """Return what the template needs about a result."""
    first = result.initial_index
    indices = evenly(len(result), look.max_layers or len(result), first)
    positions = _planes(result, look.planes)
    middle = positions.index(plane_index(result)) if len(positions) > 1 else 0
    planes = [take_plane(result, z) for z in positions] if positions else [result]
    stacks = [stack_maps(plane, "local", signed=look.signed) for plane in planes]
    budget = min(_RESULT_CELLS, _PAGE_CELLS // count) // len(planes)
    longest = longest_side([_sides(planes[0].maps[i]) for i in indices], look.size, budget)
    encoded = [[levels(stack, i, longest) for i in indices] for stack in stacks]
    pictures = [picture(plane.image, look.size) for plane in planes]
    layers = [
        LayerLevels(i, _sides(encoded[0][k]), result.maps[i].shape, *stacks[0].limits(i))
        for k, i in enumerate(indices)
    ]
    shown = planes[middle]
    drawn = chart(result, f"{key}-")
    data = {
        "layers": [_layer(layer, planes[0]) for layer in layers],
        "limits": stack_maps(planes[0], "global", signed=look.signed).limits(0),
        "maps": [packed(maps) for maps in encoded],
        "size": pictures[0][1],
        "box": covered(shown.image, shown.geometry),
        "signed": look.signed,
        "first": indices.index(first),
        "plane": middle,
        "planes": positions,
        "chart": _positions(drawn),
    }
    rows = _rows(result, indices)
    return {
        "key": key,
        "name": name,
        "result": result,
        "value": value_in_words(result.probability, result.target.unit),
        "facts": _facts(result, indices, layers, longest),
        "pictures": [
            {"source": text, "z": z} for (text, _), z in _with_planes(pictures, positions)
        ],
        "size": pictures[0][1],
        "middle": middle,
        "planes": positions,
        "plane": plane_in_words(result, positions[middle]) if positions else "",
        "depth": len(result.image) if positions else 0,
        "image_note": result.image_note,
        "layers": layers,
        "first": indices.index(first),
        "first_label": result.layers[first].label,
        "data": _json(data),
        "strip": list(_strip(shown, first, look)),
        "chart": drawn,
        "chart_text": " ".join(s for f in result.findings.values() if (s := f.summary())),
        "warnings": wording.warnings(result),
        "remarks": wording.remarks(result),
        "statements": wording.statements(result),
        "checks": wording.checks_in_words(result),
        "missing": wording.missing(result),
        "method": wording.about_method(result),
        "columns": _columns(rows, _main_columns(result)),
        "rows": rows,
        "provenance": wording.provenance(result),
        "code": wording.recomputation(result),
        "normalization": look.normalization,
        "opacity": look.opacity,
        "thumbnail": _thumbnail(shown, first, look),
    }


def _sides(array: Any) -> tuple[int, int]:
    return array.shape[-2], array.shape[-1]


def _planes(result: Result, most: int) -> list[int]:
    """Return the planes of a volume that are shown, among them the middle one; none of an image."""
    geometry = result.geometry
    if len(geometry.size) == 2:
        return []
    start, depth = geometry.offset[0], geometry.scale[0] * geometry.size[0]
    # Planes whose centres the maps cover.
    low = max(0, int(np.ceil(start - 0.5)))
    high = min(len(result.image) - 1, int(np.floor(start + depth - 0.5)))
    middle = plane_index(result)
    return [low + k for k in evenly(high - low + 1, most, middle - low)]


def _with_planes(pictures: list[Any], positions: list[int]) -> Iterator[tuple[Any, int | None]]:
    yield from zip(pictures, positions or (None,), strict=True)


def _layer(layer: LayerLevels, plane: Result) -> dict[str, Any]:
    return {
        "label": plane.layers[layer.index].label,
        "caption": plane.caption(layer.index).split("\n")[1:],
        "number": layer.index,
        "shape": layer.shape,
        "native": layer.native,
        "limits": [layer.low, layer.high],
    }


def _positions(drawn: Chart | None) -> dict[str, float] | None:
    if drawn is None:
        return None
    return {"width": drawn.width, "first": drawn.first, "step": drawn.step}


def _facts(
    result: Result, indices: list[int], layers: list[LayerLevels], longest: int
) -> list[tuple[str, str]]:
    """Return names and values of what is shown beside the prediction."""
    count, total = len(result), len(indices)
    number = f"{count}" if total == count else f"{total} of {count} with a map in this page"
    facts = [
        ("Method", result.method),
        ("Network", wording.file_name(str(result.provenance.get("model") or "unknown"))),
        ("Layers", number),
    ]
    image = " x ".join(map(str, result.image.shape[: len(result.geometry.size)]))
    facts.append(("Image", f"{image} pixels"))
    facts.append(("Network's input", f"{' x '.join(map(str, result.geometry.size))} pixels"))
    reduced = sum(layer.shape != _sides(result.maps[layer.index]) for layer in layers)
    if reduced:
        facts.append(("Reduced maps", f"{reduced}, to {longest} cells along the longer side"))
    return facts


def _strip(plane: Result, first: int, look: _Look) -> Iterator[dict[str, Any]]:
    """Yield pictures of some layers, for paper and for browsers without scripts."""
    stack = stack_maps(plane, look.normalization, signed=look.signed)
    overlay = Overlay(plane.image, plane.geometry, _STRIP_SIDE, look.colors, look.opacity)
    for i in evenly(len(plane), _STRIP, first):
        yield {
            "picture": _overlaid(overlay, stack, i),
            "number": i + 1,
            "label": plane.layers[i].label,
            "empty": plane.no_evidence(i),
        }


def _thumbnail(plane: Result, i: int, look: _Look) -> str:
    stack = stack_maps(plane, look.normalization, signed=look.signed)
    overlay = Overlay(plane.image, plane.geometry, _OVERVIEW_SIDE, look.colors, look.opacity)
    return _overlaid(overlay, stack, i)


def _overlaid(overlay: Overlay, stack: Stack, i: int) -> str:
    shares = stack.native(i)
    if stack.signed:
        shares = np.float32(0.5) * shares + np.float32(0.5)
    return data_uri(Image.fromarray(overlay.picture(shares)), 85)


# -- Tables ----------------------------------------------------------------------------------------


def _rows(result: Result, indices: list[int]) -> list[dict[str, Any]]:
    """Return the rows of the table of layers, each with the position of its map in the page."""
    place = {result.layers[i].index: k for k, i in enumerate(indices)}
    numbers = {layer.index: i + 1 for i, layer in enumerate(result.layers)}
    calls = {layer.index: layer for layer in result.layer_calls}
    rows = []
    for row in table(result):
        index = row.pop("index")
        values = {"layer": numbers.get(index), "name": calls[index].label}
        values |= {k: v for k, v in row.items() if k not in ("name", "call")}
        rows.append(
            {
                "place": place.get(index),
                "cells": {column: _cell(value) for column, value in values.items()},
            }
        )
    return rows


def _main_columns(result: Result) -> set[str]:
    """Return the columns of the table of layers that fit on paper."""
    first = {next(iter(f.columns()), "") for f in result.findings.values()}
    return {"layer", "name", "kind", "raw max", *first}


def _columns(rows: list[dict[str, Any]], main: set[str] | None = None) -> list[dict[str, Any]]:
    """Return the columns of a table without empty ones.

    Each has whether its values are numbers, and whether it is one of `main`, by default of all.
    """
    columns = []
    for name in dict.fromkeys(name for row in rows for name in row["cells"]):
        cells = [row["cells"][name] for row in rows if name in row["cells"]]
        filled = [cell for cell in cells if cell["text"]]
        if filled:
            numeric = all(cell["number"] is not None for cell in filled)
            columns.append({"name": name, "numeric": numeric, "main": main is None or name in main})
    return columns


def _cell(value: Any) -> dict[str, Any]:
    """Return the text of a value, and the number it is sorted by."""
    if value is None:
        return {"text": "", "number": None}
    if isinstance(value, bool):
        return {"text": "yes" if value else "no", "number": int(value)}
    if isinstance(value, int):
        return {"text": f"{value:,}" if abs(value) >= 10_000 else str(value), "number": value}
    if isinstance(value, float):
        # An unfinished value is sorted last, as a missing one.
        return {"text": f"{value:.4g}", "number": value if np.isfinite(value) else None}
    return {"text": str(value), "number": None}


def _overview(
    named: Mapping[str, Result], failed: Mapping[str, str], sections: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """Return the table of all results and errors; None for a single result."""
    if len(named) + len(failed) < 2 and not failed:
        return None
    rows = []
    for row, section in zip(comparison_table(named), sections, strict=True):
        model = row["network"]
        row |= {
            "name": section["name"],
            "network": None if model is None else wording.file_name(str(model)),
            "shown first": section["first_label"],
            "warnings": len(section["warnings"]),
        }
        cells = {name: _cell(value) for name, value in row.items()}
        rows.append({"key": section["key"], "cells": cells, "thumbnail": section["thumbnail"]})
    return {"rows": rows, "columns": _columns(rows)}


def _json(data: Any) -> Markup:
    """Return data as JSON for a script element, which no text in it can end."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, default=_scalar)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _scalar(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not plain data")
