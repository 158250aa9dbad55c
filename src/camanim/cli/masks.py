"""Masks from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import camanim
from camanim.errors import ScoreError


def read_mask(path: Path) -> Any:
    """Read a mask; one with three equal colour channels is reduced to a single channel.

    Raises
    ------
    ScoreError
        If the mask is a JPEG, or in colour.
    """
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise ScoreError(
            f"{path} is a JPEG, which blurs labels: save the mask as a PNG or TIFF file."
        )
    labels = camanim.read_image(path)
    if labels.ndim == 3 and labels.shape[2] in (3, 4):
        colours = labels[..., :3]
        if (colours == colours[..., :1]).all():
            return colours[..., 0]
        raise ScoreError(f"{path} is in colour: save the mask with one grey value for each object.")
    return labels
