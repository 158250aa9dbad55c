"""Maps against a mask: each number by brute force, and the mask's way to the network's input."""

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
from camanim.checks.mask import object_cells, shares

#: Few different values, so that many are equal; not all 0.
values = st.lists(st.integers(0, 3), min_size=2, max_size=6).filter(any)


@st.composite
def cases(draw) -> tuple[np.ndarray, np.ndarray]:
    own = draw(values)
    inside = draw(st.lists(st.booleans(), min_size=len(own), max_size=len(own)))
    inside[draw(st.integers(0, len(own) - 1))] = True
    return np.array(own, float), np.array(inside)


def by_hand(maps, image=None, geometry=None) -> camanim.Animation:
    """A result of given maps, at the size of the image unless said otherwise."""
    maps = [np.asarray(m, np.float32) for m in maps]
    image = np.zeros(maps[0].shape, np.uint8) if image is None else image
    layers = [
        LayerInfo(i, f"layer{i}", 0, "Conv2d", None, 0, status="ok") for i in range(len(maps))
    ]
    return camanim.Animation(
        maps=maps, layers=layers, layer_calls=layers, method="own",
        target=camanim.targets.ClassTarget(0, "a"),
        probability=0.5, image=image, geometry=geometry or Geometry(image.shape), tensor=None,
        model=None, provenance={},
    )  # fmt: skip


# --- the numbers -----------------------------------------------------------------------------


@given(cases())
@settings(deadline=None, max_examples=60)
def test_each_number_is_what_counting_gives(case) -> None:
    own, inside = case
    brightest = [k for k in range(len(own)) if own[k] == max(own)]
    assert pointing(own, inside) == pytest.approx(
        sum(inside[k] for k in brightest) / len(brightest)
    )
    assert energy(own, inside) == pytest.approx(sum(own[inside]) / sum(own))
    # Every order of equal cells is as likely as any other.
    area, hits = int(inside.sum()), []
    for order in permutations(range(len(own))):
        if all(own[a] >= own[b] for a, b in pairwise(order)):
            hits.append(sum(inside[k] for k in order[:area]))
    expected = np.mean(hits)
    assert overlap(own, inside) == pytest.approx(expected / (2 * area - expected))


@given(cases())
@settings(deadline=None, max_examples=100)
def test_average_precision_is_that_of_scikit_learn(case) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    own, inside = case
    assert average_precision(own, inside) == pytest.approx(
        metrics.average_precision_score(inside, own)
    )


@given(cases(), st.randoms())
@settings(deadline=None, max_examples=60)
def test_where_the_cells_are_does_not_matter(case, random) -> None:
    own, inside = case
    order = list(range(len(own)))
    random.shuffle(order)
    for measure in (pointing, energy, overlap, average_precision):
        assert measure(own[order], inside[order]) == pytest.approx(measure(own, inside))


def test_a_perfect_map_has_it_all_and_its_inverse_points_away() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3:6] = True
    found = by_hand([mask, ~mask, mask * -1.0, np.ones((8, 8))]).localise(mask)
    for own in (found.pointing, found.energy, found.iou, found.average_precision):
        assert own[0] == 1
        assert np.isnan(own[2:]).all()
    assert (found.pointing[1], found.energy[1], found.iou[1]) == (0, 0, 0)
    assert found.undefined == (None, None, "no positive evidence", "constant map")
    assert found.share == 9 / 64
    # All 55 outside come first.
    assert found.average_precision[1] == pytest.approx(9 / 64)


def test_a_map_that_is_not_finite_is_undefined_and_so_may_all_be() -> None:
    mask = np.eye(4, dtype=bool)
    found = by_hand([np.full((4, 4), np.nan), np.full((2, 2), np.inf)]).localise(mask)
    assert found.undefined == ("not finite", "not finite")
    assert found.best is None
    assert found.caption(1) == "mask: undefined (not finite)"


def test_the_smallest_floats_are_compared_like_all_others() -> None:
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    ramp = np.arange(16, 0, -1).reshape(4, 4)
    small, large = by_hand([ramp * 1e-44, ramp * 1.0]).localise(mask).average_precision
    assert small == large == 1


