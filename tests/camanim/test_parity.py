"""Maps of all layers of whole networks, compared with grad-cam 1.5.7 or brute force.

grad-cam stores the activation itself rather than a copy: on the CPU an in-place ReLU, or ``+=``,
overwrites it before it is used. Here ``reshape_transform`` is used to clone it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import get_model

import camanim
from camanim.layer_info import Status
from camanim.stack import Stack, upsample

reference = pytest.importorskip("pytorch_grad_cam")

SIZE = 64
TARGET = 3
NETWORKS = ("resnet18", "mobilenet_v2", "squeezenet1_1", "densenet121")
#: Methods, and the names of grad-cam's classes.
METHODS = {
    "GradCAM": "GradCAM",
    "HiResCAM": "HiResCAM",
    "GradCAMElementWise": "GradCAMElementWise",
    "GradCAM++": "GradCAMPlusPlus",
    "XGradCAM": "XGradCAM",
    "LayerCAM": "LayerCAM",
    "EigenCAM": "EigenCAM",
    "EigenGradCAM": "EigenGradCAM",
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    """Return a network of torchvision with random weights, scaled for the comparison.

    grad-cam adds 1e-7 to the maximum of a map before dividing by it. The activations of an untrained
    MobileNetV2 decay to 1e-9, so that this constant would dominate. Therefore batch normalisations use
    the statistics of a batch, and the logits are scaled up. Float64 avoids differences due to rounding
    of ``sum A`` in XGradCAM and of close singular values in EigenCAM.
    """
    torch.manual_seed(0)
    net = get_model(request.param, weights=None).double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    net.train()(torch.rand(4, 3, SIZE, SIZE, dtype=torch.float64))
    last = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    last.weight.data.mul_(1e6)
    return net.eval()


@pytest.fixture(scope="module", autouse=True)
def _one_thread_for_numpy():
    """Limit OpenBLAS to one thread, because threads slow down these small problems."""
    with pytest.importorskip("threadpoolctl").threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).random((SIZE, SIZE, 3)).astype(np.float32)


def grad_cam_maps(
    net: nn.Module, method: str, animation: camanim.Animation, monkeypatch: pytest.MonkeyPatch
) -> list[np.ndarray]:
    """Return grad-cam's maps of the same layer calls, scaled and upsampled."""
    # grad-cam computes all of V and uses only the first row, which takes 10 s per layer.
    svd = np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda a, full_matrices: svd(a, full_matrices=False))
    out_of_place = copy.deepcopy(net)
    for module in out_of_place.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    modules = dict(out_of_place.named_modules())
    targets = list(dict.fromkeys(layer.name for layer in animation.layers))
    cam = getattr(reference, METHODS[method])(
        out_of_place, [modules[name] for name in targets], reshape_transform=torch.clone
    )
    # grad-cam numbers maps by execution, and a module that runs twice has two.
    cam.target_layers = [None] * len(animation)
    cam.aggregate_multi_layers = lambda per_layer: per_layer
    maps = cam(animation.tensor.double(), [reference.utils.model_targets.ClassifierOutputTarget(3)])
    return [m[0, 0] for m in maps]


