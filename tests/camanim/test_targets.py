"""What is explained: against grad-cam's targets, and against formulas written out."""

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
#: (B, K) as networks give them, in float32.
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


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


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
        theirs = reference.ClassifierOutputTarget(i), reference.ClassifierOutputSoftmaxTarget(i)
        for other, of in zip(theirs, ("logit", "probability"), strict=True):
            same(resolve(ClassTarget(i, of=of), LOGITS).score(LOGITS), other(LOGITS))


@pytest.mark.parametrize(
    ("classes", "asked", "index"),
    [
        (["Cardigan", "cardigan", "x"], "cardigan", 1),
        (["1", "2", "3"], "1", 0),
        (["0", "4", "2"], "2", 2),
        (None, "1", 1),
    ],
    ids=["ImageNet's dog and garment", "BI-RADS", "a name that is also a number", "no names"],
)
def test_an_exact_name_goes_before_a_number_and_that_before_a_similar_name(
    classes, asked, index
) -> None:
    assert resolve(asked, ONE, classes).index == index


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (3, "0 to 2, there is no 3"), (-4, "no -4"), (10**30, "no 1000000"), ("7", "no 7"),
        ("cow", "no class named 'cow'. There are cat, dog, ox"), (1.5, "not 1.5"), ([1], "not .1."),
        ("--5", "--5"), ("²", "²"), ("", "''"), (object(), "not <object"),
        ("cat - cow", "cat - cow"), ("cat -dog", "cat -dog"),
    ],
)  # fmt: skip
def test_what_is_no_class_is_refused(wrong, says) -> None:
    with pytest.raises(TargetError, match=says):
        resolve(wrong, ONE, NAMES)


def test_a_name_that_is_nearly_one_is_suggested() -> None:
    classes = [f"class of {i}" for i in range(20)] + ["tabby cat"]
    with pytest.raises(TargetError, match="Did you mean tabby cat"):
        resolve("taby cat", torch.zeros(1, 21), classes)


def test_names_run_out_before_classes_do() -> None:
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


def test_saturated_sigmoids_are_told_apart_by_their_logits() -> None:
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
        theirs = reference.BinaryClassifierOutputTarget(i)
        same(target.score(output), theirs(output)[:, 0])
        same(target.value(output), torch.sigmoid(sign * output.double()[:, 0]))
        of = resolve(ClassTarget(i, of="probability"), output, classes, kind)
        same(of.score(output).double(), target.value(output))
    assert resolve(None, output[:1], classes, kind).index == 1
    assert resolve(None, output, classes, kind).index == 0
    assert [name for _, name, _ in likeliest(output, classes, kind)] == names
    with pytest.raises(TargetError, match="0 to 1"):
        resolve(2, output, classes, kind)


def test_labels_that_do_not_exclude_one_another_have_sigmoids() -> None:
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
    with pytest.raises(TargetError, match="no probability"):
        resolve(ClassTarget(0, of="probability"), output, None, "values")
    with pytest.raises(TargetError, match="there is no 1"):
        resolve(1, output[:, :1], None, "values")


def test_a_target_may_say_itself_what_the_scores_are() -> None:
    same(resolve(ClassTarget(0, kind="sigmoid"), ONE).value(ONE), ONE[:, 0].double().sigmoid())
    assert resolve(ClassTarget(0, kind="values"), ONE[:, :1]).score(ONE).tolist() == [0.5]
    with pytest.raises(TargetError, match="odds"):
        ClassTarget(0, of="odds")


@given(logits, st.integers(0, 5))
def test_the_likeliest_come_first_and_all_of_them_share_one(values, k) -> None:
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


def test_the_second_class_of_a_contrast_can_count_less() -> None:
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
def test_a_contrast_does_not_see_what_all_logits_share(values, shift, data) -> None:
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
    # Where probabilities are not small, and grad-cam's 1e-9 beside them is.
    scores = torch.from_numpy(values).double().requires_grad_()
    main = data.draw(st.integers(0, values.shape[1] - 1))
    target = resolve(FinerTarget(main, alpha, nearest=2), scores)
    theirs = reference.FinerWeightedTarget(main, list(target.others), alpha)(scores)
    torch.testing.assert_close(target.score(scores), theirs, rtol=1e-4, atol=1e-5)
    ours, other = (torch.autograd.grad(s.sum(), scores)[0] for s in (target.score(scores), theirs))
    torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)
    same(target.value(scores), probabilities(scores.detach())[:, main])


