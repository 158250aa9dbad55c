"""Base class and helpers of sanity checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from camanim.declarations import Range
from camanim.findings import Finding

Floats = npt.NDArray[np.float64]

#: Threshold on a rank correlation.
Correlation = Annotated[float, Range(-1, 1)]


@dataclass(frozen=True)
class Check(Finding):
    """A finding that can be passed or failed."""

    @property
    def passed(self) -> bool | None:
        """Whether the check is passed; None if it is undefined."""
        raise NotImplementedError

    @property
    def verdict(self) -> str:
        """Result of the check in one sentence."""
        raise NotImplementedError

    def caption(self, i: int) -> str:
        """Return a remark on every layer if the check is failed; else empty."""
        return f"FAILS the {self.title.lower()} check" if self.passed is False else ""

    def summary(self) -> str:
        """Return the verdict; empty for a failed check, whose verdict is a warning."""
        return "" if self.passed is False else self.verdict

    def warnings(self) -> tuple[str, ...]:
        """Return the verdict of a failed check."""
        return (self.verdict,) if self.passed is False else ()


def median_of(values: Any) -> float:
    """Return the median, ignoring NaN; NaN if all values are."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(np.median(known)) if known.size else float("nan")


def is_below(median: float, threshold: float) -> bool | None:
    """Return whether the median is below the threshold; None if it is NaN."""
    return None if np.isnan(median) else median < threshold
