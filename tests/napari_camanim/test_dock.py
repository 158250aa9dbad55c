"""The dock in a window: fields, classes, messages, width, and what it remembers."""

import json
import subprocess
import sys

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

from camanim.models import Prediction
from napari_camanim.dock import remembered
from napari_camanim.dock.class_field import PROBABILITY
from napari_camanim.work.jobs import Classes


def menu_texts(menu):
    texts = []
    for action in menu.actions():
        texts.append(action.text())
        if action.menu() is not None:
            texts.extend(menu_texts(action.menu()))
    return texts


def test_widget_and_samples_are_in_the_menus(viewer):
    window = viewer.window
    window.layers_menu.aboutToShow.emit()
    assert any("CAManim" in text for text in menu_texts(window.plugins_menu))
    assert any("CAManim" in text for text in menu_texts(window.layers_menu))
    assert any("malignant 1" in text for text in menu_texts(window.file_menu))


def open_sample(viewer, name="malignant_1"):
    viewer.open_sample("napari-camanim", name)
    viewer.layers.selection.active = viewer.layers[name]


def test_predict_lists_the_classes(viewer, dock):
    open_sample(viewer)
    assert viewer.layers["malignant_1 lesion"].visible is False
    assert dock.image.current_choice == "malignant_1"
    assert dock.network.value == "demo/ultrasound"
    dock.predict_button.native.click()
    dock.finish()
    texts = [dock.classes.box.itemText(i) for i in range(dock.classes.box.count())]
    assert texts[0] == "likeliest class"
    assert sorted(texts[1:]) == ["benign", "malignant", "normal"]
    assert texts[1] == "malignant"
    shares = [dock.classes.box.itemData(i, PROBABILITY) for i in range(4)]
    assert shares[0] is None
    assert shares[1:] == sorted(shares[1:], reverse=True)
    assert sum(shares[1:]) == pytest.approx(1)


