"""The sample images that ship with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from camanim.errors import ImageError
from camanim.images import read_image

SAMPLE_DATA = Path(__file__).parent / "sample_data"


def names() -> list[str]:
    """Name the sample images, such as ``benign_1``."""
    return sorted(path.stem for path in (SAMPLE_DATA / "images").glob("*.png"))


def image(name: str) -> npt.NDArray[Any]:
    """Read a sample image: synthetic ultrasound, (H, W) uint8.

    Raises
    ------
    ImageError
        When there is none of this name.
    """
    if name not in names():
        raise ImageError(f"There is no sample {name!r}: there are {', '.join(names())}.")
    return read_image(SAMPLE_DATA / "images" / f"{name}.png")


def mask(name: str) -> npt.NDArray[Any] | None:
    """Read the lesion mask of a sample image, (H, W) bool; None where there is no lesion."""
    path = SAMPLE_DATA / "masks" / f"{name}.png"
    return read_image(path) > 0 if path.exists() else None
