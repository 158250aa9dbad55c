"""Weight randomisation: order of modules, shuffling, similarity of maps, and recomputation."""

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
from camanim.checks.cascade import copy_network, group_steps, parameters_by_module, shuffle
from camanim.checks.map_similarity import similarity, spearman
from camanim.checks.reinitialisation import Reinitialisation, variants
from camanim.checks.transforms import random_transforms
from camanim.pipeline import recompute


def brightness(activation: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return a map of the image's brightness, which does not depend on the network."""
    return adaptive_avg_pool2d(image.mean(0, keepdim=True), activation.shape[1:])[0].to(activation)


def module_parameters(net: nn.Module, image: np.ndarray) -> dict[str, list[nn.Parameter]]:
    animation = camanim.animate(camanim.Model(net), image, layers="all", method="EigenCAM")
    return dict(parameters_by_module(net, animation.layer_calls))


@pytest.fixture
def animation(zoo, image) -> camanim.Animation:
    return camanim.animate(camanim.Model(zoo.shake(zoo.Plain())), image, target=1)


# --- Similarity of maps -------------------------------------------------------------------------


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
    actual = similarity(first.astype(np.float32), second.astype(np.float32))
    assert actual == pytest.approx(inner.mean(), abs=1e-4)
    assert actual == pytest.approx(expected, abs=1e-4)


def test_structural_similarity_of_volumes_and_where_it_is_undefined() -> None:
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


# --- Modules and their parameters -----------------------------------------------------------------


def test_modules_are_ordered_from_the_output_backwards(zoo, image) -> None:
    assert list(module_parameters(zoo.shake(zoo.Plain()), image)) == ["8", "4", "1", "0"]
    residual = ["head.2", "bn2", "conv", "bn1", "stem"]
    assert list(module_parameters(zoo.shake(zoo.Residual()), image)) == residual


class Odd(nn.Module):
    """Has a direct parameter, a module that is called twice, tied weights, and an uncalled module."""

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


def test_each_parameter_is_listed_once(image) -> None:
    net = Odd().eval()
    modules = module_parameters(net, image)
    assert list(modules) == ["head", "twice", "tied", "between", ""]
    listed = [id(p) for parameters in modules.values() for p in parameters]
    assert sorted(listed) == sorted(id(p) for p in net.parameters())
    # The shared weight is listed under the later module.
    assert [p is net.between.bias for p in modules["between"]] == [True]
    assert {id(p) for p in modules[""]} == {id(net.token), *map(id, net.idle.parameters())}


class Token(nn.Module):
    """Adds a direct parameter before its submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 3, 1, 1))
        self.stem = nn.Conv2d(3, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stem(x + self.token)


def test_direct_parameters_come_after_those_of_submodules(image) -> None:
    net = nn.Sequential(Token(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    net.register_parameter("unused", nn.Parameter(torch.ones(2)))
    assert list(module_parameters(net.eval(), image)) == ["3", "0.stem", "0", ""]


class Attention(nn.Module):
    """Torch's attention uses the weights of a submodule without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))


def test_parameters_of_uncalled_submodules_belong_to_their_parent(image) -> None:
    net = Attention().eval()
    modules = module_parameters(net, image)
    assert list(modules) == ["head", "attention", "stem"]
    assert {id(p) for p in modules["attention"]} == {id(p) for p in net.attention.parameters()}


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


def test_modules_are_grouped_evenly_into_steps() -> None:
    modules = [(str(k), [nn.Parameter(torch.ones(k + 1))]) for k in range(50)]
    assert [len(group) for _, group in group_steps(modules, None)] == [3] * 10 + [2] * 10
    assert [name for name, _ in group_steps(modules, 2)] == ["24", "49"]
    assert len(group_steps(modules, 100)) == 50
    parameters = [p for _, group in group_steps(modules, 7) for p in group]
    assert [len(p) for p in parameters] == list(range(1, 51))
    with pytest.raises(ScoreError, match="steps="):
        group_steps(modules, 0)


# --- The check --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_each_step_equals_a_run_with_the_shuffled_network(zoo, animation, image) -> None:
    check = animation.check_randomisation(scheme="permuted", seed=5)
    assert check.schemes == ("permuted",)
    assert check.steps == ("8", "4", "1", "0")
    net = copy.deepcopy(animation.model.net)
    generator = torch.Generator().manual_seed(5)
    for s, name in enumerate(check.steps):
        for p in net[int(name)].parameters():
            values = p.detach().flatten()
            order = torch.randperm(len(values), generator=generator)
            p.data = values[order].view_as(p)
        other = camanim.animate(camanim.Model(net), image, target=1)
        for i, (a, b) in enumerate(zip(animation.maps, other.maps, strict=True)):
            a, b = np.maximum(a, 0), np.maximum(b, 0)
            if min(np.ptp(a), np.ptp(b)) == 0:
                assert np.isnan(check.spearman[0, s, i])
                continue
            expected = stats.spearmanr(a.ravel(), b.ravel()).statistic
            assert check.spearman[0, s, i] == pytest.approx(expected, abs=1e-6)
            assert check.ssim[0, s, i] == pytest.approx(similarity(a, b), abs=1e-5)
    np.testing.assert_array_equal(check.finals[0, 0], check.spearman[0, -1])
    np.testing.assert_allclose(check.final, np.nanmean(check.finals[0], axis=0))
    assert check.median == np.nanmedian(check.final)
    assert check.layers == animation.layers


@pytest.mark.parametrize("method", ["GradCAM", "ScoreCAM", "Guided GradCAM", "EigenCAM"])
def test_the_network_and_the_global_seed_are_unchanged(zoo, image, method) -> None:
    net = zoo.shake(zoo.Residual())
    animation = camanim.animate(camanim.Model(net), image, method=method, layers="Conv2d")
    before, rng_state = zoo.state_of(net), torch.get_rng_state()
    animation.check_randomisation(steps=2)
    assert zoo.state_of(net) == before
    assert torch.equal(torch.get_rng_state(), rng_state)


@pytest.mark.parametrize("method", ["SobelCAM", brightness])
def test_methods_that_ignore_the_network_fail_with_one_warning(zoo, image, method) -> None:
    net = zoo.shake(zoo.Plain())
    animation = camanim.animate(camanim.Model(net), image, method=method)
    check = animation.check_randomisation(steps=2)
    assert (check.final == 1).all()
    np.testing.assert_allclose(check.ssim, 1, atol=1e-5)
    assert check.passed is False
    assert "FAILS" in check.verdict
    assert "1.00" in check.verdict
    assert animation.warnings == [check.verdict]
    assert animation.caption(0).splitlines()[-1] == check.caption(0)
    assert animation.check_randomisation(steps=1).verdict == check.verdict
    assert animation.warnings == [check.verdict]
    # A new result replaces the warning.
    assert animation.check_randomisation(steps=1, threshold=1) is animation.randomisation
    assert len(animation.warnings) == 1


def test_a_passed_check_removes_the_warning_of_a_failed_one(animation) -> None:
    failed = animation.check_randomisation(steps=1, threshold=-1)
    assert failed.passed is False
    assert animation.warnings == [failed.verdict]
    assert animation.check_randomisation(steps=1, threshold=1).passed is True
    assert animation.warnings == []


def test_maps_of_the_demo_network_depend_on_its_weights() -> None:
    model = camanim.load_model("demo/ultrasound")
    animation = camanim.animate(model, samples.image("benign_1"), layers="Conv2d")
    check = animation.check_randomisation(steps=3)
    assert check.passed is True
    assert check.median < check.threshold
    assert len(check.steps) == 3
    assert animation.warnings == []


def test_permutations_are_determined_by_the_seed(animation) -> None:
    first, same, other = (animation.check_randomisation(steps=1, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.spearman, same.spearman)
    assert not np.array_equal(first.spearman, other.spearman, equal_nan=True)


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("call", [3, 13], ids=["forward", "maps"])
def test_a_cancel_keeps_the_completed_steps(animation, stop, call) -> None:
    whole = animation.check_randomisation(scheme="permuted", repeats=1)
    calls = []

    def progress(stage: str, done: int, total: int) -> None:
        calls.append((stage, done, total))
        # Within a step.
        if done == stop and len([c for c in calls if c[1] == done]) == call:
            raise Cancelled("enough")

    check = animation.check_randomisation(scheme="permuted", repeats=1, progress=progress)
    assert {(stage, total) for stage, _, total in calls} == {("randomisation", 4)}
    assert check.cancelled
    np.testing.assert_array_equal(check.spearman[:, :stop], whole.spearman[:, :stop])
    assert np.isnan(check.spearman[:, stop:]).all()
    assert check.passed is None
    assert "cancelled" in check.verdict


def test_a_cancel_before_the_first_step_is_raised(animation) -> None:
    def progress(stage: str, done: int, total: int) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        animation.check_randomisation(progress=progress)
    assert animation.randomisation is None


def test_slices_are_checked_together_but_not_a_single_plane(zoo) -> None:
    net = zoo.shake(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *zoo.head(4)))
    volume = np.random.default_rng(0).random((4, 12, 10)).astype(np.float32)
    slices = camanim.animate(camanim.Model(net, Preprocess()), volume, slices=True)
    assert slices.check_randomisation(steps=1).spearman.shape == (2, 1, 2)
    with pytest.raises(ScoreError, match="plane"):
        slices.plane(1).check_randomisation()


def test_settings_of_the_maps_are_applied_to_shuffled_networks(zoo, image) -> None:
    net = zoo.shake(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *zoo.head(4)))
    animation = camanim.animate(
        camanim.Model(net), image, method="FinerCAM", counterfactual=True, augment=True
    )
    assert np.isfinite(animation.check_randomisation(steps=1).median)


