"""Settings shared by `camanim.road.score` and the measures based on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from camanim.precision import Precision

if TYPE_CHECKING:
    from camanim.road.imputation import Imputer

MemoryFormat = Literal["own", "contiguous", "channels_last"]


@dataclass(frozen=True)
class ScoringSettings:
    """Validated settings of a scoring run; see `camanim.road.score`."""

    seed: int = 0
    repeats: int = 1
    percentiles: tuple[float, ...] = (20.0, 40.0, 60.0, 80.0)
    draws: int = 0
    noise: float = 0.01
    imputer: Imputer | None = None
    batch_size: int | None = None
    memory_format: MemoryFormat | None = None
    precision: Precision | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seed of each repeat."""
        return tuple(range(self.seed, self.seed + self.repeats))
