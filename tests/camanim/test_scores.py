"""Scores to believe: how far they spread, what chance scores, which layer is best, and why so again."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

import camanim
from camanim.road import MultigridImputer, Road
from camanim.road.inference_settings import (
    ConfiguredNetworks,
    InferenceOverrides,
    InferenceSettings,
    SpeedMeasurement,
    half_precision,
)
from camanim.road.masks import kept_pixels, tie_break
from camanim.road.random_baseline import random_maps
from camanim.stack import upsample

RNG = np.random.default_rng(0)


class Small(torch.nn.Module):
    """A convolution and its normalisation, a mean over space, two classes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(1, 6, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(6)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.head = torch.nn.Linear(6, 2)
        self.shown = 0

    def forward(self, x):
        self.shown += len(x)
        return 20 * self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


@pytest.fixture
def image():
    return RNG.random((32, 32)).astype(np.float32)


@pytest.fixture
def animation(image):
    return camanim.animate(camanim.Model(Small().eval(), classes=["a", "b"]), image)


def with_maps(animation, *maps):
    animation.maps = [np.asarray(m, np.float32) for m in maps]
    animation.layers = [replace(animation.layers[0], index=i) for i in range(len(maps))]
    return animation


def made(scores, chance, undefined=None):
    """A `Road` with these scores (R, L) and random maps' scores (L, D)."""
    scores = np.asarray(scores, float)
    layers = [object() for _ in range(scores.shape[1])]
    lerfs = np.repeat(scores[:, :, None], 4, axis=2)
    return Road(
        layers, (20.0, 40.0, 60.0, 80.0), -lerfs, lerfs, 1.0,
        undefined or (None,) * len(layers), np.asarray(chance, float), 0, 0, 0.01,
    )  # fmt: skip


# -- Spread, baseline, best ------------------------------------------------------------------------


def test_repeats_are_scores_of_the_seeds_that_follow(animation):
    road = animation.score(3, repeats=3)
    each = [animation.score(seed).scores for seed in (3, 4, 5)]
    np.testing.assert_array_equal(road.repeated, each)
    np.testing.assert_allclose(road.scores, np.mean(each, axis=0))
    np.testing.assert_allclose(road.spread, np.std(each, axis=0, ddof=1))
    assert np.isnan(animation.score().spread).all()


def test_a_map_without_ties_spreads_by_the_noise_alone(animation):
    with_maps(animation, RNG.random((32, 32)) + 1)
    assert animation.score(repeats=3).spread[0] > 0
    assert animation.score(repeats=3, noise=0).spread[0] == 0
    tied = np.zeros((32, 32))
    tied[4:9, 4:9] = 1
    with_maps(animation, tied)
    assert animation.score(repeats=3, noise=0).spread[0] > 0


def test_masks_without_ties_are_imputed_once_for_all_repeats(animation):
    seen = []

    class Counting(MultigridImputer):
        def __call__(self, image, kept):
            seen.append(len(kept))
            return super().__call__(image, kept)

    with_maps(animation, RNG.random((32, 32)) + 1)
    road = animation.score(repeats=4, baseline=False, imputer=Counting(), batch_size=8)
    assert (road.forwards, sum(seen)) == (32, 8)


def test_the_baseline_is_what_random_maps_of_that_resolution_score(animation):
    with_maps(animation, RNG.random((8, 8)), RNG.random((4, 4)), RNG.random((8, 8)))
    road = animation.score(1, draws=5)
    assert road.chance.shape == (3, 5)
    np.testing.assert_array_equal(road.chance[0], road.chance[2])
    assert (road.chance[0] != road.chance[1]).any()
    np.testing.assert_allclose(road.baseline, road.chance.mean(1))
    np.testing.assert_allclose(road.baseline_spread, road.chance.std(1, ddof=1))
    # By hand: the same maps, as if they were layers'.
    with_maps(animation, *random_maps((4, 4), 5, 1))
    again = animation.score(1, baseline=False)
    np.testing.assert_allclose(road.chance[1], again.scores, atol=1e-12)
    assert np.isnan(again.baseline).all()


def test_random_maps_have_the_layers_resolution_and_are_never_constant():
    for shape in ((1, 2), (2, 2), (3, 4, 5)):
        drawn = random_maps(shape, 20, 0)
        assert len(drawn) == 20
        assert all(m.shape == shape and m.max() > max(m.min(), 0) for m in drawn)
    assert random_maps((1, 1), 20, 0) == []
    large = np.concatenate([m.ravel() for m in random_maps((40, 40), 20, 0)])
    assert stats.kstest(large, stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_a_random_map_is_above_chance_as_rarely_as_the_margin_says():
    """Layers that are chance too: 5 % are beyond the margin, half of them above."""
    rng = np.random.default_rng(0)
    count = 20_000
    drawn = rng.normal(0.1, 0.03, (count, 9))
    road = made(drawn[None, :, 0], drawn[:, 1:])
    assert abs(road.above_chance.mean() - 0.025) < 0.004


def test_the_margin_follows_its_formula():
    road = made([[0.5, 0.1], [0.6, 0.2], [0.7, 0.0]], [[0.1, 0.2, 0.0, 0.1], [0.3, 0.1, 0.2, 0.4]])
    for i, (own, chance) in enumerate(zip(road.repeated.T, road.chance, strict=True)):
        of_chance = stats.t.ppf(0.975, 3) * chance.std(ddof=1) * np.sqrt(1 + 1 / 4)
        of_score = stats.t.ppf(0.975, 2) * own.std(ddof=1) / np.sqrt(3)
        assert road.margin[i] == pytest.approx(np.hypot(of_chance, of_score))
        assert road.excess[i] == pytest.approx(own.mean() - chance.mean())


def test_best_is_furthest_above_chance_and_the_papers_best_is_named_too():
    tight, wide = [0.0, 0.01, -0.01, 0.0], [0.6, -0.6, 0.5, -0.5]
    road = made([[0.4, 0.5, 0.1]], [tight, wide, tight])
    assert road.best is road.layers[0]
    assert road.best_plain is road.layers[1]
    assert road.above_chance.tolist() == [True, False, True]


def test_no_layer_is_best_where_none_is_above_chance():
    road = made([[0.1, 0.2]], [[0.6, -0.6, 0.5], [0.6, -0.6, 0.5]])
    assert road.best is None
    assert road.best_plain is road.layers[1]
    assert "no layer is above chance" in road.caption(0)


def test_without_a_baseline_the_papers_best_is_best():
    road = made([[0.1, 0.2]], np.empty((2, 0)))
    assert road.best is road.best_plain is road.layers[1]
    assert np.isnan(road.excess).all()


def test_the_caption_says_score_spread_and_chance():
    road = made([[0.5], [0.7]], [[0.0, 0.2]])
    assert road.caption(0).startswith("ROAD 0.60 ± 0.14   chance 0.10 ± 0.14\n")


# -- The same again --------------------------------------------------------------------------------


def test_the_same_call_gives_the_same_numbers_to_the_bit(image):
    roads = []
    for _ in range(2):
        animation = camanim.animate(camanim.Model(Small().eval()), image)
        roads.append(animation.score(repeats=2))
    for name in ("morfs", "lerfs", "chance"):
        np.testing.assert_array_equal(getattr(roads[0], name), getattr(roads[1], name))


def test_what_was_predicted_is_looked_up_whatever_was_scored_between(animation):
    net = animation.model.net
    first = animation.score()
    before = net.shown
    again = animation.score()
    # The image itself is shown, alone and among four, to see that the network is what it was.
    assert (net.shown - before, again.forwards) == (5, 0)
    np.testing.assert_array_equal(first.morfs, again.morfs)
    other = camanim.animate(animation.model, animation.image, method="HiResCAM", target=0)
    maps = [*animation.maps, RNG.random((32, 32)).astype(np.float32)]
    target, animation.maps = animation.target, maps
    animation.layers = [*animation.layers, animation.layers[0]]
    assert animation.target is target
    assert animation.score().forwards == 8
    assert other.score().forwards > 0


@pytest.mark.parametrize("change", ["weights", "behaviour", "target", "noise", "imputer"])
def test_nothing_is_looked_up_that_may_have_changed(animation, change):
    road = animation.score(baseline=False)
    settings = {}
    if change == "weights":
        animation.model.net.head.weight.data[0, 0] += 0.1
    if change == "behaviour":
        head = animation.model.net.head
        animation.model.net.forward = lambda x: head(animation.model.net.conv(x).mean((2, 3)))
    if change == "target":
        animation.target = replace(animation.target, index=1 - animation.target.index)
    if change == "noise":
        settings["noise"] = 0.02
    if change == "imputer":
        settings["imputer"] = MultigridImputer(tolerance=1e-3)
    assert animation.score(baseline=False, **settings).forwards == road.forwards


def test_a_target_that_could_change_unseen_is_asked_again(animation):
    animation = camanim.animate(
        animation.model, animation.image, target=lambda output: output[:, 0]
    )
    assert animation.score().forwards == animation.score().forwards > 0


# -- Masks ------------------------------------------------------------------------------------------


def test_masks_are_those_of_a_slow_ranking():
    rng = np.random.default_rng(2)
    plane = rng.choice([-1.5, -0.0, 0.0, 1e-30, 2.0, 3.5], (9, 11)).astype(np.float32)
    ties = tie_break(99, 4)
    order = sorted(range(99), key=lambda i: (plane.flat[i], ties[i]))
    morf, lerf = kept_pixels(plane, (10, 50, 90), ties)
    for p, low, high in zip((10, 50, 90), morf, lerf, strict=True):
        k = round(p / 100 * 99)
        assert set(np.flatnonzero(low)) == set(order[:k])
        assert set(np.flatnonzero(high)) == set(order[99 - k :])


# -- The form in which the network is asked ---------------------------------------------------------


@pytest.fixture
def many(animation):
    """More images than a measurement is worth."""
    smooth = [upsample(RNG.random((5, 5)).astype(np.float32), (32, 32)) for _ in range(30)]
    return with_maps(animation, *smooth)


def test_the_form_is_measured_once_and_then_remembered(many, monkeypatch, tmp_path):
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path))
    first = many.score(baseline=False)
    [kept] = json.loads((tmp_path / "forms.json").read_text()).values()
    assert kept == first.settings
    assert first.settings["memory_format"] != "own"
    monkeypatch.setattr(SpeedMeasurement, "best", None)
    again = many.score(5, baseline=False)
    assert again.settings == first.settings


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "{"])
def test_a_spoilt_file_is_measured_over(many, monkeypatch, tmp_path, text):
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path))
    (tmp_path / "forms.json").write_text(text)
    settings = many.score(baseline=False).settings
    assert settings in json.loads((tmp_path / "forms.json").read_text()).values()


