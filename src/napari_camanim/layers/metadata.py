"""The metadata of a stack, ``layer.metadata["camanim"]``: a result as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from camanim.findings import plain

if TYPE_CHECKING:
    from camanim import Animation

KEY = "camanim"


class CamMetadata(TypedDict):
    """Metadata of a stack: JSON data, and NaN; the lists are aligned with the slider `layer`.

    `target` is the description of the target; `index` its class, or None without one, and `probability`
    its value for this image, in the given `unit`. `findings` holds the record of each finding by its
    key, such as ``findings["road"]["scores"]``; `shown_first` is the label of the layer that is
    shown first, and `warnings` holds the warnings of findings.
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
    raw_limits: list[list[float]]
    shown_first: str
    notes: list[str]
    warnings: list[str]
    provenance: dict[str, Any]
    findings: dict[str, dict[str, Any]]


def metadata(animation: Animation, normalization: str) -> CamMetadata:
    """Return the metadata of an animation."""
    return CamMetadata(
        method=animation.method,
        model=str(animation.provenance["model"]),
        target=plain(animation.target.describe()),
        index=animation.target.index,
        class_name=animation.target.name,
        probability=float(animation.probability),
        unit=animation.target.unit,
        normalization=normalization,
        layers=[layer.label for layer in animation.layers],
        kinds=[layer.kind for layer in animation.layers],
        layouts=[layer.layout for layer in animation.layers],
        captions=[animation.caption(i) for i in range(len(animation))],
        raw_limits=[[float(m.min()), float(m.max())] for m in animation.maps],
        shown_first=animation.layers[animation.initial_index].label,
        notes=list(animation.notes),
        warnings=animation.warnings,
        provenance=plain(animation.provenance),
        findings={key: finding.record() for key, finding in animation.findings.items()},
    )
