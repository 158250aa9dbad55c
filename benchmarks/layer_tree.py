"""Time of the layer tree on the GUI thread: opening, filtering, and following the slider.

    xvfb-run -a python benchmarks/layer_tree.py torchvision/densenet161 timm/vit_large_patch16_224

Networks have random weights. Each time is the median processor time of this thread, with the
painting of the tree's window.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from statistics import median
from time import thread_time

import numpy as np
import torch
from napari.components import ViewerModel
from qtpy.QtWidgets import QApplication

import camanim
import napari_camanim
from napari_camanim.session import Session
from napari_camanim.tree.view import LayerTree

REPEATS = 5


def milliseconds(
    act: Callable[[int], object],
    widget: LayerTree | None = None,
    before: Callable[[], object] = gc.isenabled,
) -> float:
    """Return the median processor time of an act; `before` is called outside of the time."""
    times = []
    for repeat in range(REPEATS):
        before()
        QApplication.processEvents()
        start = thread_time()
        shown = act(repeat)
        (widget or shown).repaint()  # type: ignore[union-attr]
        QApplication.processEvents()
        times.append(1000 * (thread_time() - start))
    return median(times)


def build(source: str) -> torch.nn.Module:
    package, _, name = source.partition("/")
    if package == "timm":
        import timm

        return timm.create_model(name, pretrained=False).eval()
    import torchvision

    return torchvision.models.get_model(name, weights=None).eval()


def measure(source: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (224, 224, 3)).astype(np.uint8)
    viewer = ViewerModel()
    animation = camanim.animate(build(source), pixels, target=0)
    napari_camanim.add_animation(viewer, animation, viewer.add_image(pixels))
    session = Session.of(viewer)
    trees: list[LayerTree] = []

    def open_tree(repeat: int) -> LayerTree:
        trees.append(LayerTree(session))
        trees[-1].resize(290, 600)
        trees[-1].show()
        return trees[-1]

    print(f"{source}: {len(animation.layer_calls)} calls, {len(animation)} maps")
    # Collections of the engine's graph belong to other work.
    gc.collect()
    gc.disable()
    print(f"  open            {milliseconds(open_tree):6.1f} ms")
    tree = trees[-1]
    for other in trees[:-1]:
        other.hide()
    for words in ("e", "conv", "norm 2"):
        took = milliseconds(lambda i, w=words: tree.filter.setText(w), tree, tree.filter.clear)
        print(f"  filter {words!r:8} {took:6.1f} ms")
    took = milliseconds(lambda i: tree.filter.clear(), tree, lambda: tree.filter.setText("conv"))
    print(f"  filter cleared  {took:6.1f} ms")
    took = milliseconds(lambda i: tree.model.set_shown(range(i % 2, len(animation), 2)), tree)
    print(f"  ticks           {took:6.1f} ms")
    tree.view.collapseAll()
    took = milliseconds(lambda i: tree._on_index((i + 1) * (len(animation) - 1) // 6), tree)
    print(f"  slider          {took:6.1f} ms")
    gc.enable()


if __name__ == "__main__":
    application = QApplication.instance() or QApplication([])
    for name in sys.argv[1:] or ["torchvision/densenet161"]:
        measure(name)
