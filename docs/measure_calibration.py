"""Measure what the statements about scores are worth, on known nulls, and write ``docs/data``.

    python docs/measure_calibration.py claims           # above noise, above activation, best layer
    python docs/measure_calibration.py randomisation    # both schemes, by method
    python docs/measure_calibration.py depth            # score over depth, beside its null
    python docs/measure_calibration.py regions          # lesions and random places
    python docs/measure_calibration.py choice           # a layer chosen on other images

Each adds the rows that its file does not have yet, one by one, so that it can be stopped and continued;
``--limit N`` measures the first N images of each network, ``--network`` one of them. Two networks: the
demo network on held-out phantoms of lesions, and MobileNetV2 with a linear head trained here on breast
ultrasound images
(``--busi FOLDER`` with ``benign``, ``malignant`` and ``normal``; the Breast Ultrasound Images dataset of
Al-Dhabyani et al. 2020, which is not part of the repository, nor are the weights in ``TORCH_HOME``).

Nulls: RandomCAM weights the activation at random, SobelCAM shows edges and never sees the network, and
*moved* is GradCAM, shifted around the image, turned and mirrored.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure_trust import DATA, DEMO, SHARED, held_out

import camanim
from camanim import samples
from camanim.checks.transforms import random_transforms

Row = dict[str, Any]
Images = Iterator[tuple[str, str, camanim.Model, Any, Any, Any]]

PHANTOMS, IMAGES = 30, 30
SIDE = 128
NULLS = ("GradCAM", "RandomCAM", "SobelCAM", "moved")
METHODS = (
    *("GradCAM", "HiResCAM", "GradCAM++", "XGradCAM", "LayerCAM", "EigenGradCAM", "EigenCAM"),
    *("FEM", "FullGrad", "Guided backpropagation", "Guided Grad-CAM", "RandomCAM", "SobelCAM"),
)
#: Transforms of the layer test: the fewest that allow p = 0.05.
TRANSFORMS = 19


# -- Networks and images ---------------------------------------------------------------------------


class Head(torch.nn.Module):
    """MobileNetV2 without its classifier, and a linear layer."""

    def __init__(self, net: torch.nn.Module, classes: int) -> None:
        super().__init__()
        self.features = net.features
        self.head = torch.nn.Linear(net.last_channel, classes)

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean of each feature, (B, F)."""
        return self.features(x).mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits, (B, K)."""
        return self.head(self.pooled(x))


def images(only: str, busi: Path, limit: int) -> Images:
    """Yield network, name, model, image, mask (or None) and target."""
    if only in ("", "demo"):
        yield from phantoms(limit)
    if only in ("", "mobilenet"):
        yield from ultrasound(busi, limit)


def phantoms(limit: int) -> Images:
    """Yield the images of the demo network, as `images`."""
    demo = camanim.load_model(DEMO)
    listed = [
        (name, samples.image(name), samples.mask(name), name.partition("_")[0])
        for name in samples.names()
        if samples.mask(name) is not None
    ]
    listed += [
        (f"{kind} {seed}", image, mask, kind) for seed, kind, image, mask in held_out(PHANTOMS)
    ]
    for name, image, mask, kind in listed[:limit]:
        yield "demo", name, demo, image, mask, kind


def ultrasound(busi: Path, limit: int) -> Images:
    """Yield the images of MobileNetV2, as `images`."""
    if not busi.is_dir():
        print(f"No images in {busi}: earlier rows of MobileNetV2 are kept.")
        return
    trained, files = ultrasound_model(busi)
    for file in files[: min(limit, IMAGES)]:
        image = camanim.read_image(file)
        name = f"{file.parent.name} {file.stem}"
        yield "mobilenet", name, trained, image, None, file.parent.name


def ultrasound_model(busi: Path) -> tuple[camanim.Model, list[Path]]:
    """Return MobileNetV2 with a head for malignant and normal images, and correctly classified files.

    Logistic regression on the features of 80 % of the images; the files are malignant ones of the rest.
    """
    from sklearn.linear_model import LogisticRegression

    source = camanim.load_model("torchvision/mobilenet_v2")
    classes = ["normal", "malignant"]
    net = Head(source.net, len(classes)).eval()
    preprocess = replace(source.preprocess, size=(SIDE, SIDE), resize=None)
    model = camanim.Model(net, preprocess, classes=classes, name="mobilenet_v2 on ultrasound")
    files = [file for name in classes for file in sorted((busi / name).glob("*.png"))]
    files = list(np.random.default_rng(0).permutation(files))
    with torch.no_grad():
        features = np.concatenate(
            [net.pooled(model.prepare(camanim.read_image(file)).tensor).numpy() for file in files]
        )
    labels = np.array([classes.index(file.parent.name) for file in files])
    split = len(files) * 8 // 10
    fitted = LogisticRegression(C=0.1, max_iter=5000).fit(features[:split], labels[:split])
    print(
        f"accuracy on {len(files) - split} others: {fitted.score(features[split:], labels[split:]):.3f}"
    )
    with torch.no_grad():
        weight = torch.from_numpy(fitted.coef_[0]).float()
        net.head.weight.copy_(torch.stack([-weight / 2, weight / 2]))
        bias = float(fitted.intercept_[0])
        net.head.bias.copy_(torch.tensor([-bias / 2, bias / 2]))
    right = fitted.predict(features[split:]) == labels[split:]
    chosen = [
        f for f, r, y in zip(files[split:], right, labels[split:], strict=True) if r and y == 1
    ]
    return model, chosen


def maps_by(
    method: str, model: camanim.Model, image: Any, target: Any, layers: Any, seed: int
) -> Any:
    """Return the animation of a method, or of the null *moved*."""
    name = "GradCAM" if method == "moved" else method
    animation = camanim.animate(model, image, target=target, method=name, layers=layers, seed=seed)
    if method == "moved":
        [move] = random_transforms(tuple(animation.tensor.shape[2:]), 1, seed + 1)
        animation.maps = [move(raw) for raw in animation.maps]
    return animation


def tested_layers(network: str) -> Any:
    """Return the layers that are tested: all blocks, or of MobileNetV2 every third one."""
    return "blocks" if network == "demo" else [f"features.{i}" for i in range(1, 19, 3)]


# -- Measurements ----------------------------------------------------------------------------------


def claims(given: Images, known: set[tuple[str, ...]]) -> Iterator[Row]:
    """Measure how often each statement is made, for methods and nulls."""
    for k, (network, name, model, image, _, target) in enumerate(given):
        for method in NULLS:
            if (network, name, method) in known:
                continue
            layers = tested_layers(network)
            animation = maps_by(method, model, image, target, layers, seed=k)
            road = animation.score(seed=k)
            activation = animation.check_activation(layers, seed=k)
            test = animation.check_layers(layers, transforms=TRANSFORMS, seed=k)
            row: Row = {"network": network, "image": name, "method": method}
            row["layers"] = int((~np.isnan(road.scores)).sum())
            row["above noise"] = int(road.above_noise.sum())
            row["above activation"] = int(activation.above_activation.sum())
            row["random p <= 0.05"] = int((activation.p_values <= 0.05).sum())
            row["best"] = int(test.best is not None)
            row["lowest p"] = float(np.nanmin(test.p_values))
            row["mean"] = road.mean
            yield row


def randomisation(given: Images, known: set[tuple[str, ...]]) -> Iterator[Row]:
    """Measure both schemes of randomisation and the label check, by method."""
    for network, name, model, image, _, target in first_of_each(given, 5):
        for method in METHODS:
            if (network, name, method) in known:
                continue
            try:
                animation = camanim.animate(
                    model, image, target=target, method=method, layers="blocks"
                )
            except camanim.LayerError as error:
                # FullGrad, where no block has a bias.
                print(f"{network}, {method}: {error}")
                continue
            check = animation.check_randomisation(steps=1)
            labels = animation.check_labels()
            row: Row = {"network": network, "image": name, "method": method}
            row |= dict(zip(check.schemes, check.medians, strict=True))
            row |= {"threshold": check.threshold, "passed": check.passed}
            row |= dict(zip(("first", "middle", "last"), check.thirds, strict=True))
            row |= {"labels": labels.median, "labels passed": labels.passed}
            yield row


def depth(given: Images, known: set[tuple[str, ...]]) -> Iterator[Row]:
    """Measure the mean score in each fifth of the depth, of GradCAM, RandomCAM and random maps."""
    for k, (network, name, model, image, _, target) in enumerate(given):
        for method in ("GradCAM", "RandomCAM"):
            if (network, name, method) in known:
                continue
            animation = camanim.animate(model, image, target=target, method=method, seed=k)
            road = animation.score(seed=k)
            row: Row = {"network": network, "image": name, "method": method}
            for values, what in ((road.scores, "score"), (road.baseline, "random")):
                parts = np.array_split(values, 5)
                row |= {f"{what} {i + 1}": _mean(part) for i, part in enumerate(parts)}
            yield row


def regions(given: Images, known: set[tuple[str, ...]]) -> Iterator[Row]:
    """Measure the region test on lesions, and on regions of the same shape at random places."""
    for k, (network, name, model, image, mask, target) in enumerate(given):
        if (network, name) in known:
            continue
        animation = camanim.animate(model, image, target=target, layers="blocks")
        shape = animation.image.shape[:2]
        row: Row = {"network": network, "image": name, "lesion p": np.nan}
        generator = np.random.default_rng(k)
        side = np.array(shape) // 6
        corner = [int(generator.integers(0, n - s)) for n, s in zip(shape, side, strict=True)]
        somewhere = np.zeros(shape, bool)
        somewhere[corner[0] : corner[0] + side[0], corner[1] : corner[1] + side[1]] = True
        row["random p"] = animation.check_region(somewhere, seed=k).p_value
        if mask is not None:
            test = animation.check_region(mask, seed=k)
            row |= {"lesion p": test.p_value, "lesion effect": test.effect}
            row["elsewhere"] = float(test.elsewhere.mean())
        yield row


def choice(given: Images, known: set[tuple[str, ...]]) -> Iterator[Row]:
    """Measure excess and average precision of all layers, for the choice of a layer on other images."""
    for network, name, model, image, mask, target in given:
        if network != "demo" or (network, name) in known:
            continue
        animation = camanim.animate(model, image, target=target)
        road, localisation = animation.score(), animation.localise(mask)
        row: Row = {"network": network, "image": name}
        for i, layer in enumerate(animation.layers):
            row[f"excess {layer.label}"] = road.excess[i]
            row[f"AP {layer.label}"] = localisation.average_precision[i]
        yield row


def first_of_each(given: Images, count: int) -> Images:
    """Yield the first images of each network."""
    seen: Counter[str] = Counter()
    for image in given:
        seen[image[0]] += 1
        if seen[image[0]] <= count:
            yield image


def _mean(values: Any) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


# -- Files -----------------------------------------------------------------------------------------

#: By name: the measurement, and the columns that identify a row.
MEASUREMENTS: dict[str, tuple[Callable[..., Iterator[Row]], tuple[str, ...]]] = {
    "claims": (claims, ("network", "image", "method")),
    "randomisation": (randomisation, ("network", "image", "method")),
    "depth": (depth, ("network", "image", "method")),
    "regions": (regions, ("network", "image")),
    "choice": (choice, ("network", "image")),
}


def read(name: str) -> list[dict[str, str]]:
    """Return the rows of a file, without any where it is missing."""
    path = DATA / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """Write the rows of a file."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with (DATA / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: f"{v:.4f}" if isinstance(v, float | np.floating) else v for k, v in row.items()}
            )


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="+", choices=MEASUREMENTS)
    parser.add_argument("--limit", type=int, default=100, help="images of each network")
    parser.add_argument("--network", choices=("", "demo", "mobilenet"), default="")
    parser.add_argument("--busi", type=Path, default=SHARED.parent / "busi")
    options = parser.parse_args()
    for name in options.names:
        measure, keys = MEASUREMENTS[name]
        rows: list[dict[str, Any]] = list(read(name))
        known = {tuple(str(row[key]) for key in keys) for row in rows}
        for row in measure(images(options.network, options.busi, options.limit), known):
            rows.append(row)
            write(name, rows)
            print(name, dict(list(row.items())[:9]), flush=True)


if __name__ == "__main__":
    main()
