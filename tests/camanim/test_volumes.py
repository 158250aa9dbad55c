"""Volumes in 3-D networks, and slice by slice in 2-D networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn
from torch.nn import functional

import camanim
from camanim import ImageError, MethodError, ScoreError
from camanim.road.imputation import weights
from camanim.stack import Stack

CLASSES = 3
TARGET = 1


class Volume(nn.Sequential):
    """A 3-D network: a normalised convolution, pooling, another convolution, one linear layer."""

    def __init__(self, *, inplace: bool = True) -> None:
        super().__init__(
            nn.Conv3d(1, 4, 3, padding=1),
            nn.BatchNorm3d(4),
            nn.ReLU(inplace=inplace),
            nn.MaxPool3d(2),
            nn.Conv3d(4, 5, 3, padding=1),
            nn.Sigmoid(),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(5, CLASSES),
        )


class Flat(nn.Sequential):
    """A 2-D network of one channel."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 5, 3, padding=1),
            nn.Sigmoid(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, CLASSES),
        )


@pytest.fixture
def volume() -> np.ndarray:
    """Return a volume with three different lengths, so that no axes can be confused."""
    return np.random.default_rng(0).random((6, 8, 10)).astype(np.float32)


@pytest.fixture
def net(zoo) -> nn.Module:
    return zoo.shake(Volume())


@pytest.fixture
def flat(zoo) -> nn.Module:
    return zoo.shake(Flat())


def by_name(animation: camanim.Animation) -> dict[str, np.ndarray]:
    return {a.label: m for a, m in zip(animation.layers, animation.maps, strict=True)}


# --- 3-D networks ----------------------------------------------------------------------------


