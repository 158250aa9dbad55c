"""Shuffled weights: which, in which order, and what is said of maps that stay as they are."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

import camanim
from camanim import Cancelled, ModelError, Preprocess, Randomisation, ScoreError, samples
from camanim.checks.cascade import copied, grouped, shuffle, units
from camanim.checks.map_similarity import similarity, spearman
from camanim.pipeline import recompute


def brightness(activation: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Show the image, whatever the network."""
    return adaptive_avg_pool2d(image.mean(0, keepdim=True), activation.shape[1:])[0].to(activation)


def names(net: nn.Module, image: np.ndarray) -> list[str]:
    trace = camanim.animate(camanim.Model(net), image, layers="all", method="EigenCAM").layer_calls
    return [name for name, _ in units(net, trace)]


@pytest.fixture
def animation(zoo, image) -> camanim.Animation:
    return camanim.animate(camanim.Model(zoo.shake(zoo.Plain())), image, target=1)


# --- how alike two maps are ---------------------------------------------------------------------


@pytest.mark.parametrize("levels", [3, 1000])
def test_rank_correlation_is_that_of_scipy(levels) -> None:
    rng = np.random.default_rng(levels)
    first, second = (rng.integers(0, levels, (6, 7)).astype(np.float32) for _ in range(2))
    expected = stats.spearmanr(first.ravel(), second.ravel()).statistic
    assert spearman(first, second) == pytest.approx(expected, abs=1e-12)
    assert spearman(first, first**3) == 1
    assert spearman(first, -first) == pytest.approx(-1)
    assert np.isnan(spearman(first, np.ones((6, 7), np.float32)))
    assert np.isnan(spearman(first, second.T))


