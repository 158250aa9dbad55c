"""The dock in a window: scores, masks and checks."""

import dataclasses
import importlib.util
import json
import threading
from pathlib import Path

import numpy as np
import pytest

import camanim
from camanim import findings
from napari_camanim.plots.panel import show_panel
from napari_camanim.work import jobs

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


def masks(dock):
    field = dock.settings.mask.native
    return [field.itemText(i) for i in range(field.count())][1:]


def choose_mask(dock, name):
    dock.settings.mask.value = None if name is None else dock.viewer.layers[name]


def replace_compute(monkeypatch, name, compute):
    """Replace the function that computes a kind of finding."""
    kind = findings.find_kind(name)
    monkeypatch.setitem(findings._KINDS, name, dataclasses.replace(kind, compute=compute))


def road_form(dock):
    return dock.settings.forms["road"]


def findings_of(stack):
    return stack.metadata["camanim"]["findings"]


def check(dock, *names):
    for name in names:
        dock.settings.boxes[name].value = True


CHECKS = ("randomisation", "label_randomisation")


def test_a_sample_offers_its_mask_and_nothing_is_selected(viewer, dock):
    viewer.open_sample("napari-camanim", "malignant_1")
    assert masks(dock) == ["malignant_1 lesion"]
    assert (road_form(dock)["repeats"].value, road_form(dock)["baseline"].value) == (1, True)
    assert dock.settings.mask.value is None
    assert not any(box.value for box in dock.settings.boxes.values())
    assert not dock.road.value


@pytest.fixture
def scored_sample(viewer, dock, stacks):
    """Return the stack of a sample, scored with three repeats and compared with its mask."""
    viewer.open_sample("napari-camanim", "malignant_1")
    dock.settings.layers.value = "*denseblock3*conv2"
    road_form(dock)["repeats"].value = 3
    choose_mask(dock, "malignant_1 lesion")
    dock.road.value = True
    dock.explain()
    [stack] = stacks()
    return stack


def test_a_sample_is_scored_and_compared_with_its_mask(viewer, dock, scored_sample, has_caption):
    animation = scored_sample.data.animation
    road = animation.road
    assert len(road.morfs) == 3
    assert road.random_scores.shape[1] > 2
    lesion = viewer.layers["malignant_1 lesion"].data > 0
    assert animation.localisation.share == pytest.approx(lesion.mean(), rel=0.1)
    viewer.dims.set_point(0, 1)
    assert "average precision" in dock.status.text
    assert has_caption(scored_sample.metadata["camanim"]["captions"][1])


def test_the_metadata_of_a_sample_are_plain_data_and_equal_the_findings(scored_sample):
    animation = scored_sample.data.animation
    road, agreement = animation.road, animation.localisation
    metadata = json.loads(json.dumps(scored_sample.metadata["camanim"]))["findings"]
    assert set(metadata) == {"road", "localisation"}
    values = ("scores", "spread", "baseline", "baseline_spread", "excess", "margin", "morf", "lerf")
    for name in values:
        np.testing.assert_array_equal(metadata["road"][name], getattr(road, name))
    assert metadata["road"]["above_noise"] == road.above_noise.tolist()
    assert metadata["road"]["percentiles"] == [20, 40, 60, 80]
    for name in ("pointing", "energy", "iou", "average_precision"):
        np.testing.assert_array_equal(metadata["localisation"][name], getattr(agreement, name))
    assert metadata["localisation"]["best"] == agreement.best.label


def test_the_fields_are_passed_to_the_engine(viewer, small, stacks, ramp, monkeypatch, roads):
    requested = []

    def score(result, seed=0, repeats=1, baseline=True, progress=None):
        progress("ROAD", 1, 1)
        requested.append((seed, repeats, baseline))
        return roads.road(np.linspace(-0.1, 0.3, len(result)), layers=result.layers)

    replace_compute(monkeypatch, "road", score)
    # The checks are not requested.
    for name in CHECKS:
        replace_compute(monkeypatch, name, None)
    viewer.add_layer(ramp)
    small.road.value = True
    small.settings.computing["seed"].value = 5
    small.explain()
    road_form(small)["repeats"].value = 7
    road_form(small)["baseline"].value = False
    small.explain()
    assert requested == [(5, 1, True), (5, 7, False)]


def test_a_measure_is_in_dock_caption_and_metadata(viewer, small, stacks, ramp):
    viewer.add_layer(ramp)
    check(small, "measure")
    form = small.settings.forms["measure"]
    form["name"].value = "increase"
    small.explain()
    [stack] = stacks()
    about = stack.metadata["camanim"]
    values = about["findings"]["increase (blur)"]["values"]
    assert values == stack.data.animation.measures["increase (blur)"].values.tolist()
    assert any("increase (blur)" in caption for caption in about["captions"])
    assert "increase (blur)" in small.status.text