class Uncopied(nn.Sequential):
    """Raises when it is copied."""

    def __deepcopy__(self, memo: object) -> object:
        raise TypeError("not copyable")


def test_networks_without_a_copy_or_weights_raise(zoo, image) -> None:
    uncopied = Uncopied(*zoo.shake(zoo.Plain()))
    with pytest.raises(ScoreError, match="not copyable"):
        camanim.animate(camanim.Model(uncopied), image).check_randomisation()
    with pytest.raises(ScoreError, match="weights"):
        camanim.animate(camanim.Model(zoo.Peak(2)), image).check_randomisation()


def test_invalid_settings_and_results_raise(animation) -> None:
    with pytest.raises(ScoreError, match="steps"):
        animation.check_randomisation(steps=0)
    with pytest.raises(ScoreError, match="threshold"):
        animation.check_randomisation(threshold=2)
    animation.computed_with = None
    with pytest.raises(ScoreError, match="animate"):
        animation.check_randomisation()
    animation.maps.clear()
    with pytest.raises(ScoreError, match="layers"):
        animation.check_randomisation()


def test_a_check_without_comparable_maps_is_undefined() -> None:
    undefined = np.full((1, 2), np.nan)
    values = undefined[None]
    check = Randomisation([], ("permuted",), ("a",), values, values, values, 0.5, 0, method="X")
    assert check.passed is None
    assert check.caption(0) == ""


