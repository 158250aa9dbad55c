"""ROAD, compared with grad-cam, with its definition and with brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

import camanim
from camanim.road import scores
from camanim.road.masks import kept_pixels, tie_break
from camanim.road.predictor import IMPUTATION_BATCH
from camanim.road.result import CANCELLED, CONSTANT, NOT_FINITE, NOTHING_POSITIVE

RNG = np.random.default_rng(0)


class BrightCorner(torch.nn.Module):
    """The score of class 1 increases with the brightness of the top left quarter."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 1)
        self.pool = torch.nn.AvgPool2d(4)
        self.batches = []
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([-8.0, 8.0]).view(2, 1, 1, 1))
            self.conv.bias.zero_()

    def forward(self, x):
        self.batches.append(len(x))
        features = self.pool(self.conv(x))
        size = features.shape[-1] // 2
        return features[:, :, :size, :size].mean((2, 3))


@pytest.fixture
def image():
    picture = RNG.random((32, 32)).astype(np.float32) * 0.2
    picture[:16, :16] += 0.8
    return picture


@pytest.fixture
def animation(image):
    return camanim.animate(camanim.Model(BrightCorner(), classes=["dark", "bright"]), image)


@settings(max_examples=60, deadline=None)
@given(
    plane=arrays(np.float32, (6, 7), elements=st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0])),
    percentile=st.floats(1, 99),
    seed=st.integers(0, 5),
)
def test_masks_keep_the_exact_fraction_of_the_most_and_least_relevant(plane, percentile, seed):
    order = tie_break(plane.size, seed)
    (morf,), (lerf,) = kept_pixels(plane, [percentile], order)
    count = min(max(round(percentile / 100 * plane.size), 1), plane.size - 1)
    assert morf.sum() == lerf.sum() == count
    if 0 < count < plane.size:
        assert plane[morf].max() <= plane[~morf].min()
        assert plane[lerf].min() >= plane[~lerf].max()


