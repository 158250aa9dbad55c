"""The curve below a movie's frames: how every layer scores, what chance would score, which is best."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from camanim.render.pen import ACCENT, QUIET, RULE, SURFACE, TEXT, WARM, Box, Pen, Point

if TYPE_CHECKING:
    from camanim.road import Road

Floats = npt.NDArray[np.float64]

#: Above the plot: two lines of words, what a layer scores and which is best.
LINE, HEAD = 20, 44


class Curve:
    """The ROAD scores over the layers ("ybROAD") with a cursor; under lines that tell the score.

    Beside the scores stands how far they spread, where there are repeats, and a faint line for what
    random maps score, where it is known.

    Parameters
    ----------
    road : Road
    places : list of int
        Index of each shown layer in the order of execution, as `LayerInfo.index`.
    box : (left, top, right, bottom)
        In pixels of the frame.
    pen : Pen
    """

    def __init__(self, road: Road, places: list[int], box: Box, pen: Pen) -> None:
        self.road, self.pen, (left, top, right, bottom) = road, pen, box
        self.scores = np.asarray(road.scores, np.float64)
        self.defined = np.isfinite(self.scores)
        self.chance = np.asarray(road.baseline, np.float64)
        spread = np.nan_to_num(np.asarray(road.spread, np.float64))
        self.lower, self.upper = self.scores - spread, self.scores + spread
        self.best = None if road.best is None else places.index(road.best.index)
        drawn = np.concatenate([self.lower, self.upper, self.chance])
        drawn = drawn[np.isfinite(drawn)]
        self.low, self.high = float(drawn.min(initial=0)), float(drawn.max(initial=0))
        self.caption_at, self.width = (left, top + pen.px(14)), right - left
        self.box = (left + pen.px(44), top + pen.px(HEAD), right, bottom - pen.px(20))
        # Pillow draws without antialiasing: draw large, then shrink. So the curve, too.
        side = 8 * pen.px(5)
        large = Image.new("L", (side, side))
        ImageDraw.Draw(large).ellipse((0, 0, side - 1, side - 1), 255)
        self.dot = large.reduce(4)

    def at(self, i: int, score: float) -> Point:
        """Return the pixel of a score. There is room for a word above the highest."""
        (left, top, right, bottom), px = self.box, self.pen.px
        steps, span = len(self.scores) - 1, self.high - self.low
        x = i / steps if steps else 0.5
        y = (score - self.low) / span if span else 0.5
        below, above = bottom - px(8), top + px(24)
        return left + px(8) + x * (right - left - 2 * px(8)), below - y * (below - above)

    def mark(self, canvas: Image.Image, i: int) -> None:
        """Draw the cursor at layer `i`, without a dot where it has no score, and tell the score."""
        pen, (_, top, _, bottom), defined = self.pen, self.box, bool(self.defined[i])
        left, baseline = self.caption_at
        for k, line in enumerate(self.road.caption(i).splitlines()):
            pen.write(canvas, (left, baseline + k * pen.px(LINE)), line, "body", width=self.width)
        x, y = (round(v) for v in self.at(i, self.scores[i] if defined else 0.0))
        stroke = (x, y if defined else top + pen.px(24), x + pen.px(1) - 1, bottom - 1)
        ImageDraw.Draw(canvas).rectangle(stroke, TEXT if defined else QUIET)
        if defined:
            corner = (x + (pen.px(1) - self.dot.width) // 2, y - self.dot.height // 2)
            canvas.paste(Image.new("RGB", self.dot.size, TEXT), corner, self.dot)

    def draw(self, canvas: Image.Image) -> None:
        """Draw all but the cursor."""
        left, top, right, bottom = self.box
        inside = (left, top, right - 1, bottom - 1)
        ImageDraw.Draw(canvas).rounded_rectangle(inside, self.pen.px(5), SURFACE)
        self._write_axes(canvas)
        factor = max(1, min(4, round(4 / self.pen.unit)))
        large = Image.new("RGBA", ((right - left) * factor, (bottom - top) * factor), (*ACCENT, 0))
        self._trace(large, factor)
        small = large.reduce(factor)
        canvas.paste(small.convert("RGB"), (left, top), small.getchannel("A"))

    def _trace(self, large: Image.Image, factor: int) -> None:
        """Draw curve, spread and chance, broken where a layer has none, and a ring around the best."""
        draw, thick = ImageDraw.Draw(large), round(1.8 * factor * self.pen.unit)

        def along(values: Floats | None, start: int, stop: int) -> list[Point]:
            places = [self.at(i, 0 if values is None else values[i]) for i in range(start, stop)]
            return [((x - self.box[0]) * factor, (y - self.box[1]) * factor) for x, y in places]

        def around(i: int, radius: float) -> tuple[float, float, float, float]:
            [(x, y)], r = along(self.scores, i, i + 1), radius * factor * self.pen.unit
            return x - r, y - r, x + r, y + r

        for run in _runs(self.defined):
            draw.polygon([*along(self.scores, *run), *along(None, *run)[::-1]], (*ACCENT, 46))
            draw.polygon([*along(self.lower, *run), *along(self.upper, *run)[::-1]], (*ACCENT, 120))
        for run in _runs(np.isfinite(self.chance)):
            draw.line(along(self.chance, *run), (*QUIET, 200), max(1, thick // 2), joint="curve")
        for start, stop in _runs(self.defined):
            if stop - start == 1:
                draw.ellipse(around(start, 2), (*ACCENT, 255))
            draw.line(along(self.scores, start, stop), (*ACCENT, 255), thick, joint="curve")
        if self.best is not None:
            draw.ellipse(around(self.best, 6), outline=(*WARM, 255), width=thick)

    def _write_axes(self, canvas: Image.Image) -> None:
        (left, top, right, bottom), pen = self.box, self.pen
        middle, baseline = (left + right) // 2, bottom + pen.px(16)
        taken: list[int] = []
        for value in (0.0, self.high, self.low) if self.defined.any() else ():
            y = round(self.at(0, value)[1])
            if all(abs(y - other) >= pen.px(15) for other in taken):
                taken.append(y)
                number = f"{value:.2f}" if value else "0"
                pen.write(canvas, (left - pen.px(8), y), number, anchor="rm")
                ImageDraw.Draw(canvas).line((left, y, right - 1, y), RULE, pen.px(1))
        if self.best is None:
            # Above the cursor, which would cross it.
            words = "no layer is above chance" if self.defined.any() else "no layer has a score"
            pen.write(canvas, (middle, top + pen.px(16)), words, anchor="ms")
        else:
            x, highest = self.at(self.best, self.scores[self.best])
            at = (min(max(x, left + pen.px(22)), right - pen.px(22)), highest - pen.px(10))
            pen.write(canvas, at, "best", "best", "ms")
        if len(self.scores) > 1:
            pen.write(canvas, (left + pen.px(8), baseline), "1", anchor="ms")
            pen.write(canvas, (right, baseline), str(len(self.scores)), anchor="rs")
        words = "layers in order of execution"
        if np.isfinite(self.chance).any():
            room = right - left - 2 * pen.px(50)
            fits = pen.fonts["small"].getlength(f"{words} (grey: chance)") <= room
            words = f"{words if fits else 'layers'} (grey: chance)"
        pen.write(canvas, (middle, baseline), words, anchor="ms")


def _runs(present: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Find start and stop of every run of True."""
    edges = np.flatnonzero(np.diff(present, prepend=False, append=False))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
