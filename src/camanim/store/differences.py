"""Comparison of two results: settings, probability, maps and findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from numbers import Integral, Number
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from camanim.findings import Finding, plain
from camanim.result import NO_IMAGE, Result

#: Largest difference, relative to the largest value, that other threads, libraries and processors make.
CLOSE = 1e-5

Verdict = Literal["equal", "close", "different", "not compared"]
#: What a part of a result is: only numbers (and the layers that have them) count as other numbers.
Kind = Literal["number", "setting", "status"]
#: Verdicts of compared values, the worst one last.
_ORDER: tuple[Verdict, ...] = ("equal", "close", "different")
#: Fields of findings that are no results: settings, some of which depend on the computer.
_NOT_VALUES = ("layers", "parameters", "settings")


@dataclass(frozen=True)
class Difference:
    """Comparison of one part of two results.

    Attributes
    ----------
    part : str
        Such as ``maps``, ``probability``, ``road``, or a setting.
    verdict : {"equal", "close", "different", "not compared"}
        "equal" to the last bit and of the same type; "close" if no number differs by more than 1e-5 of
        the largest one, and integers and texts are the same.
    largest : float or None
        Largest difference of two numbers, relative to the largest one; None where there is none, or it
        is not defined.
    words : str
        The difference in words; empty for equal parts.
    kind : {"number", "setting", "status"}
        What was compared: numbers; a setting, a version or a hash; or why layers have no map.
    """

    part: str
    verdict: Verdict
    largest: float | None = None
    words: str = ""
    kind: Kind = "number"


def numbers_equal(differences: Sequence[Difference]) -> bool:
    """Return whether the maps and all other numbers that were compared are equal, or close.

    Settings, versions and hashes may differ.
    """
    maps = [each for each in differences if each.part == "maps"]
    return not _differing_numbers(differences) and all(e.verdict != "not compared" for e in maps)


def sentence(differences: Sequence[Difference]) -> str:
    """Return a comparison in one sentence: the numbers, the other parts that differ, what is missing."""
    numbers = [each.part for each in _differing_numbers(differences)]
    others = [e.part for e in differences if e.verdict == "different" and e.part not in numbers]
    missing = [each.part for each in differences if each.verdict == "not compared"]
    if numbers:
        text = f"different numbers: {', '.join(numbers)}"
    elif "maps" in missing:
        text = "the maps are not compared"
    else:
        close = any(each.verdict == "close" for each in differences)
        how = "close within the precision of float32" if close else "equal to the last bit"
        text = f"the numbers are {how}"
    if others:
        text = f"{text}; different settings or versions: {', '.join(others)}"
    if missing:
        text = f"{text}; not compared: {', '.join(missing)}"
    return f"{text[:1].upper()}{text[1:]}."


def _differing_numbers(differences: Sequence[Difference]) -> list[Difference]:
    return [e for e in differences if e.verdict == "different" and e.kind == "number"]


def diff(first: Result, second: Result) -> list[Difference]:
    """Compare two results, such as a saved one and the same computed again.

    Parameters
    ----------
    first, second : Result

    Returns
    -------
    list of Difference
        Settings, versions and hashes that differ; the image, its geometry, windows and the status of
        layers, where they differ; the probability; the maps of the layers that both have; and each
        finding.
    """
    return [
        *_settings(first, second),
        *_image(first, second),
        *_parts(first, second),
        *_statuses(first, second),
        _compared("probability", first.probability, second.probability),
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
        Difference(key, "different", None, f"{_short(one)} and {_short(other)}", "setting")
        for key, (one, other) in differing.items()
    ]


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _image(first: Result, second: Result) -> list[Difference]:
    if any(note in NO_IMAGE.values() for each in (first, second) for note in each.notes):
        return [Difference("image", "not compared", None, "not saved")]
    difference = _compared("image", first.image, second.image)
    return [] if difference.verdict == "equal" else [difference]


def _parts(first: Result, second: Result) -> list[Difference]:
    names = ("geometry", "placement", "windows", "extremes")
    compared = [_compared(name, getattr(first, name), getattr(second, name)) for name in names]
    return [each for each in compared if each.verdict != "equal"]


def _statuses(first: Result, second: Result) -> list[Difference]:
    statuses = [{call.label: call.status for call in each.layer_calls} for each in (first, second)]
    shared = [label for label in statuses[0] if label in statuses[1]]
    others = [label for label in shared if statuses[0][label] != statuses[1][label]]
    if not others:
        return []
    label = others[0]
    words = (
        f"{len(others)} of {len(shared)} calls, such as {label}: {statuses[0][label]} and "
        f"{statuses[1][label]}"
    )
    return [Difference("layer status", "different", None, words, "status")]


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
    compared = {label: _compared("maps", *pair) for label, pair in pairs.items()}
    worst = max(compared, key=lambda label: _badness(compared[label]))
    verdict = compared[worst].verdict
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
    if type(one) is not type(other):
        return Difference(key, "different", None, "of different kinds")
    if [layer.label for layer in one.layers] != [layer.label for layer in other.layers]:
        return Difference(key, "different", None, "of different layers")
    names = [f.name for f in fields(one) if f.name not in _NOT_VALUES]
    return _merged(key, {n: _compared(n, getattr(one, n), getattr(other, n)) for n in names})


def _badness(difference: Difference) -> tuple[int, float]:
    """Return what orders differences, the worst one last; an undefined number is the worst."""
    largest = float("inf") if difference.largest is None else difference.largest
    return _ORDER.index(difference.verdict), largest if difference.verdict != "equal" else 0.0


def _merged(part: str, compared: Mapping[str, Difference]) -> Difference:
    """Return the difference of a value that has parts."""
    changed = {name: each for name, each in compared.items() if each.verdict != "equal"}
    if not changed:
        return Difference(part, "equal", 0.0)
    worst = max(changed.values(), key=_badness)
    return Difference(part, worst.verdict, worst.largest, f"in {', '.join(changed)}")


def _compared(part: str, one: Any, other: Any) -> Difference:
    """Compare numbers, arrays, or values that are made of them."""
    if _is_number(one) and _is_number(other):
        return _numbers(part, one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return _arrays(part, one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if list(map(str, one)) != list(map(str, other)):
            return Difference(part, "different", None, "with other names")
        pairs = zip(one.items(), other.values(), strict=True)
        return _merged(part, {str(k): _compared(str(k), a, b) for (k, a), b in pairs})
    if is_dataclass(one) and type(one) is type(other):
        names = [f.name for f in fields(one)]
        return _merged(part, {n: _compared(n, getattr(one, n), getattr(other, n)) for n in names})
    if _is_sequence(one) and _is_sequence(other):
        if len(one) != len(other):
            return Difference(part, "different", None, f"{len(one)} and {len(other)} values")
        items = enumerate(zip(one, other, strict=True))
        merged = _merged(part, {str(i): _compared(str(i), a, b) for i, (a, b) in items})
        words = "" if merged.verdict == "equal" else f"{_short(one)} and {_short(other)}"
        return Difference(part, merged.verdict, merged.largest, words)
    same = type(one) is type(other) and plain(one) == plain(other)
    words = "" if same else f"{_short(one)} and {_short(other)}"
    return Difference(part, "equal" if same else "different", None, words)


def _is_number(value: Any) -> bool:
    return isinstance(value, Number | np.number) and not isinstance(value, bool)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _numbers(part: str, one: Any, other: Any) -> Difference:
    if isinstance(one, Integral) and isinstance(other, Integral):
        # Of any length, as those of Python may be.
        a, b = int(one), int(other)
        if a == b:
            return Difference(part, "equal", 0.0)
        return Difference(part, "different", abs(a - b) / max(abs(a), abs(b)), f"{one} and {other}")
    try:
        pair = [
            np.asarray(value, complex if _is_complex(one, other) else float)
            for value in (one, other)
        ]
    except OverflowError:
        return Difference(part, "different", None, f"{_short(one)} and {_short(other)}")
    compared = _arrays(part, *pair)
    words = "" if compared.verdict == "equal" else f"{one:.6g} and {other:.6g}"
    return Difference(part, compared.verdict, compared.largest, words)


def _is_complex(*values: Any) -> bool:
    return any(isinstance(value, complex | np.complexfloating) for value in values)


def _arrays(part: str, one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Difference:
    if one.shape != other.shape:
        return Difference(part, "different", None, f"{one.shape} and {other.shape}")
    if one.dtype == other.dtype and not one.dtype.hasobject and one.tobytes() == other.tobytes():
        return Difference(part, "equal", 0.0)
    if one.dtype.kind not in "iufc" or other.dtype.kind not in "iufc":
        same = one.dtype.kind == other.dtype.kind and bool((one == other).all())
        return Difference(
            part, "equal" if same else "different", None, "" if same else "other values"
        )
    same = (one == other) | ((one != one) & (other != other))
    if same.all():
        # Other types, signs of zero, or bits of NaN.
        return Difference(part, "close", 0.0, "of another type or sign")
    a, b = one[~same], other[~same]
    if not (np.isfinite(a) & np.isfinite(b)).all():
        words = "values are not finite, or defined in one result only"
        return Difference(part, "different", None, words)
    finite = [np.abs(each[np.isfinite(each)]).max(initial=0) for each in (one, other)]
    highest = float(max(finite))
    # Scaled first, as a difference of large numbers overflows.
    largest = float(np.abs(a / highest - b / highest).max())
    exact = one.dtype.kind in "iu" and other.dtype.kind in "iu"
    verdict: Verdict = "close" if largest <= CLOSE and not exact else "different"
    return Difference(part, verdict, largest)
