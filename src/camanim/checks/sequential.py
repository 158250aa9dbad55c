"""Monte Carlo p-values that stop early where the outcome is clear."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int_]

#: Number of draws at or above the observed value after which no more are made.
STOP_AFTER = 3


class SequentialTest:
    """p-values of several observed values, each against draws from its own null distribution.

    Besag & Clifford, "Sequential Monte Carlo p-values", Biometrika 78, 1991: draws stop when
    `STOP_AFTER` of them are at or above the observed value, with ``p = STOP_AFTER / draws``; otherwise
    after `draws` of them, with ``p = (1 + at or above) / (1 + draws)``. Both are valid p-values.

    Parameters
    ----------
    observed : (N,) array
        NaN where nothing is tested.
    draws : int
        Maximum number of draws.
    """

    def __init__(self, observed: Floats, draws: int) -> None:
        self.observed, self.draws = observed, draws
        self.drawn: Ints = np.zeros(len(observed), int)
        self.at_or_above: Ints = np.zeros(len(observed), int)

    @property
    def open(self) -> npt.NDArray[np.intp]:
        """Indices of the values that need further draws."""
        is_open = ~np.isnan(self.observed) & (self.at_or_above < STOP_AFTER)
        return np.flatnonzero(is_open & (self.drawn < self.draws))

    def add(self, indices: npt.NDArray[np.intp], values: Floats) -> None:
        """Add one draw for each of these values; an undefined draw (NaN) counts as at or above."""
        self.drawn[indices] += 1
        # Written so that NaN counts, which makes the test conservative.
        self.at_or_above[indices] += ~(values < self.observed[indices])

    @property
    def p_values(self) -> Floats:
        """The p-values, (N,); NaN where nothing is tested or draws are missing."""
        stopped = self.at_or_above >= STOP_AFTER
        settled = ~np.isnan(self.observed) & (stopped | (self.drawn >= self.draws))
        p = np.full(len(self.observed), np.nan)
        with np.errstate(divide="ignore"):
            sequential = np.where(
                stopped,
                STOP_AFTER / np.maximum(self.drawn, 1),
                (1 + self.at_or_above) / (1 + self.draws),
            )
        p[settled] = sequential[settled]
        return p
