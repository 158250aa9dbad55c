"""Methods as functions of arrays, compared with grad-cam, torch-cam, loops and known results."""

from __future__ import annotations

import itertools
import math
from inspect import signature
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import VisionTransformer

import camanim
from camanim.cam_methods import Method, find_method, methods
from camanim.cam_methods.masks import fingerprints, scaled, scores_of_masks
from camanim.cam_methods.meta import (
    Fusion,
    Window,
    patches,
    refine,
    scaled_to,
    sess_weights,
    sess_windows,
)  # fmt: skip
from camanim.cam_methods.perturbation import sscam_noise
from camanim.cam_methods.registry import normalised_name
from camanim.errors import MethodError, NoMap
from camanim.resampling import resize
from camanim.stack import upsample
from camanim.targets import resolve

FLAT, DEEP = (4, 5), (3, 4, 5)
SPACES = pytest.mark.parametrize("space", [FLAT, DEEP], ids=["2-D", "3-D"])


def arrays(space: tuple[int, ...], channels: int = 6, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Return a signed activation and its gradient, float64."""
    generator = np.random.default_rng(seed)
    return tuple(torch.from_numpy(generator.normal(size=(channels, *space))) for _ in range(2))


def grad_cam_instance(name: str):
    """Return an instance of one of grad-cam's classes without a network, for use with arrays."""
    reference = pytest.importorskip("pytorch_grad_cam")
    cam = object.__new__(getattr(reference, name))
    cam.activations_and_grads = SimpleNamespace(release=lambda: None)
    cam.device = torch.device("cpu")
    return cam


def grad_cam_map(name: str, activation, gradient, eigen_smooth: bool = False, **attributes):
    cam = grad_cam_instance(name)
    for key, value in attributes.items():
        setattr(cam, key, value)
    both = [x.numpy()[None] for x in (activation, gradient)]
    return cam.get_cam_image(None, None, None, *both, eigen_smooth)[0]


def part(net: nn.Sequential, start: int, stop: int | None = None) -> nn.Sequential:
    return nn.Sequential(*list(net)[start:stop])


def weigh(name: str, eigen_smooth: bool = False, options=None, **ingredients) -> np.ndarray:
    with torch.no_grad():
        raw = find_method(name).weigh(ingredients, options, eigen_smooth=eigen_smooth)
    return raw.numpy()


def same_up_to_sign(actual: np.ndarray, other: np.ndarray, rtol: float = 1e-5) -> None:
    sign = np.sign((actual * other).sum())
    np.testing.assert_allclose(actual, sign * other, atol=rtol * np.abs(other).max())


# -- Gradients and activations, against grad-cam ---------------------------------------------------

GRAD_CAM = (
    "GradCAM", "HiResCAM", "GradCAMElementWise", "GradCAMPlusPlus", "XGradCAM", "LayerCAM",
)  # fmt: skip


@pytest.mark.parametrize("name", GRAD_CAM)
def test_as_in_grad_cam(name: str) -> None:
    activation, gradient = arrays(FLAT)
    actual = weigh(name, activation=activation, gradient=gradient)
    np.testing.assert_allclose(actual, grad_cam_map(name, activation, gradient), rtol=1e-9)


@pytest.mark.parametrize("name", GRAD_CAM)
@SPACES
def test_eigen_smoothing_as_in_grad_cam(name: str, space: tuple[int, ...]) -> None:
    if len(space) == 3 and name in ("GradCAMPlusPlus", "XGradCAM"):
        pytest.skip("grad-cam fails there")
    activation, gradient = arrays(space)
    actual = weigh(name, True, activation=activation, gradient=gradient)
    same_up_to_sign(actual, grad_cam_map(name, activation, gradient, True))


def by_loops(name: str, a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Return the map by the formulas of the papers, pixel by pixel."""
    result = np.zeros(a.shape[1:])
    pixels = list(itertools.product(*map(range, a.shape[1:])))
    weight = 0.0
    for c in range(len(a)):
        total = sum(a[c][p] for p in pixels)
        if name == "GradCAM":
            weight = sum(g[c][p] for p in pixels) / len(pixels)
        elif name == "XGradCAM":
            weight = sum(g[c][p] * a[c][p] for p in pixels) / (total + 1e-7)
        elif name == "GradCAMPlusPlus":
            weight = 0.0
            for p in pixels:
                alpha = g[c][p] ** 2 / (2 * g[c][p] ** 2 + total * g[c][p] ** 3 + 1e-6)
                weight += max(g[c][p], 0) * alpha
        for p in pixels:
            product = g[c][p] * a[c][p]
            result[p] += {
                "HiResCAM": product,
                "GradCAMElementWise": max(product, 0),
                "LayerCAM": max(g[c][p], 0) * a[c][p],
            }.get(name, weight * a[c][p])
    return result


@pytest.mark.parametrize("name", GRAD_CAM)
@SPACES
def test_as_by_loops(name: str, space: tuple[int, ...]) -> None:
    """grad-cam fails in 3-D for GradCAM++ and XGradCAM."""
    activation, gradient = arrays(space)
    actual = weigh(name, activation=activation, gradient=gradient)
    np.testing.assert_allclose(actual, by_loops(name, activation.numpy(), gradient.numpy()), 1e-9)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("EigenCAM", {}),
        ("EigenGradCAM", {}),
        ("SegEigenCAM", {}),
        ("FEM", {"k": 1}),
        ("FEM", {"k": 2}),
    ],
)
@SPACES
def test_projections_and_fem_as_in_grad_cam(name: str, attributes, space: tuple[int, ...]) -> None:
    activation, gradient = arrays(space)
    options = {key: float(value) for key, value in attributes.items()}
    actual = weigh(name, options=options, activation=activation, gradient=gradient)
    other = grad_cam_map(name, activation, gradient, **attributes)
    assert np.abs(other).max() > 0
    if name in ("SegEigenCAM", "FEM"):
        np.testing.assert_allclose(actual, other, atol=1e-5 * np.abs(other).max())
    else:
        same_up_to_sign(actual, other)


@pytest.mark.parametrize("kernel", ["sigmoid", "rbf", "poly", "cosine", "linear"])
@pytest.mark.parametrize("gamma", [None, 0.7])
@pytest.mark.parametrize("space", [FLAT, (17, 18), DEEP], ids=["few", "many", "3-D"])
def test_kernel_pca_as_in_grad_cam(
    kernel: str, gamma: float | None, space: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the kernel matrix stored in double or single precision, or recomputed in blocks of rows."""
    activation, gradient = arrays(space)
    # Separates the two largest eigenvalues, which are close for noise.
    activation += torch.linspace(-2, 3, math.prod(space)).view(space) ** 2 * torch.randn(
        6, *[1] * len(space)
    )
    other = grad_cam_map("KPCA_CAM", activation, gradient, kernel=kernel, gamma=gamma)
    options = {"kernel": kernel, "gamma": gamma}
    same_up_to_sign(weigh("KPCA_CAM", options=options, activation=activation), other)
    monkeypatch.setattr("camanim.cam_methods.projection.BLOCK", 1000)
    monkeypatch.setattr("camanim.cam_methods.projection.MAX_DOUBLE", 0)
    same_up_to_sign(weigh("KPCA_CAM", options=options, activation=activation), other, 1e-4)
    monkeypatch.setattr("camanim.cam_methods.projection.MAX_SINGLE", 0)
    same_up_to_sign(weigh("KPCA_CAM", options=options, activation=activation), other)


def test_kernel_pca_has_no_map_for_layers_with_too_many_pixels() -> None:
    activation, _ = arrays((5, 5))
    with pytest.raises(NoMap, match="24"):
        weigh("KPCA-CAM", options={"pixels": 24}, activation=activation)
    assert weigh("KPCA-CAM", options={"pixels": 25}, activation=activation).shape == (5, 5)


@pytest.mark.parametrize("name", ["EigenCAM", "KPCA-CAM"])
@pytest.mark.parametrize("side", [4, 20])
def test_a_constant_layer_has_no_component(name: str, side: int) -> None:
    activation = torch.arange(3.0)[:, None, None].expand(3, side, side)
    np.testing.assert_array_equal(weigh(name, activation=activation), np.zeros((side, side)))


@pytest.mark.parametrize("name", ["EigenCAM", "EigenGradCAM", "SegEigenCAM"])
@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_the_largest_magnitude_of_a_component_is_positive(
    name: str, channels: int, h: int, w: int, seed: int
) -> None:
    activation, gradient = arrays((h, w), channels, seed)
    raw = weigh(name, activation=activation, gradient=gradient)
    assert raw.max() >= np.abs(raw).max() * (1 - 1e-9)
    # The variance equals that of numpy's SVD.
    features = {
        "EigenCAM": activation, "EigenGradCAM": gradient * activation,
        "SegEigenCAM": gradient.abs() * activation,
    }[name].flatten(1).numpy()  # fmt: skip
    singular = np.linalg.svd(features - features.mean(1, keepdims=True), compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(raw), singular[0], atol=1e-9)


# -- Invariances -----------------------------------------------------------------------------------

PURE = [
    name
    for name, method in methods().items()
    if set(method.needs) <= {"activation", "gradient", "curvature"} and not method.meta
]


def test_invariances_are_tested_for_most_methods() -> None:
    assert len(PURE) >= 12


@pytest.mark.parametrize("name", PURE)
@SPACES
@given(seed=st.integers(0, 10**6), data=st.data())
@settings(deadline=None, max_examples=15)
def test_maps_are_invariant_to_the_order_of_channels(
    name: str, space: tuple[int, ...], seed: int, data: st.DataObject
) -> None:
    a, g = arrays(space, 5, seed)
    c, _ = arrays(space, 5, seed + 1)
    order = data.draw(st.permutations(range(5)))
    one = weigh(name, activation=a, gradient=g, curvature=c)
    other = weigh(name, activation=a[order], gradient=g[order], curvature=c[order])
    np.testing.assert_allclose(one, other, atol=1e-6 * np.abs(one).max())


#: Exponent with which a map scales with the gradient.
POWERS = {
    "GradCAM": 1, "HiResCAM": 1, "GradCAMElementWise": 1, "XGradCAM": 1, "LayerCAM": 1, "FinerCAM": 1,
    "EigenGradCAM": 1, "SegEigenCAM": 1, "EigenCAM": 0, "FEM": 0, "KPCA-CAM": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", POWERS)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 100))
@settings(deadline=None, max_examples=15)
def test_maps_scale_with_the_gradient(name: str, seed: int, factor: float) -> None:
    a, g = arrays(FLAT, 5, seed)
    one = weigh(name, activation=a, gradient=g)
    other = weigh(name, activation=a, gradient=factor * g)
    np.testing.assert_allclose(other, factor ** POWERS[name] * one, atol=1e-7 * np.abs(other).max())


@pytest.mark.parametrize("name", [n for n in PURE if n != "KPCA-CAM"])
@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=10)
def test_maps_are_equivariant_to_shifts(name: str, seed: int) -> None:
    """For all methods of the activation; SobelCAM depends on the image."""
    a, g = arrays(FLAT, 5, seed)
    shifted = [x.roll((1, 2), (1, 2)) for x in (a, g)]
    one = weigh(name, activation=a, gradient=g, curvature=a * g)
    other = weigh(
        name, activation=shifted[0], gradient=shifted[1], curvature=shifted[0] * shifted[1]
    )
    np.testing.assert_allclose(np.roll(one, (1, 2), (0, 1)), other, atol=1e-7 * np.abs(one).max())


@pytest.mark.parametrize("name", PURE)
def test_ingredients_are_not_modified(name: str) -> None:
    """The activation may be a view of a tensor that the network still uses."""
    whole = torch.randn(2, 4, 5, 6)
    view = whole.permute(0, 3, 1, 2)[0]
    given = {"activation": view, "gradient": -view, "curvature": view * 2}
    before = {key: value.clone() for key, value in given.items()}
    raw = weigh(name, **given)
    assert raw.shape == (4, 5)
    assert raw.dtype == np.float32
    assert all(torch.equal(given[key], before[key]) for key in given)


@pytest.mark.parametrize("name", PURE)
def test_values_that_are_not_finite_propagate_to_the_map(name: str) -> None:
    a, g = arrays(FLAT)
    # Some methods depend only on the gradient.
    used = signature(find_method(name).function).parameters
    (a if "activation" in used else g)[1, 2, 3] = torch.nan
    assert not np.isfinite(weigh(name, activation=a, gradient=g, curvature=a)).all()


# -- CAM, and methods that use the module or the image -----------------------------------------------


def pooled(activation: torch.Tensor) -> SimpleNamespace:
    """Return the last linear layer of a network that pools this activation."""
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(len(activation), generator=generator, dtype=activation.dtype)
    return SimpleNamespace(features=activation.flatten(1).mean(1), gradient=weights)


@SPACES
def test_the_mean_of_cam_is_the_logit_less_its_bias(space: tuple[int, ...]) -> None:
    activation, _ = arrays(space)
    head = pooled(activation)
    raw = weigh("CAM", activation=activation, head=head)
    assert raw.mean() == pytest.approx(float(head.features @ head.gradient))


def test_cam_uses_the_relu_if_the_network_pools_the_relu() -> None:
    activation, _ = arrays(FLAT)
    head = pooled(activation.relu())
    raw = weigh("CAM", activation=activation, head=head)
    np.testing.assert_array_equal(raw, weigh("CAM", activation=activation.relu(), head=head))


def test_cam_as_in_torch_cam(zoo) -> None:
    torchcam = pytest.importorskip("torchcam.methods")
    net = zoo.shake(zoo.Plain(inplace=False))
    with torchcam.CAM(net, "5", "8", input_shape=(3, 16, 16)) as extractor:
        net(torch.rand(1, 3, 16, 16))
        (expected,) = extractor(1, normalized=False)
        activation = extractor.hook_a[0][0]
    head = SimpleNamespace(features=activation.mean((1, 2)), gradient=net[-1].weight[1].detach())
    raw = weigh("CAM", activation=activation, head=head)
    np.testing.assert_allclose(raw, expected[0].numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda head: None, "linear"),
        (lambda head: SimpleNamespace(features=head.features[1:], gradient=None), "pools"),
        (lambda head: SimpleNamespace(features=head.features * 1.01, gradient=None), "pools"),
    ],
    ids=["none", "another size", "another layer"],
)
def test_cam_has_no_map_for_other_layers(change, reason: str) -> None:
    activation, _ = arrays(FLAT)
    with pytest.raises(NoMap, match=reason):
        weigh("CAM", activation=activation, head=change(pooled(activation)))


