"""A page on which pictures, text and axes are placed in millimetres."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from camanim.errors import RenderError
from camanim.render.figures import PRINT, dress, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCH = 25.4
#: Sizes of text in points. Publishers ask for at least 6.
HEAD, SMALL = 7.0, 6.0
#: Most millimetres that a page of a journal is high.
HIGHEST = 240.0
#: Longest name that is measured.
_MAX_LENGTH = 200


class Page:
    """A figure of matplotlib whose coordinates are millimetres from the upper left corner.

    Parameters
    ----------
    width, height : float
        In millimetres.

    Attributes
    ----------
    figure : matplotlib.figure.Figure

    Raises
    ------
    RenderError
        If the page is higher than `HIGHEST`.
    """

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure

        if height > HIGHEST:
            raise RenderError(
                f"The figure would be {height:.0f} mm high, more than a page ({HIGHEST:.0f} mm): show "
                "fewer layers or results, or set a larger width."
            )
        self.width, self.height = width, height
        self.figure: Figure = Figure((width / INCH, height / INCH), facecolor=PRINT.background)
        self._sheet: Axes = self.figure.add_axes((0, 0, 1, 1))
        self._sheet.set_axis_off()
        self._sheet.set_autoscale_on(False)
        self._sheet.set(xlim=(0, width), ylim=(height, 0))

    def picture(
        self,
        pixels: npt.NDArray[np.uint8],
        x: float,
        y: float,
        width: float,
        height: float,
        label: str = "",
        *,
        nearest: bool = False,
    ) -> None:
        """Place a picture (H, W, 3) with its upper left corner at (x, y)."""
        drawn = self._sheet.imshow(
            pixels,
            extent=(x, x + width, y + height, y),
            aspect="auto",
            interpolation="nearest" if nearest else "antialiased",
        )
        drawn.set_label(label)

    def box(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """Fill a rectangle."""
        from matplotlib.patches import Rectangle

        self._sheet.add_patch(Rectangle((x, y), width, height, facecolor=color, linewidth=0))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = SMALL,
        *,
        align: Literal["left", "center", "right"] = "center",
        baseline: Literal["top", "center", "baseline"] = "top",
        bold: bool = False,
        color: str = PRINT.text,
        **more: Any,
    ) -> None:
        """Write text, of one line or several."""
        self._sheet.text(
            x, y, text, fontsize=size, ha=align, va=baseline, color=color, parse_math=False,
            fontweight="bold" if bold else "normal", linespacing=1.15, **more,
        )  # fmt: skip

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Return axes for a plot, whose frame has its upper left corner at (x, y)."""
        bounds = (x / self.width, 1 - (y + height) / self.height)
        axes = self.figure.add_axes((*bounds, width / self.width, height / self.height))
        dress(axes, PRINT)
        return axes


def short_number(value: float) -> str:
    """Format a value with two digits: ``0.00015``, ``1.5``, ``150``, ``1.5e-05``."""
    if value and not 1e-4 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return np.format_float_positional(value, 2, fractional=False, trim="-")


def line_height(size: float) -> float:
    """Return the distance between two lines of text, in millimetres."""
    return 1.25 * size * INCH / 72


@lru_cache(maxsize=4096)
def width_of(text: str, size: float, bold: bool = False) -> float:
    """Return the width of a line of text in millimetres."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size, weight="bold" if bold else "normal")
    width, _, _ = text_to_path.get_text_width_height_descent(text or " ", font, ismath=False)
    return float(width) * INCH / 72


def fitted(text: str, width: float, size: float = SMALL) -> str:
    """Remove the middle of a line that is wider than `width` millimetres."""
    text = shortened(text, _MAX_LENGTH)
    if width_of(text, size) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        shorter = shortened(text, kept) if kept > 3 else f"{text[: kept - 1]}…"
        if width_of(shorter, size) <= width:
            return shorter
    return "…"


def wrapped(text: str, width: float, size: float = SMALL, lines: int = 2) -> list[str]:
    """Break text into lines of at most `width` millimetres, after spaces, dots, dashes and underscores.

    Parameters
    ----------
    text : str
    width : float
    size : float
        In points.
    lines : int
        Most lines; what does not fit is removed from the middle of the last line.
    """
    parts = re.findall(r"[^ ._/-]*(?:[ ._/-]+|$)", shortened(text, _MAX_LENGTH))
    broken = _broken(parts, width, size, lines)
    if len(broken) > 1:
        # Lines of similar length: the least width that needs no more of them.
        for share in range(4, 10):
            narrower = _broken(parts, width * share / 10, size, len(broken))
            if all(width_of(line, size) <= width for line in narrower):
                broken = narrower
                break
    return [fitted(line, width, size) for line in broken]


def _broken(parts: list[str], width: float, size: float, lines: int) -> list[str]:
    """Fill lines with parts one after the other, all further ones into the last line."""
    done = [""]
    for part in filter(None, parts):
        if done[-1] and width_of((done[-1] + part).rstrip(), size) > width and len(done) < lines:
            done.append("")
        done[-1] += part
    return [line.strip(" ") for line in done]