def test_only_the_positive_part_counts() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    signed = np.where(mask, 1.0, -5.0)
    signed[0, 0] = 0.5
    found = by_hand([signed]).localise(mask)
    assert found.energy[0] == pytest.approx(4 / 4.5)


def test_the_best_layer_has_the_highest_average_precision() -> None:
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    rng = np.random.default_rng(0)
    animation = by_hand([rng.random((4, 4)), mask + 0.1 * rng.random((4, 4)), np.zeros((4, 4))])
    found = animation.localise(mask)
    assert found is animation.localisation
    assert found.best is animation.layers[1]
    assert found.caption(1) in animation.caption(1).splitlines()
    assert f"average precision {found.average_precision[0]:.2f}" in found.caption(0)
    assert "chance 0.25" in found.caption(0)


def test_a_coarse_map_is_brought_to_the_input_as_the_stack_does_it() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    mask = np.zeros((12, 16), bool)
    mask[3:9, 2:7] = True
    animation = by_hand([rng.normal(size=(3, 4))], np.zeros((12, 16), np.uint8))
    shown = animation.stack(None).plane(0)
    found = animation.localise(mask)
    assert found.energy[0] == pytest.approx(shown[mask].sum() / shown.sum(), abs=1e-5)
    assert found.average_precision[0] == pytest.approx(
        metrics.average_precision_score(mask.ravel(), shown.ravel().round(6)), abs=1e-4
    )


# --- the mask's way to the network's input ------------------------------------------------------


@given(
    st.integers(1, 7), st.floats(0.3, 4), st.floats(0, 3), st.integers(5, 16), st.integers(0, 10**6)
)
@settings(deadline=None, max_examples=40)
def test_shares_are_those_of_many_points_in_each_cell(cells, scale, offset, pixels, seed) -> None:
    mask = np.random.default_rng(seed).random((pixels, 3)) < 0.5
    found = shares(mask, Geometry((cells, 3), (scale, 1.0), (offset, 0.0)))
    points = 4000
    for i in range(cells):
        edges = offset + scale * (i + (np.arange(points) + 0.5) / points)
        within = edges < pixels
        rows = np.floor(edges[within]).astype(int)
        # Beyond the image there is nothing.
        np.testing.assert_allclose(found[i], mask[rows].sum(0) / points, atol=0.01)


def test_whole_numbers_of_pixels_are_averaged_exactly() -> None:
    mask = np.random.default_rng(0).random((12, 20)) < 0.5
    found = shares(mask, Geometry((3, 4), (3.0, 4.0), (3.0, 4.0)))
    blocks = mask[3:, 4:].reshape(3, 3, 4, 4).mean((1, 3))
    np.testing.assert_allclose(found, blocks, atol=1e-12)


def test_half_of_a_cell_is_enough_and_a_small_object_is_not_lost() -> None:
    mask = np.zeros((8, 8), bool)
    mask[:4, :4] = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 1, 1]]
    cells = object_cells(mask, None, (8, 8), Geometry((4, 4), (2.0, 2.0)))
    assert cells[:2, :2].tolist() == [[True, False], [False, True]]
    mask[:] = False
    # Cut finely enough, this is half of a cell in sums of fractions.
    mask[:1] = True
    half = object_cells(mask, None, (8, 8), Geometry((4, 24), (2.0, 8 / 24)))
    assert half[0].all()
    mask[:] = False
    mask[:2, :4] = mask[4:6, 4:] = True
    mask[0, 0] = False
    quarters = object_cells(mask, None, (8, 8), Geometry((2, 2), (4.0, 4.0)))
    # 7 of 16 pixels, and 8 of 16.
    assert quarters.tolist() == [[False, False], [False, True]]
    tiny = np.zeros((8, 8), bool)
    tiny[5, 2] = True
    cells = object_cells(tiny, None, (8, 8), Geometry((2, 2), (4.0, 4.0)))
    assert np.argwhere(cells).tolist() == [[1, 0]]