def test_the_class_can_be_chosen(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.predict()
    dock.finish()
    dock.classes.box.setCurrentIndex(3)
    chosen = dock.classes.box.currentData()
    dock.explain()
    assert stacks()[0].metadata["camanim"]["index"] == chosen
    # A change of the image clears the list.
    viewer.add_image(np.zeros((64, 64), np.uint8), name="other")
    assert dock.image.current_choice == "other"
    assert dock.classes.box.count() == 1


def test_run_without_an_image_shows_a_message(dock):
    dock.run()
    assert "File > Open Sample" in dock.status.text
    assert not dock.runner.running


def test_predictions_of_another_network_are_discarded(viewer, dock, ramp):
    viewer.add_layer(ramp)
    dock.predict()
    dock.network.value = "torchvision/resnet18"
    dock.finish()
    assert dock.classes.box.count() == 1
    assert "Predict" in dock.status.text


def test_a_typed_prefix_chooses_a_class(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.predict()
    dock.finish()
    dock.classes.value = "malignant"
    dock.classes.value = "norm"
    dock.explain()
    assert stacks()[0].metadata["camanim"]["class_name"] == "normal"
    assert dock.classes.value.startswith("normal")
    dock.classes.value = "no such class"
    dock.run()
    assert dock.classes.value.startswith("normal")
    dock.finish()


ANIMALS = ["catamaran", "Egyptian cat", "lynx", "Cat", "bobcat", "norm", "tabby cat"]
LIKELY = [Prediction(1, "Egyptian cat", 0.6), Prediction(2, "lynx", 0.2)]


@pytest.mark.parametrize(
    ("typed", "index"),
    [
        ("egy", 1), ("ca", 1), ("  bby", 6), ("LYN", 2),
        # The name of a class is that class.
        ("cat", 3), ("norm", 5), ("catamaran", 0),
        # Without a match, the choice is unchanged.
        ("xyz", 2), ("", None),
    ],
)  # fmt: skip
def test_what_is_typed_commits_what_the_list_shows_first(dock, qtbot, typed, index):
    field, box = dock.classes, dock.classes.box
    field.set_classes(Classes(LIKELY, ANIMALS))
    box.setCurrentIndex(2)
    line = box.lineEdit()
    line.setFocus()
    line.selectAll()
    qtbot.keyClicks(line, typed) if typed else qtbot.keyClick(line, Qt.Key.Key_Delete)
    shown = box.completer().completionModel()
    first = shown.index(0, 0).data() if typed and shown.rowCount() else None
    qtbot.keyClick(line, Qt.Key.Key_Tab)
    dock.run_button.native.setFocus()
    line.editingFinished.emit()
    assert field.requests() == [index]
    committed = field.value
    assert committed == box.itemText(box.currentIndex()) != ""
    names = [name.casefold() for name in ANIMALS]
    if first is not None and typed.casefold() not in names:
        assert committed == first


def test_the_message_names_the_explained_class_and_its_probability(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.predict()
    dock.finish()
    # The least likely of the three.
    box = dock.classes.box
    box.setCurrentIndex(3)
    name, probability = dock.classes.value, box.itemData(3, PROBABILITY)
    assert probability < 0.5
    dock.explain()
    message = dock.status.text
    assert name in message
    assert f"{probability:.3f}" in message


def test_changes_of_other_layers_keep_the_chosen_class(viewer, dock, ramp):
    viewer.add_layer(ramp)
    other = viewer.add_image(np.zeros((9, 9)), name="other")
    viewer.layers.selection.active = ramp
    dock.predict()
    dock.finish()
    dock.classes.box.setCurrentIndex(2)
    chosen = dock.classes.value
    viewer.add_labels(np.zeros((9, 9), int))
    viewer.layers.remove(other)
    ramp.name = "renamed"
    assert dock.classes.value == chosen
    assert dock.image.current_choice == "renamed"


def test_an_image_is_chosen_although_no_layer_is_selected(viewer, make_dock, ramp):
    viewer.add_layer(ramp)
    viewer.layers.selection.clear()
    assert make_dock().image.value is ramp


def test_the_chosen_image_follows_the_selection(viewer, dock):
    viewer.add_image(np.zeros((9, 9)), name="a")
    viewer.add_image(np.zeros((9, 9)), name="b")
    assert dock.image.current_choice == "b"
    viewer.layers.selection.active = viewer.layers["a"]
    assert dock.image.current_choice == "a"
    viewer.add_labels(np.zeros((9, 9), int), name="labels")
    assert dock.image.current_choice == "a"
    viewer.layers["a"].name = "renamed"
    assert dock.image.current_choice == "renamed"
    del viewer.layers["renamed"]
    assert dock.image.current_choice == "b"


# -- Size and theme --------------------------------------------------------------------------------


def test_the_dock_is_narrow_in_a_small_window(viewer, dock, qtbot):
    viewer.window._qt_window.resize(1000, 700)
    long = "a name of an image layer that is much longer than the dock is wide"
    viewer.add_image(np.zeros((9, 9)), name=long)
    dock.network.choose("/a/long/path/" + "of/folders/" * 12 + "network.toml")
    dock.status.show_message("One_long_word_" * 12)
    dock.status.set_running(True)
    dock.status.show_progress("scores 30/149, 6 s left of a line that is longer than it", 1, 2)
    for section in dock.sections.values():
        section.expand()
    dock.settings.boxes["layer_test"].value = True
    for name in ("SESS", "SS-CAM", "GradCAM"):
        dock.method.value = name
        qtbot.wait(50)
        assert dock.native.width() <= 300, name
        assert dock.native.widget().width() <= dock.native.viewport().width() + 1, name


def test_long_names_in_a_message_are_shortened_and_told_in_full(dock, qtbot):
    name = "features.denseblock3.denselayer1.layers.conv2.with.more.parts"
    dock.status.show_message(f"The highest is {name}; 3 of 4.")
    qtbot.wait(50)
    label = dock.status.message.native
    width = label.fontMetrics().horizontalAdvance
    assert max(map(width, label.text().split(" "))) <= label.width()
    assert "3 of 4." in label.text()
    dock.status.show_message(f"Errors:\n\tMissing: {name}\nlast")
    assert label.text().startswith("Errors:\n\tMissing: features")
    assert label.text().endswith("\nlast")
    assert name in dock.status.text
    assert name in label.toolTip()


def test_every_field_has_a_tooltip(dock):
    for section in dock.sections.values():
        section.fill()

    def check(container):
        for widget in container:
            if hasattr(widget, "__iter__") and not hasattr(widget, "value"):
                check(widget)
            elif widget.widget_type not in ("Label", "ProgressBar"):
                assert widget.tooltip, widget.name

    check(dock)
    check(dock.settings)
    assert dock.saving.menu_button.tooltip


def test_the_dock_follows_the_theme(viewer, dock, qtbot):
    def brightness():
        image = dock.native.grab().toImage()
        return image.pixelColor(QPoint(5, image.height() - 5)).lightness()

    viewer.theme = "dark"
    qtbot.waitUntil(lambda: brightness() < 100, timeout=5_000)
    viewer.theme = "light"
    qtbot.waitUntil(lambda: brightness() > 150, timeout=5_000)


# -- What is remembered ----------------------------------------------------------------------------


def close(viewer, dock):
    viewer.window.remove_dock_widget(dock.window_dock)


def test_a_second_dock_has_the_fields_of_the_first(viewer, make_dock, ramp, empty_cache):
    viewer.add_layer(ramp)
    first = make_dock()
    first.network.value = "torchvision/resnet18"
    first.method.value = "SS-CAM"
    first.road.value = True
    first.normalization.value = "global"
    first.settings.layers.value = "blocks"
    first.settings.maps["fit"].value = "crop"
    first.settings.overrides["size"].value = "64"
    first.settings.boxes["measure"].value = True
    first.settings.forms["road"]["repeats"].value = 4
    request = first.request()
    close(viewer, first)
    second = make_dock()
    assert second.network.value == "torchvision/resnet18"
    assert second.method.value == "SS-CAM"
    assert second.settings.options_form.names == first.settings.options_form.names
    assert second.normalization.value == "global"
    again = second.request()
    # Neither the overrides of a network nor its class are those of the next one.
    assert again.settings == request.settings
    assert again.findings == request.findings
    assert again.network.settings == {}
    assert again.targets == [None]


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", "null", "\x00", '{"settings": 3}', '{"settings": {"maps": 3}}', '{"network": null}',
        '{"settings": {"maps": {"fit": "no such", "augment": "maybe"}}, "method": "NoCAM"}',
        '{"settings": {"computing": {"seed": "x", "precision": 5}, "findings": 7}}',
        '{"settings": {"device": null, "layers": null, "finding road": {"repeats": -5}}, "scale": {}}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_ignored(viewer, make_dock, ramp, empty_cache, text):
    viewer.add_layer(ramp)
    (empty_cache / remembered.NAME).write_text(text)
    dock = make_dock()
    assert dock.network.value == "demo/ultrasound"
    request = dock.request()
    assert request is not None
    assert request.settings["fit"] == "stretch"


def test_a_cache_that_cannot_be_written_is_left_as_it_is(viewer, make_dock, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path / "file" / "folder"))
    close(viewer, make_dock())
    assert (tmp_path / "file").read_text() == ""


def test_the_file_is_plain_data(viewer, make_dock, ramp, empty_cache):
    viewer.add_layer(ramp)
    close(viewer, make_dock())
    values = json.loads((empty_cache / remembered.NAME).read_text())
    assert values["network"] == "demo/ultrasound"


# -- Import of torch -------------------------------------------------------------------------------


OPEN_DOCK = """
import sys
import napari
from qtpy.QtWidgets import QApplication
from napari_camanim._demo import show_demo

viewer = napari.Viewer()
viewer.open_sample("napari-camanim", "benign_1")
viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")
QApplication.processEvents()
assert "torch" not in sys.modules, "the dock imports torch before it is needed"
assert "triton" not in sys.modules
viewer.screenshot(canvas_only=False, flash=False)
"""
RUN = """
widget = show_demo(viewer)
while widget.runner.running:
    QApplication.processEvents()
print(widget.status.text)
viewer.close()
"""
IMPORT = """
import torch
try:
    import triton
except ImportError:
    pass
print("ybROAD: mean", torch.zeros(1).item())
viewer.close()
"""


@pytest.mark.parametrize("then", [RUN, IMPORT], ids=["run", "import in a script"])
def test_torch_is_imported_after_drawing(viewer, then):
    """In a subprocess, since torch is already imported here.

    When the window is drawn first, Mesa's LLVM is loaded before triton's.
    """
    viewer.close()
    done = subprocess.run(
        [sys.executable, "-c", OPEN_DOCK + then],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ybROAD: mean" in done.stdout


def test_a_dock_that_is_freed_as_garbage_says_nothing(viewer, make_dock, qtbot):
    dock = make_dock()
    closing = dock._closing
    dock.close_dock()
    # As the garbage collector does before it deletes the widgets.
    attributes = dict(dock.__dict__)
    dock.__dict__.clear()
    try:
        closing.abandon()
    finally:
        dock.__dict__.update(attributes)
    assert dock.runner.closed
