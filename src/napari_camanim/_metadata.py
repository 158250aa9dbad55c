"""What stands in a layer's ``metadata["camanim"]``: an animation as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

if TYPE_CHECKING:
    from camanim import Animation
    from camanim.checks import LabelRandomisation, Localisation, Randomisation
    from camanim.road import Road

KEY = "camanim"


class CamMetadata(TypedDict):
    """Plain data, as JSON has them (and NaN); the lists are aligned with the slider `layer`.

    `target` is what was explained, as the target describes itself; `index` its class, None where it is
    not about one, and `probability` what it is worth for this image, in the given `unit`. The last
    ones say what was measured, and are None where it was not: `scores`, `mean`, `max`, `best` and `road`
    by ROAD, the others by `Animation.localise`, `check_randomisation` and `check_labels`. `measures` has
    the values of each `Animation.measure`, by its label.
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
    notes: list[str]
    provenance: dict[str, Any]
    scores: list[float] | None
    mean: float | None
    max: float | None
    best: str | None
    road: dict[str, Any] | None
    measures: dict[str, list[float]]
    localisation: dict[str, Any] | None
    randomisation: dict[str, Any] | None
    labels: dict[str, Any] | None


def metadata(animation: Animation, normalization: str) -> CamMetadata:
    """Describe an animation as plain data."""
    road = animation.road
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
        notes=list(animation.notes),
        provenance=plain(animation.provenance),
        scores=None if road is None else plain(road.scores),
        mean=None if road is None else road.mean,
        max=None if road is None else road.max,
        best=None if road is None or road.best is None else road.best.label,
        road=None if road is None else _road(road),
        measures={name: plain(found.values) for name, found in animation.measures.items()},
        localisation=_localisation(animation.localisation),
        randomisation=_randomisation(animation.randomisation),
        labels=_labels(animation.labels),
    )


def _road(road: Road) -> dict[str, Any]:
    names = (
        "spread", "baseline", "baseline_spread", "excess", "margin", "above_chance", "morf", "lerf",
        "percentiles", "undefined", "probability", "seed", "noise", "forwards", "settings",
    )  # fmt: skip
    about = {name: plain(getattr(road, name)) for name in names}
    about["best_plain"] = None if road.best_plain is None else road.best_plain.label
    about["repeats"] = len(road.morfs)
    about["draws"] = road.chance.shape[1]
    return about


def _localisation(found: Localisation | None) -> dict[str, Any] | None:
    if found is None:
        return None
    names = ("pointing", "energy", "iou", "average_precision", "share", "undefined")
    about = {name: plain(getattr(found, name)) for name in names}
    return about | {"best": None if found.best is None else found.best.label}


def _randomisation(found: Randomisation | None) -> dict[str, Any] | None:
    if found is None:
        return None
    names = (
        "steps", "spearman", "ssim", "threshold", "seed", "cancelled", "median", "passed", "verdict"
    )  # fmt: skip
    return {name: plain(getattr(found, name)) for name in names}


def _labels(found: LabelRandomisation | None) -> dict[str, Any] | None:
    if found is None:
        return None
    names = ("classes", "spearman", "threshold", "median", "passed", "verdict")
    return {name: plain(getattr(found, name)) for name in names}


def plain(value: Any) -> Any:
    """Turn arrays, tuples and numpy's numbers into lists and Python's own."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value