def by_autograd(zoo, tensor: torch.Tensor) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return activation and gradient of each layer with space, (C, d, h, w)."""
    net = zoo.shake(Volume(inplace=False))
    outputs, x = {}, tensor.clone().requires_grad_()
    for i, module in enumerate(net):
        x = module(x)
        if x.ndim == 5 and x[0, 0].numel() > 1:
            outputs[str(i)] = x
    gradients = torch.autograd.grad(x[0, TARGET], list(outputs.values()))
    return {
        name: (a.detach()[0].numpy(), g[0].numpy())
        for (name, a), g in zip(outputs.items(), gradients, strict=True)
    }


def loops(function):
    """Return a function that weights and sums channels one by one."""

    def weighted_sum(a: np.ndarray, g: np.ndarray) -> np.ndarray:
        a, g = a.astype(np.float64), g.astype(np.float64)
        return sum(function(a[c], g[c]) * a[c] for c in range(len(a)))

    return weighted_sum


def plus_plus(a: np.ndarray, g: np.ndarray) -> float:
    alpha = g**2 / (2 * g**2 + a.sum() * g**3 + 1e-6)
    return float((alpha * np.maximum(g, 0)).sum())


REFERENCE = {
    "GradCAM": loops(lambda a, g: g.mean()),
    "HiResCAM": loops(lambda a, g: g),
    "GradCAM++": loops(plus_plus),
    "XGradCAM": loops(lambda a, g: (g * a).sum() / (a.sum() + 1e-7)),
    "LayerCAM": loops(lambda a, g: np.maximum(g, 0)),
    "GradCAMElementWise": lambda a, g: np.maximum(g * a, 0).sum(0),
    "EigenCAM": lambda a, g: component(a),
    "EigenGradCAM": lambda a, g: component(a * g),
    "SegEigenCAM": lambda a, g: component(a * np.abs(g)),
}


def component(products: np.ndarray) -> np.ndarray:
    """Return the first principal component by a full SVD, with a positive largest magnitude."""
    flat = products.reshape(len(products), -1).astype(np.float64).T
    centred = flat - flat.mean(0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    projected = (centred @ direction).reshape(products.shape[1:])
    return projected * np.sign(projected.flat[np.abs(projected).argmax()])


@pytest.mark.parametrize("method", REFERENCE)
def test_maps_of_a_3d_network_against_brute_force(zoo, net, volume, method) -> None:
    before = zoo.state_of(net)
    animation = camanim.animate(net, volume, method=method, target=TARGET)
    assert zoo.state_of(net) == before
    expected = by_autograd(zoo, animation.tensor)
    assert by_name(animation).keys() == expected.keys()
    for name, raw in by_name(animation).items():
        reference = REFERENCE[method](*expected[name])
        tolerance = 1e-3 * np.abs(reference).max()
        np.testing.assert_allclose(raw, reference, atol=tolerance, err_msg=name)


def replaced(net: nn.Module, tensor: torch.Tensor, name: str, value: torch.Tensor) -> float:
    handle = net.get_submodule(name).register_forward_hook(lambda *call: value[None].clone())
    with torch.no_grad():
        score = float(net(tensor.clone())[0, TARGET])
    handle.remove()
    return score


def test_ablation_in_3d_against_brute_force(zoo, net, volume) -> None:
    animation = camanim.animate(net, volume, method="AblationCAM", target=TARGET, batch_size=3)
    with torch.no_grad():
        first = float(net(animation.tensor)[0, TARGET])
    for name, (activation, _) in by_autograd(zoo, animation.tensor).items():
        expected = np.zeros(activation.shape[1:])
        for c in range(len(activation)):
            off = torch.from_numpy(activation.copy())
            off[c] = 0
            drop = (first - replaced(net, animation.tensor, name, off)) / abs(first)
            expected += drop * activation[c]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            by_name(animation)[name], expected, atol=1e-4 * scale + 1e-6, err_msg=name
        )


def test_scorecam_in_3d_against_brute_force(zoo, net, volume) -> None:
    animation = camanim.animate(net, volume, method="ScoreCAM", target=TARGET, batch_size=3)
    for name, (activation, _) in by_autograd(zoo, animation.tensor).items():
        scores = []
        for channel in torch.from_numpy(activation):
            mask = functional.interpolate(channel[None, None], volume.shape, mode="trilinear")
            mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-8)
            with torch.no_grad():
                scores.append(net(animation.tensor * mask)[0, TARGET])
        expected = np.einsum("c,cdhw->dhw", torch.stack(scores).softmax(0), activation)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            by_name(animation)[name], expected, atol=1e-3 * scale, err_msg=name
        )


def test_cam_in_3d_adds_up_to_the_logit(net, volume) -> None:
    animation = camanim.animate(net, volume, method="CAM", target=TARGET)
    assert by_name(animation).keys() == {"5"}
    with torch.no_grad():
        logit = float(net(animation.tensor)[0, TARGET] - net[8].bias[TARGET])
    assert animation.maps[0].mean() == pytest.approx(logit, rel=1e-4)


def test_full_gradients_add_up_to_the_logit_in_3d(zoo, volume) -> None:
    """The logit is the sum of the input times its gradient and of each bias times its gradient."""
    net = zoo.shake(
        nn.Sequential(
            nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 3, 3),
            nn.AdaptiveAvgPool3d(1), nn.Flatten(),
        )
    )  # fmt: skip
    animation = camanim.animate(net, volume, method="FullGrad", target=TARGET)
    assert {"0", "1", "3"} == by_name(animation).keys()
    tensor = animation.tensor
    with torch.no_grad():
        logit = float(net(tensor)[0, TARGET])
    outputs = {}
    for name in ("0", "1", "3"):
        net.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: outputs.__setitem__(name, output)
        )
    score = net(tensor.clone().requires_grad_())[0, TARGET]
    gradients = dict(zip(outputs, torch.autograd.grad(score, list(outputs.values())), strict=True))
    norm = net[1]
    biases = {
        "0": net[0].bias,
        "1": norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt(),
        "3": net[3].bias,
    }
    total = float((animation.input_gradient * tensor).sum())
    for name, bias in biases.items():
        signed = (gradients[name][0] * bias.detach().view(-1, 1, 1, 1)).numpy()
        total += signed.sum()
        np.testing.assert_allclose(
            by_name(animation)[name], np.abs(signed).sum(0), rtol=1e-4, atol=1e-6
        )
    assert total == pytest.approx(logit, rel=1e-3)


SLOW = {"SESS": {"scales": 2, "window": 6}, "SS-CAM": {"samples": 2}, "IS-CAM": {"samples": 2}}


@pytest.mark.parametrize("method", camanim.methods())
def test_every_method_has_maps_of_a_volume(zoo, net, volume, method) -> None:
    before = zoo.state_of(net)
    animation = camanim.animate(
        net, volume, method=method, target=TARGET, options=SLOW.get(method, {})
    )
    assert zoo.state_of(net) == before
    assert animation.stack().shape == (len(animation), 6, 8, 10)
    input_size = animation.tensor.shape[2:]
    has_input_size = method in ("SESS", "RefineCAM", "Guided Grad-CAM", "Guided Grad-CAM++")
    for layer, raw in zip(animation.layers, animation.maps, strict=True):
        assert np.isfinite(raw).all()
        assert raw.ndim == 3
        assert raw.shape == (input_size if has_input_size else layer.shape[2:]), layer.label
    statuses = {layer.status for layer in animation.layer_calls}
    assert all(statuses)


@pytest.mark.parametrize("method", ["GradCAM", "EigenCAM", "AblationCAM"])
def test_stripes_of_a_volume_have_three_axes(net, volume, method) -> None:
    animation = camanim.animate(net, volume, method=method, target=TARGET, show_1d=True)
    shapes = {
        layer.label: raw.shape for layer, raw in zip(animation.layers, animation.maps, strict=True)
    }
    assert shapes["8"] == (1, 1, 3)
    assert shapes["6"] == shapes["7"] == (1, 1, 5)
    assert animation.stack("global").shape == (len(animation), 6, 8, 10)
    assert np.isfinite(np.asarray(animation.stack())).all()


def test_augmentation_mirrors_the_last_axis_of_a_volume(net, volume) -> None:
    tensor = torch.from_numpy(volume)[None, None]
    model = lambda variant: camanim.Model(net, preprocess=lambda image: variant)
    ours = camanim.animate(model(tensor), volume, target=TARGET, augment=True)
    expected: dict[str, np.ndarray] = {}
    for flip in (False, True):
        for factor in (0.9, 1.0, 1.1):
            variant = (tensor.flip(4) if flip else tensor) * factor
            single = camanim.animate(model(variant), volume, target=TARGET)
            for name, raw in by_name(single).items():
                expected[name] = expected.get(name, 0) + (raw[..., ::-1] if flip else raw) / 6
    for name, raw in by_name(ours).items():
        np.testing.assert_allclose(raw, expected[name], rtol=1e-4, atol=1e-7)


# --- Slices of a volume through a 2-D network ------------------------------------------------

#: Methods whose noise for a slice differs between runs.
NOISY = {"SmoothGradCAM++"}
SLICED = [m for m in camanim.methods() if m not in NOISY | {"SESS"}]


@pytest.mark.parametrize("method", SLICED)
def test_maps_of_slices_equal_those_of_single_slices(zoo, flat, volume, method) -> None:
    before = zoo.state_of(flat)
    options = SLOW.get(method, {})
    ours = camanim.animate(
        flat, volume, method=method, target=TARGET, slices=True, batch_size=4, options=options
    )
    assert zoo.state_of(flat) == before
    single = [
        camanim.animate(flat, plane, method=method, target=TARGET, options=options, window=(0, 1))
        for plane in volume
    ]
    assert ours.stack().shape == (len(ours), 6, 8, 10)
    assert [layer.label for layer in ours.layers] == [layer.label for layer in single[0].layers]
    for i, raw in enumerate(ours.maps):
        expected = np.stack([one.maps[i] for one in single])
        tolerance = 1e-3 * np.abs(expected).max() + 1e-7
        np.testing.assert_allclose(raw, expected, atol=tolerance, err_msg=ours.layers[i].label)
    assert ours.probability == pytest.approx(np.mean([one.probability for one in single]), rel=1e-5)
    for part in ("input_gradient", "guided"):
        theirs = [getattr(one, part) for one in single]
        if theirs[0] is None:
            assert getattr(ours, part) is None
        else:
            torch.testing.assert_close(getattr(ours, part), torch.cat(theirs))


@pytest.mark.parametrize(
    "settings", [{"eigen_smooth": True}, {"counterfactual": True}, {"show_1d": True}, {"augment": True}],
    ids=lambda s: next(iter(s)),
)  # fmt: skip
def test_settings_apply_to_slices(flat, volume, settings) -> None:
    ours = camanim.animate(
        flat, volume, method="HiResCAM", target=TARGET, slices=True, batch_size=4, **settings
    )
    for i, raw in enumerate(ours.maps):
        for z, plane in enumerate(volume):
            one = camanim.animate(
                flat, plane, method="HiResCAM", target=TARGET, window=(0, 1), **settings
            )
            tolerance = 1e-3 * np.abs(one.maps[i]).max() + 1e-7
            np.testing.assert_allclose(raw[z], one.maps[i], atol=tolerance)


def test_the_class_of_slices_is_that_of_their_mean(flat, volume) -> None:
    ours = camanim.animate(flat, volume, slices=True, batch_size=4)
    with torch.no_grad():
        expected = flat(ours.tensor).double().softmax(1).mean(0)
    assert ours.target.index == int(expected.argmax())
    assert ours.probability == pytest.approx(float(expected.max()), rel=1e-6)
    model = camanim.Model(flat)
    assert model.predict(volume, slices=True)[0].index == ours.target.index


@pytest.mark.parametrize("depth", [1, 2])
def test_a_volume_of_few_slices_has_3d_maps(flat, volume, depth) -> None:
    ours = camanim.animate(flat, volume[:depth], slices=True)
    assert ours.stack().shape == (len(ours), depth, 8, 10)
    assert {raw.ndim for raw in ours.maps} == {3}


def test_data_dependent_branches_are_chosen_per_slice(zoo, volume) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 3, 3)
            self.last = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.one(x) if x.mean() > 0.5 else self.other(x)
            return self.last(x.sigmoid()).mean((2, 3))

    net = zoo.shake(Branching())
    volume = volume - volume.mean((1, 2), keepdims=True) + np.linspace(0.4, 0.6, 6)[:, None, None]
    volume = volume.clip(0, 1)
    ours = camanim.animate(net, volume, target=TARGET, slices=True, window=(0, 1))
    assert any("one at a time" in note for note in ours.notes)
    maps = by_name(ours)
    assert maps.keys() == {"last"}, "no other layer is called for all slices"
    for z, plane in enumerate(volume):
        one = camanim.animate(net, plane, target=TARGET, window=(0, 1))
        np.testing.assert_allclose(maps["last"][z], by_name(one)["last"], rtol=1e-4, atol=1e-7)
    statuses = {layer.name: layer.status for layer in ours.layer_calls}
    assert statuses["one" if "one" in statuses else "other"] == "different control flow"


def test_sess_of_slices_is_refused(flat, volume) -> None:
    with pytest.raises(MethodError, match="not slices"):
        camanim.animate(flat, volume, method="SESS", slices=True, options=SLOW["SESS"])


def test_structured_outputs_are_joined_over_slices(zoo, volume) -> None:
    from dataclasses import dataclass

    @dataclass
    class Output:
        logits: torch.Tensor
        loss: torch.Tensor
        parts: dict

    class Structured(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Flat()

        def forward(self, x: torch.Tensor) -> Output:
            logits = self.net(x)
            return Output(logits, logits.sum(), {"logits": logits})

    plain = zoo.shake(Flat())
    structured = Structured()
    structured.net.load_state_dict(plain.state_dict())
    for method in ("GradCAM", "AblationCAM"):
        ours = camanim.animate(
            structured.eval(), volume, method=method, target=TARGET, slices=True, batch_size=2
        )
        theirs = camanim.animate(
            plain, volume, method=method, target=TARGET, slices=True, batch_size=2
        )
        assert ours.probability == pytest.approx(theirs.probability)
        for name, raw in by_name(theirs).items():
            np.testing.assert_allclose(by_name(ours)[f"net.{name}"], raw, rtol=1e-4, atol=1e-6)


# --- ROAD in 3-D -----------------------------------------------------------------------------


def impute_densely(image: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Impute removed voxels as weighted means of their neighbours, by a dense linear system."""
    shape, neighbours = image.shape[1:], weights(3)
    index = np.arange(kept.size).reshape(shape)
    system, right = np.eye(kept.size), np.zeros((kept.size, len(image)))
    for voxel in np.ndindex(shape):
        i = index[voxel]
        if kept[voxel]:
            right[i] = image[(slice(None), *voxel)]
            continue
        inside = {}
        for step, weight in neighbours.items():
            other = tuple(np.add(voxel, step))
            if all(0 <= o < n for o, n in zip(other, shape, strict=True)):
                inside[index[other]] = weight
        for j, weight in inside.items():
            system[i, j] -= weight / sum(inside.values())
    solved = np.linalg.solve(system, right)
    return solved.T.reshape(image.shape)


