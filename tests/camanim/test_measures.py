"""Insertion, deletion and confidence, compared with their definitions for one image at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid

import camanim
from camanim.road import BlurImputer, DirectImputer, MeanImputer
from camanim.road.result import CANCELLED, NOTHING_POSITIVE
from camanim.stack import upsample

RNG = np.random.default_rng(0)
FILLS = {"blur": BlurImputer(), "mean": MeanImputer(), "road": DirectImputer()}


class Bright(torch.nn.Module):
    """The score of class 1 increases with the brightness of the top left quarter."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([-4.0, 4.0]).view(2, 1, 1, 1))
            self.conv.bias.zero_()

    def forward(self, x):
        size = x.shape[-1] // 2
        return self.conv(x)[:, :, :size, :size].mean((2, 3))


@pytest.fixture
def animation():
    picture = RNG.random((32, 32)).astype(np.float32) * 0.2
    picture[:16, :16] += 0.6
    animation = camanim.animate(camanim.Model(Bright(), classes=["dark", "bright"]), picture)
    corner = np.zeros((8, 8), np.float32)
    corner[:4, :4] = 1 + RNG.random((4, 4))
    maps = [corner, 2 - corner, RNG.random((8, 8)).astype(np.float32), -corner]
    animation.maps = maps
    animation.layers = [replace(animation.layers[0], index=i) for i in range(4)]
    return animation


def probability(animation, picture):
    with torch.no_grad():
        return float(animation.model.net(picture[None])[0].softmax(0)[animation.target.index])


@pytest.mark.parametrize("imputation", FILLS)
@pytest.mark.parametrize("name", ["deletion", "insertion"])
def test_curves_follow_their_definition(animation, name, imputation):
    """Pixels are removed, or inserted, in the order of the map, in eight steps."""
    measure = animation.measure(name, imputation, steps=8)
    picture = animation.tensor[0]
    assert measure.shares == tuple(i / 8 for i in range(9))
    # Without ties the order is unique.
    large = upsample(animation.maps[2], (32, 32))
    order = np.argsort(-large, axis=None, kind="stable")
    for i in range(9):
        kept = np.ones(1024, bool)
        kept[order[: i * 128]] = False
        kept = kept if name == "deletion" else ~kept
        fill = FILLS[imputation]
        if not kept.any():
            fill = MeanImputer() if imputation == "road" else fill
        filled = fill(picture, torch.from_numpy(kept.reshape(1, 32, 32)))[0]
        assert measure.curves[2, i] == pytest.approx(probability(animation, filled), abs=1e-4)
    areas = [trapezoid(curve, dx=1 / 8) for curve in measure.curves[:3]]
    np.testing.assert_allclose(measure.values[:3], areas)


@pytest.mark.parametrize("imputation", FILLS)
@pytest.mark.parametrize("name", ["deletion", "insertion", "drop", "increase"])
def test_a_good_map_is_better_than_its_opposite_and_negative_maps_are_undefined(
    animation, name, imputation
):
    measure = animation.measure(name, imputation)
    good, opposite = measure.values[:2]
    # A blurred corner is as bright as a sharp one.
    if imputation != "blur" or name in ("deletion", "insertion"):
        assert (good >= opposite) if measure.higher_is_better else (good <= opposite)
    assert measure.undefined == (None, None, None, NOTHING_POSITIVE)
    assert np.isnan(measure.values[3])
    assert animation.measures == {f"{name} ({imputation})": measure}
    assert measure.best in animation.layers[:3]
    row = animation.table()[animation.layers[0].index]
    assert row[f"{name} ({imputation})"] == pytest.approx(measure.values[0])


@pytest.mark.parametrize("imputation", ["blur", "mean"])
def test_confidence_is_that_of_the_image_weighted_by_the_map(animation, imputation):
    drop, increase = (animation.measure(n, imputation).values for n in ("drop", "increase"))
    picture = animation.tensor[0]
    nothing = torch.zeros(1, 32, 32, dtype=torch.bool)
    filled = FILLS[imputation](picture, nothing)[0]
    before = probability(animation, picture)
    for i in range(3):
        weights = torch.from_numpy(upsample(animation.maps[i], (32, 32)))
        weights = weights / weights.max()
        after = probability(animation, weights * picture + (1 - weights) * filled)
        assert drop[i] == pytest.approx(max(0, before - after) / before, abs=1e-5)
        assert increase[i] == (after > before)


def test_curves_of_one_imputation_share_their_forwards(animation):
    animation.measure("deletion", "mean")
    batches = []
    handle = animation.model.net.register_forward_hook(lambda m, a, out: batches.append(len(out)))
    animation.measure("insertion", "mean")
    handle.remove()
    # The image, alone and in a batch of four, and the fully imputed image.
    assert batches == [1, 4, 1]


@pytest.mark.parametrize(
    ("name", "imputation", "steps"),
    [("removal", "blur", 20), ("deletion", "black", 20), ("deletion", "blur", 1)],
)
def test_invalid_settings_raise(animation, name, imputation, steps):
    with pytest.raises(camanim.ScoreError):
        animation.measure(name, imputation, steps=steps)
    assert animation.measures == {}


def test_a_cancel_keeps_the_values_computed_so_far(animation):
    def cancel(stage, done, total):
        if stage == "confidence" and done == 1:
            raise camanim.Cancelled

    measure = animation.measure("drop", "mean", progress=cancel)
    assert np.isfinite(measure.values[0])
    assert measure.undefined[1:3] == (CANCELLED, CANCELLED)


def test_the_drop_of_a_value_below_0_raises(animation):
    animation.target = camanim.targets.resolve(
        camanim.targets.Contrast(0, 1), animation.model.net(animation.tensor), None, "auto"
    )
    with pytest.raises(camanim.ScoreError, match="drop"):
        animation.measure("drop", "mean")
