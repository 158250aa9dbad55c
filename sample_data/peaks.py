"""How often the maps of the demo network peak inside the lesion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import camanim
from phantoms import KINDS


def report_peaks(
    network: Path,
    images: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    labels: NDArray[np.int64],
    *,
    count: int = 30,
) -> None:
    """Print where the maps of rightly classified lesions peak, by layer.

    Every layer's GradCAM of the true class is brought to the size of the picture; its peak is its
    largest value. "Best" is the layer that ROAD finds best for that picture.

    Parameters
    ----------
    network
        The safetensors file.
    images, masks, labels
        Held-out phantoms, as in `make.PhantomSet`.
    count
        How many lesions, the first ones; a few seconds each.
    """
    model = camanim.load_model("demo/ultrasound", weights=network)
    lesions = [i for i in np.flatnonzero(masks.any((1, 2))) if _right(model, images[i], labels[i])]
    chosen = lesions[:count]
    inside, best = [], []
    for i in chosen:
        animation = camanim.animate(model, images[i], target=int(labels[i]))
        hits = [_peaks_inside(plane, masks[i]) for plane in animation.stack()]
        animation.score()
        inside.append(hits)
        best.append(hits[animation.best_index])
    by_layer = np.mean(inside, axis=0)
    names = [layer.label for layer in animation.layers]
    print(
        f"\nGradCAM of {len(chosen)} held-out lesions, rightly classified: peak inside the lesion"
    )
    print(f"ROAD's best layer of each picture: {np.mean(best):.2f}")
    print(f"best fixed layer, {names[int(by_layer.argmax())]}: {by_layer.max():.2f}")
    print(f"last layer, {names[-1]}: {by_layer[-1]:.2f}")
    print(f"by chance (the lesion's share of the picture): {masks[chosen].mean():.2f}")


def _right(model: camanim.Model, image: NDArray[np.uint8], label: np.int64) -> bool:
    return model.predict(image, 1)[0].name == KINDS[label]


def _peaks_inside(plane: NDArray[np.float32], mask: NDArray[np.bool_]) -> bool:
    """Whether the largest value lies in the lesion; a map without positive evidence has no peak."""
    if plane.max() <= 0:
        return False
    y, x = np.unravel_index(plane.argmax(), plane.shape)
    # The centre of the map's pixel, in the picture's.
    row = int((y + 0.5) * mask.shape[0] / plane.shape[0])
    column = int((x + 0.5) * mask.shape[1] / plane.shape[1])
    return bool(mask[row, column])
