"""Saved results in napari: opened over their image, continued, and written."""

import json
import shutil
import threading

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from npe2 import PluginManager
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QFileDialog

import camanim
from camanim import samples
from camanim.store import holds_result, network
from napari_camanim.canvas.badge import Badge
from napari_camanim.canvas.probe import Probe
from napari_camanim.comparison.view import CompareView
from napari_camanim.dock import saving
from napari_camanim.files import opened as opening
from napari_camanim.files.reader import reader
from napari_camanim.layers.stack import is_stack
from napari_camanim.session import Session
from napari_camanim.tree.view import LayerTree

PLUGIN = "napari-camanim"
#: The suffixes of folders and of single files.
SUFFIXES = (".camanim.zarr", ".ozx", ".camanim.zip")


@pytest.fixture
def no_network(monkeypatch):
    """Count the networks that are loaded; where, by the name of the thread."""
    loaded = []
    load = network.load_model

    def counted(*args, **settings):
        loaded.append(threading.current_thread() is threading.main_thread())
        return load(*args, **settings)

    monkeypatch.setattr(network, "load_model", counted)
    return loaded


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves a result of the demo network, and returns it and the path."""

    def save(name="result.ozx", image=None, road=False, model="demo/ultrasound", **settings):
        pixels = samples.image("malignant_1")[::2, ::2] if image is None else image
        loaded = camanim.load_model(model) if isinstance(model, str) else model
        settings = {"layers": "blocks"} | settings
        animation = camanim.animate(loaded, pixels, **settings)
        if road:
            animation.score(percentiles=(20, 80))
        options = {}
        path = animation.save(tmp_path / name, **options)
        return animation, path

    return save


@pytest.fixture(autouse=True)
def _plugin():
    PluginManager.instance().discover()


def edges(layer):
    """Return the world coordinates of the outer edges of an image, without a first axis of layers."""
    first = int(is_stack(layer))
    shape = np.array(layer.data.shape[: layer.ndim])
    ends = [layer.data_to_world(at) for at in (np.full(layer.ndim, -0.5), shape - 0.5)]
    return np.array(ends)[:, first:]


def drop(viewer, path):
    """Drop a file onto the canvas."""
    canvas = viewer.window._qt_viewer
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    canvas.dropEvent(QDropEvent(QPointF(50, 50), Qt.DropAction.CopyAction, data, buttons, keys))


def the_stack(viewer):
    [stack] = [layer for layer in viewer.layers if is_stack(layer)]
    return stack


# -- Opening ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_result_opens_over_its_image(saved, suffix, no_network):
    """Also without a window."""
    animation, path = saved(f"my result{suffix}", road=True)
    viewer = ViewerModel()
    image, stack = viewer.open(path, plugin=PLUGIN)
    assert (image.name, stack.name) == ("my result", f"my result GradCAM {animation.target.name}")
    np.testing.assert_array_equal(image.data, animation.image)
    session = Session.of(viewer)
    assert session.current is stack is viewer.layers.selection.active
    assert session.index == animation.initial_index
    assert viewer.dims.axis_labels == ("layer", "y", "x")
    assert viewer.canvas.overlays["camanim"].text.startswith(
        animation.layers[session.index].label[:4]
    )
    about = stack.metadata["camanim"]
    assert about["captions"] == [animation.caption(i) for i in range(len(animation))]
    np.testing.assert_array_equal(about["findings"]["road"]["scores"], animation.road.scores)
    for i in range(len(animation)):
        np.testing.assert_array_equal(stack.data[i], animation.stack("local")[i])
    assert not no_network


def test_round_trip_through_the_window(
    viewer, small, stacks, session, badge, make_napari_viewer, qtbot, tmp_path, no_network
):
    pixels = samples.image("malignant_1")
    viewer.add_image(pixels, name="lesion")
    small.road.value = True
    small.explain()
    [first] = stacks()
    session.go_to(2)
    path = tmp_path / "saved.ozx"
    small.saving.write("result", path)
    small.finish()
    assert str(path) in small.status.text
    assert holds_result(path)
    whole = Badge.on(session)
    whole.whole = True
    text, ends = badge(), (whole.bar.low, whole.bar.high)
    tree = LayerTree(session)
    names = [node.name for node in tree.model.root]
    tree.close()

    other = make_napari_viewer(show=True)
    image, stack = other.open(path, plugin=PLUGIN)
    later = Session.of(other)
    later.go_to(2)
    np.testing.assert_allclose(edges(stack), edges(first))
    np.testing.assert_allclose(edges(image), edges(viewer.layers["lesion"]))
    again = Badge.on(later)
    again.whole = True
    assert other.canvas.overlays["camanim"].text.split("\n") == text
    assert (again.bar.low, again.bar.high) == ends
    # As JSON, in which NaN is equal to NaN.
    before, after = (json.dumps(layer.metadata["camanim"]) for layer in (first, stack))
    assert after == before
    tree = LayerTree(later)
    assert [node.name for node in tree.model.root] == names
    tree.close()
    # The panel is imported in a thread.
    qtbot.waitUntil(lambda: "Scores" in other.window.dock_widgets, timeout=60_000)
    probe = Probe(later)
    found = []
    probe.probed.connect(lambda point, values: found.append(values))
    probe.active = True
    assert probe.choose((0, 120, 120))
    qtbot.waitUntil(lambda: bool(found), timeout=10_000)
    probe.active = False
    assert len(found[0]) == len(stack.data.animation)
    # The same canvas, at the same size.
    for each in (viewer, other):
        each.window.remove_dock_widget("all")
        each.window.resize(1000, 700)
        Badge.on(Session.of(each)).enabled = False
    qtbot.wait(300)
    pictures = []
    for each in (viewer, other):
        each.reset_view()
        Session.of(each).go_to(2)
        qtbot.waitUntil(lambda e=each: all(layer.loaded for layer in e.layers), timeout=10_000)
        pictures.append(each.screenshot(flash=False, size=(400, 600)).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 2
    assert pictures[0][..., :3].std() > 10
    assert not no_network


def test_a_file_is_dropped_onto_the_canvas(viewer, saved, notified):
    _, path = saved("dropped.ozx")
    drop(viewer, path)
    stack = the_stack(viewer)
    assert Session.of(viewer).current is stack
    assert viewer.canvas.overlays["camanim"].visible
    drop(viewer, path)
    first, second = [layer for layer in viewer.layers if is_stack(layer)]
    # Both are of the same place: one is shown.
    assert (first.visible, second.visible) == (False, True)
    assert Session.of(viewer).current is second
    broken = path.with_name("broken.ozx")
    broken.write_bytes(path.read_bytes()[:2000])
    drop(viewer, broken)
    assert len(viewer.layers) == 4
    assert "broken.ozx is damaged" in notified()


def test_two_files_are_switched_and_compared(viewer, saved):
    one, first = saved("one.ozx")
    _, second = saved("two.camanim.zip", image=samples.image("benign_1")[::2, ::2])
    viewer.open([first, second], plugin=PLUGIN)
    session = Session.of(viewer)
    stacks = session.stacks
    assert [stack.data.run.image_name for stack in stacks] == ["one", "two"]
    assert session.current is stacks[1]
    from napari_camanim import compare

    view = compare(viewer, stacks)
    view.close()
    session.show(stacks[0])
    assert session.animation.target.name == one.target.name


def test_the_kinds_of_results(saved, tiny, volume, tmp_path):
    """Guided, volumes, slices, boxes, windows, cancelled, signed: each at its place."""
    viewer = ViewerModel()
    _, guided = saved("guided.ozx", method="GuidedGradCAM", layers="unique")
    image, hidden, stack = viewer.open(guided, plugin=PLUGIN)
    assert not hidden.visible
    assert viewer.layers.selection.active is stack
    np.testing.assert_allclose(edges(hidden), edges(image))
    session = Session.of(viewer)
    session.set_signed(True)
    assert stack.data[0].min() < 0
    viewer.layers.clear()

    animation, slices = saved("slices.ozx", image=volume, slices=True)
    image, stack = viewer.open(slices, plugin=PLUGIN)
    assert stack.ndim == 4
    np.testing.assert_allclose(edges(stack), edges(image))
    viewer.layers.clear()

    box = (20, 30, 84, 110)
    animation, path = saved("box.ozx", box=box)
    image, stack = viewer.open(path, plugin=PLUGIN)
    np.testing.assert_allclose(edges(image), [[19.5, 29.5], [83.5, 109.5]])
    np.testing.assert_allclose(edges(stack), [[19.5, 29.5], [83.5, 109.5]])
    again = tmp_path / "again.ozx"
    viewer.layers.selection.active = stack
    viewer.layers.save(again, selected=True, plugin=PLUGIN)
    assert camanim.load(again).placement == animation.placement
    viewer.layers.clear()

    large = np.kron(samples.image("malignant_1"), np.ones((2, 2), np.uint8))
    model = camanim.load_model("demo/ultrasound")
    windows = camanim.animate_windows(model, large, size=256, layers="blocks")
    image, stack = viewer.open(windows.save(tmp_path / "windows.ozx"), plugin=PLUGIN)
    assert stack.data.animation.windows is not None
    viewer.layers.clear()

    def stop(stage, done, total):
        if stage == "forward" and done >= 40:
            raise camanim.Cancelled("enough")

    pixels = samples.image("malignant_1")
    cancelled = camanim.animate(model, pixels, method="EigenCAM", layers="blocks", progress=stop)
    assert cancelled.cancelled
    image, stack = viewer.open(cancelled.save(tmp_path / "cancelled.ozx"), plugin=PLUGIN)
    assert len(stack.data) == len(cancelled)
    viewer.layers.clear()

    for kind in ("thumbnail", "none"):
        path = cancelled.save(tmp_path / f"{kind}.ozx", image=kind)
        image, stack = viewer.open(path, plugin=PLUGIN)
        assert image.data.shape == pixels.shape


def test_other_files_are_left_to_other_readers(saved, tmp_path):
    zarr = pytest.importorskip("zarr")
    plain = tmp_path / "plain.zarr"
    zarr.save_array(plain, np.zeros((3, 4)))
    assert reader(str(plain)) is None
    assert reader(str(tmp_path)) is None
    assert reader([str(plain)]) is None
    _, path = saved("ours.zarr")
    assert reader(str(path)) is not None
    # Ours by its name: what is wrong is said.
    own = tmp_path / "own.camanim.zarr"
    shutil.copytree(plain, own)
    assert reader(str(own)) is not None
    with pytest.raises(camanim.StoreError, match="damaged or not a result"):
        opening.read_result(own)


# -- In the dock -----------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False], ids=["dock first", "file first"])
def test_scores_of_an_opened_result_are_computed(
    viewer, make_dock, saved, no_network, qtbot, before
):
    animation, path = saved("later.ozx", method="HiResCAM", target="benign", seed=3)
    dock = make_dock() if before else None
    if before:
        assert dock.settings
    viewer.open(path, plugin=PLUGIN)
    stack = the_stack(viewer)
    if dock is None:
        dock = make_dock()
    qtbot.waitUntil(lambda: stack.data.run.request is not None, timeout=10_000)
    assert dock.image.value is viewer.layers["later"]
    assert (dock.network.value, dock.method.value) == ("demo/ultrasound", "HiResCAM")
    assert dock.classes.value == "benign"
    assert dock.settings.layers.value == "blocks"
    assert not no_network
    maps = stack.data.animation.maps
    dock.road.value = True
    dock.explain()
    # In the thread of the job, once, and for the maps of the file.
    assert no_network == [False]
    assert the_stack(viewer) is stack
    assert stack.data.animation.maps is maps
    expected = animation.score(3)
    np.testing.assert_allclose(stack.data.animation.road.scores, expected.scores, atol=1e-6)
    assert "road" in stack.metadata["camanim"]["findings"]
    # Another method is another run, with the network of the dock.
    dock.method.value = "GradCAM"
    dock.road.value = False
    dock.explain()
    assert len(Session.of(viewer).stacks) == 2


def test_code_of_an_opened_result_needs_permission(
    viewer, small, write, confirm, tmp_path, no_network
):
    questions = confirm(True)
    source = write(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(),\n"
        "        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())\n"
    )
    loaded = camanim.load_model(source, trust=True)
    pixels = samples.image("malignant_1")[::4, ::4]
    path = camanim.animate(loaded, pixels, layers="blocks").save(tmp_path / "code.ozx")
    small.saving.open(path)
    small.finish()
    assert not questions
    stack = the_stack(viewer)
    small.settings.boxes["layer_test"].value = False
    small.road.value = True
    small.explain()
    assert len(questions) == 1
    assert "road" in stack.data.animation.findings


def test_masks_and_what_if_of_an_opened_result(viewer, small, saved, no_network, qtbot):
    animation, path = saved("asked.ozx")
    viewer.open(path, plugin=PLUGIN)
    stack = the_stack(viewer)
    labels = viewer.add_labels(samples.mask("malignant_1")[::2, ::2].astype(np.uint8))
    small.settings.mask.value = labels
    small.finish()
    expected = animation.localise(labels.data != 0)
    found = stack.data.animation.localisation
    np.testing.assert_array_equal(found.energy, expected.energy)
    assert not no_network
    small.sections["Ask"].fill()
    tool = small.ask.tool
    viewer.layers.selection.active = stack
    tool.set_mode("paint")
    qtbot.waitUntil(lambda: tool.what_if is not None, timeout=60_000)
    assert no_network == [False]
    np.testing.assert_allclose(edges(tool.labels), edges(viewer.layers["asked"]))
    tool.set_mode("off")


def test_a_file_is_saved_while_scores_are_computed(viewer, small, stacks, qtbot, tmp_path):
    viewer.add_image(samples.image("malignant_1"), name="lesion")
    small.settings.layers.value = "unique"
    small.road.value = True
    small.run_until("scores")
    [stack] = stacks()
    controls = small.saving.controls
    assert controls["result"].enabled
    assert not controls["movie"].isEnabled()
    path = tmp_path / "early.ozx"
    small.saving.write("result", path)
    qtbot.waitUntil(lambda: not small.saving._tasks, timeout=60_000)
    early = camanim.load(path)
    assert len(early) == len(stack.data.animation)
    small.explainer.cancel()
    small.finish()
    kept = stack.data.animation.road
    small.saving.write("result", path)
    small.finish()
    again = camanim.load(path)
    assert (again.road is None) == (kept is None)
    if kept is not None:
        np.testing.assert_array_equal(again.road.scores, kept.scores)


def test_a_cancelled_file_is_not_written(viewer, small, tmp_path, monkeypatch, qtbot):
    viewer.add_image(samples.image("malignant_1"), name="lesion")
    small.explain()
    path, waiting, go_on = tmp_path / "half.camanim.zarr", threading.Event(), threading.Event()
    [output] = [each for each in saving.OUTPUTS if each.name == "result"]

    def write(animation, path, shown):
        def slow(*report):
            waiting.set()
            go_on.wait(30)
            shown.progress(*report)

        return animation.save(path, progress=slow)

    slow = saving.Output("result", "", "", output.suffixes, write, beside_a_run=True)
    small.saving._outputs["result"] = slow
    small.saving.write("result", path)
    qtbot.waitUntil(waiting.is_set, timeout=30_000)
    small.explainer.cancel()
    go_on.set()
    small.finish()
    assert "cancelled" in small.status.text
    assert list(tmp_path.iterdir()) == []


def test_the_dialogs_of_the_dock(viewer, small, tmp_path, monkeypatch, stacks, notified):
    viewer.add_image(samples.image("malignant_1"), name="a/lesion: 1")
    small.explain()
    asked = []

    def answer(parent, title, name, filters):
        asked.append((title, name))
        return str(tmp_path / "chosen"), filters.split(";;")[0]

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    for control in (small.saving.controls["result"].native.click, None):
        if control is not None:
            control()
        else:
            small.saving.controls["table"].trigger()
        small.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chosen.csv", "chosen.ozx"]
    assert asked[0][1] == "lesion-1_ultrasound_GradCAM_malignant.ozx"
    # The folder is remembered.
    assert asked[1][1].startswith(str(tmp_path))
    small.saving.controls["table"].trigger()
    assert "exists already" in notified()
    monkeypatch.setattr(
        QFileDialog, "getOpenFileName", lambda *a: (str(tmp_path / "chosen.ozx"), "")
    )
    small.saving.open_button.native.click()
    small.finish()
    assert "Opened chosen" in small.status.text
    assert [stack.data.run.image_name for stack in stacks()] == ["a/lesion: 1", "chosen"]


# -- File > Save -----------------------------------------------------------------------------------


def test_file_save_writes_the_result_of_a_stack(viewer, small, stacks, tmp_path):
    image = viewer.add_image(samples.image("malignant_1"), name="lesion")
    small.explain()
    [stack] = stacks()
    for suffix in SUFFIXES:
        viewer.layers.selection = {image, stack}
        path = tmp_path / f"layers{suffix}"
        assert viewer.layers.save(str(path), selected=True) == [str(path)]
        assert camanim.load(path).layers == stack.data.animation.layers
    viewer.layers.selection = {stack}
    [path] = viewer.layers.save(str(tmp_path / "bare"), selected=True, plugin=PLUGIN)
    assert path.endswith("bare.ozx")
    # Without maps, there is no result.
    viewer.layers.selection = {image}
    with pytest.raises(camanim.StoreError, match="no maps"):
        viewer.layers.save(str(tmp_path / "image.ozx"), selected=True)
    # And images remain those of napari.
    [written] = viewer.layers.save(str(tmp_path / "image.tif"), selected=True)
    assert written.endswith(".tif")


def test_results_of_two_runs_are_two_files(saved, tmp_path):
    viewer = ViewerModel()
    for name in ("one.ozx", "two.ozx"):
        viewer.open(saved(name)[1], plugin=PLUGIN)
    with pytest.raises(camanim.StoreError, match="one result"):
        viewer.layers.save(str(tmp_path / "both.ozx"), plugin=PLUGIN)


def test_the_manifest_offers_reader_writer_and_commands():
    manager = PluginManager.instance()
    manifest = manager.get_manifest(PLUGIN)
    commands = {command.id for command in manifest.contributions.commands}
    assert {f"{PLUGIN}.{name}" for name in ("save_result", "open_result", "save_table")} <= commands
    for path in ("a.ozx", "a.camanim.zip", "a.zarr"):
        assert PLUGIN in {r.plugin_name for r in manager.iter_compatible_readers([path])}


def test_layers_that_are_never_added_do_no_harm(saved):
    _, path = saved("unused.ozx")
    layers = opening.read_result(path).layers()
    opening.when_added(layers, opening.take_over)
    viewer = ViewerModel()
    viewer.add_layer(layers[0])
    # An error came in between.
    viewer.add_layer(Image(np.zeros((4, 4))))
    viewer.add_layer(layers[1])
    assert "camanim" not in viewer.canvas.overlays


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """Return a function that sets the name that the dialogs return."""

    def choose(name):
        monkeypatch.setattr(
            QFileDialog, "getSaveFileName", lambda *a: (str(tmp_path / name), "All files (*)")
        )
        return tmp_path / name

    return choose


EXPORTS = {
    "report": "report.html",
    "table": "table.json",
    "maps": "maps.nii.gz",
    "movie": "movie.gif",
    "figure strip": "strip.svg",
    "figure local_global": "scales.png",
    "figure curve": "curve.pdf",
}


def test_each_line_of_the_menu_writes_its_file(viewer, small, chosen, stacks):
    viewer.add_image(samples.image("malignant_1"))
    small.road.value = True
    small.explain()
    offered = {a.text() for a in small.saving.menu_button.native.menu().actions()}
    assert {"Report…", "Figure", "Table…", "Maps…", "Movie…"} <= offered
    for output, name in EXPORTS.items():
        path = chosen(name)
        # In a menu within the menu, too.
        small.saving.controls[output].trigger()
        small.finish()
        assert path.stat().st_size > 300, output
    assert "malignant" in chosen("strip.txt").read_text(encoding="utf-8")
    # The layers that are ticked in the tree are those of the figure.
    small.session.select_layers([1, 4])
    chosen("ticked.png")
    small.saving.controls["figure sheet"].trigger()
    small.finish()
    [stack] = stacks()
    caption = chosen("ticked.txt").read_text(encoding="utf-8")
    labels = [layer.label for layer in stack.data.animation.layers]
    assert [label for label in labels if f"{label}," in caption or f"{label}." in caption] == [
        labels[1],
        labels[4],
    ]


def test_figures_and_movies_of_a_comparison_show_all_of_its_runs(viewer, small, chosen, notified):
    viewer.add_image(samples.image("malignant_1"))
    small.explain()
    chosen("missing.mp4")
    small.saving.controls["comparison"].trigger()
    small.finish()
    assert not chosen("missing.mp4").exists()
    viewer.layers.selection.active = viewer.layers[0]
    small.method.value = "LayerCAM"
    small.explain()
    session = small.session
    stacks = [layer for layer in viewer.layers if is_stack(layer)]
    assert len(stacks) == 2
    comparison = CompareView(session, stacks)
    path = chosen("runs.gif")
    small.saving.controls["comparison"].trigger()
    small.finish()
    assert b"GradCAM, LayerCAM" in path.read_bytes() or b"LayerCAM, GradCAM" in path.read_bytes()
    chosen("matrix.png")
    small.saving.controls["figure matrix"].trigger()
    small.finish()
    caption = chosen("matrix.txt").read_text(encoding="utf-8")
    assert "GradCAM" in caption
    assert "LayerCAM" in caption
    comparison.close()


def test_the_agreement_with_a_mask_stays_when_other_scores_are_computed(
    viewer, dock, tmp_path, qtbot, no_network
):
    model, image = camanim.load_model("demo/ultrasound"), samples.image("malignant_1")
    animation = camanim.animate(model, image, layers="blocks")
    animation.localise(samples.mask("malignant_1"))
    dock.saving.open(animation.save(tmp_path / "masked.ozx"))
    dock.finish()
    stack = the_stack(viewer)
    assert stack.data.run.request is not None
    # Nothing is missing yet.
    dock.explain()
    assert no_network == []
    dock.road.value = True
    dock.explain()
    assert set(stack.data.animation.findings) == {"road", "localisation"}
    assert no_network == [False]


@pytest.mark.parametrize(
    ("settings", "continued", "shown"),
    [({"weights": None}, True, "none"), ({"size": 96}, False, ""), ({}, True, "")],
)
def test_the_fields_show_the_network_of_an_opened_result(
    viewer, dock, tmp_path, settings, continued, shown
):
    # Of the result before.
    dock.settings.weights.line_edit.value = "other.safetensors"
    model = camanim.load_model("demo/ultrasound", **settings)
    animation = camanim.animate(model, samples.image("malignant_1"), layers="blocks")
    dock.saving.open(animation.save(tmp_path / "net.ozx"))
    dock.finish()
    assert dock.settings.weights.line_edit.value == shown
    assert (the_stack(viewer).data.run.request is not None) == continued


def test_a_what_if_edit_does_not_cancel_a_file(viewer, small, tmp_path, qtbot, monkeypatch):
    viewer.add_image(samples.image("malignant_1"))
    small.explain()
    go_on = threading.Event()
    output = small.saving._outputs["movie"]

    def write(animation, path, shown):
        go_on.wait(30)
        return output.write(animation, path, shown)

    small.saving._outputs["movie"] = saving.Output("movie", "", "", output.suffixes, write)
    small.saving.write("movie", tmp_path / "m.gif")
    ask = small.sections["Ask"]
    ask.fill()
    ask.expand()
    small.ask.tool.set_mode("paint")
    qtbot.waitUntil(lambda: not small.ask.tool.runner.running, timeout=60_000)
    assert small.runner.running
    go_on.set()
    small.finish()
    assert (tmp_path / "m.gif").exists()
