"""Comparison of results: a table of runs, the difference of two, and their scores in one plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from camanim import curves
from camanim.errors import ImageError, LayerError, RenderError, ScoreError
from camanim.plots import Mark, Plot
from camanim.result import Result
from camanim.stack import FloatMap, Normalization, upsample
from camanim.table import cell_value, write_rows

if TYPE_CHECKING:
    import torch

    from camanim.findings import Finding
    from camanim.targets.base import Unit

R = TypeVar("R", bound=Result)

#: Lines that differ in colour or dashes.
MOST = curves.MOST


def comparison_table(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Return one row for each run, as input of ``pandas.DataFrame``.

    Parameters
    ----------
    results : mapping of str to Result
        By the name of the run.

    Returns
    -------
    list of dict
        Keys: name, network, method, target, value (its probability or score), layers (their number);
        then what the findings say about all layers: ROAD mean, ROAD max (ybROAD mean and max) and ROAD
        max layer; average precision, and its layer; and the best value and layer of other findings.
        Values that a run does not have are None.
    """
    rows = []
    for name, result in results.items():
        row: dict[str, Any] = {
            "name": name,
            "network": result.provenance.get("model"),
            "method": result.method,
            "target": result.target.name,
            "value": float(result.probability),
            "layers": len(result),
        }
        for finding in result.findings.values():
            row |= {key: cell_value(value) for key, value in finding.comparison().items()}
        rows.append(row)
    keys = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in keys} for row in rows]


def write_comparison(results: Mapping[str, Result], path: str | Path) -> Path:
    """Write `comparison_table` as a CSV file.

    Raises
    ------
    RenderError
        If the suffix is not ``.csv``, there is no run, or the file cannot be written.
    """
    if not results:
        raise RenderError("There is no run to compare.")
    return write_rows(comparison_table(results), path)


# -- Difference ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ComparedTarget:
    """The targets of two results; it has no score."""

    name: str
    unit: Unit
    index: int | None = None

    def score(self, output: Any) -> torch.Tensor:
        """Raise `ScoreError`."""
        raise ScoreError("A difference of two results cannot be scored: score each of them.")

    value = score

    def describe(self) -> dict[str, Any]:
        """Return the target as plain data."""
        return {"kind": "difference", "name": self.name}


def difference(
    first: R, second: Result, normalization: Normalization = "local", *, signed: bool = False
) -> R:
    """Return the normalised maps of a result minus those of another one, layer by layer.

    Parameters
    ----------
    first, second : Result
        Of the same image at the same input size; by two methods, or of two networks with layers of the
        same names, or for two targets.
    normalization : {"local", "global"}
        Divide each map by its maximum, or all maps of a run by their maximum. A map without positive
        values is 0.
    signed : bool
        Keep negative evidence, and divide by the largest absolute value. Otherwise negative values are
        set to 0 first.

    Returns
    -------
    Result
        Of the type of `first`, with signed maps in [-1, 1] ([-2, 2] with `signed`): positive where
        `first` is higher. Show them with ``signed=True``. It has no findings. Layers are those of both,
        by label, in the order of `first`; `notes` lists the others. Maps of different resolution are
        resized linearly to the larger one.

    Raises
    ------
    ImageError
        If the images or the sizes of the networks' inputs differ, or a result is a plane of a volume.
    LayerError
        If no layer has the same label.
    RenderError
        If the normalisation is unknown.
    """
    if normalization not in ("local", "global"):
        raise RenderError(f'normalization is "local" or "global", not {normalization!r}.')
    _check_same_image(first, second)
    of_second = {layer.label: i for i, layer in enumerate(second.layers)}
    pairs = [(i, of_second[x.label]) for i, x in enumerate(first.layers) if x.label in of_second]
    if not pairs:
        raise LayerError("The results have no layer of the same name: their difference is empty.")
    scaled = (
        _normalized(first, normalization, signed=signed, indices=[i for i, _ in pairs]),
        _normalized(second, normalization, signed=signed, indices=[i for _, i in pairs]),
    )
    # Results with the same target and value differ in the method alone.
    names = first.target.name, second.target.name
    same = names[0] == names[1] and first.probability == second.probability
    name = f"{names[0]} (difference)" if names[0] == names[1] else " - ".join(names)
    method = _both(first.method, second.method)
    models = [str(result.provenance.get("model", "")) for result in (first, second)]
    target = ComparedTarget(names[0] if same else name, first.target.unit)
    shared = {first.layers[i].label for i, _ in pairs}
    left_out = [
        layer.label for r in (first, second) for layer in r.layers if layer.label not in shared
    ]
    by = "its maximum" if normalization == "local" else "the maximum of its run"
    notes = [
        f"Difference of two results, each map divided by {by}: positive where the first is higher."
    ]
    if left_out:
        notes.append(f"Left out, as only one result has them: {', '.join(left_out)}.")
    return replace(
        first,
        maps=[_subtracted(a, b) for a, b in zip(*scaled, strict=True)],
        layers=[first.layers[i] for i, _ in pairs],
        method=method,
        target=target,
        probability=first.probability - (0.0 if same else second.probability),
        provenance={
            "model": _both(*models),
            "method": method,
            "target": target.describe(),
            "normalization": normalization,
            "signed": signed,
            "difference of": [dict(first.provenance), dict(second.provenance)],
        },
        findings={},
        input_gradient=None,
        guided=None,
        notes=notes,
        computed_with=None,
    )


