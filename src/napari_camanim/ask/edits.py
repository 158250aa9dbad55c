"""Jobs of what-if edits, which run in a thread, as functions of plain data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.animation import as_animation
from camanim.editing import WhatIf
from napari_camanim.layers.metadata import CamMetadata, metadata
from napari_camanim.work.networks import load_stored

if TYPE_CHECKING:
    from camanim import Animation
    from camanim.checks.region_test import RegionTest
    from camanim.editing import Effect
    from camanim.progress import Progress
    from camanim.stack import Normalization
    from napari_camanim.ask.boxes import Ranges

#: Classes that are listed, before and after.
TOP = 3
#: A lower p-value says that the network uses the region.
LEVEL = 0.05


@dataclass(frozen=True)
class Drawn:
    """What was drawn over the image.

    Attributes
    ----------
    painted : array or None
        Labels of the explained region, in pixels of `Result.image`.
    boxes : tuple
        Ranges of pixels of each box.
    """

    painted: npt.NDArray[Any] | None = None
    boxes: tuple[Ranges, ...] = ()

    @cached_property
    def is_empty(self) -> bool:
        """Whether nothing is marked."""
        return not self.boxes and (self.painted is None or not self.painted.any())

    def same_as(self, other: Drawn) -> bool:
        """Return whether the same pixels are marked in the same way."""
        if self.boxes != other.boxes:
            return False
        if self.painted is not None and other.painted is not None:
            return np.array_equal(self.painted, other.painted)
        return not any(
            each is not None and bool(each.any()) for each in (self.painted, other.painted)
        )

    def mask(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Return the marked pixels; boxes are clipped to the image."""
        marked = np.zeros(shape, bool)
        if self.painted is not None:
            marked |= self.painted.reshape(shape) != 0
        for box in self.boxes:
            marked[tuple(slice(max(0, start), max(0, stop)) for start, stop in box)] = True
        return marked


def prepare(animation: Animation, device: Any, progress: Progress) -> WhatIf:
    """Prepare a result, with its network on the device that it was computed on."""
    load_stored(animation, progress)
    if device not in (None, "cpu"):
        animation = replace(animation, model=animation.model.to(device))
    return WhatIf(animation, TOP, progress=progress)


def edit(what_if: WhatIf, drawn: Drawn, settings: dict[str, Any], progress: Progress) -> Effect:
    """Replace what is drawn, instead of any edit before, and predict."""
    what_if.clear()
    mask = drawn.mask(what_if.shape)
    if not mask.any():
        return what_if.predict(progress=progress)
    return what_if.edit(mask, **settings, progress=progress)


def picture(what_if: WhatIf, progress: Progress) -> npt.NDArray[np.uint8]:
    """Return the edited image."""
    return what_if.image


def explain(
    what_if: WhatIf, animation: Animation, normalization: Normalization, progress: Progress
) -> tuple[Animation, CamMetadata]:
    """Return the maps of the edited image, and their metadata."""
    explained = what_if.explain(progress=progress)
    # The copy on the device is released.
    explained = as_animation(replace(explained, model=animation.model))
    return explained, metadata(explained, normalization)


def find_superpixels(what_if: WhatIf, count: int, progress: Progress) -> npt.NDArray[np.int32]:
    """Return the superpixels of the image."""
    return what_if.superpixels(count)


def use_in_words(test: RegionTest) -> str:
    """Return what a region test says, in words, with its p-value."""
    places = len(test.elsewhere)
    p = f"p = {test.p_value:.2g}"
    if test.p_value <= LEVEL:
        return (
            f"The network uses this region for {test.target} ({p}): without it, the output changes by "
            f"{test.effect:+.2f}; without the same region at {places} other places, by "
            f"{test.elsewhere.mean():+.2f} on average.{_too_large(test)}"
        )
    return (
        f"Nothing shows that the network uses this region for {test.target} ({p}): without it, the "
        f"output changes by {test.effect:+.2f}; without the same region at {places} other places, by "
        f"{test.elsewhere.mean():+.2f} on average.{_too_large(test)}"
    )


def _too_large(test: RegionTest) -> str:
    remark = test.summary().partition(").")[2]
    return f" {remark.strip()}" if remark.strip() else ""
