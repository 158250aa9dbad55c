"""The dock in a window: networks from files, methods, settings, targets and volumes."""

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QFileDialog

import camanim
from camanim.cam_methods import find_method
from napari_camanim.layers.stack import is_stack

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


def test_code_of_a_file_runs_only_when_trusted(viewer, dock, stacks, ramp, write, confirm):
    viewer.add_layer(ramp)
    path = write(CONTRAST)
    dock.network.value = path
    questions = confirm(False)
    dock.explain()
    assert len(questions) == 1
    assert path in questions[0]
    assert not stacks()
    assert path in dock.status.text
    # The question is repeated until the file is trusted.
    questions = confirm(True)
    dock.predict()
    dock.finish()
    assert dock.classes.box.itemText(0) == "likeliest class"
    assert {dock.classes.box.itemText(i) for i in range(1, 4)} == {"cat", "dog", "hen"}
    dock.explain()
    assert len(questions) == 2
    assert len(stacks()) == 1
    other = write(CONTRAST, "other.py")
    dock.network.value = other
    dock.explain()
    assert len(questions) == 3
    assert other in questions[-1]


def test_a_changed_file_is_loaded_again(viewer, dock, stacks, ramp, write, confirm):
    viewer.add_layer(ramp)
    confirm(True)
    dock.network.value = write(CONTRAST)
    dock.explain()
    assert [stack.data.shape[0] for stack in stacks()] == [4]
    write(CONTRAST.replace("nn.ReLU(), ", ""))
    dock.explain()
    assert [stack.data.shape[0] for stack in stacks()] == [3]


@pytest.fixture
def volume_stack(viewer, dock, stacks, volume, write, confirm):
    """The stack of a 3-D network for a volume."""
    viewer.add_image(volume, name="volume", scale=(3, 1, 1), translate=(6, 0, 0), units=("um",) * 3)
    confirm(True)
    dock.network.value = write(VOLUMES)
    dock.classes.value = "2"
    # Without effect for a 3-D network.
    dock.settings.maps["slices"].value = True
    dock.explain()
    return stacks()[0]


def test_a_volume_and_a_3d_network(viewer, dock, session, volume, volume_stack, has_caption, qtbot):
    stack = volume_stack
    assert stack.data.shape == (4, *volume.shape)
    assert viewer.dims.axis_labels == ("layer", "z", "y", "x")
    np.testing.assert_allclose(stack.scale, (1, 3, 1, 1))
    np.testing.assert_allclose(stack.translate, (0, 6, 0, 0))
    about = stack.metadata["camanim"]
    assert about["index"] == 2
    pictures = []
    for index, z in ((0, 6), (0, 15), (3, 15)):
        session.go_to(index)
        viewer.dims.set_point(1, z)
        qtbot.waitUntil(lambda: stack.loaded, timeout=10_000)
        assert has_caption(about["captions"][index])
        pictures.append(viewer.screenshot(flash=False).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() > 50
    assert np.abs(pictures[1] - pictures[2]).max() > 50
    dock.normalization.value = "global"
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
    dock.saving.export(tmp_path / "plane.mp4")
    dock.finish()
    assert planes == [3]
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "plane.mp4"))[0] == 4


def test_a_volume_is_explained_in_the_3d_view(viewer, dock, stacks, volume_stack):
    viewer.dims.ndisplay = 3
    dock.explain()
    assert len(stacks()) == 2


def test_all_slices_with_a_2d_network(viewer, dock, stacks, volume, ramp, notified):
    viewer.add_layer(ramp)
    assert not dock.settings.maps["slices"].enabled
    viewer.add_image(volume, name="volume", scale=(3, 1, 1))
    assert dock.settings.maps["slices"].enabled
    dock.settings.layers.value = "blocks"
    dock.settings.maps["slices"].value = True
    dock.predict()
    dock.finish()
    assert "over all slices" in dock.status.text
    dock.road.value = True
    dock.explain()
    [stack] = stacks()
    assert stack.data.shape[1:] == (6, 128, 128)
    np.testing.assert_allclose(stack.scale, (1, 3, 24 / 128, 32 / 128))
    # The maps are kept if they cannot be scored.
    assert "6 slices" in notified()
    assert "6 slices" in dock.status.text
    assert stack.metadata["camanim"]["findings"] == {}
    # For an image without depth, the setting has no effect.
    viewer.layers.selection.active = ramp
    dock.road.value = False
    dock.explain()
    assert stacks()[0].data.shape[1:] == (128, 128)


def test_a_transformer_from_a_file(viewer, dock, stacks, ramp, write, confirm):
    viewer.add_layer(ramp)
    confirm(True)
    dock.network.value = write(TRANSFORMER)
    dock.method.value = "HiResCAM"
    dock.explain()
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
    dock.network.value = write(CONTRAST)
    dock.predict()
    dock.finish()
    dock.classes.value = typed
    dock.explain()
    [stack] = stacks()
    about = stack.metadata["camanim"]
    assert about["class_name"] == "cat - hen"
    assert about["index"] is None
    assert dock.classes.value == typed


