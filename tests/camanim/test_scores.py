"""Statistics of ROAD scores, the cache of predictions, and the settings of forward passes."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

import camanim
from camanim.road import MultigridImputer, Road
from camanim.road.cache import load_settings, save_settings
from camanim.road.inference_settings import (
    ConfiguredNetworks,
    InferenceOverrides,
    InferenceSettings,
    SpeedMeasurement,
    half_precision,
)
from camanim.road.masks import kept_pixels, tie_break
from camanim.road.random_baseline import random_maps
from camanim.road.result import NOTHING_POSITIVE, OUTPUT_NOT_FINITE
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
        self.images = 0

    def forward(self, x):
        self.images += len(x)
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


def road_of(scores, chance, undefined=None):
    """Return a `Road` with scores (R, L) and scores of random maps (L, D)."""
    scores = np.asarray(scores, float)
    layers = [SimpleNamespace(label=f"layer{i}") for i in range(scores.shape[1])]
    lerfs = np.repeat(scores[:, :, None], 4, axis=2)
    return Road(
        layers, (20.0, 40.0, 60.0, 80.0), -lerfs, lerfs, 1.0,
        undefined or (None,) * len(layers), np.asarray(chance, float), 0, 0, 0.01,
    )  # fmt: skip


# -- Spread, baseline, best ------------------------------------------------------------------------


def test_repeats_are_the_scores_of_consecutive_seeds(animation):
    road = animation.score(3, repeats=3)
    each = [animation.score(seed).scores for seed in (3, 4, 5)]
    np.testing.assert_array_equal(road.repeated, each)
    np.testing.assert_allclose(road.scores, np.mean(each, axis=0))
    np.testing.assert_allclose(road.spread, np.std(each, axis=0, ddof=1))
    assert np.isnan(animation.score().spread).all()


def test_the_spread_of_a_map_without_ties_is_due_to_noise(animation):
    with_maps(animation, RNG.random((32, 32)) + 1)
    assert animation.score(repeats=3).spread[0] > 0
    assert animation.score(repeats=3, noise=0).spread[0] == 0
    tied = np.zeros((32, 32))
    tied[4:9, 4:9] = 1
    with_maps(animation, tied)
    assert animation.score(repeats=3, noise=0).spread[0] > 0


def test_masks_without_ties_are_imputed_once_for_all_repeats(animation):
    counts = []

    class Counting(MultigridImputer):
        def __call__(self, image, kept):
            counts.append(len(kept))
            return super().__call__(image, kept)

    with_maps(animation, RNG.random((32, 32)) + 1)
    road = animation.score(repeats=4, baseline=False, imputer=Counting(), batch_size=8)
    assert (road.forwards, sum(counts)) == (32, 8)


def test_the_baseline_is_the_score_of_random_maps_of_equal_resolution(animation):
    with_maps(animation, RNG.random((8, 8)), RNG.random((4, 4)), RNG.random((8, 8)))
    road = animation.score(1, draws=5)
    assert road.random_scores.shape == (3, 5)
    np.testing.assert_array_equal(road.random_scores[0], road.random_scores[2])
    assert (road.random_scores[0] != road.random_scores[1]).any()
    np.testing.assert_allclose(road.baseline, road.random_scores.mean(1))
    np.testing.assert_allclose(road.baseline_spread, road.random_scores.std(1, ddof=1))
    # The same maps, scored as layers.
    with_maps(animation, *random_maps((4, 4), 5, 1))
    again = animation.score(1, baseline=False)
    np.testing.assert_allclose(road.random_scores[1], again.scores, atol=1e-12)
    assert np.isnan(again.baseline).all()


def test_random_maps_have_the_layers_resolution_and_are_never_constant():
    for shape in ((1, 2), (2, 2), (3, 4, 5)):
        drawn = random_maps(shape, 20, 0)
        assert len(drawn) == 20
        assert all(m.shape == shape and m.max() > max(m.min(), 0) for m in drawn)
    assert random_maps((1, 1), 20, 0) == []
    large = np.concatenate([m.ravel() for m in random_maps((40, 40), 20, 0)])
    assert stats.kstest(large, stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_random_maps_are_above_noise_in_half_of_five_percent_of_cases():
    """5 % of random maps are beyond the margin, half of these above it."""
    rng = np.random.default_rng(0)
    count = 20_000
    drawn = rng.normal(0.1, 0.03, (count, 9))
    road = road_of(drawn[None, :, 0], drawn[:, 1:])
    assert abs(road.above_noise.mean() - 0.025) < 0.004


def test_the_margin_follows_its_formula():
    chance = [[0.1, 0.2, 0.0, 0.1], [0.3, 0.1, 0.2, 0.4]]
    road = road_of([[0.5, 0.1], [0.6, 0.2], [0.7, 0.0]], chance)
    for i, (scores, random) in enumerate(zip(road.repeated.T, road.random_scores, strict=True)):
        of_chance = stats.t.ppf(0.975, 3) * random.std(ddof=1) * np.sqrt(1 + 1 / 4)
        of_score = stats.t.ppf(0.975, 2) * scores.std(ddof=1) / np.sqrt(3)
        assert road.margin[i] == pytest.approx(np.hypot(of_chance, of_score))
        assert road.excess[i] == pytest.approx(scores.mean() - random.mean())


def test_highest_has_the_highest_score_and_above_noise_the_excess_over_random_maps():
    tight, wide = [0.0, 0.01, -0.01, 0.0], [0.6, -0.6, 0.5, -0.5]
    road = road_of([[0.4, 0.5, 0.1]], [tight, wide, tight])
    assert road.highest is road.shown_first is road.layers[1]
    assert road.above_noise.tolist() == [True, False, True]
    assert "2 of 3" in road.summary()


def test_scores_alone_name_no_best_layer():
    road = road_of([[0.1, 0.2]], np.empty((2, 0)))
    assert road.best is None
    assert road.highest is road.layers[1]
    assert np.isnan(road.excess).all()


def test_the_caption_has_score_spread_and_random_maps():
    caption = road_of([[0.5], [0.7]], [[0.0, 0.2]]).caption(0)
    for number in ("0.60 ± 0.14", "0.10 ± 0.14"):
        assert number in caption


# -- Cache of predictions --------------------------------------------------------------------------


def test_the_same_call_gives_identical_numbers(image):
    roads = []
    for _ in range(2):
        animation = camanim.animate(camanim.Model(Small().eval()), image)
        roads.append(animation.score(repeats=2))
    for name in ("morfs", "lerfs", "random_scores"):
        np.testing.assert_array_equal(getattr(roads[0], name), getattr(roads[1], name))


def test_predictions_are_cached_also_after_other_scorings(animation):
    net = animation.model.net
    first = animation.score()
    before = net.images
    again = animation.score()
    # The image is predicted again, alone and in a batch of four, to detect changes of the network.
    assert (net.images - before, again.forwards) == (5, 0)
    np.testing.assert_array_equal(first.morfs, again.morfs)
    other = camanim.animate(animation.model, animation.image, method="HiResCAM", target=0)
    maps = [*animation.maps, RNG.random((32, 32)).astype(np.float32)]
    target, animation.maps = animation.target, maps
    animation.layers = [*animation.layers, animation.layers[0]]
    assert animation.target is target
    assert animation.score().forwards == 8
    assert other.score().forwards > 0


@pytest.mark.parametrize("change", ["weights", "behaviour", "target", "noise", "imputer"])
def test_changes_invalidate_the_cache(animation, change):
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


def test_values_of_a_function_target_are_not_cached(animation):
    animation = camanim.animate(
        animation.model, animation.image, target=lambda output: output[:, 0]
    )
    assert animation.score().forwards == animation.score().forwards > 0


# -- Masks ------------------------------------------------------------------------------------------


def test_masks_equal_those_of_a_sort_by_two_keys():
    rng = np.random.default_rng(2)
    plane = rng.choice([-1.5, -0.0, 0.0, 1e-30, 2.0, 3.5], (9, 11)).astype(np.float32)
    ties = tie_break(99, 4)
    order = sorted(range(99), key=lambda i: (plane.flat[i], ties[i]))
    morf, lerf = kept_pixels(plane, (10, 50, 90), ties)
    for p, low, high in zip((10, 50, 90), morf, lerf, strict=True):
        k = round(p / 100 * 99)
        assert set(np.flatnonzero(low)) == set(order[:k])
        assert set(np.flatnonzero(high)) == set(order[99 - k :])


# -- Settings of forward passes --------------------------------------------------------------------


@pytest.fixture
def many(animation):
    """Return an animation with enough maps for the benchmark to run."""
    smooth = [upsample(RNG.random((5, 5)).astype(np.float32), (32, 32)) for _ in range(30)]
    return with_maps(animation, *smooth)


def test_settings_are_selected_once_and_then_stored(many, monkeypatch, tmp_path):
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path))
    first = many.score(baseline=False)
    [stored] = json.loads((tmp_path / "inference_settings.json").read_text()).values()
    assert stored == first.settings
    assert first.settings["memory_format"] != "own"
    monkeypatch.setattr(SpeedMeasurement, "best", None)
    again = many.score(5, baseline=False)
    assert again.settings == first.settings


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"a": 1}', b"{", b"\xff", b"[" * 100_000, b" " * 2_000_000], ids=len
)
def test_an_invalid_file_is_replaced(many, monkeypatch, tmp_path, content):
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path))
    (tmp_path / "inference_settings.json").write_bytes(content)
    settings = many.score(baseline=False).settings
    assert settings in json.loads((tmp_path / "inference_settings.json").read_text()).values()


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 1e9}, {"batch_size": 10**9}, {"batch_size": 8.0}, {"batch_size": True},
        {"batch_size": "8"}, {"batch_size": None}, {"batch_size": 0}, {"batch_size": -4},
        {"batch_size": 5}, {"batch_size": float("nan")}, {"batch_size": 10**400},
        {"memory_format": "strided"}, {"memory_format": 1}, {"memory_format": []},
        {"precision": "int8"}, {"precision": "float16"}, {"precision": None}, {"other": 1},
    ],
)  # fmt: skip
def test_odd_settings_in_the_cache_are_measured_again(many, monkeypatch, tmp_path, change):
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path))
    file = tmp_path / "inference_settings.json"
    batches = []
    hook = many.model.net.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    first = many.score(baseline=False, memory_format="own").settings
    [key] = json.loads(file.read_text())
    file.write_text(json.dumps({key: {**first, **change}}))
    measured = []
    original = SpeedMeasurement.best
    monkeypatch.setattr(
        SpeedMeasurement, "best", lambda self, fixed: measured.append(1) or original(self, fixed)
    )
    again = many.score(1, baseline=False, memory_format="own").settings
    hook.remove()
    assert measured
    assert max(batches) < 5000
    assert json.loads(file.read_text())[key] == again


def test_a_record_with_missing_values_is_not_used(many, monkeypatch, tmp_path):
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path))
    first = many.score(baseline=False).settings
    file = tmp_path / "inference_settings.json"
    [key] = json.loads(file.read_text())
    for name in first:
        record = {k: v for k, v in first.items() if k != name}
        file.write_text(json.dumps({key: record}))
        assert load_settings(key, InferenceOverrides()) is None
    file.write_text(json.dumps({key: first}))
    assert load_settings(key, InferenceOverrides()) == InferenceSettings(**first)
    # A key includes the overrides.
    assert load_settings(key, InferenceOverrides(batch_size=3)) is None


def test_the_settings_that_another_process_stored_first_are_used(monkeypatch, tmp_path):
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path))
    free, mine, other = InferenceOverrides(), InferenceSettings(8), InferenceSettings(16)
    assert save_settings("key", other, free) == other
    assert save_settings("key", mine, free) == other
    # Settings that are invalid for this network are replaced.
    assert save_settings("key", mine, free, replaced=other) == mine
    assert load_settings("key", free) == mine


SAVE = """
import sys
from camanim.road.cache import save_settings
from camanim.road.inference_settings import InferenceOverrides, InferenceSettings
for i in range(20):
    save_settings(f"{sys.argv[1]} {i}", InferenceSettings(), InferenceOverrides())
