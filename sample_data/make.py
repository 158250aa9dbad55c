"""Make the sample pictures and the small network that classifies them.

Everything follows from one seed: phantoms (`phantoms.py`) to train on, phantoms to watch the
training with, and phantoms kept apart until the end, on which the accuracy is measured and from
which the sample pictures are taken.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phantoms import KINDS, phantom

if TYPE_CHECKING:
    import torch

__all__ = ["KINDS", "PhantomSet", "classify", "load_network", "phantom", "phantom_set", "train"]

NETWORK_FILE = "ultrasound.safetensors"
ARCHITECTURE: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": len(KINDS),
    "init_features": 16,
    "growth_rate": 12,
    "block_config": [2, 2, 2],
    "bn_size": 4,
    "dropout_prob": 0.0,
}
SIZE = [128, 128]
MEAN, STD = [0.38], [0.21]

# The number of each set's own stream of seeds, and how many phantoms it has.
SPLITS = {"train": (0, 3600), "validation": (1, 300), "test": (2, 600)}
SAMPLES = {"normal": 2, "benign": 3, "malignant": 3}
# One sample of each class from every range of certainty, as far as the class has so many samples.
CERTAINTY = ((0.9, 1.0), (0.5, 0.75), (0.75, 0.9))
# Share of the picture that a sample's lesion covers: easily seen, and not the whole picture.
AREA = (0.025, 0.08)


class PhantomSet(NamedTuple):
    """Phantoms of all classes, by turns."""

    images: NDArray[np.uint8]
    """``(n, 256, 256)``"""
    masks: NDArray[np.bool_]
    """``(n, 256, 256)``, True in the lesion."""
    labels: NDArray[np.int64]
    """``(n,)``, indices into `KINDS`."""
    seeds: NDArray[np.int64]
    """``(n,)``, so that ``phantom(KINDS[label], seed)`` makes the same picture again."""


def phantom_set(seed: int, split: str) -> PhantomSet:
    """Make the phantoms for training, validation or test.

    Parameters
    ----------
    seed
        The seed of the whole run.
    split
        ``"train"``, ``"validation"`` or ``"test"``.

    Returns
    -------
    PhantomSet
        The same for the same arguments, however many processes make it.
    """
    stream, count = SPLITS[split]
    seeds = np.random.SeedSequence([seed, stream]).generate_state(count).astype(np.int64)
    labels = np.arange(count, dtype=np.int64) % len(KINDS)
    jobs = [(KINDS[label], int(each)) for label, each in zip(labels, seeds, strict=True)]
    # One thread for each process: two processes that both use all cores hinder each other badly.
    os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # Spawned, not forked: a fork of a process that has run PyTorch's threads may hang.
    with multiprocessing.get_context("spawn").Pool() as pool:
        images, masks = zip(*pool.starmap(phantom, jobs, chunksize=16), strict=True)
    return PhantomSet(np.stack(images), np.stack(masks), labels, seeds)


def prepare(images: NDArray[np.uint8]) -> torch.Tensor:
    """Turn pictures into the network's input, before normalisation.

    Parameters
    ----------
    images
        ``(n, height, width)``, 8 bits.

    Returns
    -------
    torch.Tensor
        ``(n, 1, 128, 128)``, from 0 to 1.
    """
    import torch
    from torchvision.transforms.v2 import functional

    parts = [
        functional.resize(part[:, None].float() / 255, SIZE, antialias=True)
        for part in torch.from_numpy(images).split(256)
    ]
    return torch.cat(parts)


def _normalise(batch: torch.Tensor) -> torch.Tensor:
    """Apply the fixed mean and standard deviation to values from 0 to 1."""
    return (batch - MEAN[0]) / STD[0]


def _augment(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Vary a batch as another examination would: side, gain, contrast, position."""
    import torch
    from torch.nn import functional

    count, _, height, width = batch.shape

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

    batch = torch.where(uniform(0, 1) < 0.5, batch.flip(-1), batch)
    batch = (batch.clamp(min=1e-3) ** uniform(0.8, 1.25) * uniform(0.85, 1.15)).clamp(0, 1)
    padded = functional.pad(batch, (6, 6, 6, 6), mode="reflect")
    corners = torch.randint(0, 13, (count, 2), generator=generator).tolist()
    return torch.stack(
        [
            picture[:, down : down + height, right : right + width]
            for picture, (down, right) in zip(padded, corners, strict=True)
        ]
    )