@pytest.mark.parametrize("eigen_smooth", [False, True])
def test_fullgrad_as_in_grad_cam(eigen_smooth: bool) -> None:
    """grad-cam rescales each channel and sums over the network; therefore products are compared."""
    reference = pytest.importorskip("pytorch_grad_cam")
    image_utils = pytest.importorskip("pytorch_grad_cam.utils.image")
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2)
    ).eval()
    for tensor in net.state_dict().values():
        tensor.data.copy_(torch.rand(tensor.shape) + 0.5)
    x = torch.rand(1, 3, 6, 6)
    of_input = np.abs(input_gradient(net, x) * x.numpy())
    cam = reference.FullGrad(net, [])
    target = reference.utils.model_targets.ClassifierOutputTarget(1)
    leaf = x.clone().requires_grad_()
    cam.aggregate_multi_layers = lambda maps: maps
    whole = cam(leaf, [target])
    fullgrad = find_method("FullGrad")
    rescaled = image_utils.scale_accross_batch_and_channels
    total = rescaled(of_input, (6, 6)).sum(1)
    for module, gradient in zip(net[:2], cam.activations_and_grads.gradients, strict=True):
        products = fullgrad.function(gradient=gradient[0], module=module)
        expected = np.abs(cam.get_bias_data(module).numpy()[:, None, None] * gradient[0].numpy())
        np.testing.assert_allclose(products, expected, rtol=1e-5)
        total += rescaled(products.numpy()[None], (6, 6)).sum(1)
        raw = weigh(
            "FullGrad", eigen_smooth, activation=gradient[0], gradient=gradient[0], module=module
        )
        assert raw.shape == (6, 6)
        if not eigen_smooth:
            np.testing.assert_allclose(raw, expected.sum(0), rtol=1e-5)
    np.testing.assert_allclose(total, whole[:, 0], rtol=1e-4)


