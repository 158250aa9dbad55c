"""grad-cam and napari in one process: OpenCV's wheel must not set the plugin path of Qt."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: Effect of importing the opencv-python wheel for Linux; the headless wheel has no such effect.
WHEEL = """
import os, sys
import cv2
folder = os.path.dirname(cv2.__file__)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "pytorch_grad_cam" and "QT_QPA_FONTDIR" not in os.environ:
            os.environ["QT_QPA_PLATFORM_PLUGIN_PATH"] = os.path.join(folder, "qt", "plugins")
            os.environ["QT_QPA_FONTDIR"] = os.path.join(folder, "qt", "fonts")
sys.meta_path.insert(0, Finder())
for name in ("QT_QPA_PLATFORM_PLUGIN_PATH", "QT_QPA_FONTDIR"):
    os.environ.pop(name, None)
"""
CLASS = """
from camanim.cam_methods import find_method
import napari_camanim
before = {k: v for k, v in os.environ.items() if k.startswith("QT_")}
assert "pytorch_grad_cam" not in sys.modules
method = find_method("pytorch_grad_cam:LayerCAM")
assert "pytorch_grad_cam" in sys.modules
assert {k: v for k, v in os.environ.items() if k.startswith("QT_")} == before
"""
WINDOW = """
import napari
viewer = napari.Viewer()
"""
STACK = """
import napari_camanim
import numpy as np
from camanim import samples
layer = viewer.add_image(samples.image("malignant_1"))
napari_camanim.animate_layer(
    viewer, layer, "demo/ultrasound", method=method, layers=["features.norm5"]
)
picture = np.asarray(viewer.screenshot(canvas_only=False, flash=False))
print(len(viewer.layers), len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)))
viewer.close()
"""


@pytest.mark.parametrize("order", [CLASS + WINDOW, WINDOW + CLASS], ids=["class", "window"])
def test_a_window_and_a_class_of_grad_cam_in_one_process(order: str) -> None:
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        pytest.skip("needs a display: run under xvfb-run")
    done = subprocess.run(
        [sys.executable, "-c", WHEEL + order + STACK],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    layers, colours = map(int, done.stdout.split()[-2:])
    assert layers > 1
    assert colours > 200, "a blank window has few colours"
