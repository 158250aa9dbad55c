"""A minimal kind of finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt

from camanim import Finding, register_finding
from camanim.declarations import Range
from camanim.findings import unregister_finding
from camanim.stack import relevance


@dataclass(frozen=True)
class Sparsity(Finding):
    """Share of the image that each map covers."""

    kind = "sparsity"
    title = "Sparsity"

    covered: npt.NDArray[np.float64]

    def columns(self):
        """Return the share covered."""
        return {"covered": self.covered}


def register() -> None:
    """Register the finding."""

    @register_finding(Sparsity)
    def sparsity(result, *, above: Annotated[float, Range(0, 1)] = 0.5, progress=None) -> Sparsity:
        """Measure the share of the image where a map is above a share of its maximum.

        Parameters
        ----------
        result : Result
        above : float
            Share of the maximum.
        progress : Progress
        """
        size = result.geometry.size
        shares = [float((relevance(raw, size) > above).mean()) for raw in result.maps]
        return Sparsity(result.layers, np.array(shares))


def unregister() -> None:
    """Unregister the finding."""
    unregister_finding("sparsity")
