"""List of the distinct perturbed images of all maps, percentiles and repeats."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from camanim.progress import Progress
from camanim.road.masks import Masks, Ranks, kept_pixels, tie_break
from camanim.stack import FloatMap, relevance

Floats = npt.NDArray[np.float64]

#: Maximum number of seeds whose tie-breaks and noise are kept in memory.
CACHED_SEEDS = 4


@dataclass(frozen=True)
class Entry:
    """A map and the repeats in which it is scored.

    Attributes
    ----------
    raw : (*s) float32
        Map whose positive part is not constant.
    repeats : tuple of int
    """

    raw: FloatMap
    repeats: tuple[int, ...]


@dataclass(frozen=True)
class Key:
    """A perturbed image: the hash of its mask, and the seed of its noise."""

    mask: bytes
    seed: int


@dataclass(frozen=True)
class _Source:
    """Indices from which a mask is recomputed."""

    entry: int
    repeat: int
    side: int
    percentile: int


class Plan:
    """All masks of all maps, without duplicates.

    Masks are computed twice, first to hash them and again when their images are predicted: storing them
    would take more memory than all maps.

    Parameters
    ----------
    entries : sequence of Entry
    size : tuple of int
        Spatial size of the network's input.
    percentiles : tuple of P floats
        Fractions of the pixels that are kept, in percent.
    seeds : tuple of R ints
        Seed of each repeat.
    progress : Progress

    Attributes
    ----------
    keys : list of Key
        The distinct perturbed images; those with the same mask are adjacent.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        size: tuple[int, ...],
        percentiles: tuple[float, ...],
        seeds: tuple[int, ...],
        progress: Progress,
    ) -> None:
        self.entries, self.size, self.percentiles, self.seeds = entries, size, percentiles, seeds
        self.keys: list[Key] = []
        self._sources: list[_Source] = []
        self._ranks: dict[int, Ranks] = {}
        self._last_masks: dict[tuple[int, int], Masks] = {}
        self._positions = np.full((len(entries), len(seeds), 2, len(percentiles)), -1)
        positions: dict[Key, int] = {}
        for i in range(len(entries)):
            progress("masks", i, len(entries))
            self._add_entry(i, positions)
        progress("masks", len(entries), len(entries))

    def _add_entry(self, i: int, positions: dict[Key, int]) -> None:
        """Append the images of a map to `keys`, grouped by mask."""
        sources: dict[bytes, list[_Source]] = defaultdict(list)
        for r in self.entries[i].repeats:
            masks = self._masks(i, r)
            for side, percentile in np.ndindex(masks.shape[:2]):
                packed = np.packbits(masks[side, percentile]).tobytes()
                digest = hashlib.blake2b(packed, digest_size=16).digest()
                sources[digest].append(_Source(i, r, side, percentile))
        for digest, group in sources.items():
            for source in group:
                key = Key(digest, self.seeds[source.repeat])
                if key not in positions:
                    positions[key] = len(self.keys)
                    self.keys.append(key)
                    self._sources.append(source)
                index = (i, source.repeat, source.side, source.percentile)
                self._positions[index] = positions[key]

    def _masks(self, i: int, r: int) -> Masks:
        """Return the masks (2, P, *S) of a map in a repeat; the last result is cached."""
        if (i, r) not in self._last_masks:
            large = relevance(self.entries[i].raw, self.size)
            masks = np.stack(kept_pixels(large, self.percentiles, self._tie_break(self.seeds[r])))
            self._last_masks = {(i, r): masks}
        return self._last_masks[i, r]

    def _tie_break(self, seed: int) -> Ranks:
        """Return the tie-break of a seed; those of a few seeds are cached."""
        if seed not in self._ranks:
            if len(self._ranks) >= CACHED_SEEDS:
                self._ranks.clear()
            self._ranks[seed] = tie_break(prod(self.size), seed)
        return self._ranks[seed]

    def images(self, indices: Sequence[int]) -> tuple[Masks, npt.NDArray[np.intp]]:
        """Return the masks of the perturbed images at these indices of `keys`.

        Returns
        -------
        kept : (M, *S) bool
            The distinct masks.
        which : (N,) int
            Index of each image's mask.
        """
        kept: list[Masks] = []
        which: list[int] = []
        previous = None
        for index in indices:
            if self.keys[index].mask != previous:
                previous = self.keys[index].mask
                source = self._sources[index]
                masks = self._masks(source.entry, source.repeat)
                kept.append(masks[source.side, source.percentile])
            which.append(len(kept) - 1)
        return np.stack(kept), np.asarray(which)

    def look_up(self, values: Floats) -> tuple[Floats, Floats]:
        """Return the values of `keys` per map: MoRF and LeRF, each (R, M, P), NaN where not scored."""
        # Position -1, of maps that are not scored, selects the appended NaN.
        by_map = np.append(values, np.nan)[self._positions].swapaxes(0, 1)
        return by_map[:, :, 0], by_map[:, :, 1]
