"""Exceptions of camanim, all derived from `CamError` except `NoMap`, which stays inside.

None of them derives from `RuntimeError`: napari's thread workers take a `RuntimeError` for a deleted Qt
object and discard it, and the run would never end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class CamError(Exception):
    """Base class of all errors of camanim; the message names the problem and a remedy."""


class ImageError(CamError):
    """The image has an unsupported rank, type or range, is empty, or holds non-finite values."""


class ModelError(CamError):
    """The network is unknown, cannot be loaded, or fails on this input."""


class MethodError(CamError):
    """The method is unknown, an option is wrong, or the method fails on this network."""


class TargetError(CamError):
    """The target does not exist, or does not match the output of the network."""


class LayerError(CamError):
    """No layer matches the selection, or none of the selected layers has a map."""


class LayerIndexError(LayerError, IndexError):
    """The index of a layer is out of range."""


class SettingError(CamError, TypeError):
    """A setting is unknown, of the wrong type or out of range."""


class ScoreError(CamError):
    """Maps cannot be scored, checked or compared with a mask, or this was not done yet."""


class EditError(CamError):
    """A region of the image cannot be replaced: its mask, or how it is replaced, is wrong."""


class RenderError(CamError):
    """A movie, picture, plot or table cannot be drawn or written."""


class StoreError(CamError):
    """A result cannot be saved, or a file of a result cannot be opened."""


class OutOfMemory(CamError):
    """The device has too little memory for this network at this input size."""


class InternalError(CamError):
    """The code of camanim fails, neither the network nor the input: a bug."""


class Cancelled(CamError):
    """Raised by a progress callback to stop a run; maps computed so far are kept."""


class NoMap(Exception):
    """Raised by a method that has no map for a layer; the message becomes the layer's status."""


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, the one during which it was raised, and so on."""
    while error is not None:
        yield error
        error = error.__context__


def interrupt_behind(error: BaseException) -> BaseException | None:
    """Return the interrupt that an error came from, if any.

    A context that an interrupt broke may fail in turn, with an error that is not the network's.
    """
    interrupts = (e for e in chain_of(error) if isinstance(e, KeyboardInterrupt | SystemExit))
    return next(interrupts, None)


def raise_interrupt_behind(error: BaseException) -> None:
    """Raise the interrupt that an error came from, if any."""
    interrupt = interrupt_behind(error)
    if interrupt is not None:
        raise interrupt