def test_road_of_a_volume_by_dense_solves(net, volume) -> None:
    volume = volume[:4, :5, :6]
    animation = camanim.animate(net, volume, method="HiResCAM", target=TARGET)
    shares = (30, 60)
    road = animation.score(percentiles=shares, noise=0.0)
    tensor, size = animation.tensor, volume.size
    for i, raw in enumerate(animation.maps):
        large = functional.interpolate(
            torch.from_numpy(np.maximum(raw, 0))[None, None], volume.shape, mode="trilinear"
        )[0, 0].numpy()
        ranks = large.ravel().argsort(kind="stable")
        if np.unique(large).size < size:
            continue  # Ties are broken at random.
        for p, share in enumerate(shares):
            keep = round(share / 100 * size)
            for scores, chosen in ((road.morf, ranks[:keep]), (road.lerf, ranks[size - keep :])):
                kept = np.zeros(size, bool)
                kept[chosen] = True
                filled = impute_densely(tensor[0].numpy(), kept.reshape(volume.shape))
                with torch.no_grad():
                    logits = net(torch.from_numpy(filled).float()[None])
                expected = float(logits.double().softmax(1)[0, TARGET])
                assert scores[i, p] == pytest.approx(expected, abs=1e-4)
    assert road.probability == pytest.approx(animation.probability)