def test_networks_are_copied_within_inference_mode(zoo, image) -> None:
    animation = camanim.animate(camanim.Model(zoo.shake(zoo.Plain())), image)
    expected = animation.check_randomisation(steps=1).spearman
    with torch.inference_mode():
        actual = animation.check_randomisation(steps=1).spearman
    np.testing.assert_array_equal(actual, expected)
    assert all(not p.is_inference() for p in copy_network(animation.model.net).parameters())


# --- Recomputation --------------------------------------------------------------------------------


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
def test_recompute_gives_the_same_result_without_preprocessing(zoo, image, settings) -> None:
    net = zoo.shake(zoo.Residual())
    preprocessed = []

    def preprocess(given: np.ndarray) -> torch.Tensor:
        preprocessed.append(given)
        array = torch.from_numpy(np.asarray(given, np.float32))
        return array[:, None].expand(-1, 3, -1, -1) if given.ndim == 3 and given.shape[2] != 3 else (
            array.movedim(2, 0)[None])  # fmt: skip

    picture = image[..., 0][None].repeat(3, 0) if settings.get("slices") else image
    model = camanim.Model(net, preprocess, classes=["a", "b", "c"])
    first = camanim.animate(model, picture, **settings)
    (second,) = recompute(first)
    assert len(preprocessed) == 1
    assert [(a.label, a.status) for a in second.layer_calls] == [
        (a.label, a.status) for a in first.layer_calls
    ]
    for a, b in zip(first.maps, second.maps, strict=True):
        np.testing.assert_array_equal(a, b)
    assert second.target is first.target
    assert second.provenance == first.provenance
    assert second.probability == first.probability
    assert second.tensor is first.tensor


