"""Infer the channels and the space of an output from its shape and from earlier outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

from camanim.images.geometry import format_size
from camanim.layout.arrangement import Arrangement, ChannelsFirst, ChannelsLast, Tokens

if TYPE_CHECKING:
    from torch import nn

#: Modules of torch whose classes always put channels first.
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
#: Largest number of leading tokens (class, distillation, registers).
_MAX_LEADING = 8
#: Smallest grid of tokens. Any number of tokens could be a smaller grid with leading tokens.
_MIN_CELLS = 4
#: Smallest grid in (B, C, N). A shorter last axis may hold other values, such as corners of boxes.
_MIN_FLAT_CELLS = 9
#: Factors by which a transformer may reduce its grid without a convolution.
_MERGE_FACTORS = (2, 4)


@dataclass(frozen=True)
class InferredLayout:
    """The layout that the shape of an output implies.

    Attributes
    ----------
    arrangement : Arrangement or None
        The most plausible arrangement.
    ambiguous : bool
        Whether `camanim.layout.position_tracing.trace_positions` takes precedence over `arrangement`.
    """

    arrangement: Arrangement | None
    ambiguous: bool


class LayoutInference:
    """Inference of the channels and the space of a network's outputs, call by call.

    Convolutions, their normalisations and pooling have channels first, linear layers and layer
    normalisation last. The layout of other outputs is inferred from the shape: the sides must be those
    of an earlier output, or those of the previous output, merged, with the ratio of the input. If both
    orders fit, the layout of the last output with the same shape is used, or else channels first, the
    convention of torch. (B, N, C) are tokens if N is the number of cells of the previous output, plus up
    to eight leading tokens. If nothing fits, there is no arrangement. The layout of windows and of some
    other outputs does not follow from the shape; it is marked as ambiguous, for position tracing.

    Parameters
    ----------
    input_shape : (B, C, *S)
        Shape of the network's input, with two or three sides.
    """

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.images, self.sides = input_shape[0], tuple(input_shape[2:])
        #: Sides of the input and of outputs, the most recent last.
        self._known: dict[tuple[int, ...], None] = {self.sides: None}
        #: Sizes of attention matrices: the numbers of all tokens, or of those in a window.
        self._token_counts: set[int] = set()
        self._window_counts: set[int] = set()
        self._leading = 0
        self._last_of_shape: dict[tuple[int, ...], Arrangement] = {}
        #: Shapes of outputs of modules that put channels first.
        self._convolved: set[tuple[int, ...]] = set()
        self._any_ambiguous = self._unfolded = False

    @property
    def _latest(self) -> tuple[int, ...]:
        return next(reversed(self._known))

    @property
    def dims(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.sides)

    def infer(self, module: nn.Module, shape: tuple[int, ...]) -> InferredLayout:
        """Infer the layout of an output, and update the state for later outputs.

        Parameters
        ----------
        module : torch.nn.Module
            Module that returned the output.
        shape : tuple of int
            Shape of the output, with the axis of images.

        Returns
        -------
        InferredLayout
            Without an arrangement if the output has no space, or it does not follow from the shape.
        """
        shape = tuple(shape)
        if len(shape) < 2 or 0 in shape:
            return InferredLayout(None, False)
        if len(shape) == self.dims + 2:
            arrangement = self._infer_image(module, shape)
        elif len(shape) == 3:
            arrangement = self._infer_tokens(module, shape)
        else:
            arrangement = None
        if arrangement is None:
            ambiguous = self.may_have_space(shape)
        elif _puts_channels_first(module):
            # Convolutions also apply to patches unfolded to (patch, position), and to attention.
            self._unfolded |= not self._comparable(arrangement.space)
            cells = math.prod(self._latest)
            known = shape[2:] in self._known
            ambiguous = self._unfolded or (shape[2:] == (cells, cells) and not known)
            self._convolved.add(shape)
        else:
            ambiguous = self._unfolded or self._is_ambiguous(arrangement, shape)
        self._any_ambiguous |= ambiguous
        if arrangement is not None:
            self._last_of_shape[shape] = arrangement
            if not (ambiguous and _puts_channels_first(module)):
                self.record(arrangement)
        return InferredLayout(arrangement, ambiguous)

    def _is_ambiguous(self, arrangement: Arrangement, shape: tuple[int, ...]) -> bool:
        """Return whether an output of `shape` may have another arrangement."""
        if not isinstance(arrangement, ChannelsFirst):
            return True
        last = self.image(shape, last=True)
        if self._any_ambiguous and last is not None and self._ratio_distance(last.space) < math.inf:
            return True
        expected = arrangement.space == self._latest and not self._any_ambiguous
        return shape not in self._convolved and not expected

    def may_have_space(self, shape: tuple[int, ...]) -> bool:
        """Return whether an output without an inferred arrangement may have space.

        Examples are windows of a transformer, which are joined with the images, and heads.
        """
        if len(shape) < 2 or 0 in shape or shape[0] % self.images:
            return False
        if shape[0] == self.images and sum(size > 1 for size in shape[1:]) < 2:
            return False
        if len(shape) > 3 and shape[-2:] not in self._known and self._is_attention(shape):
            return False
        fewest = min(math.prod(sides) for sides in self._known)
        rows = math.prod(shape) // self.images // min(shape[1], shape[-1])
        return rows >= min(fewest, _MIN_CELLS)

    def record(self, arrangement: Arrangement | None) -> Arrangement | None:
        """Record the sides of an output, for the inference of later ones, and return its arrangement."""
        if arrangement is not None and math.prod(arrangement.space) > 1:
            self._known.pop(arrangement.space, None)
            self._known[arrangement.space] = None
            if isinstance(arrangement, Tokens):
                self._leading = arrangement.leading
                self._token_counts.add(math.prod(arrangement.space) + arrangement.leading)
        return arrangement

    # --- Images --------------------------------------------------------------------------------

    def image(self, shape: tuple[int, ...], *, last: bool) -> Arrangement | None:
        """Return the arrangement of an output with separate sides, or None if the shape does not fit."""
        if len(shape) != self.dims + 2 or shape[0] != self.images:
            return None
        space = tuple(shape[1:-1] if last else shape[2:])
        if math.prod(space) < 2:
            return None
        return _image(space, last=last)

    def _infer_image(self, module: nn.Module, shape: tuple[int, ...]) -> Arrangement | None:
        first = self.image(shape, last=False)
        # None of a single pixel, or of another number of images.
        if first is None or _puts_channels_first(module):
            return first
        last = self.image(shape, last=True)
        distance_first = self._ratio_distance(first.space)
        distance_last = math.inf if last is None else self._ratio_distance(last.space)
        if _puts_channels_last(module):
            distance_first = math.inf
        elif self._maybe_attention(shape):
            return None
        if math.inf == distance_first == distance_last:
            return None
        if distance_first == distance_last:
            # Both orders fit: use the arrangement of the last output of this shape.
            return None if isinstance(module, _norms()) else self._last_of_shape.get(shape, first)
        return first if distance_first < distance_last else last

    def _ratio_distance(self, space: tuple[int, ...]) -> float:
        """Return the difference between the logarithms of the ratios of the sides and of the input.

        It is 0 for known sides, and infinite for sides that do not fit.
        """
        if space in self._known:
            return 0.0
        # The ratio of a single row or column of pixels is meaningless.
        if min(space) < 2 or not self._shrunk(space):
            return math.inf
        worst = 0.0
        for (a, whole_a), (b, whole_b) in combinations(zip(space, self.sides, strict=True), 2):
            distance = abs(math.log(a / b) - math.log(whole_a / whole_b))
            # A larger difference cannot result from rounding to whole pixels.
            worst = max(worst, distance if distance <= 1 / a + 1 / b else math.inf)
        return worst

    def _is_attention(self, shape: tuple[int, ...]) -> bool:
        """Return whether an output has the shape of an attention matrix."""
        counts = self._token_counts | self._window_counts
        return shape[-1] == shape[-2] and shape[-1] in counts

    def _maybe_attention(self, shape: tuple[int, ...]) -> bool:
        """Return whether an output may be (B, heads, N, ...) of N tokens."""
        if len(shape) != 4:
            return False
        of_heads = shape[2] in self._token_counts and shape[2:] not in self._known
        return of_heads or self._is_attention(shape)

    def _shrunk(self, space: tuple[int, ...]) -> bool:
        """Return whether a grid is the previous one with merged cells."""
        # The first grid is that of a patch embedding, of any size.
        return self._latest == self.sides or space in _merged(self._latest)

    def _comparable(self, space: tuple[int, ...]) -> bool:
        """Return whether all sides are at most, or all at least, those of the previous output.

        A convolution does not enlarge one side and reduce another.
        """
        if space in self._known:
            return True
        pairs = list(zip(space, self._latest, strict=True))
        smaller, larger = all(a <= b for a, b in pairs), all(a >= b for a, b in pairs)
        return smaller or larger

    # --- Tokens --------------------------------------------------------------------------------

    def tokens(self, shape: tuple[int, ...], leading: int) -> Arrangement | None:
        """Return the arrangement of (B, N, C) or (N, B, C) as tokens, or None if it does not fit."""
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
        """Return the axes of images, channels and tokens, or None for another number of images."""
        if shape[0] == self.images:
            return (0, 2, 1)
        # With several images, the second axis may also hold the tokens of a window.
        if shape[1] == self.images and (self.images == 1 or shape[0] % self.images):
            return (1, 2, 0)
        return None

    def _infer_tokens(self, module: nn.Module, shape: tuple[int, ...]) -> Arrangement | None:
        axes = self._token_axes(shape)
        if axes is None:
            self._window_counts.add(shape[1])
            return None
        as_tokens = self._grid(shape[axes[2]])
        may_be_flat = axes[0] == 0 and not _puts_channels_last(module)
        flat = self._grid(shape[2]) if may_be_flat and shape[2] >= _MIN_FLAT_CELLS else None
        if flat is not None and flat[1] not in (0, self._leading):
            flat = None
        if as_tokens is not None and flat is not None:
            # Both orders fit, or it is attention: use that of the last output of this shape.
            return self._last_of_shape.get(shape)
        if as_tokens is not None:
            return _tokens(*as_tokens, axes)
        return None if flat is None else _tokens(*flat, (0, 1, 2))

    def _grid(self, count: int) -> tuple[tuple[int, ...], int] | None:
        """Return the sides of the grid of `count` tokens, and the number of leading tokens."""
        latest = self._latest
        if len(self._known) == 1:
            return self._first_grid(count)
        leading = count - math.prod(latest)
        if 0 <= leading <= _MAX_LEADING and math.prod(latest) >= _MIN_CELLS:
            return latest, leading
        for sides in _merged(latest):
            if math.prod(sides) == count >= _MIN_CELLS:
                return sides, 0
        for sides in reversed(self._known):
            if math.prod(sides) == count >= _MIN_CELLS:
                return sides, 0
            if self._leading and math.prod(sides) + self._leading == count:
                return sides, self._leading
        return None

    def _first_grid(self, count: int) -> tuple[tuple[int, ...], int] | None:
        """Return the grid of `count` tokens as patches of the input, and the leading tokens."""
        for leading in range(min(_MAX_LEADING, count) + 1):
            space = self._patches(count - leading)
            if space is not None and math.prod(space) >= _MIN_CELLS:
                return space, leading
        return None

    def _patches(self, cells: int) -> tuple[int, ...] | None:
        """Return the grid of square patches that divide the input into `cells`, or None."""
        for size in range(1, min(self.sides) + 1):
            space = tuple(side // size for side in self.sides)
            if math.prod(space) == cells and not any(side % size for side in self.sides):
                return space
        return None


def _tokens(space: tuple[int, ...], leading: int, axes: tuple[int, int, int]) -> Tokens:
    after = f" after {leading}" if leading else ""
    return Tokens(f"tokens {format_size(space)}{after}", space, leading, axes)


@lru_cache(maxsize=1024)
def _image(space: tuple[int, ...], *, last: bool) -> Arrangement:
    depth = "D" * (len(space) == 3)
    return ChannelsLast(f"N{depth}HWC", space) if last else ChannelsFirst(f"NC{depth}HW", space)


@lru_cache(maxsize=1024)
def _merged(space: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the grids that merging the cells of a grid may give, with and without incomplete cells."""
    return tuple(
        grid
        for factor in _MERGE_FACTORS
        for grid in (
            tuple(-(-side // factor) for side in space),
            tuple(side // factor for side in space),
        )
        if math.prod(grid) > 1
    )


def _puts_channels_first(module: nn.Module) -> bool:
    return _is_channels_first(type(module))  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def _is_channels_first(kind: type) -> bool:
    return any(base.__module__ in _CHANNELS_FIRST for base in kind.__mro__)


def _puts_channels_last(module: nn.Module) -> bool:
    """Return whether a module works on the last axis.

    Subclasses with another `forward` may work on images instead.
    """
    may = _may_put_channels_last(type(module))  # type: ignore[arg-type]
    return may and len(getattr(module, "normalized_shape", (0,))) == 1


@lru_cache(maxsize=1024)
def _may_put_channels_last(kind: type) -> bool:
    from torch import nn

    base = next((base for base in (nn.Linear, *_norms()) if issubclass(kind, base)), None)
    return base is not None and kind.forward is base.forward  # type: ignore[attr-defined]


def _norms() -> tuple[type[nn.LayerNorm], type[nn.RMSNorm]]:
    from torch import nn

    return nn.LayerNorm, nn.RMSNorm