def test_the_nearest_classes_are_those_that_grad_cam_takes() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7)
    ).eval()
    torch.manual_seed(1)
    image = torch.randn(1, 3, 9, 9)
    cam, asked = FinerCAM(net, [net[0]]), []
    cam.base_cam.compute_cam_per_layer = lambda image, targets, smooth: asked.extend(targets) or []
    cam.base_cam.aggregate_multi_layers = lambda maps: maps
    cam(image, target_idx=None)
    (theirs,) = asked
    output = net(image)
    target = resolve(FinerTarget(), output)
    assert target.index == theirs.main_category
    assert list(target.others) == theirs.comparison_categories
    same(target.score(output), theirs(output))
    same(against_nearest(resolve(None, output), output).score(output), theirs(output))


def test_a_finer_target_can_be_a_plain_mean_over_classes_of_your_choice() -> None:
    output = torch.tensor([[4.0, 1.0, 3.0, 2.0]])
    target = resolve(FinerTarget("a", 0.5, nearest=2, weighted=False), output, list("abcd"))
    assert (target.index, target.name, target.others) == (0, "a", (2, 3))
    assert target.score(output).item() == 4 - 0.5 * 2.5
    chosen = resolve(FinerTarget(0, weighted=False, others=(1, -1)), output)
    assert chosen.score(output).item() == 4 - 1.5
    assert resolve(FinerTarget(0, nearest=9), output).others == (2, 3, 1)


def test_a_finer_target_survives_classes_that_are_all_but_impossible() -> None:
    """grad-cam divides 0 by 1e-9 here, and explains nothing."""
    output = torch.tensor([[200.0, 0.0, 1.0]], requires_grad=True)
    assert reference.FinerWeightedTarget(0, [1, 2], 1)(output).item() == 0
    score = resolve(FinerTarget(0), output).score(output)
    assert score.item() == pytest.approx(200 - torch.tensor([0.0, 1.0]).softmax(0)[1].item())


def test_a_single_logits_nearest_class_is_the_other() -> None:
    output = torch.tensor([[1.5]])
    assert resolve(FinerTarget(1), output).score(output).tolist() == [3]


def test_what_is_no_class_has_no_nearest_ones() -> None:
    for target, output, kind in (
        (resolve("0 - 1", ONE), ONE, "auto"),
        (resolve(0, MAP), MAP, "auto"),
        (resolve(0, ONE, kind="values"), ONE, "values"),
        (Norm(), ONE, "auto"),
    ):
        with pytest.raises(TargetError, match="Only a class"):
            against_nearest(target, output)
        with pytest.raises(TargetError, match="Only a class"):
            resolve(FinerTarget(target), output, kind=kind)
    with pytest.raises(TargetError, match="nearest=0"):
        FinerTarget(0, nearest=0)
    with pytest.raises(TargetError, match="resolved"):
        FinerTarget(0).score(ONE)


# --- Segmentation -----------------------------------------------------------------------------


def test_a_segmented_class_within_a_mask_as_grad_cam_sums_it() -> None:
    mask = np.random.default_rng(0).random((6, 8)) > 0.5
    output = torch.cat([MAP, 2 * MAP])
    for category in range(3):
        target = resolve(Segmentation(category, mask), output)
        theirs = reference.SemanticSegmentationTarget(category, mask.astype(np.float32))
        same(target.score(output), torch.stack([theirs(one) for one in output]))
        inside = output.double().softmax(1)[:, category][:, torch.from_numpy(mask)]
        same(target.value(output), inside.mean(1))
        same(resolve(Segmentation(category, mask, of="probability"), output).score(output).double(),
             inside.sum(1))  # fmt: skip


