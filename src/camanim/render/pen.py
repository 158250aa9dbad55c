"""Words on frames: Pillow's own font at one scale, and the colours that all of a frame shares."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Box = tuple[int, int, int, int]
Point = tuple[float, float]

BACKGROUND, SURFACE, RULE = (15, 18, 24), (24, 29, 38), (56, 64, 79)
TEXT, QUIET, ACCENT, WARM = (242, 245, 250), (158, 168, 184), (86, 184, 255), (255, 184, 92)
STYLES = {"title": (21, TEXT), "body": (15, TEXT), "warning": (15, WARM), "small": (13, QUIET),
          "number": (13, TEXT), "place": (13, ACCENT), "best": (13, WARM),
          "failed": (13, WARM)}  # fmt: skip
# Signs that Pillow's own font lacks and that have a plain neighbour.
_PLAIN = dict(zip("×–—−‐‑’‘“”→", "x-----''\"\">", strict=True)) | {"ß": "ss", "æ": "ae", "ø": "o"}


class Pen:
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
