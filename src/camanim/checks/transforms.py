"""Random shifts, turns and reflections of maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camanim.stack import FloatMap


@dataclass(frozen=True)
class Transform:
    """A reflection, a turn and a shift around the edges, for maps of any resolution.

    Attributes
    ----------
    shift : tuple of float
        Fraction of each side by which a map is shifted; what leaves at one edge enters at the other.
    turns : int
        Quarter turns in the plane of the last two axes.
    mirrored : bool
        Whether the last axis is reversed first.
    """

    shift: tuple[float, ...]
    turns: int
    mirrored: bool

    @classmethod
    def identity(cls, ndim: int) -> Transform:
        """Return the transform that changes nothing."""
        return cls((0.0,) * ndim, 0, False)

    def __call__(self, raw: FloatMap) -> FloatMap:
        """Return the transformed map."""
        moved = raw[..., ::-1] if self.mirrored else raw
        moved = np.rot90(moved, self.turns, axes=(-2, -1))
        steps = [
            round(fraction * side) for fraction, side in zip(self.shift, moved.shape, strict=True)
        ]
        return np.ascontiguousarray(np.roll(moved, steps, range(moved.ndim)))


def random_transforms(size: tuple[int, ...], count: int, seed: int) -> list[Transform]:
    """Return random transforms of maps over an input.

    Parameters
    ----------
    size : tuple of int
        Spatial size of the network's input. Quarter turns are made only if its last two sides are equal,
        else half turns.
    count : int
    seed : int
    """
    generator = np.random.default_rng([seed, count])
    step = 1 if size[-1] == size[-2] else 2
    return [
        Transform(
            tuple(map(float, generator.random(len(size)))),
            int(generator.integers(4 // step)) * step,
            bool(generator.integers(2)),
        )
        for _ in range(count)
    ]
