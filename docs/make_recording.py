"""Record napari's window while it is used, as a small movie: ``docs/images/window.mp4``.

    xvfb-run -a -s "-screen 0 1400x900x24" python docs/make_recording.py

The real widgets are driven, and a picture of the window is taken ten times a second of the movie.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np

TARGET = Path(__file__).parent / "images" / "window.mp4"
FPS = 10
#: Size of the window; both sides are even, as H.264 requires.
SIZE = (1200, 760)


class Recorder:
    """Takes pictures of a window, and writes them as a movie."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._writer = imageio_ffmpeg.write_frames(
            str(TARGET),
            SIZE,
            fps=FPS,
            macro_block_size=1,
            quality=6,
            output_params=["-movflags", "+faststart"],
        )
        self._writer.send(None)

    def take(self, frames: int = 1) -> None:
        """Process events, and add pictures of the window."""
        from qtpy.QtWidgets import QApplication

        for _ in range(frames):
            end = time.monotonic() + 0.1
            while time.monotonic() < end:
                QApplication.processEvents()
                time.sleep(0.005)
            picture = self._viewer.window.screenshot(flash=False, canvas_only=False)[..., :3]
            frame = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
            height, width = min(SIZE[1], picture.shape[0]), min(SIZE[0], picture.shape[1])
            frame[:height, :width] = picture[:height, :width]
            self._writer.send(np.ascontiguousarray(frame))

    def close(self) -> None:
        """Complete the movie."""
        self._writer.close()


def main() -> None:
    """Drive the window, and write the recording."""
    import napari

    from napari_camanim.commands import dock, next_best_layer

    viewer = napari.Viewer(title="napari-camanim")
    viewer.window.resize(*SIZE)
    viewer.open_sample("napari-camanim", "malignant_1")
    viewer.layers.selection.active = viewer.layers["malignant_1"]
    widget = dock(viewer)
    recorder = Recorder(viewer)
    recorder.take(8)
    widget.road.value = True
    widget.run()
    while not widget.session.stacks or widget.runner.running:
        recorder.take()
    recorder.take(8)
    count = len(widget.session.animation)
    for index in range(0, count, 2):
        widget.session.go_to(index)
        recorder.take()
    for _ in range(3):
        next_best_layer(viewer)
        recorder.take(5)
    widget.normalization.value = "global"
    recorder.take(8)
    widget.normalization.value = "local"
    widget.sections["Compare"].expand()
    recorder.take(5)
    widget.compare.methods.value = "GradCAM, LayerCAM, EigenCAM, RandomCAM"
    recorder.take(4)
    widget.compare.compare.native.click()
    while widget.runner.running:
        recorder.take()
    for index in range(0, count, 4):
        widget.session.go_to(index)
        recorder.take(2)
    recorder.close()
    viewer.close()


if __name__ == "__main__":
    main()
