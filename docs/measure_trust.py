"""Measure what the pages about trust say, and write it down in ``docs/data``.

    python docs/make_trust.py --measure            # calls this, and then draws and fills in
    TORCH_HOME=../shared/torch python docs/make_trust.py --measure

Everything is about GradCAM with settings as they come. The phantoms are the first lesions of those that
the demo network never saw (`sample_data/make.py` kept them apart) which it classifies rightly, without
those that ship as samples. The photographs with masks and the weights of MobileNetV2 do not ship; where
they are not at hand, what was measured before is kept.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import camanim
from camanim import samples
from camanim.animation import Animation
from camanim.stack import upsample

DOCS = Path(__file__).parent
DATA = DOCS / "data"
SHARED = DOCS.parents[1] / "shared" / "images"
PHOTOGRAPHS = {"samoyed": "samoyed.png", "bird": "bird.jpg"}
DEMO, MOBILENET = "demo/ultrasound", "torchvision/mobilenet_v2"
#: Methods whose checks are listed, by family.
CHECKED = (
    *("GradCAM", "HiResCAM", "GradCAM++", "XGradCAM", "LayerCAM", "EigenGradCAM", "EigenCAM"),
    *("KPCA-CAM", "FEM", "FullGrad", "Guided backpropagation", "Guided Grad-CAM"),
    *("RandomCAM", "SobelCAM"),
)
#: Which layer is looked at.
CHOICES = ("ROAD's best", "highest score", "mask's best", "last")
PHANTOMS = 30
#: What differs from grad-cam is shown on this sample, with grad-cam's own nine percentiles too.
SAMPLE = "malignant_1"
NINE = tuple(range(10, 100, 10))
CALLS, DRAWS = 6, 32


# -- Does ROAD's best layer lie where the mask's does? ---------------------------------------------


def agreement() -> Iterator[dict[str, Any]]:
    """Measure one row per image; see `row`."""
    for name, network, image, mask, target in images():
        made = row(camanim.load_model(network), image, mask, target)
        print(f"{name}: {made['rho']:.2f}", flush=True)
        yield {"image": name, "network": network} | made


def row(model: camanim.Model, image: Any, mask: Any, target: Any) -> dict[str, Any]:
    """Compare ROAD with a mask over the layers of one network for one image.

    Returns
    -------
    dict
        ``rho``, rank correlation over the layers of ROAD's excess (``rho plain``: of its score) and
        average precision; ``above``, how many layers are above chance; and for each of `CHOICES` the
        layer, its average precision (AP) and whether its peak lies inside. "random" is the mean over
        all layers.
    """
    animation = camanim.animate(model, image, target=target)
    road, found = animation.score(), animation.localise(mask)
    chosen = dict(
        zip(CHOICES, (road.best, road.best_plain, found.best, animation.layers[-1]), strict=True)
    )
    known = np.isfinite(road.excess) & np.isfinite(found.average_precision)
    ap = found.average_precision
    made: dict[str, Any] = {
        "class": animation.target.name,
        "layers": len(animation),
        "share": found.share,
        "rho": spearmanr(road.excess[known], ap[known]).statistic,
        "rho plain": spearmanr(road.scores[known], ap[known]).statistic,
        "above": int(road.above_chance.sum()),
    }
    for name, layer in chosen.items():
        i = None if layer is None else animation.layers.index(layer)
        made[name] = "" if layer is None else layer.label
        made[f"{name}, AP"] = np.nan if i is None else ap[i]
        made[f"{name}, peak"] = np.nan if i is None else found.pointing[i]
    made["random, AP"] = np.nanmean(ap)
    made["random, peak"] = np.nanmean(found.pointing)
    return made


def images() -> Iterator[tuple[str, str, Any, Any, Any]]:
    """Yield name, network, image, mask and target of every image with a mask."""
    for name in samples.names():
        if (mask := samples.mask(name)) is not None:
            yield name, DEMO, samples.image(name), mask, name.partition("_")[0]
    for seed, kind, image, mask in held_out(PHANTOMS):
        yield f"{kind} {seed}", DEMO, image, mask, kind
    for name, file in PHOTOGRAPHS.items() if photographs() else ():
        mask = camanim.read_image(SHARED / f"{name}_mask.png")
        mask = mask if mask.ndim == 2 else mask[..., 0]
        yield name, MOBILENET, camanim.read_image(SHARED / file), mask > 0, None


def held_out(count: int) -> Iterator[tuple[int, str, Any, Any]]:
    """Draw lesions that the network never saw and classifies rightly: seed, class, image, mask."""
    sys.path.insert(0, str(samples.SAMPLE_DATA))
    from phantoms import KINDS, phantom

    model = camanim.load_model(DEMO)
    shipped = [samples.image(name) for name in samples.names()]
    seeds = np.random.SeedSequence([0, 2]).generate_state(600)
    for i, seed in enumerate(map(int, seeds)):
        kind = KINDS[i % len(KINDS)]
        if not count or kind == "normal":
            continue
        image, mask = phantom(kind, seed)
        # Not to the bit: another machine may draw a pixel otherwise.
        known = any(np.abs(image - other.astype(float)).mean() < 1 for other in shipped)
        if not known and model.predict(image, 1)[0].name == kind:
            count -= 1
            yield seed, kind, image, mask


def photographs() -> bool:
    """Whether the photographs with masks and the weights are at hand."""
    weights = Path(os.environ.get("TORCH_HOME", "")) / "hub" / "checkpoints"
    there = bool(list(weights.glob("mobilenet_v2*"))) and SHARED.is_dir()
    if not there:
        print("No photographs or weights here: TORCH_HOME=../shared/torch?")
    return there


# -- What differs from grad-cam --------------------------------------------------------------------


def differences() -> dict[str, Any]:
    """Measure what ties, percentiles, seeds and chance do to the scores of one sample."""
    model = camanim.load_model(DEMO)
    animation = camanim.animate(model, samples.image(SAMPLE))
    return {
        "sample": SAMPLE,
        "labels": [layer.label for layer in animation.layers],
        "sizes": [list(m.shape) for m in animation.maps],
        "ties": ties(animation),
        "percentiles": percentiles(animation),
        "seeds": seeds(animation),
        "floor": floor(animation),
        "checks": checks(model),
    }


def large_maps(animation: Animation) -> list[Any]:
    """All maps as grad-cam gives them: without negative values, enlarged, from 0 to 1."""
    return [
        scaled / max(float(scaled.max()), 1e-12)
        for raw in animation.maps
        for scaled in [upsample(np.maximum(raw, 0), animation.geometry.size)]
    ]


def ties(animation: Animation) -> dict[str, Any]:
    """Share of pixels that grad-cam's rule removes, by layer, for each share that it should remove."""
    asked = (20, 40, 60, 80)
    maps = large_maps(animation)
    # What grad-cam keeps are pixels below a percentile, of the map or of 1 less the map.
    removed = {
        name: [
            [100 * float(np.mean(values >= np.percentile(values, 100 - share))) for share in asked]
            for values in (m if name == "MoRF" else 1 - m for m in maps)
        ]
        for name in ("MoRF", "LeRF")
    }
    return {"asked": asked} | removed


