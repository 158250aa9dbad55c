"""Fixtures for tests of the plugin; those with a window are skipped without a display."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from napari.layers import Image
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QMessageBox

import camanim
from camanim.checks import Localisation
from camanim.layer_info import LayerInfo, Status
from camanim.road import Road
from napari_camanim.canvas.badge import Badge
from napari_camanim.layers.stack import is_stack
from napari_camanim.session import Session
from napari_camanim.work import networks

SHARED = Path(__file__).parents[3] / "shared"


def pytest_collection_modifyitems(items):
    """Run all tests in one process, as windows would take the focus from each other."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("windows"))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory, monkeypatch):
    """The dock remembers its fields in the cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CAMANIM_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_trusted_files():
    # In place, as other modules have imported the set.
    networks.TRUSTED.clear()
    yield
    networks.TRUSTED.clear()


@pytest.fixture
def viewer(make_napari_viewer):
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        pytest.skip("needs a display: run under xvfb-run")
    return make_napari_viewer(show=True)


@pytest.fixture
def make_dock(viewer, qtbot):
    """Return a function that adds the dock widget.

    Its `finish` waits for the end of all jobs, its `explain` runs and waits, its `run_until` runs until
    a line of progress contains certain words, and `window_dock` is what the window removes.
    """

    def make():
        window_dock, widget = viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")
        if widget.network.value in ("", widget._suggested):
            # Small, and the same for all images.
            widget.network.value = "demo/ultrasound"

        def finish(timeout=120_000):
            def busy():
                return widget.runner.running or widget.saving.busy

            qtbot.waitUntil(lambda: not busy(), timeout=timeout)

        def explain():
            widget.run()
            finish()

        def run_until(words, timeout=60_000):
            # A stage may be shorter than the interval in which a state is looked at.
            def reached(line, done, total):
                return words in line

            progressed = widget.explainer.progressed
            with qtbot.waitSignal(progressed, timeout=timeout, check_params_cb=reached):
                widget.run()

        widget.finish, widget.explain, widget.run_until = finish, explain, run_until
        widget.window_dock = window_dock
        return widget

    return make


@pytest.fixture
def dock(make_dock):
    return make_dock()


@pytest.fixture
def small(dock):
    """The dock, set to few layers."""
    dock.settings.layers.value = "blocks"
    return dock


@pytest.fixture
def session(viewer):
    return Session.of(viewer)


@pytest.fixture
def stacks(viewer):
    return lambda: [layer for layer in viewer.layers if is_stack(layer)]


@pytest.fixture
def badge(viewer):
    """Return a function that returns the lines on the canvas."""
    return lambda: viewer.canvas.overlays["camanim"].text.split("\n")


@pytest.fixture
def has_caption(viewer):
    """Return a function that compares the text on the canvas with a whole caption and a slice."""

    def has_caption(caption, place=""):
        Badge.on(Session.of(viewer)).whole = True
        text = viewer.canvas.overlays["camanim"].text
        return text == (f"{caption}\n{place}" if place else caption)

    return has_caption


@pytest.fixture
def notified():
    """Return a function that returns the message of the last notification."""
    return lambda: notification_manager.records[-1].message


@pytest.fixture
def write(tmp_path):
    """Return a function that writes the code of a network and returns its path."""

    def write(code, name="net.py"):
        path = tmp_path / name
        path.write_text(code)
        return str(path)

    return write


@pytest.fixture
def confirm(monkeypatch):
    """Return a function that sets the choice in the dialog about trust, and returns all questions."""
    questions = []

    def confirm(choice):
        buttons = QMessageBox.StandardButton

        def question(parent, title, text, *rest):
            questions.append(text)
            return buttons.Yes if choice else buttons.No

        monkeypatch.setattr(QMessageBox, "question", question)
        return questions

    return confirm


@pytest.fixture
def tiny():
    """A network with four layers and the classes a, b and c."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(4, 3, 3, padding=1),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    )
    return camanim.Model(net, camanim.Preprocess(channels=1), ["a", "b", "c"])


@pytest.fixture
def volume():
    """A bright blob in a small volume."""
    z, y, x = np.mgrid[:6, :24, :32]
    bump = np.exp(-((z - 3) ** 2 / 4 + (y - 12) ** 2 / 20 + (x - 20) ** 2 / 30))
    return (255 * bump).astype(np.uint8)


@pytest.fixture
def ramp():
    """A small grey image."""
    return Image(np.linspace(0, 255, 96 * 128).reshape(96, 128).astype(np.uint8), name="ramp")


@pytest.fixture
def shared():
    if not SHARED.exists():
        pytest.skip("the shared images and weights are not here")
    return SHARED


def _layers(count):
    return [
        LayerInfo(i, f"part.{i}", 0, "Conv2d", (1, 4, 8, 8), 10, None, Status.OK)
        for i in range(count)
    ]


def make_road(scores, *, spread=0.0, random_scores=None, percentiles=(20, 40, 60, 80), layers=None):
    """Return scores with three repeats that differ by `spread`, or with one repeat."""
    scores = np.asarray(scores, float)
    steps = np.array([-1, 0, 1]) * spread if spread else np.zeros(1)
    repeated = scores + steps[:, None]
    # The probability increases with the share of kept pixels.
    probabilities = 0.5 * np.asarray(percentiles) / 100
    morfs = np.broadcast_to(probabilities, (*repeated.shape, len(percentiles))).copy()
    morfs[np.isnan(repeated)] = np.nan
    none = np.empty((len(scores), 0))
    return Road(
        layers=layers or _layers(len(scores)),
        percentiles=tuple(map(float, percentiles)),
        morfs=morfs,
        lerfs=morfs + 2 * repeated[..., None],
        probability=0.5,
        undefined=tuple("constant map" if np.isnan(s) else None for s in scores),
        random_scores=none if random_scores is None else np.asarray(random_scores, float),
        forwards=0,
        seed=0,
        noise=0.01,
    )


def make_localisation(precision, energy, share=0.1):
    count = len(precision)
    return Localisation(
        layers=_layers(count),
        pointing=np.ones(count),
        energy=np.asarray(energy, float),
        iou=np.full(count, 0.3),
        average_precision=np.asarray(precision, float),
        share=share,
        undefined=(None,) * count,
    )


@pytest.fixture
def roads():
    """Functions that return findings with known values."""
    return SimpleNamespace(road=make_road, localisation=make_localisation)