def test_road_of_slices_and_of_a_plane_is_refused(net, flat, volume) -> None:
    with pytest.raises(ScoreError, match="slices"):
        camanim.animate(flat, volume, slices=True).score()
    with pytest.raises(ScoreError, match="plane"):
        camanim.animate(net, volume).plane(2).score()


# --- Stack, planes, pictures -----------------------------------------------------------------


@st.composite
def indices(draw, shape: tuple[int, ...]):
    """Draw an index: integers, slices, lists, masks, ellipsis and new axes."""
    parts = []
    for n in shape[: draw(st.integers(0, len(shape)))]:
        parts.append(
            draw(
                st.one_of(
                    st.integers(-n, n - 1),
                    st.integers(-n, n - 1).map(np.int64),
                    st.slices(n),
                    st.lists(st.integers(-n, n - 1), min_size=1, max_size=3),
                    arrays.arrays(bool, n),
                )
            )
        )
    if len(parts) < len(shape) and draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), ...)
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), None)
    return tuple(parts)


MAPS = [
    np.random.default_rng(i).normal(size=shape).astype(np.float32)
    for i, shape in enumerate([(2, 3, 4), (5, 2, 2), (1, 1, 7), (6, 7, 8)])
]
STACK = {
    (normalization, signed): Stack(MAPS, (6, 7, 8), normalization, signed=signed)
    for normalization in ("local", "global", None)
    for signed in (False, True)
}
DENSE = {key: np.stack([stack.plane(i) for i in range(4)]) for key, stack in STACK.items()}


