"""What the dock offers beyond the main job, in a real window: any network, any method, volumes."""

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
from napari_camanim import _networks
from napari_camanim._layers import is_stack, show_index

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
def nobody_is_trusted(monkeypatch):
    monkeypatch.setattr(_networks, "TRUSTED", set())


@pytest.fixture
def write(tmp_path):
    def write(code, name="net.py"):
        path = tmp_path / name
        path.write_text(code)
        return str(path)

    return write


@pytest.fixture
def answer(monkeypatch):
    """Answer the question whether code may run; the questions asked are kept."""
    asked = []

    def answer(with_yes):
        buttons = QMessageBox.StandardButton

        def question(parent, title, text, *rest):
            asked.append(text)
            return buttons.Yes if with_yes else buttons.No

        monkeypatch.setattr(QMessageBox, "question", question)
        return asked

    return answer


@pytest.fixture
def volume():
    z, y, x = np.mgrid[:6, :24, :32]
    bump = np.exp(-((z - 3) ** 2 / 4 + (y - 12) ** 2 / 20 + (x - 20) ** 2 / 30))
    return (255 * bump).astype(np.uint8)


def said():
    return notification_manager.records[-1].message


def test_a_users_file_runs_only_after_a_yes(viewer, dock, stacks, ramp, write, answer):
    viewer.add_layer(ramp)
    path = write(CONTRAST)
    dock.network.setCurrentText(path)
    asked = answer(False)
    dock.run()
    dock.finish()
    assert asked == [f"{path} is Python code that would be run: do you trust where it comes from?"]
    assert not stacks()
    assert "not trusted" in dock.message.text()
    # A no is asked again; a yes counts for this file until napari closes.
    asked = answer(True)
    dock.predict()
    dock.finish()
    assert [dock.classes.itemText(i).split()[0] for i in range(1, 4)]
    dock.run()
    dock.finish()
    assert len(asked) == 2
    assert len(stacks()) == 1
    other = write(CONTRAST, "other.py")
    dock.network.setCurrentText(other)
    dock.run()
    dock.finish()
    assert len(asked) == 3
    assert other in asked[-1]


def test_a_changed_file_is_run_anew(viewer, dock, stacks, ramp, write, answer):
    viewer.add_layer(ramp)
    answer(True)
    dock.network.setCurrentText(write(CONTRAST))
    dock.run()
    dock.finish()
    write(CONTRAST.replace("nn.ReLU(), ", ""))
    dock.run()
    dock.finish()
    assert sorted(stack.data.shape[0] for stack in stacks()) == [3, 4]


def test_a_volume_and_a_network_of_volumes(
    viewer, dock, stacks, volume, write, answer, canvas_says, qtbot, tmp_path
):
    viewer.add_image(volume, name="volume", scale=(3, 1, 1), translate=(6, 0, 0), units=("um",) * 3)
    answer(True)
    dock.network.setCurrentText(write(VOLUMES))
    dock.classes.lineEdit().setText("2")
    # Which a network of volumes sees anyway.
    dock.advanced.maps["slices"].value = True
    dock.run()
    dock.finish()
    [stack] = stacks()
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
        assert canvas_says(about["captions"][index])
        pictures.append(viewer.screenshot(flash=False).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() > 50
    assert np.abs(pictures[1] - pictures[2]).max() > 50
    dock.normalization.setCurrentText("global")
    np.testing.assert_allclose(
        stack.data[3, 2], np.asarray(stack.data.animation.stack("global"))[3, 2], atol=1e-6
    )
    # The movie shows the plane that the window shows.
    seen = []
    animation = stack.data.animation
    original = type(animation).write_movie
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(animation), "write_movie", lambda *a, **k: seen.append(k["z"]) or original(*a, **k)
        )
        dock.export(tmp_path / "plane.mp4")
        dock.finish()
    assert seen == [3]
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "plane.mp4"))[0] == 4
    viewer.dims.ndisplay = 3
    dock.run()
    dock.finish()
    assert len(stacks()) == 2


