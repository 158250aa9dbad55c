"""Take the pictures of README and guide: napari's window with the demo, and a frame of the movie.

    xvfb-run -a -s "-screen 0 1400x900x24" python docs/make_pictures.py

Both are written into ``docs/images``.
"""

from __future__ import annotations

import time
from pathlib import Path

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    """Run the demo in a window, and write both pictures."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_camanim._demo import show_demo
    from napari_camanim.layers.stack import current_stack

    IMAGES.mkdir(exist_ok=True)
    viewer = napari.Viewer(title="napari-camanim")
    viewer.window.resize(1360, 860)
    widget = show_demo(viewer)
    while widget.runner.running:
        QApplication.processEvents()
        time.sleep(0.01)
    stack = current_stack(viewer)
    # The canvas is drawn some rounds of the event loop after the layer was added.
    for _ in range(100):
        QApplication.processEvents()
        time.sleep(0.01)
    viewer.window.screenshot(str(IMAGES / "window.png"), flash=False, canvas_only=False)
    stack.data.animation.write_picture(IMAGES / "frame.png")
    viewer.close()


if __name__ == "__main__":
    main()