def test_a_folder_that_cannot_be_written_is_no_obstacle(many, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path / "file"))
    assert np.isfinite(many.score(baseline=False).scores).all()


def test_what_the_caller_fixes_is_not_measured(many, monkeypatch, tmp_path):
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path))
    fixed = {"batch_size": 4, "memory_format": "contiguous", "precision": "float32"}
    assert many.score(baseline=False, **fixed).settings == fixed
    assert not list(tmp_path.iterdir())
    assert many.score(baseline=False, batch_size=4).settings["batch_size"] == 4


def test_every_form_gives_the_same_scores(many):
    own = many.score(baseline=False, memory_format="own", precision="float32", batch_size=8)
    for memory_format in ("contiguous", "channels_last"):
        for size in (3, 16):
            road = many.score(
                baseline=False, memory_format=memory_format, precision="float32", batch_size=size
            )
            assert road.settings["memory_format"] == memory_format
            np.testing.assert_allclose(road.scores, own.scores, atol=1e-4)


def test_a_network_whose_copy_answers_otherwise_is_asked_itself(image):
    class Odd(Small):
        def __deepcopy__(self, memo):
            other = Small().eval()
            torch.nn.init.normal_(other.head.weight)
            return other

    animation = camanim.animate(camanim.Model(Odd().eval()), image)
    with pytest.raises(camanim.ScoreError, match='memory_format="own"'):
        animation.score(memory_format="channels_last")
    assert animation.road is None
    smooth = [upsample(RNG.random((5, 5)).astype(np.float32), (32, 32)) for _ in range(30)]
    assert with_maps(animation, *smooth).score(baseline=False).settings["memory_format"] == "own"


