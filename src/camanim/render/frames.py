"""Frames of movies: the map of one layer over the image, with text, a colour bar and a curve.

Everything that is equal in all frames is drawn once. A frame needs a copy of it, one resize of the map
to display size, one blend and a few lines of text. Lengths are given for an image whose longer side has
448 pixels, and scaled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from camanim.declarations import Check, Range, checked
from camanim.errors import LayerIndexError, RenderError
from camanim.findings import Finding
from camanim.plots import Panel
from camanim.render.curve import Curve, cursors_of
from camanim.render.overlay import COLORMAPS, Overlay, display_size, lookup_table
from camanim.render.pen import BACKGROUND, TEXT, Box, Pen, plain
from camanim.stack import Normalization, Stack, stack_maps
from camanim.words import value_in_words

if TYPE_CHECKING:
    from camanim.result import Result
    from camanim.stack import FloatMap

Frame = npt.NDArray[np.uint8]

FrameSize = Annotated[int, Range(64, 4096)]
Opacity = Annotated[float, Range(0, 1)]
Layout = Literal["overlay", "image | map", "local | global"]
#: Heights of frames with an aspect ratio of 16:9.
RESOLUTIONS = (480, 720, 1080, 1440, 2160)
Resolution = Annotated[
    int, Check(lambda value: value in RESOLUTIONS, "480, 720, 1080, 1440 or 2160")
]

MARGIN, PANEL, CURVE = 22, 264, 196
#: Height of the heading of a picture, and distance from one colour bar to the next.
HEADING, NEXT_BAR = 26, 58
_SCALES = {"local": "local scale (this layer)", "global": "global scale (all layers)"}


@dataclass(frozen=True)
class _View:
    """One picture of a frame that shows maps.

    Attributes
    ----------
    overlay : Overlay
    stack : Stack
    corner : (x, y)
        Left and top of the part of the frame that changes.
    """

    overlay: Overlay
    stack: Stack
    corner: tuple[int, int]

    def draw(self, canvas: Image.Image, levels: FloatMap) -> None:
        canvas.paste(self.overlay.blend(levels), self.corner)


class FrameRenderer:
    """Renderer of the frames of one result.

    The parameters are those of `Animation.write_movie`, and `plane`: which plane of a volume the result
    is, in words.

    Attributes
    ----------
    size : (width, height)
        Size of the frame in pixels, both even as H.264 requires.

    Raises
    ------
    RenderError
        If the result has no map, or a setting is invalid.
    """

    @checked(RenderError)
    def __init__(
        self,
        animation: Result,
        *,
        normalization: Normalization = "local",
        signed: bool = False,
        size: FrameSize = 448,
        colormap: str | None = None,
        opacity: Opacity = 0.5,
        layout: Layout = "overlay",
        resolution: Resolution | None = None,
        plane: str = "",
    ) -> None:
        if not animation.maps:
            raise RenderError("The result has no map to draw: select layers with a map.")
        self.animation, self.layout, self._plane = animation, layout, plane
        scales: tuple[Normalization, ...] = (normalization,)
        if layout == "local | global":
            scales = ("local", "global")
        self._stacks = [stack_maps(animation, scale, signed=signed) for scale in scales]
        self.stack = self._stacks[0]
        self._colors = lookup_table(COLORMAPS[bool(signed)] if colormap is None else colormap)
        self._opacity = float(opacity)
        self._found = _curve_of(animation)
        excluded = None if self._found is None else self._found[0]
        self._captions = [_caption_lines(animation, i, excluded) for i in range(len(self))]
        # Those that may be the longest when drawn; measuring hundreds takes time.
        labels = sorted({plain(x.label) for x in animation.layers}, key=len)
        self._labels = labels[-40:]
        if resolution is None:
            # The text remains legible beside a small image.
            width, height = self._measure(size, max(size, 336) / 448)
            self.size = (width + width % 2, height + height % 2)
        else:
            self.size = fit(resolution, self._measure)
        self._lay_out()

    def __len__(self) -> int:
        return len(self.animation)

    def frame(self, i: int) -> Frame:
        """Return the frame of layer `i`, 0 to L - 1.

        Returns
        -------
        (H, W, 3) uint8 array

        Raises
        ------
        LayerIndexError
            If `i` is out of range.
        """
        return np.array(self.canvas(i))

    def canvas(self, i: int) -> Image.Image:
        """Return the frame of layer `i` as a picture of Pillow; see `frame`."""
        if not 0 <= i < len(self):
            raise LayerIndexError(
                f"Layer {i} is out of range: the layers are 0 to {len(self) - 1}."
            )
        canvas = self._background.copy()
        for view in self._views:
            view.draw(canvas, _levels(view.stack, i))
        self._write_layer(canvas, i)
        for stack, bar in zip(self._stacks, self._bars, strict=True):
            self._write_limits(canvas, i, stack, bar)
        if self._curve is not None:
            self._curve.mark(canvas, i)
        return canvas

    def changed(self, i: int) -> list[Box]:
        """Return the parts, with even edges, in which frame `i` differs from a common background."""
        px, (left, top) = self._pen.px, self._panel
        right = left + px(PANEL) + px(MARGIN)
        parts = [(left - 2, top - px(4), right, self._facts_top)]
        parts += [(left - px(20), bar[3], right, bar[3] + px(22)) for bar in self._bars]
        for view in self._views:
            width, height = view.overlay.covered
            x, y = view.corner
            parts.append((x, y, x + width, y + height))
        if self._curve is not None:
            parts += self._curve.changed(i)
        return [even(part, self.size) for part in parts]

    def _measure(self, size: int, unit: float) -> tuple[int, int]:
        """Set the lengths of all parts, and return width and height of the frame that they need."""
        self._image_size, self._pen = size, Pen(unit)
        px = self._pen.px
        longest = max(self._labels, key=self._pen.fonts["title"].getlength)
        self._label_lines = len(self._pen.wrap(longest, "title", px(PANEL)))
        self._class_lines = self._pen.wrap(self.animation.target.name, "body", px(PANEL))
        self._facts = self._fact_lines()
        self._facts_height = 66 + 20 * len(self._class_lines) + 18 * len(self._facts)
        self._facts_height += NEXT_BAR * (len(self._stacks) - 1)
        self._image = display_size(self.animation.image, size)
        self._heading = 0 if self.layout == "overlay" else px(HEADING)
        panel_height = px(64 + 27 * self._label_lines) + px(self._facts_height + 26)
        panel_height += px(18 * max(map(len, self._captions), default=0))
        self._row = max(self._heading + self._image[1], panel_height)
        margin, pictures = px(MARGIN), 1 if self.layout == "overlay" else 2
        self._content = pictures * (self._image[0] + margin) + px(PANEL)
        self._curve_height = 0 if self._found is None else px(CURVE) + margin
        return self._content + 2 * margin, 2 * margin + self._row + self._curve_height

    def _fact_lines(self) -> list[tuple[str, str]]:
        """Return the lines below the name of the target, each with its style."""
        result, model = self.animation, str(self.animation.provenance.get("model", ""))
        value = value_in_words(result.probability, result.target.unit)
        lines = [value, f"{result.method}, {model}" if model else result.method]
        notes = self._pen.wrap(result.image_note, "failed", self._pen.px(PANEL))
        # A black image would look like one that was explained.
        return [(line, "small") for line in (*lines, self._plane) if line] + [
            (line, "failed") for line in notes if line
        ]

    def _lay_out(self) -> None:
        """Draw the background that all frames share."""
        px, (width, height) = self._pen.px, self.size
        margin = px(MARGIN)
        left = (width - self._content) // 2
        top = (height - self._curve_height - self._row - 2 * margin) // 2 + margin
        self._background = Image.new("RGB", self.size, BACKGROUND)
        self._place_pictures(left, top)
        self._panel = (left + self._content - px(PANEL), top)
        self._bars: list[Box] = []
        self._write_facts(top + self._row)
        self._curve = None
        if self._found is not None:
            curve_top = top + self._row + margin
            box = (margin, curve_top, width - margin, curve_top + px(CURVE))
            self._curve = Curve(self._found[1], cursors_of(*self._found), box, self._pen)
            self._curve.draw(self._background)

    def _place_pictures(self, left: int, top: int) -> None:
        """Draw the parts of the pictures that do not change, and set the views."""
        animation, margin = self.animation, self._pen.px(MARGIN)
        top += (self._row - self._heading - self._image[1]) // 2 + self._heading
        right = left + self._image[0] + margin
        opacity = 1.0 if self.layout == "image | map" else self._opacity
        overlay = Overlay(
            animation.image, animation.geometry, self._image_size, self._colors, opacity
        )
        self._views = []
        places = [(left, self._stacks[0])]
        if self.layout == "image | map":
            missing = " (see the note)" if animation.image_note else ""
            self._write_heading(left, top, f"image{missing}")
            self._write_heading(right, top, "map")
            self._background.paste(overlay.image, (left, top))
            places = [(right, self._stacks[0])]
        elif self.layout == "local | global":
            places = list(zip((left, right), self._stacks, strict=True))
            for at, stack in places:
                self._write_heading(at, top, _SCALES[str(stack.normalization)])
        picture = overlay.image
        if self.layout == "image | map":
            # What the map does not cover is no part of it.
            picture = Image.blend(picture, Image.new("RGB", picture.size, BACKGROUND), 0.75)
        for at, stack in places:
            self._background.paste(picture, (at, top))
            corner = (at + overlay.corner[0], top + overlay.corner[1])
            self._views.append(_View(overlay, stack, corner))

    def _write_heading(self, left: int, top: int, text: str) -> None:
        at = (left, top - self._pen.px(9))
        self._pen.write(self._background, at, text, "body", width=self._image[0])

    def _write_facts(self, bottom: int) -> None:
        """Write class, value, method and colour bars, from top to bottom, down to `bottom`."""
        pen, (left, _) = self._pen, self._panel
        baseline, width = bottom - pen.px(self._facts_height), pen.px(PANEL)
        #: What is above changes from layer to layer.
        self._facts_top = baseline - pen.px(18)
        for line in self._class_lines:
            pen.write(self._background, (left, baseline), line, "body")
            baseline += pen.px(20)
        for line, style in self._facts:
            pen.write(self._background, (left, baseline), line, style, width=width)
            baseline += pen.px(18)
        strip = Image.fromarray(self._colors[None])
        for k, stack in enumerate(self._stacks):
            end = bottom - pen.px(NEXT_BAR) * (len(self._stacks) - 1 - k)
            bar: Box = (left, end - pen.px(30), left + width, end - pen.px(18))
            title = f"raw values, {_SCALES[str(stack.normalization)]}"
            pen.write(self._background, (left, bar[1] - pen.px(8)), title)
            size = (width, bar[3] - bar[1])
            self._background.paste(strip.resize(size, Image.Resampling.BILINEAR), bar[:2])
            self._bars.append(bar)

    def _write_layer(self, canvas: Image.Image, i: int) -> None:
        pen, (left, top) = self._pen, self._panel
        layer, raw = self.animation.layers[i], self.animation.maps[i]
        pen.write(canvas, (left, top + pen.px(11)), f"Layer {i + 1}/{len(self)}", "place")
        for k, line in enumerate(pen.wrap(layer.label, "title", pen.px(PANEL))):
            pen.write(canvas, (left, top + pen.px(39 + 27 * k)), line, "title")
        # Below the tallest label of all layers, so that the text has one position in all frames.
        below = 36 + 27 * self._label_lines
        kind = f"{layer.kind}, map {raw.shape[0]} x {raw.shape[1]}"
        pen.write(canvas, (left, top + pen.px(below)), kind, width=pen.px(PANEL))
        if missing := self.animation.no_evidence(i):
            at = (left, top + pen.px(below + 22))
            pen.write(canvas, at, missing, "warning", width=pen.px(PANEL))
        for k, (line, style) in enumerate(self._captions[i]):
            at = (left, top + pen.px(below + 40 + 18 * k))
            pen.write(canvas, at, line, style, width=pen.px(PANEL))

    def _write_limits(self, canvas: Image.Image, i: int, stack: Stack, bar: Box) -> None:
        """Write the raw values of a colour bar; on a global scale, underline those of layer `i`."""
        signed, (low, high) = stack.signed, stack.limits(i)
        left, _, right, bottom = bar
        columns, anchors = (left, (left + right) // 2, right), ("ls", "ms", "rs")
        values = np.linspace(-high if signed else low, high, 3)
        # A constant map has a single value.
        for k in (0, 1, 2) if high > low else (int(signed),):
            at, number = (columns[k], bottom + self._pen.px(16)), f"{values[k] + 0.0:.3g}"
            self._pen.write(canvas, at, number, "number", anchors[k])
        if stack.normalization == "global" and high > low:
            levels = _levels(stack, i)
            x0, x1 = (left + float(v) * (right - 1 - left) for v in (levels.min(), levels.max()))
            ImageDraw.Draw(canvas).rectangle((x0, bottom, x1, bottom + self._pen.px(2) - 1), TEXT)


def fit(resolution: int, measure: Callable[[int, float], tuple[int, int]]) -> tuple[int, int]:
    """Measure with the largest image that fits a frame of 16:9, and return the size of the frame.

    Parameters
    ----------
    resolution : int
        Height of the frame in pixels.
    measure : callable
        ``measure(size, unit)`` sets the longer side of the image and the length of a unit, both in
        pixels, and returns the width and height of the frame that they need.

    Raises
    ------
    RenderError
        If no image fits with legible text.
    """
    width = round(resolution * 16 / 9)
    frame = (width + width % 2, resolution)

    def fits(size: int, unit: float | None) -> bool:
        needed = measure(size, max(size, 336) / 448 if unit is None else unit)
        return needed[0] <= frame[0] and needed[1] <= frame[1]

    # Smaller text only where nothing else fits.
    for unit in (None, 0.65, 0.55, 0.45):
        if not fits(64, unit):
            continue
        low, high = 64, 4096
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle, unit) else (low, middle - 1)
        fits(low, unit)
        return frame
    raise RenderError(
        f"The texts and curves do not fit {frame[0]} x {frame[1]} pixels: choose a higher resolution."
    )


def even(part: Box, size: tuple[int, int]) -> Box:
    """Return the smallest part of a frame with even edges that contains another one."""
    left, top, right, bottom = part
    width, height = size
    right, bottom = min(right + right % 2, width), min(bottom + bottom % 2, height)
    return max(0, left - left % 2), max(0, top - top % 2), right, bottom


def _levels(stack: Stack, i: int) -> FloatMap:
    """Return the positions on the colour bar of the map of layer `i`, in [0, 1]."""
    levels = stack.native(i)
    return np.float32(0.5) * levels + np.float32(0.5) if stack.signed else levels


def _curve_of(result: Result) -> tuple[Finding, Panel] | None:
    """Return the first finding with a panel over the layers, and the panel."""
    for finding in result.findings.values():
        panel = finding.panel()
        if panel is not None and panel.lines:
            return finding, panel
    return None


def _caption_lines(result: Result, i: int, excluded: Finding | None) -> list[tuple[str, str]]:
    """Return the caption lines of findings for layer `i`, each with its style."""
    lines = []
    for finding in result.findings.values():
        if finding is not excluded:
            style = "failed" if finding.warnings() else "small"
            facts = finding.caption(i).replace("   ", "\n").splitlines()
            lines += [(fact, style) for fact in facts]
    return lines
