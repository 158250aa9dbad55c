"""Arrangements: convert an output to channels over space, (B, C, *space), and back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Arrangement(ABC):
    """Conversion of the output of a module to channels over space.

    Attributes
    ----------
    name : str
        Name for users: ``NCHW``, ``NHWC``, ``tokens 14 x 14 after 1``, ``windows 7 x 7``, ...
    space : tuple of int
        Sides of the space, (h, w) or (d, h, w).
    """

    name: str
    space: tuple[int, ...]

    @abstractmethod
    def to_channels(self, output: torch.Tensor) -> torch.Tensor:
        """Convert an output or its gradient to (B, C, *space), for any number of images.

        The conversion is differentiable, and returns a view if possible.
        """

    @abstractmethod
    def from_channels(self, channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Invert `to_channels`.

        Parameters
        ----------
        channels : torch.Tensor
            (N, C, *space), of N images.
        like : torch.Tensor
            Output of the module for one image, from which elements outside the space are taken (class
            tokens, registers, padding).

        Returns
        -------
        torch.Tensor
            In the format of the module's output for N images; it may share memory with `channels`.
        """


class ChannelsFirst(Arrangement):
    """(B, C, *space), the output of convolutions."""

    def to_channels(self, output: torch.Tensor) -> torch.Tensor:
        """Return the output."""
        return output

    def from_channels(self, channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return the channels."""
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
    """Cells as tokens, after leading tokens without a position (class, distillation, registers).

    Attributes
    ----------
    leading : int
        Number of tokens before the cells.
    axes : tuple of int
        Axes of the output in the order image, channel, token: (0, 2, 1) for (B, N, C).
    """

    leading: int = 0
    axes: tuple[int, int, int] = (0, 2, 1)

    def to_channels(self, output: torch.Tensor) -> torch.Tensor:
        """Drop the leading tokens and fold the others into the space."""
        tokens: torch.Tensor = output.permute(self.axes)[:, :, self.leading :]
        return tokens.reshape(*tokens.shape[:2], *self.space)

    def from_channels(self, channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Flatten the cells, after the leading tokens of `like`."""
        import torch

        tokens = channels.flatten(2).to(like.dtype)
        leading = like.permute(self.axes)[:1, :, : self.leading].expand(len(tokens), -1, -1)
        back = sorted(range(3), key=self.axes.__getitem__)
        return torch.cat([leading, tokens], 2).permute(back)


@dataclass(frozen=True)
class Stripes(Arrangement):
    """An output without space as one channel, with a cell per element."""

    def to_channels(self, output: torch.Tensor) -> torch.Tensor:
        """Reshape the elements to (B, 1, *space)."""
        return output.reshape(len(output), 1, *self.space)

    def from_channels(self, channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Reshape the cells to the shape of `like`."""
        return channels.reshape(len(channels), *like.shape[1:]).to(like.dtype)


@dataclass(frozen=True)
class Gathered(Arrangement):
    """Cells in any order, such as windows of a transformer.

    Attributes
    ----------
    index : torch.Tensor
        (cells,) int64: the row of each cell in the output of one image, in the order of `space`. Rows
        are counted over all axes except channels.
    channels : tuple of int
        Axes of the output that hold channels, in ascending order.
    images : int
        Axis of the output along which images are joined.
    per_image : int
        Length of this axis for one image.
    """

    index: torch.Tensor = field(compare=False, repr=False)
    channels: tuple[int, ...]
    images: int
    per_image: int

    def to_channels(self, output: torch.Tensor) -> torch.Tensor:
        """Select the rows of the cells, in the order of `space`."""
        rows = self._rows(output).flatten(2)
        cells: torch.Tensor = rows.index_select(1, self.index.to(rows.device))
        return cells.transpose(1, 2).reshape(len(cells), -1, *self.space)

    def from_channels(self, channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Write the cells to their rows in copies of `like`."""
        count = len(channels)
        cells = channels.flatten(2).transpose(1, 2).to(like.dtype)
        rows = self._rows(like).flatten(2).expand(count, -1, -1)
        rows = rows.index_copy(1, self.index.to(rows.device), cells)
        sizes = self._split_images(like).shape
        order = self._order(like.ndim)
        parts = rows.reshape(count, *(sizes[axis] for axis in order[1:]))
        back = sorted(range(len(order)), key=order.__getitem__)
        joined: torch.Tensor = parts.permute(back).flatten(self.images, self.images + 1)
        return joined

    def _split_images(self, output: torch.Tensor) -> torch.Tensor:
        """Return a view with a separate axis for images."""
        split: torch.Tensor = output.unflatten(self.images, (-1, self.per_image))
        return split

    def _order(self, ndim: int) -> list[int]:
        """Return the axes of `_split_images` in the order images, rows, channels."""
        channels = [axis + (axis > self.images) for axis in self.channels]
        rows = [axis for axis in range(ndim + 1) if axis not in (self.images, *channels)]
        return [self.images, *rows, *channels]

    def _rows(self, output: torch.Tensor) -> torch.Tensor:
        """Return the output as (B, rows, C)."""
        ordered = self._split_images(output).permute(self._order(output.ndim))
        first_channel = output.ndim + 1 - len(self.channels)
        count = math.prod(ordered.shape[1:first_channel])
        return ordered.reshape(ordered.shape[0], count, -1)


@dataclass(frozen=True)
class Custom(Arrangement):
    """Conversion by a function of the user, such as a ``reshape_transform`` of grad-cam."""

    function: Callable[[torch.Tensor], torch.Tensor]

    def to_channels(self, output: torch.Tensor) -> torch.Tensor:
        """Call the function."""
        return self.function(output)

    def from_channels(self, channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Write each element to the position from which the function takes it.

        Raises
        ------
        NoMap
            If the function does more than select and reorder elements.
        """
        import torch

        from camanim.errors import NoMap

        # Applied to indices, a function that only reorders elements returns the index of each.
        indices = torch.arange(like.numel(), dtype=torch.float64, device=like.device)
        reordered = self.function(indices.reshape(like.shape)).flatten()
        index = reordered.long()
        invertible = (
            reordered.numel() == channels[0].numel()
            and bool((index == reordered).all() & (index >= 0).all() & (index < len(indices)).all())
            and len(index.unique()) == len(index)
        )
        if not invertible:
            raise NoMap(f"{self.name} cannot be inverted")
        rows = like.reshape(1, -1).expand(len(channels), -1)
        values = channels.flatten(1).to(like.dtype)
        shape = (len(channels) * like.shape[0], *like.shape[1:])
        return rows.index_copy(1, index, values).reshape(shape)
