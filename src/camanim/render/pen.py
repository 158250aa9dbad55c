"""Text on frames in Pillow's default font, and the colours of frames."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFont

Box = tuple[int, int, int, int]
Point = tuple[float, float]

BACKGROUND = (15, 18, 24)
TEXT, QUIET, ACCENT, WARM = (242, 245, 250), (158, 168, 184), (86, 184, 255), (255, 184, 92)
STYLES = {"title": (21, TEXT), "body": (15, TEXT), "warning": (15, WARM), "small": (13, QUIET),
          "number": (13, TEXT), "place": (13, ACCENT), "best": (13, WARM),
          "failed": (13, WARM)}  # fmt: skip
# Replacements of characters that Pillow's font lacks.
_PLAIN = dict(zip("×–—−‐‑’‘“”→", "x-----''\"\">", strict=True)) | {"ß": "ss", "æ": "ae", "ø": "o"}


class Pen:
    """Text in Pillow's default font, at one scale.

    Parameters
    ----------
    unit : float
        Pixels per unit of length.
    """

    def __init__(self, unit: float) -> None:
        self.unit = unit
        self.fonts = {name: ImageFont.load_default(p * unit) for name, (p, _) in STYLES.items()}
        # Most lines of a frame are those of others, too; FreeType takes longer than all else.
        self._masks = lru_cache(1024)(self._mask)
        self._advance = lru_cache(None)(lambda char, style: self.fonts[style].getlength(char))

    def px(self, length: float) -> int:
        """Return a length in whole pixels, at least one."""
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
        """Write one line at a position, by default of its left end on the baseline, within `width`."""
        self._draw(canvas, at, self.shorten(plain(text), style, width), style, anchor)

    def _draw(self, canvas: Image.Image, at: Point, line: str, style: str, anchor: str) -> None:
        mask, (left, top) = self._masks(line, style, anchor)
        corner = (round(at[0]) + left, round(at[1]) + top)
        canvas.paste(
            STYLES[style][1], (*corner, corner[0] + mask.width, corner[1] + mask.height), mask
        )

    def _mask(self, line: str, style: str, anchor: str) -> tuple[Image.Image, tuple[int, int]]:
        """Return the opacity of a line of text, and its left and top from the position."""
        font = self.fonts[style]
        assert isinstance(font, ImageFont.FreeTypeFont)
        drawn, corner = font.getmask2(line, "L", anchor=anchor)
        if not all(drawn.size):
            return Image.new("L", (1, 1)), (0, 0)
        return Image.frombytes("L", drawn.size, bytes(drawn)), corner

    def _fits(self, text: str, style: str, width: float) -> bool:
        """Return whether a text surely fits, without its layout; kerning only makes it narrower."""
        return sum(self._advance(char, style) for char in text) <= 0.95 * width

    def shorten(self, text: str, style: str, width: float) -> str:
        """Remove the middle of a text, so that it is at most `width` pixels wide."""
        if self._fits(text, style, width):
            return text
        short, kept, length = text, len(text), self.fonts[style].getlength
        while kept and length(short) > width:
            # The first step estimates the number of characters, for very long names.
            kept = min(kept - 1, int(kept * width / length(short)) + 1)
            short = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
        return short

    def wrap(self, text: str, style: str, width: float) -> list[str]:
        """Return a text as one line, or as two lines of which the second is shortened if necessary."""
        text, length = plain(text), self.fonts[style].getlength
        if self._fits(text, style, width) or length(text) <= width:
            return [text]
        cut = bisect_right(range(1, len(text)), width, key=lambda k: length(text[:k]))
        # Prefer a break after a separator, unless it leaves the first line half empty.
        gap = max(text.rfind(separator, 0, cut) for separator in " ._/") + 1
        cut = gap if gap > cut / 2 else cut
        return [text[:cut].rstrip(), self.shorten(text[cut:].lstrip(), style, width)]


def plain(text: str) -> str:
    """Replace characters that the font lacks: accents are removed, other scripts become ``?``."""
    return "".join(map(_plain_character, text))


@lru_cache(maxsize=4096)
def _plain_character(char: str) -> str:
    if char.isspace():
        return " "
    if unicodedata.category(char)[0] in "CM":
        return ""
    font = ImageFont.load_default(20)
    if bytes(font.getmask(char)) != bytes(font.getmask("\uffff")):
        return char
    parts = unicodedata.normalize("NFKD", _PLAIN.get(char, char))
    return "".join(p for p in parts if p.isascii()) or "?"
