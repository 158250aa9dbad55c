"""Tiles: the map of one layer over its image, with text, and a grid of them on a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from camanim.errors import RenderError
from camanim.figures.page import (
    HEAD,
    HIGHEST,
    INCH,
    SMALL,
    Page,
    fitted,
    line_height,
    short_number,
    width_of,
    wrapped,
)
from camanim.figures.printed import PICTURE_DPI
from camanim.figures.scales import SHORT, Bar, Drawn
from camanim.figures.style import MapStyle
from camanim.render.overlay import Overlay, lookup_table
from camanim.result import Result

Pixels = npt.NDArray[np.uint8]

#: Width of tiles in millimetres: below the least, columns continue in another band.
LEAST, MOST = 10.0, 36.0
#: Distances in millimetres: between columns, rows and bands; of text from tiles; of the page's edge.
COLUMN_GAP, ROW_GAP, BAND_GAP, TEXT_GAP, MARGIN = 1.0, 1.6, 3.5, 0.7, 1.0
#: Widest names of rows, and lines of the names above columns.
ROW_HEAD, HEAD_LINES = 28.0, 3
#: Highest tile, as a multiple of its width.
TALLEST = 2.5
#: Most tiles of a figure.
MOST_TILES = 700


@dataclass(frozen=True)
class Tile:
    """One picture of a grid.

    Attributes
    ----------
    picture : callable or None
        From the length of the longer side in pixels to the picture, (H, W, 3); None for a grey field.
    aspect : float
        Height divided by width.
    below : tuple of str
        Text below the picture, each wrapped to at most three lines.
    over, short : str
        Text over the picture, and what replaces it where it does not fit.
    label : str
        Label of the artist of matplotlib.
    letter : str
        Letter in the upper left corner.
    """

    picture: Callable[[int], Pixels] | None
    aspect: float
    below: tuple[str, ...] = ()
    over: str = ""
    short: str = ""
    label: str = ""
    letter: str = ""


class MapTiles:
    """The tiles of one result.

    Parameters
    ----------
    result : Result
        Of an image or of a volume, of which one plane is shown.
    style : MapStyle

    Attributes
    ----------
    drawn : Drawn
        The maps of which `map` has returned a tile, with their scale.
    """

    def __init__(self, result: Result, style: MapStyle) -> None:
        if not result.maps:
            raise RenderError("The result has no map to draw: select layers with a map.")
        self.drawn = Drawn.of(result, style)
        self.result, self.stack = self.drawn.result, self.drawn.stack
        plane = self.result
        colors = lookup_table(style.shown_colormap)
        height, width = plane.image.shape[:2]
        self.aspect = height / width
        # All tiles of a result have the same size.
        self._overlay = lru_cache(1)(
            lambda size: Overlay(
                plane.image, plane.geometry, size, colors, style.opacity, grey=style.grey
            )
        )
        self._image = plane.image

    def image(self) -> Tile:
        """Return the tile of the image alone."""
        geometry, colors = self.result.geometry, np.zeros((256, 3), np.uint8)

        def picture(size: int) -> Pixels:
            return np.asarray(Overlay(self._image, geometry, size, colors).image)

        return Tile(picture, self.aspect, label="image")

    def map(self, i: int, *below: str, numbered: bool = True) -> Tile:
        """Return the tile of layer `i`.

        Parameters
        ----------
        i : int
            Index into `Result.layers`.
        *below : str
            Text below the map.
        numbered : bool
            Whether the raw maximum is below the map.
        """

        def picture(size: int) -> Pixels:
            levels = self.stack.native(i)
            if self.stack.signed:
                levels = np.float32(0.5) * levels + np.float32(0.5)
            return self._overlay(size).picture(levels)

        self.drawn.layers.append(i)
        over = self.drawn.without_colors(i)
        if numbered:
            below = (*below, short_number(self.result.highest(i)))
        result = self.result
        label = f"{result.method}, {result.target.name}: {result.layers[i].label}"
        return Tile(
            picture, self.aspect, tuple(filter(None, below)), over, SHORT.get(over, ""), label
        )

    def missing(self, why: str, *below: str) -> Tile:
        """Return the tile of a layer without a map."""
        texts = tuple(filter(None, below))
        return Tile(None, self.aspect, texts, why, "no map", f"no map: {why}")


@dataclass(frozen=True)
class _Band:
    """Consecutive columns of a grid."""

    columns: range
    heads: list[list[str]]
    head_lines: int


class TileGrid:
    """A grid of tiles, laid out for a width.

    Columns that do not fit beside each other continue in further bands.

    Parameters
    ----------
    rows : sequence of (list of Tile or None)
        All of the same length; None leaves a place empty.
    width : float
        In millimetres.
    row_heads : sequence of str
        Names of the rows, or empty.
    column_heads : sequence of str
        Names of the columns, or empty.
    bar : Bar or None

    Attributes
    ----------
    height : float
        In millimetres.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[Tile | None]],
        width: float,
        *,
        row_heads: Sequence[str] = (),
        column_heads: Sequence[str] = (),
        bar: Bar | None = None,
    ) -> None:
        count = len(rows[0])
        if len(rows) * count > MOST_TILES:
            raise RenderError(
                f"The figure would show {len(rows) * count} maps: choose fewer layers, at most "
                f"{MOST_TILES} maps fit."
            )
        self.rows, self.width, self.bar = rows, width, bar
        self.row_heads = [wrapped(head, ROW_HEAD, HEAD, 3) for head in row_heads]
        lines = [line for head in self.row_heads for line in head]
        self.indent = max((width_of(line, HEAD) for line in lines), default=0.0)
        self.indent += 1.5 if lines else 0.0
        available = width - 2 * MARGIN - self.indent
        fitting = int((available + COLUMN_GAP) / (LEAST + COLUMN_GAP))
        if fitting < 1:
            raise RenderError(f"A width of {width:g} mm is too narrow: set a larger width.")
        bands = -(-count // fitting)
        self._lay_out(-(-count // bands), available, column_heads)
        if self.height > HIGHEST and bands > 1:
            # Smaller tiles, with the last band incomplete.
            self._lay_out(fitting, available, column_heads)

    def _lay_out(self, columns: int, available: float, column_heads: Sequence[str]) -> None:
        """Set sizes and positions for a number of columns in a band."""
        count = len(self.rows[0])
        self.tile = min(MOST, (available - (columns - 1) * COLUMN_GAP) / columns)
        aspects = [tile.aspect for row in self.rows for tile in row if tile is not None]
        # A picture that is taller is narrower than its place.
        self.tile_height = self.tile * min(max(aspects), TALLEST)
        content = self.indent + columns * (self.tile + COLUMN_GAP) - COLUMN_GAP
        self.left = max(MARGIN, (self.width - content) / 2)
        # Long names of narrow columns are smaller.
        self.head_size = HEAD
        heads = [self._head(head) for head in column_heads]
        if max(map(len, heads), default=0) > 2:
            self.head_size = SMALL
            heads = [self._head(head) for head in column_heads]
        self.bands = []
        for start in range(0, count, columns):
            shown = range(start, min(start + columns, count))
            of = [heads[i] for i in shown if i < len(heads)]
            self.bands.append(_Band(shown, of, max(map(len, of), default=0)))
        self.below = [[self._lines(tile) for tile in row] for row in self.rows]
        self.height = self._height()

    def _head(self, text: str) -> list[str]:
        size = self.head_size
        parts = text.splitlines()
        return [line for part in parts for line in wrapped(part, self.tile - 0.6, size, HEAD_LINES)]

    def _lines(self, tile: Tile | None) -> list[str]:
        if tile is None:
            return []
        return [line for text in tile.below for line in wrapped(text, self.tile - 0.6, lines=3)]

    def _row_height(self, row: int, columns: range) -> float:
        lines = max((len(self.below[row][i]) for i in columns), default=0)
        return self.tile_height + (lines * line_height(SMALL) + TEXT_GAP if lines else 0.0)

    def _height(self) -> float:
        height = 2 * MARGIN + BAND_GAP * (len(self.bands) - 1)
        for band in self.bands:
            height += band.head_lines * line_height(self.head_size) + (
                TEXT_GAP if band.head_lines else 0
            )
            heights = [self._row_height(row, band.columns) for row in range(len(self.rows))]
            height += sum(heights) + ROW_GAP * (len(heights) - 1)
        return height + (BAND_GAP + bar_height() if self.bar else 0.0)

    def draw(self, page: Page, top: float = 0.0) -> None:
        """Draw the grid on a page, from `top` millimetres on."""
        y = top + MARGIN
        size = max(24, round(max(self.tile, self.tile_height) / INCH * PICTURE_DPI))
        for band in self.bands:
            head_height = band.head_lines * line_height(self.head_size)
            for place, lines in enumerate(band.heads):
                x = self._x(place) + self.tile / 2
                page.text(
                    x, y + head_height - 0.7, "\n".join(lines), self.head_size, baseline="baseline"
                )
            y += head_height + (TEXT_GAP if band.head_lines else 0)
            for row, tiles in enumerate(self.rows):
                if row < len(self.row_heads):
                    page.text(
                        self.left, y + self.tile_height / 2, "\n".join(self.row_heads[row]), HEAD,
                        align="left", baseline="center",
                    )  # fmt: skip
                for place, i in enumerate(band.columns):
                    tile = tiles[i]
                    if tile is not None:
                        self._draw_tile(page, tile, self.below[row][i], self._x(place), y, size)
                y += self._row_height(row, band.columns) + ROW_GAP
            y += BAND_GAP - ROW_GAP
        if self.bar is not None:
            draw_bar(page, self.bar, y)

    def _x(self, place: int) -> float:
        return self.left + self.indent + place * (self.tile + COLUMN_GAP)

    def _draw_tile(
        self, page: Page, tile: Tile, below: list[str], x: float, y: float, size: int
    ) -> None:
        height = min(self.tile * tile.aspect, self.tile_height)
        width = height / tile.aspect
        left, top = x + (self.tile - width) / 2, y + (self.tile_height - height) / 2
        middle = x + self.tile / 2
        if tile.picture is None:
            page.box(left, top, width, height, "#E5E5E5")
        else:
            page.picture(tile.picture(size), left, top, width, height, tile.label)
        if tile.over:
            most = max(1, int(height / line_height(SMALL)))
            lines = wrapped(tile.over, width - 1, lines=most)
            if tile.short and any("…" in line for line in lines):
                lines = wrapped(tile.short, width - 1, lines=most)
            shown = "\n".join(lines)
            if tile.picture is None:
                page.text(middle, top + height / 2, shown, baseline="center", color="#555555")
            else:
                field = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8}
                page.text(middle, top + height / 2, shown, baseline="center", bbox=field)
        if tile.letter:
            field = {"facecolor": "white", "edgecolor": "none", "pad": 0.9}
            page.text(left + 0.5, top + 0.5, tile.letter, HEAD, align="left", bold=True, bbox=field)
        if below:
            page.text(middle, top + height + TEXT_GAP, "\n".join(below))


def bar_height() -> float:
    """Return the height of a colour bar with its title, in millimetres."""
    return 2.6 + line_height(SMALL)


def draw_bar(page: Page, bar: Bar, y: float) -> None:
    """Draw a colour bar in the middle of a page, from `y` millimetres on."""
    width = min(46.0, 0.34 * page.width)
    left = (page.width - width) / 2
    page.text(page.width / 2, y, bar.title)
    y += line_height(SMALL) + 0.4
    strip = np.repeat(lookup_table(bar.colormap)[None], 2, axis=0)
    page.picture(strip, left, y, width, 2.2, "colour bar")
    beside = left - MARGIN - 1
    low, high = (fitted(text, beside) for text in (bar.low, bar.high))
    page.text(left - 1, y + 1.1, low, align="right", baseline="center")
    page.text(left + width + 1, y + 1.1, high, align="left", baseline="center")


def lettered(tile: Tile, letter: str) -> Tile:
    """Return a tile with a letter in its corner."""
    return replace(tile, letter=letter)
