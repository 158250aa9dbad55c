"""The popup above the curve: name, kind, values and map of the layer below the pointer."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QPoint, QSize, Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QWidget

from camanim.errors import ImageError
from camanim.render.overlay import Thumbnails
from camanim.slicing import take_plane

if TYPE_CHECKING:
    from camanim import Animation
    from napari_camanim.layers.stack import StackData

#: Longer side of a thumbnail in pixels, and number of thumbnails that are kept.
SIZE, KEPT = 96, 64
#: Space between the popup and the curve in pixels.
GAP = 4


class LayerPopup(QFrame):
    """A tooltip with the map of a layer."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.ToolTip)
        self.setAttribute(Qt.WidgetAttribute.WA_ShowWithoutActivating)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.picture, self.text = QLabel(), QLabel()
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        box = QHBoxLayout(self)
        box.setContentsMargins(6, 6, 8, 6)
        box.setSpacing(8)
        box.addWidget(self.picture)
        box.addWidget(self.text)
        #: What the thumbnails are of.
        self._animation: Animation | None = None
        self._view: tuple[object, ...] = ()
        self._thumbnails: Thumbnails | None = None
        self._kept: OrderedDict[int, QPixmap] = OrderedDict()

    def show_layer(
        self, data: StackData, plane: int | None, i: int, value: str, at: QPoint
    ) -> None:
        """Show a layer above a position.

        Parameters
        ----------
        data : StackData
        plane : int or None
            Index of the shown plane of a volume.
        i : int
            Index of the layer.
        value : str
            Values of the layer, a line each.
        at : QPoint
            Position on the screen.
        """
        animation = data.animation
        layer = animation.layers[i]
        lines = [layer.label, f"{layer.kind}   {i + 1}/{len(animation)}", value]
        self.text.setText("\n".join(filter(None, lines)))
        picture = self._picture(data, plane, i)
        self.picture.setVisible(picture is not None)
        if picture is not None:
            self.picture.setPixmap(picture)
        self.resize(self.sizeHint())
        self._place(at, self.sizeHint())
        self.show()

    def forget(self) -> None:
        """Hide the popup, and drop the thumbnails."""
        self.hide()
        self._animation = self._thumbnails = None
        self._kept.clear()

    def _place(self, at: QPoint, size: QSize) -> None:
        """Move above a position, within the screen."""
        screen = self.screen().availableGeometry()
        left = min(max(at.x() - size.width() // 2, screen.left()), screen.right() - size.width())
        top = max(at.y() - size.height() - GAP, screen.top())
        self.move(left, top)

    def _picture(self, data: StackData, plane: int | None, i: int) -> QPixmap | None:
        """Return the thumbnail of a layer; None if a map cannot be shown as an image."""
        view = (data.normalization, data.signed, plane)
        if data.animation is not self._animation or view != self._view:
            self.forget()
            self._animation, self._view = data.animation, view
            try:
                result = take_plane(data.animation, plane)
            except ImageError:
                # The maps do not cover the shown plane.
                self._thumbnails = None
            else:
                self._thumbnails = Thumbnails(result, SIZE, data.normalization, signed=data.signed)
        if self._thumbnails is None:
            return None
        if i not in self._kept:
            self._kept[i] = _pixmap(self._thumbnails.picture(i))
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return self._kept[i]


def _pixmap(pixels: np.ndarray) -> QPixmap:
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    # Copies the pixels.
    return QPixmap.fromImage(
        QImage(pixels.data, width, height, 3 * width, QImage.Format.Format_RGB888)
    )
