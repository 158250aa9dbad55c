"""Measure the numbers of ``trust.md`` and ``road.md``, and write them into ``docs/data``.

    python docs/make_trust.py --measure   # runs this, then draws the figures and fills in the pages

The method is GradCAM with default settings. The phantoms are the first held-out lesions of
``sample_data/make.py`` that the demo network classifies correctly, without the package's samples. The
photographs with masks are not part of the repository, nor are the weights of MobileNetV2
(``TORCH_HOME``); where they are missing, earlier measurements of them are kept.
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
#: Choices of a layer that are compared.
CHOICES = ("highest excess", "highest score", "mask's best", "last")
PHANTOMS = 30
#: Samples for the differences from grad-cam, the first one for figures; grad-cam's nine percentiles.
SAMPLES = ("malignant_1", "malignant_3", "benign_1", "benign_3")
NINE = tuple(range(10, 100, 10))
CALLS, DRAWS = 6, 32


# -- Agreement of ROAD with masks ------------------------------------------------------------------


def agreement() -> Iterator[dict[str, Any]]:
    """Measure one row per image; see `measure_row`."""
    for name, network, image, mask, target in images():
        row = measure_row(camanim.load_model(network), image, mask, target)
        print(f"{name}: {row['rho']:.2f}", flush=True)
        yield {"image": name, "network": network} | row


def measure_row(model: camanim.Model, image: Any, mask: Any, target: Any) -> dict[str, Any]:
    """Compare ROAD with a mask over the layers of one network for one image.

    Returns
    -------
    dict
        ``rho``, rank correlation over the layers of ROAD's excess (``rho plain``: of its score) and
        average precision; ``above``, the number of layers above noise; and for each of `CHOICES` the
        layer, its average precision (AP) and whether its peak lies inside the mask. "random" is the
        mean over all layers.
    """
    animation = camanim.animate(model, image, target=target)
    road, localisation = animation.score(), animation.localise(mask)
    excess = animation.layers[int(np.nanargmax(road.excess))]
    layers = (excess, road.highest, localisation.best, animation.layers[-1])
    chosen = dict(zip(CHOICES, layers, strict=True))
    ap = localisation.average_precision
    known = np.isfinite(road.excess) & np.isfinite(ap)
    row: dict[str, Any] = {
        "class": animation.target.name,
        "layers": len(animation),
        "share": localisation.share,
        "rho": spearmanr(road.excess[known], ap[known]).statistic,
        "rho plain": spearmanr(road.scores[known], ap[known]).statistic,
        "above": int(road.above_noise.sum()),
    }
    for name, layer in chosen.items():
        i = None if layer is None else animation.layers.index(layer)
        row[name] = "" if layer is None else layer.label
        row[f"{name}, AP"] = np.nan if i is None else ap[i]
        row[f"{name}, peak"] = np.nan if i is None else localisation.pointing[i]
    row["random, AP"] = np.nanmean(ap)
    row["random, peak"] = np.nanmean(localisation.pointing)
    return row


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
    """Yield seed, class, image and mask of held-out lesions that the network classifies correctly."""
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
        # With a tolerance: another machine may draw a pixel differently.
        known = any(np.abs(image - other.astype(float)).mean() < 1 for other in shipped)
        if not known and model.predict(image, 1)[0].name == kind:
            count -= 1
            yield seed, kind, image, mask


def photographs() -> bool:
    """Return whether the photographs with masks and the weights are available."""
    weights = Path(os.environ.get("TORCH_HOME", "")) / "hub" / "checkpoints"
    available = bool(list(weights.glob("mobilenet_v2*"))) and SHARED.is_dir()
    if not available:
        print(f"No weights of mobilenet_v2 in TORCH_HOME, or no photographs in {SHARED}.")
    return available


# -- Differences from grad-cam -----------------------------------------------------------------------


def differences() -> list[dict[str, Any]]:
    """Measure the effect of ties, percentiles, seeds and random maps on the scores of each sample."""
    model = camanim.load_model(DEMO)
    return [differences_of(model, name) for name in SAMPLES]


def differences_of(model: camanim.Model, name: str) -> dict[str, Any]:
    """Measure the effect of ties, percentiles, seeds and random maps on the scores of one sample."""
    print(name, flush=True)
    animation = camanim.animate(model, samples.image(name))
    return {
        "sample": name,
        "labels": [layer.label for layer in animation.layers],
        "sizes": [list(m.shape) for m in animation.maps],
        "ties": ties(animation),
        "percentiles": percentiles(animation),
        "seeds": seeds(animation),
        "floor": floor(animation),
    }


def large_maps(animation: Animation) -> list[Any]:
    """Return all maps as grad-cam does: without negative values, enlarged, from 0 to 1."""
    return [
        scaled / max(float(scaled.max()), 1e-12)
        for raw in animation.maps
        for scaled in [upsample(np.maximum(raw, 0), animation.geometry.size)]
    ]


def ties(animation: Animation) -> dict[str, Any]:
    """Return the share of pixels that grad-cam's rule removes, by layer, for each requested share."""
    requested = (20, 40, 60, 80)
    maps = large_maps(animation)
    # grad-cam keeps pixels below a percentile, of the map or of 1 minus the map.
    removed = {
        name: [
            [
                100 * float(np.mean(values >= np.percentile(values, 100 - share)))
                for share in requested
            ]
            for values in (m if name == "MoRF" else 1 - m for m in maps)
        ]
        for name in ("MoRF", "LeRF")
    }
    return {"requested": requested} | removed


