"""Every field of `Settings`, against reference implementations."""

from __future__ import annotations

import contextlib
import gc
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import camanim
from camanim import (
    Cancelled,
    LayerError,
    MethodError,
    ModelError,
    OutOfMemory,
    TargetError,
    animate_targets,
)
from camanim.layer_info import Status
from camanim.targets import ClassTarget, Contrast, Segmentation, Similarity

CLASSES = 3


def by_name(animation: camanim.Animation) -> dict[str, np.ndarray]:
    return {a.label: m for a, m in zip(animation.layers, animation.maps, strict=True)}


def as_model(net: nn.Module, tensor: torch.Tensor, **settings) -> camanim.Model:
    """Return a model with a fixed input, independent of the image."""
    return camanim.Model(net, preprocess=lambda image: tensor, **settings)


def tensor_of(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()


def same(ours, theirs, tolerance: float = 1e-5) -> None:
    """Assert that maps of the same layers are equal up to rounding."""
    a, b = by_name(ours), by_name(theirs)
    assert a.keys() == b.keys()
    for name, raw in a.items():
        scale = np.abs(b[name]).max()
        np.testing.assert_allclose(raw, b[name], atol=tolerance * scale + 1e-9, err_msg=name)


# --- options, layers, fit --------------------------------------------------------------------


def test_options_are_passed_to_the_method(zoo, image) -> None:
    """Only two channels are ablated."""
    net = zoo.shake(zoo.Plain(inplace=False))
    whole = camanim.animate(net, image, method="AblationCAM", target=1, layers="0")
    part = camanim.animate(
        net, image, method="AblationCAM", target=1, layers="0", options={"channels": 2}
    )
    rest = nn.Sequential(*list(net)[1:])
    with torch.no_grad():
        activation = net[0](whole.tensor)[0]
        first = float(net(whole.tensor)[0, 1])
        expected = torch.zeros(activation.shape[1:])
        for c in activation.flatten(1).norm(dim=1).topk(2).indices:
            off = activation.clone()
            off[c] = 0
            weight = (first - float(rest(off[None])[0, 1])) / abs(first)
            expected += weight * activation[c]
    np.testing.assert_allclose(part.maps[0], expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(part.maps[0], whole.maps[0])
    assert part.provenance["options"] == {"channels": 2}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"options": {"chanels": 2}}, MethodError, "chanels"),
        ({"precision": "float8"}, camanim.SettingError, "float8"),
        ({"batch_size": 0}, camanim.SettingError, "batch_size"),
        ({"device": "cuda:77"}, ModelError, "cuda:77"),
        ({"layouts": {"0": "NCWH"}}, LayerError, "NCWH"),
        ({"layouts": {"0": lambda output: output.sum()}}, LayerError, "channels over space"),
        ({"layouts": {"0": lambda output: output.nope}}, LayerError, "nope"),
        ({"layouts": {"nowhere": "NHWC"}}, LayerError, "nowhere"),
        ({"layers": "nowhere"}, LayerError, "nowhere"),
        ({"fit": "squeeze"}, camanim.SettingError, "squeeze"),
        ({"method": "EigenCAM", "eigen_smooth": True}, MethodError, "Eigen"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ],
)
def test_an_invalid_setting_is_named(zoo, image, settings, error, message) -> None:
    net = zoo.shake(zoo.Plain())
    before = zoo.state_of(net)
    with pytest.raises(error, match=message) as info:
        camanim.animate(net, image, **settings)
    assert "\n" not in str(info.value)
    assert zoo.state_of(net) == before


def test_an_empty_list_of_targets_is_an_error(zoo, image) -> None:
    with pytest.raises(TargetError, match="target"):
        animate_targets(zoo.shake(zoo.Plain()), image, [])


@pytest.mark.parametrize("fit", ["stretch", "crop", "native"])
def test_the_geometry_matches_the_fit(image, fit) -> None:
    """The maximum of the map has the position of a bright spot in the image."""
    net = nn.Sequential(nn.Identity(), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    spot = np.zeros((30, 44), np.float32)
    spot[18:21, 24:27] = 1
    model = camanim.Model(net, camanim.Preprocess(size=(24, 24), resize=27, channels=1))
    animation = camanim.animate(model, spot, method="GradCAM", target=0, fit=fit, layers="0")
    sizes = {"stretch": (24, 24), "crop": (24, 24), "native": (30, 44)}
    assert animation.tensor.shape[2:] == sizes[fit]
    raw = np.abs(animation.maps[0])
    (sy, sx), (ty, tx) = animation.geometry.affine(raw.shape)
    y, x = np.unravel_index(raw.argmax(), raw.shape)
    assert abs(sy * y + ty - 19) <= 1.5
    assert abs(sx * x + tx - 25) <= 1.5


# --- eigen_smooth ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["GradCAM", "HiResCAM", "GradCAMElementWise", "GradCAMPlusPlus", "XGradCAM", "LayerCAM"]
)
def test_eigen_smoothing_is_grad_cams(zoo, image, name) -> None:
    reference = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net = zoo.shake(zoo.Plain(inplace=False))
    layers = {"0": net[0], "1": net[1], "4": net[4]}
    ours = camanim.animate(
        net, image, method=name, target=1, eigen_smooth=True, layers=list(layers)
    )
    targets = [ClassifierOutputTarget(1)]
    for (label, raw), layer in zip(by_name(ours).items(), layers.values(), strict=True):
        with getattr(reference, name)(net, [layer]) as cam:
            start = ours.tensor.clone().requires_grad_()
            output = cam.activations_and_grads(start)
            targets[0](output[0]).backward()
            hooks = cam.activations_and_grads
            arrays = [t[0].cpu().data.numpy() for t in (hooks.activations, hooks.gradients)]
            theirs = cam.get_cam_image(start, layer, targets, *arrays, True)[0]
        # The sign of a component is a convention.
        sign = np.sign((raw * theirs).sum())
        tolerance = 1e-3 * np.abs(theirs).max()
        np.testing.assert_allclose(raw, sign * theirs, atol=tolerance, err_msg=label)
        assert raw.max() >= -raw.min()