def test_several_targets_of_listed_classes(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.predict()
    dock.finish()
    first, second = dock.classes.box.itemText(1), dock.classes.box.itemText(2)
    names = [text.split()[0] for text in (first, second)]
    dock.settings.layers.value = "blocks"
    dock.classes.value = f"{first} - {second}; {names[1]}; likeliest class"
    dock.explain()
    # Only the first stack is visible.
    assert [stack.metadata["camanim"]["class_name"] for stack in stacks()] == [
        f"{names[0]} - {names[1]}",
        names[1],
        names[0],
    ]
    assert [stack.visible for stack in stacks()] == [True, False, False]
    assert "3 stacks" in dock.status.text


def test_a_class_can_be_typed_before_predict(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.classes.value = "benign"
    dock.explain()
    assert stacks()[0].metadata["camanim"]["class_name"] == "benign"
    dock.classes.value = "bening"
    dock.explain()
    assert "'bening'" in dock.status.text
    assert len(stacks()) == 1


def test_every_method_has_a_form_of_its_options(dock):
    settings = dock.settings
    dock.sections["Settings"].expand()
    dock.method.value = "GradCAM"
    assert settings.options_form.names == []
    assert settings.method_options.native.isHidden()
    for name, method in camanim.methods().items():
        dock.method.value = name
        form = settings.options_form
        assert form.names == list(method.options)
        assert form.values() == {}
        assert all(form[name].tooltip for name in form.names), name
        assert settings.method_options.native.isHidden() == (not method.options)


def test_options_are_passed_to_the_method(viewer, dock, stacks, ramp, write, confirm, notified):
    viewer.add_layer(ramp)
    confirm(True)
    dock.network.value = write(CONTRAST)
    dock.method.value = "SS-CAM"
    options = dock.settings.options_form
    options["channels"].value = "2"
    options["samples"].value = 3
    options["std"].value = "0.5"
    dock.explain()
    expected = {"channels": 2, "samples": 3, "std": 0.5}
    assert stacks()[0].metadata["camanim"]["provenance"]["options"] == expected
    options["channels"].value = "some"
    dock.explain()
    assert "channels" in dock.status.text
    assert "channels" in notified()
    assert dock.run_button.text == "Run"
    assert len(stacks()) == 1
    # An empty field is the default.
    options["channels"].value = ""
    assert "channels" not in options.values()
    dock.method.value = "KPCA-CAM"
    dock.settings.options_form["kernel"].value = "rbf"
    assert dock.settings.options_form.values() == {"kernel": "rbf"}


def test_methods_have_tooltips_and_can_be_typed(dock, qtbot):
    box = dock.method.box
    tips = [box.itemData(i, Qt.ItemDataRole.ToolTipRole) for i in range(box.count())]
    for method, tip in zip(camanim.methods().values(), tips, strict=True):
        assert ("Not class-specific" in tip) is not method.class_specific
        for part in (method.paper, method.cost):
            assert part.replace("&", "&amp;").replace("'", "&#x27;") in tip
    line = box.lineEdit()
    line.setFocus()
    line.selectAll()
    qtbot.keyClicks(line, "score")
    qtbot.keyClick(line, Qt.Key.Key_Return)
    assert dock.method.value == "ScoreCAM"
    assert find_method("ScoreCAM").cost in box.toolTip()
    assert dock.settings.options_form.names == list(find_method("ScoreCAM").options)


def test_eigen_smoothing_is_disabled_for_methods_without_channels(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    box = dock.settings.maps["eigen_smooth"]
    box.value = True
    dock.method.value = "EigenCAM"
    assert not box.enabled
    assert "EigenCAM" in box.tooltip
    dock.settings.layers.value = "blocks"
    dock.explain()
    dock.method.value = "HiResCAM"
    assert box.enabled
    dock.explain()
    smoothed = [s.metadata["camanim"]["provenance"]["eigen_smooth"] for s in stacks()]
    assert smoothed == [True, False]


def test_the_guided_image_is_a_layer_that_cannot_be_explained(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    dock.method.value = "Guided Grad-CAM"
    dock.settings.layers.value = "blocks"
    dock.explain()
    [guided] = [layer for layer in viewer.layers if layer is not ramp and not is_stack(layer)]
    assert "guided" in dock.status.text
    viewer.layers.selection.active = guided
    assert [layer for layer in dock.image.choices if layer is not None] == [ramp]
    assert dock.image.current_choice == "ramp"
    guided.visible = True
    assert guided.data.shape == (128, 128)


def test_settings_are_passed_to_the_engine(viewer, dock, stacks, ramp, write, confirm):
    viewer.add_layer(ramp)
    confirm(True)
    dock.network.value = write(CONTRAST)
    settings = dock.settings
    settings.overrides["size"].value = "20, 30"
    settings.overrides["mean"].value = "0.5"
    settings.overrides["std"].value = "0.25"
    settings.layers.value = "0, 3"
    settings.maps["counterfactual"].value = True
    settings.maps["augment"].value = True
    settings.maps["show_1d"].value = True
    settings.computing["precision"].value = "bfloat16"
    settings.computing["seed"].value = 7
    settings.maps["fit"].value = "crop"
    dock.explain()
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
    dock.network.value = write(CONTRAST)
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\nthree\n")
    weights = tmp_path / "weights.pth"
    net = camanim.load_model(str(tmp_path / "net.py"), trust=True).net
    torch.save({k: v + 1 for k, v in net.state_dict().items()}, weights)
    dock.settings.classes.value = names
    dock.settings.weights.value = weights
    dock.settings.overrides["size"].value = "24"
    card = tmp_path / "card.toml"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a: (str(card.with_suffix("")), ""))
    dock.saving.card_action.trigger()
    dock.finish()
    assert str(card) in dock.status.text
    for edit in (dock.settings.classes, dock.settings.weights):
        edit.line_edit.value = ""
    dock.settings.overrides.reset()
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a: (str(card), ""))
    dock.network.open_file()
    assert dock.network.value == str(card)
    dock.predict()
    dock.finish()
    assert {dock.classes.box.itemText(i) for i in range(1, 4)} == {"one", "two", "three"}
    dock.explain()
    animation = stacks()[0].data.animation
    assert animation.tensor.shape == (1, 1, 24, 24)
    torch.testing.assert_close(
        animation.model.net.state_dict()["0.bias"], net.state_dict()["0.bias"] + 1
    )


def test_a_folder_can_be_opened(dock, tmp_path, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a: str(tmp_path))
    dock.network.open_folder()
    assert dock.network.value == str(tmp_path)
    assert dock.network.box.findText(str(tmp_path)) >= 0


def test_a_source_can_be_typed(viewer, dock, stacks, ramp):
    viewer.add_layer(ramp)
    source = (
        "monai/DenseNet?spatial_dims=2&in_channels=1&out_channels=3&block_config=(1,1)"
        "&growth_rate=4&init_features=4"
    )
    dock.network.value = source
    dock.settings.overrides["size"].value = "32"
    dock.settings.layers.value = "blocks"
    dock.explain()
    assert len(stacks()) == 1
    assert dock.network.box.findText(source) >= 0
    dock.network.value = "monai/DenseNet?spatial=2"
    dock.explain()
    assert "spatial_dims" in dock.status.text
    assert dock.network.box.findText("monai/DenseNet?spatial=2") < 0


@pytest.mark.parametrize(
    ("field", "text"), [("size", "big"), ("mean", "0.5 0.5"), ("channels", "3.5")]
)
def test_an_invalid_field_is_named(viewer, dock, ramp, notified, field, text):
    viewer.add_layer(ramp)
    dock.settings.overrides[field].value = text
    for action in (dock.run, dock.predict, lambda: dock.saving.save_card("x.toml")):
        action()
        assert not dock.runner.running
        message = dock.status.text
        assert message.startswith(f"{field} ")
        assert text in message
        assert notified() == message


def test_the_settings_expand_within_the_window(viewer, dock, qtbot):
    height = viewer.window._qt_window.height()
    section = dock.sections["Settings"]
    qtbot.waitUntil(dock.native.isVisible)
    assert not section.isExpanded()
    assert section.content().height() == 0
    section.toggleButton().click()
    qtbot.waitUntil(lambda: section.content().height() > 300)
    dock.method.value = "SESS"
    needed = section.content().minimumSizeHint().height()
    qtbot.waitUntil(lambda: section.content().height() >= needed)
    assert viewer.window._qt_window.height() == height
    # Nothing is cut off on the right.
    root = dock.native
    right = root.mapToGlobal(root.rect().topRight()).x()
    seed = dock.settings.computing["seed"].native
    for field in (dock.network.button, seed, dock.settings.weights.native):
        assert field.mapToGlobal(field.rect().topRight()).x() <= right
    assert root.isAncestorOf(seed)
    # The devices are listed in a thread, which imports torch.
    qtbot.waitUntil(lambda: dock._device_search is not None, timeout=5_000)
    assert ("cuda" in dock.settings.device.choices) <= torch.cuda.is_available()


def test_the_wheel_does_not_change_fields(dock):
    wheel = QWheelEvent(
        QPointF(5, 5), QPointF(5, 5), QPoint(0, -120), QPoint(0, -120), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    dock.sections["Settings"].expand()
    settings = dock.settings
    for field in (settings.computing["seed"].native, settings.maps["fit"].native):
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
    dock.settings.layers.value = "blocks"
    dock.explain()
    assert "Batches were halved." in dock.status.text
    assert stacks()[0].metadata["camanim"]["notes"] == ["Batches were halved."]


def test_closing_the_dock_while_devices_are_listed(viewer, dock, qtbot):
    dock.sections["Settings"].expand()
    with qtbot.waitSignal(dock._device_search.finished, timeout=60_000):
        viewer.window.remove_dock_widget(dock.window_dock)