def input_gradient(net: nn.Module, x: torch.Tensor) -> np.ndarray:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(net(leaf)[0, 1], leaf)[0].numpy()


@pytest.mark.parametrize("dims", [2, 3])
def test_input_and_biases_add_up_to_the_score(dims: int) -> None:
    """Proposition 1 of the paper, for convolution, batch normalisation, ReLU and a linear layer."""
    torch.manual_seed(dims)
    conv, norm = [(nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d)][dims - 2]
    net = nn.Sequential(
        conv(2, 4, 3), norm(4), nn.ReLU(), conv(4, 3, 1), nn.Flatten(), nn.Linear(3 * 2**dims, 2)
    )
    for tensor in net.state_dict().values():
        tensor.data.copy_(
            torch.rand(tensor.shape) - 0.3 if tensor.ndim != 1 else torch.rand(tensor.shape)
        )
    net = net.double().eval()
    x = torch.rand(1, 2, *[4] * dims, dtype=torch.float64, requires_grad=True)
    outputs = [x]
    for module in net:
        outputs.append(module(outputs[-1]))
    score = outputs[-1][0, 0]
    gradients = torch.autograd.grad(score, outputs[:-1])
    total = float((gradients[0] * x).detach().sum() + net[-1].bias[0].detach())
    fullgrad = find_method("FullGrad").function
    for module, gradient in zip(net, gradients[1:], strict=False):
        try:
            products = fullgrad(gradient=gradient[0], module=module)
        except NoMap:
            assert isinstance(module, nn.ReLU | nn.Flatten)
            continue
        # The map is unsigned; the sum requires the signed products.
        bias = fullgrad.__globals__["_bias"](module)
        assert torch.equal(products, (gradient[0] * bias.view(-1, *[1] * dims)).abs())
        total += float((gradient[0] * bias.view(-1, *[1] * dims)).detach().sum())
    assert total == pytest.approx(float(score))


@pytest.mark.parametrize(
    "module", [nn.ReLU(), nn.Conv2d(3, 6, 1, bias=False), nn.Conv2d(3, 5, 1), nn.Sequential()]
)
def test_fullgrad_needs_a_bias_for_each_channel(module: nn.Module) -> None:
    activation, gradient = arrays(FLAT)
    with pytest.raises(NoMap, match="bias"):
        weigh("FullGrad", activation=activation, gradient=gradient, module=module)


def test_fem_of_constant_channels_as_in_grad_cam() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=200).astype(np.float32))
    activation = values[:, None, None].expand(200, 7, 9).contiguous()
    # In single precision, the means of some channels are below their values.
    assert (activation > activation.mean((1, 2), keepdim=True)).any()
    expected = grad_cam_map("FEM", activation.double(), activation.double(), k=2)
    np.testing.assert_array_equal(weigh("FEM", activation=activation), expected)
    activation[0, 3, 4] += 1
    expected = grad_cam_map("FEM", activation.double(), activation.double(), k=2)
    assert expected.any()
    np.testing.assert_allclose(weigh("FEM", activation=activation), expected, rtol=1e-6)


def test_shapleycam_as_in_grad_cam() -> None:
    """The Hessian times the activation by autograd, as in grad-cam, for a nonlinear score."""
    activation, _ = arrays(FLAT)
    leaf = activation[None].clone().requires_grad_()
    score = (leaf**3).mean() + (leaf.exp() * leaf.flip(1)).sum()
    (gradient,) = torch.autograd.grad(score, leaf, create_graph=True)
    cam = grad_cam_instance("ShapleyCAM")
    cam.activations_and_grads.reshape_transform = None
    (curvature,) = torch.autograd.grad(gradient, leaf, leaf, retain_graph=True)
    other = cam.get_cam_image(None, None, None, leaf, gradient, False)[0]
    actual = weigh(
        "ShapleyCAM", activation=activation, gradient=gradient[0].detach(), curvature=curvature[0]
    )
    np.testing.assert_allclose(actual, other, rtol=1e-9)
    flat = weigh("GradCAM", activation=activation, gradient=gradient[0].detach())
    assert np.abs(actual - flat).max() > 0.01 * np.abs(flat).max()


@SPACES
def test_without_curvature_shapleycam_is_gradcam(space: tuple[int, ...]) -> None:
    """The caveat of ShapleyCAM."""
    a, g = arrays(space)
    actual = weigh("ShapleyCAM", activation=a, gradient=g, curvature=torch.zeros_like(a))
    np.testing.assert_allclose(actual, weigh("GradCAM", activation=a, gradient=g))


class Curved(nn.Module):
    """A network whose logits are a nonlinear function of its layer."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = [nn.Conv2d, nn.Conv3d][dims - 2](3, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x).flatten(2).tanh().pow(2).mean(2))


def means(
    method: Method, passes: list[tuple[torch.Tensor, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Return the averages that the engine computes."""
    return {
        name: torch.stack([f(a[None], g[None])[0] for a, g in passes]).mean(0)
        for name, f in method.averages.items()
    }


@pytest.mark.parametrize("dims", [2, 3])
def test_smooth_gradcam_plus_plus_as_in_torch_cam(dims: int) -> None:
    """Without noise, the last noisy copy in torch-cam is the image, and both implementations agree."""
    torchcam = pytest.importorskip("torchcam.methods")
    net = Curved(dims).eval()
    x = torch.rand(1, 3, *[6] * dims)
    with torchcam.SmoothGradCAMpp(net, "layer", 3, 0.3, tuple(x.shape[1:])) as extractor:
        # torch's normal distribution does not accept the width 0.
        extractor._distrib = SimpleNamespace(sample=torch.zeros)
        net(x)
        (expected,) = extractor(1, normalized=False)
        a, g = extractor.hook_a[0][0].detach(), extractor.hook_g[0][0]
    method = find_method("SmoothGradCAMpp")
    raw = weigh("SmoothGradCAM++", activation=a, gradient=g, **means(method, [(a, g)] * 3))
    assert raw.max() > 0
    np.testing.assert_allclose(np.maximum(raw, 0), expected[0].numpy(), rtol=1e-4, atol=1e-9)