# --- augment ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GradCAM", "HiResCAM", "AblationCAM", "RefineCAM"])
def test_augmentation_is_the_mean_of_six_variants(zoo, image, method) -> None:
    net, tensor = zoo.shake(zoo.Residual()), tensor_of(image)
    ours = camanim.animate(as_model(net, tensor), image, method=method, target=2, augment=True)
    sums: dict[str, np.ndarray] = {}
    for flip, factor in itertools.product((False, True), (0.9, 1.0, 1.1)):
        variant = (tensor.flip(-1) if flip else tensor) * factor
        one = by_name(camanim.animate(as_model(net, variant), image, method=method, target=2))
        for name, raw in one.items():
            back = raw[:, ::-1] if flip else raw
            sums[name] = sums.get(name, 0) + back / 6
    assert by_name(ours).keys() == sums.keys()
    for name, raw in by_name(ours).items():
        np.testing.assert_allclose(raw, sums[name], rtol=1e-4, atol=1e-6, err_msg=name)
    plain = camanim.animate(as_model(net, tensor), image, method=method, target=2)
    assert ours.probability == pytest.approx(plain.probability), "that of the image itself"
    if plain.input_gradient is not None:
        torch.testing.assert_close(ours.input_gradient, plain.input_gradient)


class Pixels(nn.Module):
    """Class scores for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 2, 1, bias=False)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.body(x)}


@pytest.mark.parametrize("how", ["alone", "contrast", "counterfactual"])
def test_a_mask_is_mirrored_with_the_image(zoo, image, how) -> None:
    """The map is zero outside of the mask, also for the mirrored variants."""
    net = zoo.shake(Pixels())
    mask = np.zeros((20, 24), bool)
    mask[3:9, 2:7] = True
    target = Segmentation(1, mask)
    if how == "contrast":
        target = Contrast(target, Segmentation(0, mask))
    settings = {"counterfactual": how == "counterfactual", "method": "HiResCAM"}
    raw = camanim.animate(net, image, target=target, augment=True, **settings).maps[0]
    assert (raw[~mask] == 0).all()
    assert (raw[mask] != 0).all()


def test_a_detection_is_not_augmented(zoo, image) -> None:
    class Boxes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            score = self.conv(x).mean((1, 2, 3)).sigmoid()
            return [
                {
                    "boxes": torch.tensor([[1.0, 2, 8, 9]]),
                    "labels": torch.tensor([1]),
                    "scores": s[None],
                }
                for s in score
            ]

    with pytest.raises(TargetError, match="augmentation"):
        camanim.animate(zoo.shake(Boxes()), image, augment=True)


def test_a_layer_without_a_map_for_one_variant_has_a_status(image) -> None:
    """The output of a layer is not finite for the brighter image."""

    class Bursts(nn.Module):
        def forward(self, x):
            return torch.where(x.abs().amax((1, 2, 3), keepdim=True) > 1.05, torch.inf, 1.0) * x

    net = nn.Sequential(Side(Bursts()), nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = as_model(net.eval(), tensor_of(image / image.max()))
    animation = camanim.animate(model, image, method="EigenCAM", target=0, augment=True)
    statuses = {layer.name: layer.status for layer in animation.layer_calls}
    assert statuses["0.inner"] == Status.NOT_FINITE
    assert "0.inner" not in by_name(animation)
    assert "1" in by_name(animation)


class Side(nn.Module):
    """Runs a module off the path to the output."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inner(x)
        return x + 0


# --- counterfactual --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GradCAM", "HiResCAM", "AblationCAM", "FinerCAM"])
def test_the_counterfactual_explains_minus_the_score(zoo, image, method) -> None:
    net = zoo.shake(zoo.Plain())
    plain = camanim.animate(net, image, method=method, target=1)
    against = camanim.animate(net, image, method=method, target=1, counterfactual=True)
    for a, b in zip(plain.maps, against.maps, strict=True):
        np.testing.assert_allclose(-a, b, rtol=1e-4, atol=1e-6)
    assert against.probability == plain.probability
    assert "counterfactual" in against.target.name
    assert against.target.index == 1


