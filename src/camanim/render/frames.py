"""Frames of movies: the map of one layer over the image, with text, a colour bar and a curve.

Everything that is equal in all frames is drawn once. A frame needs a copy of it, one resize of the map
to display size, one blend and a few lines of text. Lengths are given for an image whose longer side has
448 pixels, and scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from camanim.declarations import Range, checked
from camanim.errors import LayerIndexError, RenderError
from camanim.findings import Finding
from camanim.plots import Panel
from camanim.render.curve import Curve
from camanim.render.overlay import COLORMAPS, Overlay, lookup_table
from camanim.render.pen import BACKGROUND, TEXT, Box, Pen, plain
from camanim.stack import Normalization, stack_maps

if TYPE_CHECKING:
    from camanim.result import Result
    from camanim.stack import FloatMap

Frame = npt.NDArray[np.uint8]

FrameSize = Annotated[int, Range(64, 4096)]
Opacity = Annotated[float, Range(0, 1)]

MARGIN, PANEL, CURVE = 22, 264, 196


class FrameRenderer:
    """Renderer of the frames of one result.

    The parameters are those of `Animation.write_movie`.

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
    ) -> None:
        if not animation.maps:
            raise RenderError("The result has no map to draw: select layers with a map.")
        self.animation = animation
        self.stack = stack_maps(animation, normalization, signed=signed)
        self._colors = lookup_table(COLORMAPS[bool(signed)] if colormap is None else colormap)
        # The text remains legible beside a small image.
        self._pen = pen = Pen(max(size, 336) / 448)
        longest = max((plain(x.label) for x in animation.layers), key=pen.fonts["title"].getlength)
        self._label_lines = len(pen.wrap(longest, "title", pen.px(PANEL)))
        self._class_lines = pen.wrap(animation.target.name, "body", pen.px(PANEL))
        self._overlay = Overlay(
            animation.image, animation.geometry, size, self._colors, float(opacity)
        )
        self._lay_out(self._overlay.image)

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
        if not 0 <= i < len(self):
            raise LayerIndexError(
                f"Layer {i} is out of range: the layers are 0 to {len(self) - 1}."
            )
        canvas = self._background.copy()
        # Positions on the colour bar, in [0, 1].
        levels = self.stack.native(i)
        if self.stack.signed:
            levels = np.float32(0.5) * levels + np.float32(0.5)
        canvas.paste(self._overlay.blend(levels), self._corner)
        self._write_layer(canvas, i)
        self._write_limits(canvas, i, levels)
        if self._curve is not None:
            self._curve.mark(canvas, i)
        return np.array(canvas)

    def _lay_out(self, image: Image.Image) -> None:
        """Compute the positions of all parts, and draw the background that all frames share."""
        px = self._pen.px
        margin = px(MARGIN)
        curve = _curve_of(self.animation)
        self._captions = [
            _caption_lines(self.animation, i, excluded=None if curve is None else curve[0])
            for i in range(len(self))
        ]
        self._facts_height = 102 + 20 * len(self._class_lines)
        panel_height = px(64 + 27 * self._label_lines) + px(self._facts_height + 26)
        panel_height += px(18 * max(map(len, self._captions), default=0))
        row = max(image.height, panel_height)
        self._panel = (2 * margin + image.width, margin)
        width = self._panel[0] + px(PANEL) + margin
        curve_top = 2 * margin + row
        height = curve_top if curve is None else curve_top + px(CURVE) + margin
        self.size = (width + width % 2, height + height % 2)
        self._background = Image.new("RGB", self.size, BACKGROUND)
        at = (margin, margin + (row - image.height) // 2)
        self._background.paste(image, at)
        covered = self._overlay.corner
        self._corner = (at[0] + covered[0], at[1] + covered[1])
        self._write_facts(margin + row)
        self._curve = None
        if curve is not None:
            box = (margin, curve_top, width - margin, curve_top + px(CURVE))
            self._curve = Curve(*curve, box, self._pen)
            self._curve.draw(self._background)

    def _write_facts(self, bottom: int) -> None:
        """Write class, probability, method and colour bar, from top to bottom, down to `bottom`."""
        pen, (left, _) = self._pen, self._panel
        baseline, width = bottom - pen.px(self._facts_height), pen.px(PANEL)
        for line in self._class_lines:
            pen.write(self._background, (left, baseline), line, "body")
            baseline += pen.px(20)
        p, model = self.animation.probability, str(self.animation.provenance.get("model", ""))
        probability = f"probability {p:.2f}" if p >= 0.005 else f"probability {p:.1e}"
        method = f"{self.animation.method}, {model}" if model else self.animation.method
        for line in (probability, method):
            pen.write(self._background, (left, baseline), line, width=width)
            baseline += pen.px(18)
        self._bar: Box = (left, bottom - pen.px(30), left + width, bottom - pen.px(18))
        scale = {"local": "local scale (this layer)", "global": "global scale (all layers)"}
        title = f"raw values, {scale[str(self.stack.normalization)]}"
        pen.write(self._background, (left, self._bar[1] - pen.px(8)), title)
        strip = Image.fromarray(self._colors[None])
        size = (width, self._bar[3] - self._bar[1])
        self._background.paste(strip.resize(size, Image.Resampling.BILINEAR), self._bar[:2])

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
        if raw.max() <= 0:
            pen.write(canvas, (left, top + pen.px(below + 22)), "no positive evidence", "warning")
        for k, (line, style) in enumerate(self._captions[i]):
            at = (left, top + pen.px(below + 40 + 18 * k))
            pen.write(canvas, at, line, style, width=pen.px(PANEL))

    def _write_limits(self, canvas: Image.Image, i: int, levels: FloatMap) -> None:
        """Write the raw values of the colour bar; on a global scale, underline those of layer `i`."""
        signed, (low, high) = self.stack.signed, self.stack.limits(i)
        left, _, right, bottom = self._bar
        columns, anchors = (left, (left + right) // 2, right), ("ls", "ms", "rs")
        values = np.linspace(-high if signed else low, high, 3)
        # A constant map has a single value.
        for k in (0, 1, 2) if high > low else (int(signed),):
            at, number = (columns[k], bottom + self._pen.px(16)), f"{values[k] + 0.0:.3g}"
            self._pen.write(canvas, at, number, "number", anchors[k])
        if self.stack.normalization == "global" and high > low:
            x0, x1 = (left + float(v) * (right - 1 - left) for v in (levels.min(), levels.max()))
            ImageDraw.Draw(canvas).rectangle((x0, bottom, x1, bottom + self._pen.px(2) - 1), TEXT)


def _curve_of(result: Result) -> tuple[Finding, Panel] | None:
    """Return the first finding with a panel over the layers, and the panel."""
    for finding in result.findings.values():
        panel = finding.panel()
        if panel is not None and panel.lines:
            return finding, panel
    return None


def _caption_lines(result: Result, i: int, *, excluded: Finding | None) -> list[tuple[str, str]]:
    """Return the caption lines of findings for layer `i`, each with its style."""
    lines = []
    for finding in result.findings.values():
        if finding is not excluded:
            style = "failed" if finding.warnings() else "small"
            facts = finding.caption(i).replace("   ", "\n").splitlines()
            lines += [(fact, style) for fact in facts]
    return lines