@pytest.mark.parametrize("side", [24, 11, 9, 7, 5, 3])
def test_structural_similarity_is_that_of_scikit_image(side) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(side)
    first, second = (rng.random((side, side)) * 7 - 2 for _ in range(2))
    scaled = [(m - m.min()) / (m.max() - m.min()) for m in (first, second)]
    window = min(side, 11)
    expected, whole = metrics.structural_similarity(
        *scaled, data_range=1, gaussian_weights=True, sigma=1.5 * window / 11,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    edge = window // 2
    inner = whole[edge : side - edge, edge : side - edge]
    found = similarity(first.astype(np.float32), second.astype(np.float32))
    assert found == pytest.approx(inner.mean(), abs=1e-4)
    assert found == pytest.approx(expected, abs=1e-4)


def test_structural_similarity_in_volumes_and_where_there_is_none() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    first, second = (rng.random((8, 9, 10)).astype(np.float32) for _ in range(2))
    for m in (first, second):
        m.flat[:2] = 0, 1
    expected = metrics.structural_similarity(
        first, second, data_range=1, gaussian_weights=True, sigma=1.5 * 7 / 11,
        use_sample_covariance=False,
    )  # fmt: skip
    assert similarity(first, second) == pytest.approx(expected, abs=1e-4)
    assert similarity(first, first * 5 + 1) == pytest.approx(1, abs=1e-5)
    assert np.isfinite(similarity(first[:4, :6], second[:4, :6]))
    assert np.isnan(similarity(first[0, :2], second[0, :2]))
    assert np.isnan(similarity(first, 0 * first))


# --- which weights, and when ----------------------------------------------------------------------


def test_modules_come_from_the_output_backwards(zoo, image) -> None:
    assert names(zoo.shake(zoo.Plain()), image) == ["8", "4", "1", "0"]
    residual = ["head.2", "bn2", "conv", "bn1", "stem"]
    assert names(zoo.shake(zoo.Residual()), image) == residual


class Odd(nn.Module):
    """Owns a parameter itself, calls one module twice, ties two, and calls one not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 3, 1, 1))
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.between = nn.Conv2d(3, 3, 1)
        self.tied = nn.Conv2d(3, 3, 1)
        self.tied.weight = self.between.weight
        self.idle = nn.Linear(2, 2)
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.tied(self.between(self.twice(x + self.token))))
        return self.head(x.relu().mean((2, 3)))


def test_each_weight_has_one_place(image) -> None:
    net = Odd().eval()
    assert names(net, image) == ["head", "twice", "tied", "between", ""]
    trace = camanim.animate(camanim.Model(net), image, method="EigenCAM").layer_calls
    parts = dict(units(net, trace))
    held = [id(p) for part in parts.values() for p in part]
    assert sorted(held) == sorted(id(p) for p in net.parameters())
    # Shared with the later one; its own bias remains.
    assert [p is net.between.bias for p in parts["between"]] == [True]
    assert {id(p) for p in parts[""]} == {id(net.token), *map(id, net.idle.parameters())}


class Token(nn.Module):
    """Adds a parameter of its own before all else."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 3, 1, 1))
        self.stem = nn.Conv2d(3, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stem(x + self.token)


def test_what_a_network_owns_itself_comes_after_its_parts(image) -> None:
    inner = nn.Sequential(Token(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    inner.register_parameter("unused", nn.Parameter(torch.ones(2)))
    assert names(inner.eval(), image) == ["3", "0.stem", "0", ""]


class Attends(nn.Module):
    """Torch's attention uses the weights of a part that it does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))


def test_parts_that_are_used_but_not_called_belong_to_who_uses_them(image) -> None:
    net = Attends().eval()
    trace = camanim.animate(camanim.Model(net), image, method="EigenCAM").layer_calls
    parts = dict(units(net, trace))
    assert list(parts) == ["head", "attention", "stem"]
    assert {id(p) for p in parts["attention"]} == {id(p) for p in net.attention.parameters()}


def test_values_are_permuted_within_each_parameter(zoo) -> None:
    net = zoo.shake(zoo.Residual())
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    shuffle([net.conv.weight, net.stem.bias], torch.Generator().manual_seed(0))
    for name, p in net.named_parameters():
        assert torch.equal(p.sort().values if p.ndim == 1 else p.flatten().sort().values,
                           before[name].flatten().sort().values)  # fmt: skip
        assert torch.equal(p, before[name]) == (name not in ("conv.weight", "stem.bias"))
    assert all(torch.equal(b, buffers[name]) for name, b in net.named_buffers())


def test_modules_are_spread_evenly_over_the_steps() -> None:
    listed = [(str(k), [nn.Parameter(torch.ones(k + 1))]) for k in range(50)]
    assert [len(own) for _, own in grouped(listed, None)] == [3] * 10 + [2] * 10
    assert [name for name, _ in grouped(listed, 2)] == ["24", "49"]
    assert len(grouped(listed, 100)) == 50
    kept = [p for _, own in grouped(listed, 7) for p in own]
    assert [len(p) for p in kept] == list(range(1, 51))
    with pytest.raises(ScoreError, match="1 step or more, not 0"):
        grouped(listed, 0)


# --- the check --------------------------------------------------------------------------------------


def test_each_step_is_what_the_method_makes_of_the_shuffled_network(zoo, animation, image) -> None:
    found = animation.check_randomisation(seed=5)
    assert found.steps == ("8", "4", "1", "0")
    net = copy.deepcopy(animation.model.net)
    generator = torch.Generator().manual_seed(5)
    for s, name in enumerate(found.steps):
        for p in net[int(name)].parameters():
            values = p.detach().flatten()
            order = torch.randperm(len(values), generator=generator)
            p.data = values[order].view_as(p)
        other = camanim.animate(camanim.Model(net), image, target=1)
        for i, (a, b) in enumerate(zip(animation.maps, other.maps, strict=True)):
            a, b = np.maximum(a, 0), np.maximum(b, 0)
            if min(np.ptp(a), np.ptp(b)) == 0:
                assert np.isnan(found.spearman[s, i])
                continue
            expected = stats.spearmanr(a.ravel(), b.ravel()).statistic
            assert found.spearman[s, i] == pytest.approx(expected, abs=1e-6)
            assert found.ssim[s, i] == pytest.approx(similarity(a, b), abs=1e-5)
    np.testing.assert_array_equal(found.final, found.spearman[-1])
    assert found.median == np.nanmedian(found.final)
    assert found.layers == animation.layers


@pytest.mark.parametrize("method", ["GradCAM", "ScoreCAM", "Guided GradCAM", "EigenCAM"])
def test_the_network_comes_back_as_it_was(zoo, image, method) -> None:
    net = zoo.shake(zoo.Residual())
    animation = camanim.animate(camanim.Model(net), image, method=method, layers="Conv2d")
    before, drawn = zoo.state_of(net), torch.get_rng_state()
    animation.check_randomisation(steps=2)
    assert zoo.state_of(net) == before
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.parametrize("method", ["SobelCAM", brightness])
def test_maps_that_ignore_the_network_fail_and_it_is_noted_once(zoo, image, method) -> None:
    net = zoo.shake(zoo.Plain())
    animation = camanim.animate(camanim.Model(net), image, method=method)
    found = animation.check_randomisation(steps=2)
    assert (found.final == 1).all()
    np.testing.assert_allclose(found.ssim, 1, atol=1e-5)
    assert found.passed is False
    assert "FAILS the randomisation check" in found.verdict
    assert "still 1.00" in found.verdict
    assert animation.warnings == [found.verdict]
    assert animation.caption(0).endswith("FAILS the randomisation check")
    assert animation.check_randomisation(steps=1).verdict == found.verdict
    assert animation.warnings == [found.verdict]
    # With another verdict, the old one is gone.
    assert animation.check_randomisation(steps=1, threshold=1) is animation.randomisation
    assert len(animation.warnings) == 1


def test_a_pass_takes_the_note_of_a_failure_away(animation) -> None:
    strict = animation.check_randomisation(steps=1, threshold=-1)
    assert strict.passed is False
    assert animation.warnings == [strict.verdict]
    kind = animation.check_randomisation(steps=1, threshold=1)
    assert kind.passed is True
    assert animation.warnings == []
    assert kind.verdict.startswith("GradCAM depends on the weights")


def test_the_demo_network_s_maps_depend_on_its_weights() -> None:
    model = camanim.load_model("demo/ultrasound")
    animation = camanim.animate(model, samples.image("benign_1"), layers="Conv2d")
    found = animation.check_randomisation(steps=3)
    assert found.passed is True
    assert found.median < 0.5
    assert len(found.steps) == 3
    assert animation.warnings == []


def test_the_seed_is_that_of_the_shuffling(animation) -> None:
    first, same, other = (animation.check_randomisation(steps=1, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.spearman, same.spearman)
    assert not np.array_equal(first.spearman, other.spearman, equal_nan=True)


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("call", [3, 13], ids=["forward", "maps"])
def test_a_cancel_keeps_the_steps_that_are_done(animation, stop, call) -> None:
    whole = animation.check_randomisation()
    calls = []

    def progress(stage: str, done: int, total: int) -> None:
        calls.append((stage, done, total))
        # Within a step.
        if done == stop and len([c for c in calls if c[1] == done]) == call:
            raise Cancelled("enough")

    found = animation.check_randomisation(progress=progress)
    assert {(stage, total) for stage, _, total in calls} == {("randomisation", 4)}
    assert found.cancelled
    assert found.steps == whole.steps[:stop]
    np.testing.assert_array_equal(found.spearman, whole.spearman[:stop])
    assert found.passed is None
    assert f"cancelled after step {stop}" in found.verdict


def test_a_cancel_before_the_first_step_is_one(animation) -> None:
    def progress(stage: str, done: int, total: int) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        animation.check_randomisation(progress=progress)
    assert animation.randomisation is None


def test_slices_volumes_and_every_setting_are_served(zoo, image) -> None:
    net = zoo.shake(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *zoo.head(4)))
    volume = np.random.default_rng(0).random((4, 12, 10)).astype(np.float32)
    slices = camanim.animate(camanim.Model(net, Preprocess()), volume, slices=True)
    assert slices.check_randomisation(steps=1).spearman.shape == (1, 2)
    with pytest.raises(ScoreError, match="not one of its planes"):
        slices.plane(1).check_randomisation()
    other = camanim.animate(
        camanim.Model(net), image, method="FinerCAM", counterfactual=True, augment=True
    )
    assert np.isfinite(other.check_randomisation(steps=1).median)


class Uncopied(nn.Sequential):
    """Refuses to be copied."""

    def __deepcopy__(self, memo: object) -> object:
        raise TypeError("there is but one of me")


def test_what_cannot_be_checked_is_said(zoo, image, animation) -> None:
    unique = Uncopied(*zoo.shake(zoo.Plain()))
    with pytest.raises(ScoreError, match=r"cannot be copied.*there is but one of me"):
        camanim.animate(camanim.Model(unique), image).check_randomisation()
    with pytest.raises(ScoreError, match="no weights that could be shuffled"):
        camanim.animate(camanim.Model(zoo.Peak(2)), image).check_randomisation()
    with pytest.raises(ScoreError, match="steps"):
        animation.check_randomisation(steps=0)
    with pytest.raises(ScoreError, match="threshold"):
        animation.check_randomisation(threshold=2)
    animation.computed_with = None
    with pytest.raises(ScoreError, match="make them with camanim"):
        animation.check_randomisation()
    animation.maps.clear()
    with pytest.raises(ScoreError, match="no map to check"):
        animation.check_randomisation()


def test_nothing_to_compare_is_no_verdict() -> None:
    nothing = np.full((1, 2), np.nan)
    found = Randomisation([], ("a",), nothing, nothing, 0.5, 0, method="X")
    assert found.passed is None
    assert "says nothing" in found.verdict
    assert found.caption(0) == ""


def test_a_copy_is_made_of_networks_in_inference_mode_too(zoo, image) -> None:
    animation = camanim.animate(camanim.Model(zoo.shake(zoo.Plain())), image)
    expected = animation.check_randomisation(steps=1).spearman
    with torch.inference_mode():
        found = animation.check_randomisation(steps=1).spearman
    np.testing.assert_array_equal(found, expected)
    assert all(not p.is_inference() for p in copied(animation.model.net).parameters())


# --- once more ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"method": "FinerCAM"}, {"counterfactual": True}, {"augment": True},
        {"method": "RandomCAM", "seed": 3}, {"method": "ScoreCAM", "layers": "Conv2d"},
        {"method": "KPCA-CAM", "options": {"kernel": "rbf"}}, {"eigen_smooth": True},
        {"method": "Guided GradCAM"}, {"target": "a - c"}, {"slices": True},
    ],
    ids=str,
)  # fmt: skip
def test_once_more_gives_the_same_without_preparing_again(zoo, image, settings) -> None:
    net = zoo.shake(zoo.Residual())
    seen = []

    def preprocess(given: np.ndarray) -> torch.Tensor:
        seen.append(given)
        array = torch.from_numpy(np.asarray(given, np.float32))
        return array[:, None].expand(-1, 3, -1, -1) if given.ndim == 3 and given.shape[2] != 3 else (
            array.movedim(2, 0)[None])  # fmt: skip

    asked = image[..., 0][None].repeat(3, 0) if settings.get("slices") else image
    model = camanim.Model(net, preprocess, classes=["a", "b", "c"])
    first = camanim.animate(model, asked, **settings)
    (second,) = recompute(first)
    assert len(seen) == 1
    assert [(a.label, a.status) for a in second.layer_calls] == [
        (a.label, a.status) for a in first.layer_calls
    ]
    for a, b in zip(first.maps, second.maps, strict=True):
        np.testing.assert_array_equal(a, b)
    assert second.target is first.target
    assert second.provenance == first.provenance
    assert second.probability == first.probability
    assert second.tensor is first.tensor


def test_once_more_of_another_network_and_about_another_target(zoo, image) -> None:
    model = camanim.Model(zoo.shake(zoo.Plain()), classes=["a", "b", "c"])
    first = camanim.animate(model, image, target="a", layers="all")
    other = zoo.shake(zoo.Plain(), seed=1)
    (found,) = recompute(first, net=other, layers="Conv2d")
    expected = camanim.animate(camanim.Model(other), image, target=0, layers="Conv2d")
    for a, b in zip(found.maps, expected.maps, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.net is first.model.net
    assert "weights sha256" not in found.provenance
    both = recompute(first, targets=["b", 2])
    assert [one.target.name for one in both] == ["b", "c"]
    np.testing.assert_array_equal(
        both[1].maps[-1], camanim.animate(model, image, target=2, layers="all").maps[-1]
    )
    with pytest.raises(ModelError, match="fails on an input"):
        recompute(first, net=nn.Conv2d(5, 2, 1))


def test_no_callback_is_kept(zoo, image) -> None:
    calls = []
    animation = camanim.animate(
        camanim.Model(zoo.shake(zoo.Plain())), image, progress=lambda *now: calls.append(now)
    )
    count = len(calls)
    recompute(animation)
    assert len(calls) == count > 0
    assert animation.computed_with[1].progress is camanim.progress.silent
