"""Tests of layers, of activations and of regions, on networks whose evidence is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import camanim
from camanim import Cancelled, ScoreError
from camanim.checks.activation_test import FIRST_SEED
from camanim.checks.layer_test import max_t_p_values
from camanim.checks.sequential import STOP_AFTER, SequentialTest
from camanim.checks.transforms import Transform, random_transforms
from camanim.pipeline import recompute

SIDE = 32
PREPROCESS = camanim.Preprocess(channels=1, mean=(0.0,), std=(1.0,))
#: Where the network looks.
PATCH = (slice(4, 14), slice(16, 26))


class Patch(nn.Module):
    """Class 1 is as likely as the patch is bright; nothing else matters."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Conv2d(1, 2, 1, bias=False)
        self.blurred = nn.AvgPool2d(2)
        nn.init.constant_(self.seen.weight, 1.0)
        mask = torch.zeros(SIDE, SIDE)
        mask[PATCH] = 1
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        evidence = self.blurred(self.seen(x * self.mask)).sum((1, 2, 3))
        logit = 0.1 * evidence - 3
        return torch.stack([torch.zeros_like(logit), logit], 1)


@pytest.fixture
def image() -> np.ndarray:
    noise = np.random.default_rng(0).random((SIDE, SIDE)).astype(np.float32) * 0.1
    noise[PATCH] += 0.8
    return noise


@pytest.fixture
def animation(image) -> camanim.Animation:
    model = camanim.Model(Patch().eval(), PREPROCESS, classes=["a", "b"])
    return camanim.animate(model, image, target=1, layers="all")


def with_maps(animation: camanim.Animation, *maps: np.ndarray) -> camanim.Animation:
    """Return the animation with other maps of its first layer."""
    layer = animation.layers[0]
    layers = [replace(layer, index=i) for i in range(len(maps))]
    maps32 = [np.asarray(m, np.float32) for m in maps]
    return replace(animation, maps=maps32, layers=layers, findings={})


# --- Sequential p-values --------------------------------------------------------------------------


def test_sequential_p_values_are_uniform_under_the_null_and_spare_draws() -> None:
    rng = np.random.default_rng(0)
    count, draws = 20_000, 19
    test = SequentialTest(rng.random(count), draws)
    while (open_values := test.open).size:
        test.add(open_values, rng.random(len(open_values)))
    for level in (0.05, 0.1, 0.25, 0.5):
        assert (test.p_values <= level).mean() <= level + 3 * (level / count) ** 0.5
    assert (test.p_values <= 0.05).mean() == pytest.approx(0.05, abs=0.005)
    assert test.drawn.mean() < 0.6 * draws


def test_an_undefined_draw_counts_as_at_or_above_and_nothing_is_tested_without_a_score() -> None:
    test = SequentialTest(np.array([1.0, np.nan, 1.0]), 19)
    assert test.open.tolist() == [0, 2]
    for _ in range(STOP_AFTER):
        test.add(np.array([0]), np.array([np.nan]))
    assert test.p_values[0] == 1
    assert np.isnan(test.p_values[1:]).all()
    assert test.open.tolist() == [2]


# --- Moved maps -----------------------------------------------------------------------------------


def test_a_transform_mirrors_turns_and_shifts_around_the_edges() -> None:
    raw = np.arange(24, dtype=np.float32).reshape(4, 6)
    moved = Transform((0.25, 0.5), 2, True)(raw)
    expected = np.empty_like(raw)
    for y, x in np.ndindex(raw.shape):
        # Mirrored, then turned by a half.
        expected[(3 - y + 1) % 4, (5 - (5 - x) + 3) % 6] = raw[y, x]
    np.testing.assert_array_equal(moved, expected)
    np.testing.assert_array_equal(Transform.identity(2)(raw), raw)
    volume = np.random.default_rng(0).random((3, 4, 4)).astype(np.float32)
    assert sorted(Transform((0.4, 0.5, 0.1), 1, False)(volume).ravel()) == sorted(volume.ravel())


def test_quarter_turns_are_made_of_squares_only() -> None:
    assert {t.turns for t in random_transforms((8, 8), 100, 0)} == {0, 1, 2, 3}
    assert {t.turns for t in random_transforms((8, 9), 100, 0)} == {0, 2}


