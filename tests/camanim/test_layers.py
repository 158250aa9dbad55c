"""Layer calls: their order, identity and layout, and their selection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import get_model

import camanim
from camanim import LayerError, SettingError
from camanim.layer_info import Status


def labels(net: nn.Module, image: np.ndarray, layers="unique", **settings) -> list[str]:
    return [layer.label for layer in camanim.animate(net, image, layers=layers, **settings).layers]


def trace(net: nn.Module, image: np.ndarray) -> dict[str, camanim.LayerInfo]:
    return {layer.label: layer for layer in camanim.animate(net, image, layers="all").layer_calls}


# --- Order and identity ----------------------------------------------------------------------


def test_layers_are_in_order_of_execution(zoo, image) -> None:
    """Containers follow their children; the order of registration differs."""

    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Sequential(*zoo.head(4))
            self.late = nn.Conv2d(4, 4, 1)
            self.early = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.late(self.early(x)))

    animation = camanim.animate(
        camanim.Model(zoo.shake(Backwards()), camanim.Preprocess()), image, layers="all"
    )
    assert [layer.label for layer in animation.layer_calls] == [
        "early.0", "early.1", "early", "late", "head.0", "head.1", "head.2", "head", "(network)",
    ]  # fmt: skip
    assert [layer.index for layer in animation.layer_calls] == list(range(9))
    assert [layer.label for layer in animation.layers] == ["early.0", "early.1", "early", "late"]


def test_same_as_is_the_first_layer_with_the_identical_output(zoo, image) -> None:
    """Identity, Dropout and containers return their input; an in-place ReLU modifies it."""
    layers = trace(zoo.shake(zoo.PassThrough()), image)
    first = layers["features.0"].index
    same = {label: layer.same_as for label, layer in layers.items()}
    assert same["features.0"] is None
    assert same["features.1"] == same["features.2"] == same["features"] == first
    assert same["relu"] is None
    assert same["head"] == same["(network)"] == layers["head.2"].index
    assert labels(zoo.shake(zoo.PassThrough()), image) == ["features.0", "relu"]


def test_every_in_place_operation_is_a_separate_layer(zoo, image) -> None:
    animation = camanim.animate(zoo.shake(zoo.Residual()), image, method="EigenCAM")
    assert [layer.label for layer in animation.layers] == [
        "stem", "bn1", "relu", "conv", "bn2", "relu:1",
    ]  # fmt: skip
    relu = animation.maps[2]
    assert np.abs(relu - animation.maps[1]).max() > 0


def test_a_module_with_two_names_has_the_first(zoo, image) -> None:
    net = zoo.shake(zoo.Residual())
    net.alias = net.conv
    assert labels(net, image, "Conv2d") == ["stem", "conv"]


def test_a_leading_identity_has_a_map_of_the_input(zoo, image) -> None:
    net = nn.Sequential(nn.Identity(), nn.Dropout(), zoo.shake(zoo.Plain()))
    animation = camanim.animate(net, image, method="HiResCAM", target=0)
    assert [layer.label for layer in animation.layers][:2] == ["0", "2.0"]
    assert animation.maps[0].shape == image.shape[:2]
    x = animation.tensor.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net.eval()(x)[0, 0], x)
    np.testing.assert_allclose(
        animation.maps[0], (gradient * x).detach()[0].sum(0), rtol=1e-4, atol=1e-7
    )


def test_parameters_and_shapes_are_those_of_the_module(zoo, image) -> None:
    layers = trace(zoo.shake(zoo.Plain()), image)
    assert layers["0"].parameters == 6 * 3 * 9 + 6
    assert layers["2"].parameters == 0
    assert layers["(network)"].parameters == sum(p.numel() for p in zoo.Plain().parameters())
    assert layers["3"].shape == (1, 6, 10, 12)
    assert layers["(network)"].shape == (1, 3)


def test_parameters_of_shared_modules_count_in_each_container(zoo, image) -> None:
    shared = nn.Conv2d(4, 4, 1)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Sequential(shared, nn.ReLU()), nn.Sequential(shared), *zoo.head(4)
    )
    for layer in camanim.animate(zoo.shake(net), image, layers="all").layer_calls:
        module = net.get_submodule(layer.name)
        assert layer.parameters == sum(p.numel() for p in module.parameters()), layer.label


# --- Maps and layouts ------------------------------------------------------------------------


def test_outputs_without_a_map_have_a_status(zoo, image) -> None:
    animation = camanim.animate(zoo.shake(zoo.Shapes()), image, layers="all")
    assert {layer.name: layer.status for layer in animation.layer_calls} == {
        "stem": Status.OK,
        "pair": Status.OK,
        "last": Status.OK,
        "tokens": Status.OK,
        "head": Status.NOT_SPATIAL,
        "": Status.NOT_SPATIAL,
    }
    assert {layer.name: layer.layout for layer in animation.layers} == {
        "stem": "NCHW", "pair": "[0] NCHW", "last": "NHWC", "tokens": "tokens 20 x 24"
    }  # fmt: skip
    assert [m.shape for m in animation.maps] == [(20, 24)] * 4


def test_channels_last_are_detected(zoo, image) -> None:
    """The map of (1, h, w, C) equals that of the permuted output."""
    net = zoo.shake(zoo.Shapes())
    animation = camanim.animate(net, image, method="EigenCAM", layers="last")
    with torch.no_grad():
        normal = net.last(net.stem(animation.tensor).permute(0, 2, 3, 1))[0]
    pixels = normal.flatten(0, 1).double()
    pixels = pixels - pixels.mean(0)
    first = (pixels @ torch.linalg.svd(pixels).Vh[0]).view(20, 24).numpy()
    first *= np.sign(first.flat[np.abs(first).argmax()])
    np.testing.assert_allclose(animation.maps[0], first, atol=1e-4 * np.abs(first).max())


@pytest.mark.parametrize("size", [(96, 24), (24, 96), (64, 16), (40, 40), (30, 10)])
def test_one_value_per_channel_has_no_map(zoo, size) -> None:
    """The (1, C, 1, 1) of squeeze-and-excitation is not C by 1 pixels, for any shape of the image."""

    class Squeeze(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1)
            self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
            self.head = nn.Sequential(*zoo.head(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return self.head(x * self.up(self.down(self.pool(x)).relu()).sigmoid())

    picture = np.random.default_rng(0).random((*size, 3))
    assert labels(zoo.shake(Squeeze()), picture) == ["conv"]


@pytest.mark.parametrize("channels", [4, 12, 24, 40, 56])
@pytest.mark.parametrize("size", [(28, 14), (14, 28), (21, 21)])
def test_convolutions_have_channels_first(zoo, size, channels) -> None:
    """Without padding the aspect ratio changes, so that the number of channels can fit it better."""
    net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Conv2d(8, channels, 5), *zoo.head(channels))
    picture = np.random.default_rng(0).random((*size, 3))
    shapes = [m.shape for m in camanim.animate(zoo.shake(net), picture).maps]
    assert shapes == [(size[0] - 4, size[1] - 4), (size[0] - 8, size[1] - 8)]


def test_the_selection_does_not_change_maps(zoo) -> None:
    """The layout of a ReLU follows from the convolution before it, selected or not."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 40, 5), nn.Tanh(), *zoo.head(40)
    )
    net, picture = zoo.shake(net), np.random.default_rng(0).random((28, 14, 3))
    everything = camanim.animate(net, picture, target=0)
    assert [layer.label for layer in everything.layers] == ["0", "1", "2", "3"]
    for layer, raw in zip(everything.layers, everything.maps, strict=True):
        alone = camanim.animate(net, picture, target=0, layers=layer.name)
        np.testing.assert_array_equal(alone.maps[0], raw)