def test_without_a_mask_a_class_is_looked_at_where_it_was_found() -> None:
    target = resolve("dog", MAP, NAMES)
    place = MAP.argmax(1)[0] == 1
    assert (target.index, target.name, target.unit) == (1, "dog", "probability")
    same(target.score(MAP), MAP[:, 1][:, place].sum(1))
    # The place stays when the image changes, or a score could rise by looking elsewhere.
    changed = MAP.flip(3).repeat(2, 1, 1, 1)
    same(target.score(changed), changed[:, 1][:, place].sum(1))
    same(target.value(changed), changed.double().softmax(1)[:, 1][:, place].mean(1))


def test_in_volumes_too() -> None:
    target = resolve(3, {"aux": VOLUME[:, :2], "out": VOLUME})
    place = VOLUME.argmax(1)[0] == 3
    same(target.score(VOLUME), VOLUME[:, 3][:, place].sum(1))


def test_the_default_is_what_covers_most_apart_from_the_background() -> None:
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


def test_labels_over_space_have_no_background() -> None:
    output = torch.full((1, 2, 4, 4), -1.0)
    output[:, 0, :3], output[:, 1, 2] = 1, 5
    target = resolve(None, output, kind="sigmoid")
    assert target.index == 0
    assert target.score(output).item() == 12
    assert [p for *_, p in likeliest(output, kind="sigmoid")] == [0.75, 0.25]
    assert (
        resolve(None, output - 9 * torch.tensor([1, 0.1])[:, None, None], kind="sigmoid").index == 1
    )


def test_a_segmentation_may_say_itself_what_the_scores_are() -> None:
    target = resolve(Segmentation(0, kind="sigmoid"), MAP)
    place = MAP[0, 0] > 0
    assert not torch.equal(place, MAP.argmax(1)[0] == 0)
    same(target.score(MAP), MAP[:, 0][:, place].sum(1))
    same(target.value(MAP), MAP.double().sigmoid()[:, 0][:, place].mean(1))


def test_one_logit_over_space_is_the_object_and_the_background() -> None:
    output = torch.tensor([[-3.0, 2.0], [-1.0, 4.0]])[None, None]
    target = resolve(None, output, ["tumour"])
    assert (target.index, target.name) == (1, "tumour")
    assert target.score(output).item() == 6
    assert target.value(output).item() == pytest.approx(
        torch.tensor([2.0, 4]).sigmoid().mean().item()
    )
    assert resolve(0, output, ["tumour"]).name == "not tumour"
    assert resolve(0, output).score(output).item() == 4


def test_values_over_space_are_summed_over_the_image() -> None:
    target = resolve(None, MAP, None, "values")
    assert (target.index, target.unit) == (0, "score")
    same(target.score(MAP), MAP[:, 0].sum((1, 2)))
    same(target.value(MAP), MAP[:, 0].mean((1, 2)).double())


def test_a_class_that_is_found_nowhere_is_looked_at_everywhere() -> None:
    output = MAP - 99 * torch.tensor([0, 0, 1])[:, None, None]
    same(resolve(2, output).score(output), output[:, 2].sum((1, 2)))


def test_each_slice_has_its_own_place() -> None:
    output = torch.full((3, 2, 4, 4), 0.0)
    output[0, 1, 0] = output[1, 1, 2:] = 2.0
    output[2, 0] = 1.0
    target = resolve(1, output)
    for part in (output, output[1:], output[:1]):
        for score, value, one in zip(target.score(part), target.value(part), part, strict=True):
            place = one.argmax(0) == 1
            assert score.item() == one[1][place].sum().item()
            expected = one.double().softmax(0)[1][place].mean() if place.any() else 0
            assert value.item() == pytest.approx(float(expected))