def test_half_precision_is_taken_only_where_it_is_close(animation, monkeypatch):
    forward = animation.model.forward()
    image = animation.tensor
    far = {"bfloat16": 0.01, "float32": 0.0}
    asked = []

    def value(network, images):
        asked.append(network.precision)
        if network.precision == "float32":
            sum(torch.rand(300, 300).sum() for _ in range(60))
        return torch.full((len(images),), far[network.precision])

    monkeypatch.setattr("camanim.road.inference_settings.half_precision", lambda device: "bfloat16")
    with forward.evaluating(tuple(image.shape)):
        forms = ConfiguredNetworks(forward, image)
        wish = InferenceOverrides(batch_size=8, memory_format="own")
        assert SpeedMeasurement(forms, value, image, 1e6).best(wish).precision == "float32"
        assert "bfloat16" in asked
        far["bfloat16"] = 0.001
        assert SpeedMeasurement(forms, value, image, 1e6).best(wish).precision == "bfloat16"
        # Without a budget nothing is tried.
        assert SpeedMeasurement(forms, value, image, 8).best(wish) == InferenceSettings(
            8, "own", "float32"
        )


def test_half_precision_is_what_the_device_has():
    assert half_precision(torch.device("cuda")) == "float16"
    assert half_precision(torch.device("meta")) == "float32"
    assert half_precision(torch.device("cpu")) in ("bfloat16", "float32")