@SPACES
def test_smooth_gradcam_plus_plus_by_loops(space: tuple[int, ...]) -> None:
    passes = [arrays(space, 3, seed) for seed in range(4)]
    activation = passes[0][0]
    raw = weigh(
        "SmoothGrad++", activation=activation, **means(find_method("SmoothGradCAM++"), passes)
    )
    expected = np.zeros(space)
    for c in range(3):
        g = np.stack([gradient[c].numpy() for _, gradient in passes])
        total = ((g**3).mean(0) * activation[c].numpy()).sum()
        alpha = (g**2).mean(0) / (2 * (g**2).mean(0) + total + 1e-8)
        weight = (alpha * np.maximum(g.mean(0), 0)).sum()
        expected += weight * activation[c].numpy()
    np.testing.assert_allclose(raw, expected, rtol=1e-9)


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_finercam_as_in_grad_cam(zoo, alpha: float) -> None:
    finer_cam = pytest.importorskip("pytorch_grad_cam").FinerCAM
    net = zoo.shake(zoo.Plain(inplace=False))
    x = torch.rand(1, 3, 16, 20)
    with finer_cam(net, [net[4]]) as cam:
        expected = cam(x, alpha=alpha, comparison_categories=[1, 2])[0]
    method = find_method("FinerCAM")
    options = method.checked({"alpha": alpha, "comparisons": 2})
    activation = part(net, 0, 5)(x).detach().requires_grad_()
    output = part(net, 5)(activation)
    target = method.target(resolve(None, output, None, "auto"), output, **options)
    (gradient,) = torch.autograd.grad(target.score(output).sum(), activation)
    raw = weigh(
        "FinerCAM", options=options, activation=activation[0].detach(), gradient=gradient[0]
    )
    np.testing.assert_allclose(scaled_to(scaled_to(raw, (16, 20)), (16, 20)), expected, atol=1e-3)
    assert np.ptp(expected) > 0.5


# -- Baselines -------------------------------------------------------------------------------------


def test_random_weights_are_determined_by_the_seed() -> None:
    a, b = arrays(FLAT)
    seeded = lambda seed: torch.Generator().manual_seed(seed)
    one = find_method("RandomCAM").function(a, seeded(1))
    assert torch.equal(one, find_method("RandomCAM").function(b, seeded(1)))
    assert not torch.equal(one, find_method("RandomCAM").function(a, seeded(2)))
    many = find_method("RandomCAM").function(torch.zeros(20000, 1, 1), seeded(0))
    assert many.min() == pytest.approx(-1, abs=1e-3)
    assert many.max() == pytest.approx(1, abs=1e-3)
    assert float(many.mean()) == pytest.approx(0, abs=0.02)


def test_sobelcam_as_in_grad_cam() -> None:
    """grad-cam rounds to 8 bits three times, and clips derivatives at 255."""
    sobel_cam = pytest.importorskip("pytorch_grad_cam.sobel_cam").sobel_cam
    ramp = np.add.outer(np.arange(12) ** 2 / 4, 3 * np.arange(15)) + 8
    picture = np.stack([ramp, ramp[::-1], 90 - ramp / 2], 2).clip(0, 255).astype(np.uint8)
    image = torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float64))
    actual = weigh("SobelCAM", activation=torch.zeros(4, 12, 15, dtype=torch.float64), image=image)
    other = sobel_cam(picture).astype(float)
    assert other.max() < 255
    assert np.ptp(other) > 20
    # The tolerance covers rounding of the grey image: four pixels by 0.5 each, per axis.
    np.testing.assert_allclose(actual, other, atol=4)
    assert np.abs(actual - other).mean() < 1


@given(st.integers(2, 6), st.integers(2, 6), st.integers(2, 6), st.integers(0, 2))
@settings(deadline=None, max_examples=20)
def test_sobelcam_of_a_ramp_in_three_dimensions(d: int, h: int, w: int, axis: int) -> None:
    """The kernel returns 2 x 4 x 4 for a slope of 1, a third of it on average, and 0 at the border."""
    size = (d, h, w)
    ramp = torch.arange(size[axis]).double().view([-1 if i == axis else 1 for i in range(3)])
    actual = weigh(
        "SobelCAM", activation=torch.zeros(1, *size).double(), image=ramp.expand(1, *size)
    )
    inside = [slice(1, -1) if i == axis else slice(None) for i in range(3)]
    np.testing.assert_allclose(actual[tuple(inside)], 32 / 3)
    np.testing.assert_allclose(np.take(actual, 0, axis), 0)


def test_sobelcam_has_the_layers_size() -> None:
    image = torch.rand(1, 20, 30)
    small = weigh("SobelCAM", activation=torch.zeros(7, 4, 5), image=image)
    large = weigh("SobelCAM", activation=torch.zeros(2, 20, 30), image=image)
    np.testing.assert_allclose(small, large.reshape(4, 5, 5, 6).mean((1, 3)), rtol=1e-5)


# -- Re-evaluation ---------------------------------------------------------------------------------


class LinearNetwork:
    """A linear function of its input, evaluated in batches of three."""

    def __init__(self, weights: torch.Tensor, batch: int = 3) -> None:
        self.weights, self.batch, self.count = weights, batch, 0
        self.inputs: list[torch.Tensor] = []

    def score(self, inputs: torch.Tensor) -> torch.Tensor:
        return (inputs * self.weights).flatten(1).sum(1)

    def __call__(self, count: int, make) -> torch.Tensor:
        self.count += count
        parts = []
        for start in range(0, count, self.batch):
            stop = min(start + self.batch, count)
            inputs = make(start, stop)
            assert inputs.shape == (stop - start, *self.weights.shape)
            assert inputs.dtype == self.weights.dtype
            # Batches can be recomputed with another size when memory runs out.
            assert torch.equal(inputs, make(start, stop))
            assert torch.equal(inputs[:1], make(start, start + 1))
            self.inputs.append(inputs)
            parts.append(self.score(inputs).double())
        return torch.cat(parts)