def test_all_slices_through_a_network_of_images(viewer, dock, stacks, volume, ramp):
    viewer.add_layer(ramp)
    assert not dock.advanced.slices.isEnabled()
    viewer.add_image(volume, name="volume", scale=(3, 1, 1))
    assert dock.advanced.slices.isEnabled()
    dock.advanced.layers.setCurrentText("blocks")
    dock.advanced.maps["slices"].value = True
    dock.predict()
    dock.finish()
    assert "over all slices" in dock.message.text()
    dock.road.setChecked(True)
    dock.run()
    dock.finish()
    [stack] = stacks()
    assert stack.data.shape[1:] == (6, 128, 128)
    np.testing.assert_allclose(stack.scale, (1, 3, 24 / 128, 32 / 128))
    # The maps are kept where they cannot be scored.
    assert "6 slices" in said()
    assert "6 slices" in dock.message.text()
    assert stack.metadata["camanim"]["findings"] == {}
    assert not dock.curve.isVisible()
    # Unchecked, or of an image without depth, it is the shown slice.
    viewer.layers.selection.active = ramp
    dock.road.setChecked(False)
    dock.run()
    dock.finish()
    assert stacks()[0].data.shape[1:] == (128, 128)


def test_a_transformer_from_a_users_file(viewer, dock, stacks, ramp, write, answer):
    viewer.add_layer(ramp)
    answer(True)
    dock.network.setCurrentText(write(TRANSFORMER))
    dock.method.setCurrentText("HiResCAM")
    dock.run()
    dock.finish()
    [stack] = stacks()
    about = stack.metadata["camanim"]
    assert any(layout.startswith("tokens 4 x 4") for layout in about["layouts"])
    assert about["model"] == "small ViT"
    assert stack.data.shape[1:] == (32, 32)
    assert np.isfinite(np.asarray(stack.data)).all()


@pytest.mark.parametrize("typed", ["cat - hen", "cat vs hen"])
def test_a_typed_contrast(viewer, dock, stacks, ramp, write, answer, typed):
    viewer.add_layer(ramp)
    answer(True)
    dock.network.setCurrentText(write(CONTRAST))
    dock.predict()
    dock.finish()
    dock.classes.lineEdit().setText(typed)
    dock.run()
    dock.finish()
    [stack] = stacks()
    about = stack.metadata["camanim"]
    assert about["class_name"] == "cat - hen"
    assert about["index"] is None
    assert dock.classes.currentText() == typed