@settings(deadline=None, max_examples=300)
@given(key=indices((4, 6, 7, 8)), kind=st.sampled_from(sorted(STACK, key=str)))
def test_indexing_four_axes_equals_numpy(key, kind) -> None:
    try:
        expected = DENSE[kind][key]
    except IndexError:
        with pytest.raises(IndexError):
            STACK[kind][key]
        return
    actual = STACK[kind][key]
    assert np.shape(actual) == expected.shape
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize(
    "key", [4, (0, 6), (0, 0, 7), (0, 0, 0, 8), (0, 0, 0, 0, 0), (-5,), (0, -7)]
)
def test_an_index_outside_the_volume_is_an_index_error(key) -> None:
    with pytest.raises(IndexError):
        STACK["local", False][key]


def test_a_stack_of_volumes_equals_upsampling_by_torch() -> None:
    for i, raw in enumerate(MAPS):
        expected = functional.interpolate(
            torch.from_numpy(raw)[None, None], (6, 7, 8), mode="trilinear"
        )[0, 0]
        np.testing.assert_allclose(STACK[None, True][i], expected, atol=1e-6)
        for z in range(6):
            np.testing.assert_allclose(STACK[None, True].section(i, z), expected[z], atol=1e-5)


@pytest.mark.parametrize("slices", [False, True])
@pytest.mark.parametrize("z", [None, 0, 3, -1])
def test_a_plane_equals_that_of_the_stack(net, flat, volume, slices, z) -> None:
    animation = camanim.animate(flat if slices else net, volume, slices=slices, target=TARGET)
    plane = animation.plane(z)
    index = {None: 3, -1: 5}.get(z, z)
    assert plane.plane() is plane
    np.testing.assert_array_equal(plane.image, animation.image[index])
    for normalization in ("local", "global", None):
        for signed in (False, True):
            ours = np.asarray(plane.stack(normalization, signed=signed))
            whole = np.asarray(animation.stack(normalization, signed=signed))[:, index]
            assert ours.shape == (len(animation), 8, 10)
            # Clipping at 0 before the interpolation along z differs from clipping after it.
            if signed or slices:
                np.testing.assert_allclose(ours, whole, atol=1e-5)