def train(
    images: torch.Tensor,
    labels: torch.Tensor,
    validation: tuple[torch.Tensor, torch.Tensor],
    *,
    seed: int,
    epochs: int = 18,
    batch_size: int = 32,
) -> torch.nn.Module:
    """Train the network from scratch.

    Parameters
    ----------
    images
        From `prepare`.
    labels
        ``(n,)``, indices into `KINDS`.
    validation
        Images and labels for the progress report only; nothing is chosen by them.
    seed
        Of the initial weights, the order of the pictures and their augmentation.
    epochs
        Passes over the pictures.
    batch_size
        Pictures in a step.

    Returns
    -------
    torch.nn.Module
        The network in evaluation mode.
    """
    import torch
    from monai.networks.nets import DenseNet

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = DenseNet(**ARCHITECTURE)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    steps = epochs * (len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=8e-3, total_steps=steps)
    # Smoothed labels keep the probabilities of a teaching aid from all being 1.000.
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.05)
    start = time.perf_counter()
    for epoch in range(epochs):
        network.train()
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        # The last, short batch is left out; each epoch leaves out others.
        for chosen in order[: len(order) // batch_size * batch_size].split(batch_size):
            optimiser.zero_grad()
            loss = criterion(
                network(_normalise(_augment(images[chosen], generator))), labels[chosen]
            )
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * batch_size
        right = classify(network, validation[0]).argmax(1) == validation[1].numpy()
        print(
            f"epoch {epoch + 1:2d}/{epochs}  loss {total / len(images):.3f}"
            f"  validation accuracy {right.mean():.3f}  {time.perf_counter() - start:.0f} s",
            flush=True,
        )
    return network.eval()


def classify(network: torch.nn.Module, images: torch.Tensor) -> NDArray[np.float32]:
    """Return the probabilities of the classes.

    Parameters
    ----------
    network
        From `train` or `load_network`; left in evaluation mode.
    images
        From `prepare`.

    Returns
    -------
    numpy.ndarray
        ``(n, 3)``, in the order of `KINDS`.
    """
    import torch

    network.eval()
    with torch.inference_mode():
        logits = [network(_normalise(part)) for part in images.split(64)]
        return torch.cat(logits).softmax(1).numpy()


def save_network(network: torch.nn.Module, path: Path, *, accuracy: float, seed: int) -> None:
    """Write the weights, with all that a loader needs in the file's metadata.

    Parameters
    ----------
    network
        A network of `ARCHITECTURE`.
    path
        The safetensors file.
    accuracy
        On the held-out phantoms.
    seed
        Of the run.
    """
    from safetensors.torch import save_file

    metadata = {
        "architecture": json.dumps(ARCHITECTURE),
        "classes": json.dumps(list(KINDS)),
        "size": json.dumps(SIZE),
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "accuracy": f"{accuracy:.4f}",
        "seed": str(seed),
        "note": "teaching aid trained on synthetic phantoms; not a diagnosis",
    }
    save_file(network.state_dict(), path, metadata=metadata)
    path.chmod(0o644)  # safetensors lets only the owner read it


def load_network(path: Path) -> torch.nn.Module:
    """Read what `save_network` wrote.

    Parameters
    ----------
    path
        The safetensors file.

    Returns
    -------
    torch.nn.Module
        The network in evaluation mode.
    """
    from monai.networks.nets import DenseNet
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, "pt") as file:
        network = DenseNet(**json.loads(file.metadata()["architecture"]))
    network.load_state_dict(load_file(path))
    return network.eval()