# --- show_1d ---------------------------------------------------------------------------------


def test_stripes_have_a_cell_for_each_unit(zoo, image) -> None:
    net = zoo.shake(zoo.Plain(inplace=False))
    hidden = camanim.animate(net, image, method="HiResCAM", target=1)
    shown = camanim.animate(net, image, method="HiResCAM", target=1, show_1d=True)
    more = by_name(shown).keys() - by_name(hidden).keys()
    assert more == {"6", "7", "8"}
    with torch.no_grad():
        pooled = nn.Sequential(*list(net)[:8])(shown.tensor)[0]
        logits = net(shown.tensor)[0]
    maps, layers = by_name(shown), {layer.label: layer for layer in shown.layers}

    one_hot = np.eye(3)[1]
    np.testing.assert_allclose(maps["8"], (logits.numpy() * one_hot)[None], rtol=1e-5)
    expected = (net[8].weight[1].detach() * pooled).numpy()[None]
    np.testing.assert_allclose(maps["7"], expected, rtol=1e-4)
    np.testing.assert_allclose(maps["6"], expected, rtol=1e-4)
    assert {layers[name].layout for name in more} == {"stripes"}
    assert shown.stack().shape == (len(shown), 20, 24)
    # At the input size, each unit is a vertical stripe.
    large = shown.stack(None, signed=True)[[layer.label for layer in shown.layers].index("7")]
    np.testing.assert_allclose(large, np.broadcast_to(large[:1], large.shape), rtol=1e-5)
    for name, raw in by_name(hidden).items():
        np.testing.assert_array_equal(raw, maps[name])


@pytest.mark.parametrize("method", [m for m in camanim.methods() if m not in ("SESS", "CAM")])
def test_every_method_takes_stripes(zoo, image, method) -> None:
    net = zoo.shake(zoo.Plain())
    before = zoo.state_of(net)
    animation = camanim.animate(net, image, method=method, target=1, show_1d=True)
    assert zoo.state_of(net) == before
    for layer, raw in zip(animation.layers, animation.maps, strict=True):
        assert np.isfinite(raw).all(), layer.label


# --- layouts ---------------------------------------------------------------------------------


