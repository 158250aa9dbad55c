"""The maps against grad-cam 1.5.7, layer by layer over whole networks; and by brute force where it errs.

grad-cam keeps the activation that its hook saw, not a copy: on the CPU a ReLU in place, or ``+=``,
overwrites it before it is used. Its own ``reshape_transform`` lets us clone it there.
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
# Ours by the papers' names, theirs by their classes'.
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
    """A network of torchvision's with random weights, made fair to compare.

    grad-cam adds 1e-7 to a map's maximum before it divides by it. Untrained, MobileNetV2's
    activations decay to 1e-9 and that number is all one sees; so batch normalisation gets its
    statistics from a batch, and the logits are made large. In float64, or what is compared is the
    rounding of ``sum A`` in XGradCAM and of close singular values in EigenCAM.
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
    """OpenBLAS's threads cost more than they bring, many times so on a busy machine."""
    with pytest.importorskip("threadpoolctl").threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).random((SIZE, SIZE, 3)).astype(np.float32)


def their_maps(
    net: nn.Module, method: str, animation: camanim.Animation, monkeypatch: pytest.MonkeyPatch
) -> list[np.ndarray]:
    """Let grad-cam make the same layers' maps, min-maxed and upsampled, one per call of a module."""
    # Its SVD asks for all of V, of which it takes the first row: 10 s a layer for the same row.
    svd = np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda a, full_matrices: svd(a, full_matrices=False))
    copied = copy.deepcopy(net)
    for module in copied.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    modules = dict(copied.named_modules())
    targets = list(dict.fromkeys(layer.name for layer in animation.layers))
    cam = getattr(reference, METHODS[method])(
        copied, [modules[name] for name in targets], reshape_transform=torch.clone
    )
    # It numbers maps by execution, and a module that runs twice has two: ask for as many.
    cam.target_layers = [None] * len(animation)
    cam.aggregate_multi_layers = lambda per_layer: per_layer
    maps = cam(animation.tensor.double(), [reference.utils.model_targets.ClassifierOutputTarget(3)])
    return [m[0, 0] for m in maps]


