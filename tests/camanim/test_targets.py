"""Targets, compared with grad-cam's targets and with explicit formulas."""

from __future__ import annotations

import functools
import json
import pickle
from collections import namedtuple
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pytorch_grad_cam import FinerCAM
from pytorch_grad_cam.utils import model_targets as reference
from torch import nn

import camanim
from camanim.errors import TargetError
from camanim.targets import (
    ClassTarget,
    Contrast,
    Counterfactual,
    Detection,
    FinerTarget,
    FunctionTarget,
    Norm,
    Segmentation,
    Similarity,
    against_nearest,
    class_name,
    class_scores,
    likeliest,
    probabilities,
    resolve,
)

NAMES = ["cat", "dog", "ox"]
LOGITS = torch.tensor([[0.5, 2.0, -1.0], [3.0, 1.0, 0.0]])
ONE = LOGITS[:1]
MAP = torch.randn(1, 3, 6, 8, generator=torch.Generator().manual_seed(5))
VOLUME = torch.randn(1, 4, 3, 5, 4, generator=torch.Generator().manual_seed(6))
#: Class scores (B, K), float32.
logits = st.tuples(st.integers(1, 3), st.integers(2, 6)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-20, 20, width=32))
)


def detected(scores=(0.9, 0.6, 0.3), labels=(1, 2, 1), shift=0.0) -> dict[str, torch.Tensor]:
    boxes = (
        torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 40], [2, 30, 9, 39]])[: len(scores)] + shift
    )
    return {
        "boxes": boxes,
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores, dtype=torch.float32, requires_grad=True),
    }


def plain(values: torch.Tensor) -> list[float]:
    assert values.ndim == 1
    return pytest.approx(values.tolist(), rel=1e-5, abs=1e-7)


def same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


# --- One class --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "index"),
    [
        (None, 1), (2, 2), (-1, 2), ("dog", 1), ("DOG", 1), ("2", 2), ("-3", 0),
        (np.int64(1), 1), (torch.tensor(1), 1), (ClassTarget(2), 2), (ClassTarget("ox"), 2),
        (ClassTarget(None), 1),
    ],
)  # fmt: skip
def test_a_class_by_number_or_name(request_, index) -> None:
    target = resolve(request_, ONE, NAMES)
    assert (target.index, target.name, target.unit) == (index, NAMES[index], "probability")
    same(target.score(ONE), ONE[:, index])
    same(target.value(ONE), ONE.double().softmax(1)[:, index])
    assert target.value(ONE).dtype == torch.float64


def test_the_logit_and_the_probability_as_grad_cam_scores_them() -> None:
    for i in range(3):
        expected = reference.ClassifierOutputTarget(i), reference.ClassifierOutputSoftmaxTarget(i)
        for target, of in zip(expected, ("logit", "probability"), strict=True):
            same(resolve(ClassTarget(i, of=of), LOGITS).score(LOGITS), target(LOGITS))


@pytest.mark.parametrize(
    ("classes", "name", "index"),
    [
        (["Cardigan", "cardigan", "x"], "cardigan", 1),
        (["1", "2", "3"], "1", 0),
        (["0", "4", "2"], "2", 2),
        (None, "1", 1),
    ],
    ids=["ImageNet's dog and garment", "BI-RADS", "a name that is also a number", "no names"],
)
def test_an_exact_name_takes_precedence_over_a_number_and_that_over_a_similar_name(
    classes, name, index
) -> None:
    assert resolve(name, ONE, classes).index == index


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (3, "3.*0 to 2"), (-4, "-4"), (10**30, "1000000"), ("7", "7"),
        ("cow", "'cow'.*cat, dog, ox"), (1.5, "1.5"), ([1], ".1."),
        ("--5", "--5"), ("²", "²"), ("", "''"), (object(), "<object"),
        ("cat - cow", "cat - cow"), ("cat -dog", "cat -dog"),
    ],
)  # fmt: skip
def test_an_invalid_class_raises(wrong, named) -> None:
    with pytest.raises(TargetError, match=named):
        resolve(wrong, ONE, NAMES)


def test_a_misspelt_name_suggests_a_class() -> None:
    classes = [f"class of {i}" for i in range(20)] + ["tabby cat"]
    with pytest.raises(TargetError, match="tabby cat"):
        resolve("taby cat", torch.zeros(1, 21), classes)


def test_classes_without_a_name_are_numbered() -> None:
    assert [class_name(i, ["a"]) for i in range(2)] == ["a", "class 1"]
    assert resolve(2, ONE, ["a"]).name == resolve(2, ONE).name == "class 2"


def test_over_slices_the_class_with_the_highest_mean_probability_is_taken() -> None:
    scores = torch.tensor([[9.0, 10.0], [30.0, 0.0], [9.5, 10.0]])
    assert scores.mean(0).argmax() == scores.softmax(1).mean(0).argmax() == 0
    assert resolve(None, scores).index == 0
    assert scores[[0, 2]].softmax(1).mean(0).argmax() == resolve(None, scores[[0, 2]]).index == 1
    # By logits it would be the other one.
    torn = torch.tensor([[100.0, 0.0], [0.0, 3.0], [0.0, 3.0]])
    assert resolve(None, torn).index == 1


def test_saturated_sigmoids_are_ranked_by_their_logits() -> None:
    scores = torch.tensor([[50.0, 90.0, 60.0]])
    assert set(probabilities(scores, "sigmoid").flatten().tolist()) == {1.0}
    assert resolve(None, scores, kind="sigmoid").index == 1
    assert likeliest(scores, kind="sigmoid")[0][0] == 1


