"""Networks that end in a softmax or sigmoid, compared with the same networks without it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.networks.nets import Classifier
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

import camanim
from camanim.targets import (
    ClassTarget,
    Contrast,
    FinerTarget,
    FunctionTarget,
    Segmentation,
    likeliest,
    probabilities,
    resolve,
)

GREY = np.random.default_rng(0).random((16, 20))


class Ends(nn.Module):
    """A network, followed by any function of its output."""

    def __init__(self, body: nn.Module, end) -> None:
        super().__init__()
        self.body, self.end = body, end

    def forward(self, image):
        return self.end(self.body(image))


def classifier(classes: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )  # fmt: skip
    for parameter in net.parameters():
        parameter.data *= 3
    return net


def segmenter(classes: int) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, classes, 3, padding=1)
    )


def explain(net, target=None, **settings):
    model = camanim.Model(net, outputs=settings.pop("outputs", "auto"))
    return camanim.animate(model, GREY, target=target, method="HiResCAM", **settings)


def centred(index):
    return lambda output: output[:, index] - output.mean(1)


def assert_maps_equal(ended, plain) -> None:
    maps = {
        layer.name.removeprefix("0."): raw
        for layer, raw in zip(ended.layers, ended.maps, strict=True)
    }
    maps = {name.removeprefix("body."): raw for name, raw in maps.items()}
    for layer, raw in zip(plain.layers, plain.maps, strict=True):
        np.testing.assert_allclose(maps[layer.name], raw, atol=2e-5 * np.abs(raw).max())


# --- Classifiers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end", [nn.Softmax(1), lambda z: z.softmax(1), lambda z: {"out": z.softmax(1)}]
)
def test_a_softmax_at_the_end_is_not_applied_twice(end) -> None:
    body = classifier()
    plain, ended = explain(body), explain(Ends(body, end))
    assert ended.target.index == plain.target.index
    assert ended.probability == pytest.approx(plain.probability, abs=1e-6)
    assert "probabilities" in " ".join(ended.notes)
    assert not plain.notes
    assert f"{plain.target.name} {plain.probability:.2f}" in ended.caption(0)
    assert_maps_equal(ended, explain(body, FunctionTarget(centred(plain.target.index))))


@pytest.mark.parametrize("end", [nn.Sigmoid(), torch.sigmoid, lambda z: z.sigmoid()[..., None]])
@pytest.mark.parametrize("classes", [1, 4])
def test_a_sigmoid_at_the_end_is_not_applied_twice(end, classes) -> None:
    body = classifier(classes)
    plain = explain(body, outputs="sigmoid")
    ended = explain(Ends(body, lambda z: end(z).reshape(z.shape)))
    assert ended.target.index == plain.target.index
    assert ended.probability == pytest.approx(plain.probability, abs=1e-6)
    assert "probabilities" in " ".join(ended.notes)
    assert_maps_equal(ended, plain)


def test_scores_and_predictions_are_those_of_the_network_without_the_softmax() -> None:
    models = [
        camanim.Model(net) for net in (classifier(), nn.Sequential(classifier(), nn.Softmax(1)))
    ]
    settings = {"target": 2, "method": "EigenCAM", "layers": "Conv2d"}
    plain, ended = (camanim.animate(model, GREY, **settings) for model in models)
    scores = [animation.score(draws=2).scores for animation in (plain, ended)]
    np.testing.assert_allclose(*scores, atol=1e-4)
    predictions = [model.predict(GREY) for model in models]
    for before, after in zip(*predictions, strict=True):
        assert before.index == after.index
        assert before.probability == pytest.approx(after.probability, abs=1e-6)
    checks = [animation.check_labels(draws=2) for animation in (plain, ended)]
    assert checks[0].classes == checks[1].classes


@pytest.mark.parametrize("last_act", ["softmax", "sigmoid"])
def test_the_last_activation_of_a_network_of_monai_is_noticed(last_act) -> None:
    act = (last_act, {"dim": 1}) if last_act == "softmax" else last_act
    net = Classifier((1, 16, 16), 3, (4, 8), (2, 2), last_act=act)
    model = camanim.Model(net, camanim.Preprocess(size=(16, 16), channels=1))
    animation = camanim.animate(model, GREY, target=1)
    with torch.no_grad():
        expected = float(net.eval()(animation.tensor)[0, 1])
    assert animation.probability == pytest.approx(expected, abs=1e-6)


def test_predictions_of_a_network_that_leaves_torch() -> None:
    body = classifier()
    net = Ends(nn.Identity(), lambda x: body(torch.from_numpy(x.numpy())).softmax(1))
    model = camanim.Model(net, camanim.Preprocess(channels=1))
    assert [p.probability for p in model.predict(GREY)] == pytest.approx(
        [p.probability for p in camanim.Model(body).predict(GREY)], abs=1e-6
    )


# --- What is no probability -------------------------------------------------------------------


class Chance(nn.Module):
    """Logits that equal probabilities for one image only."""

    def __init__(self) -> None:
        super().__init__()
        self.body = classifier(2)
        with torch.no_grad():
            image = torch.from_numpy(GREY).float()[None, None]
            self.body[-1].bias += torch.tensor([0.3, 0.7]) - self.body(image)[0]

    def forward(self, image):
        return self.body(image)


def test_logits_that_equal_probabilities_by_chance_are_logits() -> None:
    animation = explain(Chance())
    assert animation.probability == pytest.approx(np.exp(0.7) / (np.exp(0.3) + np.exp(0.7)), 1e-4)
    assert not animation.notes


@pytest.mark.parametrize("end", [lambda z: z.relu() / (1 + z.relu()), lambda z: z.sigmoid() * 0.9])
def test_values_in_the_unit_interval_are_no_probabilities_without_an_activation(end) -> None:
    assert explain(Ends(classifier(), end)).target.kind == "auto"
    assert explain(Ends(classifier(), end), outputs="probabilities").probability <= 1


def test_outputs_overrides_what_was_noticed() -> None:
    net = nn.Sequential(classifier(), nn.Sigmoid())
    with torch.no_grad():
        p = net(torch.from_numpy(GREY).float()[None, None])[0]
    for outputs, expected in {
        "softmax": p.softmax(0), "sigmoid": p.sigmoid(), "values": p, "probabilities": p
    }.items():  # fmt: skip
        animation = explain(net, 1, outputs=outputs)
        assert animation.probability == pytest.approx(float(expected[1]), abs=1e-6)
        contradicted = outputs in ("softmax", "sigmoid")
        assert any("probabilities" in note for note in animation.notes) == contradicted


# --- Targets ----------------------------------------------------------------------------------

logits = st.tuples(st.integers(1, 3), st.integers(2, 6)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(-20, 20))
)


@given(logits)
def test_logits_are_recovered_from_probabilities(values) -> None:
    z = torch.from_numpy(values)
    for target, reference in (
        (ClassTarget(1), z[:, 1] - z.mean(1)),
        (Contrast(0, 1), z[:, 0] - z[:, 1]),
        (FinerTarget(0, others=(1,)), z[:, 0] - z[:, 1]),
    ):
        score = resolve(target, z.softmax(1), kind="probabilities").score(z.softmax(1))
        torch.testing.assert_close(score, reference, atol=1e-6, rtol=1e-9)
    kind = "independent probabilities"
    score = resolve(1, z.sigmoid(), kind=kind).score(z.sigmoid())
    torch.testing.assert_close(score, z[:, 1], atol=1e-6, rtol=1e-6)
    assert torch.equal(probabilities(z.sigmoid(), kind), z.sigmoid())


def test_the_sum_decides_whether_classes_are_mutually_exclusive() -> None:
    exclusive, labels = torch.tensor([[0.2, 0.8]]), torch.tensor([[0.2, 0.7]])
    assert resolve(0, exclusive, kind="probabilities").kind == "probabilities"
    assert resolve(0, labels, kind="probabilities").kind == "independent probabilities"
    assert likeliest(labels, ["a", "b"], "probabilities")[0][1:] == ("b", pytest.approx(0.7))
    single = torch.tensor([[0.2]])
    assert [p for *_, p in likeliest(single, kind="probabilities")] == pytest.approx([0.8, 0.2])


@pytest.mark.parametrize("kind", ["probabilities", "independent probabilities"])
def test_probabilities_of_0_and_1_have_finite_scores_and_gradients(kind) -> None:
    p = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    for index in range(3):
        score = resolve(index, p, kind=kind).score(p)
        (gradient,) = torch.autograd.grad(score.sum(), p)
        assert score.isfinite().all()
        assert gradient.isfinite().all()


def test_a_softmax_close_to_one_keeps_its_gradient() -> None:
    z = torch.tensor([[40.0, 0.0, -5.0]], requires_grad=True)
    p = z.softmax(1)
    assert p[0, 0] == 1
    (gradient,) = torch.autograd.grad(resolve(0, p, kind="probabilities").score(p).sum(), z)
    torch.testing.assert_close(gradient, torch.tensor([[2 / 3, -1 / 3, -1 / 3]]))


def test_a_saturated_sigmoid_without_a_gradient_is_noted() -> None:
    body = classifier(1)
    body[-1].bias.data += 100
    assert any("gradient is zero" in note for note in explain(Ends(body, torch.sigmoid)).notes)


def test_grad_cams_class_of_probabilities_is_the_probability() -> None:
    p = torch.tensor([[0.2, 0.8]])
    target = resolve(ClassifierOutputTarget(1), p, kind="probabilities")
    assert target.score(p).tolist() == [ClassifierOutputTarget(1)(p[0])]
    assert float(target.value(p)) == pytest.approx(0.8)


# --- Segmentation -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end", [lambda z: z.softmax(1), lambda z: nn.functional.interpolate(z.softmax(1), (16, 20))]
)
def test_a_softmax_per_pixel_is_not_applied_twice(end) -> None:
    body = segmenter(3)
    plain, ended = explain(body), explain(Ends(body, end))
    assert ended.target.index == plain.target.index
    assert ended.probability == pytest.approx(plain.probability, abs=1e-6)
    mask = plain.target.mask

    def score(output):
        return ((output[:, plain.target.index] - output.mean(1)) * mask).flatten(1).sum(1)

    assert_maps_equal(ended, explain(body, FunctionTarget(score)))


@pytest.mark.parametrize("classes", [1, 3])
def test_a_sigmoid_per_pixel_is_not_applied_twice(classes) -> None:
    body = segmenter(classes)
    plain = explain(body, outputs="sigmoid")
    ended = explain(Ends(body, lambda z: {"out": torch.sigmoid(z)}))
    assert isinstance(ended.target, Segmentation)
    assert ended.target.index == plain.target.index
    assert ended.probability == pytest.approx(plain.probability, abs=1e-6)
    assert torch.equal(ended.target.mask, plain.target.mask)
    assert_maps_equal(ended, plain)


def test_cam_of_a_network_with_a_softmax_is_that_of_the_logit_less_the_mean() -> None:
    body = classifier()
    ended = camanim.animate(nn.Sequential(body, nn.Softmax(1)), GREY, target=2, method="CAM")
    plain = [
        camanim.animate(body, GREY, target=k, method="CAM", layers=["3"]).maps[0] for k in range(4)
    ]
    np.testing.assert_allclose(ended.maps[-1], plain[2] - np.mean(plain, 0), atol=1e-5)
