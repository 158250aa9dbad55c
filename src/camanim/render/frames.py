"""One frame for each layer: the map over the image, and beside it all that says what it shows.

What stays is drawn once. A frame costs a copy of it, one resize of the map straight to display size, one
blend and a few words. Lengths are written for an image whose longer side has 448 pixels, and scaled.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from cmap import Catalog, Colormap
from PIL import Image, ImageDraw, ImageFont

from camanim.animation import Normalization
from camanim.errors import RenderError

if TYPE_CHECKING:
    from camanim.animation import Animation
    from camanim.road import Road
    from camanim.stack import FloatMap

Frame = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]
Point = tuple[float, float]

#: Without and with negative evidence. Both are dark where there is none, so that the image shows.
COLORMAPS = {False: "turbo", True: "berlin"}
SIZES = (64, 4096)

MARGIN, PANEL, CURVE = 22, 264, 148
BACKGROUND, SURFACE, RULE = (15, 18, 24), (24, 29, 38), (56, 64, 79)
TEXT, QUIET, ACCENT, WARM = (242, 245, 250), (158, 168, 184), (86, 184, 255), (255, 184, 92)
STYLES = {"title": (21, TEXT), "body": (15, TEXT), "warning": (15, WARM), "small": (13, QUIET),
          "number": (13, TEXT), "place": (13, ACCENT), "best": (13, WARM)}  # fmt: skip
# Signs that Pillow's own font lacks and that have a plain neighbour.
_PLAIN = dict(zip("×–—−‐‑’‘“”→", "x-----''\"\">", strict=True)) | {"ß": "ss", "æ": "ae", "ø": "o"}


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

    def __init__(
        self,
        animation: Animation,
        *,
        normalization: Normalization = "local",
        signed: bool = False,
        size: int = 448,
        colormap: str | None = None,
        opacity: float = 0.5,
    ) -> None:
        _check(animation, normalization, size, opacity)
        self.animation, self.opacity = animation, float(opacity)
        self.stack = animation.stack(normalization, signed=signed)
        self._colors = _lookup_table(COLORMAPS[bool(signed)] if colormap is None else colormap)
        # Beside a small image the words stay legible.
        self._pen = pen = _Pen(max(size, 336) / 448)
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
        px, road = self._pen.px, self.animation.road
        margin = px(MARGIN)
        panel_height = px(64 + 27 * self._label_lines) + px(20 * len(self._class) + 128)
        row = max(image.height, panel_height)
        self._panel = (2 * margin + image.width, margin)
        width = self._panel[0] + px(PANEL) + margin
        curve_top = 2 * margin + row
        height = curve_top if road is None else curve_top + px(CURVE) + margin
        self.size = (width + width % 2, height + height % 2)
        self._background = Image.new("RGB", self.size, BACKGROUND)
        self._place_map(image, (margin, margin + (row - image.height) // 2))
        self._write_facts(margin + row)
        self._curve = None
        if road is not None:
            places = [layer.index for layer in self.animation.layers]
            box = (margin, curve_top, width - margin, curve_top + px(CURVE))
            self._curve = _Curve(road, places, box, self._pen)
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
        baseline, width = bottom - pen.px(20 * len(self._class) + 102), pen.px(PANEL)
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


class _Curve:
    """The ROAD scores over the layers ("ybROAD") with a cursor; under a line that tells the score."""

    def __init__(self, road: Road, places: list[int], box: Box, pen: _Pen) -> None:
        self.road, self.pen, (left, top, right, bottom) = road, pen, box
        self.scores = np.asarray(road.scores, np.float64)
        self.defined = np.isfinite(self.scores)
        self.best = None if road.best is None else places.index(road.best.index)
        finite = self.scores[self.defined]
        self.low, self.high = float(finite.min(initial=0)), float(finite.max(initial=0))
        self.caption_at, self.width = (left, top + pen.px(14)), right - left
        self.box = (left + pen.px(44), top + pen.px(24), right, bottom - pen.px(20))
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
        pen.write(canvas, self.caption_at, self.road.caption(i), "body", width=self.width)
        x, y = (round(v) for v in self.at(i, self.scores[i] if defined else 0.0))
        line = (x, y if defined else top + pen.px(24), x + pen.px(1) - 1, bottom - 1)
        ImageDraw.Draw(canvas).rectangle(line, TEXT if defined else QUIET)
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
        """Draw the curve, broken where a layer has no score, and a ring around the best."""
        draw, thick = ImageDraw.Draw(large), round(1.8 * factor * self.pen.unit)

        def at(i: int, score: float) -> Point:
            x, y = self.at(i, score)
            return (x - self.box[0]) * factor, (y - self.box[1]) * factor

        def around(i: int, radius: float) -> tuple[float, float, float, float]:
            (x, y), r = at(i, self.scores[i]), radius * factor * self.pen.unit
            return x - r, y - r, x + r, y + r

        edges = np.flatnonzero(np.diff(self.defined, prepend=False, append=False))
        for start, stop in edges.reshape(-1, 2).tolist():
            points = [at(i, self.scores[i]) for i in range(start, stop)]
            if len(points) == 1:
                draw.ellipse(around(start, 2), (*ACCENT, 255))
                continue
            draw.polygon([*points, at(stop - 1, 0), at(start, 0)], (*ACCENT, 46))
            draw.line(points, (*ACCENT, 255), thick, joint="curve")
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
            pen.write(canvas, (middle, top + pen.px(16)), "no layer has a score", anchor="ms")
        else:
            x, highest = self.at(self.best, self.scores[self.best])
            at = (min(max(x, left + pen.px(22)), right - pen.px(22)), highest - pen.px(10))
            pen.write(canvas, at, "best", "best", "ms")
        if len(self.scores) > 1:
            pen.write(canvas, (left + pen.px(8), baseline), "1", anchor="ms")
            pen.write(canvas, (right, baseline), str(len(self.scores)), anchor="rs")
        pen.write(canvas, (middle, baseline), "layers in order of execution", anchor="ms")


class _Pen:
    """Writes with Pillow's own font, at one scale."""

    def __init__(self, unit: float) -> None:
        self.unit = unit
        self.fonts = {name: ImageFont.load_default(p * unit) for name, (p, _) in STYLES.items()}

    def px(self, length: float) -> int:
        """Scale a length to whole pixels, one at least."""
        return max(1, round(length * self.unit))

    def write(
        self,
        canvas: Image.Image,
        at: Point,
        text: str,
        style: str = "small",
        anchor: str = "ls",
        width: float = np.inf,
    ) -> None:
        """Write one line, at `at` by Pillow's anchor (left, on the baseline), within `width`."""
        words = self.shorten(plain(text), style, width)
        ImageDraw.Draw(canvas).text(at, words, STYLES[style][1], self.fonts[style], anchor)

    def shorten(self, text: str, style: str, width: float) -> str:
        """Leave out the middle of `text`, so that it is no wider than `width` pixels."""
        short, kept, length = text, len(text), self.fonts[style].getlength
        while kept and length(short) > width:
            # Far too long names come near in one step.
            kept = min(kept - 1, int(kept * width / length(short)) + 1)
            short = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
        return short

    def wrap(self, text: str, style: str, width: float) -> list[str]:
        """Set `text` in one line, or in two, of which the second may be shortened."""
        text, length = plain(text), self.fonts[style].getlength
        if length(text) <= width:
            return [text]
        cut = bisect_right(range(1, len(text)), width, key=lambda k: length(text[:k]))
        # Rather behind a dot or a space, unless that leaves the first line half empty.
        gap = max(text.rfind(sign, 0, cut) for sign in " ._/") + 1
        cut = gap if gap > cut / 2 else cut
        return [text[:cut].rstrip(), self.shorten(text[cut:].lstrip(), style, width)]


