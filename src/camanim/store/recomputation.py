"""Compute a result again, with its findings, and compare."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Any

from camanim.errors import CamError, Cancelled
from camanim.findings import Finding, find_kind
from camanim.pipeline import recompute
from camanim.progress import Progress, silent
from camanim.result import Result
from camanim.store.differences import Difference, diff


@dataclass(frozen=True)
class Rerun:
    """A result that was computed again, and how it differs.

    Attributes
    ----------
    result : Result
        The new result.
    differences : list of Difference
        See `camanim.diff`.
    """

    result: Result
    differences: list[Difference]

    @property
    def equal(self) -> bool:
        """Whether all numbers are equal, or close within the precision of float32."""
        numeric = [each for each in self.differences if each.verdict != "not compared"]
        return all(each.verdict != "different" or _is_version(each) for each in numeric)


def _is_version(difference: Difference) -> bool:
    """Return whether a difference is one of versions or devices, and not of numbers."""
    return difference.part in ("camanim", "torch", "torchvision", "device")


def rerun(result: Result, *, findings: bool = True, progress: Progress = silent) -> Rerun:
    """Compute a result again with its settings, and compare maps and findings.

    Parameters
    ----------
    result : Result
        As from `camanim.load`. The network is loaded, and its weights are compared with their hash; the
        input is the saved one.
    findings : bool
        Compute the findings again, too.
    progress : Progress

    Returns
    -------
    Rerun

    Raises
    ------
    CamError
        If the network or the input is not available, or method and settings are not known.
    """
    (fresh,) = recompute(result, progress=progress)
    unknown = []
    for key, finding in result.findings.items() if findings else ():
        try:
            fresh.add(_again(finding, fresh, progress))
        except Cancelled:
            raise
        except CamError as error:
            unknown.append(Difference(key, "not compared", None, str(error)))
    compared = diff(result, fresh)
    if not findings:
        compared = [each for each in compared if each.part not in result.findings]
    replaced = {each.part for each in unknown}
    return Rerun(fresh, [*(e for e in compared if e.part not in replaced), *unknown])


def _again(finding: Finding, result: Result, progress: Progress) -> Finding:
    kind = find_kind(finding.kind)
    parameters = signature(kind.compute).parameters
    settings: dict[str, Any] = {k: v for k, v in finding.parameters.items() if k in parameters}
    if kind.needs_mask:
        raise CamError("The mask that it compares with is not saved.")
    if "progress" in parameters:
        settings["progress"] = progress
    return kind.compute(result, **settings)
