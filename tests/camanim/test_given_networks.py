"""Networks given as objects: what is read from them, and what makes them impossible to explain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.networks import nets
from torch import nn

import camanim
from camanim import ImageError, LayerError, ModelError

# --- Input of networks given as objects ------------------------------------------------------


def monai_networks(dims: int) -> dict[str, nn.Module]:
    side = (16,) * dims
    return {
        "UNet": nets.UNet(dims, 1, 2, (2, 4), (2,)),
        "AutoEncoder": nets.AutoEncoder(dims, 1, 1, (2, 4), (2, 2)),
        "AttentionUnet": nets.AttentionUnet(dims, 1, 2, (2, 4), (2,)),
        "VarAutoEncoder": nets.VarAutoEncoder(dims, (1, *side), 1, 2, (2, 4), (2, 2)),
        "DynUNet": nets.DynUNet(dims, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[2, 4, 8]),
        "BasicUNet": nets.BasicUNet(dims, 1, 2, features=(2,) * 6),
    }


@pytest.mark.parametrize("dims", [2, 3])
def test_containers_with_attributes_of_a_convolution_do_not_count(dims) -> None:
    for name, net in monai_networks(dims).items():
        model = camanim.Model(net)
        assert (model.preprocess.channels, model.dims) == (1, dims), name


@pytest.mark.parametrize("dims", [2, 3])
def test_a_unet_of_monai_needs_no_preprocessing(dims) -> None:
    picture = np.random.default_rng(0).random((16,) * dims)
    animation = camanim.animate(monai_networks(dims)["UNet"], picture)
    assert animation.maps[0].ndim == dims


class Fold(nn.Module):
    """Folds pixels into channels, without a module for it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 2, 3)

    def forward(self, image):
        return self.conv(nn.functional.pixel_unshuffle(image, 4)).mean((2, 3))


def test_the_channels_of_a_stem_that_folds_pixels(grey) -> None:
    timm = pytest.importorskip("timm")
    tresnet = timm.create_model("tresnet_m")
    for net, channels in (
        (nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 2, 3)), 3),
        (nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3)), 2),
        (tresnet, 3),
    ):
        assert camanim.Model(net).preprocess.channels == channels
    with pytest.raises(ImageError, match="Preprocess"):
        camanim.animate(Fold(), grey)
    model = camanim.Model(Fold(), camanim.Preprocess(size=(32, 32), channels=1))
    assert len(camanim.animate(model, grey)) > 0


def test_a_replaced_first_convolution_of_timm_counts() -> None:
    net = pytest.importorskip("timm").create_model("resnet18")
    net.conv1 = nn.Conv2d(13, 64, 7)
    assert camanim.Model(net).preprocess.channels == 13


# --- Networks that cannot be explained -------------------------------------------------------


class Stopped(nn.Module):
    """A network without a gradient."""

    def __init__(self, stop) -> None:
        super().__init__()
        self.conv, self.stop = nn.Conv2d(1, 2, 3), stop

    def forward(self, image):
        return self.stop(lambda x: self.conv(x).mean((2, 3)))(image)


@pytest.mark.parametrize(
    "stop",
    [
        torch.no_grad(), torch.inference_mode(), lambda f: lambda x: f(x).detach(),
        lambda f: lambda x: torch.from_numpy(f(x).detach().numpy()),
    ],
    ids=["no_grad", "inference_mode", "detach", "numpy"],
)  # fmt: skip
def test_a_forward_pass_without_gradients_is_the_reason_for_no_map(grey, stop) -> None:
    with pytest.raises(LayerError, match="no_grad"):
        camanim.animate(Stopped(stop), grey)
    assert len(camanim.animate(Stopped(stop), grey, method="EigenCAM")) == 1


def test_a_value_overwritten_in_place_is_the_reason_for_no_gradient(grey) -> None:
    net = Stopped(lambda f: lambda x: f(x).exp().add_(1))
    with pytest.raises(ModelError, match="in place"):
        camanim.animate(net, grey)


@pytest.mark.parametrize(
    "convert", [torch.jit.script, lambda n: torch.jit.trace(n, torch.ones(1, 1, 9, 9))]
)
def test_a_network_of_torchscript_is_refused_and_a_part_is_not(grey, convert) -> None:
    part = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    with pytest.raises(ModelError, match="TorchScript"):
        camanim.Model(convert(part))
    whole = nn.Sequential(nn.Conv2d(1, 1, 3), convert(part))
    plain = nn.Sequential(whole[0], part)
    for method in ("GradCAM", "AblationCAM", "ScoreCAM"):
        maps = [
            camanim.animate(n, grey, target=1, method=method, layers="0").maps
            for n in (whole, plain)
        ]
        np.testing.assert_allclose(*maps, atol=1e-6)


def test_lazy_weights_are_named_until_they_exist(grey) -> None:
    net = nn.Sequential(nn.LazyConv2d(2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = camanim.Model(net, camanim.Preprocess(channels=1))
    for call in (camanim.animate, lambda model, image: model.predict(image)):
        with pytest.raises(ModelError, match="lazy"):
            call(model, grey)
    net(torch.zeros(1, 1, 8, 8))
    assert len(camanim.animate(model, grey)) == 1


@pytest.mark.parametrize("squeeze", [lambda z: z.squeeze(1), lambda z: z[:, 0].sigmoid()])
def test_a_squeezed_logit_is_explained_as_with_its_axis(grey, squeeze) -> None:
    body = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
    )
    net = Stopped(lambda f: lambda x: squeeze(body(x)))
    net.body = body
    squeezed, whole = (camanim.animate(n, grey, target=1) for n in (net, body))
    assert squeezed.probability == pytest.approx(whole.probability, abs=1e-6)
    np.testing.assert_allclose(squeezed.maps[0], whole.maps[0], atol=1e-6)
    np.testing.assert_allclose(
        squeezed.score(draws=2).scores[0], whole.score(draws=2).scores[0], atol=1e-5
    )