def percentiles(animation: Animation) -> dict[str, Any]:
    """Return the scores with four and with nine percentiles."""
    four, nine = animation.score(baseline=False), animation.score(percentiles=NINE, baseline=False)
    return {"four": rounded(four.scores), "nine": rounded(nine.scores)}


def seeds(animation: Animation) -> dict[str, Any]:
    """Return the scores of some layers over repeated calls: of grad-cam, and here by seed."""
    chosen = np.linspace(1, len(animation) - 1, 6).round().astype(int)
    part = with_layers(animation, [int(i) for i in chosen])
    by_seed = [part.score(seed, baseline=False).scores for seed in range(CALLS)]
    same_seed = [part.score(0, baseline=False).scores for _ in range(2)]
    return {
        "layers": [int(i) for i in chosen],
        "here": [rounded(scores) for scores in by_seed],
        "same seed differs by": float(np.nanmax(np.abs(same_seed[0] - same_seed[1]))),
        "grad-cam": [by_gradcam(part) for _ in range(CALLS)],
    }


def by_gradcam(animation: Animation) -> list[float]:
    """Score maps with grad-cam's ROADCombined, with the percentiles of this package."""
    import torch
    from pytorch_grad_cam.metrics.road import ROADCombined

    combined = ROADCombined([20, 40, 60, 80])
    index = animation.model.classes.index(animation.target.name)

    def probability(output: Any) -> Any:
        return torch.softmax(output, -1)[index]

    net = animation.model.net
    return [
        float(combined(animation.tensor, np.float32(m)[None], [probability], net)[0])
        for m in large_maps(animation)
    ]


def floor(animation: Animation) -> list[dict[str, Any]]:
    """Return the scores of random maps by resolution: clipped at 0 as maps are, and not clipped."""
    rows = []
    for size in sorted({m.shape for m in animation.maps}):
        random = np.random.default_rng([1, *size])
        signed = [random.uniform(-1, 1, size).astype(np.float32) for _ in range(DRAWS)]
        layer = animation.layers[[m.shape for m in animation.maps].index(size)]
        row: dict[str, Any] = {"size": list(size)}
        for name, maps in (("signed", signed), ("unsigned", [(m + 1) / 2 for m in signed])):
            drawn = replace(animation, maps=maps, layers=[layer] * DRAWS, findings={})
            row[name] = rounded(drawn.score(baseline=False).scores)
        rows.append(row)
    return rows


def with_layers(animation: Animation, indices: list[int]) -> Animation:
    """Return the animation with some of its layers only."""
    return replace(
        animation,
        maps=[animation.maps[i] for i in indices],
        layers=[animation.layers[i] for i in indices],
        findings={},
    )


def rounded(values: Any) -> list[float | None]:
    """Return numbers for JSON, None for NaN."""
    return [None if np.isnan(value) else round(float(value), 6) for value in values]


# -- Files -----------------------------------------------------------------------------------------


def read() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of `agreement` and the result of `differences` from the files."""
    with (DATA / "agreement.csv").open(encoding="utf-8", newline="") as file:
        rows = [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]
    return rows, json.loads((DATA / "differences.json").read_text(encoding="utf-8"))


def _number(text: str) -> Any:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return text


def write() -> None:
    """Measure everything and write the files; each row when it is measured, as rows take minutes."""
    DATA.mkdir(exist_ok=True)
    text = json.dumps(differences(), indent=1)
    (DATA / "differences.json").write_text(text + "\n", encoding="utf-8")
    path = DATA / "agreement.csv"
    before = read()[0] if path.exists() else []
    fresh: list[dict[str, Any]] = []
    for measured in agreement():
        fresh.append(measured)
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