@given(logits)
def test_probabilities_are_those_of_the_kind(values) -> None:
    scores = torch.from_numpy(values)
    wide = values.astype(np.float64)
    odds = np.exp(wide - wide.max(1, keepdims=True))
    np.testing.assert_allclose(probabilities(scores), odds / odds.sum(1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(probabilities(scores, "sigmoid"), 1 / (1 + np.exp(-wide)))
    np.testing.assert_array_equal(probabilities(scores, "values"), wide)
    np.testing.assert_allclose(probabilities(scores).sum(1), 1)
    binary = probabilities(scores[:, :1])
    np.testing.assert_allclose(binary, 1 / (1 + np.exp(np.c_[wide[:, :1], -wide[:, :1]])))


# --- One logit, labels, values ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["auto", "softmax", "sigmoid"])
@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (None, ["class 0", "class 1"]),
        (["benign", "malignant"], ["benign", "malignant"]),
        (["malignant"], ["not malignant", "malignant"]),
    ],
)
def test_a_single_logit_is_two_classes(kind, classes, names) -> None:
    output = torch.tensor([[0.7], [-2.0]])
    for i, sign in enumerate([-1, 1]):
        target = resolve(names[i] if classes else i, output, classes, kind)
        assert (target.index, target.name) == (i, names[i])
        expected = reference.BinaryClassifierOutputTarget(i)
        same(target.score(output), expected(output)[:, 0])
        same(target.value(output), torch.sigmoid(sign * output.double()[:, 0]))
        of = resolve(ClassTarget(i, of="probability"), output, classes, kind)
        same(of.score(output).double(), target.value(output))
    assert resolve(None, output[:1], classes, kind).index == 1
    assert resolve(None, output, classes, kind).index == 0
    assert [name for _, name, _ in likeliest(output, classes, kind)] == names
    with pytest.raises(TargetError, match="0 to 1"):
        resolve(2, output, classes, kind)


def test_a_single_logit_may_have_no_axis_for_classes() -> None:
    output = torch.tensor([0.7])
    target = resolve(None, output, ["malignant"])
    assert (target.index, target.name) == (1, "malignant")
    same(target.score(output), torch.tensor([0.7]))
    several = torch.tensor([0.7, -2.0, 1.0])
    same(target.score(several), several)
    same(target.value(several), several.double().sigmoid())


def test_independent_labels_have_sigmoids() -> None:
    target = resolve("dog", ONE, NAMES, "sigmoid")
    same(target.score(ONE), ONE[:, 1])
    same(target.value(ONE), ONE.double()[:, 1].sigmoid())
    ranked = likeliest(ONE, NAMES, "sigmoid")
    assert [name for _, name, _ in ranked] == ["dog", "cat", "ox"]
    assert [p for *_, p in ranked] == plain(ONE[0, [1, 0, 2]].sigmoid())


def test_a_regression_has_values() -> None:
    output = torch.tensor([[-3.0, 8.0]])
    target = resolve(None, output, None, "values")
    assert (target.index, target.name, target.unit) == (0, "output 0", "score")
    assert target.score(output).tolist() == target.value(output).tolist() == [-3]
    assert resolve("age", output, ["height", "age"], "values").value(output).tolist() == [8]
    assert likeliest(output, ["height"], "values") == [(0, "height", -3), (1, "output 1", 8)]
    alone = resolve(None, output[:, :1], None, "values")
    assert alone.score(output[:, :1]).tolist() == [-3]
    with pytest.raises(TargetError, match="of="):
        resolve(ClassTarget(0, of="probability"), output, None, "values")
    with pytest.raises(TargetError, match="Class 1"):
        resolve(1, output[:, :1], None, "values")


def test_the_kind_of_a_target_takes_precedence() -> None:
    same(resolve(ClassTarget(0, kind="sigmoid"), ONE).value(ONE), ONE[:, 0].double().sigmoid())
    assert resolve(ClassTarget(0, kind="values"), ONE[:, :1]).score(ONE).tolist() == [0.5]
    with pytest.raises(TargetError, match="odds"):
        ClassTarget(0, of="odds")


@given(logits, st.integers(0, 5))
def test_likeliest_is_sorted_and_the_probabilities_sum_to_one(values, k) -> None:
    scores = torch.from_numpy(values)
    ranked = likeliest(scores, k=k)
    count = values.shape[1]
    assert len(ranked) == min(k, count)
    assert [p for *_, p in ranked] == sorted((p for *_, p in ranked), reverse=True)
    assert sum(p for *_, p in likeliest(scores, k=count)) == pytest.approx(1)
    if k:
        assert ranked[0][0] == resolve(None, scores).index


# --- Contrasts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    ["cat - ox", "CAT vs ox", "cat vs. 2", Contrast("cat", "ox"), Contrast(0, ClassTarget(2))],
)
def test_a_contrast_is_the_difference_of_logits(request_) -> None:
    target = resolve(request_, LOGITS, NAMES)
    assert (target.name, target.index, target.unit) == ("cat - ox", None, "score")
    same(target.score(LOGITS), LOGITS[:, 0] - LOGITS[:, 2])
    same(target.value(LOGITS), (LOGITS[:, 0] - LOGITS[:, 2]).double())


def test_alpha_scales_the_second_class_of_a_contrast() -> None:
    target = resolve(Contrast("cat", "ox", alpha=0.5), LOGITS, NAMES)
    assert target.name == "cat - 0.5 ox"
    same(target.score(LOGITS), LOGITS[:, 0] - 0.5 * LOGITS[:, 2])


def test_a_class_whose_name_reads_like_a_contrast_is_a_class() -> None:
    classes = ["T1 - T2", "T1", "T2", "a - b", "c"]
    output = torch.arange(5.0)[None]
    assert resolve("T1 - T2", output, classes).index == 0
    assert resolve("T1 vs T2", output, classes).score(output).tolist() == [-1]
    assert resolve("a - b - c", output, classes).score(output).tolist() == [-1]


