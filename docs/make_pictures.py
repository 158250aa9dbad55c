"""Take the pictures of README and guide: napari's window in several states, and a frame of the movie.

    xvfb-run -a -s "-screen 0 1400x900x24" python docs/make_pictures.py

They are written into ``docs/images``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

IMAGES = Path(__file__).parent / "images"


def settle(seconds: float = 1.0) -> None:
    """Process events, as the canvas is drawn some rounds of the event loop after a change."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


def wait(condition: Callable[[], bool]) -> None:
    """Process events until a condition holds, and what follows from it is drawn."""
    while not condition():
        settle(0.02)
    settle()


def main() -> None:
    """Run the demo in a window, and write the pictures."""
    import napari

    from napari_camanim._demo import show_demo
    from napari_camanim.session import Session

    IMAGES.mkdir(exist_ok=True)
    viewer = napari.Viewer(title="napari-camanim")
    viewer.window.resize(1360, 860)

    def take(name: str) -> None:
        viewer.window.screenshot(str(IMAGES / name), flash=False, canvas_only=False)

    widget = show_demo(viewer)
    wait(lambda: bool(widget.session.stacks) and not widget.runner.running)
    take("window.png")
    stack = Session.of(viewer).current
    stack.data.animation.write_picture(IMAGES / "frame.png")

    widget.sections["Layers"].expand()
    settle()
    tree = widget.layers.tree
    tree.filter.setText("conv")
    widget.layers.probe.active = True
    height, width = stack.data.run.region.shape
    middle = (*viewer.dims.point[:-2], 0.55 * height, 0.45 * width)
    widget.layers.probe.choose(middle)
    settle(2)
    take("window-layers.png")
    tree.filter.setText("")
    widget.layers.probe.active = False
    widget.sections["Layers"].collapse()

    widget.sections["Compare"].expand()
    settle()
    widget.compare.methods.value = "GradCAM, LayerCAM, EigenCAM, RandomCAM"
    widget.compare.compare.native.click()
    wait(lambda: not widget.runner.running)
    take("window-compare.png")
    viewer.close()


if __name__ == "__main__":
    main()
