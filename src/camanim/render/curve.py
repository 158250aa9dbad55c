"""The curve below the frames of a movie: a finding over the layers, with a cursor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from camanim.findings import Finding
from camanim.plots import Panel
from camanim.render.figures import MOVIE, Theme, draw, dress
from camanim.render.pen import BACKGROUND, QUIET, TEXT, Box, Pen, Point

#: Height of a line of text, and of the caption of the shown layer, which has two lines.
LINE, HEAD = 20, 44
#: Margins of the axes for tick labels, axis labels and a row of the legend, and names in such a row.
LEFT, RIGHT, BELOW, ABOVE, COLUMNS = 44, 10, 40, 22, 6
#: Height of a further row of the legend.
ROW = 15


@dataclass(frozen=True)
class Cursor:
    """The cursor of one frame.

    Attributes
    ----------
    x : float
        Position on the x axis of the panel.
    values : tuple of (x, y)
        Values that get a dot.
    caption : str
        At most two lines, above the panel.
    """

    x: float
    values: tuple[Point, ...]
    caption: str = ""


def cursors_of(finding: Finding, panel: Panel) -> list[Cursor]:
    """Return the cursor of each layer on the main values of a finding."""
    values = np.asarray(panel.lines[-1].y, np.float64)
    return [
        Cursor(float(x), ((float(x), float(y)),) if np.isfinite(y) else (), finding.caption(i))
        for i, (x, y) in enumerate(zip(panel.x, values, strict=True))
    ]


class Curve:
    """The panel of a finding, drawn once; each frame adds the cursor and the caption of its layer.

    Parameters
    ----------
    panel : Panel
        Panel over the layers.
    cursors : sequence of Cursor
        One for each frame.
    box : (left, top, right, bottom)
        Position in the frame in pixels.
    pen : Pen
    columns : int
        Names in a row of the legend.
    area : bool
        Whether the area between lines and zero is shaded.
    """

    def __init__(
        self,
        panel: Panel,
        cursors: Sequence[Cursor],
        box: Box,
        pen: Pen,
        columns: int = COLUMNS,
        *,
        area: bool = True,
    ) -> None:
        self.pen, self._cursors, (left, top, right, bottom) = pen, cursors, box
        has_caption = any(cursor.caption for cursor in cursors)
        self.caption_at, self.width = (left, top + pen.px(14)), right - left
        self.box: Box = (left, top + (pen.px(HEAD) if has_caption else 0), right, bottom)
        # Pillow draws without antialiasing: draw the dot larger and reduce it.
        side = 8 * pen.px(5)
        large = Image.new("L", (side, side))
        ImageDraw.Draw(large).ellipse((0, 0, side - 1, side - 1), 255)
        self._dot = large.reduce(4)
        self._draw(panel, replace(MOVIE, columns=columns, area=area))

    def _draw(self, panel: Panel, theme: Theme) -> None:
        """Draw the panel, and keep top and bottom of the axes and the pixels of the cursors."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        width, height = self.box[2] - self.box[0], self.box[3] - self.box[1]
        # The theme's font sizes are in points at 100 dots per inch.
        dpi = 100 * self.pen.unit
        background = "#{:02x}{:02x}{:02x}".format(*BACKGROUND)
        figure = Figure((width / dpi, height / dpi), dpi=dpi, facecolor=background)
        canvas = FigureCanvasAgg(figure)
        left, below = self.pen.px(LEFT) / width, self.pen.px(BELOW) / height
        names = sum(bool(line.name) for line in panel.lines)
        rows = -(-names // theme.columns) if theme.columns != COLUMNS else 1
        top = self.pen.px(ABOVE + ROW * (rows - 1)) / height
        axes = figure.add_axes(
            (left, below, 1 - left - self.pen.px(RIGHT) / width, 1 - below - top)
        )
        dress(axes, theme)
        # The caption above replaces the label of the y axis.
        draw(figure, axes, replace(panel, y_label=""), theme)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]

        def to_pixels(points: list[Point]) -> list[Point]:
            if not points:
                return []
            x, y = np.transpose(axes.transData.transform(np.array(points)))
            return [
                (self.box[0] + a, self.box[1] + pixels.shape[0] - b)
                for a, b in zip(x, y, strict=True)
            ]

        low = axes.get_ylim()[0]
        self._lines = [
            round(x) for x, _ in to_pixels([(cursor.x, low) for cursor in self._cursors])
        ]
        self._dots = [to_pixels(list(cursor.values)) for cursor in self._cursors]
        frame = axes.get_window_extent()
        self._span = (round(pixels.shape[0] - frame.y1), round(pixels.shape[0] - frame.y0))
        self._picture = Image.fromarray(np.ascontiguousarray(pixels))

    def changed(self, i: int) -> list[Box]:
        """Return the parts that `mark` changes for frame `i`."""
        left, baseline = self.caption_at
        reach = self._dot.width
        xs = [self._lines[i], *(round(x) for x, _ in self._dots[i])]
        top, bottom = (self.box[1] + edge for edge in self._span)
        parts = [(min(xs) - reach, top - reach, max(xs) + reach, bottom + reach)]
        if self._cursors[i].caption:
            ascent = self.pen.px(LINE)
            parts.append((left - 2, baseline - ascent, left + self.width, baseline + 2 * ascent))
        return parts

    def draw(self, canvas: Image.Image) -> None:
        """Draw the panel without the cursor."""
        canvas.paste(self._picture, self.box[:2])

    def mark(self, canvas: Image.Image, i: int) -> None:
        """Draw the cursor and the caption of frame `i`; a layer without a value has no dot."""
        pen, dots = self.pen, self._dots[i]
        left, baseline = self.caption_at
        for k, line in enumerate(self._cursors[i].caption.splitlines()[:2]):
            pen.write(canvas, (left, baseline + k * pen.px(LINE)), line, "body", width=self.width)
        x = self._lines[i]
        top, bottom = (self.box[1] + edge for edge in self._span)
        # From a single dot down to the axis, and over the whole height with several.
        upper = round(dots[0][1]) if len(dots) == 1 else top
        ImageDraw.Draw(canvas).rectangle(
            (x, min(upper, bottom - 1), x + pen.px(1) - 1, max(upper, bottom - 1)),
            TEXT if dots else QUIET,
        )
        for dot in dots:
            corner = (
                round(dot[0]) + (pen.px(1) - self._dot.width) // 2,
                round(dot[1]) - self._dot.height // 2,
            )
            canvas.paste(Image.new("RGB", self._dot.size, TEXT), corner, self._dot)
