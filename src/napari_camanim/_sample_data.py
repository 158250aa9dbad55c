"""Sample data in the menu File > Open Sample > CAManim: synthetic ultrasound with lesion masks."""

from __future__ import annotations

from functools import partial
from typing import Any

from camanim import samples

LayerData = tuple[Any, dict[str, Any], str]


def open_sample(name: str) -> list[LayerData]:
    """Return a sample image, and its lesion mask as a hidden Labels layer.

    Parameters
    ----------
    name : str
        One of `camanim.samples.names`.

    Returns
    -------
    list of layer data tuples
    """
    layers: list[LayerData] = [(samples.image(name), {"name": name, "colormap": "gray"}, "image")]
    mask = samples.mask(name)
    if mask is not None:
        layers.append(
            (mask.astype("uint8"), {"name": f"{name} lesion", "visible": False}, "labels")
        )
    return layers


# The manifest needs one name for each sample.
normal_1 = partial(open_sample, "normal_1")
normal_2 = partial(open_sample, "normal_2")
benign_1 = partial(open_sample, "benign_1")
benign_2 = partial(open_sample, "benign_2")
benign_3 = partial(open_sample, "benign_3")
malignant_1 = partial(open_sample, "malignant_1")
malignant_2 = partial(open_sample, "malignant_2")
malignant_3 = partial(open_sample, "malignant_3")