def test_when_memory_runs_out_batches_are_halved(animation, monkeypatch):
    with_maps(animation, RNG.random((32, 32)))
    wanted = animation.score(baseline=False, batch_size=2).scores
    run = Small.forward

    def forward(self, x):
        if len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, x)

    monkeypatch.setattr(Small, "forward", forward)
    road = animation.score(baseline=False, batch_size=8)
    assert road.settings["batch_size"] == 4
    np.testing.assert_allclose(road.scores, wanted, atol=1e-6)


# -- Networks with habits ---------------------------------------------------------------------------


class OverTheBatch(Small):
    """Scales its input by the whole batch, as if it were always one image."""

    def forward(self, x):
        return super().forward((x - x.mean()) / x.std())


class OneAnswer(Small):
    """Gives one row, whatever it is shown."""

    def forward(self, x):
        return super().forward(x)[:1]


class OneImage(Small):
    """Takes one image."""

    def forward(self, x):
        assert len(x) == 1
        return super().forward(x)


@pytest.mark.parametrize("kind", [OverTheBatch, OneAnswer, OneImage])
def test_a_network_that_takes_no_batches_is_shown_one_image_at_a_time(kind, image):
    animation = camanim.animate(camanim.Model(kind().eval()), image)
    road = animation.score(baseline=False)
    assert road.settings["batch_size"] == 1
    one = animation.score(baseline=False, batch_size=1, imputer=MultigridImputer(tolerance=2e-5))
    np.testing.assert_allclose(road.scores, one.scores, atol=1e-4)


def test_other_extra_inputs_are_asked_again(image):
    class Scaled(Small):
        def forward(self, x, scale):
            # The image itself is worth the same, whatever the scale.
            return super().forward(x) * (1 + scale * (x.flatten(1)[:, :1] != image.flat[0]))

    net = Scaled().eval()
    roads = []
    for scale in (0.0, 3.0):
        model = camanim.Model(net, extra_inputs=(torch.full((1, 1), scale),))
        roads.append(camanim.animate(model, image, target=0).score(baseline=False))
    assert roads[0].forwards == roads[1].forwards > 0
    assert (roads[0].scores != roads[1].scores).any()


def test_an_imputer_of_ones_own_is_let_go_and_may_change(animation):
    import gc
    import weakref

    class Grey:
        __hash__ = None
        value = 0.0

        def __call__(self, image, kept):
            return torch.where(kept[:, None], image, self.value)

    grey = Grey()
    black = animation.score(baseline=False, imputer=grey)
    grey.value = 1.0
    white = animation.score(baseline=False, imputer=grey)
    assert white.forwards == black.forwards
    assert (white.scores != black.scores).any()
    seen = weakref.ref(grey)
    del grey
    gc.collect()
    assert seen() is None


def test_an_answer_that_is_no_number_is_not_called_a_cancel(image):
    class Fragile(Small):
        def forward(self, x):
            # Anything but the image itself, in whatever brightness, is too much for it.
            known = torch.tensor(image).flatten()[5] / torch.tensor(image).flatten()[6]
            odd = (x.flatten(1)[:, 5] / x.flatten(1)[:, 6] - known).abs() > 1e-3
            return super().forward(x).masked_fill(odd[:, None], float("nan"))

    animation = camanim.animate(camanim.Model(Fragile().eval()), image, layers=["conv"])
    with_maps(animation, RNG.random((32, 32)))
    road = animation.score(baseline=False)
    assert road.undefined == ("the network's answer is not finite",)
    assert road.complete