@pytest.mark.parametrize("size", [(20, 24), (24, 24), (60, 14)])
def test_pooling_along_one_axis_changes_the_aspect_ratio(zoo, size) -> None:
    """As in networks for text and audio."""
    net = nn.Sequential(
        nn.Conv2d(3, 7, 3, padding=1), nn.MaxPool2d((4, 1)), nn.ReLU(), nn.Conv2d(7, 9, 1),
        nn.Tanh(), *zoo.head(9),
    )  # fmt: skip
    picture = np.random.default_rng(0).random((*size, 3))
    animation = camanim.animate(zoo.shake(net), picture)
    assert [m.shape for m in animation.maps] == [size] + [(size[0] // 4, size[1])] * 4


def test_layers_that_are_not_selected_determine_an_ambiguous_layout(zoo) -> None:
    """The layout of 24 channels of 20 by 6, from a 28 by 14 image, is ambiguous."""
    net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Conv2d(8, 24, 5), nn.ReLU(), *zoo.head(24))
    picture = np.random.default_rng(0).random((28, 14, 3))
    [relu] = camanim.animate(zoo.shake(net), picture, layers="2").maps
    assert relu.shape == (20, 6)


# --- Selections ------------------------------------------------------------------------------

PLAIN = ["0", "1", "2", "3", "4", "5"]
SELECTIONS = [
    ("Plain", "unique", PLAIN),
    ("Plain", "all", PLAIN),
    ("Plain", "blocks", PLAIN),
    ("Plain", "Conv2d", ["0", "4"]),
    ("Plain", "[12]", ["1", "2"]),
    ("Plain", "*", PLAIN),
    ("Plain", ["5", "0"], ["0", "5"]),
    ("Plain", ("Conv2d", "ReLU", "0"), ["0", "2", "4", "5"]),
    ("Plain", {"3"}, ["3"]),
    ("Plain", (name for name in ["1"]), ["1"]),
    ("Plain", lambda info: info.kind == "ReLU", ["2", "5"]),
    ("Plain", lambda info: info.parameters > 0 and info.index < 3, ["0", "1"]),
    ("Reused", "relu", ["relu", "relu:1", "relu:2"]),
    ("Reused", "relu:0", ["relu"]),
    ("Reused", "relu:1", ["relu:1"]),
    ("Reused", "r*:2", ["relu:2"]),
    ("Reused", ["relu:2", "a"], ["a", "relu:2"]),
    ("Reused", "ReLU", ["relu", "relu:1", "relu:2"]),
    ("PassThrough", "all", ["features.0", "features.1", "features.2", "features", "relu"]),
    ("PassThrough", "features.*", ["features.0", "features.1", "features.2"]),
    ("PassThrough", "feature?", ["features"]),
    ("PassThrough", "Sequential", ["features"]),
    ("PassThrough", "Dropout", ["features.2"]),
]


@pytest.mark.parametrize(("kind", "selection", "expected"), SELECTIONS)
def test_a_selection(zoo, image, kind, selection, expected) -> None:
    animation = camanim.animate(zoo.shake(getattr(zoo, kind)()), image, layers=selection)
    assert [layer.label for layer in animation.layers] == expected
    # Other layers are in layer_calls.
    rest = [x for x in animation.layer_calls if x.label not in expected and len(x.shape) == 4]
    assert {x.status for x in rest} <= {Status.NOT_SELECTED, Status.NOT_SPATIAL}
    assert all(isinstance(value, int | str | list | type(None)) for value in (
        animation.provenance["layers"], animation.provenance["seed"],
    ))  # fmt: skip


def test_a_selection_of_one_layer_gives_the_same_map_as_all(zoo, image) -> None:
    net = zoo.shake(zoo.Residual())
    everything = camanim.animate(net, image, layers="all")
    for layer, raw in zip(everything.layers, everything.maps, strict=True):
        if layer.name:
            one = camanim.animate(net, image, layers=f"{layer.name}:{layer.call}")
            np.testing.assert_array_equal(one.maps[0], raw)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", [
            "conv1", "bn1", "relu", "maxpool", "layer1.0", "layer1.1", "layer2.0", "layer2.1",
            "layer3.0", "layer3.1", "layer4.0", "layer4.1",
        ]),
        ("mobilenet_v2", [f"features.{i}" for i in range(19)]),
        ("squeezenet1_1", [f"features.{i}" for i in range(13)] + [
            f"classifier.{i}" for i in range(3)
        ]),
    ],
)  # fmt: skip
def test_blocks_of_published_networks(name, expected) -> None:
    picture = np.random.default_rng(0).random((64, 64, 3))
    assert labels(get_model(name, weights=None), picture, "blocks") == expected


