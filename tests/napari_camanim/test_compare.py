"""Runs side by side: what each cell shows, that everything is restored, and the table of runs."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from napari.layers import Image
from qtpy.QtCore import Qt

import camanim
import napari_camanim
from camanim.alignment import align
from camanim.errors import CamError, ImageError, SettingError
from camanim.images import Geometry
from camanim.layer_info import LayerInfo, Status
from napari_camanim.comparison.badges import grid_shape, place_of
from napari_camanim.comparison.requests import variants
from napari_camanim.comparison.run_table import RunTable, runs_of, write_runs
from napari_camanim.comparison.usual import compare_normalizations, show_runs, subtract
from napari_camanim.comparison.view import CompareView
from napari_camanim.layers.run import Run
from napari_camanim.layers.stack import StackData, is_input, is_stack
from napari_camanim.layers.views import take_view
from napari_camanim.session import Session
from napari_camanim.work.networks import ModelSpec
from napari_camanim.work.request import RunRequest

SIZE = 16


@pytest.fixture(scope="module")
def base():
    """A result, of which maps, layers and image are replaced."""
    model = camanim.load_model("demo/ultrasound")
    return camanim.animate(model, np.zeros((128, 128), np.uint8), layers="blocks")


def calls(count, prefix="block"):
    return [
        LayerInfo(i, f"{prefix}.{i}", 0, "Conv2d", (1, 4, 8, 8), 10, None, Status.OK)
        for i in range(count)
    ]


def quadrant_map(quadrant):
    """Return a map that is 1 in one quadrant, from the top left one clockwise, and 0 elsewhere."""
    raw = np.zeros((8, 8), np.float32)
    rows, columns = [(slice(0, 4), slice(0, 4)), (slice(0, 4), slice(4, 8)),
                     (slice(4, 8), slice(4, 8)), (slice(4, 8), slice(0, 4))][quadrant % 4]  # fmt: skip
    raw[rows, columns] = 1
    return raw


@pytest.fixture
def make_result(base, roads):
    """Return a function that makes a result whose layer i is high in quadrant ``first + i``."""

    def make(count=6, first=0, *, shape=(128, 128), method="GradCAM", prefix="block", kept=None):
        every = calls(count, prefix)
        kept = range(count) if kept is None else kept
        layers = [every[i] for i in kept]
        result = replace(
            base,
            maps=[quadrant_map(first + i) for i in kept],
            layers=layers,
            layer_calls=every,
            method=method,
            image=np.full(shape, 128, np.uint8),
            geometry=Geometry((SIZE, SIZE), tuple(side / SIZE for side in shape[-2:])),
            findings={},
            extremes=None,
            notes=[],
        )
        result.add(roads.road([(first + 1) * i / 100 for i in kept], layers=layers))
        return result

    return make


@pytest.fixture
def image(viewer):
    return viewer.add_image(np.full((128, 128), 128, np.uint8), name="grey")


@pytest.fixture
def make(viewer, image, make_result):
    """Return a function that adds an opaque stack; see `make_result`."""

    def add(*args, layer=None, **kwargs):
        layer = image if layer is None else layer
        stack = napari_camanim.add_animation(viewer, make_result(*args, **kwargs), layer)
        stack.opacity = 1
        return stack

    return add


@pytest.fixture
def session(viewer):
    return Session.of(viewer)


def state_of(viewer):
    grid, camera = viewer.canvas.grid, viewer.scene.camera
    return {
        "layers": [layer.name for layer in viewer.layers],
        "visible": [layer.visible for layer in viewer.layers],
        "affine": [np.asarray(layer.affine.affine_matrix).tolist() for layer in viewer.layers],
        "indices": [layer.data.indices for layer in viewer.layers if is_stack(layer)],
        "grid": (grid.enabled, grid.stride, grid.shape, grid.spacing),
        "camera": (tuple(camera.center), camera.zoom),
        "selected": {layer.name for layer in viewer.layers.selection},
        "active": viewer.layers.selection.active.name,
        "point": viewer.dims.point,
        "overlays": {
            key: (overlay.visible, getattr(overlay, "text", None))
            for key, overlay in viewer.canvas.overlays.items()
        },
        "callbacks": len(viewer.mouse_drag_callbacks),
    }


def hot_quadrants(viewer, view):
    """Return the quadrants of each cell in which the screenshot has the high end of the colormap.

    Cells are the rows and columns of the canvas, and the camera is in the middle of each.
    """
    picture = viewer.screenshot(canvas_only=True, flash=False).astype(int)
    height, width = picture.shape[:2]
    rows, columns = viewer.canvas.grid.shape
    zoom = viewer.scene.camera.zoom * width / viewer.canvas.size[1]
    center = viewer.scene.camera.center[-2:]
    found = []
    for i, cell in enumerate(view.cells):
        row, column = divmod(i, columns)
        middle = ((row + 0.5) * height / rows, (column + 0.5) * width / columns)
        low, high = cell.image.extent.world[:, -2:]
        side, hot = high - low, []
        for q, share in enumerate([(0.3, 0.3), (0.3, 0.7), (0.7, 0.7), (0.7, 0.3)]):
            y, x = np.add(middle, (low + share * side - center) * zoom).astype(int)
            red, _, blue = picture[y, x, :3]
            hot += [q] if red > blue + 40 else []
        found.append(hot)
    return found


def settle(qtbot):
    qtbot.wait(60)


# -- Which layers ----------------------------------------------------------------------------------


def result_with(count, kept=None, prefix="block"):
    every = calls(count, prefix)
    layers = every if kept is None else [every[i] for i in kept]
    return SimpleNamespace(layers=layers, layer_calls=every)


def test_results_of_one_network_show_the_same_layer():
    one, two = result_with(8), result_with(8, [0, 2, 3, 7])
    aligned = align([one, two], [range(8), range(4)])
    assert aligned[0] == tuple(range(8))
    shown = [two.layers[i].index for i in aligned[1]]
    for place, own in enumerate(shown):
        assert abs(own - place) == min(abs(k - place) for k in (0, 2, 3, 7))
    assert [p for p in (0, 2, 3, 7) if shown[p] != p] == []


def test_parts_of_one_network_are_interleaved():
    one, two = result_with(6, [0, 2, 4]), result_with(6, [1, 3, 5])
    aligned = align([one, two], [range(3), range(3)])
    assert len(aligned[0]) == 6
    assert [one.layers[i].index for i in aligned[0]] == [0, 0, 2, 2, 4, 4]
    assert [two.layers[i].index for i in aligned[1]] == [1, 1, 1, 3, 3, 5]


@pytest.mark.parametrize(("long", "short"), [(9, 4), (30, 29), (7, 1), (149, 22)])
def test_other_networks_are_aligned_by_relative_depth(long, short):
    results = [result_with(long), result_with(short, prefix="other")]
    first, second = align(results, [range(long), range(short)])
    assert first == tuple(range(long))
    assert sorted(set(second)) == list(range(short))
    assert list(second) == sorted(second)
    for i, j in enumerate(second):
        # The nearest depth.
        depth = i * (short - 1) / max(long - 1, 1)
        assert abs(j - depth) <= 0.5 + 1e-9


def test_a_selection_of_layers_is_kept():
    one, two = result_with(8), result_with(8)
    assert align([one, two], [(1, 4, 6), (1, 4, 6)]) == [(1, 4, 6)] * 2


# -- Layout and names ------------------------------------------------------------------------------


def test_cells_are_as_large_as_the_canvas_allows():
    assert grid_shape(2, (400, 800), (100, 100)) == (1, 2)
    assert grid_shape(2, (800, 400), (100, 100)) == (2, 1)
    assert grid_shape(2, (600, 600), (100, 300)) == (2, 1)
    assert grid_shape(3, (300, 900), (100, 100)) == (1, 3)
    assert grid_shape(3, (700, 700), (100, 100)) == (2, 2)
    assert [grid_shape(n, (700, 700), (1, 1)) for n in (4, 5, 6)] == [(2, 2), (2, 3), (2, 3)]


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (1, 3), (2, 2), (2, 3)])
def test_each_cell_has_its_place_for_a_badge(shape):
    places = [place_of(at, shape) for at in np.ndindex(shape)]
    assert len(set(places)) == len(places)


# -- Cells -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_each_cell_shows_its_own_map_at_every_step(viewer, qtbot, make, count):
    stacks = [make(6, first=i, method=f"M{i}") for i in range(count)]
    view = napari_camanim.compare(viewer, stacks)
    settle(qtbot)
    assert view.stacks == stacks
    for step in (0, 1, 2, 5):
        viewer.dims.set_point(0, step)
        for i, (stack, cell) in enumerate(zip(stacks, view.cells, strict=True)):
            assert stack.data.indices[step] == step
            assert cell.badge.visible
            words = cell.badge.text.split()
            assert f"M{i}" in words
            assert f"block.{step}" in words
            # The score that `make_result` gave this layer of this run.
            assert f"ROAD {(i + 1) * step / 100:.2f}" in cell.badge.text
        assert hot_quadrants(viewer, view) == [[(i + step) % 4] for i in range(count)]
    assert len({cell.badge.position for cell in view.cells}) == count


@pytest.mark.parametrize("step", [0, 3, 5])
def test_shorter_networks_are_stretched_and_named_right(viewer, qtbot, make, step):
    long, short = make(6), make(3, first=1, prefix="other")
    view = napari_camanim.compare(viewer, [long, short])
    settle(qtbot)
    viewer.dims.set_point(0, step)
    own = {0: 0, 3: 1, 5: 2}[step]
    assert f"block.{step}" in view.cells[0].badge.text
    assert f"other.{own}" in view.cells[1].badge.text
    assert hot_quadrants(viewer, view) == [[step % 4], [(1 + own) % 4]]
    view.close()
    assert len(short.data) == 3


def test_steps_pass_through_repeated_layers(viewer, qtbot, make, session):
    long, short = make(7), make(2, prefix="other")
    view = napari_camanim.compare(viewer, [long, short])
    viewer.layers.selection.active = short
    session.go_to(0)
    seen = [session.index]
    for _ in range(6):
        session.step(1)
        seen.append(session.index)
    assert viewer.dims.point[0] == 6
    assert sorted(set(seen)) == [0, 1]
    view.close()


def test_images_of_other_sizes_are_scaled_to_one(viewer, qtbot, make):
    small = viewer.add_image(
        np.full((40, 40), 90, np.uint8), name="small", scale=(0.5, 0.5), translate=(70, -30)
    )
    wide = viewer.add_image(np.full((60, 120), 90, np.uint8), name="wide")
    stacks = [
        make(first=0),
        make(first=1, layer=small, shape=(40, 40)),
        make(first=2, layer=wide, shape=(60, 120)),
    ]
    before = state_of(viewer)
    view = napari_camanim.compare(viewer, stacks)
    settle(qtbot)
    viewer.dims.set_point(0, 1)
    boxes = [cell.image.extent.world for cell in view.cells]
    centers = [box.mean(axis=0) for box in boxes]
    np.testing.assert_allclose(centers[1], centers[0], atol=1)
    np.testing.assert_allclose(centers[2], centers[0], atol=1)
    sides = [box[1] - box[0] for box in boxes]
    np.testing.assert_allclose(sides[1], sides[0], rtol=0.03)
    np.testing.assert_allclose(sides[2], [64, 128], rtol=0.03)
    assert hot_quadrants(viewer, view) == [[1], [2], [3]]
    assert [text.split()[0] for text in (c.badge.text for c in view.cells)] == [
        "grey",
        "small",
        "wide",
    ]
    view.close()
    after = state_of(viewer)
    assert {**after, "point": before["point"]} == before


def test_slices_of_one_volume_meet_at_one_position(viewer, qtbot, make_result):
    volume = viewer.add_image(np.full((9, 128, 128), 90, np.uint8), name="volume", scale=(2, 1, 1))
    stacks = []
    for first, z in enumerate((2, 7)):
        viewer.dims.set_point(viewer.dims.ndim - 3, 2 * z)
        result = make_result(first=first)
        stacks.append(napari_camanim.add_animation(viewer, result, volume))
        stacks[-1].opacity = 1
    view = napari_camanim.compare(viewer, stacks)
    settle(qtbot)
    viewer.dims.set_point(0, 3)
    assert hot_quadrants(viewer, view) == [[3], [0]]
    assert "z = 2" in view.cells[0].badge.text
    assert "z = 7" in view.cells[1].badge.text
    viewer.dims.set_point(1, 0)
    assert all("no map here" in cell.badge.text for cell in view.cells)
    view.close()


def test_what_cannot_be_compared_is_refused(viewer, qtbot, make, make_result, image):
    stack = make()
    volume = viewer.add_image(np.zeros((3, 128, 128), np.uint8), name="volume")
    viewer.dims.set_point(0, 0)
    other = napari_camanim.add_animation(viewer, make_result(), volume)
    before = state_of(viewer)
    for wrong in ([stack], [stack, stack], [stack, image], [stack, other], [stack] * 7, []):
        with pytest.raises(CamError):
            napari_camanim.compare(viewer, wrong)
        assert state_of(viewer) == before
    assert Session.of(viewer).comparison is None


def test_slices_are_not_compared_with_volumes(viewer, base, make_result):
    from napari_camanim.comparison.frame import common_frame

    volume = Image(np.zeros((4, 128, 128), np.uint8))
    viewer.add_layer(volume)
    flat, deep = (take_view(viewer, volume).read(space).region for space in (2, 3))
    with pytest.raises(ImageError):
        common_frame([volume, volume], [flat, deep])
    assert all(np.allclose(m, np.eye(4)) for m in common_frame([volume] * 2, [deep, deep]))


def test_copies_of_the_image_are_no_inputs_and_share_its_contrast(viewer, make, image, session):
    view = napari_camanim.compare(viewer, [make(), make(first=1, method="M")])
    copies = [cell.image for cell in view.cells]
    assert not any(is_input(copy) or is_stack(copy) for copy in copies)
    assert all(copy.data is image.data for copy in copies)
    copies[0].contrast_limits = (10, 99)
    assert image.contrast_limits == copies[1].contrast_limits == [10, 99]
    view.close()
    assert not any(copy in viewer.layers for copy in copies)
    copies[0].contrast_limits = (0, 255)
    assert image.contrast_limits == [10, 99]


@pytest.mark.slow
def test_a_click_selects_the_stack_of_the_cell(viewer, qtbot, make, session):
    stacks = [make(first=i, method=f"M{i}") for i in range(4)]
    view = napari_camanim.compare(viewer, stacks)
    settle(qtbot)
    canvas = viewer.window._qt_viewer.canvas
    height, width = viewer.canvas.size
    canvas.events.mouse_press(pos=(0.75 * width, 0.75 * height), button=1)
    canvas.events.mouse_release(pos=(0.75 * width, 0.75 * height), button=1)
    assert session.current is stacks[3]
    assert not viewer.canvas.overlays["camanim_bar"].visible
    view.close()
    assert viewer.canvas.overlays["camanim_bar"].visible


@pytest.mark.slow
def test_a_hidden_longer_stack_does_not_lead_beyond_the_cells(viewer, qtbot, make):
    pair = [make(4), make(4, first=1, method="M")]
    make(9, prefix="long")
    view = napari_camanim.compare(viewer, pair)
    viewer.dims.set_point(0, 8)
    assert viewer.dims.point[0] == 3
    assert all("block.3" in cell.badge.text for cell in view.cells)
    view.close()


@pytest.mark.slow
def test_names_tell_what_differs(viewer, make):
    one, two = make(method="GradCAM"), make(method="HiResCAM")
    view = napari_camanim.compare(viewer, [one, two])
    assert [cell.name for cell in view.cells] == ["GradCAM", "HiResCAM"]
    view.close()
    two.name = "mine"
    view = napari_camanim.compare(viewer, [one, two])
    assert [cell.name for cell in view.cells] == ["GradCAM", "mine"]


@pytest.mark.slow
def test_a_volume_of_all_layers_says_so(viewer, qtbot, make):
    view = napari_camanim.compare(viewer, [make(6), make(3, first=1, prefix="other")])
    viewer.dims.ndisplay = 3
    settle(qtbot)
    assert ["6 layers" in view.cells[0].badge.text, "3 layers" in view.cells[1].badge.text] == [
        True
    ] * 2
    viewer.dims.ndisplay = 2
    view.close()


# -- The end ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("grid", [False, True])
def test_everything_is_restored(viewer, qtbot, make, image, session, grid):
    labels = viewer.add_labels(np.zeros((128, 128), int), name="labels", visible=False)
    stacks = [make(6), make(3, first=1, prefix="other"), make(5, first=2, method="M")]
    viewer.layers.move(viewer.layers.index(stacks[0]), len(viewer.layers))
    viewer.layers.selection.active = labels
    viewer.scene.camera.zoom = 1.7
    viewer.scene.camera.center = (0, 31, 40)
    viewer.dims.set_point(0, 2)
    viewer.canvas.grid.spacing = 7
    viewer.canvas.grid.enabled = grid
    settle(qtbot)
    before = state_of(viewer)
    view = napari_camanim.compare(viewer, [stacks[2], stacks[0], stacks[1]])
    settle(qtbot)
    assert viewer.canvas.grid.enabled
    viewer.dims.set_point(0, 4)
    viewer.layers.selection.active = stacks[1]
    viewer.scene.camera.zoom = 9
    settle(qtbot)
    view.close()
    settle(qtbot)
    assert state_of(viewer) == before
    assert view.closed
    assert session.comparison is None
    view.close()
    assert state_of(viewer) == before


@pytest.mark.slow
def test_another_comparison_ends_the_first_one(viewer, qtbot, make):
    stacks = [make(first=i, method=f"M{i}") for i in range(3)]
    before = state_of(viewer)
    first = napari_camanim.compare(viewer, stacks)
    second = napari_camanim.compare(viewer, stacks[:2])
    assert first.closed
    assert len(second.cells) == 2
    second.close()
    assert state_of(viewer) == before


@pytest.mark.slow
def test_a_removed_stack_loses_its_cell(viewer, qtbot, make):
    stacks = [make(first=i, method=f"M{i}") for i in range(3)]
    view = napari_camanim.compare(viewer, stacks)
    settle(qtbot)
    viewer.layers.remove(stacks[1])
    settle(qtbot)
    assert view.stacks == [stacks[0], stacks[2]]
    viewer.dims.set_point(0, 1)
    assert hot_quadrants(viewer, view) == [[1], [3]]
    assert (
        sum(o.visible for k, o in viewer.canvas.overlays.items() if k.startswith("camanim ")) == 2
    )
    viewer.layers.remove(stacks[0])
    settle(qtbot)
    assert view.closed
    assert not viewer.canvas.grid.enabled
    assert [layer.name for layer in viewer.layers] == ["grey", stacks[2].name]


@pytest.mark.slow
def test_a_removed_copy_ends_its_cell_and_keeps_the_run(viewer, qtbot, make):
    stacks = [make(first=i, method=f"M{i}") for i in range(3)]
    before = state_of(viewer)
    view = napari_camanim.compare(viewer, stacks)
    viewer.layers.remove(view.cells[0].image)
    settle(qtbot)
    assert view.stacks == stacks[1:]
    assert stacks[0] in viewer.layers
    view.close()
    after = state_of(viewer)
    assert after == before


@pytest.mark.slow
def test_all_layers_are_removed(viewer, qtbot, make, session):
    view = napari_camanim.compare(viewer, [make(), make(first=1, method="M")])
    viewer.layers.clear()
    settle(qtbot)
    assert view.closed
    assert len(viewer.layers) == 0
    assert not viewer.canvas.grid.enabled
    assert not any(key.startswith("camanim") for key in viewer.canvas.overlays)


@pytest.mark.slow
@pytest.mark.parametrize("event", ["added", "shown", "grid"])
def test_another_layer_ends_the_comparison(viewer, qtbot, make, image, event):
    stacks = [make(), make(first=1, method="M")]
    view = napari_camanim.compare(viewer, stacks)
    settle(qtbot)
    assert not view.closed
    if event == "added":
        viewer.add_points(np.zeros((1, 2)), name="new")
    elif event == "shown":
        image.visible = True
    else:
        viewer.canvas.grid.enabled = False
    settle(qtbot)
    assert view.closed
    assert not viewer.canvas.grid.enabled
    names = ["grey", stacks[1].name, stacks[0].name] + ["new"] * (event == "added")
    assert [layer.name for layer in viewer.layers] == names
    assert [stack.visible for stack in stacks] == [False, True]


@pytest.mark.slow
def test_a_new_run_ends_the_comparison_and_is_shown_alone(viewer, qtbot, make, session):
    stacks = [make(), make(first=1, method="M")]
    zoom = viewer.scene.camera.zoom
    view = napari_camanim.compare(viewer, stacks)
    assert viewer.scene.camera.zoom < 0.9 * zoom
    new = make(first=2, method="N")
    settle(qtbot)
    assert view.closed
    assert session.current is new
    assert viewer.scene.camera.zoom == zoom
    assert [s.visible for s in (*stacks, new)] == [False, False, True]


@pytest.mark.slow
def test_moved_layers_go_back_to_their_cells(viewer, qtbot, make):
    stacks = [make(first=i, method=f"M{i}") for i in range(3)]
    view = napari_camanim.compare(viewer, stacks)
    viewer.dims.set_point(0, 0)
    viewer.layers.move(0, len(viewer.layers))
    settle(qtbot)
    assert hot_quadrants(viewer, view) == [[0], [1], [2]]


@pytest.mark.slow
def test_a_hidden_stack_is_said_to_be_hidden(viewer, qtbot, make):
    stacks = [make(first=i, method=f"M{i}") for i in range(3)]
    view = napari_camanim.compare(viewer, stacks)
    stacks[0].visible = False
    settle(qtbot)
    assert not view.closed
    assert "hidden" in view.cells[0].badge.text
    assert "block" in view.cells[1].badge.text


@pytest.mark.slow
def test_findings_and_runs_that_change_are_followed(
    viewer, qtbot, make, make_result, session, roads
):
    stacks = [make(), make(first=1, method="M")]
    view = napari_camanim.compare(viewer, stacks)
    viewer.dims.set_point(0, 2)
    animation = stacks[1].data.animation
    animation.add(roads.road([0.77] * 6, layers=animation.layers))
    session.refresh(stacks[1])
    assert "ROAD 0.77" in view.cells[1].badge.text
    run = stacks[1].data.run
    session.replace(
        stacks[1], replace_run(run, make_result(3, first=3, prefix="other", method="X"))
    )
    settle(qtbot)
    assert len(stacks[1].data) == 6
    viewer.dims.set_point(0, 5)
    assert "other.2" in view.cells[1].badge.text
    assert "X" in view.cells[1].badge.text
    view.close()
    assert stacks[1].data.indices == (0, 1, 2)


def replace_run(run, animation):
    return Run(animation, run.region, run.image_name, None, run.source)


@pytest.mark.slow
def test_settings_changed_in_a_comparison_are_kept(viewer, make, session):
    stacks = [make(6), make(3, first=1, prefix="other")]
    view = napari_camanim.compare(viewer, stacks)
    viewer.layers.selection.active = stacks[1]
    session.set_normalization("global")
    session.set_signed(True)
    view.close()
    data = stacks[1].data
    assert (data.normalization, data.signed, data.indices) == ("global", True, (0, 1, 2))


# -- The usual comparisons -------------------------------------------------------------------------


@pytest.mark.slow
def test_local_beside_global(viewer, qtbot, make, make_result, image, session):
    result = make_result(2)
    result.maps = [quadrant_map(0), 0.25 * quadrant_map(0)]
    stack = napari_camanim.add_animation(viewer, result, image)
    before = state_of(viewer)
    view = compare_normalizations(viewer, stack)
    assert [s.data.normalization for s in view.stacks] == ["local", "global"]
    assert runs_of(session) == [stack]
    local, common = (np.asarray(s.data[1]).max() for s in view.stacks)
    assert (local, common) == (1, 0.25)
    assert [cell.name for cell in view.cells] == ["local", "global"]
    view.close()
    assert state_of(viewer) == before


@pytest.mark.slow
def test_a_minus_b_is_signed_and_stays(viewer, qtbot, make, session):
    one, two = make(first=0), make(first=1, method="HiResCAM")
    stack = subtract(viewer, one, two)
    assert stack.data.signed
    assert list(stack.contrast_limits) == [-1, 1]
    plane = np.asarray(stack.data[2])
    edge = SIZE // 4
    quadrants = [plane[edge, edge], plane[edge, -edge], plane[-edge, -edge], plane[-edge, edge]]
    np.testing.assert_allclose(quadrants, [0, 0, 1, -1], atol=1e-6)
    view = napari_camanim.compare(viewer, [one, two, stack])
    assert [cell.name for cell in view.cells] == ["GradCAM", "HiResCAM", "GradCAM − HiResCAM"]
    view.close()
    assert set(runs_of(session)) == {one, two, stack}
    assert session.current is stack


@pytest.mark.slow
def test_finished_runs_are_shown(viewer, qtbot, image, make_result):
    region = take_view(viewer, image).read(2).region
    runs = [Run.of(make_result(first=i, method=f"M{i}"), region, image) for i in range(3)]
    view = show_runs(viewer, runs)
    assert isinstance(view, CompareView)
    assert [stack.data.run for stack in view.stacks] == runs
    view.close()
    single = show_runs(viewer, runs[:1])
    assert is_stack(single)
    viewer.layers.remove(image)
    with pytest.raises(ImageError):
        show_runs(viewer, runs)


# -- Requests --------------------------------------------------------------------------------------


def request(**changes):
    values = {
        "network": ModelSpec("demo/ultrasound"),
        "view": None,
        "method": "ScoreCAM",
        "settings": {
            "seed": 3,
            "options": {"channels": 8},
            "layers": ["a.1"],
            "layouts": {"a": "1-D"},
        },
    }
    return RunRequest(**values | changes)


@pytest.mark.slow
def test_requests_of_several_methods_and_networks():
    other = ModelSpec("torchvision/alexnet")
    made = variants(
        request(),
        methods=["ScoreCAM", "GradCAM"],
        networks=[request().network, other],
        targets=[0, 2],
    )
    assert [item.label for item in made] == [
        "demo/ultrasound ScoreCAM",
        "demo/ultrasound GradCAM",
        "torchvision/alexnet ScoreCAM",
        "torchvision/alexnet GradCAM",
    ]
    assert all(
        item.request.targets == [0, 2] and item.request.settings["seed"] == 3 for item in made
    )
    assert made[0].request.settings == request().settings
    assert made[0].notes == ()
    # The options of one method are none of the other's, the layers of one network none of the other's.
    assert [bool(item.request.settings["options"]) for item in made] == [True, False, True, False]
    assert [item.request.settings["layers"] for item in made] == [
        ["a.1"],
        ["a.1"],
        "unique",
        "unique",
    ]
    assert [len(item.notes) for item in made] == [0, 1, 2, 3]


@pytest.mark.slow
def test_one_request_for_several_classes():
    (only,) = variants(request(), targets=["normal", "benign"])
    assert only.label == ""
    assert only.request.targets == ["normal", "benign"]
    assert variants(request())[0].request == request()


@pytest.mark.slow
def test_requests_that_make_no_sense():
    with pytest.raises(SettingError):
        variants(request(), methods=["GradCAM", "GradCAM"])
    with pytest.raises(SettingError):
        variants(request(), methods=["GradCAM", "LayerCAM"], targets=[0, 1, 2, 3], most=6)


# -- The table of runs -----------------------------------------------------------------------------


@pytest.fixture
def table(session, qtbot):
    widget = RunTable(session)
    qtbot.addWidget(widget, before_close_func=lambda w: w.disconnect_session())
    return widget


def column(table, title):
    model = table.sorted
    at = next(
        i
        for i in range(model.columnCount())
        if model.headerData(i, Qt.Orientation.Horizontal) == title
    )
    return [model.index(row, at) for row in range(model.rowCount())]


def texts(table, title):
    return [table.sorted.data(i) for i in column(table, title)]


@pytest.mark.slow
def test_runs_are_listed_sorted_and_followed(viewer, qtbot, make, table):
    assert table.model.rowCount() == 0
    stacks = [make(first=i, method=f"M{i}") for i in (1, 0, 2)]
    stacks[1].data.animation.findings.clear()
    Session.of(viewer).refresh(stacks[1])
    assert texts(table, "method") == ["M2", "M0", "M1"]
    # make_result: (first + 1) * i / 100 for i in 0..5.
    assert texts(table, "mean") == ["0.075", "", "0.050"]
    assert texts(table, "max") == ["0.150", "", "0.100"]
    assert texts(table, "best layer") == ["block.5", "", "block.5"]
    mean = column(table, "mean")[0].column()
    table.view.sortByColumn(mean, Qt.SortOrder.DescendingOrder)
    assert texts(table, "method") == ["M2", "M1", "M0"]
    table.view.sortByColumn(mean, Qt.SortOrder.AscendingOrder)
    assert texts(table, "method") == ["M0", "M1", "M2"]
    viewer.layers.remove(stacks[0])
    assert texts(table, "method") == ["M0", "M2"]
    stacks[2].name = "renamed"
    assert texts(table, "run")[1] == "renamed"


@pytest.mark.slow
def test_names_pins_and_visibility_are_edited(viewer, make, table):
    stack = make()
    roles = Qt.ItemDataRole
    assert table.sorted.setData(column(table, "run")[0], "mine", roles.EditRole)
    assert stack.name == "mine"
    assert not table.sorted.setData(column(table, "run")[0], " ", roles.EditRole)
    assert stack.name == "mine"
    table.sorted.setData(column(table, "shown")[0], Qt.CheckState.Unchecked, roles.CheckStateRole)
    assert not stack.visible
    table.sorted.setData(
        column(table, "pinned")[0], Qt.CheckState.Checked.value, roles.CheckStateRole
    )
    check = table.sorted.data(column(table, "pinned")[0], roles.CheckStateRole)
    assert Qt.CheckState(check) == Qt.CheckState.Checked


@pytest.mark.slow
def test_a_double_click_shows_the_best_layer(viewer, qtbot, make, table, session):
    first, second = make(), make(first=1, method="M")
    session.go_to(2)
    index = column(table, "method")[texts(table, "run").index(first.name)]
    table.view.doubleClicked.emit(index)
    assert session.current is first
    assert not second.visible
    # The highest score, see `make_result`.
    assert session.index == 5
    third = make(first=2, method="N")
    view = napari_camanim.compare(viewer, [first, second])
    table.jump(second)
    assert not view.closed
    assert session.current is second
    table.jump(third)
    assert view.closed
    assert session.current is third
    assert [s.visible for s in (first, second)] == [False, False]


@pytest.mark.slow
def test_a_double_click_goes_to_the_slice(viewer, make_result, table, session):
    volume = viewer.add_image(np.zeros((9, 128, 128), np.uint8), name="volume")
    stacks = []
    for z in (2, 7):
        viewer.dims.set_point(viewer.dims.ndim - 3, z)
        stacks.append(napari_camanim.add_animation(viewer, make_result(), volume))
    table.jump(stacks[0])
    assert session.current is stacks[0]
    assert viewer.dims.point[1] == 2


@pytest.mark.slow
def test_actions_of_the_table(viewer, qtbot, make, table, session):
    stacks = [make(first=i, method=f"M{i}") for i in range(3)]
    assert not table.compare.isEnabled()
    table.select([stacks[2], stacks[0]])
    assert table.compare.isEnabled()
    table.compare.click()
    view = session.comparison
    assert view.stacks == [stacks[2], stacks[0]]
    assert table.end.isEnabled()
    table.end.click()
    assert view.closed
    assert not table.end.isEnabled()
    table.select([stacks[2], stacks[0]])
    table.difference.click()
    last = session.comparison.stacks[-1]
    assert session.comparison.stacks[:2] == [stacks[2], stacks[0]]
    assert last.data.signed
    np.testing.assert_allclose(
        last.data[0], np.subtract(stacks[2].data[0], stacks[0].data[0]), atol=1e-6
    )
    table.end.click()
    table.select([stacks[1]])
    table.normalizations.click()
    assert {s.data.normalization for s in session.comparison.stacks} == {"local", "global"}
    assert len(runs_of(session)) == table.model.rowCount() == 4
    table.end.click()
    table.select([stacks[0]])
    table.remove.click()
    assert stacks[0] not in viewer.layers


@pytest.mark.slow
def test_pinned_runs_stay_when_others_are_removed(viewer, make, table, session):
    stacks = [make(first=i, method=f"M{i}") for i in range(4)]
    row = texts(table, "method").index("M2")
    table.sorted.setData(
        column(table, "pinned")[row], Qt.CheckState.Checked, Qt.ItemDataRole.CheckStateRole
    )
    table.select([stacks[0]])
    table.remove_others.click()
    assert set(runs_of(session)) == {stacks[0], stacks[2]}


@pytest.mark.slow
def test_a_comparison_that_is_refused_says_why(viewer, make, make_result, table, session):
    stack = make()
    volume = viewer.add_image(np.zeros((3, 128, 128), np.uint8), name="volume")
    viewer.dims.set_point(0, 0)
    other = napari_camanim.add_animation(viewer, make_result(), volume)
    from napari.utils.notifications import notification_manager

    table.select([stack, other])
    before = len(notification_manager.records)
    table.compare.click()
    assert len(notification_manager.records) == before + 1
    assert session.comparison is None


@pytest.mark.slow
def test_the_table_is_written(viewer, make, tmp_path):
    stacks = [make(), make(first=1, method="M")]
    stacks[0].name = 'a, "b"\nc'
    path = write_runs(tmp_path / "runs.csv", stacks)
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ['a, "b"\nc', stacks[1].name]
    assert [float(row["ROAD max"]) for row in rows] == pytest.approx([0.05, 0.1])
    assert [row["method"] for row in rows] == ["GradCAM", "M"]
    with pytest.raises(CamError):
        write_runs(tmp_path / "runs.txt", stacks)


@pytest.mark.slow
def test_the_closed_table_ends_the_comparison(viewer, qtbot, make, session):
    widget = RunTable(session)
    stacks = [make(), make(first=1, method="M")]
    view = napari_camanim.compare(viewer, stacks)
    widget.close()
    assert view.closed
    viewer.layers.remove(stacks[0])
    assert widget.model.rowCount() == 2
    widget.deleteLater()


@pytest.mark.slow
def test_the_widget_of_the_manifest(viewer, make):
    stack = make()
    _, widget = viewer.window.add_plugin_dock_widget("napari-camanim", "Compare runs")
    assert widget.model.stacks == [stack]
    widget.select([stack])
    assert widget.normalizations.isEnabled()
    viewer.window.remove_dock_widget(widget)


@pytest.mark.slow
def test_the_table_fits_a_narrow_dock(viewer, qtbot, table):
    assert table.minimumSizeHint().width() <= 300


@pytest.mark.slow
def test_data_with_repeated_indices(make_result, viewer, image):
    region = take_view(viewer, image).read(2).region
    run = Run.of(make_result(3), region, image)
    data = StackData(run, "local", indices=(0, 0, 1, 2, 2))
    plain = StackData(run, "local")
    assert data.shape == (5, SIZE, SIZE)
    for i, own in enumerate((0, 0, 1, 2, 2)):
        np.testing.assert_array_equal(data[i], plain[own])
    np.testing.assert_array_equal(np.asarray(data), np.asarray(plain)[[0, 0, 1, 2, 2]])


def test_another_layer_may_have_more_axes(viewer, qtbot, make):
    stacks = [make(first=i, method=f"M{i}") for i in range(2)]
    viewer.add_image(np.zeros((3, 4, 30, 40)), name="time series")
    view = napari_camanim.compare(viewer, stacks)
    settle(qtbot)
    # The images of both cells are seen as a whole, and fill their cells.
    zoom, center = viewer.scene.camera.zoom, np.array(viewer.scene.camera.center[-2:])
    cell = np.array(viewer.canvas.size) / viewer.canvas.grid.shape
    for each in view.cells:
        corners = (each.image.extent.world[:, -2:] - center) * zoom
        assert (np.abs(corners) <= cell / 2).all()
        assert (np.ptp(corners, axis=0) / cell).max() > 0.85
    assert all(hot_quadrants(viewer, view))
    view.close()
    assert "time series" in viewer.layers
