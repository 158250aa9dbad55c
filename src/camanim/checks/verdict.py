"""What sanity checks share: whether a check is passed, and the median behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from camanim.declarations import Range
from camanim.findings import Finding

Floats = npt.NDArray[np.float64]

#: A rank correlation.
Correlation = Annotated[float, Range(-1, 1)]


@dataclass(frozen=True)
class Check(Finding):
    """A finding that can be passed or failed."""

    @property
    def passed(self) -> bool | None:
        """Whether the check is passed; None where nothing could be compared."""
        raise NotImplementedError

    @property
    def verdict(self) -> str:
        """What the check says of the method, in one sentence."""
        raise NotImplementedError

    def caption(self, i: int) -> str:
        """Return a few words about a failed check; they stand beside every layer."""
        return f"FAILS the {self.title.lower()} check" if self.passed is False else ""

    def summary(self) -> str:
        """Return the verdict; a failed check has it among the warnings."""
        return "" if self.passed is False else self.verdict

    def warnings(self) -> tuple[str, ...]:
        """Return the verdict of a failed check."""
        return (self.verdict,) if self.passed is False else ()


def median_of(values: Any) -> float:
    """Return the median without NaN; NaN where all values are."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(np.median(known)) if known.size else float("nan")


def is_below(median: float, threshold: float) -> bool | None:
    """Return whether maps differ enough; None where nothing could be compared."""
    return None if np.isnan(median) else median < threshold