def test_a_label_picks_one_of_many_and_arrays_of_any_kind_will_do() -> None:
    import dask.array

    labels = np.zeros((6, 6), np.int32)
    labels[0, :2], labels[3:, 3:] = 2, 7
    animation = by_hand([np.random.default_rng(0).random((6, 6))])
    every, second = animation.localise(labels), animation.localise(labels, label=7)
    assert (every.share, second.share) == (11 / 36, 9 / 36)
    for other in (
        dask.array.from_array(labels), torch.from_numpy(labels), labels.tolist(),
        labels.astype(float), labels.astype(np.uint8),
    ):  # fmt: skip
        assert animation.localise(other, label=7).energy == second.energy
    assert animation.localise(labels == 7).average_precision == second.average_precision


@pytest.mark.parametrize(
    ("mask", "label", "says"),
    [
        (np.ones((6, 5), bool), None, r"shape \(6, 5\), the image \(6, 6\)"),
        (np.zeros((6, 6), bool), None, "no pixel that is not 0, only False"),
        (np.eye(6, dtype=int), 3, "no 3, only 0, 1"),
        (np.ones((6, 6), bool), None, "covers all that the network saw"),
        (np.full((6, 6), 0.3), None, "compare with a threshold"),
        (np.full((6, 6), np.nan), None, "compare with a threshold"),
        (np.full((6, 6), "a"), None, "compare with a threshold"),
        ([[1], [1, 2]], None, "is an array"),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused_with_what_to_do(mask, label, says) -> None:
    animation = by_hand([np.eye(6)])
    with pytest.raises(ScoreError, match=says):
        animation.localise(mask, label=label)
    assert animation.localisation is None


def test_a_mask_beside_the_crop_is_refused_and_maps_must_be_there() -> None:
    geometry = Geometry((4, 4), (1.0, 1.0), (0.0, 2.0))
    animation = by_hand([np.eye(4)], np.zeros((4, 8), np.uint8), geometry)
    mask = np.zeros((4, 8), bool)
    mask[:, :2] = True
    with pytest.raises(ScoreError, match="outside of what the network saw"):
        animation.localise(mask)
    animation.maps.clear()
    with pytest.raises(ScoreError, match="no map to compare"):
        animation.localise(~mask)


# --- from the image to the number --------------------------------------------------------------


@pytest.mark.parametrize(
    ("fit", "size", "resize"), [("stretch", (16, 16), None), ("crop", (16, 16), 24)]
)
def test_what_the_network_finds_lies_in_its_mask(zoo, fit, size, resize) -> None:
    """The image is not square, so that a wrong geometry would point elsewhere."""
    image = np.zeros((48, 96), np.uint8)
    mask = np.zeros((48, 96), bool)
    mask[12:24, 48:72] = True
    image[mask] = 255
    model = camanim.Model(zoo.Peak(2), Preprocess(size=size, resize=resize))
    animation = camanim.animate(model, image, target=0, fit=fit, method="HiResCAM", layers="cells")
    found = animation.localise(mask)
    assert found.pointing.tolist() == [1]
    assert found.average_precision[0] > 2 * found.share
    for other in (mask[:, ::-1], mask[::-1], np.roll(mask, 12, 0)):
        assert animation.localise(other).pointing.tolist() == [0]


class Peak3d(nn.Module):
    """Finds the brightest cell of a volume's grid."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.AvgPool3d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        peak = self.cells(x).sum(1).flatten(1).amax(1, keepdim=True)
        return torch.cat([peak, 0 * peak], 1)


def volume_of(where: tuple[slice, ...]) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((8, 12, 16), bool)
    mask[where] = True
    return mask.astype(np.float32), mask


def test_volumes_and_their_planes_have_masks_too() -> None:
    volume, mask = volume_of(np.s_[2:4, 4:6, 8:10])
    model = camanim.Model(Peak3d(), Preprocess(dims=3, channels=1))
    animation = camanim.animate(model, volume, target=0, method="HiResCAM", layers="cells")
    found = animation.localise(mask)
    assert found.pointing.tolist() == [1]
    assert found.share == 8 / volume.size
    assert animation.localise(mask[::-1]).pointing.tolist() == [0]
    plane = animation.plane(2)
    assert plane.localise(mask[2]).pointing.tolist() == [1]
    assert plane.localise(mask[2][:, ::-1]).pointing.tolist() == [0]
    with pytest.raises(ScoreError, match="a value for each"):
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
