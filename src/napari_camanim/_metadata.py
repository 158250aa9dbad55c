"""What stands in a layer's ``metadata["camanim"]``: an animation as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from camanim import Animation

KEY = "camanim"


class CamMetadata(TypedDict):
    """Plain data; the lists are aligned with the slider `layer`.

    `target` is what was explained, as the target describes itself; `index` its class, None where it is
    not about one, and `probability` what it is worth for this image, in the given `unit`.
    """

    method: str
    model: str
    target: dict[str, Any]
    index: int | None
    class_name: str
    probability: float
    unit: str
    normalization: str
    layers: list[str]
    kinds: list[str]
    layouts: list[str]
    captions: list[str]
    raw_limits: list[tuple[float, float]]
    scores: list[float] | None
    mean: float | None
    max: float | None
    best: str | None
    notes: list[str]
    provenance: dict[str, Any]


def metadata(animation: Animation, normalization: str) -> CamMetadata:
    """Describe an animation as plain data."""
    road = animation.road
    return CamMetadata(
        method=animation.method,
        model=str(animation.provenance["model"]),
        target=animation.target.describe(),
        index=animation.target.index,
        class_name=animation.target.name,
        probability=animation.probability,
        unit=animation.target.unit,
        normalization=normalization,
        layers=[layer.label for layer in animation.layers],
        kinds=[layer.kind for layer in animation.layers],
        layouts=[layer.layout for layer in animation.layers],
        captions=[animation.caption(i) for i in range(len(animation))],
        raw_limits=[(float(m.min()), float(m.max())) for m in animation.maps],
        scores=None if road is None else [float(s) for s in road.scores],
        mean=None if road is None else road.mean,
        max=None if road is None else road.max,
        best=None if road is None or road.best is None else road.best.label,
        notes=list(animation.notes),
        provenance=animation.provenance,
    )