@pytest.mark.parametrize("batch", [1, 3])
def test_a_contrast_over_space_looks_at_both_where_the_first_is(batch) -> None:
    output = torch.cat([MAP, MAP.flip(2), MAP.flip(3)])[:batch]
    target = resolve("cat - ox", output, NAMES)
    expected = [float((one[0] - one[2])[one.argmax(0) == 0].sum()) for one in output]
    assert target.score(output).tolist() == pytest.approx(expected, rel=1e-5)
    masked = resolve(Contrast(Segmentation(0, np.eye(6, 8)), 2), output)
    expected = [float((one[0] - one[2]).diagonal().sum()) for one in output]
    assert masked.score(output).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_class_can_be_looked_at_where_another_is() -> None:
    place = MAP.argmax(1)[0] == 1
    target = resolve(Segmentation("ox", where="dog"), MAP, NAMES)
    same(target.score(MAP), MAP[:, 2][:, place].sum(1))


def test_a_mask_of_another_size_is_brought_to_the_outputs() -> None:
    mask = np.zeros((24, 32), bool)
    mask[4:12, 8:20] = True
    small = mask[2::4, 2::4]
    target = resolve(Segmentation(1, mask), MAP)
    same(target.score(MAP), MAP[:, 1][:, torch.from_numpy(small)].sum(1))


def test_half_precision_has_room_for_sums() -> None:
    output = torch.full((1, 2, 400, 400), 10.0, dtype=torch.float16)
    assert resolve(Segmentation(1, np.ones((400, 400))), output).score(output).item() == 1.6e6


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (np.zeros((6, 8)), "pixel"), (-np.eye(6, 8), "below 0"), (np.full((6, 8), np.nan), "pixel"),
        (np.ones(6), "shape"), (np.ones((2, 6, 8)), "output"), ("mask", "array"),
        (np.eye(6, 8) * 1j, "axes"), (np.pad([[1]], ((0, 99), (0, 99))), "left"),
    ],
)  # fmt: skip
def test_masks_that_show_nothing_are_refused(mask, says) -> None:
    with pytest.raises(TargetError, match=says):
        resolve(Segmentation(1, mask), MAP)


def test_a_mask_is_for_networks_that_score_pixels() -> None:
    for asked in (Segmentation(1), Segmentation(1, np.ones((2, 2)))):
        with pytest.raises(TargetError, match="does not score each pixel"):
            resolve(asked, ONE)
        with pytest.raises(TargetError, match="does not score each pixel"):
            asked.score(ONE)
    with pytest.raises(TargetError, match="no class scores"):
        ClassTarget(1).score(MAP)
    with pytest.raises(TargetError, match="there is no 7"):
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
    asked = Detection(boxes=boxes.numpy(), labels=labels, overlap=overlap, place=True)
    target = resolve(asked, output, COCO)
    assert (target.index, target.name) == (None, "person, car")
    theirs = reference.FasterRCNNBoxScoreTarget(labels, boxes, overlap)
    same(target.score(output), torch.cat([theirs(one) for one in output]))
    worth = replace(target, place=False)
    same(target.value(output), worth.score(output).double() / len(boxes))


def test_the_surest_detection_is_the_default_and_is_found_again() -> None:
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


def test_a_detected_class_is_the_sum_of_its_scores_and_worth_the_highest() -> None:
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
    ("asked", "output", "says"),
    [
        ("background", [detected()], r"no background here. Detected: person \(0.90\), car"),
        (1, [detected((), ())], "Nothing was detected"),
        (None, [detected((), ())], "Nothing was detected"),
        (None, [detected(), detected()], "which class"),
        (7, [detected()], "0 to 2, there is no 7"),
        ("tree", [detected()], "no class named"),
        (Detection(box=3), [detected()], "0 to 2, there is no 3"),
        (Detection("car", box=0), [detected()], "Detection 0 is no car"),
        ("person - car", [detected()], "no contrast"),
        (Detection(1), ONE, "does not detect"),
        (Segmentation(1), [detected()], "score each pixel"),
    ],
)
def test_what_was_not_detected_is_not_explained(asked, output, says) -> None:
    with pytest.raises(TargetError, match=says):
        resolve(asked, output, COCO)


