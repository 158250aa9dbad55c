"""What the shape of an output, and what came before it, say about its channels and its space."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

from camanim.layout.arrangement import Arrangement, ChannelsFirst, ChannelsLast, Tokens, times

if TYPE_CHECKING:
    from torch import nn

#: Where torch keeps the modules that put channels first, whatever the shape looks like.
_CHANNELS_FIRST = frozenset(
    f"torch.nn.modules.{name}"
    for name in (
        "conv",
        "batchnorm",
        "instancenorm",
        "pooling",
        "padding",
        "upsampling",
        "pixelshuffle",
    )
)
#: How many tokens of its own a network may put before those of the cells.
_MOST_LEADING = 8
#: With fewer cells, any number of tokens would look like cells and a few of the network's own.
_FEWEST_CELLS = 4
#: With fewer cells, what comes last in (B, C, N) may be anything, such as the corners of boxes.
_FEWEST_FLAT = 9
#: By how much a transformer may shrink its grid without a convolution.
_SHRINKS = (2, 4)


@dataclass(frozen=True)
class Reading:
    """What the shape of an output says.

    Attributes
    ----------
    arrangement : Arrangement or None
        The likeliest one.
    open : bool
        Whether `camanim.layout.position_tracing.trace_positions` may know better: its word goes before.
    """

    arrangement: Arrangement | None
    open: bool


class Layout:
    """Finds the channels and the space of a network's outputs, one call after the other.

    Convolutions, their normalisations and pooling have channels first, linear layers and layer
    normalisation last. Any other output is read by its shape: its sides are those of an output already
    known, or those of the output before, merged, with the input's ratio. Where two readings fit, it is
    read as the last output of that shape, or else channels come first, as is usual in torch. (B, N, C)
    are tokens where N is the number of cells of the output before, with up to eight tokens of the
    network's own in front. Where no reading fits, the output is not read. Shapes may deceive, and
    windows have none of their own: a `Reading` says where position tracing decides.

    Parameters
    ----------
    input_shape : (B, C, *S)
        Of the network's input, with two or three sides.
    """

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.images, self.sides = input_shape[0], tuple(input_shape[2:])
        #: Sides that are known, the latest last.
        self._known: dict[tuple[int, ...], None] = {self.sides: None}
        #: How many tokens attention may relate: all, or those of a window.
        self._token_counts: set[int] = set()
        self._window_counts: set[int] = set()
        self._leading = 0
        self._last_of_shape: dict[tuple[int, ...], Arrangement] = {}
        #: Shapes that convolutions and the like gave.
        self._convolved: set[tuple[int, ...]] = set()
        self._doubted = self._unfolded = False

    @property
    def _latest(self) -> tuple[int, ...]:
        return next(reversed(self._known))

    @property
    def dims(self) -> int:
        """How many axes the space has: 2 or 3."""
        return len(self.sides)

    def read(self, module: nn.Module, shape: tuple[int, ...]) -> Arrangement | None:
        """Find out how an output becomes channels over space: `look`, without its doubts."""
        return self.look(module, shape).arrangement

    def look(self, module: nn.Module, shape: tuple[int, ...]) -> Reading:
        """Find out how an output becomes channels over space, and whether that is sure.

        Parameters
        ----------
        module : torch.nn.Module
            Which gave the output.
        shape : tuple of int
            Of the output, with the axis of the images.

        Returns
        -------
        Reading
            Without an arrangement where the output has no space, or its shape does not tell.
        """
        shape = tuple(shape)
        if len(shape) < 2 or 0 in shape:
            return Reading(None, False)
        if len(shape) == self.dims + 2:
            found = self._read_image(module, shape)
        elif len(shape) == 3:
            found = self._read_tokens(module, shape)
        else:
            found = None
        if found is None:
            doubtful = self.maybe_windows(shape)
        elif _puts_channels_first(module):
            # Patches unfolded to (patch, place) are convolved like images, and so is attention.
            self._unfolded |= not self._comparable(found.space)
            cells = math.prod(self._latest)
            known = shape[2:] in self._known
            doubtful = self._unfolded or (shape[2:] == (cells, cells) and not known)
            self._convolved.add(shape)
        else:
            doubtful = self._unfolded or self._doubtful(found, shape)
        self._doubted |= doubtful
        if found is not None:
            self._last_of_shape[shape] = found
            if not (doubtful and _puts_channels_first(module)):
                self.note(found)
        return Reading(found, doubtful)

    def _doubtful(self, found: Arrangement, shape: tuple[int, ...]) -> bool:
        """Whether there is more to be said about an output than its shape does."""
        if not isinstance(found, ChannelsFirst):
            return True
        last = self.image(shape, last=True)
        if self._doubted and last is not None and self._off(last.space) < math.inf:
            return True
        usual = found.space == self._latest and not self._doubted
        return shape not in self._convolved and not usual

    def maybe_windows(self, shape: tuple[int, ...]) -> bool:
        """Whether an output that was not read may have space all the same.

        As have the windows of a transformer, merged with the images, or its heads.
        `camanim.layout.position_tracing.trace_positions` tells.
        """
        if len(shape) < 2 or 0 in shape or shape[0] % self.images:
            return False
        if shape[0] == self.images and sum(size > 1 for size in shape[1:]) < 2:
            return False
        if len(shape) > 3 and shape[-2:] not in self._known and self._is_attention(shape):
            return False
        fewest = min(math.prod(sides) for sides in self._known)
        rows = math.prod(shape) // self.images // min(shape[1], shape[-1])
        return rows >= min(fewest, _FEWEST_CELLS)

    def note(self, found: Arrangement | None) -> Arrangement | None:
        """Remember the sides of an output, for those that come."""
        if found is not None and math.prod(found.space) > 1:
            self._known.pop(found.space, None)
            self._known[found.space] = None
            if isinstance(found, Tokens):
                self._leading = found.leading
                self._token_counts.add(math.prod(found.space) + found.leading)
        return found

    # --- Images --------------------------------------------------------------------------------

    def image(self, shape: tuple[int, ...], *, last: bool) -> Arrangement | None:
        """Read an output with its sides apart, channels first or last; None where that has no sense."""
        if len(shape) != self.dims + 2 or shape[0] != self.images:
            return None
        space = tuple(shape[1:-1] if last else shape[2:])
        if math.prod(space) < 2:
            return None
        return _image(space, last=last)

    def _read_image(self, module: nn.Module, shape: tuple[int, ...]) -> Arrangement | None:
        first = self.image(shape, last=False)
        # None of one number per channel, or of another number of images.
        if first is None or _puts_channels_first(module):
            return first
        last = self.image(shape, last=True)
        off_first = self._off(first.space)
        off_last = math.inf if last is None else self._off(last.space)
        if _puts_channels_last(module):
            off_first = math.inf
        elif self._maybe_attention(shape):
            return None
        if math.inf == off_first == off_last:
            return None
        if off_first == off_last:
            # As many channels as the image has rows: an earlier output of the shape may tell.
            return None if isinstance(module, _norms()) else self._last_of_shape.get(shape, first)
        return first if off_first < off_last else last

    def _off(self, space: tuple[int, ...]) -> float:
        """How far the sides are from what is known: nothing, by their ratio, or infinitely."""
        if space in self._known:
            return 0.0
        # A row or column of single pixels has no ratio to speak of.
        if min(space) < 2 or not self._shrunk(space):
            return math.inf
        worst = 0.0
        for (a, whole_a), (b, whole_b) in combinations(zip(space, self.sides, strict=True), 2):
            off = abs(math.log(a / b) - math.log(whole_a / whole_b))
            # Beyond what whole pixels explain it is another ratio.
            worst = max(worst, off if off <= 1 / a + 1 / b else math.inf)
        return worst

    def _is_attention(self, shape: tuple[int, ...]) -> bool:
        """Whether an output relates tokens to tokens, by all appearance."""
        counts = self._token_counts | self._window_counts
        return shape[-1] == shape[-2] and shape[-1] in counts

    def _maybe_attention(self, shape: tuple[int, ...]) -> bool:
        """Whether (B, heads, N, ...) may be what attention makes of N tokens."""
        if len(shape) != 4:
            return False
        of_heads = shape[2] in self._token_counts and shape[2:] not in self._known
        return of_heads or self._is_attention(shape)

    def _shrunk(self, space: tuple[int, ...]) -> bool:
        """Whether a grid is the one before, merged cell by cell."""
        # Where nothing came before, a patch embedding may have any size.
        return self._latest == self.sides or space in _merged(self._latest)

    def _comparable(self, space: tuple[int, ...]) -> bool:
        """Whether a convolution may have made these sides of the ones before.

        All become larger or all smaller.
        """
        if space in self._known:
            return True
        pairs = list(zip(space, self._latest, strict=True))
        smaller, larger = all(a <= b for a, b in pairs), all(a >= b for a, b in pairs)
        return smaller or larger

    # --- Tokens --------------------------------------------------------------------------------

    def tokens(self, shape: tuple[int, ...], leading: int) -> Arrangement | None:
        """Read (B, N, C) or (N, B, C) as tokens, with so many before the cells."""
        if len(shape) != 3:
            return None
        axes = self._token_axes(shape)
        if axes is None:
            return None
        cells = shape[axes[2]] - leading
        grids = [*reversed(self._known), *_merged(self._latest)]
        space = next((s for s in grids if math.prod(s) == cells), None) or self._patches(cells)
        return None if space is None else _tokens(space, leading, axes)

    def _token_axes(self, shape: tuple[int, ...]) -> tuple[int, int, int] | None:
        """Where images, channels and tokens are, if the tokens come before the channels."""
        if shape[0] == self.images:
            return (0, 2, 1)
        # Images that are many could also be windows.
        if shape[1] == self.images and (self.images == 1 or shape[0] % self.images):
            return (1, 2, 0)
        return None

    def _read_tokens(self, module: nn.Module, shape: tuple[int, ...]) -> Arrangement | None:
        axes = self._token_axes(shape)
        if axes is None:
            self._window_counts.add(shape[1])
            return None
        as_tokens = self._grid(shape[axes[2]])
        may_be_flat = axes[0] == 0 and not _puts_channels_last(module)
        flat = self._grid(shape[2]) if may_be_flat and shape[2] >= _FEWEST_FLAT else None
        if flat is not None and flat[1] not in (0, self._leading):
            flat = None
        if as_tokens is not None and flat is not None:
            # Tokens by tokens, or as many channels as tokens: an earlier output of the shape may tell.
            return self._last_of_shape.get(shape)
        if as_tokens is not None:
            return _tokens(*as_tokens, axes)
        return None if flat is None else _tokens(*flat, (0, 1, 2))

    def _grid(self, count: int) -> tuple[tuple[int, ...], int] | None:
        """Find the sides of so many tokens, and how many of them come before the cells."""
        latest = self._latest
        if len(self._known) == 1:
            return self._first_grid(count)
        leading = count - math.prod(latest)
        if 0 <= leading <= _MOST_LEADING and math.prod(latest) >= _FEWEST_CELLS:
            return latest, leading
        for sides in _merged(latest):
            if math.prod(sides) == count >= _FEWEST_CELLS:
                return sides, 0
        for sides in reversed(self._known):
            if math.prod(sides) == count >= _FEWEST_CELLS:
                return sides, 0
            if self._leading and math.prod(sides) + self._leading == count:
                return sides, self._leading
        return None

    def _first_grid(self, count: int) -> tuple[tuple[int, ...], int] | None:
        """Find the patches of the input that so many tokens are; nothing else is known."""
        for leading in range(min(_MOST_LEADING, count) + 1):
            space = self._patches(count - leading)
            if space is not None and math.prod(space) >= _FEWEST_CELLS:
                return space, leading
        return None

    def _patches(self, cells: int) -> tuple[int, ...] | None:
        """Divide the input into so many square patches."""
        for size in range(1, min(self.sides) + 1):
            space = tuple(side // size for side in self.sides)
            if math.prod(space) == cells and not any(side % size for side in self.sides):
                return space
        return None


def _tokens(space: tuple[int, ...], leading: int, axes: tuple[int, int, int]) -> Tokens:
    after = f" after {leading}" if leading else ""
    return Tokens(f"tokens {times(space)}{after}", space, leading, axes)


@lru_cache(maxsize=1024)
def _image(space: tuple[int, ...], *, last: bool) -> Arrangement:
    depth = "D" * (len(space) == 3)
    return ChannelsLast(f"N{depth}HWC", space) if last else ChannelsFirst(f"NC{depth}HW", space)


def _merged(space: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The grids that a grid may become when its cells are merged, what is left of a side or not."""
    return [
        grid
        for factor in _SHRINKS
        for grid in (
            tuple(-(-side // factor) for side in space),
            tuple(side // factor for side in space),
        )
        if math.prod(grid) > 1
    ]


def _puts_channels_first(module: nn.Module) -> bool:
    return _is_channels_first(type(module))  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def _is_channels_first(kind: type) -> bool:
    return any(base.__module__ in _CHANNELS_FIRST for base in kind.__mro__)


def _puts_channels_last(module: nn.Module) -> bool:
    """Whether a module works on the last axis: not, where a class for images was derived from it."""
    from torch import nn

    if isinstance(module, nn.Linear):
        return type(module).forward is nn.Linear.forward
    for kind in _norms():
        if isinstance(module, kind):
            return type(module).forward is kind.forward and len(module.normalized_shape) == 1
    return False


def _norms() -> tuple[type[nn.LayerNorm], type[nn.RMSNorm]]:
    from torch import nn

    return nn.LayerNorm, nn.RMSNorm
