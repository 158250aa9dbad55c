"""Agreement of maps with a mask, by brute force, and conversion of masks to the network's input."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import camanim
from camanim import Geometry, LayerInfo, Preprocess, ScoreError
from camanim.checks.localisation_metrics import average_precision, energy, overlap, pointing
from camanim.checks.mask import covered_fractions, object_cells
from camanim.road.result import CONSTANT, NOT_FINITE, NOTHING_POSITIVE

#: Few distinct values, so that ties are frequent; not all 0.
values = st.lists(st.integers(0, 3), min_size=2, max_size=6).filter(any)


@st.composite
def cases(draw) -> tuple[np.ndarray, np.ndarray]:
    drawn = draw(values)
    inside = draw(st.lists(st.booleans(), min_size=len(drawn), max_size=len(drawn)))
    inside[draw(st.integers(0, len(drawn) - 1))] = True
    return np.array(drawn, float), np.array(inside)


def animation_of(maps, image=None, geometry=None) -> camanim.Animation:
    """Return an animation with these maps, by default of an image of the same size."""
    maps = [np.asarray(m, np.float32) for m in maps]
    image = np.zeros(maps[0].shape, np.uint8) if image is None else image
    layers = [
        LayerInfo(i, f"layer{i}", 0, "Conv2d", None, 0, status="ok") for i in range(len(maps))
    ]
    return camanim.Animation(
        maps=maps, layers=layers, layer_calls=layers, method="test",
        target=camanim.targets.ClassTarget(0, "a"),
        probability=0.5, image=image, geometry=geometry or Geometry(image.shape), tensor=None,
        model=None, provenance={},
    )  # fmt: skip


# --- Measures --------------------------------------------------------------------------------


@given(cases())
@settings(deadline=None, max_examples=60)
def test_measures_equal_brute_force(case) -> None:
    cells, inside = case
    maximal = [k for k in range(len(cells)) if cells[k] == max(cells)]
    assert pointing(cells, inside) == pytest.approx(sum(inside[k] for k in maximal) / len(maximal))
    assert energy(cells, inside) == pytest.approx(sum(cells[inside]) / sum(cells))
    # All orders of tied cells are equally likely.
    area, hits = int(inside.sum()), []
    for order in permutations(range(len(cells))):
        if all(cells[a] >= cells[b] for a, b in pairwise(order)):
            hits.append(sum(inside[k] for k in order[:area]))
    expected = np.mean(hits)
    assert overlap(cells, inside) == pytest.approx(expected / (2 * area - expected))


@given(cases())
@settings(deadline=None, max_examples=100)
def test_average_precision_is_that_of_scikit_learn(case) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    cells, inside = case
    expected = metrics.average_precision_score(inside, cells)
    assert average_precision(cells, inside) == pytest.approx(expected)


@given(cases(), st.randoms())
@settings(deadline=None, max_examples=60)
def test_measures_are_invariant_to_the_order_of_cells(case, random) -> None:
    cells, inside = case
    order = list(range(len(cells)))
    random.shuffle(order)
    for measure in (pointing, energy, overlap, average_precision):
        assert measure(cells[order], inside[order]) == pytest.approx(measure(cells, inside))


def test_measures_of_the_mask_its_inverse_and_undefined_maps() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3:6] = True
    agreement = animation_of([mask, ~mask, mask * -1.0, np.ones((8, 8))]).localise(mask)
    for measure in agreement.columns().values():
        assert measure[0] == 1
        assert np.isnan(measure[2:]).all()
    assert (agreement.pointing[1], agreement.energy[1], agreement.iou[1]) == (0, 0, 0)
    assert agreement.undefined == (None, None, NOTHING_POSITIVE, CONSTANT)
    assert agreement.share == 9 / 64
    # All 55 cells outside come first.
    assert agreement.average_precision[1] == pytest.approx(9 / 64)


def test_maps_that_are_not_finite_are_undefined() -> None:
    mask = np.eye(4, dtype=bool)
    maps = [np.full((4, 4), np.nan), np.full((2, 2), np.inf)]
    agreement = animation_of(maps).localise(mask)
    assert agreement.undefined == (NOT_FINITE, NOT_FINITE)
    assert agreement.best is None
    assert NOT_FINITE in agreement.caption(1)


def test_subnormal_values_are_compared() -> None:
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    ramp = np.arange(16, 0, -1).reshape(4, 4)
    small, large = animation_of([ramp * 1e-44, ramp * 1.0]).localise(mask).average_precision
    assert small == large == 1


def test_only_the_positive_part_counts() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    signed = np.where(mask, 1.0, -5.0)
    signed[0, 0] = 0.5
    assert animation_of([signed]).localise(mask).energy[0] == pytest.approx(4 / 4.5)


def test_the_best_layer_has_the_highest_average_precision() -> None:
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    rng = np.random.default_rng(0)
    maps = [rng.random((4, 4)), mask + 0.1 * rng.random((4, 4)), np.zeros((4, 4))]
    animation = animation_of(maps)
    agreement = animation.localise(mask)
    assert agreement is animation.localisation
    assert agreement.best is animation.layers[1]


def test_the_caption_has_the_average_precision_and_that_of_chance() -> None:
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    animation = animation_of([np.random.default_rng(0).random((4, 4))])
    agreement = animation.localise(mask)
    caption = agreement.caption(0)
    assert caption in animation.caption(0).splitlines()
    for number in (agreement.average_precision[0], 0.25):
        assert f"{number:.2f}" in caption


def test_a_coarse_map_is_upsampled_as_in_the_stack() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    mask = np.zeros((12, 16), bool)
    mask[3:9, 2:7] = True
    animation = animation_of([rng.normal(size=(3, 4))], np.zeros((12, 16), np.uint8))
    shown = animation.stack(None).plane(0)
    agreement = animation.localise(mask)
    assert agreement.energy[0] == pytest.approx(shown[mask].sum() / shown.sum(), abs=1e-5)
    expected = metrics.average_precision_score(mask.ravel(), shown.ravel().round(6))
    assert agreement.average_precision[0] == pytest.approx(expected, abs=1e-4)


# --- Conversion of masks to the network's input -------------------------------------------------


@given(
    st.integers(1, 7), st.floats(0.3, 4), st.floats(0, 3), st.integers(5, 16), st.integers(0, 10**6)
)
@settings(deadline=None, max_examples=40)
def test_covered_fractions_equal_those_of_many_points(cells, scale, offset, pixels, seed) -> None:
    mask = np.random.default_rng(seed).random((pixels, 3)) < 0.5
    covered = covered_fractions(mask, Geometry((cells, 3), (scale, 1.0), (offset, 0.0)))
    points = 4000
    for i in range(cells):
        edges = offset + scale * (i + (np.arange(points) + 0.5) / points)
        within = edges < pixels
        rows = np.floor(edges[within]).astype(int)
        # Points beyond the image are not covered.
        np.testing.assert_allclose(covered[i], mask[rows].sum(0) / points, atol=0.01)


def test_covered_fractions_of_whole_pixels_are_block_means() -> None:
    mask = np.random.default_rng(0).random((12, 20)) < 0.5
    covered = covered_fractions(mask, Geometry((3, 4), (3.0, 4.0), (3.0, 4.0)))
    blocks = mask[3:, 4:].reshape(3, 3, 4, 4).mean((1, 3))
    np.testing.assert_allclose(covered, blocks, atol=1e-12)


def test_cells_covered_by_half_are_inside() -> None:
    mask = np.zeros((8, 8), bool)
    mask[:4, :4] = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 1, 1]]
    cells = object_cells(mask, None, (8, 8), Geometry((4, 4), (2.0, 2.0)))
    assert cells[:2, :2].tolist() == [[True, False], [False, True]]


def test_one_pixel_below_half_is_outside() -> None:
    mask = np.zeros((8, 8), bool)
    mask[:2, :4] = mask[4:6, 4:] = True
    mask[0, 0] = False
    cells = object_cells(mask, None, (8, 8), Geometry((2, 2), (4.0, 4.0)))
    # 7 of 16 pixels, and 8 of 16.
    assert cells.tolist() == [[False, False], [False, True]]


def test_half_is_not_missed_by_rounding_errors() -> None:
    mask = np.zeros((8, 8), bool)
    mask[:1] = True
    cells = object_cells(mask, None, (8, 8), Geometry((4, 24), (2.0, 8 / 24)))
    assert cells[0].all()


def test_the_cells_with_the_largest_area_of_a_small_object_are_inside() -> None:
    mask = np.zeros((8, 8), bool)
    mask[5, 2] = True
    cells = object_cells(mask, None, (8, 8), Geometry((2, 2), (4.0, 4.0)))
    assert np.argwhere(cells).tolist() == [[1, 0]]


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((6, 6), np.int32)
    labels[0, :2], labels[3:, 3:] = 2, 7
    return labels


def test_a_label_selects_one_object(labels) -> None:
    animation = animation_of([np.random.default_rng(0).random((6, 6))])
    every, one = animation.localise(labels), animation.localise(labels, label=7)
    assert (every.share, one.share) == (11 / 36, 9 / 36)
    assert animation.localise(labels == 7).average_precision == one.average_precision


def test_masks_can_be_arrays_of_any_library(labels) -> None:
    import dask.array

    animation = animation_of([np.random.default_rng(0).random((6, 6))])
    expected = animation.localise(labels, label=7).energy
    for mask in (
        dask.array.from_array(labels), torch.from_numpy(labels), labels.tolist(),
        labels.astype(float), labels.astype(np.uint8),
    ):  # fmt: skip
        assert animation.localise(mask, label=7).energy == expected


@pytest.mark.parametrize(
    ("mask", "label", "named"),
    [
        (np.ones((6, 5), bool), None, r"\(6, 5\).*\(6, 6\)"),
        (np.zeros((6, 6), bool), None, "False"),
        (np.eye(6, dtype=int), 3, "3.*0, 1"),
        (np.ones((6, 6), bool), None, "covers"),
        (np.full((6, 6), 0.3), None, "threshold"),
        (np.full((6, 6), np.nan), None, "threshold"),
        (np.diag([np.inf] * 6), None, "threshold"),
        (np.ma.masked_equal(np.eye(6, dtype=int), 0), None, "masked"),
        ("mask.png", None, "read_image"),
        (np.full((6, 6), "a"), None, "threshold"),
        ([[1], [1, 2]], None, "array"),
    ],
)
def test_invalid_masks_raise(mask, label, named) -> None:
    animation = animation_of([np.eye(6)])
    with pytest.raises(ScoreError, match=named):
        animation.localise(mask, label=label)
    assert animation.localisation is None


def test_a_mask_outside_of_the_crop_raises() -> None:
    geometry = Geometry((4, 4), (1.0, 1.0), (0.0, 2.0))
    animation = animation_of([np.eye(4)], np.zeros((4, 8), np.uint8), geometry)
    mask = np.zeros((4, 8), bool)
    mask[:, :2] = True
    with pytest.raises(ScoreError, match="fit="):
        animation.localise(mask)


def test_a_result_without_maps_raises() -> None:
    animation = animation_of([np.eye(4)])
    animation.maps.clear()
    with pytest.raises(ScoreError):
        animation.localise(np.eye(4, dtype=bool))


# --- From the image to the measures ------------------------------------------------------------


@pytest.mark.parametrize(
    ("fit", "size", "resize"), [("stretch", (16, 16), None), ("crop", (16, 16), 24)]
)
def test_a_detected_object_is_inside_its_mask(zoo, fit, size, resize) -> None:
    """The image is not square, so that errors in the geometry are detected."""
    image = np.zeros((48, 96), np.uint8)
    mask = np.zeros((48, 96), bool)
    mask[12:24, 48:72] = True
    image[mask] = 255
    model = camanim.Model(zoo.Peak(2), Preprocess(size=size, resize=resize))
    animation = camanim.animate(model, image, target=0, fit=fit, method="HiResCAM", layers="cells")
    agreement = animation.localise(mask)
    assert agreement.pointing.tolist() == [1]
    assert agreement.average_precision[0] > 2 * agreement.share
    for other in (mask[:, ::-1], mask[::-1], np.roll(mask, 12, 0)):
        assert animation.localise(other).pointing.tolist() == [0]


class Peak3d(nn.Module):
    """Scores the brightest cell of a volume."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.AvgPool3d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        peak = self.cells(x).sum(1).flatten(1).amax(1, keepdim=True)
        return torch.cat([peak, 0 * peak], 1)


