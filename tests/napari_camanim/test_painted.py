"""Badge and colour bar as they are painted on the canvas."""

import numpy as np
import pytest

from napari_camanim import animate_layer
from napari_camanim.canvas.painted import PaintedText
from napari_camanim.canvas.visuals import BAR, MARGIN


@pytest.fixture
def image(viewer):
    return viewer.add_image(np.random.default_rng(0).random((20, 30)), name="image")


@pytest.fixture
def stack(viewer, image, tiny):
    return animate_layer(viewer, image, tiny)


@pytest.fixture
def bar(viewer, stack):
    return viewer.canvas.overlays["camanim_bar"]


@pytest.fixture
def photograph(viewer, qtbot):
    """Return a function that returns the canvas in canvas pixels, once it was drawn."""

    def photograph():
        qtbot.wait(100)
        picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
        if picture.shape[0] != viewer.canvas.size[0]:
            pytest.skip("needs a screen without scaling")
        return picture

    return photograph


@pytest.mark.parametrize("normalization", ["local", "global"])
def test_the_ends_of_the_bar_are_the_raw_extremes_of_the_map(session, stack, bar, normalization):
    session.set_normalization(normalization)
    maps = [np.maximum(m, 0) for m in stack.data.animation.maps]
    for i in range(len(maps)):
        session.go_to(i)
        among = maps if normalization == "global" else [maps[i]]
        assert float(bar.low) == pytest.approx(min(m.min() for m in among), rel=0.05)
        assert float(bar.high) == pytest.approx(max(m.max() for m in among), rel=0.05)


def test_the_ends_of_a_signed_bar_are_opposite(session, stack, bar):
    session.set_signed(True)
    for i, raw in enumerate(stack.data.animation.maps):
        session.go_to(i)
        assert float(bar.high) == pytest.approx(np.abs(raw).max(), rel=0.05)
        assert float(bar.low) == -float(bar.high)


def test_the_bar_follows_contrast_and_colormap_of_its_stack_alone(
    viewer, image, session, stack, bar
):
    session.go_to(1)
    low, high = stack.data.limits(1)
    stack.contrast_limits = (0.25, 0.5)
    assert float(bar.low) == pytest.approx(low + 0.25 * (high - low), rel=0.05)
    assert float(bar.high) == pytest.approx(low + 0.5 * (high - low), rel=0.05)
    stack.colormap = "gray"
    assert (bar.colors[0], bar.colors[-1]) == ((0, 0, 0), (255, 255, 255))
    middle = bar.colors[len(bar.colors) // 2]
    stack.gamma = 2
    assert bar.colors[len(bar.colors) // 2] < middle
    viewer.layers.remove(stack)
    colors = bar.colors
    stack.colormap = "red"
    assert bar.colors == colors
    assert "camanim_bar" not in viewer.canvas.overlays


def test_the_canvas_shows_the_colours_of_the_bar(viewer, session, stack, bar, photograph):
    image = viewer.layers[0]
    stack.opacity = image.opacity = 0
    picture = photograph()
    # The bar stands in the lower right corner, as wide and as high as its colours.
    corner = picture[-2 * BAR[1] :, -8 * BAR[0] :]
    top, bottom = np.array(bar.colors[-1]), np.array(bar.colors[0])
    for color in (top, bottom, np.array(bar.colors[len(bar.colors) // 2])):
        found = np.abs(corner - color).max(-1) < 12
        assert found.sum(1).max() >= BAR[0] - 2
    rows = [
        np.flatnonzero((np.abs(corner - c).max(-1) < 12).sum(1) >= BAR[0] - 2)
        for c in (top, bottom)
    ]
    assert rows[0].mean() < rows[1].mean()
    assert abs(rows[1].max() - rows[0].min() - BAR[1]) < 5


def test_text_is_painted_in_a_box_at_its_corner(viewer, stack, photograph):
    stack.visible = False
    viewer.layers[0].opacity = 0
    text = PaintedText(visible=True, position="bottom_left", font_size=12, box_color="red")
    without = photograph()
    viewer.canvas.overlays["text"] = text
    text.text = "first line\nsecond"
    changed = np.abs(photograph() - without).max(-1) > 30
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    height, _ = viewer.canvas.size
    assert height - 20 < rows.max() < height
    assert columns.min() < 20
    two_lines = rows.max() - rows.min()
    text.text = "first line"
    changed = np.abs(photograph() - without).max(-1) > 30
    one_line = np.ptp(np.flatnonzero(changed.any(1)))
    assert two_lines - 2 * MARGIN == pytest.approx(2 * (one_line - 2 * MARGIN), abs=4)
    box = photograph()[changed]
    assert (box[:, 0] > 200).mean() > 0.5
    # Letters contrast with the box.
    assert (np.abs(box - np.array((255, 0, 0))).max(-1) > 100).mean() > 0.05
    text.visible = False
    assert (np.abs(photograph() - without).max(-1) <= 30).all()


def test_ends_that_differ_little_have_more_digits(session, stack, bar):
    session.go_to(1)
    low, high = stack.data.limits(1)
    stack.contrast_limits = (0.5, 0.51)
    assert float(bar.low) < float(bar.high)
    assert float(bar.high) == pytest.approx(low + 0.51 * (high - low), rel=0.005)


def test_a_screen_with_another_scale_has_sharper_pictures(viewer, stack, session, monkeypatch):
    canvas = viewer.window._qt_viewer.canvas
    [visual] = canvas._viewer_overlay_to_visual[viewer.canvas.overlays["camanim"]]
    width, height = visual.x_size, visual.y_size
    scene = visual.node.canvas
    monkeypatch.setattr(type(scene), "pixel_scale", 2.0)
    scene.events.resize(size=scene.size, physical_size=scene.size)
    assert (visual.x_size, visual.y_size) == (width, height)
    assert tuple(visual.node.transform.scale[:2]) == (0.5, 0.5)
    assert visual.node._data.shape[:2] == (2 * height, 2 * width)
