"""Methods that combine maps of another method: of all layers (RefineCAM), or of windows (SESS).

The functions here are pure. `camanim.attribution.combined` calls them according to `Method.meta`:

- ``"layers"``: `refine` gets the maps of ``options["base"]`` for all layers;
- ``"windows"``: `patches` cuts `sess_windows` out of the image, `sess_weights` chooses among them by
  their scores, and one `Fusion` per layer combines the base method's maps.
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

#: The Gaussian that smooths the result of SESS: taps, and standard deviation in pixels.
TAPS, SIGMA = 11, 5.0


@register(
    "RefineCAM",
    paper="arXiv 2605.14641, as in pytorch-grad-cam 1.5.7",
    summary="The map of a layer times those of all deeper ones, in the detail of the layer.",
    caveat="Where one layer is dark, all layers before it are dark too.",
    cost="as its base method",
    meta="layers",
)
def refinecam(*, base: str = "GradCAM++") -> Any:
    """Multiply each layer's map, scaled to [0, 1], by those of all later ones.

    The first layer's map is grad-cam's RefineCAM of all selected layers.

    Parameters
    ----------
    base : str
        The method that makes the maps.
    """
    raise MethodError(f"RefineCAM combines the maps of all layers by {base}: use camanim.animate.")


@register(
    "SESS",
    paper="Tursun et al., ECCV 2022, arXiv 2207.01769",
    summary="Maps of windows of the enlarged image, weighted by their scores and combined.",
    caveat="A window may be unlike any image of the class, and contributes all the same.",
    cost="1 forward for each window, and its base method for each one that is kept",
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
        The method that makes a window's map.
    scales : int
        Number of scales, the image's size included.
    growth : float
        Growth of the image's shorter side from one scale to the next, in windows.
    window : int or None
        Side of a window in pixels; None for the image's shorter side.
    step : int or None
        Distance between windows in pixels; None for a window's side.
    discard : float
        Share of the windows that are left out, those with the lowest scores.
    threshold : float
        Values up to the threshold are left out of the mean.
    pool : {"mean", "max"}
        How overlapping windows are combined.
    smooth : bool
        Whether the result is smoothed by a Gaussian.
    """
    raise MethodError(f"SESS combines the maps of windows by {base}: use camanim.animate.")


# -- RefineCAM -------------------------------------------------------------------------------------


def refine(maps: Sequence[FloatMap], size: tuple[int, ...]) -> Iterator[FloatMap]:
    """Multiply each map by those of all later layers, from the last layer to the first.

    Parameters
    ----------
    maps : sequence of (*s) arrays
        Raw maps in order of execution, each at its own resolution.
    size : (H, W) or (D, H, W)
        The network's input size.

    Yields
    ------
    (*size) float32 array
        In [0, 1]; first that of the last layer.
    """
    so_far = np.ones(size)
    for raw in reversed(maps):
        so_far = so_far * scaled_to(raw, size)
        yield so_far.astype(np.float32)


def scaled_to(raw: FloatMap, size: tuple[int, ...]) -> FloatMap:
    """Scale a raw map to [0, 1] at a size, as grad-cam does: ReLU, scaling, resizing, scaling."""
    return _scaled(upsample(_scaled(np.maximum(raw, 0)), size))


def _scaled(array: FloatMap) -> FloatMap:
    shifted = array - array.min()
    top = shifted.max()
    scaled: FloatMap = shifted / top if top > 0 else shifted
    return scaled


# -- SESS ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """A window of an enlarged image.

    Attributes
    ----------
    scale : tuple of int
        The enlarged image's size, (*S).
    start : tuple of int
        The window's first pixel in it.
    side : int
        In pixels.
    """

    scale: tuple[int, ...]
    start: tuple[int, ...]
    side: int

    @property
    def slices(self) -> tuple[slice, ...]:
        """The window as an index into the enlarged image."""
        return tuple(slice(at, at + self.side) for at in self.start)


def sess_windows(
    size: tuple[int, ...],
    *,
    scales: int = 12,
    growth: float = 2 / 7,
    window: int | None = None,
    step: int | None = None,
) -> list[Window]:
    """List the windows that slide over an image at several scales.

    A window that would cross the border is moved back into the image.

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
        # As torchvision's resize: the longer sides are rounded down.
        scale = tuple(length if n == shorter else int(length * n / shorter) for n in size)
        starts = [_starts(n, stride, side) for n in scale]
        windows += [Window(scale, at, side) for at in product(*starts)]
    return windows


def _starts(length: int, stride: int, side: int) -> list[int]:
    last = max(length - side, 0)
    return [*range(0, last, stride), last]


def patches(image: torch.Tensor, windows: Sequence[Window]) -> Iterator[torch.Tensor]:
    """Cut windows, sorted by scale, out of an image (Cin, *S): (Cin, side, side[, side]) each."""
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
    """Return the windows that are kept, and their weights: the scores as shares of the highest.

    Parameters
    ----------
    scores : (W,) array
        The target's probability, or another score, per window; negative scores count as 0.
    discard : float
        Share of the windows that are left out, those with the lowest scores.

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
    """Combines the maps of windows, one by one.

    Parameters
    ----------
    size : (H, W) or (D, H, W)
        The image's size.
    pool : {"mean", "max"}
    threshold : float
        Values up to the threshold are left out of the mean.
    """

    def __init__(self, size: tuple[int, ...], pool: Pool = "mean", threshold: float = 0.0) -> None:
        self.size, self.pool, self.threshold = size, pool, threshold
        self._total = np.zeros(size, np.float32)
        self._count = np.zeros(size, np.float32)

    def add(self, raw: FloatMap, window: Window, weight: float) -> None:
        """Add a window's raw map (*s), at any resolution."""
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
        """Return the map of the whole image, (*size); 0 where no window contributes."""
        from scipy.ndimage import correlate1d

        fused: Any = self._total
        if self.pool == "mean":
            fused = self._total / np.maximum(self._count, 1)
        if smooth:
            taps = np.exp(-((np.arange(TAPS) - TAPS // 2) ** 2) / (2 * SIGMA**2))
            for axis in range(fused.ndim):
                fused = correlate1d(fused, taps / taps.sum(), axis, mode="mirror")
        result: FloatMap = fused.astype(np.float32)
        return result
