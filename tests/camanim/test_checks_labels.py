"""Label randomisation, compared with separate runs for other classes; the columns of the table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import camanim
from camanim import Cancelled, LabelRandomisation, ScoreError
from camanim.targets import ClassTarget, Counterfactual, FinerTarget, Segmentation

CLASSES = ["a", "b", "c", "d", "e", "f", "g"]


class Linear(nn.Module):
    """Features, their mean, and a linear layer, whose rows are the weights of Grad-CAM."""

    def __init__(self, count: int = len(CLASSES)) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(6, count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


@pytest.fixture
def model(zoo) -> camanim.Model:
    return camanim.Model(zoo.shake(Linear()), classes=CLASSES)


def relu(maps: np.ndarray) -> np.ndarray:
    return np.maximum(maps, 0)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = relu(first).ravel(), relu(second).ravel()
    if min(np.ptp(first), np.ptp(second)) == 0:
        return np.nan
    return float(stats.spearmanr(first, second).statistic)


def test_maps_of_gradcam_are_compared_with_the_formula(zoo, model, image) -> None:
    animation = camanim.animate(model, image, target="c", layers="features.1")
    check = animation.check_labels(draws=6)
    assert check is animation.labels
    assert sorted(check.classes) == ["a", "b", "d", "e", "f", "g"]
    net = model.net
    with torch.no_grad():
        activation = net.features(animation.tensor)[0]
        maps = torch.einsum("kc,cyx->kyx", net.head.weight, activation).numpy()
    expected = [correlation(maps[2], maps[CLASSES.index(name)]) for name in check.classes]
    np.testing.assert_allclose(check.spearman[:, 0], expected, atol=1e-5)
    assert check.median == np.nanmedian(check.spearman)
    assert check.medians.tolist() == [np.nanmedian(check.spearman)]


@pytest.mark.parametrize("method", ["EigenCAM", "SobelCAM", "RandomCAM"])
def test_methods_that_ignore_the_class_fail_with_exactly_one(model, image, method) -> None:
    animation = camanim.animate(model, image, method=method)
    check = animation.check_labels()
    assert (check.spearman == 1).all()
    assert check.spearman.shape == (5, len(animation))
    assert (check.passed, check.class_specific) == (False, False)
    assert f"{method} FAILS" in check.verdict
    assert animation.warnings == [check.verdict]
    assert animation.caption(0).splitlines()[-1] == check.caption(0)
    animation.check_labels(draws=2)
    assert animation.warnings == [animation.labels.verdict]


def test_the_threshold_decides_whether_the_check_is_passed(model, image) -> None:
    animation = camanim.animate(model, image)
    check = animation.check_labels(threshold=1)
    assert (check.passed, check.class_specific) == (True, True)
    assert animation.warnings == []
    failed = animation.check_labels(threshold=-1)
    assert failed.passed is False
    assert animation.warnings == [failed.verdict]


def test_draws_are_other_classes_without_repetition_by_seed(model, image) -> None:
    animation = camanim.animate(model, image, target=1)
    drawn = {animation.check_labels(draws=3, seed=seed).classes for seed in range(8)}
    assert len(drawn) > 1
    for classes in drawn:
        assert len(set(classes)) == 3
        assert "b" not in classes
    assert len(animation.check_labels(draws=100).classes) == 6


@pytest.mark.parametrize("target", [0, 1])
def test_the_other_class_of_a_single_logit_is_its_negative(zoo, image, target) -> None:
    model = camanim.Model(zoo.shake(Linear(1)), classes=["lesion"])
    animation = camanim.animate(model, image, target=target)
    other = camanim.animate(model, image, target=1 - target)
    check = animation.check_labels()
    assert check.classes == (["lesion", "not lesion"][target],)
    expected = [correlation(a, b) for a, b in zip(animation.maps, other.maps, strict=True)]
    np.testing.assert_allclose(check.spearman[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        (Counterfactual(2), {}),
        (2, {"counterfactual": True}),
        (2, {"method": "FinerCAM"}),
        (FinerTarget(2), {}),
        (2, {"augment": True}),
        (ClassTarget(2, of="probability"), {}),
        (ClassTarget(2, kind="values"), {}),
    ],
    ids=str,
)
def test_other_classes_have_the_same_kind_of_target(model, image, target, settings) -> None:
    """Compared with a separate run for the class that was drawn."""
    animation = camanim.animate(model, image, target=target, **settings)
    check = animation.check_labels(draws=1)
    index = next(k for k, name in enumerate(CLASSES) if check.classes[0].startswith(name))

    def with_drawn_class(target):
        if isinstance(target, Counterfactual):
            return Counterfactual(index)
        if isinstance(target, FinerTarget):
            return FinerTarget(index)
        if isinstance(target, ClassTarget):
            return ClassTarget(index, kind=target.kind, of=target.of)
        return index

    other = camanim.animate(model, image, target=with_drawn_class(target), **settings)
    expected = [correlation(a, b) for a, b in zip(animation.maps, other.maps, strict=True)]
    np.testing.assert_allclose(check.spearman[0], expected, atol=1e-6)
    assert check.classes == (other.target.name,)


def test_other_classes_of_a_segmentation_have_the_same_region(zoo, image) -> None:
    model = camanim.Model(
        zoo.shake(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)))
    )
    mask = np.zeros((18, 22), bool)
    mask[3:9, 4:12] = True
    animation = camanim.animate(model, image, target=Segmentation(1, mask), layers="1")
    check = animation.check_labels(draws=9)
    assert sorted(check.classes) == ["class 0", "class 2", "class 3"]
    for name, row in zip(check.classes, check.spearman, strict=True):
        other = camanim.animate(model, image, target=Segmentation(int(name[-1]), mask), layers="1")
        np.testing.assert_allclose(row[0], correlation(animation.maps[0], other.maps[0]), atol=1e-6)


def test_the_region_in_slices_is_where_the_first_class_is_predicted(zoo) -> None:
    net = zoo.shake(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)))
    volume = np.random.default_rng(0).random((3, 10, 12)).astype(np.float32)
    settings = {"layers": "1", "slices": True}
    animation = camanim.animate(camanim.Model(net), volume, **settings)
    check = animation.check_labels(draws=9)
    for name, row in zip(check.classes, check.spearman, strict=True):
        target = Segmentation(int(name[-1]), where=animation.target.index)
        other = camanim.animate(camanim.Model(net), volume, target=target, **settings)
        np.testing.assert_allclose(row[0], correlation(animation.maps[0], other.maps[0]), atol=1e-6)
    assert np.isfinite(check.spearman).any()


def test_slices_are_checked_together_but_not_a_single_plane(zoo, model) -> None:
    volume = np.random.default_rng(0).random((3, 10, 12)).astype(np.float32)
    animation = camanim.animate(model, volume, target=0, slices=True)
    assert animation.check_labels(draws=2).spearman.shape == (2, len(animation))
    with pytest.raises(ScoreError, match="plane"):
        animation.plane(1).check_labels()


@pytest.mark.parametrize(
    "target", ["a - b", lambda output: output[:, 0]], ids=["contrast", "function"]
)
def test_a_target_that_is_not_a_class_raises(model, image, target) -> None:
    animation = camanim.animate(model, image, target=target)
    with pytest.raises(ScoreError, match=animation.target.name):
        animation.check_labels()


def test_a_network_with_a_single_value_raises(zoo, image) -> None:
    single = camanim.Model(zoo.shake(Linear(1)), outputs="values")
    with pytest.raises(ScoreError, match="two classes"):
        camanim.animate(single, image).check_labels()


def test_invalid_settings_and_missing_maps_raise(model, image) -> None:
    animation = camanim.animate(model, image)
    with pytest.raises(ScoreError, match="draws"):
        animation.check_labels(draws=0)
    with pytest.raises(ScoreError, match="threshold"):
        animation.check_labels(threshold=7)
    assert animation.labels is None
    animation.maps.clear()
    with pytest.raises(ScoreError):
        animation.check_labels()


def test_a_cancel_keeps_the_classes_computed_so_far(model, image) -> None:
    animation = camanim.animate(model, image)
    whole = animation.check_labels()
    calls = []

    def progress(stage: str, done: int, total: int) -> None:
        calls.append(stage)
        # In the backward pass of the third class.
        if total == 5 * len(animation) and done == 2 * len(animation) + 1:
            raise Cancelled("enough")

    check = animation.check_labels(progress=progress)
    assert set(calls) == {"labels"}
    assert check.classes == whole.classes[:3]
    np.testing.assert_array_equal(check.spearman[:2], whole.spearman[:2])
    assert np.isnan(check.spearman[2]).any()

    def cancel_immediately(stage: str, done: int, total: int) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        animation.check_labels(progress=cancel_immediately)
    assert animation.labels is check


def test_a_check_without_comparable_maps_is_undefined() -> None:
    check = LabelRandomisation([], ("b",), np.full((1, 2), np.nan), 0.9)
    assert check.passed is None
    assert np.isnan(check.medians).all()
    assert check.caption(0) == ""


# --- Columns of the table -------------------------------------------------------------------------

ROAD = [
    "ROAD",
    "ROAD spread",
    "ROAD baseline",
    "ROAD excess",
    "ROAD above noise",
    "ROAD undefined",
]
MASK = ["pointing", "energy inside", "IoU", "average precision"]
CHECKS = [
    "permuted Spearman",
    "reinitialised Spearman",
    "randomised SSIM",
    "other labels Spearman",
]


def test_the_table_has_the_columns_of_each_finding(model, image) -> None:
    animation = camanim.animate(model, image, layers="features.1")
    rows = animation.table()
    assert not set(rows[0]) & {*ROAD, *MASK, *CHECKS}
    mask = np.zeros(image.shape[:2], bool)
    mask[:7] = True
    agreement, weights, labels = (
        animation.localise(mask), animation.check_randomisation(steps=1), animation.check_labels()
    )  # fmt: skip
    (row,) = [row for row in animation.table() if row["status"] == "ok"]
    assert [row[name] for name in MASK] == [
        agreement.pointing[0], agreement.energy[0], agreement.iou[0], agreement.average_precision[0]
    ]  # fmt: skip
    assert [row[name] for name in CHECKS] == [
        *weights.by_scheme[:, 0], weights.final_ssim[0], labels.medians[0]
    ]  # fmt: skip
    assert all(
        other[name] is None
        for other in animation.table()
        if other["status"] != "ok"
        for name in (*MASK, *CHECKS)
    )


def test_the_table_has_the_baseline_of_road(model, image) -> None:
    animation = camanim.animate(model, image, layers=["features.0", "features.1", "head"])
    count = len(animation)
    assert count == 2
    rng = np.random.default_rng(0)
    morfs, lerfs = rng.random((3, 2, 4)), 1 + rng.random((3, 2, 4))
    morfs[:, 1] = lerfs[:, 1] = np.nan
    chance = np.array([[0.0, 0.01, 0.02], [np.nan] * 3])
    road = camanim.Road(
        layers=animation.layers, percentiles=(20, 40, 60, 80), morfs=morfs, lerfs=lerfs,
        probability=0.5, undefined=(None, "constant map"), random_scores=chance, forwards=0, seed=0,
        noise=0.01,
    )  # fmt: skip
    animation.add(road)
    first, second = (row for row in animation.table() if row["status"] == "ok")
    assert [first[name] for name in ROAD] == [
        road.scores[0], road.spread[0], road.baseline[0], road.excess[0],
        bool(road.excess[0] > road.margin[0]), None,
    ]  # fmt: skip
    assert [second[name] for name in ROAD] == [None] * 5 + ["constant map"]
