"""The curve below the frames of a movie: a finding over the layers, with a cursor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from camanim.findings import Finding
from camanim.plots import Panel
from camanim.render.figures import MOVIE, draw, dress
from camanim.render.pen import BACKGROUND, QUIET, TEXT, Box, Pen, Point

#: Height of a line of text, and of the caption of the shown layer, which has two lines.
LINE, HEAD = 20, 44
#: Margins of the axes for tick labels, axis labels and the legend.
LEFT, BELOW, ABOVE = 44, 40, 22


class Curve:
    """The panel of a finding, drawn once; each frame adds the cursor and the caption of its layer.

    Parameters
    ----------
    finding : Finding
    panel : Panel
        Panel of the finding over the layers.
    box : (left, top, right, bottom)
        Position in the frame in pixels.
    pen : Pen
    """

    def __init__(self, finding: Finding, panel: Panel, box: Box, pen: Pen) -> None:
        self.finding, self.pen, (left, top, right, bottom) = finding, pen, box
        self.values = np.asarray(panel.lines[-1].y, np.float64)
        self.caption_at, self.width = (left, top + pen.px(14)), right - left
        self.box: Box = (left, top + pen.px(HEAD), right, bottom)
        # Pillow draws without antialiasing: draw the dot larger and reduce it.
        side = 8 * pen.px(5)
        large = Image.new("L", (side, side))
        ImageDraw.Draw(large).ellipse((0, 0, side - 1, side - 1), 255)
        self._dot = large.reduce(4)
        self._picture, self._points, self._span = self._drawn(panel)

    def _drawn(self, panel: Panel) -> tuple[Image.Image, np.ndarray, tuple[int, int]]:
        """Return the picture of the panel, the pixel of each value, and top and bottom of the axes."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        width, height = self.box[2] - self.box[0], self.box[3] - self.box[1]
        # The theme's font sizes are in points at 100 dots per inch.
        dpi = 100 * self.pen.unit
        background = "#{:02x}{:02x}{:02x}".format(*BACKGROUND)
        figure = Figure((width / dpi, height / dpi), dpi=dpi, facecolor=background)
        canvas = FigureCanvasAgg(figure)
        left, below = self.pen.px(LEFT) / width, self.pen.px(BELOW) / height
        top = self.pen.px(ABOVE) / height
        axes = figure.add_axes((left, below, 1 - left - 6 / width, 1 - below - top))
        dress(axes, MOVIE)
        # The caption above replaces the label of the y axis.
        draw(figure, axes, replace(panel, y_label=""), MOVIE)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        finite = np.where(np.isfinite(self.values), self.values, 0.0)
        points = axes.transData.transform(np.column_stack([panel.x, finite]))
        points[:, 1] = pixels.shape[0] - points[:, 1]
        frame = axes.get_window_extent()
        span = (round(pixels.shape[0] - frame.y1), round(pixels.shape[0] - frame.y0))
        return Image.fromarray(np.ascontiguousarray(pixels)), points, span

    def at(self, i: int) -> Point:
        """Return the pixel of the value of layer `i` in the frame."""
        x, y = self._points[i]
        return self.box[0] + float(x), self.box[1] + float(y)

    def draw(self, canvas: Image.Image) -> None:
        """Draw the panel without the cursor."""
        canvas.paste(self._picture, self.box[:2])

    def mark(self, canvas: Image.Image, i: int) -> None:
        """Draw the cursor and the caption of layer `i`; a layer without a value has no dot."""
        pen, defined = self.pen, bool(np.isfinite(self.values[i]))
        left, baseline = self.caption_at
        for k, line in enumerate(self.finding.caption(i).splitlines()[:2]):
            pen.write(canvas, (left, baseline + k * pen.px(LINE)), line, "body", width=self.width)
        x, y = (round(v) for v in self.at(i))
        top, bottom = (self.box[1] + edge for edge in self._span)
        stroke = (x, y if defined else top, x + pen.px(1) - 1, bottom - 1)
        ImageDraw.Draw(canvas).rectangle(
            (stroke[0], min(stroke[1], stroke[3]), stroke[2], max(stroke[1], stroke[3])),
            TEXT if defined else QUIET,
        )
        if defined:
            corner = (x + (pen.px(1) - self._dot.width) // 2, y - self._dot.height // 2)
            canvas.paste(Image.new("RGB", self._dot.size, TEXT), corner, self._dot)