@given(logits, st.floats(-50, 50), st.data())
def test_a_contrast_is_invariant_to_a_shift_of_all_logits(values, shift, data) -> None:
    scores = torch.from_numpy(values).double()
    a, b = (data.draw(st.integers(0, values.shape[1] - 1)) for _ in range(2))
    target = resolve(Contrast(a, b), scores)
    torch.testing.assert_close(
        target.score(scores + shift), target.score(scores), rtol=0, atol=1e-9
    )
    same(resolve(Contrast(b, a), scores).score(scores), -target.score(scores))
    odds = probabilities(scores)
    torch.testing.assert_close(target.score(scores).exp() * odds[:, b], odds[:, a])


# --- A class against its nearest ----------------------------------------------------------------


@given(logits.map(lambda v: v / 10), st.floats(0, 2), st.data())
def test_a_finer_target_as_grad_cam_weighs_it(values, alpha, data) -> None:
    # Small logits, so that grad-cam's 1e-9 is negligible beside the probabilities.
    scores = torch.from_numpy(values).double().requires_grad_()
    main = data.draw(st.integers(0, values.shape[1] - 1))
    target = resolve(FinerTarget(main, alpha, nearest=2), scores)
    expected = reference.FinerWeightedTarget(main, list(target.others), alpha)(scores)
    score = target.score(scores)
    torch.testing.assert_close(score, expected, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(s.sum(), scores)[0] for s in (score, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    same(target.value(scores), probabilities(scores.detach())[:, main])


def test_the_nearest_classes_are_those_that_grad_cam_takes() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7)
    ).eval()
    torch.manual_seed(1)
    image = torch.randn(1, 3, 9, 9)
    cam, used = FinerCAM(net, [net[0]]), []
    cam.base_cam.compute_cam_per_layer = lambda image, targets, smooth: used.extend(targets) or []
    cam.base_cam.aggregate_multi_layers = lambda maps: maps
    cam(image, target_idx=None)
    (expected,) = used
    output = net(image)
    target = resolve(FinerTarget(), output)
    assert target.index == expected.main_category
    assert list(target.others) == expected.comparison_categories
    same(target.score(output), expected(output))
    same(against_nearest(resolve(None, output), output).score(output), expected(output))


def test_a_finer_target_can_be_a_plain_mean_over_classes_of_your_choice() -> None:
    output = torch.tensor([[4.0, 1.0, 3.0, 2.0]])
    target = resolve(FinerTarget("a", 0.5, nearest=2, weighted=False), output, list("abcd"))
    assert (target.index, target.name, target.others) == (0, "a", (2, 3))
    assert target.score(output).item() == 4 - 0.5 * 2.5
    chosen = resolve(FinerTarget(0, weighted=False, others=(1, -1)), output)
    assert chosen.score(output).item() == 4 - 1.5
    assert resolve(FinerTarget(0, nearest=9), output).others == (2, 3, 1)


def test_a_finer_target_is_defined_for_classes_of_probability_0() -> None:
    """grad-cam divides 0 by 1e-9 here, so that its score is 0."""
    output = torch.tensor([[200.0, 0.0, 1.0]], requires_grad=True)
    assert reference.FinerWeightedTarget(0, [1, 2], 1)(output).item() == 0
    score = resolve(FinerTarget(0), output).score(output)
    assert score.item() == pytest.approx(200 - torch.tensor([0.0, 1.0]).softmax(0)[1].item())


def test_a_single_logits_nearest_class_is_the_other() -> None:
    output = torch.tensor([[1.5]])
    assert resolve(FinerTarget(1), output).score(output).tolist() == [3]


def test_only_the_logit_of_a_class_has_nearest_classes() -> None:
    for target, output, kind in (
        (resolve("0 - 1", ONE), ONE, "auto"),
        (resolve(0, MAP), MAP, "auto"),
        (resolve(0, ONE, kind="values"), ONE, "values"),
        (Norm(), ONE, "auto"),
    ):
        with pytest.raises(TargetError, match="nearest classes"):
            against_nearest(target, output)
        with pytest.raises(TargetError, match="nearest classes"):
            resolve(FinerTarget(target), output, kind=kind)
    with pytest.raises(TargetError, match="nearest="):
        FinerTarget(0, nearest=0)
    with pytest.raises(TargetError, match="resolve"):
        FinerTarget(0).score(ONE)


# --- Segmentation -----------------------------------------------------------------------------


def test_a_segmented_class_within_a_mask_as_grad_cam_sums_it() -> None:
    mask = np.random.default_rng(0).random((6, 8)) > 0.5
    output = torch.cat([MAP, 2 * MAP])
    for category in range(3):
        target = resolve(Segmentation(category, mask), output)
        expected = reference.SemanticSegmentationTarget(category, mask.astype(np.float32))
        same(target.score(output), torch.stack([expected(one) for one in output]))
        inside = output.double().softmax(1)[:, category][:, torch.from_numpy(mask)]
        same(target.value(output), inside.mean(1))
        same(resolve(Segmentation(category, mask, of="probability"), output).score(output).double(),
             inside.sum(1))  # fmt: skip


def test_without_a_mask_the_region_is_where_the_class_is_predicted() -> None:
    target = resolve("dog", MAP, NAMES)
    region = MAP.argmax(1)[0] == 1
    assert (target.index, target.name, target.unit) == (1, "dog", "probability")
    same(target.score(MAP), MAP[:, 1][:, region].sum(1))
    # The region is fixed when the target is resolved; otherwise a changed image could move it.
    changed = MAP.flip(3).repeat(2, 1, 1, 1)
    same(target.score(changed), changed[:, 1][:, region].sum(1))
    same(target.value(changed), changed.double().softmax(1)[:, 1][:, region].mean(1))