def percentiles(animation: Animation) -> dict[str, Any]:
    """Scores with four and with nine percentiles."""
    four, nine = animation.score(baseline=False), animation.score(percentiles=NINE, baseline=False)
    return {"four": listed(four.scores), "nine": listed(nine.scores)}


def seeds(animation: Animation) -> dict[str, Any]:
    """Scores of some layers, called again and again: of grad-cam, and here with another seed."""
    chosen = np.linspace(1, len(animation) - 1, 6).round().astype(int)
    part = shown(animation, [int(i) for i in chosen])
    ours = [part.score(seed, baseline=False).scores for seed in range(CALLS)]
    again = [part.score(0, baseline=False).scores for _ in range(2)]
    return {
        "layers": [int(i) for i in chosen],
        "here": [listed(scores) for scores in ours],
        "same seed differs by": float(np.nanmax(np.abs(again[0] - again[1]))),
        "grad-cam": [by_gradcam(part) for _ in range(CALLS)],
    }


def by_gradcam(animation: Animation) -> list[float]:
    """Score maps with grad-cam's ROADCombined, as it comes but with our percentiles."""
    import torch
    from pytorch_grad_cam.metrics.road import ROADCombined

    combined = ROADCombined([20, 40, 60, 80])
    place = animation.model.classes.index(animation.target.name)

    def probability(output: Any) -> Any:
        return torch.softmax(output, -1)[place]

    net = animation.model.net
    return [
        float(combined(animation.tensor, np.float32(m)[None], [probability], net)[0])
        for m in large_maps(animation)
    ]


def floor(animation: Animation) -> list[dict[str, Any]]:
    """Scores of random maps by resolution: signed and cut off as maps are, and not cut off."""
    found = []
    for size in sorted({m.shape for m in animation.maps}):
        random = np.random.default_rng([1, *size])
        signed = [random.uniform(-1, 1, size).astype(np.float32) for _ in range(DRAWS)]
        layer = animation.layers[[m.shape for m in animation.maps].index(size)]
        made = {"size": list(size)}
        for name, maps in (("signed", signed), ("unsigned", [(m + 1) / 2 for m in signed])):
            drawn = replace(animation, maps=maps, layers=[layer] * DRAWS, findings={})
            made[name] = listed(drawn.score(baseline=False).scores)
        found.append(made)
    return found


def checks(model: camanim.Model) -> list[dict[str, Any]]:
    """Check the methods that take no more than a few passes for all layers."""
    found = []
    for method in CHECKED:
        animation = camanim.animate(model, samples.image(SAMPLE), method=method)
        both = {
            "randomisation": animation.check_randomisation(),
            "labels": animation.check_labels(),
        }
        row: dict[str, Any] = {"method": method}
        for name, check in both.items():
            row |= {name: listed([check.median])[0], f"{name} passed": check.passed}
        found.append(row)
        print(row, flush=True)
    return found


def shown(animation: Animation, places: list[int]) -> Animation:
    """Give the animation of some of the layers."""
    return replace(
        animation,
        maps=[animation.maps[i] for i in places],
        layers=[animation.layers[i] for i in places],
        findings={},
    )


def listed(values: Any) -> list[float | None]:
    """Make of numbers what JSON knows."""
    return [None if np.isnan(value) else round(float(value), 6) for value in values]


# -- Files -----------------------------------------------------------------------------------------


def read() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Read what was measured: the rows of `agreement`, and `differences`."""
    with (DATA / "agreement.csv").open(encoding="utf-8", newline="") as file:
        rows = [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]
    return rows, json.loads((DATA / "differences.json").read_text(encoding="utf-8"))


def _number(text: str) -> Any:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return text


def write() -> None:
    """Measure everything and write it down; rows at once, as they take minutes."""
    DATA.mkdir(exist_ok=True)
    text = json.dumps(differences(), indent=1)
    (DATA / "differences.json").write_text(text + "\n", encoding="utf-8")
    path = DATA / "agreement.csv"
    before = read()[0] if path.exists() else []
    fresh: list[dict[str, Any]] = []
    for made in agreement():
        fresh.append(made)
        names = {row["image"] for row in fresh}
        _write_rows(path, [*fresh, *(row for row in before if row["image"] not in names)])


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: f"{v:.4f}" if isinstance(v, float | np.floating) else v for k, v in row.items()}
            )
