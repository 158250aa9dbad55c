"""Names of sources and published weights, and how they differ from paths."""

from __future__ import annotations

from pathlib import Path

#: Prefixes of networks that are loaded by name, as in ``torchvision/resnet18``.
PREFIXES = ("demo", "torchvision", "monai", "timm")
#: The demo network of the package.
DEMO = "demo/ultrasound"
#: Domains whose images are in colour contain one of these words.
PHOTOGRAPHS = ("photograph",)
#: Value of `size` that keeps the size of each image.
NATIVE = "native"


def has_prefix(source: str) -> bool:
    """Return whether a source is a name such as ``torchvision/resnet18``, not a path."""
    prefix, slash, _ = source.partition("/")
    return bool(slash) and prefix in PREFIXES


def published_name(weights: str | Path | None) -> bool:
    """Return whether `weights` is a name such as ``DEFAULT`` or ``IMAGENET1K_V1``, not a file."""
    text = str(weights)
    return isinstance(weights, str) and text.replace("_", "").isalnum() and text == text.upper()