@pytest.fixture(params=[(FLAT, (9, 11)), (DEEP, (6, 8, 10))], ids=["2-D", "3-D"])
def scene(request: pytest.FixtureRequest) -> SimpleNamespace:
    """Return an activation, an image and a network."""
    space, size = request.param
    activation, _ = arrays(space, 5)
    image = torch.rand(2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.randn(
        image.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return SimpleNamespace(
        activation=activation, image=image, predict=LinearNetwork(weights / 9), memory={}
    )


def score(name: str, scene: SimpleNamespace, **options) -> np.ndarray:
    ingredients = vars(scene) | {"generator": torch.Generator().manual_seed(5)}
    needed = {key: ingredients[key] for key in find_method(name).needs}
    return weigh(name, options=options, **needed)


def mixed(scene: SimpleNamespace, scores: list[float]) -> np.ndarray:
    """Return the map of channels weighted by the softmax of their scores."""
    shares = np.exp(np.array(scores) - max(scores))
    return np.einsum("c,c...->...", shares / shares.sum(), scene.activation.numpy())


def mask_by_loop(scene: SimpleNamespace, c: int) -> torch.Tensor:
    size = scene.image.shape[1:]
    mode = "bilinear" if len(size) == 2 else "trilinear"
    large = nn.functional.interpolate(scene.activation[c][None, None], size, mode=mode)[0, 0]
    return (large - large.min()) / (large.max() - large.min() + 1e-8)


def test_scorecam_by_a_loop(scene: SimpleNamespace) -> None:
    scores = [
        float(scene.predict.score((scene.image * mask_by_loop(scene, c))[None])) for c in range(5)
    ]
    np.testing.assert_allclose(score("ScoreCAM", scene), mixed(scene, scores), rtol=1e-9)
    assert scene.predict.count == 5


def test_scorecam_as_in_grad_cam(zoo) -> None:
    net = zoo.shake(zoo.Plain(inplace=False))
    x = torch.rand(1, 3, 16, 20)
    with torch.no_grad():
        activation = part(net, 0, 6)(x)[0]
    cam = grad_cam_instance("ScoreCAM")
    cam.model = net
    target = pytest.importorskip("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget(1)
    expected = cam.get_cam_weights(x, net[5], [target], activation[None].numpy(), None)[0]
    predict = lambda count, make: net(make(0, count))[:, 1].double()
    with torch.no_grad():
        actual = find_method("ScoreCAM").function(activation, x[0], predict, {}, align_corners=True)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
    assert np.ptp(expected) > 1e-3


def test_equal_masks_are_scored_once(scene: SimpleNamespace) -> None:
    """Dead channels, a positive multiple of a channel, and a batch normalisation after the layer."""
    a = scene.activation
    a[1], a[2], a[4] = 0, 7, 3 * a[0] - 5
    first = score("ScoreCAM", scene)
    assert scene.predict.count == 3
    scores = [
        float(scene.predict.score((scene.image * mask_by_loop(scene, c))[None])) for c in range(5)
    ]
    np.testing.assert_allclose(first, mixed(scene, scores), rtol=1e-6)
    gains = torch.tensor([2.0, 1, 1, 0.5, 3], dtype=a.dtype).view(-1, *[1] * (a.ndim - 1))
    scene.activation = a * gains + 4
    after = score("ScoreCAM", scene)
    assert scene.predict.count == 3
    np.testing.assert_allclose(after, mixed(scene, scores), rtol=1e-6)
    scene.activation = -a
    score("ScoreCAM", scene)
    assert scene.predict.count == 5, (
        "the negative of a mask is another mask; the empty one is known"
    )
    scene.memory = {}
    score("ScoreCAM", scene)
    assert scene.predict.count == 8


def test_rounding_in_a_batch_normalisation_does_not_add_masks() -> None:
    torch.manual_seed(0)
    conv = torch.randn(1, 64, 28, 28)
    norm = nn.BatchNorm2d(64).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.data.uniform_(0.2, 2)
    norm.weight.data[:10].neg_()
    counts = []

    def evaluate(new):
        counts.append(len(new))
        return np.arange(len(new), dtype=float)

    memory = {}
    with torch.no_grad():
        for layer in (conv[0], norm(conv)[0]):
            scores_of_masks(fingerprints(layer), memory, ("key",), evaluate)
    assert counts == [64, 10]


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=12),
    st.lists(st.integers(0, 4), min_size=1, max_size=12),
)
@settings(deadline=None, max_examples=50)
def test_equal_masks_have_equal_scores(one: list[int], two: list[int]) -> None:
    shapes = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    memory, evaluated = {}, []
    for layer in (one, two):

        def evaluate(new, layer=layer):
            evaluated.extend(layer[i] for i in new)
            return np.array([float(layer[i]) for i in new])

        gains = torch.linspace(0.1, 30, len(layer)).double()[:, None, None]
        scores = scores_of_masks(fingerprints(shapes[layer] * gains - 2), memory, (), evaluate)
        np.testing.assert_array_equal(scores, layer)
    assert sorted(evaluated) == sorted(set(one + two))


@pytest.mark.parametrize("name", ["ScoreCAM", "SS-CAM", "IS-CAM"])
def test_only_the_channels_that_vary_most_are_scored(name: str, scene: SimpleNamespace) -> None:
    a = scene.activation
    a[0] = 1000
    a[3] *= 10
    a[1] *= 5
    raw = score(name, scene, channels=2)
    samples = find_method(name).checked({}).get("samples", 1)
    assert scene.predict.count == 2 * samples
    # Two positive weights that sum to 1.
    flat = a.flatten(1).T.numpy()
    weights = np.linalg.lstsq(flat, raw.ravel(), rcond=None)[0]
    assert weights[[1, 3]].sum() == pytest.approx(1)
    np.testing.assert_allclose(weights[[0, 2, 4]], 0, atol=1e-9)
    everything = score(name, scene, channels=50)
    np.testing.assert_array_equal(everything, score(name, scene))


@pytest.mark.parametrize("name", ["ScoreCAM", "SS-CAM", "IS-CAM"])
def test_a_layer_that_is_not_finite_is_not_evaluated(name: str, scene: SimpleNamespace) -> None:
    scene.activation[2, 1] = torch.inf
    assert not np.isfinite(score(name, scene)).all()
    assert scene.predict.count == 0


def test_iscam_by_a_loop(scene: SimpleNamespace) -> None:
    """The score of a linear network scales with brightness, by (1 + 3 + 6 + 10) / 4 / 4 on average."""
    masks = resize(scaled(scene.activation), scene.image.shape[1:])
    scores = [2.5 / 2 * float(scene.predict.score((scene.image * mask)[None])) for mask in masks]
    np.testing.assert_allclose(score("IS-CAM", scene, samples=4), mixed(scene, scores), rtol=1e-9)


def test_sscam_by_a_loop(scene: SimpleNamespace) -> None:
    masks = resize(scaled(scene.activation), scene.image.shape[1:])
    generator = torch.Generator().manual_seed(5)
    scores = []
    for c, mask in enumerate(masks):
        noisy = [
            mask + 0.5 * sscam_noise(generator, sample * 5 + c, tuple(mask.shape)).double()
            for sample in range(4)
        ]
        scores.append(np.mean([float(scene.predict.score((scene.image * m)[None])) for m in noisy]))
    raw = score("SSCAM", scene, samples=4, std=0.5)
    np.testing.assert_allclose(raw, mixed(scene, scores), rtol=1e-6)


def test_noise_has_unit_variance_and_differs_between_items() -> None:
    generator = torch.Generator().manual_seed(0)
    fields = torch.stack([sscam_noise(generator, item, (20, 20)) for item in range(50)])
    assert float(fields.std()) == pytest.approx(1, abs=0.02)
    assert float(torch.corrcoef(fields.flatten(1)).triu(1).abs().max()) < 0.25


@pytest.mark.parametrize("name", ["SSCAM", "ISCAM", "ScoreCAM"])
@pytest.mark.parametrize("dims", [2, 3])
def test_masked_images_as_in_torch_cam(name: str, dims: int) -> None:
    """With the same noise. ScoreCAM of torch-cam scales masks before resizing: as IS-CAM in one step."""
    torchcam = pytest.importorskip("torchcam.methods")
    net = Curved(dims).eval()
    net.head.weight.data.mul_(30)
    net.layer.weight.data.mul_(4)
    x = torch.rand(1, 3, *[8] * dims)
    seed = torch.Generator().manual_seed(2)
    items = itertools.count()

    def sample(size: torch.Size) -> torch.Tensor:
        return (
            0.7
            * torch.stack([sscam_noise(seed, next(items), size[2:]) for _ in range(size[1])])[None]
        )

    more = {"SSCAM": {"num_samples": 3, "std": 0.7}, "ISCAM": {"num_samples": 3}}.get(name, {})
    with getattr(torchcam, name)(net, "layer", input_shape=tuple(x.shape[1:]), **more) as extractor:
        extractor._distrib = SimpleNamespace(sample=sample)
        net(x)
        expected = extractor._get_weights(1)[0][0]
        activation = extractor.hook_a[0][0]
    ingredients = {
        "activation": activation, "image": x[0], "generator": seed, "memory": {},
        "predict": lambda count, make: net(make(0, count))[:, 1].double(),
    }  # fmt: skip
    method = find_method("ISCAM" if name == "ScoreCAM" else name)
    options = {
        "SSCAM": {"samples": 3, "std": 0.7},
        "ISCAM": {"samples": 3},
        "ScoreCAM": {"samples": 1},
    }
    with torch.no_grad():
        actual = method.function(**{k: ingredients[k] for k in method.needs}, **options[name])
    np.testing.assert_allclose(actual, expected, rtol=1e-3)
    assert float(expected.max() - expected.min()) > 0.01


@SPACES
@pytest.mark.parametrize("offset", [50.0, -50.0])
def test_ablation_of_a_linear_network_is_the_contribution_of_each_channel(
    space: tuple[int, ...], offset: float
) -> None:
    """s = b + sum_c <w_c, A_c> drops by <w_c, A_c> without channel c, for either sign of s."""
    activation, weights = arrays(space)
    activation[2] = 0
    rerun = LinearNetwork(weights)
    rerun_score = rerun.score
    rerun.score = lambda inputs: offset + rerun_score(inputs)
    whole = float(rerun.score(activation[None]))
    assert np.sign(whole) == np.sign(offset)
    raw = weigh("AblationCAM", activation=activation, rerun=rerun, score=whole)
    shares = (weights * activation).flatten(1).sum(1).numpy() / abs(whole)
    np.testing.assert_allclose(raw, np.einsum("c,c...->...", shares, activation.numpy()), rtol=1e-9)
    assert rerun.count == 5, "channels that are zero are not evaluated"
    for inputs in rerun.inputs:
        assert all(int((one == 0).flatten(1).all(1).sum()) == 2 for one in inputs)


def test_ablation_as_in_grad_cam(zoo) -> None:
    """After a ReLU, where grad-cam also sets channels to zero, and for a positive score."""
    reference = pytest.importorskip("pytorch_grad_cam")
    net = zoo.shake(zoo.Plain(inplace=False))
    x = torch.rand(1, 3, 16, 20)
    with torch.no_grad():
        activation = part(net, 0, 6)(x)[0]
        output = net(x)[0]
    index = int(output.argmax())
    whole = float(output[index])
    assert whole > 0
    assert float(activation.min()) == 0
    cam = reference.AblationCAM(net, [])
    target = reference.utils.model_targets.ClassifierOutputTarget(index)
    expected = cam.get_cam_weights(x, net[5], [target], activation[None].numpy(), None)[0]
    rerun = lambda count, make: part(net, 6)(make(0, count))[:, index].double()
    with torch.no_grad():
        actual = find_method("AblationCAM").function(activation, rerun, whole)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.01


def test_only_the_strongest_channels_are_ablated() -> None:
    activation, weights = arrays(FLAT)
    activation[4] *= 9
    activation[1] *= 5
    rerun = LinearNetwork(weights)
    given = {"activation": activation, "rerun": rerun, "score": 2.0}
    actual = find_method("AblationCAM").function(*given.values(), channels=2)
    assert rerun.count == 2
    assert torch.equal(actual != 0, torch.tensor([False, True, False, False, True, False]))


def test_redundant_channels_appear_unimportant() -> None:
    """The caveat of AblationCAM: the score is the maximum of two equal channels."""
    activation = torch.ones(2, 3, 3).double()
    rerun = lambda count, make: make(0, count).amax((1, 2, 3))
    raw = weigh("AblationCAM", activation=activation, rerun=rerun, score=1.0)
    np.testing.assert_array_equal(raw, np.zeros((3, 3)))


def test_a_score_of_zero_gives_a_finite_map() -> None:
    activation, weights = arrays(FLAT)
    raw = weigh("AblationCAM", activation=activation, rerun=LinearNetwork(weights), score=0.0)
    assert np.isfinite(raw).all()


# -- RefineCAM and SESS ----------------------------------------------------------------------------


def test_refinecam_as_in_grad_cam(zoo) -> None:
    reference = pytest.importorskip("pytorch_grad_cam")
    refine_cam = pytest.importorskip("pytorch_grad_cam.refine_cam").RefineCAM
    net = zoo.shake(zoo.Plain(inplace=False))
    x = torch.rand(1, 3, 16, 24)
    target = reference.utils.model_targets.ClassifierOutputTarget(1)
    layers = [net[0], net[2], net[4]]
    expected = refine_cam(net, layers)(x, [target])[0]
    outputs = [x]
    for module in net:
        outputs.append(module(outputs[-1]))
    chosen = [outputs[1], outputs[3], outputs[5]]
    gradients = torch.autograd.grad(outputs[-1][0, 1], chosen)
    maps = [
        weigh("GradCAM++", activation=a[0].detach(), gradient=g[0])
        for a, g in zip(chosen, gradients, strict=True)
    ]
    refined = list(refine(maps, (16, 24)))
    assert len(refined) == 3
    first = refined[-1]
    assert first.max() > 0
    np.testing.assert_allclose(
        (first - first.min()) / (first.max() - first.min()), expected, atol=1e-3
    )


@given(st.integers(1, 5), st.integers(0, 99), st.sampled_from([(9, 7), (4, 5, 6)]))
@settings(deadline=None, max_examples=30)
def test_each_refined_map_is_at_most_that_of_the_next_layer(
    count: int, seed: int, size: tuple[int, ...]
) -> None:
    generator = np.random.default_rng(seed)
    maps = [
        generator.normal(size=generator.integers(1, 9, len(size))).astype(np.float32)
        for _ in range(count)
    ]
    refined = list(refine(maps, size))
    assert [m.shape for m in refined] == [size] * count
    for later, earlier in itertools.pairwise(refined):
        assert (earlier <= later + 1e-6).all()
    assert min(m.min() for m in refined) >= 0
    assert max(m.max() for m in refined) <= 1


def test_zeros_of_a_map_propagate_to_all_earlier_layers() -> None:
    """The caveat of RefineCAM."""
    bright, dark = np.eye(4, dtype=np.float32), -np.ones((4, 4), np.float32)
    last, middle, first = refine([bright, dark, bright], (4, 4))
    np.testing.assert_array_equal(last, bright)
    assert middle.max() == first.max() == 0


def test_refinecam_of_a_transformer_leaves_out_the_block_behind_its_class_token() -> None:
    # Of every second seed, the first map has no positive value.
    torch.manual_seed(11)
    net = VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5)
    nn.init.normal_(net.heads.head.weight)
    image = np.random.default_rng(0).random((32, 32, 3))
    blocks = [f"encoder.layers.encoder_layer_{i}" for i in range(3)]
    whole = camanim.animate(net, image, target=1, method="RefineCAM", layers=blocks)
    without = camanim.animate(net, image, target=1, method="RefineCAM", layers=blocks[:2])
    first, second, last = whole.maps
    assert first.max() > 0
    np.testing.assert_array_equal(first, without.maps[0])
    np.testing.assert_array_equal(second, without.maps[1])
    assert last.max() == 0
    assert blocks[2] in " ".join(whole.notes)
    assert not without.notes


