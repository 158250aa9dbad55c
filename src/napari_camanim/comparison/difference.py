"""The difference of two results of one image: what map A shows more than map B, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from camanim.errors import ImageError, LayerError
from camanim.stack import FloatMap, upsample

if TYPE_CHECKING:
    import torch

    from camanim import Animation
    from camanim.targets import Target

#: Minus sign of names.
MINUS = " − "


@dataclass(frozen=True)
class _Pair:
    """The targets of two results, to name their difference; its score is that of the first one."""

    first: Target
    name: str
    index: int | None

    @property
    def unit(self) -> Any:
        return self.first.unit

    def score(self, output: Any) -> torch.Tensor:
        return self.first.score(output)

    def value(self, output: Any) -> torch.Tensor:
        return self.first.value(output)

    def describe(self) -> dict[str, Any]:
        return {**self.first.describe(), "name": self.name}


def difference(first: Animation, second: Animation) -> Animation:
    """Return the signed difference of the maps of two results, layer by layer.

    Negative values of a map are set to 0, and it is divided by its maximum. Differences therefore lie in
    [-1, 1], and are positive where the first map is higher. The layers are those with a map in both
    results, by their labels.

    Parameters
    ----------
    first, second : Animation
        Of images of the same size, and of networks with common layers.

    Returns
    -------
    Animation
        With the image and the network of `first`, and without findings.

    Raises
    ------
    ImageError
        If the images or the parts of them that the networks get differ in size.
    LayerError
        If no layer has a map in both results.
    """
    if first.image.shape != second.image.shape or not _same_place(first, second):
        raise ImageError(
            "The two results are of images of different sizes, or of different parts of them: subtract "
            "maps of the same image and fit."
        )
    others = {layer.label: i for i, layer in enumerate(second.layers)}
    pairs = [
        (i, others[layer.label]) for i, layer in enumerate(first.layers) if layer.label in others
    ]
    if not pairs:
        raise LayerError(
            "No layer has a map in both results: subtract results of the same network."
        )
    return replace(
        first,
        maps=[_difference(first.maps[i], second.maps[j]) for i, j in pairs],
        layers=[first.layers[i] for i, _ in pairs],
        method=_names(first.method, second.method),
        target=_Pair(
            first.target,
            _names(first.target.name, second.target.name),
            first.target.index if first.target.index == second.target.index else None,
        ),
        findings={},
        guided=None,
        extremes=None,
        computed_with=None,
        notes=["The difference of two results: each map was divided by its maximum."],
    )


def _same_place(first: Animation, second: Animation) -> bool:
    """Return whether the inputs of both networks cover the same part of the image."""
    one, two = first.geometry, second.geometry
    if len(one.size) != len(two.size):
        return False
    ends = [
        [(o, o + s * n) for o, s, n in zip(g.offset, g.scale, g.size, strict=True)]
        for g in (one, two)
    ]
    return bool(np.allclose(ends[0], ends[1], atol=0.5))


def _difference(one: FloatMap, two: FloatMap) -> FloatMap:
    one, two = _shares(one), _shares(two)
    if one.shape != two.shape:
        size = one.shape if one.size >= two.size else two.shape
        one, two = upsample(one, size), upsample(two, size)
    return one - two


def _shares(raw: FloatMap) -> FloatMap:
    # In float64: raw maps of deep networks come close to the smallest numbers of float32.
    positive = np.maximum(raw, 0).astype(np.float64)
    highest = positive.max()
    return (positive / highest if highest > 0 else positive).astype(np.float32)


def _names(one: str, two: str) -> str:
    return one if one == two else f"{one}{MINUS}{two}"
