"""The target of how similar an embedding is to that of another image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camanim.images import Fit, Window
from camanim.models.base import Model

if TYPE_CHECKING:
    from camanim.targets import Similarity


def similarity_to(
    model: Model,
    image: Any,
    name: str = "similarity",
    *,
    fit: Fit = "stretch",
    window: Window | None = None,
) -> Similarity:
    """Return the cosine similarity to the network's output for another image, as a target.

    Parameters
    ----------
    model : Model
        Model whose output is an embedding, (B, F).
    image : array-like
        The other image.
    name : str
        Name of the target, for captions.
    fit, window
        See `Model.prepare`.

    Returns
    -------
    camanim.targets.Similarity

    Raises
    ------
    CamError
        If the image cannot be used, or the network fails on it or returns no embedding.
    """
    from camanim.exclusive import exclusively
    from camanim.targets import Similarity

    prepared = model.prepare(image, fit=fit, window=window)
    forward = model.forward()

    def run() -> Similarity:
        with forward.evaluating(tuple(prepared.tensor.shape)):
            return Similarity.to_output(forward(prepared.tensor), name)

    return exclusively(forward.net, run)
