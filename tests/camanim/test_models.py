"""The `Model`: names, preprocessing, copies, classes, and the hash of its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model_weights

import camanim
from camanim import ImageError, ModelError
from camanim.layer_info import Status
from camanim.models import unwrap

# --- By name ---------------------------------------------------------------------------------


def test_the_list_of_torchvision_is_complete() -> None:
    ours = [n.partition("/")[2] for n in camanim.list_models("torchvision")]
    models = torchvision.models
    theirs = [
        name
        for module in (models, models.segmentation, models.detection, models.video)
        for name in models.list_models(module=module)
    ]
    assert sorted(ours) == sorted(theirs)
    assert len(ours) == 107
    assert camanim.list_models()[0] == "demo/ultrasound"
    assert set(camanim.list_models("torchvision")) < set(camanim.list_models())


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("resnet18", "torchvision/resnet18"),
        ("torchvision/resnet_18", "torchvision/resnet18"),
        ("torchvison/vgg16", "torchvision/vgg16"),
        ("ultrasound", "demo/ultrasound"),
        ("torchvision/", ""), ("/", ""), ("", ""), ("demo/resnet18", ""), ("/etc/passwd", ""),
    ],
)  # fmt: skip
def test_an_unknown_name_is_refused_with_a_suggestion(wrong, hint) -> None:
    with pytest.raises(ModelError, match=rf"'{wrong}'.*{hint}"):
        camanim.load_model(wrong)


def test_random_weights_are_the_same_every_time() -> None:
    torch.manual_seed(1)
    first = camanim.load_model("torchvision/squeezenet1_1", weights=None)
    torch.manual_seed(2)
    second = camanim.load_model("torchvision/squeezenet1_1", weights=None)
    assert first.weights_hash() == second.weights_hash()
    assert not first.net.training
    assert first.name == "torchvision/squeezenet1_1"


@pytest.mark.parametrize("net", ["resnet18", None, nn.Linear, torch.zeros(3)])
def test_an_object_other_than_a_network_is_refused(net) -> None:
    with pytest.raises(ModelError, match=r"torch\.nn\.Module"):
        camanim.Model(net)


# --- Published weights -----------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["stretch", "crop", "native"])
def test_mobilenet_v2_recognises_a_cat(torch_home: Path, shared: Path, fit) -> None:
    calls = []
    model = camanim.load_model(
        "torchvision/mobilenet_v2", progress=lambda *call: calls.append(call)
    )
    assert calls == [], "no download of weights that exist"
    assert len(model.classes) == 1000
    ranking = model.predict(camanim.read_image(shared / "images" / "cat.jpg"), fit=fit)
    assert ranking[0].name == "Egyptian cat"
    assert len(ranking) == 5
    assert 0.1 < ranking[0].probability <= 1


@pytest.mark.parametrize("weights", ["DEFAULT", None])
def test_loading_does_not_change_the_random_state(torch_home: Path, weights) -> None:
    before = torch.get_rng_state()
    camanim.load_model("torchvision/mobilenet_v2", weights)
    assert torch.equal(torch.get_rng_state(), before)


def test_published_weights_can_be_named(torch_home: Path) -> None:
    default = camanim.load_model("torchvision/mobilenet_v2")
    name = get_model_weights("mobilenet_v2").DEFAULT.name
    assert camanim.load_model("torchvision/mobilenet_v2", name).weights_hash() == (
        default.weights_hash()
    )


def test_the_demo_network_runs() -> None:
    model = camanim.load_model("demo/ultrasound")
    picture = camanim.samples.image(camanim.samples.names()[0])
    animation = camanim.animate(model, picture)
    assert animation.target.name in model.classes
    assert len(animation) > 50
    assert camanim.load_model("demo/ultrasound").weights_hash() == model.weights_hash()


# --- Preprocessing -----------------------------------------------------------------------------


def test_the_output_of_a_callable_covers_the_whole_image(zoo, image) -> None:
    images = []

    def prepare(picture: np.ndarray) -> torch.Tensor:
        images.append(picture)
        return torch.from_numpy(picture[::2, ::4].copy()).permute(2, 0, 1)[None] * 2 - 1

    model = camanim.Model(zoo.shake(zoo.Plain()), preprocess=prepare)
    animation = camanim.animate(model, image)
    assert len(images) == 1
    assert images[0] is image
    assert animation.tensor.shape == (1, 3, 10, 6)
    assert animation.geometry.size == (10, 6)
    assert animation.geometry.scale == (2, 4)
    assert animation.geometry.box == (0, 0, 20, 24)
    assert animation.image.shape == image.shape


@pytest.mark.parametrize("low", [-1000.0, 0.0])
@pytest.mark.parametrize("high", [1.0, 3000.0])
def test_a_callable_takes_any_intensities(zoo, low, high) -> None:
    """Such as Hounsfield units; their range is used for the display only."""
    ct = np.linspace(low, high, 400).reshape(20, 20)
    model = camanim.Model(
        zoo.shake(zoo.Plain()),
        preprocess=lambda a: torch.from_numpy((a / 3000).astype(np.float32)).expand(1, 3, -1, -1),
    )
    animation = camanim.animate(model, ct)
    assert (animation.image.min(), animation.image.max()) == (0, 255)


def test_a_transform_of_monai_replaces_the_same_preprocessing() -> None:
    """Its output has no batch axis, and carries metadata."""
    from monai.transforms import (
        Compose,
        EnsureChannelFirst,
        NormalizeIntensity,
        ScaleIntensityRange,
    )

    model = camanim.load_model("demo/ultrasound")
    mean, std = model.preprocess.mean[0], model.preprocess.std[0]
    picture = camanim.samples.image("malignant_1")
    steps = [
        EnsureChannelFirst(channel_dim="no_channel"), ScaleIntensityRange(0, 255, 0, 1),
        NormalizeIntensity(subtrahend=mean, divisor=std),
    ]  # fmt: skip
    by_monai = camanim.Model(model.net, Compose(steps), model.classes)
    expected = camanim.animate(model, picture, layers="blocks", fit="native")
    animation = camanim.animate(by_monai, picture, layers="blocks")
    assert type(animation.tensor) is torch.Tensor
    np.testing.assert_allclose(animation.tensor, expected.tensor, atol=1e-6)
    assert animation.probability == pytest.approx(expected.probability, abs=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: a, lambda a: None, lambda a: torch.zeros(8, 8),
        lambda a: torch.zeros(2, 3, 8, 8), lambda a: torch.zeros(1, 3, 0, 8), lambda a: [1],
    ],
    ids=["numpy", "nothing", "no channels", "a batch of two", "empty", "list"],
)  # fmt: skip
def test_a_callable_that_returns_no_tensor_of_one_image_is_refused(zoo, image, wrong) -> None:
    with pytest.raises(ImageError, match=r"\(1, C, "):
        camanim.animate(camanim.Model(zoo.Plain(), preprocess=wrong), image)


@pytest.mark.parametrize("image", [[[1, 2], [3]], None, np.zeros((2, 2, 2, 2)), [["a"]]], ids=str)
def test_an_invalid_image_is_refused_with_a_callable_too(zoo, image) -> None:
    model = camanim.Model(zoo.Plain(), preprocess=lambda _: torch.zeros(1, 3, 8, 8))
    with pytest.raises(ImageError):
        camanim.animate(model, image)


def test_without_preprocessing_the_input_equals_the_image(zoo, image) -> None:
    animation = camanim.animate(zoo.shake(zoo.Plain()), image)
    np.testing.assert_array_equal(animation.tensor[0].permute(1, 2, 0), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_input_has_the_channels_of_the_first_convolution(image, grey, channels) -> None:
    net = nn.Sequential(nn.Conv2d(channels, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for picture in (image, grey):
        assert camanim.animate(net, picture).tensor.shape[1] == channels


def test_an_image_too_small_for_the_network_is_refused() -> None:
    model = camanim.load_model("torchvision/squeezenet1_1", weights=None)
    with pytest.raises(ModelError, match="1 x 3 x 5 x 6"):
        camanim.animate(model, np.zeros((5, 6)), fit="native")


def test_the_weights_hash_changes_with_the_weights_only(zoo) -> None:
    net = zoo.shake(zoo.Plain())
    model = camanim.Model(net)
    first = model.weights_hash()
    assert model.weights_hash() == first
    assert camanim.Model(zoo.shake(zoo.Plain())).weights_hash() == first
    changes: list[Callable[[], object]] = [
        lambda: net[0].weight.data.mul_(2),
        # The same numbers in another order, as in Adebayo's test.
        lambda: net[1].weight.data.copy_(torch.arange(6)),
        lambda: net[1].weight.data.copy_(net[1].weight.data.flip(0)),
        lambda: net[1].running_mean.add_(1),
        lambda: net.load_state_dict(zoo.shake(zoo.Plain(), seed=1).state_dict()),
        lambda: setattr(net[0].weight, "data", net[0].weight.data + 1),
        lambda: net.double(),
    ]
    hashes = {first}
    for change in changes:
        change()
        hashes.add(model.weights_hash())
    assert len(hashes) == len(changes) + 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_the_weights_hash_of_other_dtypes(dtype) -> None:
    """One changed value among many, which a sum in half precision would lose."""
    net = nn.Module()
    net.many = nn.Parameter(torch.ones(150, 150).to(dtype))
    net.register_buffer("few", torch.arange(5))
    model = camanim.Model(net)
    hashes = {model.weights_hash()}
    net.many.data[77, 78] += 0.25
    hashes.add(model.weights_hash())
    net.many.data[77, 79], net.many.data[77, 78] = 1.25, 1
    hashes.add(model.weights_hash())
    net.few.data[3] = 4
    hashes.add(model.weights_hash())
    assert len(hashes) == 4
    assert model.weights_hash() in hashes


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_weights_hash_changes_among_values_that_are_not_finite(bad) -> None:
    net = nn.Linear(3, 3)
    model = camanim.Model(net)
    net.weight.data[0, 0] = bad
    first = model.weights_hash()
    net.weight.data[1, 1] = 5
    assert model.weights_hash() != first


def test_the_weights_hash_excludes_buffers_outside_the_state_dict() -> None:
    net = nn.Linear(2, 2)
    net.register_buffer("scratch", torch.zeros(3), persistent=False)
    model = camanim.Model(net)
    first = model.weights_hash()
    net.scratch += 1
    assert model.weights_hash() == first


# --- Copies, wrappers, classes -----------------------------------------------------------------


def test_a_copy_on_another_device_does_not_change_the_network(zoo) -> None:
    net = zoo.shake(zoo.Residual())
    model = camanim.Model(net, classes=["a", "b", "c"], extra_inputs=(torch.ones(2), "text"))
    before = zoo.state_of(net)
    copy = model.to("meta")
    assert copy.device.type == "meta"
    assert {t.device.type for t in copy.net.state_dict().values()} == {"meta"}
    assert copy.extra_inputs[0].device.type == "meta"
    assert copy.extra_inputs[1] == "text"
    assert copy.classes == model.classes
    assert zoo.state_of(net) == before
    assert model.net is net
    assert model.device.type == "cpu"
    assert model.to("cpu") is model


def test_tied_weights_stay_tied_in_a_copy() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    net[0].weight.requires_grad_(False)
    copy = camanim.Model(net).to("meta").net
    assert copy[0].weight is copy[1].weight
    assert not copy[0].weight.requires_grad
    assert isinstance(copy[0].weight, nn.Parameter)
    assert copy[0].bias.requires_grad


@pytest.mark.parametrize("device", ["nowhere", "cuda:99"])
def test_an_unknown_device_is_refused(zoo, device) -> None:
    with pytest.raises(ModelError, match=device):
        camanim.Model(zoo.Plain()).to(device)


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, torch.compile, lambda net: torch.compile(nn.DataParallel(net))],
    ids=["DataParallel", "compiled", "both"],
)
def test_wrapped_networks_are_unwrapped(zoo, wrap) -> None:
    net = zoo.shake(zoo.Plain())
    plain, wrapped = camanim.Model(net), camanim.Model(wrap(net))
    assert unwrap(wrapped.net) is net
    assert wrapped.name == "Plain"
    assert wrapped.preprocess == plain.preprocess
    assert wrapped.weights_hash() == plain.weights_hash()
    assert type(wrapped.to("meta").net) is zoo.Plain


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.txt", "cat\nsmall dog\n\u00e4ffle\n"),
        ("c.txt", "\ufeffcat\r\nsmall dog\r\n\u00e4ffle\r\n\r\n"),
        ("c.json", '["cat", "small dog", "\u00e4ffle"]'),
        ("c.json", '{"2": "\u00e4ffle", "0": "cat", "1": "small dog"}'),
        ("c.json", '{"0": ["n1", "cat"], "1": ["n2", "small dog"], "2": ["n3", "\u00e4ffle"]}'),
    ],
    ids=["lines", "of Windows", "list", "numbered", "ImageNet's"],
)
def test_classes_from_a_file(zoo, tmp_path: Path, name, content) -> None:
    (tmp_path / name).write_bytes(content.encode())
    for path in (tmp_path / name, str(tmp_path / name)):
        model = camanim.Model(zoo.Plain(), classes=path)
        assert model.classes == ["cat", "small dog", "\u00e4ffle"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.json", b"{"), ("c.json", b'{"1": "a", "2": "b"}'), ("c.json", b'{"a": "b"}'),
        ("c.json", b"3"), ("c.json", b"[" * 100_000), ("c.txt", b"\xff\xfe\xff"), ("c.txt", None),
        ("c.json", b'"cat"'),
    ],
    ids=["half", "from 1", "no numbers", "a number", "deep", "no text", "missing", "text"],
)  # fmt: skip
def test_a_file_without_classes_is_refused(zoo, tmp_path: Path, name, content) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        camanim.Model(zoo.Plain(), classes=tmp_path / name)


def test_classes_by_their_numbers(zoo) -> None:
    assert camanim.Model(zoo.Plain(), classes={2: "c", 0: "a", 1: "b"}).classes == ["a", "b", "c"]
    with pytest.raises(ModelError, match="0 to 1"):
        camanim.Model(zoo.Plain(), classes={0: "a", 2: "c"})


def test_outputs_and_extra_inputs_are_checked(zoo) -> None:
    with pytest.raises(ModelError, match="sigmoid"):
        camanim.Model(zoo.Plain(), outputs="probability")
    with pytest.raises(ModelError, match="extra_inputs"):
        camanim.Model(zoo.Plain(), extra_inputs=torch.ones(3))


@pytest.mark.parametrize(
    ("first", "channels", "dims"),
    [
        (nn.Conv2d(5, 2, 3), 5, 2), (nn.Conv3d(2, 2, 3), 2, 3), (nn.Linear(3, 3), 3, 2),
        (nn.LazyConv2d(4, 3), 3, 2),
    ],
    ids=["2-D", "3-D", "none", "lazy"],
)  # fmt: skip
def test_channels_and_axes_are_those_of_the_first_convolution(first, channels, dims) -> None:
    model = camanim.Model(nn.Sequential(first))
    assert (model.preprocess.channels, model.dims) == (channels, dims)
    assert camanim.Model(nn.Sequential(first), preprocess=lambda image: image).dims == dims


# --- Whole networks --------------------------------------------------------------------------


def small_input(name: str) -> tuple[int, int]:
    """Return an input size that is small and yet gives maps; some networks take only one size."""
    if name.startswith(("vit", "maxvit")):
        height, width = get_model_weights(name).DEFAULT.meta["min_size"]
        return max(height, 224), max(width, 224)
    return (80, 80) if name in ("alexnet", "inception_v3") else (64, 64)


def run(name: str) -> camanim.Animation:
    model = camanim.load_model(f"torchvision/{name}", weights=None)
    picture = np.random.default_rng(0).random((*small_input(name), 3))
    before = model.weights_hash()
    animation = camanim.animate(model, picture, fit="native", layers="all", method="LayerCAM")
    assert model.weights_hash() == before
    known = {Status.OK, Status.NOT_SPATIAL, Status.OFF_PATH, Status.NO_TENSOR}
    for layer in animation.layer_calls:
        assert layer.status in known, layer
    for layer, raw in zip(animation.layers, animation.maps, strict=True):
        assert np.isfinite(raw).all(), layer
        assert raw.ndim == 2, layer
        # Maps of a square image are square, unless channels were taken for pixels.
        assert raw.shape[0] == raw.shape[1], layer
    return animation


LAYER_COUNTS = {
    "convnext_tiny": 100, "swin_t": 50, "vit_b_16": 1, "googlenet": 100, "inception_v3": 150,
    "shufflenet_v2_x0_5": 100, "maxvit_t": 100, "efficientnet_b0": 150, "regnet_y_400mf": 100,
    "mnasnet0_5": 100, "alexnet": 10, "vgg11_bn": 20, "mobilenet_v3_small": 80,
}  # fmt: skip


@pytest.mark.parametrize("name", LAYER_COUNTS)
def test_every_layer_of_a_network_has_a_map_or_a_reason(name) -> None:
    assert len(run(name)) >= LAYER_COUNTS[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in torchvision.models.list_models(module=torchvision.models)
        if name not in LAYER_COUNTS and get_model_weights(name).DEFAULT.meta["num_params"] < 100e6
    ],
)
def test_every_layer_of_every_network_has_a_map_or_a_reason(name) -> None:
    assert len(run(name)) > 0
