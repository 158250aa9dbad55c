"""Recording of the canvas as it is seen, one layer of the network after the other."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, QTimer

from camanim.errors import RenderError
from napari_camanim.session import Session, unwrapped

if TYPE_CHECKING:
    from napari.layers import Image

    from camanim.progress import Progress

#: Milliseconds between two ticks: the window handles its events in between.
TICK = 10
#: Screenshots that wait to be encoded.
WAITING = 3
#: Seconds after which the thread reports progress again, by which it can be cancelled.
_PATIENCE = 0.05

Frame = npt.NDArray[np.uint8]


class Recording(QObject):
    """Screenshots of the canvas at each layer of the current stack, written in another thread.

    A timer of the window moves the slider and takes one screenshot a tick, so that the window stays
    alive. `work` is the job of the thread, which encodes them. The slider is restored by `stop`.

    Parameters
    ----------
    session : Session
    stack : napari.layers.Image
    path : path-like
        As for `camanim.render.write_movie`.
    fps : float
        Frames per second of the movie.

    Raises
    ------
    RenderError
        If the viewer or its window is closed, or the slider of the stack is an axis of the canvas.
    """

    def __init__(self, session: Session, stack: Image, path: str | Path, fps: float) -> None:
        super().__init__()
        self._session, self._stack, self._path, self._fps = session, stack, path, fps
        viewer = session.viewer
        if viewer is None or not hasattr(viewer, "screenshot"):
            raise RenderError("There is no window to record: open napari first.")
        self._axis = viewer.dims.ndim - stack.ndim
        if self._axis in viewer.dims.displayed:
            raise RenderError("The layers are an axis of the canvas: show them with the slider.")
        self._point = tuple(viewer.dims.point)
        self._animation = stack.data.animation
        #: Index of the layer at each position of the slider.
        self._indices = [int(index) for index in stack.data.indices]
        self._frames: queue.Queue[Frame | None] = queue.Queue(WAITING)
        self._next = 0
        self._stopped = False
        self._timer = QTimer(self)
        self._timer.setInterval(TICK)
        self._timer.timeout.connect(self._tick)

    def __len__(self) -> int:
        return len(self._indices)

    def start(self) -> None:
        """Start to take screenshots."""
        self._timer.start()

    def stop(self) -> None:
        """Take no more screenshots, and restore the slider."""
        if self._stopped:
            return
        self._stopped = True
        self._timer.stop()
        viewer = self._session.viewer
        if viewer is not None and viewer.dims.ndim == len(self._point):
            viewer.dims.set_point(range(len(self._point)), self._point)

    def _tick(self) -> None:
        """Take the screenshot of one layer, and move the slider to the next."""
        viewer = self._session.viewer
        if viewer is None or self._stack not in [unwrapped(layer) for layer in viewer.layers]:
            # The thread ends with an error.
            self._end()
            return
        if self._frames.full():
            return
        if round(viewer.dims.point[self._axis]) != self._next:
            # At the start, and when the user moves the slider.
            viewer.dims.set_point(self._axis, self._next)
            return
        if not all(layer.loaded for layer in viewer.layers if layer.visible):
            return
        picture = viewer.screenshot(canvas_only=True, flash=False)
        self._frames.put(np.ascontiguousarray(picture[..., :3]))
        self._next += 1
        if self._next == len(self):
            self._end()
        else:
            viewer.dims.set_point(self._axis, self._next)

    def _end(self) -> None:
        """Tell the thread that no screenshot follows."""
        try:
            self._frames.put_nowait(None)
        except queue.Full:
            # At the next tick.
            return
        self._timer.stop()

    def work(self, progress: Progress) -> Path:
        """Encode the screenshots; run in another thread.

        Raises
        ------
        RenderError
            If writing fails, or the stack was removed.
        """
        from camanim.render.formats import tags_of
        from camanim.render.movie import checked_movie, layer_row, scores_of, write_sequence

        target = checked_movie(self._path, self._fps)
        rows: list[dict[str, Any]] = [
            layer_row(self._animation.layers[index], i) | scores_of(self._animation, index)
            for i, index in enumerate(self._indices)
        ]
        tags = tags_of(self._animation, len(self))
        written: Path = write_sequence(
            self._received(progress), target, rows, fps=self._fps, tags=tags, progress=progress
        )
        return written

    def _received(self, progress: Progress) -> Iterator[Frame]:
        """Yield the screenshots."""
        for i in range(len(self)):
            while True:
                try:
                    frame = self._frames.get(timeout=_PATIENCE)
                    break
                except queue.Empty:
                    # Raises `Cancelled`.
                    progress("movie", i, len(self))
            if frame is None:
                raise RenderError("The recorded layer was removed: the movie is not complete.")
            yield frame
