"""How long each layer is shown in a movie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from camanim.errors import RenderError
from camanim.layer_info import LayerInfo
from camanim.stages import stages


@dataclass(frozen=True)
class Timing:
    """The frames of one layer.

    Attributes
    ----------
    still : int
        Number of equal frames, at least one.
    faded : int
        Number of frames that blend it with the next layer, after them.
    """

    still: int = 1
    faded: int = 0

    def __len__(self) -> int:
        return self.still + self.faded


def timings(
    layers: Sequence[LayerInfo], fps: float, stage_seconds: float | None = None, fade: float = 0.0
) -> list[Timing]:
    """Return the frames of each layer.

    Parameters
    ----------
    layers : sequence of LayerInfo
    fps : float
    stage_seconds : float, optional
        Seconds of each stage of the network, see `camanim.stages.stages`: its layers share them as
        evenly as whole frames allow. By default each layer has one frame.
    fade : float
        Seconds of blended frames between two layers. With `stage_seconds`, they are the last ones of the
        layer's time, of which at least one frame is not blended; without, they are added.

    Raises
    ------
    RenderError
        If a stage has more layers than frames, or the fade lasts less than a frame.
    """
    blended = round(fade * fps)
    if fade > 0 and blended == 0:
        raise RenderError(
            f"fade is less than one frame: set it to {1 / fps:.3g} s at least, or raise fps."
        )
    counts = [1 + blended] * len(layers)
    if stage_seconds is not None:
        counts = _shared(layers, fps, stage_seconds)
    found = [Timing(count - min(blended, count - 1), min(blended, count - 1)) for count in counts]
    # Nothing follows the last layer; with a given time it stays.
    last = found[-1]
    still = len(last) if stage_seconds is not None else 1
    return [*found[:-1], Timing(still)]


def _shared(layers: Sequence[LayerInfo], fps: float, seconds: float) -> list[int]:
    """Return the number of frames of each layer, where stages have the same time."""
    total = round(seconds * fps)
    counts: list[int] = []
    for stage in stages(layers):
        if len(stage) > total:
            needed = math.ceil(len(stage) / seconds * 100) / 100
            raise RenderError(
                f"The stage {stage.name} has {len(stage)} layers, {seconds:g} s have {total} frames: "
                f"set stage_seconds to {len(stage) / fps:.3g} or fps to {needed:g} at least."
            )
        ends = [(k * total + len(stage) // 2) // len(stage) for k in range(len(stage) + 1)]
        counts += [high - low for low, high in pairwise(ends)]
    return counts
