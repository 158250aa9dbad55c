"""Rendering of the badge's characters ahead of time.

The first use of each character on the canvas takes 10 to 20 ms: the first badge would freeze the window
for half a second. The characters are rendered one by one, in a transparent text, while nothing happens.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING
from weakref import WeakSet, ref

from napari.components.overlays import TextOverlay
from qtpy.QtCore import QObject, QTimer

if TYPE_CHECKING:
    from napari.components import ViewerModel

CHARACTERS = string.digits + string.ascii_lowercase + "./-_()RODCAGEMSW" + "…"
#: Milliseconds between two characters.
INTERVAL = 40
KEY = "camanim glyphs"

#: Viewers whose characters are rendered, or are being rendered.
_rendered: WeakSet[ViewerModel] = WeakSet()


class Glyphs(QObject):
    """Renders the characters of a viewer's badge, once per viewer.

    Parameters
    ----------
    viewer : napari viewer
    """

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = ref(viewer)
        self._left = list(CHARACTERS)
        self._overlay = TextOverlay(
            visible=True, opacity=0.0, position="top_left", font_size=9, box=False
        )
        self._timer = QTimer(self)
        self._timer.setInterval(INTERVAL)
        self._timer.timeout.connect(self._render_next)

    def start(self) -> None:
        """Start with the first character."""
        viewer = self._viewer()
        if viewer is not None and viewer not in _rendered:
            _rendered.add(viewer)
            viewer.canvas.overlays[KEY] = self._overlay
            self._timer.start()

    def stop(self) -> None:
        """Remove the text; further characters are rendered when they are first shown."""
        self._timer.stop()
        viewer = self._viewer()
        if viewer is not None:
            viewer.canvas.overlays.pop(KEY, None)

    def _render_next(self) -> None:
        if self._left:
            self._overlay.text = self._left.pop(0)
        else:
            self.stop()