@pytest.mark.parametrize(
    "wrap", [lambda z: {"logits": z}, lambda z: (z, z.mean()), lambda z: {"a": 1, "out": z}]
)
def test_cam_of_a_network_that_returns_several_outputs(wrap) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(3, 4, 3)
            self.head, self.other = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, image):
            pooled = self.features(image).mean((2, 3))
            output = wrap(self.head(pooled))
            self.other(pooled)
            return output

    net = Wrapped()
    image = np.random.default_rng(0).random((9, 8, 3)).astype(np.float32)
    animation = camanim.animate(net, image, target=1, method="CAM")
    with torch.no_grad():
        activation = net.features(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
        expected = torch.einsum("c,chw->hw", net.head.weight[1], activation)
    np.testing.assert_allclose(animation.maps[0], expected, atol=1e-6)


SESS = {"num_scales": 3, "scale_step_ratio": 0.4, "window_size": 10, "step_size": 6}


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("smooth", [True, False])
def test_sess_as_in_grad_cam(zoo, pool: str, smooth: bool) -> None:
    reference = pytest.importorskip("pytorch_grad_cam")
    net = zoo.shake(zoo.Plain(inplace=False))
    x = torch.rand(1, 3, 13, 18)
    target = reference.utils.model_targets.ClassifierOutputTarget(1)
    cam = reference.SESS(
        net, [net[4]], pool=pool, smooth=smooth, pre_filter_ratio=0.3, theta=0.05, **SESS
    )
    expected = cam(x, [target])[0]

    windows = sess_windows((13, 18), scales=3, growth=0.4, window=10, step=6)
    crops = list(patches(x[0], windows))
    with torch.no_grad():
        scores = net(torch.stack(crops)).softmax(1)[:, 1].numpy()
    chosen, weights = sess_weights(scores, 0.3)
    maps = []
    for i in chosen:
        activation = part(net, 0, 5)(crops[i][None]).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(part(net, 5)(activation)[0, 1], activation)
        maps.append(weigh("GradCAM", activation=activation[0].detach(), gradient=gradient[0]))
    fusion = Fusion((13, 18), pool, 0.05)
    for i, raw, weight in zip(chosen, maps, weights, strict=True):
        fusion.add(raw, windows[i], weight)
    combined = fusion.result(smooth=smooth)
    assert combined.max() > 0
    combined = (combined - combined.min()) / (combined.max() - combined.min())
    np.testing.assert_allclose(combined, expected, atol=2e-3)


def test_windows_equal_those_of_grad_cam() -> None:
    sess = pytest.importorskip("pytorch_grad_cam.sess")
    for size in [(13, 18), (18, 13), (10, 10), (31, 10)]:
        cam = object.__new__(sess.SESS)
        cam.scales, cam.num_scales, cam.scale_step_ratio = None, 4, 2 / 7
        side = min(size)
        _, coordinates = cam.collect_patches(torch.zeros(1, 1, *size), side, 7)
        actual = [
            (w.start[1], w.start[0], w.scale[1], w.scale[0])
            for w in sess_windows(size, scales=4, step=7)
        ]
        assert actual == coordinates


@given(
    st.lists(st.integers(3, 12), min_size=2, max_size=3),
    st.integers(1, 3),
    st.integers(2, 3),
    st.integers(1, 4),
)
@settings(deadline=None, max_examples=40)
def test_windows_cover_every_scale(size: list[int], scales: int, window: int, step: int) -> None:
    windows = sess_windows(
        tuple(size), scales=scales, growth=0.5, window=window, step=min(step, window)
    )
    covered = {w.scale: np.zeros(w.scale, bool) for w in windows}
    for w in windows:
        covered[w.scale][w.slices] = True
        assert all(0 <= at <= n - window for at, n in zip(w.start, w.scale, strict=True))
    assert len(covered) == scales
    assert all(c.all() for c in covered.values())


@pytest.mark.parametrize("size", [(12, 16), (6, 7, 8)])
def test_the_map_of_a_window_is_placed_at_the_window(size: tuple[int, ...]) -> None:
    window = Window(size, (1, 2, 3)[: len(size)], 4)
    fusion = Fusion(size)
    spot = np.zeros((4,) * len(size), np.float32)
    spot[(2,) * len(size)] = 5
    fusion.add(spot, window, 0.5)
    raw = fusion.result(smooth=False)
    at = np.unravel_index(raw.argmax(), size)
    assert at == tuple(start + 2 for start in window.start)
    assert raw.max() == 0.5
    assert (raw > 0).sum() == 1


def test_patches_of_volumes_are_crops_at_the_windows() -> None:
    volume = torch.rand(1, 6, 7, 8)
    windows = sess_windows((6, 7, 8), scales=2, growth=1.0, window=6)
    for window, patch in zip(windows, patches(volume, windows), strict=True):
        large = upsample(volume[0].numpy(), window.scale)
        np.testing.assert_allclose(patch[0], large[window.slices], atol=1e-6)


def test_windows_weights() -> None:
    assert sess_weights(np.array([0.2, 0.8, -1.0, 0.4]), 0.25) == ([0, 1, 3], [0.25, 1.0, 0.5])
    assert sess_weights(np.array([-2.0, -1.0])) == ([0, 1], [1.0, 1.0])


# -- The registry ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Grad-CAM++", "GradCAM++"), ("GradCAMPlusPlus", "GradCAM++"), ("gradcam++", "GradCAM++"),
        ("GradCAMpp", "GradCAM++"), ("Grad-CAM", "GradCAM"), ("KPCA_CAM", "KPCA-CAM"),
        ("kpca cam", "KPCA-CAM"), ("Score-CAM", "ScoreCAM"), ("SSCAM", "SS-CAM"), ("IS-CAM", "IS-CAM"),
        ("Smooth Grad-CAM++", "SmoothGradCAM++"), ("SmoothGradCAMpp", "SmoothGradCAM++"),
        ("Seg-Eigen-CAM", "SegEigenCAM"), ("fem", "FEM"), ("Finer-CAM", "FinerCAM"), ("cam", "CAM"),
        ("RefineCAM", "RefineCAM"), ("SESS", "SESS"), ("sobel_cam", "SobelCAM"),
        ("GuidedGradCAMPlusPlus", "Guided Grad-CAM++"),
    ],
)  # fmt: skip
def test_methods_are_found_by_all_spellings(spelling: str, name: str) -> None:
    assert find_method(spelling).name == name