"""


def test_processes_that_write_the_cache_lose_no_record_of_each_other(monkeypatch, tmp_path):
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path))
    running = [subprocess.Popen([sys.executable, "-c", SAVE, str(n)]) for n in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    records = json.loads((tmp_path / "inference_settings.json").read_text())
    assert set(records) == {f"{n} {i}" for n in range(3) for i in range(20)}


LOOPS = """
def double(x):
    return 2.0 * x

def quadruple(x):
    return double(double(x))
"""


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("content", [b"", b"\xc5garbage"])
def test_a_damaged_cache_of_compiled_loops_is_replaced(tmp_path, monkeypatch, suffix, content):
    from numba.core import config

    from camanim.road import compiled

    (tmp_path / "loops.py").write_text(LOOPS)
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled, "_functions", [])

    def compile_again():
        spec = importlib.util.spec_from_file_location("loops", tmp_path / "loops.py")
        loops = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loops)
        loops.double = compiled._loop(loops.double)
        loops.quadruple = compiled._loop(loops.quadruple, "f8(f8)")
        assert loops.quadruple(3.0) == 12
        return [path for path in (tmp_path / "cache").rglob("*") if path.suffix == suffix]

    for path in compile_again():
        path.write_bytes(content)
    assert all(path.read_bytes() != content for path in compile_again())


def test_scoring_works_without_a_writable_cache_folder(many, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path / "file"))
    assert np.isfinite(many.score(baseline=False).scores).all()


def test_settings_fixed_by_the_caller_are_not_benchmarked(many, monkeypatch, tmp_path):
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path))
    fixed = {"batch_size": 4, "memory_format": "contiguous", "precision": "float32"}
    assert many.score(baseline=False, **fixed).settings == fixed
    assert not list(tmp_path.iterdir())
    assert many.score(baseline=False, batch_size=4).settings["batch_size"] == 4


def test_all_memory_formats_and_batch_sizes_give_the_same_scores(many):
    expected = many.score(baseline=False, memory_format="own", precision="float32", batch_size=8)
    for memory_format in ("contiguous", "channels_last"):
        for size in (3, 16):
            road = many.score(
                baseline=False, memory_format=memory_format, precision="float32", batch_size=size
            )
            assert road.settings["memory_format"] == memory_format
            np.testing.assert_allclose(road.scores, expected.scores, atol=1e-4)


def test_a_copy_with_other_outputs_is_not_used(image):
    class Odd(Small):
        def __deepcopy__(self, memo):
            other = Small().eval()
            torch.nn.init.normal_(other.head.weight)
            return other

    animation = camanim.animate(camanim.Model(Odd().eval()), image)
    with pytest.raises(camanim.ScoreError, match="channels_last"):
        animation.score(memory_format="channels_last")
    assert animation.road is None
    smooth = [upsample(RNG.random((5, 5)).astype(np.float32), (32, 32)) for _ in range(30)]
    assert with_maps(animation, *smooth).score(baseline=False).settings["memory_format"] == "own"


def test_half_precision_is_selected_only_if_its_error_is_small(animation, monkeypatch):
    forward = animation.model.forward()
    image = animation.tensor
    errors = {"bfloat16": 0.01, "float32": 0.0}
    used = []

    def value(network, images):
        used.append(network.precision)
        if network.precision == "float32":
            sum(torch.rand(300, 300).sum() for _ in range(60))
        return torch.full((len(images),), errors[network.precision])

    monkeypatch.setattr("camanim.road.inference_settings.half_precision", lambda device: "bfloat16")
    with forward.evaluating(tuple(image.shape)):
        networks = ConfiguredNetworks(forward, image)
        fixed = InferenceOverrides(batch_size=8, memory_format="own")
        best = SpeedMeasurement(networks, value, image, 1e6).best(fixed)
        assert best.precision == "float32"
        assert "bfloat16" in used
        errors["bfloat16"] = 0.001
        best = SpeedMeasurement(networks, value, image, 1e6).best(fixed)
        assert best.precision == "bfloat16"
        # Without a budget there is no trial.
        best = SpeedMeasurement(networks, value, image, 8).best(fixed)
        assert best == InferenceSettings(8, "own", "float32")


def test_half_precision_depends_on_the_device():
    assert half_precision(torch.device("cuda")) == "float16"
    assert half_precision(torch.device("meta")) == "float32"
    assert half_precision(torch.device("cpu")) in ("bfloat16", "float32")


def test_when_memory_runs_out_batches_are_halved(animation, monkeypatch):
    with_maps(animation, RNG.random((32, 32)))
    expected = animation.score(baseline=False, batch_size=2).scores
    run = Small.forward

    def forward(self, x):
        if len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, x)

    monkeypatch.setattr(Small, "forward", forward)
    road = animation.score(baseline=False, batch_size=8)
    assert road.settings["batch_size"] == 4
    np.testing.assert_allclose(road.scores, expected, atol=1e-6)


# -- Special networks, imputers and maps ------------------------------------------------------------


class OverTheBatch(Small):
    """Normalises over the whole batch."""

    def forward(self, x):
        return super().forward((x - x.mean()) / x.std())


class OneRow(Small):
    """Returns one row, whatever the batch size."""

    def forward(self, x):
        return super().forward(x)[:1]


class OneImage(Small):
    """Accepts only a single image."""

    def forward(self, x):
        assert len(x) == 1
        return super().forward(x)


@pytest.mark.parametrize("kind", [OverTheBatch, OneRow, OneImage])
def test_a_network_without_support_for_batches_gets_one_image_at_a_time(kind, image):
    animation = camanim.animate(camanim.Model(kind().eval()), image)
    road = animation.score(baseline=False)
    assert road.settings["batch_size"] == 1
    one = animation.score(baseline=False, batch_size=1, imputer=MultigridImputer(tolerance=2e-5))
    np.testing.assert_allclose(road.scores, one.scores, atol=1e-4)


def test_values_are_not_cached_with_extra_inputs(image):
    class Scaled(Small):
        def forward(self, x, scale):
            # The scale changes the scores of perturbed images only.
            return super().forward(x) * (1 + scale * (x.flatten(1)[:, :1] != image.flat[0]))

    net = Scaled().eval()
    roads = []
    for scale in (0.0, 3.0):
        model = camanim.Model(net, extra_inputs=(torch.full((1, 1), scale),))
        roads.append(camanim.animate(model, image, target=0).score(baseline=False))
    assert roads[0].forwards == roads[1].forwards > 0
    assert (roads[0].scores != roads[1].scores).any()


def test_a_user_defined_imputer_is_neither_cached_nor_referenced(animation):
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
    reference = weakref.ref(grey)
    del grey
    gc.collect()
    assert reference() is None


def test_an_output_that_is_not_finite_is_distinguished_from_a_cancel(image):
    class Fragile(Small):
        def forward(self, x):
            # NaN for anything but the image, up to a factor.
            known = torch.tensor(image).flatten()[5] / torch.tensor(image).flatten()[6]
            odd = (x.flatten(1)[:, 5] / x.flatten(1)[:, 6] - known).abs() > 1e-3
            return super().forward(x).masked_fill(odd[:, None], float("nan"))

    animation = camanim.animate(camanim.Model(Fragile().eval()), image, layers=["conv"])
    with_maps(animation, RNG.random((32, 32)))
    road = animation.score(baseline=False)
    assert road.undefined == (OUTPUT_NOT_FINITE,)
    assert road.complete


def test_a_result_cancelled_within_the_baseline_is_not_complete(animation):
    with_maps(animation, RNG.random((32, 32)))

    def cancel(stage, done, total):
        if stage == "ROAD" and done >= 16:
            raise camanim.Cancelled

    road = animation.score(progress=cancel)
    assert np.isfinite(road.scores).all()
    assert not road.complete
    assert np.isnan(road.baseline).all()


def test_a_map_without_a_positive_value_at_the_input_size_has_no_score(animation):
    fine = np.full((96, 96), -1.0)
    fine[0, 0] = 1
    tiny = RNG.random((8, 8)).astype(np.float32) * np.float32(1e-44)
    with_maps(animation, fine, tiny, RNG.random((8, 8)))
    animation.maps[1] = (RNG.integers(1, 9, (8, 8)) * np.float32(1e-45)).astype(np.float32)
    road = animation.score(baseline=False)
    assert road.undefined == (NOTHING_POSITIVE, None, None)
    assert animation.localise(np.arange(1024).reshape(32, 32) < 200).undefined == road.undefined


def test_extreme_percentiles_keep_or_remove_one_pixel(animation):
    with_maps(animation, RNG.random((32, 32)))
    for imputer in (MultigridImputer(), MultigridImputer(compiled=False)):
        road = animation.score(percentiles=(0.01, 99.99), baseline=False, imputer=imputer)
        assert np.isfinite(road.scores).all()


def test_stored_settings_are_validated_for_other_weights(many, monkeypatch, tmp_path):
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path))
    file = tmp_path / "inference_settings.json"
    first = many.score(baseline=False).settings
    [key] = json.loads(file.read_text())
    for invalid in ({**first, "precision": "int8"}, {**first, "batch_size": 0}, [1]):
        file.write_text(json.dumps({key: invalid}))
        assert np.isfinite(many.score(7, baseline=False).scores).all()
    # Stored half precision is not used if its error is too large for these weights.
    file.write_text(json.dumps({key: {**first, "precision": "bfloat16"}}))
    monkeypatch.setattr(SpeedMeasurement, "_is_close", lambda self, settings, reference: False)
    assert many.score(8, baseline=False).settings["precision"] == "float32"


def test_hooks_of_the_user_are_not_called_in_inference_mode(many):
    in_inference_mode = []
    handle = many.model.net.conv.register_forward_hook(
        lambda m, a, out: in_inference_mode.append(out.is_inference())
    )
    many.score(baseline=False, memory_format="channels_last")
    handle.remove()
    assert in_inference_mode
    assert not any(in_inference_mode)


def test_repeats_do_not_depend_on_the_cache_of_noise_and_ties(animation):
    with_maps(animation, RNG.random((8, 8)))
    road = animation.score(repeats=9, baseline=False)
    one = [animation.score(seed, baseline=False).scores[0] for seed in range(9)]
    np.testing.assert_array_equal(road.repeated[:, 0], one)


def test_when_memory_runs_out_in_the_imputation_masks_are_halved(animation, monkeypatch):
    import camanim.road.multigrid as multigrid

    with_maps(animation, RNG.random((32, 32)))
    solve, expected = multigrid.solve, animation.score(baseline=False).scores

    def small(image, kept, limit):
        if len(kept) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return solve(image, kept, limit)

    monkeypatch.setattr(multigrid, "solve", small)
    road = animation.score(baseline=False, imputer=MultigridImputer(compiled=False))
    np.testing.assert_allclose(road.scores, expected, atol=1e-4)


def test_multigrid_falls_back_to_torch_without_numba(monkeypatch):
    import sys

    kept = torch.from_numpy(RNG.random((2, 20, 20)) < 0.5)
    image = torch.rand(3, 20, 20)
    expected = MultigridImputer()(image, kept)
    monkeypatch.setitem(sys.modules, "camanim.road.compiled", None)
    monkeypatch.delattr("camanim.road.compiled")
    torch.testing.assert_close(MultigridImputer()(image, kept), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"seed": 0.5}, {"repeats": 1.5}, {"draws": 2.5}, {"percentiles": 50}]
)
def test_invalid_settings_raise(animation, wrong):
    with pytest.raises(camanim.ScoreError):
        animation.score(**wrong)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_gets_batches(image, kind):
    animation = camanim.animate(camanim.Model(Small().eval().to(kind)), image)
    assert animation.score(baseline=False).settings["batch_size"] == 4