@pytest.mark.parametrize("method", METHODS)
def test_every_layer_as_in_grad_cam(
    network: nn.Module, picture: np.ndarray, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    animation = camanim.animate(network, picture, method=method, target=TARGET, layers="all")
    expected = grad_cam_maps(network, method, animation, monkeypatch)
    signs = (1, -1) if "Eigen" in method else (1,)
    size = animation.tensor.shape[-2:]
    differences = {
        layer.label: min(np.abs(Stack([s * m], size)[0] - other).max() for s in signs)
        for layer, m, other in zip(animation.layers, animation.maps, expected, strict=True)
    }
    assert len(differences) > 60
    assert {label: d for label, d in differences.items() if not d < 1e-4} == {}


def test_a_layer_as_in_the_readme_of_grad_cam(network: nn.Module, picture: np.ndarray) -> None:
    """With the public interface of grad-cam, which scales again after resizing."""
    animation = camanim.animate(network, picture, method="GradCAM", target=TARGET)
    i = max(j for j, layer in enumerate(animation.layers) if layer.kind == "Conv2d")
    net = copy.deepcopy(network)
    with reference.GradCAM(net, [net.get_submodule(animation.layers[i].name)]) as cam:
        expected = cam(
            animation.tensor.double(),
            [reference.utils.model_targets.ClassifierOutputTarget(TARGET)],
        )[0]
    plane = animation.stack()[i]
    plane = (plane - plane.min()) / max(float(plane.max() - plane.min()), 1e-30)
    assert np.abs(plane - expected).max() < 1e-4


# Networks for which grad-cam is not a valid reference.


def brute_force(zoo, net: nn.Module, animation: camanim.Animation):
    return zoo.by_hand(net, animation.tensor, animation.target.index)


def assert_maps_are(
    animation: camanim.Animation,
    expected: dict[tuple[str, int], tuple[np.ndarray, np.ndarray | None]],
    formula: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> None:
    for layer, raw in zip(animation.layers, animation.maps, strict=True):
        values = formula(*expected[layer.name, layer.call])
        np.testing.assert_allclose(
            raw, values, rtol=1e-4, atol=1e-5 * np.abs(values).max(), err_msg=layer.label
        )


@pytest.mark.parametrize("kind", ["Plain", "Residual", "Reused", "Branches"])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_in_place_operations_do_not_change_maps(zoo, image: np.ndarray, kind: str, memory) -> None:
    """Compared with autograd for a network with the same weights and no in-place operations.

    grad-cam differs by up to 0.34: the activation of a batch normalisation is overwritten by its ReLU,
    and that of the last one of a block by the sum with the shortcut.
    """
    net = zoo.shake(getattr(zoo, kind)()).to(memory_format=memory)
    twin = zoo.shake(getattr(zoo, kind)(inplace=False))
    animation = camanim.animate(net, image, method="HiResCAM", target=1)
    expected = brute_force(zoo, twin, animation)
    assert_maps_are(animation, expected, zoo.hirescam_by_hand)
    spatial = {key for key, (a, g) in expected.items() if a[0].size > 1 and g is not None}
    assert {(layer.name, layer.call) for layer in animation.layers} == spatial


def plus_plus(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    total = a.sum((1, 2), keepdims=True)
    alpha = np.where(g != 0, g**2 / (2 * g**2 + total * g**3 + 1e-6), 0)
    return np.einsum("c,chw->hw", (np.maximum(g, 0) * alpha).sum((1, 2)), a)


FORMULAS = {
    "GradCAM": lambda a, g: np.einsum("c,chw->hw", g.mean((1, 2)), a),
    "HiResCAM": lambda a, g: (g * a).sum(0),
    "GradCAMElementWise": lambda a, g: np.maximum(g * a, 0).sum(0),
    "GradCAM++": plus_plus,
    "XGradCAM": lambda a, g: np.einsum(
        "c,chw->hw", (g * a).sum((1, 2)) / (a.sum((1, 2)) + 1e-7), a
    ),
    "LayerCAM": lambda a, g: (np.maximum(g, 0) * a).sum(0),
}


@pytest.mark.parametrize("method", FORMULAS)
def test_formulas_for_small_gradients(zoo, image: np.ndarray, method) -> None:
    """The large logits above hide the 1e-6 of GradCAM++, and scaling hides sign and magnitude."""
    net = zoo.shake(zoo.Residual(inplace=False)).double()
    animation = camanim.animate(net, image, method=method, target=2)
    expected = zoo.by_hand(net, animation.tensor.double(), 2)
    assert_maps_are(animation, expected, FORMULAS[method])


IN_PLACE = {
    "relu_": (lambda y: y.relu_(), lambda y: y.relu()),
    "add_": (lambda y: y.add_(1), lambda y: y + 1),
    "mul_ of itself": (lambda y: y.mul_(y.detach().clone()), lambda y: y * y.detach()),
    "F.hardtanh": (
        lambda y: nn.functional.hardtanh(y, inplace=True),
        lambda y: nn.functional.hardtanh(y),
    ),
    "slice": (lambda y: set_(y, (slice(None), 0), 0), lambda y: y * keep_channels(y)),
    "view": (lambda y: (y.view(1, -1).mul_(2), y)[1], lambda y: y * 2),
    "other axes": (lambda y: (y.permute(0, 2, 3, 1).mul_(2), y)[1], lambda y: y * 2),
    "masked_fill_": (lambda y: y.masked_fill_(y.detach() < 0, 0), lambda y: y.relu()),
    "data": (lambda y: (y.data.mul_(2), y)[1], lambda y: y + y.detach()),
    "new data": (lambda y: new_data(y, y.data * 2), lambda y: y + y.detach()),
    "transposed": (lambda y: y.transpose_(2, 3), lambda y: y.transpose(2, 3)),
    "no_grad": (lambda y: zeroed_without_gradient(y), lambda y: y - y.detach()),
    "foreach": (lambda y: (torch._foreach_mul_([y], 3), y)[1], lambda y: y * 3),
    "twice": (lambda y: y.add_(1).mul_(2).relu_(), lambda y: (2 * (y + 1)).relu()),
}


def set_(y: torch.Tensor, key, value: float) -> torch.Tensor:
    y[key] = value
    return y


def new_data(y: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    y.data = data
    return y


def keep_channels(y: torch.Tensor) -> torch.Tensor:
    keep = torch.ones_like(y)
    keep[:, 0] = 0
    return keep


def zeroed_without_gradient(y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y.zero_()
    return y


@pytest.mark.parametrize("how", IN_PLACE)
@pytest.mark.parametrize("method", ["HiResCAM", "EigenGradCAM"])
def test_activations_are_not_overwritten(zoo, image: np.ndarray, how: str, method: str) -> None:
    """In-place operations through the tensor, a view of it, or without autograd."""
    inplace, outofplace = IN_PLACE[how]
    actual, expected = (
        camanim.animate(
            zoo.shake(zoo.WithOperation(op)), image, method=method, target=0, layers="conv"
        )
        for op in (inplace, outofplace)
    )
    np.testing.assert_allclose(actual.maps[0], expected.maps[0], rtol=1e-4, atol=1e-6)
    assert np.ptp(actual.maps[0]) > 0


@pytest.mark.parametrize("method", ["EigenCAM", "RandomCAM"])
def test_activations_of_gradient_free_methods_are_not_overwritten(
    zoo, image: np.ndarray, method: str
) -> None:
    actual, expected = (
        camanim.animate(zoo.shake(zoo.Residual(inplace=flag)), image, method=method, target=0)
        for flag in (True, False)
    )
    assert [layer.label for layer in actual.layers] == [layer.label for layer in expected.layers]
    for a, b in zip(actual.maps, expected.maps, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_each_call_of_a_reused_module_is_a_layer(zoo, image: np.ndarray) -> None:
    """grad-cam and CAManim have one layer for it, and assign wrong labels to all later layers."""
    net = zoo.shake(zoo.Reused())
    animation = camanim.animate(net, image, method="GradCAM", target=2, layers="relu")
    assert [(layer.name, layer.call) for layer in animation.layers] == [
        ("relu", 0), ("relu", 1), ("relu", 2),
    ]  # fmt: skip
    assert [layer.label for layer in animation.layers] == ["relu", "relu:1", "relu:2"]
    expected = brute_force(zoo, zoo.shake(zoo.Reused(inplace=False)), animation)
    assert_maps_are(animation, expected, lambda a, g: np.einsum("chw,c->hw", a, g.mean((1, 2))))
    assert len({m.shape for m in animation.maps}) == 3


@pytest.mark.parametrize("frozen", ["all", "first half"])
def test_frozen_parameters_change_nothing(zoo, image: np.ndarray, frozen: str) -> None:
    """grad-cam raises an error, because no activation requires a gradient."""
    net = zoo.shake(zoo.Residual())
    free = camanim.animate(net, image, target=1)
    parameters = list(net.parameters())
    for parameter in parameters if frozen == "all" else parameters[: len(parameters) // 2]:
        parameter.requires_grad = False
    bound = camanim.animate(net, image, target=1)
    assert [layer.label for layer in bound.layers] == [layer.label for layer in free.layers]
    for a, b in zip(bound.maps, free.maps, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_branch_off_the_path_is_listed_and_shifts_no_layer(zoo, image: np.ndarray) -> None:
    """grad-cam pairs activations with gradients by order, so that all layers after the branch shift."""
    net = zoo.shake(zoo.Branches())
    animation = camanim.animate(net, image, method="HiResCAM", target=0)
    assert {row["name"]: row["status"] for row in animation.table()}["unused"] == Status.OFF_PATH
    expected = brute_force(zoo, zoo.shake(zoo.Branches(inplace=False)), animation)
    assert_maps_are(animation, expected, zoo.hirescam_by_hand)
    assert [layer.name for layer in animation.layers] == ["stem", "left", "right", "relu"]


def test_gradient_free_methods_have_maps_off_the_path(zoo, image: np.ndarray) -> None:
    animation = camanim.animate(zoo.shake(zoo.Branches()), image, method="EigenCAM", target=0)
    assert "unused" in [layer.name for layer in animation.layers]


def test_without_biases_hirescam_adds_up_to_the_logit(zoo, image: np.ndarray) -> None:
    """Exact for a last convolution before one linear layer (arXiv 2011.08891, section 3)."""
    net = zoo.shake(zoo.Plain())
    net[-1].bias.data.zero_()
    animation = camanim.animate(net, image, method="HiResCAM", target=1, layers="5")
    with torch.no_grad():
        logit = net(animation.tensor)[0, 1].item()
    assert animation.maps[0].sum() == pytest.approx(logit, rel=1e-4)


def test_a_probability_of_one_has_maps_because_the_logit_is_differentiated(
    zoo, image: np.ndarray
) -> None:
    net = zoo.shake(zoo.Plain())
    net[-1].weight.data.mul_(1000)
    animation = camanim.animate(net, image)
    assert animation.probability == 1.0
    assert all(np.abs(m).max() > 0 for m in animation.maps)


def test_random_maps_depend_only_on_the_seed_and_the_layer(zoo, image: np.ndarray) -> None:
    net = zoo.shake(zoo.Plain())

    def maps(seed: int, layers: str) -> dict[str, np.ndarray]:
        animation = camanim.animate(net, image, method="RandomCAM", seed=seed, layers=layers)
        return {layer.label: m for layer, m in zip(animation.layers, animation.maps, strict=True)}

    alone, among = maps(0, "4"), maps(0, "unique")
    np.testing.assert_array_equal(alone["4"], among["4"])
    assert np.abs(maps(1, "4")["4"] - alone["4"]).max() > 0
    # Layers with equal activations have different weights.
    twice = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardtanh(-9, 9), nn.Hardtanh(-9, 9), *zoo.head(4))
    first, second = camanim.animate(twice, image, method="RandomCAM", layers="Hardtanh").maps
    assert np.abs(first - second).max() > 0


def test_eigencam_is_the_first_singular_vector_with_a_positive_maximum(
    zoo, image: np.ndarray
) -> None:
    """Compared with numpy's SVD, for more pixels than channels and for more channels than pixels."""
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(2), nn.Conv2d(5, 30, 1), nn.Flatten(),
        nn.Linear(120, 2),
    )  # fmt: skip
    net = zoo.shake(net)
    animation = camanim.animate(net, image, method="EigenCAM", target=0)
    expected = brute_force(zoo, net, animation)
    assert [m.size for m in animation.maps] == [18 * 22, 4, 4]
    for layer, raw in zip(animation.layers, animation.maps, strict=True):
        pixels = expected[layer.name, layer.call][0].reshape(layer.shape[1], -1).T
        pixels = pixels - pixels.mean(0)
        first = pixels @ np.linalg.svd(pixels.astype(np.float64))[2][0]
        first *= np.sign(first[np.abs(first).argmax()])
        np.testing.assert_allclose(raw.ravel(), first, atol=1e-5 * np.abs(first).max())
        assert raw.max() == np.abs(raw).max()


@pytest.mark.parametrize("method", [*METHODS, "RandomCAM"])
def test_a_layer_that_is_not_finite_is_listed_and_does_not_affect_others(
    zoo, image: np.ndarray, method: str
) -> None:
    """``log(relu(x))`` is minus infinity at some pixels, where ``exp`` is 0."""

    class Log(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.relu() + 0).log()

    class Exp(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.exp()

    net = zoo.shake(nn.Sequential(nn.Conv2d(3, 4, 3), Log(), Exp(), *zoo.head(4)))
    animation = camanim.animate(net, image, method=method, layers=["Log", "Exp"])
    assert [layer.name for layer in animation.layers] == ["2"]
    assert animation.layer_calls[1].status == Status.NOT_FINITE


@pytest.mark.parametrize("wrong", ["GradCam+", "grad", "", "ScoreKAM"])
def test_an_unknown_method_suggests_the_nearest(zoo, image: np.ndarray, wrong: str) -> None:
    with pytest.raises(camanim.MethodError, match="CAM"):
        camanim.animate(zoo.Plain(), image, method=wrong)


@pytest.mark.parametrize("name", METHODS)
def test_names_of_grad_cams_classes_are_accepted(zoo, image: np.ndarray, name: str) -> None:
    animation = camanim.animate(zoo.Plain(), image, method=METHODS[name], layers="0")
    assert animation.method == name


def test_upsampling_is_that_of_opencv() -> None:
    import cv2

    maps = np.random.default_rng(0).random((3, 5, 4)).astype(np.float32)
    large = upsample(maps, (23, 17))
    for plane, raw in zip(large, maps, strict=True):
        np.testing.assert_allclose(plane, cv2.resize(raw, (17, 23)), atol=1e-6)
