"""What checks have in common: what a check says, and where that is noted."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from camanim.errors import ScoreError

Floats = npt.NDArray[np.float64]


class Check(Protocol):
    """A check that can be passed or failed."""

    @property
    def passed(self) -> bool | None:
        """None where nothing could be compared."""

    @property
    def verdict(self) -> str:
        """One sentence."""


def noted(notes: list[str], before: Check | None, now: Check) -> list[str]:
    """Give an animation's notes with the verdict of a failed check, in place of what it said before."""
    kept = [note for note in notes if before is None or note != before.verdict]
    return [*kept, now.verdict] if now.passed is False else kept


def middle(values: Any) -> float:
    """Return the median of the values that there are; NaN where there are none."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(np.median(known)) if known.size else float("nan")


def is_below(median: float, threshold: float) -> bool | None:
    """Tell whether maps differ enough; None where nothing could be compared."""
    return None if np.isnan(median) else median < threshold


def check_threshold(threshold: float) -> None:
    """Refuse what is no correlation.

    Raises
    ------
    ScoreError
    """
    if not -1 <= threshold <= 1:
        raise ScoreError(f"The threshold is a rank correlation, -1 to 1, not {threshold!r}.")