def test_items_of_a_module_list_are_blocks(zoo, image) -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)])
            self.head = nn.Sequential(*zoo.head(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for stage in self.stages:
                x = stage(x)
            return self.head(x)

    assert labels(zoo.shake(Listed()), image, "blocks") == ["stages.0", "stages.1"]


def test_mobilenet_v2_has_149_unique_and_209_maps() -> None:
    net = get_model("mobilenet_v2", weights=None)
    picture = np.random.default_rng(0).random((64, 64, 3))
    assert len(labels(net, picture, "unique")) == 149
    assert len(labels(net, picture, "all")) == 209


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("conv1d", "Conv2d"),
        ("Conv2dd", "Conv2d"),
        ("features.9", "features.0"),
        ("reluu:1", "relu"),
        (["relu", "featurs"], "features"),
    ],
)
def test_an_unknown_layer_is_an_error_with_a_suggestion(zoo, image, wrong, hint) -> None:
    unknown = wrong if isinstance(wrong, str) else wrong[-1]
    with pytest.raises(LayerError, match=rf"{unknown}.*{hint}"):
        camanim.animate(zoo.PassThrough(), image, layers=wrong)


@pytest.mark.parametrize(
    "wrong", ["zzz", [], (), "relu:7", lambda info: False, "Linear", "head", [0], [None]]
)
def test_an_empty_selection_is_an_error(zoo, image, wrong) -> None:
    with pytest.raises(LayerError, match=r"\w+"):
        camanim.animate(zoo.PassThrough(), image, layers=wrong)


