"""`LayerInfo`, the record of one call of one module, and its `Status`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class Status:
    """Status of a layer, as shown in tables and tooltips."""

    OK = "ok"
    NOT_SPATIAL = "1-D"
    OFF_PATH = "off the target's path"
    NO_TENSOR = "no tensor output"
    NOT_FINITE = "map not finite"
    NOT_SELECTED = "not selected"
    OVERWRITTEN = "overwritten in another thread"
    CANCELLED = "cancelled"
    OTHER_PATH = "different control flow"


@dataclass(frozen=True)
class LayerInfo:
    """One call of one module.

    Attributes
    ----------
    index : int
        Position in the order of execution, over all calls of all modules.
    name : str
        The module's name as in ``named_modules()``; ``""`` for the network itself.
    call : int
        Number of the call, for modules that run more than once: 0, 1, ...
    kind : str
        The module's class, such as ``Conv2d``.
    shape : tuple of int or None
        Shape of the output, with its batch axis; None if it is not a tensor.
    parameters : int
        Number of parameters of the module and its submodules.
    same_as : int or None
        Index of the earlier layer that has the identical output tensor.
    status : str
        One of `Status`: ``ok`` if the layer has a map, otherwise the reason why not.
    milliseconds : float
        Time for the map, without the network's forward and backward pass; 0 without a map.
    layout : str
        Layout in which the output was interpreted: ``NCHW``, ``NHWC``, ``tokens 14 x 14 after 1``, ...;
        empty if the output has no spatial layout.
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
        """The name; from the second call on, followed by a colon and the number of the call."""
        name = self.name or "(network)"
        return f"{name}:{self.call}" if self.call else name

    def __repr__(self) -> str:
        return f"<{self.index} {self.label}: {self.kind}, {self.status}>"

    def with_status(self, status: str, milliseconds: float = 0.0) -> LayerInfo:
        """Return the same layer with another status."""
        return self._replaced(status=status, milliseconds=milliseconds)

    def with_layout(self, layout: str) -> LayerInfo:
        """Return the same layer with another layout."""
        return self._replaced(layout=layout)

    def _replaced(self, **changes: Any) -> LayerInfo:
        # As dataclasses.replace, at a fifth of its time: this runs for each layer and target.
        copied = object.__new__(type(self))
        vars(copied).update(vars(self), **changes)
        return copied