def test_boxes_that_are_none_are_refused() -> None:
    for boxes, labels, says in (
        ([[1, 2, 3]], [1], "N, 4"),
        ("box", [1], "array"),
        ([[0, 0, 1, 1]], None, "labels"),
        ([[0, 0, 1, 1]], [1, 2], "labels"),
    ):
        with pytest.raises(TargetError, match=says):
            Detection(boxes=boxes, labels=labels)
    with pytest.raises(TargetError, match="no class scores"):
        Detection(1).score(ONE)
    with pytest.raises(TargetError, match="of its own"):
        resolve(-1, [detected()])


def test_boxes_in_volumes_in_monais_words() -> None:
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
    for asked in (None, likeliest(output)[0][0], reference.FasterRCNNBoxScoreTarget(
        output[0]["labels"], output[0]["boxes"].detach())):  # fmt: skip
        score = resolve(asked, output).score(output)
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


def test_an_embedding_is_found_in_what_a_network_gives() -> None:
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


def test_what_has_no_direction_is_refused() -> None:
    for wrong in ([0, 0], [[1, 2], [3, 4]], [1, np.nan], "up", 1j * np.ones(2)):
        with pytest.raises(TargetError, match="reference"):
            Similarity(wrong)
    with pytest.raises(TargetError, match="3 numbers, the reference has 2"):
        Similarity([1, 2]).score(ONE)
    with pytest.raises(TargetError, match="not 2 of them"):
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
    ("function", "says"),
    [
        (lambda out: 1.0, "gives float"),
        (lambda out: out, r"gives \(2, 3\)"),
        (lambda out: out.sum(), r"gives \(\)"),
        (lambda out: out[:, :1], r"gives \(2, 1\)"),
        (lambda out: out[0], r"gives \(3,\)"),
        (lambda out: out.argmax(1), "of torch.int64"),
        (lambda out: out[:, 0].detach().numpy(), "gives ndarray"),
        (lambda out: out[:, 0].detach(), "without a gradient"),
        (lambda out: out[:, 0] / 0, "not finite"),
        (lambda out: out.nothing, "fails on the network's output with"),
    ],
)
def test_what_a_function_must_give(function, says) -> None:
    output = LOGITS.clone().requires_grad_()
    with pytest.raises(TargetError, match=says):
        resolve(function, output).score(output)


def test_what_leads_nowhere_is_only_wrong_where_a_gradient_is_wanted() -> None:
    target = resolve(lambda out: out[:, 0].detach(), LOGITS)
    same(target.score(LOGITS), LOGITS[:, 0])
    with torch.no_grad():
        target.score(LOGITS.clone().requires_grad_())


def test_memory_that_runs_out_in_a_function_is_not_its_fault() -> None:
    def hungry(out):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        resolve(hungry, ONE).score(ONE)


class Concept:
    """A target as grad-cam's tutorials have it: for one image's output."""

    def __call__(self, one):
        return nn.functional.cosine_similarity(one, torch.tensor([1.0, 0, 0]), dim=0)


class Softer(reference.ClassifierOutputSoftmaxTarget):
    """A user's own version of one of grad-cam's targets."""

    def __call__(self, one):
        return super().__call__(one / 2)


def test_functions_of_one_image() -> None:
    target = resolve(FunctionTarget(Concept(), per_item=True), LOGITS)
    assert target.name == "Concept"
    same(target.score(LOGITS), LOGITS[:, 0] / LOGITS.norm(dim=1))
    with pytest.raises(TargetError, match="per_item"):
        resolve(Concept(), LOGITS).score(LOGITS)
    with pytest.raises(TargetError, match="not a number"):
        FunctionTarget(lambda one: one, per_item=True).score(LOGITS)
    with pytest.raises(TargetError, match="a function"):
        FunctionTarget(3)


