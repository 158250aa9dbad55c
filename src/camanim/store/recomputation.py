"""Compute a result again, with its findings, and compare."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Any

from camanim.errors import CamError, Cancelled
from camanim.findings import Finding, find_kind
from camanim.images import Prepared
from camanim.pipeline import network_record, recompute
from camanim.progress import Progress, silent
from camanim.result import Result
from camanim.store.differences import Difference, diff, numbers_equal, sentence


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
        """Whether the maps and all other numbers that were compared are equal, or close.

        What was not compared is in `not_compared`.
        """
        return numbers_equal(self.differences)

    @property
    def not_compared(self) -> list[Difference]:
        """What could not be computed again, such as findings for which a mask is needed."""
        return [each for each in self.differences if each.verdict == "not compared"]

    @property
    def words(self) -> str:
        """The comparison in one sentence."""
        return sentence(self.differences)


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
    # The old ones are of the computer that computed the maps at that time.
    record = network_record(fresh.model, Prepared(fresh.tensor, fresh.geometry, fresh.image))
    fresh.provenance |= record | {"device": str(fresh.model.device)}
    if "weights" not in record:
        fresh.provenance.pop("weights", None)
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
