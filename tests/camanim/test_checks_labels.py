"""Maps of other classes: the same, or not."""

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
    """Features, their mean, and one linear layer: Grad-CAM's weights are the rows of its matrix."""

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


def test_gradcam_s_maps_are_compared_as_by_hand(zoo, model, image) -> None:
    animation = camanim.animate(model, image, target="c", layers="features.1")
    found = animation.check_labels(draws=6)
    assert found is animation.labels
    assert sorted(found.classes) == ["a", "b", "d", "e", "f", "g"]
    net = model.net
    with torch.no_grad():
        activation = net.features(animation.tensor)[0]
        maps = torch.einsum("kc,cyx->kyx", net.head.weight, activation).numpy()
    expected = [correlation(maps[2], maps[CLASSES.index(name)]) for name in found.classes]
    np.testing.assert_allclose(found.spearman[:, 0], expected, atol=1e-5)
    assert found.median == np.nanmedian(found.spearman)
    assert found.medians.tolist() == [np.nanmedian(found.spearman)]


@pytest.mark.parametrize("method", ["EigenCAM", "SobelCAM", "RandomCAM"])
def test_methods_that_know_no_class_give_exactly_one_and_say_so(model, image, method) -> None:
    animation = camanim.animate(model, image, method=method)
    found = animation.check_labels()
    assert (found.spearman == 1).all()
    assert found.spearman.shape == (5, len(animation))
    assert found.passed is False
    assert f"{method} FAILS the label check, as it knows no class" in found.verdict
    assert animation.warnings == [found.verdict]
    assert animation.caption(0).endswith("FAILS the label randomisation check")
    animation.check_labels(draws=2)
    assert animation.warnings == [animation.labels.verdict]
    assert "2 other classes" in animation.warnings[0]


def test_what_it_says_follows_the_threshold(model, image) -> None:
    animation = camanim.animate(model, image)
    found = animation.check_labels(threshold=1)
    assert found.passed is True
    assert found.verdict.startswith("GradCAM tells classes apart")
    assert animation.warnings == []
    assert animation.check_labels(threshold=-1).passed is False
    assert "say little about the class" in animation.warnings[0]


def test_draws_are_other_classes_without_repetition_by_seed(model, image) -> None:
    animation = camanim.animate(model, image, target=1)
    drawn = {animation.check_labels(draws=3, seed=seed).classes for seed in range(8)}
    assert len(drawn) > 1
    for classes in drawn:
        assert len(set(classes)) == 3
        assert "b" not in classes
    assert len(animation.check_labels(draws=100).classes) == 6


@pytest.mark.parametrize("target", [0, 1])
def test_of_a_single_logit_it_is_the_other_class(zoo, image, target) -> None:
    model = camanim.Model(zoo.shake(Linear(1)), classes=["lesion"])
    animation = camanim.animate(model, image, target=target)
    other = camanim.animate(model, image, target=1 - target)
    found = animation.check_labels()
    assert found.classes == (["lesion", "not lesion"][target],)
    expected = [correlation(a, b) for a, b in zip(animation.maps, other.maps, strict=True)]
    np.testing.assert_allclose(found.spearman[0], expected, atol=1e-6)


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
def test_other_classes_are_asked_about_as_the_first_was(model, image, target, settings) -> None:
    """The counterpart is a run of its own, about the class that was drawn."""
    animation = camanim.animate(model, image, target=target, **settings)
    found = animation.check_labels(draws=1)
    index = next(k for k, name in enumerate(CLASSES) if found.classes[0].startswith(name))

    def of(asked):
        if isinstance(asked, Counterfactual):
            return Counterfactual(index)
        if isinstance(asked, FinerTarget):
            return FinerTarget(index)
        if isinstance(asked, ClassTarget):
            return ClassTarget(index, kind=asked.kind, of=asked.of)
        return index

    other = camanim.animate(model, image, target=of(target), **settings)
    expected = [correlation(a, b) for a, b in zip(animation.maps, other.maps, strict=True)]
    np.testing.assert_allclose(found.spearman[0], expected, atol=1e-6)
    assert found.classes == (other.target.name,)


def test_a_segmentation_s_other_classes_are_looked_at_in_the_same_place(zoo, image) -> None:
    model = camanim.Model(
        zoo.shake(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)))
    )
    mask = np.zeros((18, 22), bool)
    mask[3:9, 4:12] = True
    animation = camanim.animate(model, image, target=Segmentation(1, mask), layers="1")
    found = animation.check_labels(draws=9)
    assert sorted(found.classes) == ["class 0", "class 2", "class 3"]
    for name, row in zip(found.classes, found.spearman, strict=True):
        other = camanim.animate(model, image, target=Segmentation(int(name[-1]), mask), layers="1")
        np.testing.assert_allclose(row[0], correlation(animation.maps[0], other.maps[0]), atol=1e-6)


def test_in_slices_the_place_is_where_the_first_class_is_found(zoo) -> None:
    net = zoo.shake(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)))
    volume = np.random.default_rng(0).random((3, 10, 12)).astype(np.float32)
    settings = {"layers": "1", "slices": True}
    animation = camanim.animate(camanim.Model(net), volume, **settings)
    own = animation.target.index
    found = animation.check_labels(draws=9)
    for name, row in zip(found.classes, found.spearman, strict=True):
        there = Segmentation(int(name[-1]), where=own)
        other = camanim.animate(camanim.Model(net), volume, target=there, **settings)
        np.testing.assert_allclose(row[0], correlation(animation.maps[0], other.maps[0]), atol=1e-6)
    assert np.isfinite(found.spearman).any()


