"""Methods that combine maps of another method: of all layers (RefineCAM), or of windows (SESS).

`camanim.attribution.combined` calls these functions according to `Method.meta`:

- ``"layers"``: `refine` multiplies the maps of ``options["base"]`` for all layers;
- ``"windows"``: `patches` crops `sess_windows` from the image, `sess_weights` selects windows by their
  scores, and one `Fusion` per layer combines the maps of the base method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from camanim.cam_methods.registry import register
from camanim.declarations import NotNegative, Positive
from camanim.errors import MethodError
from camanim.stack import FloatMap, upsample

if TYPE_CHECKING:
    import torch

Pool = Literal["mean", "max"]

#: Radius and standard deviation, in pixels, of the Gaussian that smooths the result of SESS.
RADIUS, SIGMA = 5, 5.0


@register(
    "RefineCAM",
    paper="arXiv 2605.14641, as in pytorch-grad-cam 1.5.7",
    summary="Product of the maps of a layer and all deeper layers, at the resolution of the layer.",
    caveat="Where the map of one layer is 0, those of all layers before it are 0 too, unless it is 0 "
    "everywhere.",
    cost="as its base method",
    meta="layers",
)
def refinecam(*, base: str = "GradCAM++") -> Any:
    """Multiply the map of each layer, scaled to [0, 1], by those of all later layers.

    The map of the first layer equals grad-cam's RefineCAM of all selected layers, except that maps
    without any gradient are left out: in the last block of a transformer that classifies by its class
    token, the score does not depend on the other tokens.

    Parameters
    ----------
    base : str
        Method that computes the maps.
    """
    raise MethodError(f"RefineCAM combines the maps of all layers by {base}: use camanim.animate.")


@register(
    "SESS",
    paper="Tursun et al., ECCV 2022, arXiv 2207.01769",
    summary="Maps of windows of the enlarged image, weighted by their scores and combined.",
    caveat="Windows that are unlike any image of the class contribute too.",
    cost="1 forward for each window, and the base method for each selected window",
    meta="windows",
)
def sess(
    *,
    base: str = "GradCAM",
    scales: Positive = 12,
    growth: NotNegative = 2 / 7,
    window: Positive | None = None,
    step: Positive | None = None,
    discard: NotNegative = 0.0,
    threshold: NotNegative = 0.0,
    pool: Pool = "mean",
    smooth: bool = True,
) -> Any:
    """Fuse the maps of windows that slide over the image at several scales.

    Tursun et al., "SESS: Saliency Enhancing with Scaling and Sliding", ECCV 2022.

    Parameters
    ----------
    base : str
        Method that computes the map of a window.
    scales : int
        Number of scales, including the original size.
    growth : float
        Increase of the shorter side of the image from one scale to the next, in windows.
    window : int or None
        Side of a window in pixels; None for the shorter side of the image.
    step : int or None
        Distance between windows in pixels; None for the side of a window.
    discard : float
        Fraction of windows to discard, those with the lowest scores.
    threshold : float
        Values up to the threshold are excluded from the mean.
    pool : {"mean", "max"}
        Combination of overlapping windows.
    smooth : bool
        Smooth the result by a Gaussian.
    """
    raise MethodError(f"SESS combines the maps of windows by {base}: use camanim.animate.")


# -- RefineCAM -------------------------------------------------------------------------------------


def refine(maps: Sequence[FloatMap], size: tuple[int, ...]) -> Iterator[FloatMap]:
    """Yield the product of each map with those of all later layers, from the last layer to the first.

    A map that is 0 everywhere is left out of the products of earlier layers: the score depends on none
    of its positions. In grad-cam, all products with it are 0.

    Parameters
    ----------
    maps : sequence of (*s) arrays
        Raw maps in order of execution, each at the resolution of its layer.
    size : (H, W) or (D, H, W)
        Size of the network's input.

    Yields
    ------
    (*size) float32 array
        In [0, 1].
    """
    total = np.ones(size)
    for raw in reversed(maps):
        if not raw.any():
            yield np.zeros(size, np.float32)
            continue
        total = total * scaled_to(raw, size)
        yield total.astype(np.float32)


def scaled_to(raw: FloatMap, size: tuple[int, ...]) -> FloatMap:
    """Return a raw map at another size, scaled to [0, 1] as in grad-cam: before and after resizing."""
    return _scaled(upsample(_scaled(np.maximum(raw, 0)), size))


def _scaled(array: FloatMap) -> FloatMap:
    shifted = array - array.min()
    top = shifted.max()
    scaled: FloatMap = shifted / top if top > 0 else shifted
    return scaled


# -- SESS ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """Window of an enlarged image.

    Attributes
    ----------
    scale : tuple of int
        Size of the enlarged image, (*S).
    start : tuple of int
        First pixel of the window.
    side : int
        Side of the window in pixels.
    """

    scale: tuple[int, ...]
    start: tuple[int, ...]
    side: int

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index of the window in the enlarged image."""
        return tuple(slice(first, first + self.side) for first in self.start)


