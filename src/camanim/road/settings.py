"""Settings of a scoring, as `camanim.road.score` and the other measures pass them on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from camanim.precision import Precision

if TYPE_CHECKING:
    from camanim.road.imputation import Imputer

MemoryFormat = Literal["own", "contiguous", "channels_last"]


@dataclass(frozen=True)
class ScoringSettings:
    """Settings of a scoring, checked by the function that takes them; see `camanim.road.score`."""

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
        """One seed per repeat."""
        return tuple(range(self.seed, self.seed + self.repeats))