def plain(text: str) -> str:
    """Write `text` with what the font can draw: without accents, and ``?`` for foreign scripts."""
    return "".join(map(_plain_sign, text))


@lru_cache(maxsize=4096)
def _plain_sign(sign: str) -> str:
    if sign.isspace():
        return " "
    if unicodedata.category(sign)[0] in "CM":
        return ""
    font = ImageFont.load_default(20)
    if bytes(font.getmask(sign)) != bytes(font.getmask("\uffff")):
        return sign
    parts = unicodedata.normalize("NFKD", _PLAIN.get(sign, sign))
    return "".join(p for p in parts if p.isascii()) or "?"


def _lookup_table(colormap: str) -> npt.NDArray[np.uint8]:
    try:
        colors = Colormap(colormap).lut(256)
    except (ValueError, TypeError) as error:
        near = get_close_matches(str(colormap), list(Catalog().short_keys()), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see the catalog of cmap."
        raise RenderError(f"There is no colour map {colormap!r}: {hint}") from error
    return np.round(colors[:, :3] * 255).astype(np.uint8)


def _check(animation: Animation, normalization: str, size: int, opacity: float) -> None:
    if not animation.maps:
        raise RenderError("There is no map to draw: select layers that have one.")
    if normalization not in ("local", "global"):
        raise RenderError(f'The normalization is "local" or "global", not {normalization!r}.')
    if not (isinstance(size, int | np.integer) and SIZES[0] <= size <= SIZES[1]):
        raise RenderError(f"The size is {SIZES[0]} to {SIZES[1]} whole pixels, not {size!r}.")
    if not 0 <= opacity <= 1:
        raise RenderError(f"The opacity lies between 0 and 1, not at {opacity!r}.")


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