def sess_windows(
    size: tuple[int, ...],
    *,
    scales: int = 12,
    growth: float = 2 / 7,
    window: int | None = None,
    step: int | None = None,
) -> list[Window]:
    """Return the windows that slide over an image at several scales.

    Windows that would extend beyond the border are moved into the image.

    Parameters
    ----------
    size : (H, W) or (D, H, W)
    scales, growth, window, step
        See `sess`.
    """
    shorter = min(size)
    side = shorter if window is None else window
    stride = side if step is None else step
    larger = round(side * growth)
    windows = []
    for i in range(scales):
        length = side + i * larger
        # As in torchvision's resize, the longer sides are rounded down.
        scale = tuple(length if n == shorter else int(length * n / shorter) for n in size)
        starts = [_starts(n, stride, side) for n in scale]
        windows += [Window(scale, start, side) for start in product(*starts)]
    return windows


def _starts(length: int, stride: int, side: int) -> list[int]:
    last = max(length - side, 0)
    return [*range(0, last, stride), last]


def patches(image: torch.Tensor, windows: Sequence[Window]) -> Iterator[torch.Tensor]:
    """Yield the crops of an image (Cin, *S) at windows sorted by scale, (Cin, side, side[, side])."""
    from torch.nn.functional import interpolate

    scale: tuple[int, ...] = ()
    for window in windows:
        if window.scale != scale:
            scale = window.scale
            flat = image.ndim == 3
            mode = "bilinear" if flat else "trilinear"
            enlarged = interpolate(image[None], list(scale), mode=mode, antialias=flat)[0]
        yield enlarged[(slice(None), *window.slices)]


def sess_weights(scores: npt.NDArray[Any], discard: float = 0.0) -> tuple[list[int], list[float]]:
    """Return the selected windows, and their weights: the scores as fractions of the highest.

    Parameters
    ----------
    scores : (W,) array
        The target's value in each window; negative values count as 0.
    discard : float
        Fraction of windows to discard, those with the lowest scores.

    Returns
    -------
    (list of int, list of float)
        Indices of windows in ascending order, and weights in [0, 1].
    """
    positive = np.maximum(np.asarray(scores, np.float64), 0)
    order = np.argsort(positive, kind="stable")[int(len(positive) * discard) :]
    top = positive[order[-1]]
    chosen = sorted(order.tolist())
    return chosen, [float(positive[i] / top) if top > 0 else 1.0 for i in chosen]


class Fusion:
    """Accumulator that combines the maps of windows.

    Parameters
    ----------
    size : (H, W) or (D, H, W)
        Size of the image.
    pool : {"mean", "max"}
    threshold : float
        Values up to the threshold are excluded from the mean.
    """

    def __init__(self, size: tuple[int, ...], pool: Pool = "mean", threshold: float = 0.0) -> None:
        self.size, self.pool, self.threshold = size, pool, threshold
        self._total = np.zeros(size, np.float32)
        self._count = np.zeros(size, np.float32)

    def add(self, raw: FloatMap, window: Window, weight: float) -> None:
        """Add the raw map of a window, (*s), of any resolution."""
        whole = np.zeros(window.scale, np.float32)
        whole[window.slices] = weight * scaled_to(raw, (window.side,) * len(self.size))
        placed = upsample(whole, self.size)
        if self.pool == "max":
            np.maximum(self._total, placed, out=self._total)
            return
        counts = placed > self.threshold
        self._total += np.where(counts, placed, 0)
        self._count += counts

    def result(self, *, smooth: bool = True) -> FloatMap:
        """Return the combined map, (*size); 0 where no window contributes."""
        from scipy.ndimage import gaussian_filter

        fused: Any = self._total
        if self.pool == "mean":
            fused = self._total / np.maximum(self._count, 1)
        if smooth:
            fused = gaussian_filter(fused, SIGMA, mode="mirror", radius=RADIUS)
        result: FloatMap = fused.astype(np.float32)
        return result