@pytest.mark.parametrize(
    "theirs",
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
def test_grad_cams_targets_are_called_as_grad_cam_calls_them(theirs) -> None:
    output = LOGITS.clone().requires_grad_()
    target = resolve(theirs, output, NAMES)
    expected = torch.stack([theirs(one) for one in output])
    same(target.score(output), expected)
    ours, other = (
        torch.autograd.grad(s.sum(), output)[0] for s in (target.score(output), expected)
    )
    same(ours, other)
    same(resolve(theirs, (output, None)).score((output, None)), expected)


def test_grad_cams_plain_class_gets_a_name_and_a_probability() -> None:
    for theirs in (reference.ClassifierOutputTarget(1), reference.ClassifierOutputSoftmaxTarget(1)):
        target = resolve(theirs, ONE, NAMES)
        assert (target.index, target.name, target.unit) == (1, "dog", "probability")
        same(target.value(ONE), ONE.double().softmax(1)[:, 1])


def test_the_sole_output_of_grad_cams_class_0_keeps_its_sign() -> None:
    output = torch.tensor([[0.7]])
    for theirs in (reference.ClassifierOutputTarget(0), reference.BinaryClassifierOutputTarget(1)):
        assert resolve(theirs, output).score(output).item() == pytest.approx(0.7)
    assert resolve(reference.BinaryClassifierOutputTarget(0), output).score(output).item() < 0


def test_grad_cams_segmentation() -> None:
    theirs = reference.SemanticSegmentationTarget(1, np.eye(6, 8))
    target = resolve(theirs, {"out": MAP})
    assert target.name == "SemanticSegmentationTarget"
    same(target.score({"out": MAP}), theirs(MAP[0])[None])


def test_grad_cams_targets_that_give_no_number() -> None:
    for theirs in (reference.SoftmaxOutputTarget(), reference.RawScoresOutputTarget()):
        with pytest.raises(TargetError, match="not a number"):
            resolve(theirs, ONE).score(ONE)
    with pytest.raises(TargetError, match="instance"):
        resolve(reference.ClassifierOutputTarget, ONE)
    with pytest.raises(TargetError, match="there is no 9"):
        resolve(reference.ClassifierOutputTarget(9), ONE)


class Entropy:
    """A target of the user's own, as the protocol asks for it."""

    name, index, unit = "entropy", None, "score"

    def score(self, output):
        return -(output.softmax(1) * output.log_softmax(1)).sum(1)

    def value(self, output):
        return self.score(output).double()

    def describe(self):
        return {"kind": "entropy"}


class Least:
    """The least that will do."""

    def score(self, output):
        return output.amin(1)


def test_any_object_with_a_score_is_a_target() -> None:
    own = Entropy()
    assert resolve(own, ONE) is own
    least = resolve(Least(), LOGITS)
    assert (least.name, least.index, least.unit) == ("Least", None, "score")
    same(least.score(LOGITS), LOGITS.amin(1))
    same(least.value(LOGITS), LOGITS.amin(1).double())


def test_a_counterfactual_is_minus_the_score_at_the_same_value() -> None:
    for asked, output in ((None, LOGITS), ("cat - ox", LOGITS), (1, MAP), (None, [detected()])):
        target, other = resolve(asked, output, NAMES), resolve(Counterfactual(asked), output, NAMES)
        same(other.score(output), -target.score(output))
        same(other.value(output), target.value(output))
        assert (other.index, other.unit) == (target.index, target.unit)
        assert other.name == f"{target.name} (counterfactual)"
    finer = against_nearest(Counterfactual(resolve(1, ONE)), ONE)
    same(finer.score(ONE), -resolve(FinerTarget(1), ONE).score(ONE))


# --- Where the scores are ---------------------------------------------------------------------

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
def test_scores_are_found_wherever_a_network_puts_them(output) -> None:
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
    ("output", "says"),
    [
        (torch.zeros(3), r"\(3,\)"),
        (torch.zeros(()), r"\(\)"),
        (torch.zeros(1, 0), r"\(1, 0\)"),
        (torch.zeros(1, 5, 3), r"\(1, 5, 3\)"),
        (torch.zeros(1, 1, dtype=torch.int64), r"\(1, 1\) of torch.int64"),
        (ONE.numpy(), "ndarray"),
        (None, "NoneType"),
        ({"boxes": torch.zeros(4), "n": 3}, r"dict \(boxes: \(4,\), n: int\)"),
        ((torch.zeros(3), [1]), r"tuple \(\(3,\), list\)"),
        ([None] * 9, r"\.\.\."),
        (ONE / 0, "not finite"),
    ],
)
def test_an_output_without_scores_is_named(output, says) -> None:
    for call in (
        class_scores,
        likeliest,
        lambda out: resolve(None, out),
        lambda out: resolve(0, out),
    ):
        with pytest.raises(TargetError, match=says):
            call(output)
    if not isinstance(output, torch.Tensor) or output.isfinite().all():
        with pytest.raises(TargetError, match="pass target=a function of its output"):
            class_scores(output)