class Last(nn.Module):
    """Returns (B, h, w, C) with w equal to C, so that the layout is ambiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 1), nn.Identity()
        self.linear = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x).permute(0, 2, 3, 1).contiguous())
        return self.linear(x.relu().mean((1, 2)))


@pytest.mark.parametrize("method", ["GradCAM", "AblationCAM", "EigenCAM"])
@pytest.mark.parametrize(
    "override",
    ["NHWC", lambda output: output.permute(0, 3, 1, 2)],
    ids=["a word", "grad-cam's reshape_transform"],
)
def test_a_layout_overrides_the_detected_one(zoo, method, override) -> None:
    """A permuted output has the same map as the original."""
    net = zoo.shake(Last())
    square = np.random.default_rng(1).random((8, 8, 3)).astype(np.float32)
    animation = camanim.animate(net, square, method=method, target=1, layouts={"norm": override})
    maps = by_name(animation)
    np.testing.assert_allclose(maps["norm"], maps["conv"], rtol=1e-4, atol=1e-6)
    without = camanim.animate(net, square, method=method, target=1, layouts={"no*": "1-D"})
    statuses = {layer.name: layer.status for layer in without.layer_calls}
    assert statuses["norm"] == Status.NOT_SPATIAL
    assert animation.provenance["layouts"].keys() == {"norm"}


# --- batch_size, device, precision, seed -----------------------------------------------------


class Recorder(nn.Module):
    """Records batch sizes, and runs out of memory above a maximum."""

    def __init__(self, net: nn.Module, max_images: int = 10**6) -> None:
        super().__init__()
        self.net, self.max_images, self.sizes = net, max_images, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        if len(x) > self.max_images:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.net(x)


@pytest.mark.parametrize("method", ["ScoreCAM", "AblationCAM", "SS-CAM", "IS-CAM"])
def test_batches_change_nothing_but_their_size(zoo, image, method) -> None:
    runs = {}
    for size in (1, 3, 16):
        net = Recorder(zoo.shake(zoo.Plain()))
        runs[size] = camanim.animate(net, image, method=method, target=1, batch_size=size)
        # Checks of a layer use batches of two, those of the fast copy batches of four.
        assert max(net.sizes) <= max(size, 4)
    same(runs[1], runs[16], 1e-4)
    same(runs[3], runs[16], 1e-4)


@pytest.mark.parametrize("method", ["ScoreCAM", "AblationCAM", "GradCAM", "CAM"])
@pytest.mark.parametrize("slices", [False, True])
def test_batches_are_halved_when_memory_runs_out(zoo, image, method, slices) -> None:
    picture = image[:, :, 0] if not slices else np.moveaxis(image, 2, 0)[:, :16, :16]
    picture = np.repeat(picture, 2, 0) if slices else picture
    settings = {"method": method, "target": 1, "slices": slices, "batch_size": 4}
    plenty = camanim.animate(Recorder(zoo.shake(zoo.Plain())), picture, **settings)
    net = Recorder(zoo.shake(zoo.Plain()), max_images=1)
    before = zoo.state_of(net)
    tight = camanim.animate(net, picture, **settings)
    assert zoo.state_of(net) | {" attributes": 0} == before | {" attributes": 0}
    same(tight, plenty, 1e-3)
    if slices or method in ("ScoreCAM", "AblationCAM"):
        assert any("emory" in note for note in tight.notes)
    with pytest.raises(OutOfMemory):
        camanim.animate(Recorder(zoo.shake(zoo.Plain()), max_images=0), picture, **settings)


def test_mps_out_of_memory_is_recognised(zoo, image) -> None:
    message = "MPS backend out of memory (MPS allocated: 8 GB, max allowed: 9 GB)."
    with pytest.raises(OutOfMemory):
        camanim.animate(zoo.Raises(RuntimeError(message)), image)


class OtherDevice(camanim.Model):
    """A model on a simulated GPU with too little memory for one image."""

    on_gpu = True

    @property
    def device(self):
        return SimpleNamespace(type="cuda") if self.on_gpu else torch.device("cpu")

    def prepare(self, *args, **settings):
        on_gpu = self.on_gpu
        self.on_gpu = False
        prepared = super().prepare(*args, **settings)
        self.on_gpu = on_gpu
        return prepared

    def to(self, device):
        if str(device) != "cpu":
            raise OutOfMemory("There is not enough memory on cuda.")
        moved = OtherDevice(self.net.net, self.preprocess)
        moved.on_gpu = False
        return moved


@pytest.mark.parametrize("device", [None, "cuda"])
def test_the_cpu_is_used_when_the_device_has_too_little_memory(zoo, image, device) -> None:
    plain = zoo.shake(zoo.Plain())
    model = OtherDevice(Recorder(plain, max_images=0))
    animation = camanim.animate(model, image, target=1, device=device)
    assert any("CPU" in note for note in animation.notes)
    same(animation, camanim.animate(plain, image, target=1))
    quiet = camanim.animate(plain, image, target=1, device="cpu")
    assert quiet.notes == []


@pytest.mark.parametrize("method", ["GradCAM", "HiResCAM", "EigenCAM", "AblationCAM", "ScoreCAM"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_is_close(zoo, image, method, precision) -> None:
    net = zoo.shake(zoo.Residual())
    before = zoo.state_of(net)
    single = camanim.animate(net, image, method=method, target=1)
    mixed = camanim.animate(net, image, method=method, target=1, precision=precision)
    assert zoo.state_of(net) == before
    assert mixed.probability == pytest.approx(single.probability, abs=0.02)
    for name, raw in by_name(mixed).items():
        assert raw.dtype == np.float32
        expected = by_name(single)[name]
        assert np.corrcoef(raw.ravel(), expected.ravel())[0, 1] > 0.97, name
    assert any(not np.array_equal(a, b) for a, b in zip(mixed.maps, single.maps, strict=True)), (
        "single and mixed precision are identical"
    )


@pytest.mark.parametrize("method", ["RandomCAM", "SmoothGradCAM++", "SS-CAM"])
def test_maps_depend_on_the_seed_only(zoo, image, method) -> None:
    net = zoo.shake(zoo.Plain())
    runs = []
    for seed in (0, 0, 1):
        torch.rand(3)
        runs.append(camanim.animate(net, image, method=method, target=1, seed=seed))
    same(runs[0], runs[1], 0)
    assert any(not np.allclose(a, b) for a, b in zip(runs[0].maps, runs[2].maps, strict=True))


# --- progress and cancelling, for every kind of method ---------------------------------------


class Stop:
    """A progress callback that records its calls and raises an error at one of them."""

    def __init__(self, at: int | None = None, error: BaseException | None = None) -> None:
        self.at, self.error = at, error or Cancelled("enough")
        self.calls: list[tuple[str, int, int]] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.calls.append((stage, done, total))
        if len(self.calls) - 1 == self.at:
            raise self.error


SLICES = {"slices": True, "batch_size": 2}
SESS = {"scales": 2, "window": 12}
KINDS: dict[str, dict] = {
    "one pass": {"method": "GradCAM"},
    "forward alone": {"method": "EigenCAM"},
    "a head": {"method": "CAM"},
    "curvature": {"method": "ShapleyCAM"},
    "noise": {"method": "SmoothGradCAM++"},
    "re-evaluation": {"method": "AblationCAM"},
    "masks": {"method": "ScoreCAM", "batch_size": 3},
    "all layers": {"method": "RefineCAM"},
    "all layers, forward": {"method": "RefineCAM", "options": {"base": "EigenCAM"}},
    "windows": {"method": "SESS", "options": SESS},
    "windows, re-evaluation": {"method": "SESS", "options": SESS | {"base": "AblationCAM"}},
    "guided": {"method": "Guided Grad-CAM"},
    "augmented": {"method": "GradCAM", "augment": True},
    "augmented, forward": {"method": "EigenCAM", "augment": True},
    "slices": {"method": "GradCAM", **SLICES},
    "slices, forward": {"method": "EigenCAM", **SLICES},
    "slices, re-evaluation": {"method": "AblationCAM", **SLICES},
    "slices of all layers": {"method": "RefineCAM", **SLICES},
    "slices with noise": {"method": "SmoothGradCAM++", **SLICES},
    "augmented slices": {"method": "HiResCAM", "augment": True, **SLICES},
}


class Small(nn.Module):
    """Two convolutions, an in-place ReLU that is called twice, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.linear = nn.Linear(3, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.relu(self.b(self.relu(self.a(x)))).mean((2, 3)))