def test_max_t_p_values_follow_their_definition() -> None:
    scores = np.random.default_rng(0).random((5, 20))
    scores[1, 0] = 3
    scores[3] = np.nan
    scores[4] = 0.5
    z = (scores - scores.mean(1, keepdims=True)) / np.maximum(scores.std(1, keepdims=True), 1e-30)
    expected = []
    for layer in (0, 1, 2):
        hits = [max(z[m, d] for m in (0, 1, 2)) >= z[layer, 0] for d in range(20)]
        expected.append(np.mean(hits))
    p = max_t_p_values(scores)
    np.testing.assert_allclose(p[:3], expected)
    assert p[1] == 1 / 20
    assert np.isnan(p[3:]).all()


# --- Layer test -----------------------------------------------------------------------------------


def test_a_map_of_the_evidence_is_significant_and_maps_of_noise_are_not(animation) -> None:
    true = np.zeros((8, 8))
    true[1:4, 4:7] = 1 + np.random.default_rng(1).random((3, 3))
    noise = np.random.default_rng(2).random((3, 8, 8))
    result = with_maps(animation, noise[0], true, noise[1], noise[2])
    test = result.check_layers("all", transforms=99)
    assert test.best is result.layers[1]
    assert test.p_values[1] <= 0.05
    assert (test.p_values[[0, 2, 3]] > 0.05).all()
    assert result.initial_index == 1
    assert "best" in result.caption(1)
    np.testing.assert_array_equal(test.scores, result.score().scores)


def test_the_test_of_noise_stops_early_without_a_best_layer(animation) -> None:
    noise = np.random.default_rng(3).random((3, 8, 8))
    result = with_maps(animation, *noise)
    test = result.check_layers("all", transforms=199)
    assert test.best is None
    assert test.done < 199
    assert test.lowest == 1 / (test.done + 1)
    assert "best" not in result.caption(0)


def test_only_selected_layers_are_tested(animation) -> None:
    test = animation.check_layers("seen", transforms=19)
    tested = [layer.name == "seen" for layer in animation.layers]
    assert (~np.isnan(test.scores)).tolist() == tested
    with pytest.raises(ScoreError, match="layers"):
        animation.check_layers("Patch")
    with pytest.raises(ScoreError, match="transforms"):
        animation.check_layers(transforms=3)


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_cancelled_test_keeps_enough_transforms(animation, rounds) -> None:
    true = np.zeros((8, 8))
    true[1:4, 4:7] = 1 + np.random.default_rng(1).random((3, 3))
    result = with_maps(animation, true)

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "layer test" and done > rounds * 80:
            raise Cancelled("enough")

    if rounds == 1:
        with pytest.raises(Cancelled):
            result.check_layers("all", progress=progress)
        assert not result.findings
        return
    test = result.check_layers("all", progress=progress)
    assert test.cancelled
    assert 19 <= test.done < 99
    assert "cancelled" in test.summary()


# --- Activation test ------------------------------------------------------------------------------


