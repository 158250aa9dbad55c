"""Which perturbed images the network must be shown: each distinct one once."""

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

#: Seeds whose ties, and whose noise, are held at a time.
HELD = 4


@dataclass(frozen=True)
class Entry:
    """A map, and the repeats that it takes part in.

    Attributes
    ----------
    raw : (*s) float32
        Its positive part must not be constant.
    repeats : tuple of int
    """

    raw: FloatMap
    repeats: tuple[int, ...]


@dataclass(frozen=True)
class Key:
    """A perturbed image: which pixels are kept (a hash), and whose noise is on the others."""

    mask: bytes
    seed: int


@dataclass(frozen=True)
class _Source:
    """Where a mask comes from, to make it again."""

    entry: int
    repeat: int
    side: int
    share: int


class Plan:
    """All masks of all maps; identical ones are one, whichever map they come from.

    Masks are made twice, first to tell them apart and then when their turn comes: holding them would
    take more memory than all maps.

    Parameters
    ----------
    entries : sequence of Entry
    size : tuple of int
        Of the network's input.
    shares : tuple of P floats
        Percentiles.
    seeds : tuple of R ints
        One per repeat.
    progress : Progress

    Attributes
    ----------
    keys : list of Key
        The distinct perturbed images. Those of one mask follow each other.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        size: tuple[int, ...],
        shares: tuple[float, ...],
        seeds: tuple[int, ...],
        progress: Progress,
    ) -> None:
        self.entries, self.size, self.shares, self.seeds = entries, size, shares, seeds
        self.keys: list[Key] = []
        self._sources: list[_Source] = []
        self._drawn: dict[int, Ranks] = {}
        self._made: dict[tuple[int, int], Masks] = {}
        self._places = np.full((len(entries), len(seeds), 2, len(shares)), -1)
        known: dict[Key, int] = {}
        for i in range(len(entries)):
            progress("masks", i, len(entries))
            self._enter(i, known)

    def _enter(self, i: int, known: dict[Key, int]) -> None:
        found: dict[bytes, list[_Source]] = defaultdict(list)
        for r in self.entries[i].repeats:
            for (side, share), mask in _each(self._masks(i, r)):
                packed = np.packbits(mask).tobytes()
                digest = hashlib.blake2b(packed, digest_size=16).digest()
                found[digest].append(_Source(i, r, side, share))
        for digest, sources in found.items():
            for source in sources:
                key = Key(digest, self.seeds[source.repeat])
                if key not in known:
                    known[key] = len(self.keys)
                    self.keys.append(key)
                    self._sources.append(source)
                self._places[i, source.repeat, source.side, source.share] = known[key]

    def _masks(self, i: int, r: int) -> Masks:
        """Make the masks (2, P, *S) of a map in a repeat; the last ones are held."""
        if (i, r) not in self._made:
            large = relevance(self.entries[i].raw, self.size)
            masks = np.stack(kept_pixels(large, self.shares, self._ties(self.seeds[r])))
            self._made = {(i, r): masks}
        return self._made[i, r]

    def _ties(self, seed: int) -> Ranks:
        """Draw the order of equal pixels; of many repeats a few are held."""
        if seed not in self._drawn:
            if len(self._drawn) >= HELD:
                self._drawn.clear()
            self._drawn[seed] = tie_break(prod(self.size), seed)
        return self._drawn[seed]

    def images(self, places: Sequence[int]) -> tuple[Masks, npt.NDArray[np.intp]]:
        """Make the masks of some of the perturbed images.

        Returns
        -------
        kept : (M, *S) bool
            Each distinct mask once.
        which : (N,) int
            For each image its mask.
        """
        kept: list[Masks] = []
        which: list[int] = []
        before = None
        for place in places:
            if self.keys[place].mask != before:
                before = self.keys[place].mask
                source = self._sources[place]
                kept.append(self._masks(source.entry, source.repeat)[source.side, source.share])
            which.append(len(kept) - 1)
        return np.stack(kept), np.asarray(which)

    def look_up(self, values: Floats) -> tuple[Floats, Floats]:
        """Distribute the values of `keys` to maps: MoRF and LeRF, each (R, M, P), NaN where none is."""
        # The last value serves the place -1 of maps that take no part.
        spread = np.append(values, np.nan)[self._places].swapaxes(0, 1)
        return spread[:, :, 0], spread[:, :, 1]


def _each(masks: Masks) -> list[tuple[tuple[int, int], Masks]]:
    return [((j, k), masks[j, k]) for j in range(masks.shape[0]) for k in range(masks.shape[1])]