def choose_samples(phantoms: PhantomSet, probabilities: NDArray[np.float32]) -> dict[str, int]:
    """Choose the sample pictures among the held-out phantoms.

    For each class and each range in `CERTAINTY`, the first phantom that the network classifies
    rightly with a probability in that range and whose lesion, if any, covers a share of the
    picture in `AREA`; if there is none, the first with any probability that is not yet chosen.

    Parameters
    ----------
    phantoms
        The held-out set.
    probabilities
        ``(n, 3)``, from `classify`.

    Returns
    -------
    dict
        From a sample's name, such as ``"benign_1"``, to its index.
    """
    area = phantoms.masks.mean((1, 2))
    suits = (area == 0) | ((area >= AREA[0]) & (area <= AREA[1]))
    chosen: dict[str, int] = {}
    for label, kind in enumerate(KINDS):
        right = (phantoms.labels == label) & (probabilities.argmax(1) == label)
        left = [int(index) for index in np.flatnonzero(right & suits)]
        if len(left) < SAMPLES[kind]:
            raise RuntimeError(f"the network classifies too few {kind} phantoms rightly")
        for number, (low, high) in zip(range(1, SAMPLES[kind] + 1), CERTAINTY, strict=False):
            fitting = (i for i in left if low <= probabilities[i, label] < high)
            index = next(fitting, left[0])
            left.remove(index)
            chosen[f"{kind}_{number}"] = index
    return chosen


def _write_samples(
    samples: dict[str, int], phantoms: PhantomSet, probabilities: NDArray[np.float32], out: Path
) -> None:
    """Write the sample pictures and the lesions' outlines, and print what they are."""
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    print("\nsample        phantom seed  " + "  ".join(f"p({kind})" for kind in KINDS))
    for name, index in samples.items():
        Image.fromarray(phantoms.images[index]).save(out / "images" / f"{name}.png", optimize=True)
        if phantoms.masks[index].any():
            mask = phantoms.masks[index].astype(np.uint8) * 255
            Image.fromarray(mask).save(out / "masks" / f"{name}.png", optimize=True)
        shown = "  ".join(
            f"{value:{len(kind) + 3}.3f}"
            for kind, value in zip(KINDS, probabilities[index], strict=True)
        )
        print(f"{name:12s}  {phantoms.seeds[index]:12d}  {shown}")


def _report(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
    """Print the confusion matrix on the held-out phantoms; return the accuracy."""
    predicted = probabilities.argmax(1)
    print("\nheld-out phantoms (rows: truth, columns: network)")
    print(" " * 10 + "".join(f"{kind:>11s}" for kind in KINDS))
    for label, kind in enumerate(KINDS):
        row = np.bincount(predicted[labels == label], minlength=len(KINDS))
        print(f"{kind:10s}" + "".join(f"{number:11d}" for number in row))
    accuracy = float((predicted == labels).mean())
    print(f"held-out accuracy: {accuracy:.4f} ({len(labels)} phantoms)")
    return accuracy


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=0, help="everything follows from it (0)")
    parser.add_argument(
        "--images-only",
        action="store_true",
        help="do not train: choose the pictures with the network that is in the folder already",
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent, help="folder (this one)"
    )
    options = parser.parse_args()
    file = options.out / NETWORK_FILE
    if options.images_only and not file.is_file():
        parser.error(f"--images-only needs {file}; run without it first")

    import torch

    # The number of threads changes the order of sums, and so the last digits of the weights.
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.images_only:
        network = load_network(file)
    else:
        sets = [phantom_set(options.seed, split) for split in ("train", "validation")]
        inputs = [(prepare(each.images), torch.from_numpy(each.labels)) for each in sets]
        network = train(*inputs[0], inputs[1], seed=options.seed)

    test = phantom_set(options.seed, "test")
    probabilities = classify(network, prepare(test.images))
    accuracy = _report(test.labels, probabilities)
    if not options.images_only:
        save_network(network, file, accuracy=accuracy, seed=options.seed)
    samples = choose_samples(test, probabilities)
    _write_samples(samples, test, probabilities, options.out)

    from peaks import report_peaks

    report_peaks(file, test.images, test.masks, test.labels)


if __name__ == "__main__":
    main()