class Channels(nn.Module):
    """One of 128 channels has the evidence, the others stronger noise, mostly elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()
        generator = torch.Generator().manual_seed(0)
        channels = 20 * torch.randn(128, SIDE, SIDE, generator=generator)
        # The image is bright in the patch: without this, every channel would show it.
        channels[:, *PATCH] *= 0.05
        channels[0] = 0
        channels[0][PATCH] = 1
        self.register_buffer("channels", channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.features(x * self.channels)
        logit = 0.1 * features[:, 0].sum((1, 2)) - 3
        return torch.stack([torch.zeros_like(logit), logit], 1)


def test_a_map_that_selects_the_channel_is_above_activation_and_random_weights_are_not(
    image,
) -> None:
    model = camanim.Model(Channels().eval(), PREPROCESS, classes=["a", "b"])
    animation = camanim.animate(model, image, target=1, layers="features")
    test = animation.check_activation("features")
    assert test.above_activation.tolist() == [True]
    assert test.p_values[0] == 1 / 20
    assert test.scores[0] > test.random_mean[0]
    ours = animation.score().scores
    np.testing.assert_array_equal(test.scores, ours)
    random = [
        camanim.animate(model, image, target=1, layers="features", method="RandomCAM", seed=s)
        for s in range(12)
    ]
    # 12 tests at the level of 0.05: more than two by chance have a probability of 2 %.
    above = [r.check_activation("features").above_activation[0] for r in random]
    assert sum(above) <= 2


def test_draws_of_the_activation_test_are_other_maps_than_those_of_the_result(animation) -> None:
    options = {"target": 1, "layers": "all", "method": "RandomCAM"}
    result = camanim.animate(animation.model, animation.image, seed=3, **options)
    drawn = [
        recompute(result, method="RandomCAM", seed=FIRST_SEED + seed)[0].maps[0]
        for seed in range(10)
    ]
    assert len({m.tobytes() for m in (*drawn, result.maps[0])}) == 11


def test_the_scores_of_the_activation_test_are_those_of_the_methods(animation) -> None:
    test = animation.check_activation("seen", seed=3)
    i = [layer.name for layer in animation.layers].index("seen")
    sobel = camanim.animate(
        animation.model, animation.image, method="SobelCAM", target=1, layers="seen"
    )
    sobel = replace(sobel, tensor=animation.tensor)
    np.testing.assert_allclose(test.sobel[i], sobel.score(3).scores[0], atol=0.02)
    assert animation.check_activation("seen", seed=3).p_values[i] == test.p_values[i]


def test_a_cancelled_activation_test_keeps_settled_layers(animation) -> None:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "activation test" and done > 40:
            raise Cancelled("enough")

    test = animation.check_activation("all", progress=progress)
    assert test.drawn.max() < 19
    assert np.isnan(test.p_values[test.drawn == 0]).all()
    assert test.summary()


# --- Region test ----------------------------------------------------------------------------------


def test_removing_the_region_that_the_network_uses_is_significant(animation) -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[PATCH] = True
    test = animation.check_region(mask)
    assert test.p_value <= 0.02
    assert test.effect < test.elsewhere.min()
    assert (test.concentration > 1.5).any()
    # Bright pixels of a corner do not matter.
    corner = np.zeros_like(mask)
    corner[24:30, 2:8] = True
    unused = animation.check_region(corner)
    assert unused.p_value > 0.05
    assert unused.effect == pytest.approx(0, abs=1e-4)


def test_the_effect_is_the_change_of_the_logit_without_the_region(animation) -> None:
    """With noise switched off by its scale, the imputed image gives the change directly."""
    from camanim.road import DirectImputer

    mask = np.zeros((SIDE, SIDE), bool)
    mask[5:8, 17:20] = True
    test = animation.check_region(mask, seed=7)
    image = animation.tensor[0]
    imputed = DirectImputer()(image, torch.from_numpy(~mask)[None])
    field = torch.randn(image.shape, generator=torch.Generator().manual_seed(7))
    imputed = imputed + 0.01 * field * torch.from_numpy(mask)
    with torch.no_grad():
        expected = animation.model.net(imputed)[0, 1] - animation.model.net(animation.tensor)[0, 1]
    assert test.effect == pytest.approx(float(expected), abs=1e-3)


def test_copies_of_the_region_are_whole_and_distinct(animation, monkeypatch) -> None:
    regions = []
    from camanim.checks import region_test

    def scores(result, given, seed, progress):
        regions.extend(given)
        return 0.0, np.zeros(len(given))

    monkeypatch.setattr(region_test, "_scores_without", scores)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[0:3, 0:5] = mask[1, 2:9] = True
    animation.check_region(mask, places=50)
    sums = {region.sum() for region in regions}
    assert sums == {mask.sum()}
    assert len({region.tobytes() for region in regions}) == 51
    boxes = [np.ptp(np.argwhere(region), axis=0).tolist() for region in regions]
    assert all(box == [2, 8] for box in boxes)


def test_a_region_that_cannot_be_moved_is_refused(animation) -> None:
    mask = np.ones((SIDE, SIDE), bool)
    mask[0] = False
    with pytest.raises(ScoreError, match="region"):
        animation.check_region(mask)


def test_findings_of_the_tests_are_recorded_and_restored(animation) -> None:
    import json

    mask = np.zeros((SIDE, SIDE), bool)
    mask[PATCH] = True
    animation.check_layers("all", transforms=19)
    animation.check_activation("all")
    animation.check_region(mask)
    for finding in animation.findings.values():
        record = json.loads(json.dumps(finding.record()))
        again = type(finding).from_record(record, animation.layers)
        np.testing.assert_equal(again.record(), finding.record())
        assert finding.panel() is not None
        assert finding.summary()
        for column in (*finding.columns().values(), *finding.listing().values()):
            assert len(column) == len(animation)
        assert all(isinstance(finding.caption(i), str) for i in range(len(animation)))


def test_the_overlap_of_large_regions_is_remarked_on(animation) -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2:26, 2:26] = True
    large = animation.check_region(mask)
    assert large.overlap > 0.5
    assert "large" in large.summary()
    small = np.zeros_like(mask)
    small[PATCH] = True
    assert "large" not in animation.check_region(small).summary()
