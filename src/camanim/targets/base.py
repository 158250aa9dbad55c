"""The protocol of target functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch

#: Meaning of the scores: logits of mutually exclusive classes ("softmax") or of independent labels
#: ("sigmoid"), plain numbers ("values", regression), or probabilities, of mutually exclusive classes
#: ("probabilities") or of independent labels. "auto" means logits of mutually exclusive classes.
#: "probabilities" becomes "independent probabilities" where the sum over the classes is not one.
Kind = Literal["auto", "softmax", "sigmoid", "values", "probabilities", "independent probabilities"]
Of = Literal["logit", "probability"]
Unit = Literal["probability", "score"]


class Target(Protocol):
    """Map a network's output to one number per image.

    Any object with these attributes can be passed as a target; `score` alone is sufficient.
    """

    @property
    def name(self) -> str:
        """Name for captions: "Egyptian cat", "Egyptian cat - tabby"."""

    @property
    def index(self) -> int | None:
        """Index of the class; None for targets that are not a single class."""

    @property
    def unit(self) -> Unit:
        """Unit of `value`."""

    def score(self, output: Any) -> torch.Tensor:
        """Return the differentiable score of each image, (B,), from the network's output."""

    def value(self, output: Any) -> torch.Tensor:
        """Return the reported value of each image, (B,) float64: a probability where one is defined."""

    def describe(self) -> dict[str, Any]:
        """Return the target as plain data for metadata."""
