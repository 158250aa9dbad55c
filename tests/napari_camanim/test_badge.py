"""The badge on the canvas: facts about the shown map, and why it is not seen over its image."""

import numpy as np
import pytest
from napari.components import ViewerModel

import camanim
from napari_camanim import animate_layer
from napari_camanim.canvas.badge import CHARACTER, MARGINS, Badge, badge_line
from napari_camanim.session import Session


@pytest.fixture
def viewer():
    """Without a window."""
    return ViewerModel()


@pytest.fixture
def image(viewer):
    return viewer.add_image(np.random.default_rng(0).random((20, 30)), name="image")


@pytest.fixture
def stack(viewer, image, tiny):
    return animate_layer(viewer, image, tiny)


@pytest.fixture
def slices(viewer):
    """A volume, of which a slice is explained."""
    layer = viewer.add_image(np.random.default_rng(0).random((5, 20, 30)), name="volume")
    viewer.dims.set_point(0, 2)
    return layer


def overlay(viewer):
    return viewer.canvas.overlays["camanim"]


def test_the_badge_follows_the_slider_until_the_stack_is_removed(viewer, tiny):
    before = len(viewer.dims.events.point.callbacks)
    image = viewer.add_image(np.random.default_rng(0).random((20, 30)))
    stack = animate_layer(viewer, image, tiny)
    session, text = Session.of(viewer), overlay(viewer)
    for i, name in enumerate("0123"):
        session.go_to(i)
        assert text.visible
        assert text.text.split()[:2] == [name, f"{i + 1}/4"]
        assert "\n" not in text.text
    assert session.current is stack
    stack.visible = False
    viewer.layers.selection.active = image
    assert not text.visible
    viewer.layers.remove(stack)
    assert "camanim" not in viewer.canvas.overlays
    assert len(viewer.dims.events.point.callbacks) == before


def test_the_whole_caption_is_shown_on_request(viewer, stack):
    badge = Badge.on(Session.of(viewer))
    Session.of(viewer).go_to(1)
    line = overlay(viewer).text
    badge.whole = True
    assert overlay(viewer).text == stack.metadata["camanim"]["captions"][1] != line
    Session.of(viewer).go_to(2)
    assert overlay(viewer).text == stack.metadata["camanim"]["captions"][2]
    badge.whole = False
    Session.of(viewer).go_to(1)
    assert overlay(viewer).text == line


def test_the_slice_is_named_and_other_slices_have_no_map(viewer, slices, tiny):
    animate_layer(viewer, slices, tiny)
    text = overlay(viewer)
    assert "z = 2" in text.text
    Badge.on(Session.of(viewer)).whole = True
    assert text.text.split("\n")[-1] == "z = 2"
    viewer.dims.set_point(1, 4)
    assert text.visible
    [line] = text.text.split("\n")
    assert "no map" in line
    assert "z = 2" in line
    viewer.dims.set_point(1, 2)
    assert "no map" not in text.text
    # The 3-D view of a volume keeps the slider `layer`.
    viewer.dims.ndisplay = 3
    assert text.visible


def test_a_view_of_all_layers_of_the_network_has_no_badge(viewer, stack):
    assert overlay(viewer).visible
    viewer.dims.ndisplay = 3
    assert not overlay(viewer).visible
    viewer.dims.ndisplay = 2
    assert overlay(viewer).visible


def test_the_badge_says_what_covers_the_map(viewer, image, stack):
    text = overlay(viewer)
    assert len(text.text.split("\n")) == 1
    other = viewer.add_image(np.zeros((20, 30)), name="other")
    assert text.text.split("\n")[1] == "covered by other"
    # Neither of these hides the map.
    for name, value in (("opacity", 0.3), ("blending", "additive"), ("visible", False)):
        before = getattr(other, name)
        setattr(other, name, value)
        Session.of(viewer).step(1)
        Session.of(viewer).step(-1)
        assert len(text.text.split("\n")) == 1, name
        setattr(other, name, before)
    other.translate = (0, 100)
    Session.of(viewer).step(1)
    assert len(text.text.split("\n")) == 1
    other.translate = (0, 0)
    # Between the image and the maps.
    viewer.layers.move(viewer.layers.index(other), viewer.layers.index(stack))
    assert text.text.split("\n")[1] == "other covers the image image"
    viewer.layers.remove(other)
    assert len(text.text.split("\n")) == 1


def test_labels_and_other_stacks_do_not_cover_the_map(viewer, image, stack, tiny):
    viewer.add_labels(np.ones((20, 30), int))
    animate_layer(viewer, image, tiny, method="HiResCAM")
    assert len(overlay(viewer).text.split("\n")) == 1


def test_the_badge_says_that_the_image_is_hidden_or_gone(viewer, image, stack):
    text = overlay(viewer)
    image.visible = False
    assert text.text.split("\n")[1] == "the image image is hidden"
    image.visible = True
    assert len(text.text.split("\n")) == 1
    viewer.layers.move(viewer.layers.index(image), 2)
    assert "below" in text.text.split("\n")[1]
    viewer.layers.remove(image)
    assert "removed" in text.text.split("\n")[1]


def test_the_opacity_of_a_layer_is_noticed_at_once(viewer, image, stack):
    text = overlay(viewer)
    other = viewer.add_image(np.zeros((20, 30)), name="other")
    assert "covered" in text.text
    other.opacity = 0.2
    assert "covered" not in text.text
    other.opacity = 1
    other.blending = "additive"
    assert "covered" not in text.text
    image.opacity = 0
    assert "hidden" in text.text


# -- The line --------------------------------------------------------------------------------------


@pytest.fixture
def result(tiny):
    """A result with scores."""
    animation = camanim.animate(tiny, np.random.default_rng(0).random((20, 30)), target="b")
    animation.score(repeats=1)
    return animation


def test_a_wide_canvas_has_all_facts(result):
    line = badge_line(result, 1, "z = 12", 2000)
    score = result.road.scores[1]
    for part in ("1", "2/4", f"{score:.2f}", "z = 12", f"b {result.probability:.2f}"):
        assert part in line
    assert "ROAD" in line


@pytest.mark.parametrize("width", [160, 200, 300, 450])
def test_the_line_fits_the_width_of_the_canvas(result, width):
    for layer in result.layers:
        layer.__dict__["name"] = "features.denseblock3.denselayer24.norm1"
    for i in range(4):
        line = badge_line(result, i, "t = 3, z = 12", width)
        assert len(line) <= max(12, (width - MARGINS) / CHARACTER)
        assert f"{i + 1}/4" in line


def test_the_less_important_facts_are_left_out_first(result):
    whole = badge_line(result, 0, "z = 12", 2000).split("   ")
    for width in range(2000, 100, -5):
        facts = badge_line(result, 0, "z = 12", width).split("   ")
        assert facts == whole[: len(facts)]


def test_a_map_without_positive_values_is_marked(tiny):
    animation = camanim.animate(tiny, np.random.default_rng(0).random((20, 30)))
    assert "no positive evidence" not in badge_line(animation, 0, "", 2000)
    animation.maps[0] = -np.abs(animation.maps[0])
    animation.__dict__["extremes"] = None
    assert "no positive evidence" in badge_line(animation, 0, "", 2000)