@pytest.mark.parametrize("wrong", [5, None])
def test_a_selection_of_another_type_is_a_setting_error(zoo, image, wrong) -> None:
    with pytest.raises(SettingError, match="layers"):
        camanim.animate(zoo.PassThrough(), image, layers=wrong)


def test_the_error_has_the_status_of_selected_layers_without_a_map(zoo, image) -> None:
    with pytest.raises(LayerError, match=Status.NOT_SPATIAL):
        camanim.animate(zoo.Plain(), image, layers="Linear")
    with pytest.raises(LayerError, match=Status.OFF_PATH):
        camanim.animate(zoo.Branches(), image, layers="unused")
    with pytest.raises(LayerError, match=Status.NO_TENSOR):
        camanim.animate(zoo.TextOutput(), image, layers="words")


# --- Layers with the same tensor, and activations that are overwritten -----------------------


class Overwrites(nn.Module):
    """Overwrites activations by a module, by a keyword argument, by ``+=`` and after a hand-on."""

    def __init__(self, *, inplace: bool = True) -> None:
        super().__init__()
        self.inplace = inplace
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.same = nn.Identity()
        self.relu = nn.ReLU(inplace=inplace)
        self.more = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Identity(), nn.ReLU6(inplace=inplace))
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(input=self.same(self.norm(self.conv(x))))
        z = self.more(y)
        if self.inplace:
            z += y
        else:
            z = z + y
        return self.head(self.same(z).mean((2, 3)))


@pytest.mark.parametrize("method", ["GradCAM", "EigenCAM", "ShapleyCAM"])
def test_equal_layers_have_equal_maps_whatever_is_overwritten(zoo, image, method) -> None:
    ours, plain = (
        camanim.animate(
            zoo.shake(Overwrites(inplace=inplace)), image, layers="all", method=method, target=1
        )
        for inplace in (True, False)
    )
    assert [layer.label for layer in ours.layers] == [layer.label for layer in plain.layers]
    for a, b in zip(ours.maps, plain.maps, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    maps = {layer.index: raw for layer, raw in zip(ours.layers, ours.maps, strict=True)}
    same = [layer for layer in ours.layers if layer.same_as in maps]
    assert {layer.label for layer in same} >= {"same", "more.1", "more"}
    for layer in same:
        np.testing.assert_array_equal(maps[layer.index], maps[layer.same_as])
        assert not np.shares_memory(maps[layer.index], maps[layer.same_as])


def test_an_error_in_a_layer_leaves_each_module_with_its_forward(zoo, image) -> None:
    net = zoo.shake(Overwrites())
    net.head = nn.Linear(5, 3)
    with pytest.raises(camanim.ModelError):
        camanim.animate(net, image)
    for module in net.modules():
        assert "forward" not in vars(module)
        assert not module._forward_hooks


def test_a_gradient_that_a_hook_changes_is_not_shared(zoo, image) -> None:
    """The first layer is before the hook of the network, the second behind it."""

    class Scales(zoo.PassThrough):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = self.features[0](x)
            first.register_hook(lambda gradient: 2 * gradient)
            return self.head(self.features[1](first))

    animation = camanim.animate(zoo.shake(Scales()), image, layers="all", target=0)
    maps = dict(zip((layer.label for layer in animation.layers), animation.maps, strict=True))
    np.testing.assert_allclose(maps["features.1"], 2 * maps["features.0"], rtol=1e-5)