@pytest.fixture
def small(zoo) -> nn.Module:
    net = zoo.shake(Small())
    net.b.train()
    net.a.weight.requires_grad = False
    net.linear.weight.grad = torch.ones_like(net.linear.weight)
    return net


def picture_for(settings: dict) -> np.ndarray:
    shape = (5, 12, 12) if settings.get("slices") else (12, 14)
    return np.random.default_rng(0).random(shape).astype(np.float32)


def steps(count: int) -> list[int]:
    """Return the steps to test: all of a short run; the first, last and some others of a long run."""
    every = range(count)
    return (
        list(every) if count <= 60 else sorted({*every[:12], *every[-12:], *every[:: count // 30]})
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_cancel_at_any_step_keeps_complete_maps(zoo, small, kind) -> None:
    settings, picture = KINDS[kind] | {"target": 1}, picture_for(KINDS[kind])
    progress = Stop()
    whole = camanim.animate(small, picture, progress=progress, **settings)
    complete = by_name(whole)
    assert not whole.cancelled
    assert all(total == 0 or 0 <= done <= total for _, done, total in progress.calls)
    before = zoo.state_of(small)
    kept_some = False
    for at in steps(len(progress.calls)):
        stop = Stop(at)
        try:
            animation = camanim.animate(small, picture, progress=stop, **settings)
        except Cancelled:
            animation = None
        assert zoo.state_of(small) == before, at
        assert len(stop.calls) == at + 1, f"step {at}: not stopped"
        if animation is None:
            continue
        kept = by_name(animation)
        for name, raw in kept.items():
            np.testing.assert_allclose(raw, complete[name], rtol=1e-5, err_msg=f"{at} {name}")
        lost = {layer.label for layer in animation.layer_calls if layer.status == Status.CANCELLED}
        # A cancelled layer may be one without a map.
        assert kept.keys() | lost >= complete.keys(), at
        assert not kept.keys() & lost, at
        assert animation.cancelled == bool(lost)
        kept_some |= bool(lost)
        ok = {layer.label for layer in animation.layer_calls if layer.status == Status.OK}
        assert ok == kept.keys(), at
    # These have no complete map before the end: means, and maps that depend on all later layers.
    alone = ("augmented", "windows", "windows, re-evaluation", "augmented, forward")
    assert kept_some == (kind not in (*alone, "all layers, forward", "augmented slices"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, RuntimeError])
def test_an_error_of_the_callback_is_raised_unchanged(zoo, small, kind, error) -> None:
    settings, picture = KINDS[kind] | {"target": 1}, picture_for(KINDS[kind])
    progress = Stop()
    camanim.animate(small, picture, progress=progress, **settings)
    before = zoo.state_of(small)
    for at in steps(len(progress.calls))[:: 1 if error is ValueError else 7]:
        mine = error("mine")
        with pytest.raises(error) as info:
            camanim.animate(small, picture, progress=Stop(at, mine), **settings)
        assert info.value is mine, at
        assert zoo.state_of(small) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_cancel_of_several_targets_keeps_complete_maps(zoo, small, kind) -> None:
    settings, picture = KINDS[kind], picture_for(KINDS[kind])
    progress = Stop()
    whole = animate_targets(small, picture, [0, 2], progress=progress, **settings)
    before = zoo.state_of(small)
    for at in steps(len(progress.calls)):
        stop = Stop(at)
        try:
            animations = animate_targets(small, picture, [0, 2], progress=stop, **settings)
        except Cancelled:
            animations = []
        assert zoo.state_of(small) == before
        assert len(stop.calls) == at + 1, at
        for animation, complete in zip(animations, whole, strict=False):
            kept = by_name(animation)
            for name, raw in kept.items():
                np.testing.assert_allclose(raw, by_name(complete)[name], rtol=1e-5)
            ok = {layer.label for layer in animation.layer_calls if layer.status == Status.OK}
            assert ok == kept.keys(), at
            missing = by_name(complete).keys() - kept.keys()
            assert animation.cancelled or not missing, at


@pytest.mark.parametrize("kind", KINDS)
def test_several_targets_have_the_maps_of_separate_runs(small, kind) -> None:
    settings, picture = KINDS[kind], picture_for(KINDS[kind])
    together = animate_targets(small, picture, [0, 2, 1], **settings)
    for target, animation in zip((0, 2, 1), together, strict=True):
        alone = camanim.animate(small, picture, target=target, **settings)
        same(animation, alone, 1e-4)
        assert animation.probability == pytest.approx(alone.probability, rel=1e-6)
        if alone.input_gradient is not None:
            torch.testing.assert_close(animation.input_gradient, alone.input_gradient)
        if alone.guided is not None:
            torch.testing.assert_close(animation.guided, alone.guided)


def alive() -> int:
    """Count live tensors."""
    gc.collect()
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


@pytest.mark.parametrize("kind", KINDS)
def test_no_tensors_remain_in_memory(small, kind) -> None:
    settings, picture = KINDS[kind] | {"target": 1}, picture_for(KINDS[kind])

    def run() -> None:
        for stop in (Stop(), Stop(9), Stop(9, ValueError("mine"))):
            with contextlib.suppress(Cancelled, ValueError):
                camanim.animate(small, picture, progress=stop, **settings)

    run()
    before = alive()
    run()
    assert alive() <= before


def test_animations_share_no_maps(small) -> None:
    """A map can be changed in place without changing those of other targets."""
    for method in ("EigenCAM", "GradCAM", "AblationCAM", "RefineCAM"):
        first, second = animate_targets(small, picture_for({}), [0, 1], method=method)
        for a in first.maps:
            assert not any(np.shares_memory(a, b) for b in second.maps), method
        assert first.layer_calls is not second.layer_calls


# --- targets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GradCAM", "HiResCAM", "LayerCAM"])
def test_several_targets_take_one_forward_and_a_backward_each(zoo, image, method) -> None:
    net = zoo.shake(zoo.Plain())
    forwards, backwards = [], []
    net[0].register_forward_hook(lambda *arguments: forwards.append(0))
    net[0].register_full_backward_hook(lambda *arguments: backwards.append(0))
    animate_targets(net, image, [0, 1, 2, "0 - 1"], method=method)
    assert len(forwards) == 1
    assert len(backwards) == 4


def gradcam_of(net: nn.Module, layer: nn.Module, tensor: torch.Tensor, score) -> np.ndarray:
    """Return GradCAM by autograd, for any function of the network's output."""
    outputs: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    output = net(tensor.clone().requires_grad_())
    handle.remove()
    (gradient,) = torch.autograd.grad(score(output).sum(), outputs[0])
    weights = gradient[0].mean((1, 2))
    return torch.einsum("c,chw->hw", weights, outputs[0][0]).detach().numpy()


class Fields(nn.Module):
    """Scores for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).sigmoid())


class Single(nn.Module):
    """One logit, or a few numbers."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(5, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).sigmoid().mean((2, 3)))


class TheirTarget:
    """A target with the interface of grad-cam: called with the output for one image."""

    __module__ = "pytorch_grad_cam.utils.model_targets"

    def __call__(self, output):
        return output[0] * output[1]


MASK = np.zeros((20, 24), bool)
MASK[4:9, 5:20] = True
REFERENCE = torch.tensor([0.3, -1.0, 2.0])

#: Network, its number of outputs and their kind, target, score and value (None: equal to the score).
TARGETS = {
    "class": (Single, 3, "auto", 1, lambda y: y[:, 1], lambda y: y.softmax(1)[:, 1]),
    "contrast": (Single, 3, "auto", "2 - 0", lambda y: y[:, 2] - y[:, 0], None),
    "probability": (
        Single, 3, "auto", ClassTarget(1, of="probability"),
        lambda y: y.softmax(1)[:, 1], lambda y: y.softmax(1)[:, 1],
    ),
    "single logit": (Single, 1, "auto", 1, lambda y: y[:, 0], lambda y: y[:, 0].sigmoid()),
    "single logit, against": (
        Single, 1, "auto", 0, lambda y: -y[:, 0], lambda y: (-y[:, 0]).sigmoid()
    ),
    "multi-label": (Single, 3, "sigmoid", 2, lambda y: y[:, 2], lambda y: y[:, 2].sigmoid()),
    "regression": (Single, 2, "values", 1, lambda y: y[:, 1], lambda y: y[:, 1]),
    "segmentation": (
        Fields, None, "auto", Segmentation(1, MASK),
        lambda y: (y[:, 1] * torch.from_numpy(MASK)).sum((1, 2)),
        lambda y: y.softmax(1)[:, 1][:, torch.from_numpy(MASK)].mean(1),
    ),
    "similarity": (
        Single, 3, "values", Similarity(REFERENCE),
        lambda y: functional.cosine_similarity(y, REFERENCE[None]),
        lambda y: functional.cosine_similarity(y, REFERENCE[None]),
    ),
    "callable": (Single, 3, "auto", lambda y: y[:, 0] ** 2, lambda y: y[:, 0] ** 2, None),
    "grad-cam's": (Single, 3, "auto", TheirTarget(), lambda y: y[:, 0] * y[:, 1], None),
}  # fmt: skip


def target_of(kind: str, zoo) -> tuple[camanim.Model, object, object, object]:
    network, outputs, read, target, score, value = TARGETS[kind]
    net = zoo.shake(network(outputs) if outputs else network())
    return camanim.Model(net, outputs=read), target, score, value or score


@pytest.mark.parametrize("kind", TARGETS)
def test_maps_of_a_target_are_those_of_autograd(zoo, image, kind) -> None:
    model, target, score, value = target_of(kind, zoo)
    animation = camanim.animate(model, image, target=target)
    expected = gradcam_of(model.net, model.net.conv, animation.tensor, score)
    np.testing.assert_allclose(by_name(animation)["conv"], expected, rtol=1e-3, atol=1e-7)
    with torch.no_grad():
        expected_value = float(value(model.net(animation.tensor))[0])
    assert animation.probability == pytest.approx(expected_value, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("method", ["AblationCAM", "ScoreCAM", "SmoothGradCAM++", "ShapleyCAM"])
def test_every_kind_of_method_supports_every_kind_of_target(zoo, image, kind, method) -> None:
    model, target, _, _ = target_of(kind, zoo)
    before = zoo.state_of(model.net)
    animation = camanim.animate(model, image, method=method, target=target, batch_size=3)
    assert zoo.state_of(model.net) == before
    assert np.isfinite(by_name(animation)["conv"]).all()


@pytest.mark.parametrize("kind", TARGETS)
def test_road_compares_values_of_the_target(zoo, image, kind) -> None:
    model, target, _, value = target_of(kind, zoo)
    animation = camanim.animate(model, image, target=target)
    before = animation.tensor.clone()
    road = animation.score(percentiles=(40, 60), noise=0.0)
    assert torch.equal(animation.tensor, before)
    with torch.no_grad():
        assert road.probability == pytest.approx(float(value(model.net(before))[0]), rel=1e-5)
    assert np.isfinite(road.scores[[reason is None for reason in road.undefined]]).all()
    if animation.target.unit == "probability":
        known = np.concatenate([road.morf.ravel(), road.lerf.ravel()])
        known = known[~np.isnan(known)]
        assert ((known >= 0) & (known <= 1)).all()


def test_road_with_control_flow_that_depends_on_the_input(zoo, image) -> None:
    """A batch would take one branch for all images."""

    class Decides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)

        def forward(self, x):
            return (self.one(x) if x[:, :, :10].mean() > 0.5 else self.other(x)).mean((2, 3))

    animation = camanim.animate(zoo.shake(Decides()), image, target=1)
    many = animation.score(batch_size=16, noise=0.3)
    single = animation.score(batch_size=1, noise=0.3)
    np.testing.assert_allclose(many.scores, single.scores, rtol=1e-5)


def test_layers_off_the_path_of_one_target_have_maps_of_another(zoo, image) -> None:

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3)
            self.one, self.other = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            x = self.stem(x)
            return torch.cat([self.one(x).mean((2, 3)), self.other(x).mean((2, 3))], 1)

    constant = lambda y: torch.zeros(1, requires_grad=True) + 0 * y.detach().sum()
    net = zoo.shake(Heads())
    first = lambda y: y[:, 0] * 1
    for order in itertools.permutations([0, 2]):
        for target, animation in zip(order, animate_targets(net, image, order), strict=True):
            statuses = {layer.name: layer.status for layer in animation.layer_calls}
            head = "one" if target == 0 else "other"
            assert statuses[head] == Status.OK
            assert head in by_name(animation)
    both = animate_targets(net, image, [first, 1])
    assert [a.input_gradient.abs().sum() > 0 for a in both] == [True, True]
    with pytest.raises(LayerError):
        animate_targets(net, image, [constant, 0])


# --- guided ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["Guided Grad-CAM", "Guided Grad-CAM++"])
@pytest.mark.parametrize("network", ["Plain", "Residual", "Reused"])
def test_the_guided_map_is_the_product_of_both(zoo, image, method, network) -> None:
    reference = pytest.importorskip("pytorch_grad_cam")
    net = zoo.shake(getattr(zoo, network)())
    animation = camanim.animate(net, image, method=method, target=1)
    # grad-cam replaces modules, which fails for in-place modules.
    fresh = zoo.shake(getattr(zoo, network)(inplace=False))
    theirs = reference.GuidedBackpropReLUModel(model=fresh, device="cpu")(
        animation.tensor.clone(), target_category=1
    )
    guided = animation.guided[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(guided, theirs, rtol=1e-3, atol=1e-6)
    base = camanim.animate(net, image, method=method.removeprefix("Guided "), target=1)
    for ours, plain in zip(animation.maps, base.maps, strict=True):
        large = functional.interpolate(
            torch.from_numpy(plain).clamp(min=0)[None, None], (20, 24), mode="bilinear"
        )[0, 0]
        np.testing.assert_allclose(ours, large * guided.sum(2), rtol=1e-4, atol=1e-7)


# --- Custom methods --------------------------------------------------------------------------


def fails_in_a_pass(activation, gradient):
    raise ValueError("mine")


def fails_after_predict(activation, predict, image):
    predict(2, lambda start, stop: image.expand(stop - start, *image.shape))
    raise KeyError("mine")


@pytest.mark.parametrize("method", [fails_in_a_pass, fails_after_predict])
def test_an_error_in_a_method_is_a_method_error(zoo, image, method) -> None:
    net = zoo.shake(zoo.Plain())
    before = zoo.state_of(net)
    with pytest.raises(MethodError, match=f"{method.__name__}.*mine"):
        camanim.animate(net, image, method=method, target=1)
    assert zoo.state_of(net) == before


def test_an_error_of_the_network_in_predict_is_a_model_error(zoo, image) -> None:
    class Once(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)

        def forward(self, x):
            if x.min() == x.max():
                raise ValueError("constant input")
            return self.conv(x).mean((2, 3))

    def method(activation, predict, image):
        return predict(len(activation), lambda start, stop: 0 * image.repeat(stop - start, 1, 1, 1))

    with pytest.raises(ModelError, match="constant input"):
        camanim.animate(zoo.shake(Once()), image, method=method)


# --- Networks without gradients --------------------------------------------------------------


class Nothing(torch.autograd.Function):
    """An operation without a derivative."""

    @staticmethod
    def forward(context, x):
        return x * 2

    @staticmethod
    def backward(context, gradient):
        return None


class Broken(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.before, self.beside = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "inference":
            with torch.inference_mode():
                y = self.before(x)
            y = y.clone()
        else:
            y = Nothing.apply(self.before(x).relu())
        return self.head((y + self.beside(x)).relu().mean((2, 3)))


@pytest.mark.parametrize("how", ["inference", "no derivative"])
@pytest.mark.parametrize("method", ["GradCAM", "ShapleyCAM", "Guided Grad-CAM", "AblationCAM"])
def test_a_branch_without_gradients_keeps_the_maps_of_others(zoo, image, how, method) -> None:
    animation = camanim.animate(zoo.shake(Broken(how)), image, method=method, target=1)
    statuses = {layer.name: layer.status for layer in animation.layer_calls}
    assert statuses["beside"] == Status.OK
    expected = Status.OK if method == "AblationCAM" else Status.OFF_PATH
    assert statuses["before"] == expected


def test_a_scripted_network_is_an_error(zoo, image) -> None:
    net = torch.jit.trace(zoo.shake(zoo.Plain()), torch.rand(1, 3, 20, 24))
    with pytest.raises(camanim.CamError):
        camanim.animate(net, image)


@pytest.mark.parametrize("targets", [[1], [1, 0]])
def test_curvature_of_a_transformer(zoo, image, targets) -> None:
    """The fused kernels of attention have no second derivative."""

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 4, stride=4)
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoder(layer, 1), nn.Linear(8, CLASSES)

        def forward(self, x):
            return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    net = zoo.shake(Attends())
    animations = animate_targets(net, image, targets, method="ShapleyCAM", layers="patches")
    for target, animation in zip(targets, animations, strict=True):
        a = net.patches(animation.tensor).detach().requires_grad_()
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            torch.backends.mha.set_fastpath_enabled(False)
            score = net.head(net.encoder(a.flatten(2).transpose(1, 2)).mean(1))[0, target]
            torch.backends.mha.set_fastpath_enabled(True)
            (gradient,) = torch.autograd.grad(score, a, create_graph=True)
            (product,) = torch.autograd.grad(gradient, a, a)
        weights = (gradient - product / 2).detach()[0].mean((1, 2))
        expected = torch.einsum("c,chw->hw", weights, a.detach()[0])
        np.testing.assert_allclose(animation.maps[0], expected, rtol=1e-3, atol=1e-6)
        plain = camanim.animate(net, image, method="GradCAM", target=target, layers="patches")
        assert not np.allclose(plain.maps[0], animation.maps[0], rtol=1e-2)


@pytest.mark.parametrize("method", ["GradCAM", "ShapleyCAM"])
def test_a_gradient_that_is_not_finite_keeps_the_maps_of_others(zoo, image, method) -> None:
    class Root(nn.Module):
        def forward(self, x):
            # The derivative of the root is infinite at zero.
            return (x * 0).abs().sqrt() + x

    net = zoo.shake(nn.Sequential(nn.Conv2d(3, 4, 3), Root(), nn.Sigmoid(), *zoo.head(4)))
    animation = camanim.animate(net, image, method=method, target=1)
    statuses = {layer.name: layer.status for layer in animation.layer_calls}
    assert statuses["0"] == Status.NOT_FINITE
    assert statuses["1"] == statuses["2"] == Status.OK