def test_ties_are_broken_by_the_seed():
    flat = np.zeros((10, 10), np.float32)
    flat[0, 0] = 1
    first, again, other = (kept_pixels(flat, [50], tie_break(100, s))[0] for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    # A threshold would give the same mask at 20 and 50 %.
    (low, high), _ = kept_pixels(flat, [20, 50], tie_break(100, 0))
    assert (low.sum(), high.sum()) == (20, 50)


def test_the_score_of_a_map_without_ties_equals_grad_cams(animation, image, monkeypatch):
    """Without noise; the tolerance covers grad-cam's interpolated percentiles."""
    net = animation.model.net
    smooth = RNG.random((1, 32, 32)).astype(np.float32) + np.linspace(0, 3, 32, dtype=np.float32)
    animation.maps = [smooth[0]]
    animation.layers = animation.layers[:1]
    score = animation.score(noise=0).scores[0]
    monkeypatch.setattr(NoisyLinearImputer.__init__, "__defaults__", (0, None))
    expected = ROADCombined(percentiles=[20, 40, 60, 80])(
        animation.tensor, smooth, [ClassifierOutputSoftmaxTarget(animation.target.index)], net
    )
    assert abs(score - float(expected[0])) < 2e-3


def test_scores_follow_their_definition_by_brute_force(animation):
    """Every value is recomputed, with one mask and one forward pass at a time."""
    road = animation.score(seed=3, percentiles=(30, 70))
    net, tensor = animation.model.net, animation.tensor
    order = tie_break(32 * 32, 3)
    noise = 0.01 * torch.randn(tensor[0].shape, generator=torch.Generator().manual_seed(3))
    for i in range(len(animation)):
        plane = animation.stack(None)[i]
        for j, p in enumerate((30, 70)):
            after = []
            for kept in (m[0] for m in kept_pixels(plane, [p], order)):
                filled = NoisyLinearImputer(noise=0)(
                    tensor[0], torch.from_numpy(kept.astype(np.float32))
                )
                filled = filled + noise * torch.from_numpy(~kept)
                with torch.no_grad():
                    after.append(float(net(filled[None]).softmax(1)[0, animation.target.index]))
            np.testing.assert_allclose([road.morf[i, j], road.lerf[i, j]], after, atol=1e-5)
    np.testing.assert_allclose(road.scores, (road.lerf - road.morf).mean(1) / 2)
    np.testing.assert_allclose(road.sums, road.scores * 2)
    assert road.mean == pytest.approx(road.scores.mean())
    assert road.max == road.scores.max()
    assert road.highest is animation.layers[int(road.scores.argmax())]
    assert road.probability == pytest.approx(animation.probability, abs=1e-5)


def test_the_correct_map_scores_higher_than_noise_and_its_opposite_lower(animation, image):
    corner = np.zeros((8, 8), np.float32)
    corner[:4, :4] = 1 + RNG.random((4, 4))
    animation.maps = [corner, 2 - corner, RNG.random((8, 8)).astype(np.float32)]
    animation.layers = animation.layers[:1] * 3
    good, opposite, noise = animation.score().scores
    assert good > noise > opposite
    assert opposite < 0 < good


def test_the_score_of_a_constant_map_is_undefined(animation):
    ones, broken = np.ones((8, 8), np.float32), np.full((8, 8), np.nan, np.float32)
    animation.maps = [ones, -ones, 0 * ones, broken, animation.maps[0]]
    animation.layers = [animation.layers[0]] * 4 + [animation.layers[1]]
    road = animation.score()
    assert np.isnan(road.scores[:4]).all()
    assert np.isnan(road.baseline[:4]).all()
    assert road.undefined == (CONSTANT, NOTHING_POSITIVE, NOTHING_POSITIVE, NOT_FINITE, None)
    assert CONSTANT in road.caption(0)
    assert road.highest is animation.layers[4]
    assert road.mean == road.scores[4]
    animation.maps, animation.layers = animation.maps[:4], animation.layers[:4]
    road = animation.score()
    assert road.highest is None
    assert np.isnan([road.mean, road.max]).all()


def test_identical_masks_share_one_forward(animation):
    net = animation.model.net
    animation.maps = [animation.maps[0], animation.maps[0] * 3, animation.maps[0] + 0]
    animation.layers = animation.layers[:1] * 3
    net.batches.clear()
    road = animation.score(batch_size=4, baseline=False)
    assert road.forwards == 8
    # The image, alone and in a batch, and 8 perturbed images in batches of 4.
    assert net.batches == [1, 4, 4, 4]
    np.testing.assert_array_equal(road.scores, road.scores[0])


def test_scores_are_determined_by_the_seed(animation):
    first, again, other = (animation.score(seed).scores for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_inference_settings_do_not_change_the_scores(animation):
    every = [{"batch_size": 1}, {"batch_size": 64}, {"memory_format": "channels_last"}]
    roads = [animation.score(**each) for each in every]
    for road in roads[1:]:
        # Values are cached separately for each of the inference settings.
        assert road.forwards == roads[0].forwards
        np.testing.assert_allclose(road.scores, roads[0].scores, atol=1e-6)


def test_a_cancel_keeps_the_layers_scored_so_far(animation):
    animation.maps = [RNG.random((8, 8)).astype(np.float32) for _ in range(5)]
    animation.layers = (animation.layers * 5)[:5]

    def cancel(stage, done, total):
        assert (stage, total) in (("masks", 5), ("prepare", 0), ("ROAD", 40))
        if stage == "ROAD" and done >= 16:
            raise camanim.Cancelled

    road = animation.score(batch_size=8, baseline=False, progress=cancel)
    assert road.undefined == (None, None, CANCELLED, CANCELLED, CANCELLED)
    assert np.isfinite(road.scores[:2]).all()
    assert np.isnan(road.scores[2:]).all()
    assert not road.complete

    def cancel_immediately(stage, done, total):
        raise camanim.Cancelled

    with pytest.raises(camanim.Cancelled):
        animation.score(progress=cancel_immediately)
    assert animation.road is road


def test_partial_scores_are_those_of_the_end(animation, monkeypatch):
    monkeypatch.setattr(scores, "INTERVAL", 0.0)
    animation.maps = [RNG.random((8, 8)).astype(np.float32) for _ in range(5)]
    animation.layers = (animation.layers * 5)[:5]
    partial = []
    road = animation.score(batch_size=8, partial_scores=partial.append)
    assert road.complete
    known = [np.isfinite(each.scores) for each in partial]
    counts = [int(k.sum()) for k in known]
    assert counts == sorted(counts)
    assert 0 < counts[0] < 5
    for each, k in zip(partial, known, strict=True):
        np.testing.assert_array_equal(each.scores[k], road.scores[k])
        assert not each.complete
    assert "partial_scores" not in road.parameters


@pytest.mark.parametrize(
    "wrong",
    [
        {"percentiles": ()},
        {"percentiles": (0, 50)},
        {"percentiles": (50, 100)},
        {"noise": -1},
        {"noise": float("nan")},
        {"batch_size": 0},
        {"repeats": 0},
        {"draws": 1},
        {"memory_format": "blocked"},
        {"precision": "float8"},
    ],
)
def test_invalid_settings_raise(animation, wrong):
    with pytest.raises(camanim.ScoreError):
        animation.score(**wrong)
    assert animation.road is None


def test_the_network_is_restored_after_scoring(animation):
    net = animation.model.net
    net.train()
    net.conv.eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    animation.score()
    assert (net.training, net.conv.training, net.pool.training) == (True, False, True)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_a_user_defined_imputer_is_called_with_batches_of_masks(animation):
    counts = []

    def black(image, kept):
        counts.append(len(kept))
        return image * kept[:, None]

    animation.score(imputer=black, batch_size=5)
    assert sum(counts) == animation.road.forwards
    assert max(counts) <= IMPUTATION_BATCH