def test_no_two_methods_share_a_name() -> None:
    names = [{normalised_name(n) for n in (m.name, *m.aliases)} for m in methods().values()]
    assert len(set.union(*names)) == sum(map(len, names))


def test_every_class_that_grad_cam_exports_is_found_by_name() -> None:
    reference = pytest.importorskip("pytorch_grad_cam")
    base = reference.base_cam.BaseCAM
    exported = [
        k for k, v in vars(reference).items() if isinstance(v, type) and issubclass(v, base)
    ]
    assert len(exported) > 14
    for name in [*exported, "FinerCAM", "RefineCAM", "SESS"]:
        assert normalised_name(find_method(name).name) == normalised_name(name).replace(
            "pp", "plusplus"
        )
    assert find_method(reference.EigenCAM) is find_method("EigenCAM")


@pytest.mark.parametrize("method", methods().values(), ids=methods())
def test_the_metadata_of_each_method_are_complete(method: Method) -> None:
    for text in (method.summary, method.caveat):
        assert text.endswith(".")
        assert "\n" not in text
    assert method.paper
    assert "forward" in method.cost or "network" in method.cost or "base" in method.cost
    assert "activation" in method.needs
    assert not set(method.needs) & set(method.options)
    for name, option in method.options.items():
        assert option.name == name
        assert option.help.endswith(".")
        assert option.checked(option.default, MethodError) == option.default
        assert option.kind is not None
    assert method.checked({}) == {k: o.default for k, o in method.options.items()}