def _check_same_image(first: Result, second: Result) -> None:
    if first.extremes is not None or second.extremes is not None:
        raise ImageError(
            "A result is a plane of a volume: subtract the whole volumes, then take it."
        )
    if not np.array_equal(first.image, second.image):
        raise ImageError("The results are of different images: a difference needs the same one.")
    if first.geometry != second.geometry:
        sizes = " and ".join(" x ".join(map(str, r.geometry.size)) for r in (first, second))
        raise ImageError(
            f"The networks' inputs differ in size or crop ({sizes}): use the same fit and size."
        )


def _normalized(
    result: Result, normalization: Normalization, *, signed: bool, indices: list[int]
) -> list[npt.NDArray[np.float64]]:
    kept = [m if signed else np.maximum(m, 0) for m in result.maps]
    highest = [float(np.abs(m).max()) for m in kept]
    divisors = [max(highest)] * len(kept) if normalization == "global" else highest
    return [kept[i].astype(np.float64) / (divisors[i] or 1.0) for i in indices]


def _subtracted(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> FloatMap:
    if a.shape != b.shape:
        size = tuple(max(sides) for sides in zip(a.shape, b.shape, strict=True))
        a, b = (upsample(m.astype(np.float32), size).astype(np.float64) for m in (a, b))
    return (a - b).astype(np.float32)


def _both(first: str, second: str) -> str:
    return first if first == second else f"{first} - {second}"


# -- One plot --------------------------------------------------------------------------------------


def _best_layers(findings: Mapping[str, Finding]) -> dict[str, int]:
    """Return the index of the layer that each finding shows first, or its best, if there is one."""
    layers = {name: finding.shown_first or finding.best for name, finding in findings.items()}
    return {n: findings[n].layers.index(x) for n, x in layers.items() if x is not None}


def marked(findings: Mapping[str, Finding]) -> tuple[Literal["highest", "lowest"], bool]:
    """Return what the marks of `overlaid` are.

    Parameters
    ----------
    findings : mapping of str to Finding
        Of one kind, by the names of their results.

    Returns
    -------
    side : {"highest", "lowest"}
        Which values are better.
    extreme : bool
        Whether each mark is at the highest, or lowest, value of its curve.
    """
    higher = all(finding.higher_is_better for finding in findings.values())
    best = _best_layers(findings)
    values = {name: findings[name].main_values() for name in best}
    ends = {name: np.nanmax(y) if higher else np.nanmin(y) for name, y in values.items()}
    return "highest" if higher else "lowest", all(values[n][i] == ends[n] for n, i in best.items())


def overlaid(results: Mapping[str, Result], key: str = "road") -> Plot:
    """Return the values of one finding of several runs in one plot, a line for each run.

    Parameters
    ----------
    results : mapping of str to Result
        By the name of the run.
    key : str
        Key in `Result.findings`, such as ``"road"`` or ``"localisation"``; see `Finding.main_values`.

    Returns
    -------
    Plot
        Of one panel, over the layers if all runs have the same, otherwise over the relative depth: 0 is
        the first shown layer, 1 the last. Lines differ in colour and dashes; the layer that a finding
        shows first, or its best, is marked, and the highest of these, or the lowest where low values
        are better, is the most important mark.

    Raises
    ------
    ScoreError
        If no run has the finding, or there are more than 16 of them.
    """
    findings = {name: r.findings[key] for name, r in results.items() if key in r.findings}
    if not findings:
        raise ScoreError(f"No run has the finding {key!r}: compute it first.")
    if len(findings) > MOST:
        raise ScoreError(f"{len(findings)} lines cannot be told apart: plot at most {MOST} runs.")
    values = {name: finding.main_values() for name, finding in findings.items()}
    if not any(np.isfinite(y).any() for y in values.values()):
        raise ScoreError(f"{next(iter(findings.values())).title} has no value for any layer.")
    panel = curves.overlaid(findings)
    # In the order of the runs, and with a position for each mark.
    lines = panel.lines[::-1]
    x = np.unique(np.concatenate([panel.x if line.x is None else line.x for line in lines]))
    best = _best_layers(findings)
    side, extreme = marked(findings)
    pick = max if side == "highest" else min
    top = pick(best, key=lambda name: values[name][best[name]], default=None)
    marks = []
    word = side if extreme else "best"
    for line in lines:
        if line.name in best:
            i, y = best[line.name], values[line.name]
            at = float((x if line.x is None else line.x)[i])
            caption = f"{line.name}: {findings[line.name].layers[i].label} ({y[i]:.2f})"
            position = int(np.searchsorted(x, at))
            marks.append(
                Mark(f"{line.name}: {word}", position, float(y[i]), caption, line.name == top)
            )
    count = len(findings)
    title = f"{next(iter(findings.values())).title} of {count} {'run' if count == 1 else 'runs'}"
    words = tuple(f"{name}: random weights" for name in findings if results[name].random_weights)
    panel = replace(panel, x=x, lines=lines, marks=tuple(marks), words=words)
    return Plot((panel,), title)