def test_a_cancel_within_the_baseline_is_no_complete_result(animation):
    with_maps(animation, RNG.random((32, 32)))

    def cancel(stage, done, total):
        if stage == "ROAD" and done >= 16:
            raise camanim.Cancelled

    road = animation.score(progress=cancel)
    assert np.isfinite(road.scores).all()
    assert not road.complete
    assert np.isnan(road.baseline).all()


def test_what_is_positive_in_no_cell_of_the_input_has_no_score(animation):
    fine = np.full((96, 96), -1.0)
    fine[0, 0] = 1
    tiny = RNG.random((8, 8)).astype(np.float32) * np.float32(1e-44)
    with_maps(animation, fine, tiny, RNG.random((8, 8)))
    animation.maps[1] = (RNG.integers(1, 9, (8, 8)) * np.float32(1e-45)).astype(np.float32)
    road = animation.score(baseline=False)
    assert road.undefined == ("no positive evidence", None, None)
    assert animation.localise(np.arange(1024).reshape(32, 32) < 200).undefined == road.undefined


def test_percentiles_at_the_ends_keep_one_pixel_and_remove_one(animation):
    with_maps(animation, RNG.random((32, 32)))
    for imputer in (MultigridImputer(), MultigridImputer(compiled=False)):
        road = animation.score(percentiles=(0.01, 99.99), baseline=False, imputer=imputer)
        assert np.isfinite(road.scores).all()


def test_a_form_remembered_for_other_weights_is_looked_at_again(many, monkeypatch, tmp_path):
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path))
    first = many.score(baseline=False).settings
    [name] = json.loads((tmp_path / "forms.json").read_text())
    for spoilt in ({**first, "precision": "int8"}, {**first, "batch_size": 0}, [1]):
        (tmp_path / "forms.json").write_text(json.dumps({name: spoilt}))
        assert np.isfinite(many.score(7, baseline=False).scores).all()
    # Half precision that is not close for these weights is not taken.
    (tmp_path / "forms.json").write_text(json.dumps({name: {**first, "precision": "bfloat16"}}))
    monkeypatch.setattr(SpeedMeasurement, "_is_close", lambda self, form, to: False)
    assert many.score(8, baseline=False).settings["precision"] == "float32"


def test_hooks_of_the_user_see_only_the_users_network(many):
    seen = []
    net = many.model.net
    handle = net.conv.register_forward_hook(lambda m, a, out: seen.append(out.is_inference()))
    many.score(baseline=False, memory_format="channels_last")
    handle.remove()
    assert seen
    assert not any(seen)


def test_many_repeats_hold_few_orders_and_noises(animation):
    with_maps(animation, RNG.random((8, 8)))
    road = animation.score(repeats=9, baseline=False)
    one = [animation.score(seed, baseline=False).scores[0] for seed in range(9)]
    np.testing.assert_array_equal(road.repeated[:, 0], one)


def test_memory_that_runs_out_while_imputing_takes_fewer_masks(animation, monkeypatch):
    import camanim.road.multigrid as multigrid

    with_maps(animation, RNG.random((32, 32)))
    solve, wanted = multigrid.solve, animation.score(baseline=False).scores

    def small(image, kept, limit):
        if len(kept) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return solve(image, kept, limit)

    monkeypatch.setattr(multigrid, "solve", small)
    road = animation.score(baseline=False, imputer=MultigridImputer(compiled=False))
    np.testing.assert_allclose(road.scores, wanted, atol=1e-4)


def test_without_numba_torch_does_it(monkeypatch):
    import sys

    kept = torch.from_numpy(RNG.random((2, 20, 20)) < 0.5)
    image = torch.rand(3, 20, 20)
    wanted = MultigridImputer()(image, kept)
    monkeypatch.setitem(sys.modules, "camanim.road.compiled", None)
    monkeypatch.delattr("camanim.road.compiled")
    torch.testing.assert_close(MultigridImputer()(image, kept), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"seed": 0.5}, {"repeats": 1.5}, {"draws": 2.5}, {"percentiles": 50}]
)
def test_what_is_no_setting_is_refused_before_the_work(animation, wrong):
    with pytest.raises(camanim.ScoreError):
        animation.score(**wrong)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_goes_in_batches(image, kind):
    animation = camanim.animate(camanim.Model(Small().eval().to(kind)), image)
    assert animation.score(baseline=False).settings["batch_size"] == 4
