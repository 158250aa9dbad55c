"""The dock in a window: other networks, methods and settings, and volumes."""

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox

import camanim
from camanim.cam_methods import find_method
from napari_camanim.layers.stack import is_stack, show_index
from napari_camanim.work import networks

VOLUMES = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(4, 3, 3, padding=1), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
    )
"""
TRANSFORMER = """
import camanim
from torchvision.models import VisionTransformer

def build():
    net = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32,
        num_classes=4,
    )
    return camanim.Model(net, camanim.Preprocess(size=(32, 32)), list("abcd"), name="small ViT")
"""
CONTRAST = """
import camanim
from torch import nn

def build():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )
    return camanim.Model(net, classes=["cat", "dog", "hen"])
"""


@pytest.fixture(autouse=True)
def no_trusted_files(monkeypatch):
    monkeypatch.setattr(networks, "TRUSTED", set())


@pytest.fixture
def write(tmp_path):
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
def volume():
    z, y, x = np.mgrid[:6, :24, :32]
    bump = np.exp(-((z - 3) ** 2 / 4 + (y - 12) ** 2 / 20 + (x - 20) ** 2 / 30))
    return (255 * bump).astype(np.uint8)


def last_notification():
    return notification_manager.records[-1].message


def test_code_of_a_file_runs_only_when_trusted(viewer, dock, stacks, ramp, write, confirm):
    viewer.add_layer(ramp)
    path = write(CONTRAST)
    dock.form.network.setCurrentText(path)
    questions = confirm(False)
    dock.run()
    dock.finish()
    assert len(questions) == 1
    assert path in questions[0]
    assert not stacks()
    assert path in dock.form.message.text()
    # The question is repeated until the file is trusted.
    questions = confirm(True)
    dock.predict()
    dock.finish()
    assert [dock.form.classes.itemText(i).split()[0] for i in range(1, 4)]
    dock.run()
    dock.finish()
    assert len(questions) == 2
    assert len(stacks()) == 1
    other = write(CONTRAST, "other.py")
    dock.form.network.setCurrentText(other)
    dock.run()
    dock.finish()
    assert len(questions) == 3
    assert other in questions[-1]


def test_a_changed_file_is_loaded_again(viewer, dock, stacks, ramp, write, confirm):
    viewer.add_layer(ramp)
    confirm(True)
    dock.form.network.setCurrentText(write(CONTRAST))
    dock.run()
    dock.finish()
    write(CONTRAST.replace("nn.ReLU(), ", ""))
    dock.run()
    dock.finish()
    assert sorted(stack.data.shape[0] for stack in stacks()) == [3, 4]


@pytest.fixture
def volume_stack(viewer, dock, stacks, volume, write, confirm):
    """The stack of a 3-D network for a volume."""
    viewer.add_image(volume, name="volume", scale=(3, 1, 1), translate=(6, 0, 0), units=("um",) * 3)
    confirm(True)
    dock.form.network.setCurrentText(write(VOLUMES))
    dock.form.classes.lineEdit().setText("2")
    # Without effect for a 3-D network.
    dock.form.advanced.maps["slices"].value = True
    dock.run()
    dock.finish()
    return stacks()[0]


def test_a_volume_and_a_3d_network(viewer, dock, volume, volume_stack, has_caption, qtbot):
    stack = volume_stack
    assert stack.data.shape == (4, *volume.shape)
    assert viewer.dims.axis_labels == ("layer", "z", "y", "x")
    np.testing.assert_allclose(stack.scale, (1, 3, 1, 1))
    np.testing.assert_allclose(stack.translate, (0, 6, 0, 0))
    about = stack.metadata["camanim"]
    assert about["index"] == 2
    pictures = []
    for index, z in ((0, 6), (0, 15), (3, 15)):
        show_index(viewer, stack, index)
        viewer.dims.set_point(1, z)
        qtbot.waitUntil(lambda: stack.loaded, timeout=10_000)
        assert has_caption(about["captions"][index])
        pictures.append(viewer.screenshot(flash=False).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() > 50
    assert np.abs(pictures[1] - pictures[2]).max() > 50
    dock.form.normalization.setCurrentText("global")
    np.testing.assert_allclose(
        stack.data[3, 2], np.asarray(stack.data.animation.stack("global"))[3, 2], atol=1e-6
    )


def test_the_movie_of_a_volume_has_the_shown_plane(
    viewer, dock, volume_stack, tmp_path, monkeypatch
):
    planes = []
    animation = volume_stack.data.animation
    original = type(animation).write_movie
    monkeypatch.setattr(
        type(animation), "write_movie", lambda *a, **k: planes.append(k["z"]) or original(*a, **k)
    )
    viewer.dims.set_point(1, 15)
    dock.export(tmp_path / "plane.mp4")
    dock.finish()
    assert planes == [3]
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "plane.mp4"))[0] == 4


def test_a_volume_is_explained_in_the_3d_view(viewer, dock, stacks, volume_stack):
    viewer.dims.ndisplay = 3
    dock.run()
    dock.finish()
    assert len(stacks()) == 2


def test_all_slices_with_a_2d_network(viewer, dock, stacks, volume, ramp):
    viewer.add_layer(ramp)
    assert not dock.form.advanced.slices.isEnabled()
    viewer.add_image(volume, name="volume", scale=(3, 1, 1))
    assert dock.form.advanced.slices.isEnabled()
    dock.form.advanced.layers.setCurrentText("blocks")
    dock.form.advanced.maps["slices"].value = True
    dock.predict()
    dock.finish()
    assert "over all slices" in dock.form.message.text()
    dock.form.road.setChecked(True)
    dock.run()
    dock.finish()
    [stack] = stacks()
    assert stack.data.shape[1:] == (6, 128, 128)
    np.testing.assert_allclose(stack.scale, (1, 3, 24 / 128, 32 / 128))
    # The maps are kept if they cannot be scored.
    assert "6 slices" in last_notification()
    assert "6 slices" in dock.form.message.text()
    assert stack.metadata["camanim"]["findings"] == {}
    assert not dock.form.curve.isVisible()
    # For an image without depth, the setting has no effect.
    viewer.layers.selection.active = ramp
    dock.form.road.setChecked(False)
    dock.run()
    dock.finish()
    assert stacks()[0].data.shape[1:] == (128, 128)


def test_a_transformer_from_a_file(viewer, dock, stacks, ramp, write, confirm):
    viewer.add_layer(ramp)
    confirm(True)
    dock.form.network.setCurrentText(write(TRANSFORMER))
    dock.form.method.setCurrentText("HiResCAM")
    dock.run()
    dock.finish()
    [stack] = stacks()
    about = stack.metadata["camanim"]
    assert any(layout.startswith("tokens 4 x 4") for layout in about["layouts"])
    assert about["model"] == "small ViT"
    assert stack.data.shape[1:] == (32, 32)
    assert np.isfinite(np.asarray(stack.data)).all()


@pytest.mark.parametrize("typed", ["cat - hen", "cat vs hen"])
def test_a_typed_contrast(viewer, dock, stacks, ramp, write, confirm, typed):
    viewer.add_layer(ramp)
    confirm(True)
    dock.form.network.setCurrentText(write(CONTRAST))
    dock.predict()
    dock.finish()
    dock.form.classes.lineEdit().setText(typed)
    dock.run()
    dock.finish()
    [stack] = stacks()
    about = stack.metadata["camanim"]
    assert about["class_name"] == "cat - hen"
    assert about["index"] is None
    assert dock.form.classes.currentText() == typed


def test_several_targets_of_listed_classes(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.predict()
    dock.finish()
    first, second = dock.form.classes.itemText(1), dock.form.classes.itemText(2)
    names = [text.split()[0] for text in (first, second)]
    dock.form.advanced.layers.setCurrentText("blocks")
    dock.form.classes.lineEdit().setText(f"{first} - {second}; {names[1]}; likeliest class")
    dock.run()
    dock.finish()
    # Only the first stack is visible.
    assert [stack.metadata["camanim"]["class_name"] for stack in stacks()] == [
        f"{names[0]} - {names[1]}",
        names[1],
        names[0],
    ]
    assert [stack.visible for stack in stacks()] == [True, False, False]
    assert "3 stacks" in dock.form.message.text()


def test_a_class_can_be_typed_before_predict(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.form.classes.lineEdit().setText("benign")
    dock.run()
    dock.finish()
    assert stacks()[0].metadata["camanim"]["class_name"] == "benign"
    dock.form.classes.lineEdit().setText("bening")
    dock.run()
    dock.finish()
    assert "'bening'" in dock.form.message.text()
    assert len(stacks()) == 1


def fields(options):
    return options.form.names


def test_every_method_has_a_form_of_its_options(dock):
    options = dock.form.advanced.options
    dock.form.method.setCurrentText("GradCAM")
    assert fields(options) == []
    assert options.isHidden()
    for name, method in camanim.methods().items():
        dock.form.method.setCurrentText(name)
        assert fields(options) == list(method.options)
        assert options.values() == {}
        assert all(options.form[name].tooltip for name in fields(options)), name


def test_options_are_passed_to_the_method(viewer, dock, stacks, ramp, write, confirm):
    viewer.add_layer(ramp)
    confirm(True)
    dock.form.network.setCurrentText(write(CONTRAST))
    options = dock.form.advanced.options
    dock.form.method.setCurrentText("SS-CAM")
    options.form["channels"].value = "2"
    options.form["samples"].value = 3
    options.form["std"].value = "0.5"
    dock.run()
    dock.finish()
    expected = {"channels": 2, "samples": 3, "std": 0.5}
    assert stacks()[0].metadata["camanim"]["provenance"]["options"] == expected
    options.form["channels"].value = "some"
    dock.run()
    dock.finish()
    assert "channels" in dock.form.message.text()
    assert "channels" in last_notification()
    assert dock.form.run_button.text() == "Run"
    assert len(stacks()) == 1
    # An empty field is the default.
    options.form["channels"].value = ""
    assert "channels" not in options.values()
    dock.form.method.setCurrentText("KPCA-CAM")
    options.form["kernel"].value = "rbf"
    assert options.values() == {"kernel": "rbf"}


def test_methods_have_tooltips_and_can_be_typed(dock):
    tips = [
        dock.form.method.itemData(i, Qt.ItemDataRole.ToolTipRole)
        for i in range(dock.form.method.count())
    ]
    for method, tip in zip(camanim.methods().values(), tips, strict=True):
        assert ("Not class-specific" in tip) is not method.class_specific
        for part in (method.paper, method.cost):
            assert part.replace("&", "&amp;").replace("'", "&#x27;") in tip
    dock.form.method.lineEdit().setText("score")
    dock.form.method.complete_text()
    assert dock.form.method.currentText() == "ScoreCAM"
    assert find_method("ScoreCAM").cost in dock.form.method.toolTip()
    assert fields(dock.form.advanced.options) == list(find_method("ScoreCAM").options)


def test_eigen_smoothing_is_disabled_for_methods_without_channels(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    box = dock.form.advanced.eigen_smooth
    box.setChecked(True)
    dock.form.method.setCurrentText("EigenCAM")
    assert not box.isEnabled()
    assert "EigenCAM" in box.toolTip()
    dock.form.advanced.layers.setCurrentText("blocks")
    dock.run()
    dock.finish()
    dock.form.method.setCurrentText("HiResCAM")
    assert box.isEnabled()
    dock.run()
    dock.finish()
    smoothed = [s.metadata["camanim"]["provenance"]["eigen_smooth"] for s in stacks()]
    assert smoothed == [True, False]


def test_the_guided_image_is_a_layer_that_cannot_be_explained(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.form.method.setCurrentText("Guided Grad-CAM")
    dock.form.advanced.layers.setCurrentText("blocks")
    dock.run()
    dock.finish()
    [guided] = [layer for layer in viewer.layers if layer is not ramp and not is_stack(layer)]
    assert "guided" in dock.form.message.text()
    viewer.layers.selection.active = guided
    assert dock.form.image.count() == 1
    assert dock.form.image.currentText() == "ramp"
    guided.visible = True
    assert guided.data.shape == (128, 128)


def test_settings_are_passed_to_the_engine(viewer, dock, stacks, ramp, write, confirm):
    viewer.add_layer(ramp)
    confirm(True)
    dock.form.network.setCurrentText(write(CONTRAST))
    advanced = dock.form.advanced
    advanced.overrides["size"].value = "20, 30"
    advanced.overrides["mean"].value = "0.5"
    advanced.overrides["std"].value = "0.25"
    advanced.layers.setCurrentText("0, 3")
    advanced.maps["counterfactual"].value = True
    advanced.maps["augment"].value = True
    advanced.maps["show_1d"].value = True
    advanced.computing["precision"].value = "bfloat16"
    advanced.computing["seed"].value = 7
    advanced.maps["fit"].value = "crop"
    dock.run()
    dock.finish()
    [stack] = stacks()
    about = stack.metadata["camanim"]["provenance"]
    assert about["input shape"] == [1, 1, 20, 30]
    assert stack.metadata["camanim"]["layers"] == ["0", "3"]
    assert stack.metadata["camanim"]["target"]["kind"] == "counterfactual"
    for name, value in (
        ("augment", True), ("show_1d", True), ("precision", "bfloat16"), ("seed", 7), ("fit", "crop")
    ):  # fmt: skip
        assert about[name] == value
    assert stack.data.animation.model.preprocess.mean == (0.5,)


def test_a_card_is_saved_and_opened(
    viewer, dock, stacks, ramp, write, confirm, tmp_path, monkeypatch
):
    viewer.add_layer(ramp)
    confirm(True)
    dock.form.network.setCurrentText(write(CONTRAST))
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\nthree\n")
    weights = tmp_path / "weights.pth"
    net = camanim.load_model(str(tmp_path / "net.py"), trust=True).net
    torch.save({k: v + 1 for k, v in net.state_dict().items()}, weights)
    dock.form.advanced.classes.line.setText(str(names))
    dock.form.advanced.weights.line.setText(str(weights))
    dock.form.advanced.overrides["size"].value = "24"
    card = tmp_path / "card.toml"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a: (str(card.with_suffix("")), ""))
    dock.form.advanced.save_button.click()
    dock.finish()
    assert str(card) in dock.form.message.text()
    for line in (dock.form.advanced.classes.line, dock.form.advanced.weights.line):
        line.clear()
    dock.form.advanced.overrides.reset()
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a: (str(card), ""))
    dock.form.open_button.open_file()
    assert dock.form.network.currentText() == str(card)
    dock.predict()
    dock.finish()
    assert {dock.form.classes.itemText(i).split()[0] for i in range(1, 4)} == {
        "one",
        "two",
        "three",
    }
    dock.run()
    dock.finish()
    animation = stacks()[0].data.animation
    assert animation.tensor.shape == (1, 1, 24, 24)
    torch.testing.assert_close(
        animation.model.net.state_dict()["0.bias"], net.state_dict()["0.bias"] + 1
    )


def test_a_folder_can_be_opened(dock, tmp_path, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a: str(tmp_path))
    dock.form.open_button.open_folder()
    assert dock.form.network.currentText() == str(tmp_path)
    assert dock.form.network.findText(str(tmp_path)) >= 0


def test_a_source_can_be_typed(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    source = (
        "monai/DenseNet?spatial_dims=2&in_channels=1&out_channels=3&block_config=(1,1)"
        "&growth_rate=4&init_features=4"
    )
    dock.form.network.lineEdit().setText(source)
    dock.form.advanced.overrides["size"].value = "32"
    dock.form.advanced.layers.setCurrentText("blocks")
    dock.run()
    dock.finish()
    assert len(stacks()) == 1
    assert dock.form.network.findText(source) >= 0
    dock.form.network.lineEdit().setText("monai/DenseNet?spatial=2")
    dock.run()
    dock.finish()
    assert "spatial_dims" in dock.form.message.text()
    assert dock.form.network.findText("monai/DenseNet?spatial=2") < 0


@pytest.mark.parametrize(
    ("field", "text"), [("size", "big"), ("mean", "0.5 0.5"), ("channels", "3.5")]
)
def test_an_invalid_field_is_named(viewer, dock, ramp, field, text):
    viewer.add_layer(ramp)
    dock.form.advanced.overrides[field].value = text
    for action in (dock.run, dock.predict, lambda: dock.save_card("x.toml")):
        action()
        assert not dock.runner.running
        message = dock.form.message.text()
        assert message.startswith(f"{field} ")
        assert text in message
        assert last_notification() == message


def test_the_advanced_part_expands_within_the_window(viewer, dock, qtbot):
    height = viewer.window._qt_window.height()
    advanced = dock.form.advanced
    qtbot.waitUntil(lambda: dock.isVisible())
    assert not advanced.isExpanded()
    assert advanced.content().height() == 0
    advanced.toggleButton().click()
    qtbot.waitUntil(lambda: advanced.content().height() > 300)
    dock.form.method.setCurrentText("SESS")
    needed = advanced.content().minimumSizeHint().height()
    qtbot.waitUntil(lambda: advanced.content().height() >= needed)
    assert viewer.window._qt_window.height() == height
    # Nothing is cut off on the right.
    right = dock.mapToGlobal(dock.rect().topRight()).x()
    button = dock.form.open_button
    assert button.mapToGlobal(button.rect().topRight()).x() < right
    assert dock.isAncestorOf(advanced.computing["seed"].native)
    # The devices are listed in a thread, which imports torch.
    qtbot.waitUntil(lambda: dock._device_search is not None, timeout=5_000)
    listed = {advanced.device.itemText(i) for i in range(advanced.device.count())}
    assert ("cuda" in listed) <= torch.cuda.is_available()


def test_the_wheel_does_not_change_fields(dock):
    wheel = QWheelEvent(
        QPointF(5, 5), QPointF(5, 5), QPoint(0, -120), QPoint(0, -120), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    advanced = dock.form.advanced
    for field in (advanced.computing["seed"].native, advanced.maps["fit"].native):
        before = field.text() if hasattr(field, "text") else field.currentText()
        field.clearFocus()
        QApplication.sendEvent(field, wheel)
        assert (field.text() if hasattr(field, "text") else field.currentText()) == before


def test_notes_are_in_message_and_metadata(viewer, dock, stacks, ramp, monkeypatch):
    from camanim import animation as facade

    animate = facade.animate_targets

    def with_note(*args, **settings):
        animations = animate(*args, **settings)
        animations[0].notes.append("Batches were halved.")
        return animations

    monkeypatch.setattr(facade, "animate_targets", with_note)
    viewer.add_layer(ramp)
    dock.form.advanced.layers.setCurrentText("blocks")
    dock.run()
    dock.finish()
    assert "Batches were halved." in dock.form.message.text()
    assert stacks()[0].metadata["camanim"]["notes"] == ["Batches were halved."]


def test_closing_the_dock_while_devices_are_listed(viewer, qtbot):
    window_dock, widget = viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")
    widget.form.advanced.expand()
    search = widget._device_search
    with qtbot.waitSignal(search.finished, timeout=60_000):
        viewer.window.remove_dock_widget(window_dock)