def test_properties_of_methods() -> None:
    def names(condition) -> set[str]:
        return {name for name, method in methods().items() if condition(method)}

    reevaluating = {"ScoreCAM", "SS-CAM", "IS-CAM", "AblationCAM"}
    not_class_specific = {"EigenCAM", "KPCA-CAM", "FEM", "RandomCAM", "SobelCAM"}
    assert reevaluating <= names(lambda m: m.needs_reevaluation)
    assert not_class_specific <= names(lambda m: not m.class_specific)
    without_gradient = names(lambda m: not m.needs_gradient and not m.meta)
    assert reevaluating | not_class_specific <= without_gradient
    assert not {"GradCAM", "LayerCAM", "CAM"} & without_gradient
    guided = {"Guided backpropagation", "Guided Grad-CAM", "Guided Grad-CAM++"}
    assert guided <= names(lambda m: m.guided)
    assert {"RefineCAM", "SESS"} <= names(lambda m: m.meta)
    assert {"EigenCAM", "KPCA-CAM", "SobelCAM"} <= names(lambda m: not m.smoothable)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("ScoreCAM", {"batch": 3}, "'batch'.*channels, align_corners"),
        ("GradCAM", {"k": 3}, "'k'"),
        ("ScoreCAM", {"channels": 0}, "channels"),
        ("ScoreCAM", {"channels": 2.5}, "channels"),
        ("ScoreCAM", {"channels": True}, "channels"),
        ("ScoreCAM", {"channels": "3"}, "channels"),
        ("ScoreCAM", {"align_corners": 1}, "align_corners"),
        ("KPCA-CAM", {"kernel": "round"}, "sigmoid.*rbf"),
        ("SS-CAM", {"std": -1}, "std"),
        ("SS-CAM", {"std": float("nan")}, "std"),
        ("FEM", {"k": None}, "k"),
        ("RefineCAM", {"base": 3}, "base"),
    ],
)  # fmt: skip
def test_invalid_options_raise(name: str, options, named: str) -> None:
    with pytest.raises(MethodError, match=named):
        find_method(name).checked(options)


def test_options_can_be_numpy_scalars() -> None:
    score = find_method("ScoreCAM")
    assert score.checked({"channels": np.int64(3)})["channels"] == 3
    assert isinstance(find_method("FEM").checked({"k": 3})["k"], float)


@pytest.mark.parametrize("name", ["EigenCAM", "SegEigenCAM", "KPCA-CAM", "SobelCAM"])
def test_eigen_smoothing_does_not_apply_to_methods_that_return_a_map(name: str) -> None:
    activation, gradient = arrays(FLAT)
    for call in (
        lambda: find_method(name).check_smoothable(),
        lambda: weigh(name, True, activation=activation, gradient=gradient, image=activation[:3]),
    ):
        with pytest.raises(MethodError, match=name):
            call()


@pytest.mark.parametrize("name", ["RefineCAM", "SESS"])
def test_combined_methods_have_no_map_of_a_single_layer(name: str) -> None:
    with pytest.raises(MethodError, match=name):
        weigh(name, activation=torch.zeros(2, 3, 3))


def mine(activation: torch.Tensor, gradient: torch.Tensor, *, power: float = 2.0) -> torch.Tensor:
    """Weigh by a power of the gradient.

    Parameters
    ----------
    activation, gradient : torch.Tensor
        (C, *s)
    power : float
        Exponent of the gradient. Even exponents drop the sign.
    """
    return gradient**power * activation


def test_a_function_is_a_method() -> None:
    method = find_method(mine)
    assert (method.name, method.needs) == ("mine", ("activation", "gradient"))
    assert method.summary == "Weigh by a power of the gradient."
    assert method.options["power"].help == "Exponent of the gradient."
    assert method.needs_gradient
    assert find_method(method) is method
    a, g = arrays(FLAT)
    given = {"activation": a, "gradient": g}
    np.testing.assert_allclose(method.weigh(given, {"power": 3}), (g**3 * a).sum(0))


@pytest.mark.parametrize(
    "function",
    [
        lambda activation: activation.flatten(1).mean(1),
        lambda activation: activation.mean((1, 2))[:, None, None] * activation,
        lambda activation: np.einsum(
            "c,chw->hw", activation.numpy().mean((1, 2)), activation.numpy()
        ),
    ],
    ids=["weights", "products", "numpy map"],
)
def test_a_function_can_return_weights_products_or_a_map(function) -> None:
    a, _ = arrays(FLAT)
    expected = np.einsum("c,chw->hw", a.mean((1, 2)), a)
    np.testing.assert_allclose(find_method(function).weigh({"activation": a}), expected)


@pytest.mark.parametrize(
    ("function", "reruns"),
    [
        (lambda activation: None, False),
        (lambda activation, image, module: None, False),
        (lambda gradient, score, net, target: None, False),
        (lambda activation, score: None, True),
        (lambda activation, net: None, True),
        (lambda activation, predict: None, True),
        (lambda rerun, memory: None, True),
    ],
)
def test_ingredients_available_after_a_pass_require_re_evaluation(function, reruns: bool) -> None:
    method = find_method(function)
    assert method.needs_reevaluation is reruns
    assert ("for each layer" in method.cost) is reruns


def test_a_result_of_another_shape_raises() -> None:
    a, _ = arrays(FLAT)
    with pytest.raises(MethodError, match=r"\(6, 4\)"):
        find_method(lambda activation: activation.mean(2)).weigh({"activation": a})
    with pytest.raises(MethodError, match="smoothing"):
        find_method(lambda activation: activation.mean(0)).weigh(
            {"activation": a}, eigen_smooth=True
        )


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda activation, gradients: None, "'gradients'"),
        (lambda *everything: None, "variable"),
        (lambda activation, /: None, "activation"),
        (lambda activation, gradient, predict: None, "gradient and predict"),
    ],
)
def test_invalid_parameters_of_a_function_raise(function, named: str) -> None:
    with pytest.raises(MethodError, match=named):
        find_method(function)


@pytest.mark.parametrize(
    "wrong", [3, None, dict, "no.such.module:Class", "os:nothing", "os; exit():x"]
)
def test_invalid_methods_raise(wrong) -> None:
    with pytest.raises(MethodError):
        find_method(wrong)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(MethodError, match=r"ScoreKAM.*ScoreCAM"):
        find_method("ScoreKAM")


# -- Caveats ---------------------------------------------------------------------------------------


def test_gradcam_highlights_regions_without_contribution_and_hirescam_does_not() -> None:
    """The gradient of the channel is positive only at a pixel where it is not active."""
    activation, gradient = torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)
    activation[0, 0, 0] = 1
    gradient[0, 1, 1] = 4
    assert weigh("GradCAM", activation=activation, gradient=gradient)[0, 0] > 0
    assert weigh("HiResCAM", activation=activation, gradient=gradient).max() == 0


@pytest.mark.parametrize("name", ["GradCAM++", "LayerCAM", "GradCAMElementWise"])
def test_evidence_against_the_class_is_dropped(name: str) -> None:
    activation = torch.rand(3, 4, 4)
    raw = weigh(name, activation=activation, gradient=-torch.rand(3, 4, 4))
    np.testing.assert_array_equal(raw, 0)


def test_segeigencam_is_the_same_for_and_against() -> None:
    a, g = arrays(FLAT)
    one, other = (weigh("SegEigenCAM", activation=a, gradient=sign * g) for sign in (1, -1))
    np.testing.assert_array_equal(one, other)


def test_eigencam_can_highlight_the_background() -> None:
    """For a small dark object on a bright background the largest magnitude is in the background."""
    ground = torch.ones(2, 5, 5).double()
    ground[:, 2, 2] = 0
    assert weigh("EigenCAM", activation=ground)[2, 2] > 0


def test_xgradcam_can_divide_by_almost_zero() -> None:
    a, g = arrays(FLAT)
    a -= a.mean((1, 2), keepdim=True) - 1e-6
    large = np.abs(weigh("XGradCAM", activation=a, gradient=g)).max()
    assert large > 1e3 * np.abs(weigh("HiResCAM", activation=a, gradient=g)).max()