def test_a_segmented_class_of_a_volume() -> None:
    target = resolve(3, {"aux": VOLUME[:, :2], "out": VOLUME})
    region = VOLUME.argmax(1)[0] == 3
    same(target.score(VOLUME), VOLUME[:, 3][:, region].sum(1))


def test_the_default_is_the_largest_class_except_the_background() -> None:
    output = torch.zeros(1, 4, 4, 4)
    output[:, 0], output[:, 2, 0], output[:, 3, 1, :2] = 1, 2, 3
    assert resolve(None, output).index == 2
    ranked = likeliest(output, ["air", "liver", "tumour", "vein"])
    assert ranked == [
        (0, "air", 10 / 16),
        (2, "tumour", 4 / 16),
        (3, "vein", 2 / 16),
        (1, "liver", 0),
    ]
    output[:, 2:] = 0
    assert resolve(None, output).index == 0


def test_independent_labels_per_pixel_have_no_background() -> None:
    output = torch.full((1, 2, 4, 4), -1.0)
    output[:, 0, :3], output[:, 1, 2] = 1, 5
    target = resolve(None, output, kind="sigmoid")
    assert target.index == 0
    assert target.score(output).item() == 12
    assert [p for *_, p in likeliest(output, kind="sigmoid")] == [0.75, 0.25]
    assert (
        resolve(None, output - 9 * torch.tensor([1, 0.1])[:, None, None], kind="sigmoid").index == 1
    )


def test_the_kind_of_a_segmentation_takes_precedence() -> None:
    target = resolve(Segmentation(0, kind="sigmoid"), MAP)
    region = MAP[0, 0] > 0
    assert not torch.equal(region, MAP.argmax(1)[0] == 0)
    same(target.score(MAP), MAP[:, 0][:, region].sum(1))
    same(target.value(MAP), MAP.double().sigmoid()[:, 0][:, region].mean(1))


def test_a_single_logit_per_pixel_is_the_object_and_the_background() -> None:
    output = torch.tensor([[-3.0, 2.0], [-1.0, 4.0]])[None, None]
    target = resolve(None, output, ["tumour"])
    assert (target.index, target.name) == (1, "tumour")
    assert target.score(output).item() == 6
    assert target.value(output).item() == pytest.approx(
        torch.tensor([2.0, 4]).sigmoid().mean().item()
    )
    assert resolve(0, output, ["tumour"]).name == "not tumour"
    assert resolve(0, output).score(output).item() == 4


def test_values_per_pixel_are_summed_over_the_image() -> None:
    target = resolve(None, MAP, None, "values")
    assert (target.index, target.unit) == (0, "score")
    same(target.score(MAP), MAP[:, 0].sum((1, 2)))
    same(target.value(MAP), MAP[:, 0].mean((1, 2)).double())


def test_the_region_of_a_class_that_is_not_predicted_is_the_image() -> None:
    output = MAP - 99 * torch.tensor([0, 0, 1])[:, None, None]
    same(resolve(2, output).score(output), output[:, 2].sum((1, 2)))


def test_each_slice_has_a_separate_region() -> None:
    output = torch.full((3, 2, 4, 4), 0.0)
    output[0, 1, 0] = output[1, 1, 2:] = 2.0
    output[2, 0] = 1.0
    target = resolve(1, output)
    for part in (output, output[1:], output[:1]):
        for score, value, one in zip(target.score(part), target.value(part), part, strict=True):
            region = one.argmax(0) == 1
            assert score.item() == one[1][region].sum().item()
            expected = one.double().softmax(0)[1][region].mean() if region.any() else 0
            assert value.item() == pytest.approx(float(expected))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_contrast_of_segmentations_uses_the_region_of_the_first(batch) -> None:
    output = torch.cat([MAP, MAP.flip(2), MAP.flip(3)])[:batch]
    target = resolve("cat - ox", output, NAMES)
    expected = [float((one[0] - one[2])[one.argmax(0) == 0].sum()) for one in output]
    assert target.score(output).tolist() == pytest.approx(expected, rel=1e-5)
    masked = resolve(Contrast(Segmentation(0, np.eye(6, 8)), 2), output)
    expected = [float((one[0] - one[2]).diagonal().sum()) for one in output]
    assert masked.score(output).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_region_can_be_that_of_another_class() -> None:
    region = MAP.argmax(1)[0] == 1
    target = resolve(Segmentation("ox", where="dog"), MAP, NAMES)
    same(target.score(MAP), MAP[:, 2][:, region].sum(1))


def test_a_mask_is_resized_to_the_output() -> None:
    mask = np.zeros((24, 32), bool)
    mask[4:12, 8:20] = True
    small = mask[2::4, 2::4]
    target = resolve(Segmentation(1, mask), MAP)
    same(target.score(MAP), MAP[:, 1][:, torch.from_numpy(small)].sum(1))


def test_sums_of_half_precision_do_not_overflow() -> None:
    output = torch.full((1, 2, 400, 400), 10.0, dtype=torch.float16)
    assert resolve(Segmentation(1, np.ones((400, 400))), output).score(output).item() == 1.6e6


@pytest.mark.parametrize(
    ("mask", "named"),
    [
        (np.zeros((6, 8)), "mask="), (-np.eye(6, 8), "mask="), (np.full((6, 8), np.nan), "mask="),
        (np.ones(6), r"\(6,\)"), (np.ones((2, 6, 8)), r"\(2, 6, 8\)"), ("mask", "str"),
        (np.eye(6, 8) * 1j, "mask="), (np.pad([[1]], ((0, 99), (0, 99))), r"\(6, 8\)"),
    ],
)  # fmt: skip
def test_invalid_masks_raise(mask, named) -> None:
    with pytest.raises(TargetError, match=named):
        resolve(Segmentation(1, mask), MAP)


