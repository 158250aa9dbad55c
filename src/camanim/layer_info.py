"""The layers of a run: every call of every module, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class Status:
    """What became of a layer; the words that tables and tooltips show."""

    OK = "ok"
    NOT_SPATIAL = "1-D"
    OFF_PATH = "off the target's path"
    NO_TENSOR = "no tensor output"
    NOT_FINITE = "map not finite"
    NOT_SELECTED = "not selected"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class LayerInfo:
    """One call of one module.

    Attributes
    ----------
    index : int
        Position in the order of execution, over all calls of all modules.
    name : str
        The module's name as in ``named_modules()``; the network itself has the name ``""``.
    call : int
        0, 1, ... where a module runs more than once.
    kind : str
        The module's class, such as ``Conv2d``.
    shape : tuple of int or None
        Shape of the output, with its batch axis; None where it is no tensor.
    parameters : int
        Number of parameters of the module and what it contains.
    same_as : int or None
        Index of the earlier layer whose very output this one hands on.
    status : str
        One of `Status`: ``ok`` where there is a map, else why there is none.
    milliseconds : float
        Time its map took, beyond the network's own forward and backward; 0 without a map.
    layout : str
        How the output was read as channels over space: ``NCHW``, ``NHWC``,
        ``tokens 14 x 14 after 1``, ...; empty where it was not.
    """

    index: int
    name: str
    call: int
    kind: str
    shape: tuple[int, ...] | None
    parameters: int
    same_as: int | None = None
    status: str = Status.NOT_SELECTED
    milliseconds: float = 0.0
    layout: str = ""

    @property
    def label(self) -> str:
        """The name, with the number of the call behind a colon from the second call on."""
        name = self.name or "(network)"
        return f"{name}:{self.call}" if self.call else name

    def with_status(self, status: str, milliseconds: float = 0.0) -> LayerInfo:
        """Return the same layer with another status."""
        return self._replaced(status=status, milliseconds=milliseconds)

    def with_layout(self, layout: str) -> LayerInfo:
        """Return the same layer, read in another way."""
        return self._replaced(layout=layout)

    def _replaced(self, **changes: Any) -> LayerInfo:
        # As dataclasses.replace, at a fifth of its time: this runs for each layer and target.
        copied = object.__new__(type(self))
        vars(copied).update(vars(self), **changes)
        return copied
