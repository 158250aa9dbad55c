"""The layer tree in a real window: rows, filter, ticks, selection and keys."""

import os
import sys

import numpy as np
import pytest
import torch
from napari.components import ViewerModel
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QStyle, QStyleOptionViewItem
from torch import nn

import camanim
import napari_camanim
from napari_camanim.session import Session
from napari_camanim.tree.model import BAR, KIND, NAME, PARAMETERS, SCORE, SHAPE
from napari_camanim.tree.nodes import brief_count, module_tree
from napari_camanim.tree.view import LayerTree

CHECK = Qt.ItemDataRole.CheckStateRole
CHECKED, PARTIAL, UNCHECKED = (
    Qt.CheckState.Checked,
    Qt.CheckState.PartiallyChecked,
    Qt.CheckState.Unchecked,
)


class Block(nn.Module):
    """A residual block, whose ReLU runs twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(x + self.norm(self.relu(self.conv(x))))


class Net(nn.Module):
    """Blocks in a ModuleList, which is not called itself, and a Sequential as head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)


@pytest.fixture
def animation(image):
    torch.manual_seed(0)
    return camanim.animate(Net().eval(), image, target=1)


@pytest.fixture
def model(qtbot):
    """A viewer without a canvas; the tree has a window of its own, which opens faster."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        pytest.skip("needs a display: run under xvfb-run")
    return ViewerModel()


@pytest.fixture
def stack(model, image, animation):
    return napari_camanim.add_animation(model, animation, model.add_image(image, name="image"))


@pytest.fixture
def session(model):
    return Session.of(model)


@pytest.fixture
def tree(session, qtbot):
    widget = LayerTree(session)
    qtbot.addWidget(widget)
    widget.resize(290, 400)
    widget.show()
    return widget


@pytest.fixture
def docked(viewer, image, animation):
    """Viewer, stack and tree in the window of napari."""
    stack = napari_camanim.add_animation(viewer, animation, viewer.add_image(image, name="image"))
    tree = LayerTree(Session.of(viewer))
    viewer.window.add_dock_widget(tree, name="Layers", area="right")
    return viewer, stack, tree


def rows(tree, parent=None):
    """Return the labels of all listed rows, in order from top to bottom."""
    model = tree.model
    parent = model.index_of(model.root) if parent is None else parent
    found = []
    for row in range(model.rowCount(parent)):
        index = model.index(row, 0, parent)
        found += [model.node(index).path, *rows(tree, index)]
    return found


def at(tree, path, column=NAME):
    """Return the model index of a row."""
    node = next(node for node in tree.model.root if node.path == path)
    return tree.model.index_of(node, column)


def text(tree, path, column):
    return at(tree, path, column).data()


def names(stack):
    return [stack.data.animation.layers[i].label for i in stack.data.indices]


def selected(tree):
    index = tree.view.currentIndex()
    return tree.model.node(index).path if index.isValid() else None


def click_check_box(tree, qtbot, path):
    index = at(tree, path)
    tree.view.scrollTo(index)
    option = QStyleOptionViewItem()
    option.initFrom(tree.view)
    option.rect = tree.view.visualRect(index)
    option.features |= QStyleOptionViewItem.ViewItemFeature.HasCheckIndicator
    element = QStyle.SubElement.SE_ItemViewItemCheckIndicator
    box = tree.view.style().subElementRect(element, option, tree.view)
    left = Qt.MouseButton.LeftButton
    qtbot.mouseClick(tree.view.viewport(), left, pos=box.center())


# -- Rows --------------------------------------------------------------------------------------------


def test_rows_are_the_modules_with_every_call(tree, stack, animation):
    # Independent of the tree: the modules of the network, without itself, and the second calls.
    modules = [name for name, _ in Net().named_modules() if name]
    again = [layer.label for layer in animation.layer_calls if layer.call]
    assert again == ["blocks.0.relu:1", "blocks.1.relu:1"]
    assert sorted(rows(tree)) == sorted([*modules, *again, "(network)"])
    for path in modules:
        above = tree.model.node(at(tree, path)).parent
        assert above.path == path.rpartition(".")[0]
    assert text(tree, "blocks.0.relu", NAME) == "relu"
    assert text(tree, "blocks.0.relu:1", NAME) == "relu #2"
    assert tree.model.node(at(tree, "blocks.0.relu:1")).parent.path == "blocks.0"


def test_columns_describe_the_call(tree, stack):
    assert text(tree, "stem", KIND) == "Conv2d"
    assert text(tree, "stem", SHAPE) == "4×16×16"
    assert text(tree, "stem", PARAMETERS) == str(4 * 3 * 9 + 4)
    assert text(tree, "head.2", SHAPE) == "3"
    # Not called itself.
    assert [text(tree, "blocks", c) for c in (KIND, SHAPE, PARAMETERS, SCORE)] == [""] * 4


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, ""),
        (928, "928"),
        (1000, "1.0k"),
        (9_960, "10k"),
        (2_223_872, "2.2M"),
        (3 * 10**9, "3.0G"),
    ],
)
def test_counts_are_brief(number, words):
    assert brief_count(number) == words


def test_rows_without_a_map_are_faded_and_say_why(tree, stack, animation):
    role, tip = Qt.ItemDataRole.ForegroundRole, Qt.ItemDataRole.ToolTipRole
    with_map = {layer.label for layer in animation.layers}
    for path in rows(tree):
        assert (at(tree, path).data(role) is None) == (path in with_map)
        assert ("No map" in at(tree, path).data(tip)) == (path not in with_map)
    assert "1-D" in at(tree, "head.2").data(tip)
    # The block returns the tensor of its last ReLU.
    assert "blocks.0.relu:1" in at(tree, "blocks.0").data(tip)
    assert at(tree, "head.2").data(CHECK) is None
    assert not tree.model.flags(at(tree, "head")) & Qt.ItemFlag.ItemIsUserCheckable


def test_scores_are_the_first_column_of_the_findings(tree, stack, session, animation, roads):
    assert at(tree, "stem", SCORE).data(BAR) is None
    scores = np.linspace(-0.2, 0.5, len(animation))
    scores[1] = np.nan
    masks = roads.localisation(np.full(len(scores), 0.1), np.full(len(scores), 0.1))
    animation.add(masks)
    animation.add(roads.road(scores, layers=animation.layers))
    session.refresh(stack)
    header = tree.model.headerData(SCORE, Qt.Orientation.Horizontal)
    assert header == next(iter(animation.road.columns()))
    for i, layer in enumerate(animation.layers):
        bar = at(tree, layer.label, SCORE).data(BAR)
        if i == 1:
            assert bar is None
        else:
            np.testing.assert_allclose(bar, (scores[i], -0.2, 0.5))


def pixels(tree, index):
    """Return the painted cell of an index, (height, width, 3)."""
    area = tree.view.visualRect(index)
    image = tree.view.viewport().grab(area).toImage()
    return np.array(
        [
            [QColor(image.pixel(x, y)).getRgb()[:3] for x in range(image.width())]
            for y in range(image.height())
        ]
    )


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_bar_is_as_long_as_its_score(docked, roads, theme, qtbot):
    viewer, stack, tree = docked
    session, animation = Session.of(viewer), stack.data.animation
    viewer.theme = theme
    scores = np.zeros(len(animation))
    chosen = [layer.label for layer in animation.layers].index("blocks.1.conv")
    scores[[0, chosen]] = 1, 0.5
    animation.add(roads.road(scores, layers=animation.layers))
    session.refresh(stack)
    tree.view.expandAll()
    tree.view.header().resizeSection(SCORE, 60)
    qtbot.wait(50)

    def length(path):
        index = at(tree, path, SCORE)
        cell = pixels(tree, index)
        background = cell[cell.shape[0] // 2, -1]
        return (np.abs(cell[cell.shape[0] // 2] - background).sum(1) > 60).sum()

    assert length("stem") > 30
    assert abs(length("blocks.1.conv") - length("stem") / 2) <= 2
    assert length("head") == 0


# -- Following the slider ----------------------------------------------------------------------------


def test_the_row_of_the_seen_layer_is_selected_and_visible(docked, animation):
    viewer, _, tree = docked
    session = Session.of(viewer)
    labels = [layer.label for layer in animation.layers]
    assert selected(tree) == labels[session.index]
    for position in (0, len(labels) - 1, labels.index("blocks.1.conv")):
        viewer.dims.set_point(0, position)
        assert selected(tree) == labels[position]
        assert tree.view.visualRect(tree.view.currentIndex()).isValid()


def test_a_click_on_a_row_moves_the_slider_there(docked, animation, qtbot):
    viewer, _, tree = docked
    session = Session.of(viewer)
    tree.view.expandAll()
    index = at(tree, "blocks.0.relu", KIND)
    moves = []
    session.index_changed.connect(moves.append)
    left = Qt.MouseButton.LeftButton
    qtbot.mouseClick(tree.view.viewport(), left, pos=tree.view.visualRect(index).center())
    wanted = [layer.label for layer in animation.layers].index("blocks.0.relu")
    assert moves == [wanted]
    assert viewer.dims.point[0] == wanted
    assert selected(tree) == "blocks.0.relu"


def test_a_row_of_the_same_tensor_jumps_and_stays_selected(tree, stack, session, animation):
    session.go_to(0)
    tree.view.setCurrentIndex(at(tree, "blocks.0"))
    assert animation.layers[session.index].label == "blocks.0.relu:1"
    assert selected(tree) == "blocks.0"


def test_rows_without_a_map_do_not_move_the_slider(tree, stack, session):
    session.go_to(2)
    tree.view.setCurrentIndex(at(tree, "head.2"))
    assert session.index == 2
    assert selected(tree) == "head.2"


def test_a_row_that_is_not_ticked_does_not_move_the_slider(tree, stack, session):
    session.select_layers([0, 1])
    session.go_to(0)
    tree.view.setCurrentIndex(at(tree, "blocks.1.conv"))
    assert session.index == 0


def test_arrow_keys_move_through_the_layers(tree, stack, session, animation, qtbot):
    session.go_to(0)
    tree.view.expandAll()
    tree.view.setFocus()
    qtbot.keyClick(tree.view, Qt.Key.Key_Down)
    qtbot.keyClick(tree.view, Qt.Key.Key_Down)
    qtbot.keyClick(tree.view, Qt.Key.Key_Down)
    # stem, blocks, blocks.0, blocks.0.conv
    assert selected(tree) == "blocks.0.conv"
    assert animation.layers[session.index].label == "blocks.0.conv"


# -- Ticks -------------------------------------------------------------------------------------------


def test_a_tick_covers_the_children(tree, stack, animation, qtbot):
    assert at(tree, "blocks").data(CHECK) == CHECKED
    click_check_box(tree, qtbot, "blocks.0")
    assert names(stack) == [n for n in names_of(animation) if not n.startswith("blocks.0")]
    assert at(tree, "blocks.0").data(CHECK) == UNCHECKED
    assert at(tree, "blocks.0.conv").data(CHECK) == UNCHECKED
    assert at(tree, "blocks").data(CHECK) == PARTIAL
    click_check_box(tree, qtbot, "blocks")
    assert names(stack) == names_of(animation)
    assert at(tree, "blocks.0").data(CHECK) == CHECKED


def names_of(animation):
    return [layer.label for layer in animation.layers]


def test_ticks_compute_no_map_again_and_keep_the_seen_layer(tree, stack, session, animation, qtbot):
    maps = list(animation.maps)
    session.go_to(names_of(animation).index("blocks.1.norm"))
    click_check_box(tree, qtbot, "blocks.0")
    assert stack.data.animation is animation
    assert all(one is two for one, two in zip(animation.maps, maps, strict=True))
    assert names_of(animation)[session.index] == "blocks.1.norm"
    assert selected(tree) == "blocks.1.norm"


@pytest.mark.slow
def test_space_ticks_the_row_and_shift_space_its_own_layer_alone(model, tree, image, qtbot):
    animation = camanim.animate(Net().eval(), image, target=1, layers="all")
    stack = napari_camanim.add_animation(model, animation, model.add_image(image))
    tree.view.setCurrentIndex(at(tree, "blocks.0", SHAPE))
    qtbot.keyClick(tree.view, Qt.Key.Key_Space, Qt.KeyboardModifier.ShiftModifier)
    assert set(names_of(animation)) - set(names(stack)) == {"blocks.0"}
    qtbot.keyClick(tree.view, Qt.Key.Key_Space)
    assert at(tree, "blocks.0").data(CHECK) == CHECKED
    qtbot.keyClick(tree.view, Qt.Key.Key_Space)
    assert not [name for name in names(stack) if name.startswith("blocks.0")]


@pytest.mark.slow
def test_the_last_layer_stays(tree, stack, session, qtbot):
    session.select_layers([0])
    click_check_box(tree, qtbot, "stem")
    assert names(stack) == ["stem"]
    assert at(tree, "stem").data(CHECK) == CHECKED


@pytest.mark.slow
def test_the_actions(tree, stack, session, animation, qtbot):
    session.go_to(names_of(animation).index("blocks.0.norm"))
    tree.buttons["none"].click()
    assert names(stack) == ["blocks.0.norm"]
    tree.filter.setText("conv2d")
    tree.buttons["matches"].click()
    assert names(stack) == ["stem", "blocks.0.conv", "blocks.1.conv"]
    tree.buttons["all"].click()
    assert names(stack) == names_of(animation)


@pytest.mark.slow
def test_matches_without_a_map_change_nothing(tree, stack, animation):
    tree.filter.setText("Block")
    tree.buttons["matches"].click()
    # All names with "block" in them.
    assert names(stack) == [n for n in names_of(animation) if "block" in n]
    tree.filter.setText("linear")
    before = names(stack)
    tree.buttons["matches"].click()
    assert names(stack) == before


@pytest.mark.slow
def test_ticks_follow_the_session(tree, stack, session):
    session.select_layers([0])
    assert at(tree, "stem").data(CHECK) == CHECKED
    assert at(tree, "blocks").data(CHECK) == UNCHECKED
    session.select_layers(None)
    assert at(tree, "blocks").data(CHECK) == CHECKED


# -- Filter ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("norm", ["blocks", "blocks.0", "blocks.0.norm", "blocks.1", "blocks.1.norm"]),
        ("CONV2D", ["stem", "blocks", "blocks.0", "blocks.0.conv", "blocks.1", "blocks.1.conv"]),
        ("blocks.1 batch", ["blocks", "blocks.1", "blocks.1.norm"]),
        ("nothing", []),
    ],
)
def test_the_filter_keeps_ancestors(tree, stack, qtbot, words, expected):
    qtbot.keyClicks(tree.filter, words)
    assert rows(tree) == expected
    for path in expected:
        assert tree.view.visualRect(at(tree, path)).isValid()


@pytest.mark.slow
def test_without_the_filter_the_tree_is_as_before(tree, stack, session, qtbot):
    session.go_to(0)
    tree.view.collapseAll()
    tree.view.expand(at(tree, "blocks"))
    everything = rows(tree)
    qtbot.keyClicks(tree.filter, "conv")
    assert tree.view.isExpanded(at(tree, "blocks.0"))
    qtbot.keyClick(tree.filter, Qt.Key.Key_Escape)
    assert tree.filter.text() == ""
    assert rows(tree) == everything
    assert tree.view.isExpanded(at(tree, "blocks"))
    assert not tree.view.isExpanded(at(tree, "blocks.0"))
    assert selected(tree) == "stem"


@pytest.mark.slow
def test_only_ticked_lists_the_layers_of_the_stack(tree, stack, session, animation):
    session.select_layers([names_of(animation).index("blocks.0.conv")])
    tree.buttons["only_ticked"].click()
    assert rows(tree) == ["blocks", "blocks.0", "blocks.0.conv"]
    session.select_layers([0])
    assert rows(tree) == ["stem"]
    tree.buttons["only_ticked"].click()
    assert len(rows(tree)) > 10


@pytest.mark.slow
def test_the_slider_is_not_moved_by_the_filter(tree, stack, session, animation, qtbot):
    session.go_to(names_of(animation).index("blocks.1.norm"))
    moves = []
    session.index_changed.connect(moves.append)
    qtbot.keyClicks(tree.filter, "conv")
    assert selected(tree) is None
    tree.filter.clear()
    assert selected(tree) == "blocks.1.norm"
    assert moves == []


@pytest.mark.slow
def test_ctrl_f_goes_to_the_filter(tree, stack, qtbot):
    tree.view.setFocus()
    before = selected(tree)
    qtbot.keyClick(tree.view, Qt.Key.Key_F, Qt.KeyboardModifier.ControlModifier)
    # `hasFocus` needs an active window, thus a window manager.
    assert tree.window().focusWidget() is tree.filter
    assert selected(tree) == before
    qtbot.keyClicks(tree.filter, "stem")
    qtbot.keyClick(tree.filter, Qt.Key.Key_Return)
    assert tree.window().focusWidget() is tree.view


# -- Stacks ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_a_stack_a_sentence_says_what_to_do(tree, model, image, animation):
    assert tree.empty.isVisible()
    assert not tree.view.isVisible()
    layer = model.add_image(image)
    stack = napari_camanim.add_animation(model, animation, layer)
    assert tree.view.isVisible()
    assert not tree.empty.isVisible()
    assert "stem" in rows(tree)
    model.layers.remove(stack)
    assert tree.empty.isVisible()
    assert rows(tree) == []


@pytest.mark.slow
def test_another_stack_has_another_tree(tree, stack, model, image):
    other = camanim.animate(camanim.load_model("demo/ultrasound"), image)
    added = napari_camanim.add_animation(model, other, model.layers["image"])
    paths = rows(tree)
    assert {layer.label for layer in other.layer_calls} <= set(paths)
    added.visible, stack.visible = False, True
    assert "blocks.0.relu:1" in rows(tree)
    added.visible, stack.visible = True, False
    assert rows(tree) == paths


@pytest.mark.slow
def test_widths_of_columns_are_kept_within_the_session(tree, stack, session, model, qtbot):
    header = tree.view.header()
    header.resizeSection(KIND, 77)
    tree.filter.setText("conv")
    napari_camanim.add_animation(model, stack.data.animation, model.layers["image"])
    assert header.sectionSize(KIND) == 77
    other = LayerTree(session)
    qtbot.addWidget(other)
    assert other.view.header().sectionSize(KIND) == 77


@pytest.mark.slow
def test_the_tree_fits_the_dock(docked):
    _, _, tree = docked
    assert tree.minimumSizeHint().width() <= 300
    assert tree.sizeHint().width() <= 300
    tree.view.expandAll()
    assert not tree.view.horizontalScrollBar().maximum()


@pytest.mark.slow
def test_rows_without_a_map_are_paler_in_every_theme(docked, qtbot):
    viewer, _, tree = docked
    for theme in ("dark", "light"):
        viewer.theme = theme
        tree.view.expandAll()
        qtbot.wait(50)

        def contrast(path):
            cell = pixels(tree, at(tree, path, KIND))
            return np.abs(cell - cell[0, 0]).max()

        assert contrast("head") < 0.75 * contrast("stem")
        assert contrast("head") > 40


@pytest.mark.slow
def test_a_closed_tree_is_disconnected(docked, animation, qtbot):
    viewer, stack, tree = docked
    session = Session.of(viewer)
    count = len(session.index_changed)
    viewer.window.remove_dock_widget(tree)
    tree.deleteLater()
    qtbot.waitUntil(lambda: len(session.index_changed) == count - 1, timeout=2000)
    session.go_to(0)
    session.select_layers([0, 1])
    viewer.layers.remove(stack)
    # Without users and stacks, a session ends.
    assert Session.of(viewer) is not session


@pytest.mark.slow
def test_every_control_has_a_tooltip(tree):
    for widget in (tree.filter, tree.view, *tree.buttons.values()):
        assert widget.toolTip()


@pytest.mark.slow
def test_the_tree_of_a_real_network_holds_every_call(shared):
    torchvision = pytest.importorskip("torchvision")
    net = torchvision.models.densenet161(weights=None).eval()
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    animation = camanim.animate(net, image, target=0)
    root = module_tree(animation)
    assert sorted(n.path for n in root if n.call is not None) == sorted(
        layer.label for layer in animation.layer_calls
    )
    assert {n.path for n in root} - {"(network)"} >= {n for n, m in net.named_modules() if n}
    np.testing.assert_array_equal(
        np.sort(np.concatenate([n.covered for n in root.children])), np.arange(len(animation))
    )


@pytest.mark.slow
def test_the_position_of_a_row_in_the_window_is_that_of_the_click(tree, stack, qtbot):
    """A check box that is clicked belongs to the row below the pointer, after a filter as well."""
    tree.filter.setText("conv")
    for path in ("stem", "blocks.1.conv"):
        point = tree.view.visualRect(at(tree, path)).center()
        assert tree.model.node(tree.view.indexAt(QPoint(point))).path == path
    click_check_box(tree, qtbot, "blocks.1.conv")
    assert "blocks.1.conv" not in names(stack)
    assert "blocks.0.conv" in names(stack)