def test_listed_classes_can_be_set_against_each_other(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.predict()
    dock.finish()
    first, second = dock.classes.itemText(1), dock.classes.itemText(2)
    names = [text.split()[0] for text in (first, second)]
    dock.advanced.layers.setCurrentText("blocks")
    dock.classes.lineEdit().setText(f"{first} - {second}; {names[1]}; likeliest class")
    dock.run()
    dock.finish()
    # The first is the one to look at.
    assert [stack.metadata["camanim"]["class_name"] for stack in stacks()] == [
        f"{names[0]} - {names[1]}",
        names[1],
        names[0],
    ]
    assert [stack.visible for stack in stacks()] == [True, False, False]
    assert "3 stacks" in dock.message.text()


def test_a_class_typed_before_any_is_listed_is_for_the_network_to_find(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.classes.lineEdit().setText("benign")
    dock.run()
    dock.finish()
    assert stacks()[0].metadata["camanim"]["class_name"] == "benign"
    dock.classes.lineEdit().setText("bening")
    dock.run()
    dock.finish()
    assert "no class named 'bening'" in dock.message.text()
    assert len(stacks()) == 1


def fields(options):
    return options.form.names


def test_options_of_a_method(viewer, dock, stacks, ramp, write, answer):
    viewer.add_layer(ramp)
    answer(True)
    dock.network.setCurrentText(write(CONTRAST))
    options = dock.advanced.options
    dock.method.setCurrentText("GradCAM")
    assert fields(options) == []
    assert options.isHidden()
    for name, method in camanim.methods().items():
        dock.method.setCurrentText(name)
        assert fields(options) == list(method.options)
        assert options.values() == {}
        assert all(options.form[name].tooltip for name in fields(options)), name
    dock.method.setCurrentText("SS-CAM")
    options.form["channels"].value = "2"
    options.form["samples"].value = 3
    options.form["std"].value = "0.5"
    dock.run()
    dock.finish()
    wanted = {"channels": 2, "samples": 3, "std": 0.5}
    assert stacks()[0].metadata["camanim"]["provenance"]["options"] == wanted
    options.form["channels"].value = "some"
    dock.run()
    dock.finish()
    assert "channels" in dock.message.text()
    assert "channels" in said()
    assert dock.run_button.text() == "Run"
    assert len(stacks()) == 1
    # Empty again: all channels.
    options.form["channels"].value = ""
    assert "channels" not in options.values()
    dock.method.setCurrentText("KPCA-CAM")
    options.form["kernel"].value = "rbf"
    assert options.values() == {"kernel": "rbf"}


def test_methods_are_searched_and_explained(dock):
    tips = [
        dock.method.itemData(i, Qt.ItemDataRole.ToolTipRole) for i in range(dock.method.count())
    ]
    for method, tip in zip(camanim.methods().values(), tips, strict=True):
        assert ("Does not know the class" in tip) is not method.class_specific
        for part in (method.paper, method.cost):
            assert part.replace("&", "&amp;").replace("'", "&#x27;") in tip
    dock.method.lineEdit().setText("score")
    dock.method.settle()
    assert dock.method.currentText() == "ScoreCAM"
    assert find_method("ScoreCAM").cost in dock.method.toolTip()
    assert fields(dock.advanced.options) == list(find_method("ScoreCAM").options)


def test_eigen_smoothing_only_where_there_is_something_to_smooth(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    box = dock.advanced.eigen_smooth
    box.setChecked(True)
    dock.method.setCurrentText("EigenCAM")
    assert not box.isEnabled()
    assert "no channels left" in box.toolTip()
    dock.advanced.layers.setCurrentText("blocks")
    dock.run()
    dock.finish()
    dock.method.setCurrentText("HiResCAM")
    assert box.isEnabled()
    dock.run()
    dock.finish()
    smoothed = [s.metadata["camanim"]["provenance"]["eigen_smooth"] for s in stacks()]
    assert smoothed == [True, False]


def test_the_guided_image_is_a_layer_that_is_not_explained(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.method.setCurrentText("Guided Grad-CAM")
    dock.advanced.layers.setCurrentText("blocks")
    dock.run()
    dock.finish()
    [guided] = [layer for layer in viewer.layers if layer is not ramp and not is_stack(layer)]
    assert "guided" in dock.message.text()
    viewer.layers.selection.active = guided
    assert dock.image.count() == 1
    assert dock.image.currentText() == "ramp"
    guided.visible = True
    assert guided.data.shape == (128, 128)


def test_settings_reach_the_engine(viewer, dock, stacks, ramp, write, answer):
    viewer.add_layer(ramp)
    answer(True)
    dock.network.setCurrentText(write(CONTRAST))
    advanced = dock.advanced
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
    viewer, dock, stacks, ramp, write, answer, tmp_path, monkeypatch
):
    viewer.add_layer(ramp)
    answer(True)
    dock.network.setCurrentText(write(CONTRAST))
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\nthree\n")
    weights = tmp_path / "weights.pth"
    net = camanim.load_model(str(tmp_path / "net.py"), trust=True).net
    torch.save({k: v + 1 for k, v in net.state_dict().items()}, weights)
    dock.advanced.classes.line.setText(str(names))
    dock.advanced.weights.line.setText(str(weights))
    dock.advanced.overrides["size"].value = "24"
    card = tmp_path / "card.toml"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a: (str(card.with_suffix("")), ""))
    dock.advanced.save_button.click()
    dock.finish()
    assert str(card) in dock.message.text()
    for line in (dock.advanced.classes.line, dock.advanced.weights.line):
        line.clear()
    dock.advanced.overrides.reset()
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a: (str(card), ""))
    dock.open_button.open_file()
    assert dock.network.currentText() == str(card)
    dock.predict()
    dock.finish()
    assert {dock.classes.itemText(i).split()[0] for i in range(1, 4)} == {"one", "two", "three"}
    dock.run()
    dock.finish()
    animation = stacks()[0].data.animation
    assert animation.tensor.shape == (1, 1, 24, 24)
    torch.testing.assert_close(
        animation.model.net.state_dict()["0.bias"], net.state_dict()["0.bias"] + 1
    )


def test_a_folder_can_be_opened(dock, tmp_path, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a: str(tmp_path))
    dock.open_button.open_folder()
    assert dock.network.currentText() == str(tmp_path)
    assert dock.network.findText(str(tmp_path)) >= 0


def test_any_source_can_be_typed(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    source = (
        "monai/DenseNet?spatial_dims=2&in_channels=1&out_channels=3&block_config=(1,1)"
        "&growth_rate=4&init_features=4"
    )
    dock.network.lineEdit().setText(source)
    dock.advanced.overrides["size"].value = "32"
    dock.advanced.layers.setCurrentText("blocks")
    dock.run()
    dock.finish()
    assert len(stacks()) == 1
    assert dock.network.findText(source) >= 0
    dock.network.lineEdit().setText("monai/DenseNet?spatial=2")
    dock.run()
    dock.finish()
    assert "spatial_dims" in dock.message.text()
    assert dock.network.findText("monai/DenseNet?spatial=2") < 0


@pytest.mark.parametrize(
    ("field", "text"), [("size", "big"), ("mean", "0.5 0.5"), ("channels", "3.5")]
)
def test_a_wrong_field_is_named(viewer, dock, ramp, field, text):
    viewer.add_layer(ramp)
    dock.advanced.overrides[field].value = text
    for act in (dock.run, dock.predict, lambda: dock.save_card("x.toml")):
        act()
        assert dock._task is None
        sentence = dock.message.text()
        assert sentence.startswith(f"{field} is ")
        assert text in sentence
        assert said() == sentence


def test_the_advanced_part_is_folded_and_fits(viewer, dock, qtbot):
    height = viewer.window._qt_window.height()
    advanced = dock.advanced
    qtbot.waitUntil(lambda: dock.isVisible())
    assert not advanced.isExpanded()
    assert advanced.content().height() == 0
    advanced.toggleButton().click()
    qtbot.waitUntil(lambda: advanced.content().height() > 300)
    dock.method.setCurrentText("SESS")
    needed = advanced.content().minimumSizeHint().height()
    qtbot.waitUntil(lambda: advanced.content().height() >= needed)
    assert viewer.window._qt_window.height() == height
    # Nothing is cut off at the right.
    right = dock.mapToGlobal(dock.rect().topRight()).x()
    button = dock.open_button
    assert button.mapToGlobal(button.rect().topRight()).x() < right
    assert dock.isAncestorOf(advanced.computing["seed"].native)
    # torch was imported meanwhile, in a thread, to know the devices.
    qtbot.waitUntil(lambda: dock._search is not None, timeout=5_000)
    listed = {advanced.device.itemText(i) for i in range(advanced.device.count())}
    assert ("cuda" in listed) <= torch.cuda.is_available()


def test_the_wheel_scrolls_past_the_fields(dock):
    wheel = QWheelEvent(
        QPointF(5, 5), QPointF(5, 5), QPoint(0, -120), QPoint(0, -120), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    advanced = dock.advanced
    for field in (advanced.computing["seed"].native, advanced.maps["fit"].native):
        before = field.text() if hasattr(field, "text") else field.currentText()
        field.clearFocus()
        QApplication.sendEvent(field, wheel)
        assert (field.text() if hasattr(field, "text") else field.currentText()) == before


def test_notes_are_said_and_kept(viewer, dock, stacks, ramp, monkeypatch):
    from camanim import animation as facade

    animate = facade.animate_targets

    def noting(*args, **settings):
        animations = animate(*args, **settings)
        animations[0].notes.append("Batches were halved.")
        return animations

    monkeypatch.setattr(facade, "animate_targets", noting)
    viewer.add_layer(ramp)
    dock.advanced.layers.setCurrentText("blocks")
    dock.run()
    dock.finish()
    assert "Batches were halved." in dock.message.text()
    assert stacks()[0].metadata["camanim"]["notes"] == ["Batches were halved."]


def test_closing_the_dock_while_devices_are_looked_for(viewer, qtbot):
    window_dock, widget = viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")
    widget.advanced.expand()
    search = widget._search
    with qtbot.waitSignal(search.finished, timeout=60_000):
        viewer.window.remove_dock_widget(window_dock)