def test_a_registered_finding_is_in_the_dock(viewer, make_dock, stacks, badge, ramp):
    """It has a check box, settings, a caption and metadata."""
    module = new_finding()
    module.register()
    try:
        dock = make_dock()
        dock.settings.layers.value = "blocks"
        viewer.add_layer(ramp)
        check(dock, "sparsity")
        dock.settings.forms["sparsity"]["above"].value = 0.2
        dock.explain()
    finally:
        module.unregister()
    [stack] = stacks()
    sparsity = stack.data.animation.findings["sparsity"]
    about = stack.metadata["camanim"]
    assert about["findings"]["sparsity"]["covered"] == sparsity.covered.tolist()
    viewer.dims.set_point(0, 1)
    assert f"covered {sparsity.covered[1]:.3g}" in badge()[0]
    assert sparsity.summary() in dock.status.text


def new_finding():
    path = Path(__file__).parents[1] / "camanim" / "new_finding.py"
    spec = importlib.util.spec_from_file_location("new_finding", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_message_has_the_highest_score_and_the_number_of_layers_above_noise(
    viewer, small, ramp, monkeypatch, roads
):
    def score(result, progress=None):
        count = len(result)
        chance = np.tile([0.1, 0.2, 0.3], (count, 1))
        scores = [0.25] * (count - 1) + [high]
        return roads.road(scores, random_scores=chance, layers=result.layers)

    replace_compute(monkeypatch, "road", score)
    viewer.add_layer(ramp)
    small.road.value = True
    high = 0.9
    small.explain()
    message = small.status.text
    assert "0.900" in message
    assert "1 of" in message
    high = 0.3
    small.method.value = "HiResCAM"
    small.explain()
    assert "0 of" in small.status.text


def test_maps_and_scores_are_kept_if_the_mask_is_invalid(
    viewer, small, stacks, ramp, blob, notified
):
    viewer.add_layer(ramp)
    viewer.add_labels(blob[1:], name="short")
    viewer.add_labels(0 * blob, name="empty")
    choose_mask(small, "short")
    small.road.value = True
    small.explain()
    [stack] = stacks()
    for part in ("short", "95 x 128", "96 x 128"):
        assert part in small.status.text
    assert "short" in notified()
    assert "localisation" not in stack.metadata["camanim"]["findings"]
    assert stack.metadata["camanim"]["findings"]["road"]["scores"]
    assert small.run_button.text == "Run"
    small.road.value = False
    choose_mask(small, "empty")
    small.finish()
    small.explain()
    assert stacks() == [stack]
    assert stack.data.animation.localisation is None
    assert notified() in small.status.text


def test_the_list_of_masks_follows_the_layers(viewer, small, stacks, ramp, blob):
    viewer.add_layer(ramp)
    first = viewer.add_labels(blob, name="first")
    second = viewer.add_labels(blob, name="second")
    choose_mask(small, "second")
    small.explain()
    [stack] = stacks()
    localisation = stack.data.animation.localisation
    about = stack.metadata["camanim"]
    assert list(about["findings"]) == ["localisation"]
    assert about["findings"]["localisation"]["share"] == pytest.approx((blob > 0).mean(), rel=0.1)
    viewer.layers.remove(first)
    second.name = "renamed"
    viewer.layers.move(viewer.layers.index(second), 0)
    assert masks(small) == ["renamed"]
    assert small.settings.mask.value is second
    # The finding remains when the mask is removed; the next run has no mask.
    viewer.layers.remove(second)
    assert masks(small) == []
    assert stack.data.animation.localisation is localisation is not None
    assert not small.runner.running
    small.explain()
    assert [s.data.animation.localisation is None for s in stacks()].count(True) == 1


def test_another_mask_is_compared_with_existing_maps(
    viewer, small, stacks, ramp, blob, has_caption, notified, monkeypatch
):
    viewer.add_layer(ramp)
    viewer.add_labels(blob, name="blob")
    viewer.add_labels(np.flip(blob).copy(), name="flipped")
    viewer.add_labels(blob[:50], name="short")
    choose_mask(small, "blob")
    small.explain()
    [stack] = stacks()
    before = stack.metadata["camanim"]
    monkeypatch.setattr("camanim.animation.animate_targets", None)
    choose_mask(small, "flipped")
    small.finish()
    after = stack.metadata["camanim"]
    alone = stack.data.animation.localise(np.flip(blob) > 0)
    np.testing.assert_array_equal(after["findings"]["localisation"]["energy"], alone.energy)
    assert (
        after["findings"]["localisation"]["energy"] != before["findings"]["localisation"]["energy"]
    )
    assert after["captions"] != before["captions"]
    assert has_caption(after["captions"][viewer.dims.current_step[0]])
    choose_mask(small, "short")
    small.finish()
    assert "short" in notified()
    assert "localisation" not in stack.metadata["camanim"]["findings"]
    choose_mask(small, None)
    small.finish()
    assert "localisation" not in stack.metadata["camanim"]["findings"]
    # The stack belongs to another image than the mask.
    viewer.add_image(np.zeros((96, 128), np.uint8), name="other")
    choose_mask(small, "blob")
    assert not small.runner.running
    assert "localisation" not in stack.metadata["camanim"]["findings"]


def test_a_mask_chosen_during_a_run_is_compared_after_it(viewer, small, stacks, ramp, blob):
    viewer.add_layer(ramp)
    viewer.add_labels(blob, name="blob")
    small.run()
    choose_mask(small, "blob")
    small.finish()
    small.finish()
    [stack] = stacks()
    assert stack.metadata["camanim"]["findings"]["localisation"]["share"] > 0


def test_a_volume_with_its_mask(viewer, small, stacks, tmp_path):
    from napari_camanim.work import networks

    path = tmp_path / "net.py"
    path.write_text(VOLUMES)
    networks.TRUSTED.add(str(path))
    z, y, x = np.mgrid[:6, :24, :32]
    bump = np.exp(-((z - 3) ** 2 / 4 + (y - 12) ** 2 / 20 + (x - 20) ** 2 / 30))
    place = {"scale": (3, 1, 1), "translate": (6, 0, 0)}
    viewer.add_image((255 * bump).astype(np.uint8), name="volume", **place)
    viewer.add_labels((bump > 0.5).astype(int), name="blob", **place)
    small.network.value = str(path)
    small.settings.layers.value = "unique"
    choose_mask(small, "blob")
    small.road.value = True
    small.explain()
    [stack] = stacks()
    record = stack.metadata["camanim"]["findings"]["localisation"]
    assert record["share"] == pytest.approx((bump > 0.5).mean())
    # The map of the first layer has the size of the input.
    positive = np.maximum(stack.data.animation.maps[0], 0)
    assert record["energy"][0] == pytest.approx(
        positive[bump > 0.5].sum() / positive.sum(), rel=1e-3
    )
    # The mask of a volume is also valid in the 3-D view.
    viewer.dims.ndisplay = 3
    small.explain()
    assert stacks()[-1].metadata["camanim"]["findings"]["localisation"]["share"] == record["share"]


def test_a_method_that_ignores_the_network_fails_the_checks(viewer, small, stacks, ramp, qtbot):
    viewer.add_layer(ramp)
    small.method.value = "SobelCAM"
    check(small, *CHECKS)
    small.explain()
    [stack] = stacks()
    animation, about = stack.data.animation, stack.metadata["camanim"]
    kept = json.loads(json.dumps(about))["findings"]
    assert kept["randomisation"]["passed"] is kept["label_randomisation"]["passed"] is False
    assert np.shape(kept["randomisation"]["spearman"]) == (
        2,
        len(kept["randomisation"]["steps"]),
        len(animation),
    )
    labels = kept["label_randomisation"]
    assert np.shape(labels["spearman"]) == (len(labels["classes"]), len(animation))
    message = small.status.text
    for finding in (animation.randomisation, animation.labels):
        assert message.count(finding.verdict) == 1


def test_an_error_in_one_finding_keeps_the_others(
    viewer, small, stacks, ramp, notified, monkeypatch
):
    def broken(result, **settings):
        raise camanim.ScoreError("It cannot be checked.")

    def too_large(result, **settings):
        raise MemoryError

    replace_compute(monkeypatch, "randomisation", broken)
    replace_compute(monkeypatch, "road", too_large)
    viewer.add_layer(ramp)
    small.road.value = True
    check(small, *CHECKS)
    small.explain()
    [stack] = stacks()
    for part in ("memory", "It cannot be checked."):
        assert part in small.status.text
        assert part in notified()
    kept = stack.metadata["camanim"]["findings"]
    assert list(kept) == ["label_randomisation"]


def test_a_cancel_during_the_checks_keeps_other_findings(viewer, small, stacks, ramp, blob, qtbot):
    viewer.add_layer(ramp)
    viewer.add_labels(blob, name="blob")
    choose_mask(small, "blob")
    check(small, *CHECKS)
    small.run_until("randomisation")
    small.run_button.native.click()
    small.finish(30_000)
    [stack] = stacks()
    kept = stack.metadata["camanim"]["findings"]
    assert "localisation" in kept
    assert "label_randomisation" not in kept
    assert "randomisation" not in kept or kept["randomisation"]["cancelled"]


def test_the_fields_are_collapsed_and_have_tooltips(viewer, dock):
    section = dock.sections["Settings"]
    assert not section.isExpanded()
    fields = [dock.settings.mask, *dock.settings.boxes.values()]
    fields += [road_form(dock)[name] for name in ("repeats", "baseline", "draws")]
    section.fill()
    for field in fields:
        assert section.content().isAncestorOf(field.native)
        assert field.native.toolTip().endswith(".")
    assert not section.isExpanded()


# -- Tests of layers and regions -------------------------------------------------------------------


def test_a_region_test_needs_the_mask_and_is_dropped_with_it(viewer, small, stacks, ramp, blob):
    viewer.add_layer(ramp)
    viewer.add_labels(blob, name="blob")
    check(small, "region_test")
    small.explain()
    assert "mask" in small.status.text
    [stack] = stacks()
    assert not stack.data.animation.findings
    choose_mask(small, "blob")
    small.finish()
    small.explain()
    [stack] = [s for s in stacks() if "region_test" in s.data.animation.findings]
    assert "localisation" in stack.data.animation.findings
    assert "energy" in stack.data.animation.caption(0)
    choose_mask(small, None)
    small.finish()
    assert not stack.data.animation.findings


def test_the_price_of_a_test_is_shown_when_its_box_is_checked(viewer, small, stacks, ramp):
    viewer.add_layer(ramp)
    small.explain()
    [stack] = stacks()
    form = small.settings.forms["layer_test"]
    form["layers"].value = "all"
    form["transforms"].value = 39
    small.settings.boxes["layer_test"].native.click()
    passes = len(stack.data.animation) * 40 * 8
    assert f"{passes:,}" in small.status.text
    small.explain()
    [test] = [f for s in stacks() for f in s.data.animation.findings.values()]
    assert test.transforms == 39
    assert (~np.isnan(test.p_values)).any()


# -- Scores in progress ----------------------------------------------------------------------------


@pytest.fixture
def held(monkeypatch, qtbot):
    """Holds back the computation of findings until `set`; `begun` waits until it has begun."""
    release, begun, find = threading.Event(), threading.Event(), jobs.find

    def waiting(*args):
        begun.set()
        assert release.wait(60)
        return find(*args)

    monkeypatch.setattr(jobs, "find", waiting)
    release.begun = lambda: qtbot.waitUntil(begun.is_set, timeout=60_000)
    yield release
    release.set()


@pytest.fixture
def said(viewer, qtbot):
    """Return a function that returns what the panel says instead of a curve."""
    panel = show_panel(viewer)

    def said():
        qtbot.wait(150)
        qtbot.waitUntil(lambda: panel._job is None and not panel._delay.isActive())
        return panel.view.message

    return said


@pytest.mark.parametrize("first", ["maps alone", "maps and scores"])
def test_scores_in_progress_are_named_until_they_are_there(viewer, small, ramp, held, said, first):
    viewer.add_layer(ramp)
    if first == "maps alone":
        small.explain()
        assert "press Run" in said()
    small.road.value = True
    small.run()
    held.begun()
    assert "computed" in said()
    held.set()
    small.finish()
    assert said() == ""


def test_a_cancel_ends_the_scores_in_progress(viewer, small, ramp, held, said):
    viewer.add_layer(ramp)
    small.road.value = True
    small.run()
    held.begun()
    small.explainer.cancel()
    held.set()
    small.finish()
    # Before the first score.
    assert not small.session.animation.findings
    assert not small.session.run.computing
    assert "press Run" in said()


def test_a_kept_result_without_scores_ends_the_scores_in_progress(viewer, small, ramp, held, said):
    viewer.add_layer(ramp)
    small.explain()
    first = small.session.run
    small.method.value, small.road.value = "HiResCAM", True
    small.run()
    held.begun()
    second = small.session.run
    assert second is not first
    assert second.computing
    small.method.value, small.road.value = "GradCAM", False
    small.run()
    assert small.session.run is first
    assert not second.computing
    held.set()
    small.finish()
    assert not first.computing
    assert "press Run" in said()


def test_a_dock_that_is_closed_leaves_no_scores_in_progress(viewer, small, ramp, held, said):
    viewer.add_layer(ramp)
    small.road.value = True
    small.run()
    held.begun()
    run = small.session.run
    assert run.computing
    viewer.window.remove_dock_widget(small.window_dock)
    assert not run.computing
    held.set()