def test_a_segmentation_requires_scores_per_pixel() -> None:
    for target in (Segmentation(1), Segmentation(1, np.ones((2, 2)))):
        with pytest.raises(TargetError, match="each pixel"):
            resolve(target, ONE)
        with pytest.raises(TargetError, match="each pixel"):
            target.score(ONE)
    with pytest.raises(TargetError, match=r"\(1, 3, 6, 8\)"):
        ClassTarget(1).score(MAP)
    with pytest.raises(TargetError, match="Class 7"):
        Segmentation(7, region="image").score(MAP)
    for wrong in ({"region": "edge"}, {"region": "mask"}):
        with pytest.raises(TargetError):
            Segmentation(1, **wrong)


# --- Detection --------------------------------------------------------------------------------

COCO = ["background", "person", "car"]


@pytest.mark.parametrize("shift", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("overlap", [0.5, 0.8])
def test_given_boxes_as_grad_cam_scores_them(shift, overlap) -> None:
    boxes, labels = detected()["boxes"], [1, 2, 2]
    output = [detected(shift=shift), detected(labels=(2, 2, 2), shift=shift), detected((), ())]
    request_ = Detection(boxes=boxes.numpy(), labels=labels, overlap=overlap, place=True)
    target = resolve(request_, output, COCO)
    assert (target.index, target.name) == (None, "person, car")
    expected = reference.FasterRCNNBoxScoreTarget(labels, boxes, overlap)
    same(target.score(output), torch.cat([expected(one) for one in output]))
    without_overlap = replace(target, place=False)
    same(target.value(output), without_overlap.score(output).double() / len(boxes))


def test_the_default_is_the_detection_with_the_highest_score_matched_by_overlap() -> None:
    target = resolve(None, [detected()], COCO)
    assert (target.index, target.name, target.unit) == (1, "person (box 0)", "probability")
    assert target.value([detected()]).tolist() == pytest.approx([0.9])
    moved = [detected((0.2, 0.95, 0.4), shift=1.0), detected((0.9,), (2,)), detected((), ())]
    assert target.value(moved).tolist() == pytest.approx([0.2, 0, 0])
    score = target.score(moved)
    score.sum().backward()
    assert [one["scores"].grad.tolist() for one in moved] == [[1, 0, 0], [0], []]


def test_a_detection_by_its_number() -> None:
    target = resolve(Detection(box=2), [detected()], COCO)
    assert target.name == "person (box 2)"
    assert target.score([detected()]).tolist() == pytest.approx([0.3])


def test_a_detected_class_has_the_sum_of_scores_as_score_and_the_highest_as_value() -> None:
    output = [detected(), detected((0.1, 0.2, 0.5)), detected((), ())]
    target = resolve("person", output, COCO)
    assert (target.index, target.name) == (1, "person")
    assert target.score(output).tolist() == pytest.approx([1.2, 0.6, 0])
    assert target.value(output).tolist() == pytest.approx([0.9, 0.5, 0])
    assert likeliest(output[:1], COCO) == [
        (1, "person", pytest.approx(0.9)), (2, "car", pytest.approx(0.6)),
    ]  # fmt: skip
    assert resolve(1, output).name == "class 1"


@pytest.mark.parametrize(
    ("request_", "output", "named"),
    [
        ("background", [detected()], r"background.*person \(0.90\), car"),
        (1, [detected((), ())], "person"),
        (None, [detected((), ())], "detected"),
        (None, [detected(), detected()], "2 images"),
        (7, [detected()], "Class 7.*0 to 2"),
        ("tree", [detected()], "tree"),
        (Detection(box=3), [detected()], "Detection 3.*0 to 2"),
        (Detection("car", box=0), [detected()], "Detection 0.*car"),
        ("person - car", [detected()], "Contrast"),
        (Detection(1), ONE, "no detections"),
        (Segmentation(1), [detected()], "each pixel"),
    ],
)
def test_invalid_detections_raise(request_, output, named) -> None:
    with pytest.raises(TargetError, match=named):
        resolve(request_, output, COCO)


def test_invalid_boxes_raise() -> None:
    for boxes, labels, named in (
        ([[1, 2, 3]], [1], "N, 4"),
        ("box", [1], "array"),
        ([[0, 0, 1, 1]], None, "labels"),
        ([[0, 0, 1, 1]], [1, 2], "labels"),
    ):
        with pytest.raises(TargetError, match=named):
            Detection(boxes=boxes, labels=labels)
    with pytest.raises(TargetError, match=r"\(1, 3\)"):
        Detection(1).score(ONE)
    with pytest.raises(TargetError, match="Class -1"):
        resolve(-1, [detected()])


def test_boxes_in_volumes_with_monais_keys() -> None:
    item = {
        "box": torch.tensor([[0.0, 0, 0, 4, 4, 4], [5, 5, 5, 9, 9, 9]]),
        "label": torch.tensor([0, 1]),
        "label_scores": torch.tensor([0.3, 0.8]),
    }
    target = resolve(None, [item])
    moved = {**item, "box": item["box"] + 0.5}
    # Of (4 - 0.5)^3 in common and 2 * 64 in all.
    assert 3.5**3 / (128 - 3.5**3) > 0.5
    assert target.value([moved]).tolist() == pytest.approx([0.8])
    moved = {**item, "box": item["box"] + 1}
    assert target.value([moved]).tolist() == [0]


def test_torchvisions_detectors_have_a_gradient() -> None:
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    torch.manual_seed(0)
    net = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64,
        box_score_thresh=0.0, box_detections_per_img=5,
    ).eval()  # fmt: skip
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    output = net(image)
    for request_ in (None, likeliest(output)[0][0], reference.FasterRCNNBoxScoreTarget(
        output[0]["labels"], output[0]["boxes"].detach())):  # fmt: skip
        score = resolve(request_, output).score(output)
        (gradient,) = torch.autograd.grad(score.sum(), image, retain_graph=True)
        assert gradient.abs().sum() > 0


