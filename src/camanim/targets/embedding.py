"""Networks that give a vector per image rather than scores of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from camanim.errors import TargetError
from camanim.precision import as_float64
from camanim.targets.base import Unit
from camanim.targets.outputs import digest, embedding

if TYPE_CHECKING:
    import torch

    from camanim.targets.context import Context


@dataclass(frozen=True, eq=False)
class Similarity:
    """Cosine of the angle between the network's output and a reference vector.

    The output is one vector per image, (B, D), or has space, over which its mean is taken; of several
    outputs, what is called an embedding.

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
            raise TargetError("A reference is a vector of numbers (D,).") from error
        if vector.ndim != 1 or vector.is_complex():
            raise TargetError(f"A reference is a vector (D,), not {tuple(vector.shape)}.")
        vector = vector if vector.is_floating_point() else vector.double()
        if not bool(vector.isfinite().all()) or not bool(vector.any()):
            raise TargetError("A reference has a direction: finite numbers, not all of them 0.")
        object.__setattr__(self, "reference", vector)

    @classmethod
    def to_output(cls, output: Any, name: str = "similarity") -> Similarity:
        """Take what the network gave for one other image as the reference."""
        vectors = embedding(output)
        if len(vectors) != 1:
            raise TargetError(f"A reference is one image's vector, not {len(vectors)} of them.")
        return cls(vectors[0].detach().clone(), name)

    def score(self, output: Any) -> torch.Tensor:
        """Return the cosine, (B,), between -1 and 1."""
        from torch.nn.functional import cosine_similarity

        vectors = embedding(output)
        if vectors.shape[1] != len(self.reference):
            raise TargetError(
                f"The network gives vectors of {vectors.shape[1]} numbers, "
                f"the reference has {len(self.reference)}."
            )
        return cosine_similarity(vectors, self.reference.to(vectors)[None], dim=1)

    def value(self, output: Any) -> torch.Tensor:
        """Return the cosine, (B,) float64."""
        return as_float64(self.score(output).detach())

    def describe(self) -> dict[str, Any]:
        """Return plain data for records."""
        return {"kind": "similarity", "name": self.name, "reference": digest(self.reference)}

    def bound(self, context: Context) -> Similarity:
        """Return this target, which depends on nothing."""
        return self


@dataclass(frozen=True)
class Norm:
    """Length of the network's output vector: what makes it answer at all, where it has no classes."""

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
        """Return plain data for records."""
        return {"kind": "norm", "name": self.name}

    def bound(self, context: Context) -> Norm:
        """Return this target, which depends on nothing."""
        return self
