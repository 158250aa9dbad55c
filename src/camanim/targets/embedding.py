"""Targets for networks that return an embedding: one vector per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from camanim.errors import TargetError
from camanim.precision import as_float64
from camanim.short_repr import ShortRepr
from camanim.targets.base import Unit
from camanim.targets.outputs import digest, embedding

if TYPE_CHECKING:
    import torch

    from camanim.targets.context import Context


@dataclass(frozen=True, eq=False)
class Similarity(ShortRepr):
    """Cosine similarity of the network's embedding and a reference vector.

    The embedding is (B, D), or the mean over space of (B, D, *S). Among several outputs, one with the
    name of an embedding takes precedence.

    Attributes
    ----------
    reference : array-like (D,)
    name : str
    """

    reference: Any
    name: str = "similarity"

    index = None
    unit: Unit = "score"

    def __post_init__(self) -> None:
        import torch

        try:
            vector = torch.as_tensor(self.reference).detach().squeeze()
        except (TypeError, ValueError, RuntimeError) as error:
            raise TargetError("reference= must be a vector of numbers (D,).") from error
        if vector.ndim != 1 or vector.is_complex():
            raise TargetError(f"reference= must be a vector (D,), not {tuple(vector.shape)}.")
        vector = vector if vector.is_floating_point() else vector.double()
        if not bool(vector.isfinite().all()) or not bool(vector.any()):
            raise TargetError("reference= must be a finite vector other than 0.")
        object.__setattr__(self, "reference", vector)

    @classmethod
    def to_output(cls, output: Any, name: str = "similarity") -> Similarity:
        """Return the similarity to the embedding in an output for one other image."""
        vectors = embedding(output)
        if len(vectors) != 1:
            raise TargetError(f"The reference must be 1 vector, not {len(vectors)}.")
        return cls(vectors[0].detach().clone(), name)

    def score(self, output: Any) -> torch.Tensor:
        """Return the cosine, (B,), between -1 and 1."""
        from torch.nn.functional import cosine_similarity

        vectors = embedding(output)
        if vectors.shape[1] != len(self.reference):
            raise TargetError(
                f"The network's embedding has {vectors.shape[1]} numbers, "
                f"the reference has {len(self.reference)}."
            )
        return cosine_similarity(vectors, self.reference.to(vectors)[None], dim=1)

    def value(self, output: Any) -> torch.Tensor:
        """Return the cosine, (B,) float64."""
        return as_float64(self.score(output).detach())

    def describe(self) -> dict[str, Any]:
        """Return the target as plain data for metadata."""
        return {"kind": "similarity", "name": self.name, "reference": digest(self.reference)}

    def bind(self, context: Context) -> Similarity:
        """Return this target; it does not depend on the context."""
        return self


@dataclass(frozen=True)
class Norm:
    """L2 norm of the network's embedding; the default target of networks without classes."""

    name: str = "norm of the output"

    index = None
    unit: Unit = "score"

    def score(self, output: Any) -> torch.Tensor:
        """Return the L2 norm, (B,)."""
        norm: torch.Tensor = embedding(output).norm(dim=1)
        return norm

    def value(self, output: Any) -> torch.Tensor:
        """Return the L2 norm, (B,) float64."""
        return as_float64(self.score(output).detach())

    def describe(self) -> dict[str, Any]:
        """Return the target as plain data for metadata."""
        return {"kind": "norm", "name": self.name}

    def bind(self, context: Context) -> Norm:
        """Return this target; it does not depend on the context."""
        return self