# --- Embeddings -------------------------------------------------------------------------------


@given(
    arrays(np.float64, (2, 5), elements=st.floats(-9, 9)).filter(lambda v: (v**2).sum(1).min() > 1)
)
def test_similarity_is_the_cosine(values) -> None:
    vectors, reference_ = torch.from_numpy(values), torch.tensor([1.0, -2, 0, 3, 1])
    target = resolve(Similarity(reference_), vectors)
    u = reference_.numpy()
    expected = values @ u / np.linalg.norm(values, axis=1) / np.linalg.norm(u)
    np.testing.assert_allclose(target.score(vectors), expected, atol=1e-6)
    np.testing.assert_allclose(target.value(vectors * 7), expected, atol=1e-6)
    same(Norm().score(vectors), torch.from_numpy(np.linalg.norm(values, axis=1)))


def test_an_embedding_is_read_from_tensors_tuples_and_dictionaries() -> None:
    vectors, tokens = torch.randn(1, 4), torch.randn(1, 9, 4)
    target = Similarity([1, 0, 0, 0], name="to the atlas")
    expected = (vectors[:, 0] / vectors.norm()).item()
    space = vectors[:, :, None, None] + torch.tensor([[-1.0, 1.0], [2.0, -2.0]])
    for output in (
        vectors, space, {"last_hidden_state": tokens, "pooler_output": vectors}, (vectors, tokens),
        {"text_embeds": torch.randn(1, 4), "image_embeds": vectors},
    ):  # fmt: skip
        assert target.score(output).item() == pytest.approx(expected, rel=1e-5)
        assert target.value(output).dtype == torch.float64
    same(Similarity.to_output(space).score(vectors), torch.ones(1))
    assert (target.index, target.unit, target.name) == (None, "score", "to the atlas")


def test_invalid_references_and_embeddings_raise() -> None:
    for wrong in ([0, 0], [[1, 2], [3, 4]], [1, np.nan], "up", 1j * np.ones(2)):
        with pytest.raises(TargetError, match="reference"):
            Similarity(wrong)
    with pytest.raises(TargetError, match=r"\b3\b.*\b2\b"):
        Similarity([1, 2]).score(ONE)
    with pytest.raises(TargetError, match="not 2"):
        Similarity.to_output(LOGITS)
    for output in (torch.zeros(1, 3, 4), torch.zeros(3), {"x": 1}):
        with pytest.raises(TargetError, match="vector"):
            Norm().score(output)


# --- Functions --------------------------------------------------------------------------------


def test_any_function_gets_the_whole_output() -> None:
    output = {"age": torch.tensor([[30.0], [40.0]]), "sex": LOGITS}

    def older(out):
        return out["age"][:, 0] - 5 * out["sex"][:, 1]

    target = resolve(older, output)
    assert (target.name, target.index, target.unit) == ("older", None, "score")
    assert target.score(output).tolist() == [20, 35]
    assert target.value(output).dtype == torch.float64
    assert resolve(lambda out: out[0, 1], ONE).score(ONE).tolist() == [2]
    assert resolve(lambda out: out[0, 1], ONE).name == "function"
    assert resolve(functools.partial(torch.sum, dim=1), ONE).name == "sum"


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda out: 1.0, "float"),
        (lambda out: out, r"\(2, 3\)"),
        (lambda out: out.sum(), r"\(\)"),
        (lambda out: out[:, :1], r"\(2, 1\)"),
        (lambda out: out[0], r"\(3,\)"),
        (lambda out: out.argmax(1), "torch.int64"),
        (lambda out: out[:, 0].detach().numpy(), "ndarray"),
        (lambda out: out[:, 0].detach(), "gradient"),
        (lambda out: out[:, 0] / 0, "finite"),
        (lambda out: out.nothing, "AttributeError"),
    ],
)
def test_invalid_results_of_a_function_raise(function, named) -> None:
    output = LOGITS.clone().requires_grad_()
    with pytest.raises(TargetError, match=named):
        resolve(function, output).score(output)


def test_a_missing_gradient_raises_only_with_gradients_enabled() -> None:
    target = resolve(lambda out: out[:, 0].detach(), LOGITS)
    same(target.score(LOGITS), LOGITS[:, 0])
    with torch.no_grad():
        target.score(LOGITS.clone().requires_grad_())


def test_an_out_of_memory_error_of_a_function_is_not_converted() -> None:
    def raise_out_of_memory(out):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        resolve(raise_out_of_memory, ONE).score(ONE)


class Concept:
    """A target for the output of one image, as in grad-cam's tutorials."""

    def __call__(self, one):
        return nn.functional.cosine_similarity(one, torch.tensor([1.0, 0, 0]), dim=0)


class Softer(reference.ClassifierOutputSoftmaxTarget):
    """A subclass of one of grad-cam's targets."""

    def __call__(self, one):
        return super().__call__(one / 2)


def test_functions_of_one_image() -> None:
    target = resolve(FunctionTarget(Concept(), per_item=True), LOGITS)
    assert target.name == "Concept"
    same(target.score(LOGITS), LOGITS[:, 0] / LOGITS.norm(dim=1))
    with pytest.raises(TargetError, match="per_item"):
        resolve(Concept(), LOGITS).score(LOGITS)
    with pytest.raises(TargetError, match=r"\(3,\)"):
        FunctionTarget(lambda one: one, per_item=True).score(LOGITS)
    with pytest.raises(TargetError, match="not 3"):
        FunctionTarget(3)


