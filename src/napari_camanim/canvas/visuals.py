"""How napari's canvas draws painted overlays: as textures.

napari has no public way to add a kind of overlay; this is the only module that uses its internals.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from napari._vispy.overlays.base import ViewerOverlayMixin, VispyCanvasOverlay
from napari._vispy.utils.visual import overlay_to_visual
from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QColor, QFont, QFontMetricsF, QImage, QPainter
from qtpy.QtWidgets import QApplication
from vispy.scene.visuals import Image as ImageNode

from napari_camanim.canvas.painted import PaintedColorBar, PaintedText

#: Pixels between the content and the edge of its box.
MARGIN = 4
#: Width and height of the colours of a bar, and the gap beside them, in pixels.
BAR, GAP = (12, 90), 5
#: The widest value beside a bar, so that it has the same width on all layers of the network.
WIDEST = "-8.8e-08"


def register() -> None:
    """Let napari draw the overlays of `painted`."""
    overlay_to_visual[PaintedText] = VispyPaintedText
    overlay_to_visual[PaintedColorBar] = VispyColorBar


class _VispyPainted(ViewerOverlayMixin, VispyCanvasOverlay):
    """An overlay as a picture, painted again after each change of its fields."""

    #: Fields of the overlay on which the picture depends.
    fields: ClassVar[tuple[str, ...]]
    x_size: float
    y_size: float

    def __init__(self, **kwargs: Any) -> None:
        pixel = np.zeros((1, 1, 4), np.uint8)
        # Four corners and bytes, which OpenGL takes as they are.
        node = ImageNode(
            pixel, clim=(0, 255), texture_format="auto", method="subdivide", grid=(1, 1)
        )
        super().__init__(node=node, **kwargs)
        for name in self.fields:
            getattr(self.overlay.events, name).connect(self._on_box_change)
        #: Pixels of the screen per pixel of the canvas, when it was painted.
        self._ratio = 1.0
        if self.node.canvas is not None:
            self.node.canvas.events.resize.connect(self._on_resize)
        self.reset()

    def _on_resize(self, event: Any = None) -> None:
        """Paint again on a screen with another scale."""
        # vispy rounds it to whole pixels of the screen.
        if abs(self._screen_ratio() - self._ratio) > 0.01:
            self._on_box_change()

    def _screen_ratio(self) -> float:
        canvas = self.node.canvas
        return 1.0 if canvas is None else float(canvas.pixel_scale)

    def close(self) -> None:
        """Remove the overlay from the canvas."""
        if self.node.canvas is not None:
            self.node.canvas.events.resize.disconnect(self._on_resize)
        super().close()

    def _on_box_change(self) -> None:
        # Called by the base after a change of box, background, padding or visibility. The box is part of
        # the picture.
        if not self.overlay.visible:
            return
        self._ratio = ratio = self._screen_ratio()
        font = QFont(QApplication.font())
        font.setPointSizeF(self.overlay.font_size)
        width, height = self._size(QFontMetricsF(font))
        width, height = int(np.ceil(width)) + 2 * MARGIN, int(np.ceil(height)) + 2 * MARGIN
        image = QImage(round(width * ratio), round(height * ratio), QImage.Format.Format_RGBA8888)
        image.setDevicePixelRatio(ratio)
        image.fill(Qt.GlobalColor.transparent)
        painter = QPainter(image)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self.overlay.box:
            background = self.overlay.box_color
            if background is None:
                background = self.viewer.canvas.background_color
                background[-1] *= 0.8
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(_color(background))
            painter.drawRoundedRect(QRectF(0, 0, width, height), 3, 3)
        painter.setFont(font)
        painter.setPen(_color(self._get_fgcolor()))
        painter.translate(MARGIN, MARGIN)
        self._paint(painter)
        painter.end()
        self.node.set_data(_pixels(image))
        self.node.transform.scale = (1 / ratio, 1 / ratio)
        self.node.update()
        if (self.x_size, self.y_size) != (width, height):
            self.x_size, self.y_size = width, height
            self._on_position_change()

    def _on_position_change(self, event: Any = None) -> None:
        self.viewer.canvas.events._overlay_positions_changed()

    def _size(self, metrics: QFontMetricsF) -> tuple[float, float]:
        """Return width and height of the content in pixels."""
        raise NotImplementedError

    def _paint(self, painter: QPainter) -> None:
        """Paint the content, with its upper left corner at the origin."""
        raise NotImplementedError


class VispyPaintedText(_VispyPainted):
    """Draws a `PaintedText`."""

    overlay: PaintedText
    fields = ("text", "font_size", "color")

    def _size(self, metrics: QFontMetricsF) -> tuple[float, float]:
        lines = self.overlay.text.split("\n")
        width = max(metrics.horizontalAdvance(line) for line in lines)
        return width, len(lines) * metrics.lineSpacing()

    def _paint(self, painter: QPainter) -> None:
        metrics = QFontMetricsF(painter.font())
        if self.overlay.color is not None:
            painter.setPen(_color(self.overlay.color))
        for i, line in enumerate(self.overlay.text.split("\n")):
            painter.drawText(0, round(i * metrics.lineSpacing() + metrics.ascent()), line)


class VispyColorBar(_VispyPainted):
    """Draws a `PaintedColorBar`."""

    overlay: PaintedColorBar
    fields = ("colors", "low", "high", "font_size")

    def _size(self, metrics: QFontMetricsF) -> tuple[float, float]:
        texts = (WIDEST, self.overlay.low, self.overlay.high)
        return BAR[0] + GAP + max(map(metrics.horizontalAdvance, texts)), BAR[1]

    def _paint(self, painter: QPainter) -> None:
        metrics = QFontMetricsF(painter.font())
        x = BAR[0] + GAP
        # Upper edges of the letters at the upper end, lower edges at the lower end.
        painter.drawText(x, round(metrics.tightBoundingRect("0").height()), self.overlay.high)
        painter.drawText(x, BAR[1], self.overlay.low)
        if not self.overlay.colors:
            return
        rows = np.array(self.overlay.colors, np.uint8)[::-1]
        pixels = np.ascontiguousarray(np.insert(rows, 3, 255, axis=1))
        strip = QImage(pixels.data, 1, len(rows), 4, QImage.Format.Format_RGBA8888)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawImage(QRectF(0, 0, *BAR), strip)


def _color(color: npt.NDArray[np.float32]) -> QColor:
    return QColor.fromRgbF(*(float(v) for v in np.clip(color, 0, 1)))


def _pixels(image: QImage) -> npt.NDArray[np.uint8]:
    """Return a copy of the pixels, (height, width, 4)."""
    data = image.constBits()
    if hasattr(data, "setsize"):
        # In PyQt, a pointer without a size.
        data.setsize(image.sizeInBytes())
    rows = np.frombuffer(data, np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 4 * image.width()].reshape(image.height(), image.width(), 4).copy()
