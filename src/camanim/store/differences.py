"""Comparison of two results: settings, probability, maps and findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from camanim.findings import Finding, plain
from camanim.result import Result

#: Largest difference, relative to the largest value, that other threads, libraries and processors make.
CLOSE = 1e-5

Verdict = Literal["equal", "close", "different", "not compared"]


@dataclass(frozen=True)
class Difference:
    """Comparison of one part of two results.

    Attributes
    ----------
    part : str
        Such as ``maps``, ``probability``, ``road``, or a setting.
    verdict : {"equal", "close", "different", "not compared"}
        "equal" to the last bit; "close" if no number differs by more than 1e-5 of the largest one.
    largest : float or None
        Largest difference of two numbers, relative to the largest one; None where there is none.
    words : str
        The difference in words; empty for equal parts.
    """

    part: str
    verdict: Verdict
    largest: float | None = None
    words: str = ""


def diff(first: Result, second: Result) -> list[Difference]:
    """Compare two results, such as a saved one and the same computed again.

    Parameters
    ----------
    first, second : Result

    Returns
    -------
    list of Difference
        Settings, versions and hashes that differ; the probability; the maps of the layers that both
        have; and each finding.
    """
    return [
        *_settings(first, second),
        _numbers("probability", first.probability, second.probability),
        *_maps(first, second),
        *_findings(first.findings, second.findings),
    ]


def _settings(first: Result, second: Result) -> list[Difference]:
    described = [
        plain(each.provenance) | {"target": plain(each.target.describe())}
        for each in (first, second)
    ]
    keys = dict.fromkeys([*described[0], *described[1]])
    values = {key: tuple(each.get(key) for each in described) for key in keys}
    differing = {key: pair for key, pair in values.items() if pair[0] != pair[1]}
    return [
        Difference(key, "different", None, f"{_short(one)} and {_short(other)}")
        for key, (one, other) in differing.items()
    ]


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _maps(first: Result, second: Result) -> list[Difference]:
    maps = [
        {layer.label: values for layer, values in zip(each.layers, each.maps, strict=True)}
        for each in (first, second)
    ]
    shared = [label for label in maps[0] if label in maps[1]]
    differences = []
    if len(shared) < max(map(len, maps)):
        words = " and ".join(
            f"{len(one) - len(shared)} only in the {name}"
            for one, name in zip(maps, ("first", "second"), strict=True)
        )
        differences.append(Difference("layers", "different", None, f"{words} result"))
    if not shared:
        return [*differences, Difference("maps", "not compared", None, "no layer in common")]
    pairs = {label: (maps[0][label], maps[1][label]) for label in shared}
    others = [label for label, (a, b) in pairs.items() if a.shape != b.shape]
    if others:
        words = f"{len(others)} of {len(shared)} have another shape, such as {others[0]}"
        return [*differences, Difference("maps", "different", None, words)]
    compared = {label: _numbers("maps", *pair) for label, pair in pairs.items()}
    worst = max(compared, key=lambda label: compared[label].largest or 0.0)
    verdicts = {each.verdict for each in compared.values()}
    verdict = next(v for v in ("different", "close", "equal") if v in verdicts)
    changed = sum(each.verdict != "equal" for each in compared.values())
    words = f"{changed} of {len(shared)} layers, most {worst}" if changed else ""
    return [*differences, Difference("maps", verdict, compared[worst].largest, words)]


def _findings(first: Mapping[str, Finding], second: Mapping[str, Finding]) -> list[Difference]:
    differences = []
    for key in dict.fromkeys([*first, *second]):
        if key not in first or key not in second:
            name = "second" if key in second else "first"
            differences.append(Difference(key, "not compared", None, f"only in the {name} result"))
            continue
        differences.append(_finding(key, first[key], second[key]))
    return differences


def _finding(key: str, one: Finding, other: Finding) -> Difference:
    names = [f.name for f in fields(one) if f.name not in ("layers", "parameters")]
    if type(one) is not type(other):
        return Difference(key, "different", None, "of different kinds")
    compared = {name: _numbers(name, getattr(one, name), getattr(other, name)) for name in names}
    changed = [name for name, each in compared.items() if each.verdict != "equal"]
    if not changed:
        return Difference(key, "equal", 0.0)
    largest = max((compared[name].largest or 0.0 for name in changed), default=0.0)
    close = all(compared[name].verdict == "close" for name in changed)
    verdict: Verdict = "close" if close else "different"
    return Difference(key, verdict, largest, f"in {', '.join(changed)}")


def _numbers(part: str, one: Any, other: Any) -> Difference:
    """Compare numbers, arrays of numbers, or other values."""
    if isinstance(one, float | np.ndarray) and isinstance(other, float | np.ndarray):
        return _arrays(part, np.asarray(one, np.float64), np.asarray(other, np.float64))
    same = plain(one) == plain(other)
    words = "" if same else f"{_short(one)} and {_short(other)}"
    return Difference(part, "equal" if same else "different", None, words)


def _arrays(part: str, one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> Difference:
    if one.shape != other.shape:
        return Difference(part, "different", None, f"{one.shape} and {other.shape}")
    if np.array_equal(one, other, equal_nan=True):
        return Difference(part, "equal", 0.0)
    defined = np.isfinite(one)
    if (defined != np.isfinite(other)).any():
        return Difference(part, "different", None, "values are defined in one result only")
    highest = max(np.abs(one[defined]).max(initial=0), np.abs(other[defined]).max(initial=0))
    largest = float(np.abs(one - other)[defined].max(initial=0) / (highest or 1.0))
    words = f"{float(one):.6g} and {float(other):.6g}" if one.ndim == 0 else ""
    return Difference(part, "close" if largest <= CLOSE else "different", largest, words)