def test_recompute_for_another_network_and_other_targets(zoo, image) -> None:
    model = camanim.Model(zoo.shake(zoo.Plain()), classes=["a", "b", "c"])
    first = camanim.animate(model, image, target="a", layers="all")
    other = zoo.shake(zoo.Plain(), seed=1)
    (recomputed,) = recompute(first, net=other, layers="Conv2d")
    expected = camanim.animate(camanim.Model(other), image, target=0, layers="Conv2d")
    for a, b in zip(recomputed.maps, expected.maps, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.net is first.model.net
    assert "weights sha256" not in recomputed.provenance
    both = recompute(first, targets=["b", 2])
    assert [one.target.name for one in both] == ["b", "c"]
    np.testing.assert_array_equal(
        both[1].maps[-1], camanim.animate(model, image, target=2, layers="all").maps[-1]
    )
    with pytest.raises(ModelError):
        recompute(first, net=nn.Conv2d(5, 2, 1))


def test_recompute_does_not_call_the_previous_progress(zoo, image) -> None:
    calls = []
    animation = camanim.animate(
        camanim.Model(zoo.shake(zoo.Plain())), image, progress=lambda *now: calls.append(now)
    )
    count = len(calls)
    recompute(animation)
    assert len(calls) == count > 0
    assert animation.computed_with[1].progress is camanim.progress.silent


# --- Schemes, seeds and the threshold -------------------------------------------------------------


class Normalised(nn.Sequential):
    """Convolutions with batch normalisations, and a factor that belongs to no known module."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip
        self.factor = nn.Parameter(torch.arange(1.0, 9.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self:
            x = module(x) * self.factor[:, None, None] if module is self[5] else module(x)
        return x


def test_reinitialised_weights_have_the_variance_of_he_and_normalisations_are_recomputed(
    image,
) -> None:
    net = Normalised().eval()
    for norm in (net[1], net[4]):
        nn.init.uniform_(norm.weight)
        norm.running_var.fill_(7)
    tensor = torch.from_numpy(image).movedim(2, 0)[None].float()
    model = camanim.Model(net)
    reinitialise = Reinitialisation(net, model.forward(), tensor)
    reinitialise(list(net.parameters()), torch.Generator().manual_seed(0), shuffle)
    std = float(net[3].weight.detach().std())
    assert std == pytest.approx((2 / (8 * 9)) ** 0.5, rel=0.1)
    assert torch.equal(net[1].weight, torch.ones(8))
    assert not net[3].bias.any()
    assert sorted(net.factor.tolist()) == list(range(1, 9))
    with torch.no_grad():
        first = net[0](variants(tensor))
    np.testing.assert_allclose(net[1].running_mean, first.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(net[1].running_var, first.var((0, 2, 3)), rtol=1e-4)
    assert not any(module.training for module in net.modules())
    assert net[1].momentum == 0.1


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_all_seeds_and_both_schemes_are_compared_and_the_worse_counts(animation, image) -> None:
    check = animation.check_randomisation(steps=2, repeats=3, seed=4)
    assert check.finals.shape == (2, 3, len(animation))
    alone = animation.check_randomisation(scheme="permuted", steps=1, repeats=1, seed=5)
    np.testing.assert_array_equal(alone.finals[0, 0], check.finals[0, 1])
    medians = [np.nanmedian(np.nanmean(values, axis=0)) for values in check.finals]
    np.testing.assert_allclose(check.medians, medians)
    assert check.median == max(medians)
    parts = np.array_split(np.nanmean(check.finals, axis=1), 3, axis=1)
    worse = [max(np.nanmedian(row) for row in part) for part in parts]
    np.testing.assert_allclose(check.thirds, worse)


def test_absolute_correlations_are_compared_where_the_sign_is_free(zoo, image) -> None:
    net = zoo.shake(zoo.Residual())
    animation = camanim.animate(camanim.Model(net), image, method="EigenCAM", layers="Conv2d")
    check = animation.check_randomisation(scheme="permuted", steps=1, repeats=1)
    assert check.sign_free
    copied = copy_network(net)
    shuffle(
        [p for _, ps in parameters_by_module(copied, animation.layer_calls) for p in ps],
        torch.Generator().manual_seed(0),
    )
    (other,) = recompute(animation, net=copied)
    expected = [
        abs(stats.spearmanr(a.ravel(), b.ravel()).statistic)
        for a, b in zip(animation.maps, other.maps, strict=True)
    ]
    np.testing.assert_allclose(check.finals[0, 0], expected, atol=1e-6)


def test_the_threshold_is_exceeded_by_few_of_the_moved_copies(zoo, image) -> None:
    animation = camanim.animate(camanim.Model(zoo.shake(zoo.Residual())), image, layers="all")
    check = animation.check_randomisation(steps=1, repeats=1)
    medians = []
    for moved in random_transforms(animation.tensor.shape[2:], 400, seed=99):
        pairs = [(np.maximum(m, 0), moved(np.maximum(m, 0))) for m in animation.maps]
        medians.append(np.nanmedian([spearman(a, b) for a, b in pairs]))
    assert np.mean(np.array(medians) > check.threshold) == pytest.approx(0.025, abs=0.03)
