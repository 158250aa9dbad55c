"""Completion of values in the shell; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import camanim
from camanim.catalogue import finding_kinds
from camanim.models.names import PREFIXES

Completion = Callable[[str], list[str]]

#: Frequent kinds of modules; the layers of a network are known only once it is loaded.
KINDS = (
    "AvgPool2d", "BatchNorm2d", "Conv2d", "Conv3d", "Dropout", "GELU", "GroupNorm", "LayerNorm",
    "Linear", "MaxPool2d", "ReLU", "ReLU6", "SiLU",
)  # fmt: skip
KEYWORDS = ("unique", "all", "blocks")


def _starting(names: Iterable[str], incomplete: str) -> Iterator[str]:
    return (name for name in names if name.startswith(incomplete))


def models(incomplete: str) -> list[str]:
    """Return names of networks; those of timm need an import and are left to ``camanim models timm``."""
    return list(_starting(camanim.list_models(), incomplete))


def sources(incomplete: str) -> list[str]:
    """Return sources of networks."""
    return list(_starting(PREFIXES, incomplete))


def methods(incomplete: str) -> list[str]:
    """Return names of methods."""
    return list(_starting(camanim.methods(), incomplete))


def findings(incomplete: str) -> list[str]:
    """Return names of findings, or, after a colon, settings of one."""
    name, colon, settings = incomplete.partition(":")
    if not colon:
        return list(_starting(finding_kinds(), incomplete))
    kind = finding_kinds().get(name)
    if kind is None:
        return []
    written, comma, _ = settings.rpartition(",")
    before = f"{name}:{written}{comma}"
    keys = [key for key, setting in kind.settings.items() if setting.is_textual]
    return [text for key in keys if (text := f"{before}{key}=").startswith(incomplete)]


def layers(incomplete: str) -> list[str]:
    """Return keywords and frequent kinds of layers."""
    return list(_starting((*KEYWORDS, *KINDS), incomplete))


#: Completions by the keyword of an option or argument.
COMPLETIONS: dict[str, Completion] = {
    "model": models,
    "method": methods,
    "find": findings,
    "layers": layers,
    "filter": layers,
    # Arguments.
    "network": models,
    "source": sources,
    "name": methods,
}
