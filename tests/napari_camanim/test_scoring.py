"""What the dock measures on the maps, in a real window: scores, masks, checks."""

import json

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

import camanim
from camanim.animation import Animation
from napari_camanim._curve import LAYERS, MASK, REMOVAL

VOLUMES = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(4, 3, 3, padding=1), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
    )
"""


@pytest.fixture
def blob(ramp):
    """A mask of the small grey image, in its lower right corner."""
    labels = np.zeros(ramp.data.shape, int)
    labels[60:90, 70:120] = 3
    return labels


@pytest.fixture
def small(dock):
    """The dock, for a run that takes no time."""
    dock.advanced.layers.setCurrentText("blocks")
    return dock


def said():
    return notification_manager.records[-1].message


def masks(dock):
    field = dock.advanced.scoring.mask
    return [field.itemText(i) for i in range(field.count())]


def run(dock):
    dock.run()
    dock.finish()


def shown(curve):
    return [name for name, button in curve.buttons.items() if button.isVisible()]


def test_a_sample_with_its_mask_and_its_repeats(viewer, dock, stacks, canvas_says, qtbot):
    viewer.open_sample("napari-camanim", "malignant_1")
    scoring = dock.advanced.scoring
    assert masks(dock) == ["none", "malignant_1 lesion"]
    assert (scoring.repeats.value(), scoring.baseline.isChecked()) == (1, True)
    assert scoring.mask.layer() is None
    assert not scoring.checks.isChecked()
    dock.advanced.layers.setCurrentText("*denseblock3*conv2")
    scoring.repeats.setValue(3)
    scoring.mask.setCurrentIndex(1)
    dock.road.setChecked(True)
    run(dock)
    [stack] = stacks()
    animation, about = stack.data.animation, stack.metadata["camanim"]
    road, found = animation.road, animation.localisation
    assert len(road.morfs) == about["road"]["repeats"] == 3
    assert road.chance.shape[1] == about["road"]["draws"] > 2
    lesion = viewer.layers["malignant_1 lesion"].data > 0
    assert found.share == pytest.approx(lesion.mean(), rel=0.1)
    # All of it is plain, and says the same as the results.
    kept = json.loads(json.dumps(about))
    for name in ("spread", "baseline", "baseline_spread", "excess", "margin", "morf", "lerf"):
        np.testing.assert_array_equal(kept["road"][name], getattr(road, name))
    assert kept["road"]["above_chance"] == road.above_chance.tolist()
    assert kept["road"]["percentiles"] == [20, 40, 60, 80]
    np.testing.assert_array_equal(kept["scores"], road.scores)
    for name in ("pointing", "energy", "iou", "average_precision"):
        np.testing.assert_array_equal(kept["localisation"][name], getattr(found, name))
    assert kept["localisation"]["best"] == found.best.label
    assert kept["randomisation"] is kept["labels"] is None

    curve = dock.curve
    qtbot.waitUntil(curve.isVisible, timeout=5_000)
    assert shown(curve) == [LAYERS, REMOVAL, MASK]
    for name in (LAYERS, REMOVAL, MASK):
        curve.buttons[name].click()
        assert len(curve.plot.plot.lines) == {LAYERS: 2, REMOVAL: 2, MASK: 3}[name]
    curve.buttons[REMOVAL].click()
    viewer.dims.set_point(0, 1)
    falls = next(line for line in curve.plot.plot.lines if line.name.startswith("MoRF"))
    np.testing.assert_allclose(falls.y[1:], road.morf[1][::-1])
    assert "average precision" in dock.message.text()
    assert canvas_says(about["captions"][1])


def test_the_fields_reach_the_engine(viewer, small, stacks, ramp, monkeypatch, roads):
    asked = []

    def score(animation, seed, **settings):
        settings.pop("progress")("ROAD", 1, 1)
        asked.append((seed, settings))
        animation.add(roads.road(np.linspace(-0.1, 0.3, len(animation)), of=animation.layers))

    monkeypatch.setattr(Animation, "score", score)
    # Nothing is checked unasked.
    monkeypatch.setattr(Animation, "check_randomisation", None)
    monkeypatch.setattr(Animation, "check_labels", None)
    viewer.add_layer(ramp)
    small.road.setChecked(True)
    small.advanced.seed.setValue(5)
    run(small)
    small.advanced.scoring.repeats.setValue(7)
    small.advanced.scoring.baseline.setChecked(False)
    run(small)
    assert asked == [
        (5, {"repeats": 1, "baseline": True}),
        (5, {"repeats": 7, "baseline": False}),
    ]


def test_the_message_says_what_chance_scores(viewer, small, ramp, monkeypatch, roads):
    def score(animation, seed, **settings):
        count = len(animation)
        chance = np.tile([0.1, 0.2, 0.3], (count, 1))
        scores = [0.25] * (count - 1) + [high]
        animation.add(roads.road(scores, chance=chance, of=animation.layers))

    monkeypatch.setattr(Animation, "score", score)
    viewer.add_layer(ramp)
    small.road.setChecked(True)
    high = 0.9
    run(small)
    assert "0.900 (chance 0.200)" in small.message.text()
    high = 0.3
    run(small)
    assert "no layer is above chance" in small.message.text()


def test_a_mask_of_the_wrong_shape_loses_nothing(viewer, small, stacks, ramp, blob):
    viewer.add_layer(ramp)
    viewer.add_labels(blob[1:], name="short")
    viewer.add_labels(0 * blob, name="empty")
    small.advanced.scoring.mask.setCurrentIndex(1)
    small.road.setChecked(True)
    run(small)
    [stack] = stacks()
    assert (
        "The mask short has the shape 95 x 128 and the image has 96 x 128" in small.message.text()
    )
    assert "The mask short" in said()
    assert stack.metadata["camanim"]["localisation"] is None
    assert stack.metadata["camanim"]["scores"]
    assert small.run_button.text() == "Run"
    small.road.setChecked(False)
    small.advanced.scoring.mask.setCurrentIndex(2)
    small.finish()
    run(small)
    assert len(stacks()) == 2
    assert [s.data.animation.localisation for s in stacks()] == [None, None]
    assert said() in small.message.text()


def test_the_list_of_masks_follows_the_layers(viewer, small, stacks, ramp, blob):
    viewer.add_layer(ramp)
    first = viewer.add_labels(blob, name="first")
    second = viewer.add_labels(blob, name="second")
    field = small.advanced.scoring.mask
    field.setCurrentIndex(2)
    run(small)
    [stack] = stacks()
    found = stack.data.animation.localisation
    # Without scores too it is measured and plotted, and needs no switch.
    about = stack.metadata["camanim"]
    assert about["scores"] is about["road"] is None
    assert about["localisation"]["share"] == pytest.approx((blob > 0).mean(), rel=0.1)
    assert small.curve.isVisible()
    assert small.curve.view == MASK
    assert shown(small.curve) == []
    viewer.layers.remove(first)
    second.name = "renamed"
    viewer.layers.move(viewer.layers.index(second), 0)
    assert masks(small) == ["none", "renamed"]
    assert field.currentText() == "renamed"
    # The mask goes, what was measured with it stays; the next run has none.
    viewer.layers.remove(second)
    assert masks(small) == ["none"]
    assert stack.data.animation.localisation is found is not None
    assert small._task is None
    run(small)
    assert [s.data.animation.localisation is None for s in stacks()].count(True) == 1


def test_another_mask_is_measured_on_the_maps_that_there_are(
    viewer, small, stacks, ramp, blob, canvas_says, monkeypatch
):
    viewer.add_layer(ramp)
    viewer.add_labels(blob, name="blob")
    viewer.add_labels(np.flip(blob).copy(), name="flipped")
    viewer.add_labels(blob[:50], name="short")
    field = small.advanced.scoring.mask
    field.setCurrentText("blob")
    run(small)
    [stack] = stacks()
    before = stack.metadata["camanim"]
    monkeypatch.setattr("camanim.pipeline.animate_targets", None)
    field.setCurrentText("flipped")
    small.finish()
    after = stack.metadata["camanim"]
    alone = stack.data.animation.localise(np.flip(blob) > 0)
    np.testing.assert_array_equal(after["localisation"]["energy"], alone.energy)
    assert after["localisation"]["energy"] != before["localisation"]["energy"]
    assert after["captions"] != before["captions"]
    assert canvas_says(after["captions"][viewer.dims.current_step[0]])
    field.setCurrentText("short")
    small.finish()
    assert "The mask short has the shape" in said()
    assert stack.metadata["camanim"]["localisation"] is None
    assert not small.curve.isVisible()
    field.setCurrentText("none")
    small.finish()
    assert stack.metadata["camanim"]["localisation"] is None
    # Of another image the stack says nothing: its mask waits for its own run.
    viewer.add_image(np.zeros((96, 128), np.uint8), name="other")
    field.setCurrentText("blob")
    assert small._task is None
    assert stack.metadata["camanim"]["localisation"] is None


def test_a_mask_chosen_during_a_run_is_measured_after_it(viewer, small, stacks, ramp, blob):
    viewer.add_layer(ramp)
    viewer.add_labels(blob, name="blob")
    small.run()
    small.advanced.scoring.mask.setCurrentText("blob")
    small.finish()
    small.finish()
    [stack] = stacks()
    assert stack.metadata["camanim"]["localisation"]["share"] > 0


def test_a_volume_with_its_mask(viewer, small, stacks, tmp_path, monkeypatch):
    from napari_camanim import _networks

    path = tmp_path / "net.py"
    path.write_text(VOLUMES)
    monkeypatch.setattr(_networks, "TRUSTED", {str(path)})
    z, y, x = np.mgrid[:6, :24, :32]
    bump = np.exp(-((z - 3) ** 2 / 4 + (y - 12) ** 2 / 20 + (x - 20) ** 2 / 30))
    place = {"scale": (3, 1, 1), "translate": (6, 0, 0)}
    viewer.add_image((255 * bump).astype(np.uint8), name="volume", **place)
    viewer.add_labels((bump > 0.5).astype(int), name="blob", **place)
    small.network.setCurrentText(str(path))
    small.advanced.layers.setCurrentText("unique")
    small.advanced.scoring.mask.setCurrentText("blob")
    small.road.setChecked(True)
    run(small)
    [stack] = stacks()
    found = stack.metadata["camanim"]["localisation"]
    assert found["share"] == pytest.approx((bump > 0.5).mean())
    # The first layers' maps have the input's own size: what lies inside can be summed up.
    positive = np.maximum(stack.data.animation.maps[0], 0)
    assert found["energy"][0] == pytest.approx(
        positive[bump > 0.5].sum() / positive.sum(), rel=1e-3
    )
    # In the 3-D view the mask of the volume is as good.
    viewer.dims.ndisplay = 3
    run(small)
    assert stacks()[-1].metadata["camanim"]["localisation"]["share"] == found["share"]


def test_a_method_that_ignores_the_network_fails_and_says_so(viewer, small, stacks, ramp, qtbot):
    viewer.add_layer(ramp)
    small.method.setCurrentText("SobelCAM")
    small.advanced.scoring.checks.setChecked(True)
    run(small)
    [stack] = stacks()
    animation, about = stack.data.animation, stack.metadata["camanim"]
    kept = json.loads(json.dumps(about))
    assert kept["randomisation"]["passed"] is kept["labels"]["passed"] is False
    assert np.shape(kept["randomisation"]["spearman"]) == (
        len(kept["randomisation"]["steps"]),
        len(animation),
    )
    assert np.shape(kept["labels"]["spearman"]) == (len(kept["labels"]["classes"]), len(animation))
    message = small.message.text()
    for check in (animation.randomisation, animation.labels):
        assert message.count(check.verdict) == 1


def test_what_cannot_be_measured_loses_nothing_else(viewer, small, stacks, ramp, monkeypatch):
    def broken(animation, **settings):
        raise camanim.ScoreError("It cannot be checked.")

    def too_large(animation, *rest, **settings):
        raise MemoryError

    monkeypatch.setattr(Animation, "check_randomisation", broken)
    monkeypatch.setattr(Animation, "score", too_large)
    viewer.add_layer(ramp)
    small.road.setChecked(True)
    small.advanced.scoring.checks.setChecked(True)
    run(small)
    [stack] = stacks()
    for words in ("not enough memory", "It cannot be checked."):
        assert words in small.message.text()
        assert words in said()
    about = stack.metadata["camanim"]
    assert about["road"] is about["randomisation"] is None
    assert about["labels"]["classes"]


def test_a_cancel_during_the_checks_keeps_what_was_measured(
    viewer, small, stacks, ramp, blob, qtbot
):
    viewer.add_layer(ramp)
    viewer.add_labels(blob, name="blob")
    small.advanced.scoring.mask.setCurrentText("blob")
    small.advanced.scoring.checks.setChecked(True)
    small.run()
    qtbot.waitUntil(lambda: "randomisation" in small.run_button.text(), timeout=60_000)
    small.run_button.click()
    small.finish(30_000)
    [stack] = stacks()
    about = stack.metadata["camanim"]
    assert about["localisation"] is not None
    assert about["labels"] is None
    assert about["randomisation"] is None or about["randomisation"]["cancelled"]


def test_all_that_is_new_is_folded_and_explained(viewer, dock):
    scoring = dock.advanced.scoring
    for field in (scoring.repeats, scoring.baseline, scoring.mask, scoring.checks):
        assert dock.advanced.content().isAncestorOf(field)
        assert field.toolTip().endswith(".")
    assert not dock.advanced.isExpanded()
    assert (scoring.repeats.minimum(), scoring.repeats.maximum()) == (1, 100)