def volume_of(region: tuple[slice, ...]) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((8, 12, 16), bool)
    mask[region] = True
    return mask.astype(np.float32), mask


def test_volumes_and_planes_are_compared_with_masks() -> None:
    volume, mask = volume_of(np.s_[2:4, 4:6, 8:10])
    model = camanim.Model(Peak3d(), Preprocess(dims=3, channels=1))
    animation = camanim.animate(model, volume, target=0, method="HiResCAM", layers="cells")
    agreement = animation.localise(mask)
    assert agreement.pointing.tolist() == [1]
    assert agreement.share == 8 / volume.size
    assert animation.localise(mask[::-1]).pointing.tolist() == [0]
    plane = animation.plane(2)
    assert plane.localise(mask[2]).pointing.tolist() == [1]
    assert plane.localise(mask[2][:, ::-1]).pointing.tolist() == [0]
    with pytest.raises(ScoreError, match=r"\(12, 16\).*\(8, 12, 16\)"):
        animation.localise(mask[2])


def test_slices_of_a_volume_are_compared_in_space(zoo) -> None:
    volume, mask = volume_of(np.s_[3, 4:8, 8:12])
    model = camanim.Model(zoo.Peak(2), Preprocess(size=(6, 8), channels=3))
    animation = camanim.animate(
        model, volume, target=0, method="HiResCAM", layers="cells", slices=True
    )
    assert animation.maps[0].shape == (8, 3, 4)
    assert animation.localise(mask).pointing.tolist() == [1]
    assert animation.localise(np.roll(mask, 1, 0)).pointing.tolist() == [0]


def test_a_colour_image_has_a_mask_of_two_axes(zoo, image) -> None:
    animation = camanim.animate(camanim.Model(zoo.shake(zoo.Plain())), image)
    mask = np.zeros(image.shape[:2], bool)
    mask[5:9] = True
    assert animation.localise(mask).share == mask.mean()
