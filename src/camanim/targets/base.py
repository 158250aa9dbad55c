"""What every target can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch

#: What the network's scores are: of classes that exclude one another, of labels that do not, or plain
#: numbers (regression). "auto" takes them for classes.
Kind = Literal["auto", "softmax", "sigmoid", "values"]
Of = Literal["logit", "probability"]
Unit = Literal["probability", "score"]


class Target(Protocol):
    """What is explained: a number that can be read off a network's output, for each image.

    Any object with these can be passed as a target; one that has only `score` will do.
    """

    @property
    def name(self) -> str:
        """For captions: "Egyptian cat", "Egyptian cat - tabby"."""

    @property
    def index(self) -> int | None:
        """Number of the class; None where the target is not about one class."""

    @property
    def unit(self) -> Unit:
        """What `value` is."""

    def score(self, output: Any) -> torch.Tensor:
        """Return what is differentiated, (B,), from whatever the network gave."""

    def value(self, output: Any) -> torch.Tensor:
        """Return what is shown and compared, (B,) float64: a probability where there is one."""

    def describe(self) -> dict[str, Any]:
        """Return plain data for records."""
