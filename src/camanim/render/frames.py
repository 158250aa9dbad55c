"""One frame for each layer: the map over the image, and beside it all that says what it shows.

What stays is drawn once. A frame costs a copy of it, one resize of the map straight to display size, one
blend and a few words. Lengths are written for an image whose longer side has 448 pixels, and scaled.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
from cmap import Catalog, Colormap
from PIL import Image, ImageDraw

from camanim.declarations import Range, checked
from camanim.errors import RenderError
from camanim.findings import Finding
from camanim.plots import Panel
from camanim.render.curve import Curve
from camanim.render.pen import BACKGROUND, TEXT, Box, Pen, plain
from camanim.stack import Normalization, stack_maps

if TYPE_CHECKING:
    from camanim.result import Result
    from camanim.stack import FloatMap

Frame = npt.NDArray[np.uint8]

#: Without and with negative evidence. Both are dark where there is none, so that the image shows.
COLORMAPS = {False: "turbo", True: "berlin"}
FrameSize = Annotated[int, Range(64, 4096)]
Opacity = Annotated[float, Range(0, 1)]

MARGIN, PANEL, CURVE = 22, 264, 196


class FrameRenderer:
    """Draws the frames of one animation, with its ROAD scores if it has any; needs no network.

    Parameters are those of `Animation.write_movie`.

    Attributes
    ----------
    size : (width, height)
        Of the whole frame in pixels, both even, as H.264 wants them.

    Raises
    ------
    RenderError
        Where there is no map, or a setting cannot be used.
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
            raise RenderError("There is no map to draw: select layers that have one.")
        self.animation, self.opacity = animation, float(opacity)
        self.stack = stack_maps(animation, normalization, signed=signed)
        self._colors = _lookup_table(COLORMAPS[bool(signed)] if colormap is None else colormap)
        # Beside a small image the words stay legible.
        self._pen = pen = Pen(max(size, 336) / 448)
        longest = max((plain(x.label) for x in animation.layers), key=pen.fonts["title"].getlength)
        self._label_lines = len(pen.wrap(longest, "title", pen.px(PANEL)))
        self._class = pen.wrap(animation.target.name, "body", pen.px(PANEL))
        self._lay_out(_display_image(animation.image, size))

    def __len__(self) -> int:
        return len(self.animation)

    def frame(self, i: int) -> Frame:
        """Draw the frame of layer `i`, 0 to L - 1.

        Returns
        -------
        (H, W, 3) uint8 array

        Raises
        ------
        IndexError
            When there is no such layer.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"The layers are 0 to {len(self) - 1}, there is no {i}.")
        canvas = self._background.copy()
        # Places on the colour bar, 0 to 1.
        places = self.stack.native(i)
        if self.stack.signed:
            places = np.float32(0.5) * places + np.float32(0.5)
        canvas.paste(self._blend(places), self._corner)
        self._write_layer(canvas, i)
        self._write_limits(canvas, i, places)
        if self._curve is not None:
            self._curve.mark(canvas, i)
        return np.array(canvas)

    def _lay_out(self, image: Image.Image) -> None:
        """Find a place for everything, and draw what is the same in all frames."""
        px = self._pen.px
        margin = px(MARGIN)
        curve = _curve_of(self.animation)
        self._captions = [
            _caption_lines(self.animation, i, without=None if curve is None else curve[0])
            for i in range(len(self))
        ]
        self._facts = 102 + 20 * len(self._class)
        panel_height = px(64 + 27 * self._label_lines) + px(self._facts + 26)
        panel_height += px(18 * max(map(len, self._captions), default=0))
        row = max(image.height, panel_height)
        self._panel = (2 * margin + image.width, margin)
        width = self._panel[0] + px(PANEL) + margin
        curve_top = 2 * margin + row
        height = curve_top if curve is None else curve_top + px(CURVE) + margin
        self.size = (width + width % 2, height + height % 2)
        self._background = Image.new("RGB", self.size, BACKGROUND)
        self._place_map(image, (margin, margin + (row - image.height) // 2))
        self._write_facts(margin + row)
        self._curve = None
        if curve is not None:
            box = (margin, curve_top, width - margin, curve_top + px(CURVE))
            self._curve = Curve(*curve, box, self._pen)
            self._curve.draw(self._background)

    def _place_map(self, image: Image.Image, at: tuple[int, int]) -> None:
        """Find the pixels that the map covers, and which part of the map they show."""
        self._background.paste(image, at)
        top, left, bottom, right = self.animation.geometry.box
        height, width = self.animation.image.shape[:2]
        x0, x1, *columns = _span(left, right, image.width / width, image.width)
        y0, y1, *rows = _span(top, bottom, image.height / height, image.height)
        self._part = np.array([columns[0], rows[0], columns[1], rows[1]])
        self._bare = image.crop((x0, y0, x1, y1))
        self._corner = (at[0] + x0, at[1] + y0)

    def _write_facts(self, bottom: int) -> None:
        """Write class, probability and method; below them the colour bar, down to `bottom`."""
        pen, (left, _) = self._pen, self._panel
        baseline, width = bottom - pen.px(self._facts), pen.px(PANEL)
        for line in self._class:
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
        words = f"raw values, {scale[str(self.stack.normalization)]}"
        pen.write(self._background, (left, self._bar[1] - pen.px(8)), words)
        strip = Image.fromarray(self._colors[None])
        size = (width, self._bar[3] - self._bar[1])
        self._background.paste(strip.resize(size, Image.Resampling.BILINEAR), self._bar[:2])

    def _blend(self, places: FloatMap) -> Image.Image:
        """Lay the map over the part of the image that it covers."""
        size = np.array(places.shape[::-1] * 2)
        # With a seam around the map, as display pixels seldom begin exactly where it does.
        left, top, right, bottom = np.clip(1 + self._part * size, 0, size + 2).tolist()
        # Pillow cuts off what lies behind the point on the way to 8 bits: with the half it rounds.
        native = Image.fromarray(np.pad(places, 1, "edge") * np.float32(255) + np.float32(0.5))
        box = (left, top, right, bottom)
        colors = native.resize(self._bare.size, Image.Resampling.BILINEAR, box).convert("L")
        colors.putpalette(self._colors.tobytes())
        return Image.blend(self._bare, colors.convert("RGB"), self.opacity)

    def _write_layer(self, canvas: Image.Image, i: int) -> None:
        pen, (left, top) = self._pen, self._panel
        layer, raw = self.animation.layers[i], self.animation.maps[i]
        pen.write(canvas, (left, top + pen.px(11)), f"Layer {i + 1}/{len(self)}", "place")
        for k, line in enumerate(pen.wrap(layer.label, "title", pen.px(PANEL))):
            pen.write(canvas, (left, top + pen.px(39 + 27 * k)), line, "title")
        # Below the tallest label, so that nothing jumps from frame to frame.
        below = 36 + 27 * self._label_lines
        kind = f"{layer.kind}, map {raw.shape[0]} x {raw.shape[1]}"
        pen.write(canvas, (left, top + pen.px(below)), kind, width=pen.px(PANEL))
        if raw.max() <= 0:
            pen.write(canvas, (left, top + pen.px(below + 22)), "no positive evidence", "warning")
        for k, (line, style) in enumerate(self._captions[i]):
            at = (left, top + pen.px(below + 40 + 18 * k))
            pen.write(canvas, at, line, style, width=pen.px(PANEL))

    def _write_limits(self, canvas: Image.Image, i: int, places: FloatMap) -> None:
        """Write the raw values of the colour bar; underline what this layer uses of a global one."""
        signed, (low, high) = self.stack.signed, self.stack.limits(i)
        left, _, right, bottom = self._bar
        columns, anchors = (left, (left + right) // 2, right), ("ls", "ms", "rs")
        values = np.linspace(-high if signed else low, high, 3)
        # A flat map has one value, which the bar shows at one place.
        for k in (0, 1, 2) if high > low else (int(signed),):
            at, number = (columns[k], bottom + self._pen.px(16)), f"{values[k] + 0.0:.3g}"
            self._pen.write(canvas, at, number, "number", anchors[k])
        if self.stack.normalization == "global" and high > low:
            x0, x1 = (left + float(v) * (right - 1 - left) for v in (places.min(), places.max()))
            ImageDraw.Draw(canvas).rectangle((x0, bottom, x1, bottom + self._pen.px(2) - 1), TEXT)


def _curve_of(result: Result) -> tuple[Finding, Panel] | None:
    """Return the first finding that has a panel over the layers, with the panel."""
    for finding in result.findings.values():
        panel = finding.panel()
        if panel is not None and panel.lines:
            return finding, panel
    return None


def _caption_lines(result: Result, i: int, *, without: Finding | None) -> list[tuple[str, str]]:
    """Return the lines that findings write beside layer `i`, each with its style."""
    lines = []
    for finding in result.findings.values():
        if finding is not without:
            style = "failed" if finding.warnings() else "small"
            words = finding.caption(i).replace("   ", "\n").splitlines()
            lines += [(line, style) for line in words]
    return lines


def _lookup_table(colormap: str) -> npt.NDArray[np.uint8]:
    try:
        colors = Colormap(colormap).lut(256)
    except (ValueError, TypeError) as error:
        near = get_close_matches(str(colormap), list(Catalog().short_keys()), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see the catalog of cmap."
        raise RenderError(f"There is no colour map {colormap!r}: {hint}") from error
    return np.round(colors[:, :3] * 255).astype(np.uint8)


def _display_image(image: npt.NDArray[np.uint8], size: int) -> Image.Image:
    """Bring the image's longer side to `size` pixels, in colour."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    kind = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return Image.fromarray(image).convert("RGB").resize(shown, kind)


def _span(low: float, high: float, scale: float, count: int) -> tuple[int, int, float, float]:
    """Find the display pixels, of `count`, between two image edges, and their shares of that way."""
    start = min(max(round(low * scale), 0), count - 1)
    stop = min(max(round(high * scale), start + 1), count)
    first, last = ((edge / scale - low) / (high - low) for edge in (start, stop))
    return (start, stop, first, last) if first < 1 and last > 0 else (start, stop, 0.0, 1.0)