@pytest.mark.parametrize(
    "request_",
    [
        reference.ClassifierOutputTarget(1),
        reference.ClassifierOutputTarget(np.int64(2)),
        reference.ClassifierOutputSoftmaxTarget(1),
        reference.ClassifierOutputReST(0),
        reference.FinerWeightedTarget(0, [1, 2], 0.6),
        Softer(2),
    ],
    ids=lambda target: type(target).__name__,
)
def test_grad_cams_targets_are_called_as_grad_cam_calls_them(request_) -> None:
    output = LOGITS.clone().requires_grad_()
    target = resolve(request_, output, NAMES)
    expected = torch.stack([request_(one) for one in output])
    same(target.score(output), expected)
    scores = (target.score(output), expected)
    same(*(torch.autograd.grad(score.sum(), output)[0] for score in scores))
    same(resolve(request_, (output, None)).score((output, None)), expected)


def test_grad_cams_plain_class_has_a_name_and_a_probability() -> None:
    for of in (reference.ClassifierOutputTarget, reference.ClassifierOutputSoftmaxTarget):
        target = resolve(of(1), ONE, NAMES)
        assert (target.index, target.name, target.unit) == (1, "dog", "probability")
        same(target.value(ONE), ONE.double().softmax(1)[:, 1])


def test_the_sole_output_of_grad_cams_class_0_keeps_its_sign() -> None:
    output = torch.tensor([[0.7]])
    for target in (reference.ClassifierOutputTarget(0), reference.BinaryClassifierOutputTarget(1)):
        assert resolve(target, output).score(output).item() == pytest.approx(0.7)
    assert resolve(reference.BinaryClassifierOutputTarget(0), output).score(output).item() < 0


def test_grad_cams_segmentation() -> None:
    request_ = reference.SemanticSegmentationTarget(1, np.eye(6, 8))
    target = resolve(request_, {"out": MAP})
    assert target.name == "SemanticSegmentationTarget"
    same(target.score({"out": MAP}), request_(MAP[0])[None])


def test_invalid_targets_of_grad_cam_raise() -> None:
    for target in (reference.SoftmaxOutputTarget(), reference.RawScoresOutputTarget()):
        with pytest.raises(TargetError, match="scalar"):
            resolve(target, ONE).score(ONE)
    with pytest.raises(TargetError, match="ClassifierOutputTarget"):
        resolve(reference.ClassifierOutputTarget, ONE)
    with pytest.raises(TargetError, match="Class 9"):
        resolve(reference.ClassifierOutputTarget(9), ONE)


class Entropy:
    """A user-defined target with all attributes of the protocol."""

    name, index, unit = "entropy", None, "score"

    def score(self, output):
        return -(output.softmax(1) * output.log_softmax(1)).sum(1)

    def value(self, output):
        return self.score(output).double()

    def describe(self):
        return {"kind": "entropy"}


class Lowest:
    """A user-defined target that has only a score."""

    def score(self, output):
        return output.amin(1)


def test_any_object_with_a_score_is_a_target() -> None:
    entropy = Entropy()
    assert resolve(entropy, ONE) is entropy
    lowest = resolve(Lowest(), LOGITS)
    assert (lowest.name, lowest.index, lowest.unit) == ("Lowest", None, "score")
    same(lowest.score(LOGITS), LOGITS.amin(1))
    same(lowest.value(LOGITS), LOGITS.amin(1).double())


def test_a_counterfactual_is_minus_the_score_at_the_same_value() -> None:
    for of, output in ((None, LOGITS), ("cat - ox", LOGITS), (1, MAP), (None, [detected()])):
        target, other = resolve(of, output, NAMES), resolve(Counterfactual(of), output, NAMES)
        same(other.score(output), -target.score(output))
        same(other.value(output), target.value(output))
        assert (other.index, other.unit) == (target.index, target.unit)
        assert other.name == f"{target.name} (counterfactual)"
    finer = against_nearest(Counterfactual(resolve(1, ONE)), ONE)
    same(finer.score(ONE), -resolve(FinerTarget(1), ONE).score(ONE))


# --- Structure of the output ------------------------------------------------------------------

Aux = namedtuple("Aux", "logits aux_logits2 aux_logits1")
Reversed = namedtuple("Reversed", "aux_logits main")


@dataclass
class Output:
    loss: torch.Tensor | None
    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...] = ()


@pytest.mark.parametrize(
    "output",
    [
        ONE,
        ONE[:, :, None, None],
        ONE[:, :, None],
        ONE.half().float(),
        (ONE, torch.randn(1, 8)),
        [ONE],
        ((ONE,), None),
        {"loss": torch.tensor(1.0), "out": ONE, "aux": ONE + 1},
        {"aux": ONE + 1, "main": ONE},
        {"features": torch.randn(1, 7, 7, 2), "logits": ONE},
        Aux(ONE, ONE + 1, ONE + 2),
        Reversed(ONE + 1, ONE),
        Output(None, ONE),
        Output(torch.tensor(0.0), ONE, (torch.randn(1, 5, 2),)),
        (torch.ones(1, 2, dtype=torch.int64), ONE),
    ],
    ids=lambda output: type(output).__name__,
)
def test_scores_are_read_from_tensors_tuples_dictionaries_and_dataclasses(output) -> None:
    same(class_scores(output), ONE)
    target = resolve(None, output, NAMES)
    assert target.name == "dog"
    same(target.score(output), ONE[:, 1])
    assert likeliest(output, NAMES, k=1)[0][:2] == (1, "dog")


