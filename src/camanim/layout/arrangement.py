"""The ways in which an output's axes are channels over space, there and back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def times(sizes: Iterable[int]) -> str:
    """Write sizes as users read them: ``7 x 7``."""
    return " x ".join(str(size) for size in sizes)


@dataclass(frozen=True)
class Arrangement(ABC):
    """How one module's output becomes channels over space.

    Attributes
    ----------
    name : str
        As users see it: ``NCHW``, ``NHWC``, ``tokens 14 x 14 after 1``, ``windows 7 x 7``, ...
    space : tuple of int
        (h, w) or (d, h, w)
    """

    name: str
    space: tuple[int, ...]

    @abstractmethod
    def to_channels(self, output: torch.Tensor) -> torch.Tensor:
        """Bring an output, or its gradient, into the form (B, C, *space).

        A view where one will do; differentiable; for any number of images.
        """

    @abstractmethod
    def from_channels(self, channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Turn `to_channels` around.

        Parameters
        ----------
        channels : torch.Tensor
            (N, C, *space); each replaces the activation of one image.
        like : torch.Tensor
            The module's output for one image. What is not channels over space (class tokens,
            registers, padding) comes from there.

        Returns
        -------
        torch.Tensor
            What the module would have given for N images; it may share memory with `channels`.
        """


class ChannelsFirst(Arrangement):
    """(B, C, *space), as convolutions give it."""

    def to_channels(self, output: torch.Tensor) -> torch.Tensor:
        """Hand on the output."""
        return output

    def from_channels(self, channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Hand on the channels."""
        return channels.to(like.dtype)


class ChannelsLast(Arrangement):
    """(B, *space, C), as in ConvNeXt and Swin."""

    def to_channels(self, output: torch.Tensor) -> torch.Tensor:
        """Move the channels to the front."""
        return output.movedim(-1, 1)

    def from_channels(self, channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Move the channels to the end."""
        return channels.to(like.dtype).movedim(1, -1)


@dataclass(frozen=True)
class Tokens(Arrangement):
    """Cells in a row, behind the tokens of the network's own (class, distillation, registers).

    Attributes
    ----------
    leading : int
        How many tokens come before the cells.
    axes : tuple of int
        Of the output, in the order image, channel, token: (0, 2, 1) for (B, N, C).
    """

    leading: int = 0
    axes: tuple[int, int, int] = (0, 2, 1)

    def to_channels(self, output: torch.Tensor) -> torch.Tensor:
        """Leave the leading tokens out and fold the rest."""
        tokens: torch.Tensor = output.permute(self.axes)[:, :, self.leading :]
        return tokens.reshape(*tokens.shape[:2], *self.space)

    def from_channels(self, channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Put the leading tokens of `like` before the cells."""
        import torch

        tokens = channels.flatten(2).to(like.dtype)
        leading = like.permute(self.axes)[:1, :, : self.leading].expand(len(tokens), -1, -1)
        back = sorted(range(3), key=self.axes.__getitem__)
        return torch.cat([leading, tokens], 2).permute(back)


@dataclass(frozen=True)
class Stripes(Arrangement):
    """An output without space: one channel, with a cell for each of its numbers."""

    def to_channels(self, output: torch.Tensor) -> torch.Tensor:
        """Lay the numbers side by side."""
        return output.reshape(len(output), 1, *self.space)

    def from_channels(self, channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Give the numbers their own shape again."""
        return channels.reshape(len(channels), *like.shape[1:]).to(like.dtype)


@dataclass(frozen=True)
class Gathered(Arrangement):
    """Cells in any order, such as that of a transformer's windows.

    Attributes
    ----------
    index : torch.Tensor
        (cells,) int64: which row of one image's output is which cell, in the order of `space`. Rows are
        counted over all axes but the channels'.
    channels : tuple of int
        The axes of the output that hold channels, in ascending order.
    images : int
        The axis of the output along which images follow each other.
    per_image : int
        The length of that axis for one image.
    """

    index: torch.Tensor = field(compare=False, repr=False)
    channels: tuple[int, ...]
    images: int
    per_image: int

    def to_channels(self, output: torch.Tensor) -> torch.Tensor:
        """Take the rows of the cells, in their order."""
        rows = self._rows(output).flatten(2)
        cells: torch.Tensor = rows.index_select(1, self.index.to(rows.device))
        return cells.transpose(1, 2).reshape(len(cells), -1, *self.space)

    def from_channels(self, channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Put the cells into their rows; all other rows are those of `like`."""
        count = len(channels)
        cells = channels.flatten(2).transpose(1, 2).to(like.dtype)
        own = self._rows(like)
        rows = own.flatten(2).expand(count, -1, -1)
        rows = rows.index_copy(1, self.index.to(rows.device), cells)
        sizes = self._apart(like).shape
        order = self._order(like.ndim)
        parts = rows.reshape(count, *(sizes[axis] for axis in order[1:]))
        back = sorted(range(len(order)), key=order.__getitem__)
        joined: torch.Tensor = parts.permute(back).flatten(self.images, self.images + 1)
        return joined

    def _apart(self, output: torch.Tensor) -> torch.Tensor:
        """Give the images an axis of their own."""
        apart: torch.Tensor = output.unflatten(self.images, (-1, self.per_image))
        return apart

    def _order(self, ndim: int) -> list[int]:
        """Order the axes of `_apart`: images, rows, channels."""
        channels = [axis + (axis > self.images) for axis in self.channels]
        rows = [axis for axis in range(ndim + 1) if axis not in (self.images, *channels)]
        return [self.images, *rows, *channels]

    def _rows(self, output: torch.Tensor) -> torch.Tensor:
        """(B, rows, C)."""
        sizes = self._apart(output).permute(self._order(output.ndim))
        split = output.ndim + 1 - len(self.channels)
        count = math.prod(sizes.shape[1:split])
        return sizes.reshape(sizes.shape[0], count, -1)


@dataclass(frozen=True)
class Custom(Arrangement):
    """Whatever a user's function makes of an output, as grad-cam's ``reshape_transform``."""

    function: Callable[[torch.Tensor], torch.Tensor]

    def to_channels(self, output: torch.Tensor) -> torch.Tensor:
        """Call the function."""
        return self.function(output)

    def from_channels(self, channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Put each number back to where the function takes it from.

        Raises
        ------
        NoMap
            Where the function does more than choose and order numbers.
        """
        import torch

        from camanim.errors import NoMap

        # Numbers of places go through the function instead of values.
        places = torch.arange(like.numel(), dtype=torch.float64, device=like.device)
        found = self.function(places.reshape(like.shape)).flatten()
        index = found.long()
        moved = (
            found.numel() == channels[0].numel()
            and bool((index == found).all() & (index >= 0).all() & (index < len(places)).all())
            and len(index.unique()) == len(index)
        )
        if not moved:
            raise NoMap(f"{self.name} cannot be turned around")
        rows = like.reshape(1, -1).expand(len(channels), -1)
        values = channels.flatten(1).to(like.dtype)
        shape = (len(channels) * like.shape[0], *like.shape[1:])
        return rows.index_copy(1, index, values).reshape(shape)
