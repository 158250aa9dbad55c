"""What a network was trained on, images that it does not fit, and a first network for an image."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from camanim.images import Preprocess, as_array
from camanim.images.contents import color_of, why_labels
from camanim.models.names import DEMO, PHOTOGRAPHS

if TYPE_CHECKING:
    from camanim.models.base import Model

#: Suggested for a colour picture: small, with published weights.
FIRST = "torchvision/mobilenet_v2"


def domain_note(model: Model, image: Any, *, slices: bool = False) -> str:
    """Return one sentence if an image plainly differs from what a network was trained on.

    Only what can be checked counts: a colour image for a network of one channel, a grey image for one
    that was trained on photographs, slices of a volume for one of photographs. An image that fits in
    these respects may still show something else.

    Parameters
    ----------
    model : Model
    image : array-like
        As for `camanim.animate`.
    slices : bool
        Whether the image is a volume whose slices are explained.

    Returns
    -------
    str
        Empty without a difference, with random weights, and for networks without a known domain that
        take more than one channel.
    """
    if model.random_weights:
        return ""
    domain, color = model.domain, color_of(image)
    channels = model.preprocess.channels if isinstance(model.preprocess, Preprocess) else None
    if channels == 1 and color == "colour":
        if not domain:
            return (
                "The image is in colour, and the network takes one channel: it gets the luminance."
            )
        return (
            f"The image is in colour, and the network was trained on {domain}: its classes mean nothing "
            "here."
        )
    if channels == 1 or not any(word in domain for word in PHOTOGRAPHS):
        return ""
    if slices:
        return (
            f"The slices of a volume are no photographs, and the network was trained on {domain}."
        )
    if color == "grey":
        return (
            f"The image is grey, and the network was trained on {domain}, which are in colour: its "
            "classes hold for what such photographs show."
        )
    return ""


def input_notes(model: Model, image: Any, *, slices: bool = False) -> tuple[str, ...]:
    """Return the sentences about a network and an image that belong to a result.

    About random weights, an image that the network does not fit, and labels taken for an image.
    """
    notes = []
    if model.random_weights:
        notes.append(
            f"{model.name} has random weights: it was not trained, and its classes and maps say nothing "
            "about the image."
        )
    labels = why_labels(image) if _is_array(image) else None
    domain = domain_note(model, image, slices=slices) if _is_array(image) else ""
    return tuple(filter(None, (*notes, domain, labels)))


def suggest_model(image: Any) -> str | None:
    """Return the name of a sensible first network for an image, for `camanim.load_model`.

    Parameters
    ----------
    image : array-like
        As for `camanim.animate`.

    Returns
    -------
    str or None
        ``"demo/ultrasound"`` for the sample images of the package and nothing else: it is a teaching
        aid, and grey values do not tell ultrasound from other pictures.
        ``"torchvision/mobilenet_v2"`` for other pictures, in colour or grey; see `domain_note` for the
        latter. None for volumes, for numbers of channels other than 1, 3 and 4, and for labels.
    """
    array = as_array(image)
    is_color = array.ndim == 3 and array.shape[-1] in (1, 3, 4)
    if not (array.ndim == 2 or is_color) or why_labels(array) is not None:
        return None
    return DEMO if _is_sample(array) else FIRST


def _is_sample(array: Any) -> bool:
    return any(np.array_equal(array, sample) for sample in _samples())


@lru_cache(maxsize=1)
def _samples() -> tuple[Any, ...]:
    # Read once: the dock suggests a network for each image that is selected.
    from camanim import samples

    return tuple(samples.image(name) for name in samples.names())


def _is_array(image: Any) -> bool:
    # A preprocess function may take anything; only arrays of numbers are examined.
    return getattr(image, "ndim", 0) in (2, 3, 4) or type(image).__module__.startswith("PIL.")
