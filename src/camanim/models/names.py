"""How networks and weights are named: prefixes of sources, published weights, and what is a path."""

from __future__ import annotations

from pathlib import Path

#: Sources that know networks by name, as in ``torchvision/resnet18``.
PREFIXES = ("demo", "torchvision", "monai", "timm")
#: Size of an input that is the image's.
NATIVE = "native"


def has_prefix(source: str) -> bool:
    """Return whether a source is a name such as ``torchvision/resnet18``, and no path."""
    prefix, slash, _ = source.partition("/")
    return bool(slash) and prefix in PREFIXES


def published_name(weights: str | Path | None) -> bool:
    """Return whether `weights` is a name such as ``DEFAULT`` or ``IMAGENET1K_V1``, and no file."""
    text = str(weights)
    return isinstance(weights, str) and text.replace("_", "").isalnum() and text == text.upper()
