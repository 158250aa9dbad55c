"""Sample images of the package: synthetic ultrasound, with lesion masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from camanim.errors import ImageError
from camanim.images import read_image

SAMPLE_DATA = Path(__file__).parent / "sample_data"


def names() -> list[str]:
    """Return the names of the sample images, such as ``benign_1``."""
    return sorted(path.stem for path in (SAMPLE_DATA / "images").glob("*.png"))


def image(name: str) -> npt.NDArray[Any]:
    """Return a sample image, (H, W) uint8.

    Raises
    ------
    ImageError
        If the name is unknown.
    """
    if name not in names():
        raise ImageError(f"Unknown sample {name!r}: choose one of {', '.join(names())}.")
    return read_image(SAMPLE_DATA / "images" / f"{name}.png")


def mask(name: str) -> npt.NDArray[Any] | None:
    """Return the lesion mask of a sample image, (H, W) bool; None for images without a lesion."""
    path = SAMPLE_DATA / "masks" / f"{name}.png"
    return read_image(path) > 0 if path.exists() else None