@pytest.mark.parametrize("method", METHODS)
def test_every_layer_as_in_grad_cam(
    network: nn.Module, picture: np.ndarray, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    animation = camanim.animate(network, picture, method=method, target=TARGET, layers="all")
    theirs = their_maps(network, method, animation, monkeypatch)
    signs = (1, -1) if "Eigen" in method else (1,)
    size = animation.tensor.shape[-2:]
    apart = {
        layer.label: min(np.abs(Stack([s * m], size)[0] - their).max() for s in signs)
        for layer, m, their in zip(animation.layers, animation.maps, theirs, strict=True)
    }
    assert len(apart) > 60
    assert {label: d for label, d in apart.items() if not d < 1e-4} == {}


def test_a_whole_layer_as_grad_cam_users_see_it(network: nn.Module, picture: np.ndarray) -> None:
    """The object as it is called in its README, which min-maxes again after the resize."""
    animation = camanim.animate(network, picture, method="GradCAM", target=TARGET)
    i = max(j for j, layer in enumerate(animation.layers) if layer.kind == "Conv2d")
    net = copy.deepcopy(network)
    with reference.GradCAM(net, [net.get_submodule(animation.layers[i].name)]) as cam:
        theirs = cam(
            animation.tensor.double(),
            [reference.utils.model_targets.ClassifierOutputTarget(TARGET)],
        )[0]
    ours = animation.stack()[i]
    ours = (ours - ours.min()) / max(float(ours.max() - ours.min()), 1e-30)
    assert np.abs(ours - theirs).max() < 1e-4


# From here on, grad-cam is no reference.


def brute_force(zoo, net: nn.Module, animation: camanim.Animation):
    return zoo.by_hand(net, animation.tensor, animation.target.index)


def assert_maps_are(
    animation: camanim.Animation,
    expected: dict[tuple[str, int], tuple[np.ndarray, np.ndarray | None]],
    formula: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> None:
    for layer, raw in zip(animation.layers, animation.maps, strict=True):
        want = formula(*expected[layer.name, layer.call])
        np.testing.assert_allclose(
            raw, want, rtol=1e-4, atol=1e-5 * np.abs(want).max(), err_msg=layer.label
        )


@pytest.mark.parametrize("kind", ["Plain", "Residual", "Reused", "Branches"])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_in_place_writing_is_undone(zoo, image: np.ndarray, kind: str, memory) -> None:
    """The twin with the same weights writes nothing in place, so autograd's word is right there.

    grad-cam is wrong here by up to 0.34: the activation of a batch normalisation is its ReLU's
    before it is used, and that of a block's last one the sum with the shortcut.
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
def test_the_formula_at_gradients_as_small_as_they_are(zoo, image: np.ndarray, method) -> None:
    """The large logits above hide the 1e-6 of GradCAM++; and the raw map keeps its sign and size."""
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
def test_an_activation_survives_what_is_done_to_it(
    zoo, image: np.ndarray, how: str, method: str
) -> None:
    """Ways of writing in place, through the tensor itself, a view of it, or behind autograd's back."""
    inplace, outofplace = IN_PLACE[how]
    ours, twin = (
        camanim.animate(zoo.shake(zoo.Then(op)), image, method=method, target=0, layers="conv")
        for op in (inplace, outofplace)
    )
    np.testing.assert_allclose(ours.maps[0], twin.maps[0], rtol=1e-4, atol=1e-6)
    assert np.ptp(ours.maps[0]) > 0


@pytest.mark.parametrize("method", ["EigenCAM", "RandomCAM"])
def test_gradient_free_maps_too_are_of_what_the_layer_gave(
    zoo, image: np.ndarray, method: str
) -> None:
    ours, twin = (
        camanim.animate(zoo.shake(zoo.Residual(inplace=flag)), image, method=method, target=0)
        for flag in (True, False)
    )
    assert [layer.label for layer in ours.layers] == [layer.label for layer in twin.layers]
    for a, b in zip(ours.maps, twin.maps, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_reused_module_is_as_many_layers_as_it_has_calls(zoo, image: np.ndarray) -> None:
    """grad-cam (and CAManim) show one layer for it, and label all that follow wrongly."""
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
    """grad-cam raises: nothing it hooks requires a gradient."""
    net = zoo.shake(zoo.Residual())
    free = camanim.animate(net, image, target=1)
    parameters = list(net.parameters())
    for parameter in parameters if frozen == "all" else parameters[: len(parameters) // 2]:
        parameter.requires_grad = False
    bound = camanim.animate(net, image, target=1)
    assert [layer.label for layer in bound.layers] == [layer.label for layer in free.layers]
    for a, b in zip(bound.maps, free.maps, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_branch_off_the_path_is_listed_and_shifts_nothing(zoo, image: np.ndarray) -> None:
    """grad-cam pairs activations with gradients by their order, so all after such a branch shift."""
    net = zoo.shake(zoo.Branches())
    animation = camanim.animate(net, image, method="HiResCAM", target=0)
    assert {row["name"]: row["status"] for row in animation.table()}["unused"] == Status.OFF_PATH
    expected = brute_force(zoo, zoo.shake(zoo.Branches(inplace=False)), animation)
    assert_maps_are(animation, expected, zoo.hirescam_by_hand)
    assert [layer.name for layer in animation.layers] == ["stem", "left", "right", "relu"]


def test_gradient_free_methods_show_the_branch_off_the_path(zoo, image: np.ndarray) -> None:
    animation = camanim.animate(zoo.shake(zoo.Branches()), image, method="EigenCAM", target=0)
    assert "unused" in [layer.name for layer in animation.layers]


def test_without_biases_hirescam_adds_up_to_the_logit(zoo, image: np.ndarray) -> None:
    """For a last convolution before one linear layer (arXiv 2011.08891, section 3): exact."""
    net = zoo.shake(zoo.Plain())
    net[-1].bias.data.zero_()
    animation = camanim.animate(net, image, method="HiResCAM", target=1, layers="5")
    with torch.no_grad():
        logit = net(animation.tensor)[0, 1].item()
    assert animation.maps[0].sum() == pytest.approx(logit, rel=1e-4)


def test_the_gradient_is_of_the_logit_so_a_sure_network_has_maps_too(
    zoo, image: np.ndarray
) -> None:
    net = zoo.shake(zoo.Plain())
    net[-1].weight.data.mul_(1000)
    animation = camanim.animate(net, image)
    assert animation.probability == 1.0
    assert all(np.abs(m).max() > 0 for m in animation.maps)


def test_random_maps_depend_on_the_seed_and_the_layer_alone(zoo, image: np.ndarray) -> None:
    net = zoo.shake(zoo.Plain())

    def maps(seed: int, layers: str) -> dict[str, np.ndarray]:
        animation = camanim.animate(net, image, method="RandomCAM", seed=seed, layers=layers)
        return {layer.label: m for layer, m in zip(animation.layers, animation.maps, strict=True)}

    alone, among = maps(0, "4"), maps(0, "unique")
    np.testing.assert_array_equal(alone["4"], among["4"])
    assert np.abs(maps(1, "4")["4"] - alone["4"]).max() > 0
    # Two layers that give the same have weights of their own all the same.
    twice = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardtanh(-9, 9), nn.Hardtanh(-9, 9), *zoo.head(4))
    first, second = camanim.animate(twice, image, method="RandomCAM", layers="Hardtanh").maps
    assert np.abs(first - second).max() > 0


def test_the_eigen_map_is_the_first_singular_vector_with_its_largest_value_up(
    zoo, image: np.ndarray
) -> None:
    """Against numpy's SVD, for more pixels than channels and for more channels than pixels."""
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(2), nn.Conv2d(5, 30, 1), nn.Flatten(),
        nn.Linear(120, 2),
    )  # fmt: skip
    net = zoo.shake(net)
    animation = camanim.animate(net, image, method="EigenCAM", target=0)
    expected = brute_force(zoo, net, animation)
    assert [m.size for m in animation.maps] == [18 * 22, 4, 4]
    for layer, ours in zip(animation.layers, animation.maps, strict=True):
        pixels = expected[layer.name, layer.call][0].reshape(layer.shape[1], -1).T
        pixels = pixels - pixels.mean(0)
        first = pixels @ np.linalg.svd(pixels.astype(np.float64))[2][0]
        first *= np.sign(first[np.abs(first).argmax()])
        np.testing.assert_allclose(ours.ravel(), first, atol=1e-5 * np.abs(first).max())
        assert ours.max() == np.abs(ours).max()


@pytest.mark.parametrize("method", [*METHODS, "RandomCAM"])
def test_a_layer_that_is_not_finite_is_listed_and_costs_no_other(
    zoo, image: np.ndarray, method: str
) -> None:
    """``log(relu(x))`` is minus infinity here and there, and ``exp`` makes it 0 again."""

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
def test_an_unknown_method_is_refused_with_the_nearest(zoo, image: np.ndarray, wrong: str) -> None:
    with pytest.raises(camanim.MethodError, match=r"Did you mean .*CAM"):
        camanim.animate(zoo.Plain(), image, method=wrong)


@pytest.mark.parametrize("ours", METHODS)
def test_grad_cams_own_names_are_understood(zoo, image: np.ndarray, ours: str) -> None:
    theirs = METHODS[ours]
    assert camanim.animate(zoo.Plain(), image, method=theirs, layers="0").method == ours


def test_upsampling_is_that_of_opencv() -> None:
    import cv2

    maps = np.random.default_rng(0).random((3, 5, 4)).astype(np.float32)
    large = upsample(maps, (23, 17))
    for ours, raw in zip(large, maps, strict=True):
        np.testing.assert_allclose(ours, cv2.resize(raw, (17, 23)), atol=1e-6)