def test_class_scores_are_as_the_network_gave_them() -> None:
    assert class_scores(torch.tensor([[0.3]])).shape == (1, 1)
    for output in (MAP, [detected()]):
        with pytest.raises(TargetError, match="no class scores"):
            class_scores(output)


def test_a_function_can_do_with_an_output_that_has_no_scores() -> None:
    output = {"points": torch.randn(1, 5, 3)}
    same(resolve(lambda out: out["points"].amax((1, 2)), output).score(output),
         output["points"].amax().reshape(1))  # fmt: skip


# --- What is kept -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "output", "kind"),
    [
        (1, ONE, "class"), (np.int64(1), ONE, "class"), ("0 - 1", ONE, "contrast"),
        (FinerTarget(), ONE, "finer"), (None, MAP, "segmentation"),
        (Segmentation(1, np.eye(6, 8)), MAP, "segmentation"), (None, [detected()], "detection"),
        (2, [detected()], "detection"), (Similarity(torch.ones(3)), ONE, "similarity"),
        (Norm(), ONE, "norm"), (torch.mean, ONE, "function"), (Counterfactual(1), ONE, "counterfactual"),
        (reference.ClassifierOutputReST(1), ONE, "function"),
    ],
)  # fmt: skip
def test_targets_are_described_by_plain_data_and_can_be_kept(asked, output, kind) -> None:
    target = resolve(asked, output)
    about = target.describe()
    assert about["kind"] == kind
    assert about["name" if kind != "counterfactual" else "kind"]
    assert json.loads(json.dumps(about)) == about
    if kind != "function":
        again = pickle.loads(pickle.dumps(target))
        assert again.describe() == about
        same(again.score(output), target.score(output))


def test_descriptions_tell_targets_apart() -> None:
    kinds = [
        Segmentation(1, np.eye(6, 8)), Segmentation(1, 1 - np.eye(6, 8)), Segmentation(1),
        Segmentation(1, of="probability"), Segmentation(2), Segmentation(1, where=2),
    ]  # fmt: skip
    described = [str(resolve(kind, MAP).describe()) for kind in kinds]
    assert len(set(described)) == len(kinds)
    one, other = (Similarity(v).describe() for v in ([1.0, 2.0], [1.0, 3.0]))
    assert one != other


def test_targets_keep_nothing_of_the_graph() -> None:
    output = MAP.clone().requires_grad_()
    assert not resolve(1, output * 2).mask.requires_grad
    assert not Similarity.to_output(output * 2).reference.requires_grad
    item = detected()
    assert not resolve(
        None, [{**item, "boxes": item["boxes"].requires_grad_()}]
    ).boxes.requires_grad


def test_targets_must_be_resolved_before_they_know_their_class() -> None:
    for target in (ClassTarget("cat"), Contrast("cat", "dog"), Counterfactual("cat")):
        with pytest.raises(TargetError, match="resolve"):
            target.score(ONE)
    same(Contrast(0, 1).score(ONE), ONE[:, 0] - ONE[:, 1])
    same(Counterfactual(1).score(ONE), -ONE[:, 1])
    with pytest.raises(TargetError, match="there is no 3"):
        ClassTarget(3).score(ONE)


def test_a_name_of_your_own_stays() -> None:
    assert resolve(ClassTarget(1, "my dog"), ONE, NAMES).name == "my dog"
    assert resolve(replace(Segmentation(1), name="left lung"), MAP, NAMES).name == "left lung"
