"""How a run is made: the keywords of `animate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from camanim.images import Fit, Window
from camanim.layer_selection import Layers
from camanim.progress import Progress, silent

if TYPE_CHECKING:
    import torch

    from camanim.layout import Override
    from camanim.precision import Precision


@dataclass(frozen=True)
class Settings:
    """How a run is made; the keywords of `animate`.

    Attributes
    ----------
    options : mapping
        Of the method, such as ``{"channels": 64}``; see ``camanim methods``.
    layers : str, predicate or iterable of str
        ``"unique"``, ``"all"``, ``"blocks"``, names, globs, kinds, or a predicate of `LayerInfo`.
    fit : {"stretch", "crop", "native"}
        Explain the whole image, torchvision's centre crop, or the image without resizing.
    window : (low, high), optional
        Intensities that become black and white.
    slices : bool
        Let a 2-D network explain every slice of a volume (Z, Y, X).
    eigen_smooth : bool
        Show the first principal component of what the channels contribute, instead of their sum.
    augment : bool
        Show the mean map of six variants of the image: mirrored or not, times 0.9, 1 and 1.1.
    counterfactual : bool
        Explain minus the score: what speaks against the target.
    show_1d : bool
        Show outputs without space as stripes, one per unit, as the paper does.
    layouts : mapping of str to (str or callable)
        By glob over layer names, how outputs are read: ``"NCHW"``, ``"NHWC"``, ``"tokens"``,
        ``"tokens:2"``, ``"1-D"``, ``"stripes"``, or a function from the output to (B, C, *s).
    batch_size : int
        Images per forward pass, of slices and of methods that ask the network again.
    device : str or torch.device, optional
        Where to compute, on a copy of the network; by default where it lies. When memory runs out,
        batches are halved, and then the CPU is used; `Animation.notes` says so.
    precision : {"float32", "bfloat16", "float16"}
        Of autocast.
    seed : int
        Of random methods.
    progress : Progress
        ``progress(stage, done, total)``. When it raises `Cancelled`, the maps made so far are kept
        (``Animation.cancelled``); when there is none yet, `Cancelled` is raised.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    layers: Layers = "unique"
    fit: Fit = "stretch"
    window: Window | None = None
    slices: bool = False
    eigen_smooth: bool = False
    augment: bool = False
    counterfactual: bool = False
    show_1d: bool = False
    layouts: Mapping[str, Override] | None = None
    batch_size: int = 16
    device: str | torch.device | None = None
    precision: Precision = "float32"
    seed: int = 0
    progress: Progress = silent

    def record(self) -> dict[str, Any]:
        """Give all of it as plain data."""
        layers = self.layers
        return {
            "options": dict(self.options),
            "layers": getattr(layers, "__name__", str(layers)),
            "fit": self.fit,
            "window": None if self.window is None else [float(v) for v in self.window],
            "slices": self.slices,
            "eigen_smooth": self.eigen_smooth,
            "augment": self.augment,
            "counterfactual": self.counterfactual,
            "show_1d": self.show_1d,
            "layouts": {k: getattr(v, "__name__", str(v)) for k, v in (self.layouts or {}).items()},
            "precision": self.precision,
            "seed": self.seed,
        }


def checked_settings(settings: dict[str, Any]) -> Settings:
    """Take the keywords of a call.

    Raises
    ------
    TypeError
        For one that there is not.
    """
    unknown = sorted(set(settings) - set(Settings.__dataclass_fields__))
    if unknown:
        known = ", ".join(Settings.__dataclass_fields__)
        raise TypeError(f"animate() has no setting {', '.join(unknown)}: there are {known}.")
    layers = settings.get("layers", "unique")
    if not isinstance(layers, str) and isinstance(layers, Iterable):
        # Read more than once, which an iterator is not.
        settings = settings | {"layers": list(layers)}
    return Settings(**settings)