@pytest.mark.parametrize("z", [1.5, 1.0, True, "1", [1]])
def test_an_index_that_is_no_integer_is_refused(net, volume, z) -> None:
    animation = camanim.animate(net, volume)
    with pytest.raises(ImageError, match="index"):
        animation.plane(z)
    np.testing.assert_array_equal(animation.plane(np.int64(1)).image, animation.image[1])


@pytest.mark.parametrize("z", [6, -7, 100])
def test_a_plane_outside_the_volume_is_refused(net, volume, z) -> None:
    animation = camanim.animate(net, volume)
    with pytest.raises(ImageError, match=str(z)):
        animation.plane(z)
    with pytest.raises(ImageError, match="depth"):
        animation.plane(0).plane(0)


def test_pictures_and_movies_of_a_plane(net, volume, tmp_path) -> None:
    from imageio_ffmpeg import count_frames_and_secs, read_frames
    from PIL import Image

    volume[4], volume[1] = 1.0, 0.0
    animation = camanim.animate(net, volume, target=TARGET, window=(0, 1))
    light = {}
    for z in (1, 2, 4):
        path = animation.write_picture(tmp_path / f"{z}.png", 0, z=z, size=64, opacity=0.0)
        light[z] = np.asarray(Image.open(path).convert("L"), float).mean()
    assert light[1] < light[2] < light[4]
    paths = [
        animation.write_picture(tmp_path / f"{name}.png", 0, z=z, size=64)
        for name, z in (("middle", None), ("third", 3), ("last but two", -3), ("second", 2))
    ]
    middle, third, counted, second = (path.read_bytes() for path in paths)
    assert middle == third == counted != second
    lights = {}
    for z in (1, 4):
        movie = animation.write_movie(tmp_path / f"{z}.mp4", z=z, size=64, fps=5, opacity=0.0)
        assert count_frames_and_secs(str(movie))[0] == len(animation)
        reader = read_frames(str(movie))
        next(reader)
        lights[z] = np.frombuffer(next(reader), np.uint8).mean()
        reader.close()
    assert lights[1] < lights[4]
    with pytest.raises(ImageError):
        animation.write_movie(tmp_path / "none.mp4", z=9)
    assert not (tmp_path / "none.mp4").exists()


def test_anisotropic_voxels_keep_their_position(volume) -> None:
    """A bright voxel has its position in the map if each axis is resized by another factor."""
    net = nn.Sequential(nn.Identity(), nn.AdaptiveMaxPool3d(1), nn.Flatten())
    spot = np.zeros((12, 20, 33), np.float32)
    spot[7:9, 4:7, 21:25] = 1
    model = camanim.Model(net, camanim.Preprocess(size=(8, 16, 16), channels=1))
    animation = camanim.animate(model, spot, target=0, layers="0")
    raw = np.abs(animation.maps[0])
    scale, translate = animation.geometry.affine(raw.shape)
    cell = np.unravel_index(raw.argmax(), raw.shape)
    position = np.multiply(scale, cell) + translate
    np.testing.assert_allclose(position, (7.5, 5, 22.5), atol=2)


@pytest.mark.parametrize("fit", ["crop", "stretch", "native"])
def test_planes_of_maps_follow_the_fit(volume, fit) -> None:
    """The brightest plane of the volume is the brightest of the map with every fit."""
    net = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    bright = np.zeros((14, 10, 10), np.float32)
    bright[6:9] = 1
    model = camanim.Model(net, camanim.Preprocess(size=(8, 8, 8), channels=1))
    animation = camanim.animate(model, bright, method="GradCAM", target=1, layers="0", fit=fit)
    levels = {}
    for z in range(14):
        try:
            plane = animation.plane(z)
        except ImageError:
            continue
        levels[z] = float(plane.maps[0].mean())
    assert max(levels, key=levels.get) in (6, 7, 8)
    assert len(levels) == 14 if fit != "crop" else 7 in levels