def test_slices_have_other_classes_too_but_their_planes_have_not(zoo, model) -> None:
    volume = np.random.default_rng(0).random((3, 10, 12)).astype(np.float32)
    animation = camanim.animate(model, volume, target=0, slices=True)
    assert animation.check_labels(draws=2).spearman.shape == (2, len(animation))
    with pytest.raises(ScoreError, match="not one of its planes"):
        animation.plane(1).check_labels()


@pytest.mark.parametrize(
    "target", ["a - b", lambda output: output[:, 0]], ids=["contrast", "function"]
)
def test_what_is_no_class_has_no_other_one(model, image, target) -> None:
    animation = camanim.animate(model, image, target=target)
    with pytest.raises(ScoreError, match=r"not the score of one class.*explain a class"):
        animation.check_labels()


def test_what_cannot_be_checked_is_said(zoo, model, image) -> None:
    single = camanim.Model(zoo.shake(Linear(1)), outputs="values")
    with pytest.raises(ScoreError, match="no other class"):
        camanim.animate(single, image).check_labels()
    animation = camanim.animate(model, image)
    with pytest.raises(ScoreError, match="not 0"):
        animation.check_labels(draws=0)
    with pytest.raises(ScoreError, match="threshold"):
        animation.check_labels(threshold=7)
    assert animation.labels is None
    animation.maps.clear()
    with pytest.raises(ScoreError, match="no map to check"):
        animation.check_labels()


def test_a_cancel_keeps_the_classes_that_are_done(model, image) -> None:
    animation = camanim.animate(model, image)
    whole = animation.check_labels()
    calls = []

    def progress(stage: str, done: int, total: int) -> None:
        calls.append(stage)
        # In the backward pass of the third class.
        if total == 5 * len(animation) and done == 2 * len(animation) + 1:
            raise Cancelled("enough")

    found = animation.check_labels(progress=progress)
    assert set(calls) == {"labels"}
    assert found.classes == whole.classes[:3]
    np.testing.assert_array_equal(found.spearman[:2], whole.spearman[:2])
    assert np.isnan(found.spearman[2]).any()

    def at_once(stage: str, done: int, total: int) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        animation.check_labels(progress=at_once)
    assert animation.labels is found


def test_nothing_to_compare_is_no_verdict() -> None:
    found = LabelRandomisation([], ("b",), np.full((1, 2), np.nan), 0.9)
    assert found.passed is None
    assert np.isnan(found.medians).all()
    assert "says nothing" in found.verdict


# --- in the table ---------------------------------------------------------------------------------

ROAD = [
    "ROAD",
    "ROAD spread",
    "ROAD baseline",
    "ROAD excess",
    "ROAD above chance",
    "ROAD undefined",
]
MASK = ["pointing", "energy inside", "IoU", "average precision"]
CHECKS = ["randomised Spearman", "randomised SSIM", "other labels Spearman"]


def test_the_table_has_a_column_for_each_and_nothing_where_there_is_nothing(model, image) -> None:
    animation = camanim.animate(model, image, layers="features.1")
    rows = animation.table()
    assert not set(rows[0]) & {*ROAD, *MASK, *CHECKS}
    mask = np.zeros(image.shape[:2], bool)
    mask[:7] = True
    where, shuffled, others = (
        animation.localise(mask), animation.check_randomisation(steps=1), animation.check_labels()
    )  # fmt: skip
    (row,) = [row for row in animation.table() if row["status"] == "ok"]
    assert [row[name] for name in MASK] == [
        where.pointing[0], where.energy[0], where.iou[0], where.average_precision[0]
    ]  # fmt: skip
    assert [row[name] for name in CHECKS] == [
        shuffled.final[0], shuffled.final_ssim[0], others.medians[0]
    ]  # fmt: skip
    assert all(
        other[name] is None
        for other in animation.table()
        if other["status"] != "ok"
        for name in (*MASK, *CHECKS)
    )


def test_the_table_says_what_chance_would_score(model, image) -> None:
    animation = camanim.animate(model, image, layers=["features.0", "features.1", "head"])
    count = len(animation)
    assert count == 2
    rng = np.random.default_rng(0)
    morfs, lerfs = rng.random((3, 2, 4)), 1 + rng.random((3, 2, 4))
    morfs[:, 1] = lerfs[:, 1] = np.nan
    chance = np.array([[0.0, 0.01, 0.02], [np.nan] * 3])
    road = camanim.Road(
        layers=animation.layers, percentiles=(20, 40, 60, 80), morfs=morfs, lerfs=lerfs,
        probability=0.5, undefined=(None, "constant map"), chance=chance, forwards=0, seed=0, noise=0.01,
    )  # fmt: skip
    animation.add(road)
    first, second = (row for row in animation.table() if row["status"] == "ok")
    assert [first[name] for name in ROAD] == [
        road.scores[0], road.spread[0], road.baseline[0], road.excess[0],
        bool(road.excess[0] > road.margin[0]), None,
    ]  # fmt: skip
    assert [second[name] for name in ROAD] == [None] * 5 + ["constant map"]