def test_huggingfaces_outputs() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    output = outputs.ImageClassifierOutput(logits=ONE, hidden_states=(torch.randn(1, 4, 2),))
    same(class_scores(output), ONE)
    embedded = outputs.BaseModelOutputWithPooling(
        last_hidden_state=torch.randn(1, 5, 3), pooler_output=ONE
    )
    same(Norm().score(embedded), ONE.norm(dim=1))
    with pytest.raises(TargetError, match=r"last_hidden_state: \(1, 5, 3\)"):
        resolve(None, embedded)


@pytest.mark.parametrize(
    ("output", "named"),
    [
        (torch.zeros(3, dtype=torch.int64), r"\(3,\) of torch.int64"),
        (torch.zeros(()), r"\(\)"),
        (torch.zeros(0), r"\(0,\)"),
        (torch.zeros(1, 0), r"\(1, 0\)"),
        (torch.zeros(1, 5, 3), r"\(1, 5, 3\)"),
        (torch.zeros(1, 1, dtype=torch.int64), r"\(1, 1\) of torch.int64"),
        (ONE.numpy(), "ndarray"),
        (None, "NoneType"),
        ({"boxes": torch.zeros(4), "n": 3}, r"dict \(boxes: \(4,\), n: int\)"),
        ((torch.zeros(3), [1]), r"tuple \(\(3,\), list\)"),
        ([None] * 9, r"\.\.\."),
        (ONE / 0, "finite"),
    ],
)
def test_an_output_without_scores_is_summarised(output, named) -> None:
    for call in (
        class_scores,
        likeliest,
        lambda out: resolve(None, out),
        lambda out: resolve(0, out),
    ):
        with pytest.raises(TargetError, match=named):
            call(output)
    if not isinstance(output, torch.Tensor) or output.isfinite().all():
        with pytest.raises(TargetError, match="target="):
            class_scores(output)


def test_class_scores_are_not_expanded() -> None:
    assert class_scores(torch.tensor([[0.3]])).shape == (1, 1)
    for output in (MAP, [detected()]):
        with pytest.raises(TargetError, match="class scores"):
            class_scores(output)


def test_a_function_needs_no_class_scores() -> None:
    output = {"points": torch.randn(1, 5, 3)}
    same(resolve(lambda out: out["points"].amax((1, 2)), output).score(output),
         output["points"].amax().reshape(1))  # fmt: skip


# --- Metadata and pickling --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "output", "kind"),
    [
        (1, ONE, "class"), (np.int64(1), ONE, "class"), ("0 - 1", ONE, "contrast"),
        (FinerTarget(), ONE, "finer"), (None, MAP, "segmentation"),
        (Segmentation(1, np.eye(6, 8)), MAP, "segmentation"), (None, [detected()], "detection"),
        (2, [detected()], "detection"), (Similarity(torch.ones(3)), ONE, "similarity"),
        (Norm(), ONE, "norm"), (torch.mean, ONE, "function"), (Counterfactual(1), ONE, "counterfactual"),
        (reference.ClassifierOutputReST(1), ONE, "function"),
    ],
)  # fmt: skip
def test_targets_are_described_by_plain_data_and_pickle(request_, output, kind) -> None:
    target = resolve(request_, output)
    about = target.describe()
    assert about["kind"] == kind
    assert about["name" if kind != "counterfactual" else "kind"]
    assert json.loads(json.dumps(about)) == about
    if kind != "function":
        again = pickle.loads(pickle.dumps(target))
        assert again.describe() == about
        same(again.score(output), target.score(output))


def test_different_targets_have_different_descriptions() -> None:
    kinds = [
        Segmentation(1, np.eye(6, 8)), Segmentation(1, 1 - np.eye(6, 8)), Segmentation(1),
        Segmentation(1, of="probability"), Segmentation(2), Segmentation(1, where=2),
    ]  # fmt: skip
    described = [str(resolve(kind, MAP).describe()) for kind in kinds]
    assert len(set(described)) == len(kinds)
    one, other = (Similarity(v).describe() for v in ([1.0, 2.0], [1.0, 3.0]))
    assert one != other


def test_targets_are_detached_from_the_graph() -> None:
    output = MAP.clone().requires_grad_()
    assert not resolve(1, output * 2).mask.requires_grad
    assert not Similarity.to_output(output * 2).reference.requires_grad
    item = detected()
    assert not resolve(
        None, [{**item, "boxes": item["boxes"].requires_grad_()}]
    ).boxes.requires_grad


def test_a_class_name_must_be_resolved_before_scoring() -> None:
    for target in (ClassTarget("cat"), Contrast("cat", "dog"), Counterfactual("cat")):
        with pytest.raises(TargetError, match="resolve"):
            target.score(ONE)
    same(Contrast(0, 1).score(ONE), ONE[:, 0] - ONE[:, 1])
    same(Counterfactual(1).score(ONE), -ONE[:, 1])
    with pytest.raises(TargetError, match="Class 3"):
        ClassTarget(3).score(ONE)


def test_a_name_passed_by_the_user_is_kept() -> None:
    assert resolve(ClassTarget(1, "my dog"), ONE, NAMES).name == "my dog"
    assert resolve(replace(Segmentation(1), name="left lung"), MAP, NAMES).name == "left lung"


def test_classes_that_contain_the_word_are_proposed(zoo, image) -> None:
    names = ["catamaran", "Egyptian cat", "tiger cat", *(f"class {i}" for i in range(10))]
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 13))
    with pytest.raises(TargetError, match="egyptian cat, tiger cat"):
        camanim.animate(camanim.Model(net.eval(), classes=names), image, target="cat")


def test_a_result_is_printed_in_one_line(zoo, image) -> None:
    animation = camanim.animate(camanim.Model(zoo.shake(zoo.Plain())), image, target=1)
    assert "GradCAM" in repr(animation)
    assert len(repr(animation).splitlines()) == 1
    assert len(repr(animation)) < 200
