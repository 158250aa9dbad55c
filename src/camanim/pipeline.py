"""`animate`, the one way through the house.

Image, model's preprocessing, one pass through the network (`capture`), and the result as plain data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from camanim.animation import Animation, Status
from camanim.cams import find_method
from camanim.errors import LayerError
from camanim.images import Fit, Prepared, Window, as_array
from camanim.layers import Layers, selector
from camanim.models.base import Model
from camanim.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn


def animate(
    model: Model | nn.Module,
    image: Any,
    *,
    method: str = "GradCAM",
    target: int | str | None = None,
    layers: Layers = "unique",
    fit: Fit = "stretch",
    window: Window | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Animation:
    """Compute the class activation maps of all layers, in one forward and one backward pass.

    Parameters
    ----------
    model : Model or torch.nn.Module
        See `camanim.load_model` and `camanim.Model`; a bare network is taken with the defaults of
        `Model`.
    image : array-like
        (H, W), (H, W, 3) or (H, W, 4), of any number type; numpy, dask, PIL.
    method : str
        One of `camanim.methods`, such as ``"GradCAM"``.
    target : int, str or None
        The class to be explained, by number or name; by default the likeliest.
    layers : str, predicate or iterable of str
        ``"unique"``, ``"all"``, ``"blocks"``, names, globs, kinds, or a predicate of `LayerInfo`.
    fit : {"stretch", "crop", "native"}
        Explain the whole image, torchvision's centre crop, or the image without resizing.
    window : (low, high), optional
        Intensities that become black and white.
    seed : int
        Of random methods.
    progress : Progress
        ``progress(stage, done, total)``. When it raises `Cancelled`, the maps made so far are kept
        (``Animation.cancelled``); when there is none yet, `Cancelled` is raised.

    Returns
    -------
    Animation

    Raises
    ------
    CamError
        One of its kinds, each with one sentence that says what is wrong and what to do. The network
        comes back as it was in any case.

    Examples
    --------
    >>> import numpy as np
    >>> model = load_model("demo/ultrasound")  # doctest: +SKIP
    >>> animation = animate(model, np.zeros((64, 64), np.uint8))  # doctest: +SKIP
    """
    from camanim.capture import capture

    if not isinstance(model, Model):
        model = Model(model)
    if hasattr(image, "dask"):
        # Computed once, not each time somebody looks at it.
        image = as_array(image)
    if not isinstance(layers, str) and isinstance(layers, Iterable):
        layers = list(layers)
    chosen = find_method(method)
    prepared = model.prepare(image, fit=fit, window=window)
    select = selector(layers, model.net)
    provenance = _provenance(model, image, prepared)
    captured = capture(
        model.net,
        prepared.tensor,
        method=chosen,
        target=target,
        classes=model.classes,
        select=select,
        seed=seed,
        progress=progress,
    )
    shown = [layer for layer in captured.trace if layer.status == Status.OK]
    if not shown:
        raise LayerError(_why_none([layer.status for layer in captured.trace]))
    return Animation(
        maps=[captured.maps[layer.index] for layer in shown],
        layers=shown,
        trace=captured.trace,
        method=chosen.name,
        target=captured.target,
        probability=float(captured.target.probability(captured.logits)[0]),
        image=prepared.image,
        geometry=prepared.geometry,
        tensor=prepared.tensor.cpu().float(),
        model=model,
        provenance=provenance
        | {
            "method": chosen.name,
            "target": captured.target.index,
            "layers": getattr(layers, "__name__", str(layers)),
            "fit": fit,
            "window": None if window is None else [float(v) for v in window],
            "seed": seed,
        },
    )


def _why_none(statuses: list[str]) -> str:
    wanted = sorted({status for status in statuses if status != Status.NOT_SELECTED})
    if not wanted:
        return 'The selection of layers matches no layer that ran: use "unique", "all" or names.'
    return f"None of the selected layers has a map ({', '.join(wanted)}): select others."


def _provenance(model: Model, image: Any, prepared: Prepared) -> dict[str, Any]:
    """Note what the result depends on, so that it can be made again."""
    import torch
    import torchvision

    import camanim

    array = np.ascontiguousarray(image)
    return {
        "camanim": camanim.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "model": model.name,
        "weights sha256": model.weights_hash(),
        "image sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        "image shape": list(array.shape),
        "image dtype": str(array.dtype),
        "input shape": list(prepared.tensor.shape),
        "device": str(prepared.tensor.device),
    }
