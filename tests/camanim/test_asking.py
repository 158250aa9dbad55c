"""Networks of every habit: methods that ask them again give what the whole network would have given."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import camanim
from camanim.execution.fast_copy import fast_copy
from camanim.execution.forward import Forward

CLASSES = 3


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


class Looped(nn.Module):
    """One convolution and one activation function, three times over."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.head = nn.ReLU(inplace=True), head(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = x + self.relu(self.conv(x))
        return self.head(x)


class Tied(nn.Module):
    """Two modules with one weight, and one block that two others contain."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.stem = nn.Conv2d(3, 4, 1)
        self.left = nn.Sequential(block, nn.Conv2d(4, 4, 3, padding=1))
        self.right = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), block)
        self.right[0].weight = self.left[1].weight
        self.head = head(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.left(x) * self.right(x))


class Decides(nn.Module):
    """Takes another way for another image: which, it decides for the batch as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.one, self.other = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.head = head(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.one(x) if x.mean() > -0.1 else self.other(x)
        return self.head(x.relu())


class WritesInput(nn.Sequential):
    """Normalises its input in place, before anything else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.sub_(0.5).mul_(2)
        return super().forward(x)


class Counts(nn.Sequential):
    """Keeps a buffer of its own, which every forward changes."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return super().forward(x)


@dataclass
class Found:
    """What a part of a network returns."""

    features: torch.Tensor
    about: str
    rest: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True)
class Answer:
    logits: torch.Tensor
    loss: torch.Tensor


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.skip = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> Found:
        return Found(self.conv(x).relu(), "features", (self.skip(x),))


class Dataclasses(nn.Module):
    """Its parts, and it itself, return dataclasses."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.last, self.head = Part(), nn.Conv2d(4, 4, 3), head(4)

    def forward(self, x: torch.Tensor) -> Answer:
        output = self.part(x)
        x = self.last(output.features * output.rest[0].sigmoid())
        logits = self.head(x)
        return Answer(logits, logits.sum())


class Direct(nn.Module):
    """Calls a module's `forward` past the hooks of the module, and then the module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()
        self.head = head(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv.forward(x) + x
        return self.head(self.relu(self.conv(x)))


class InPlace(nn.Module):
    """Overwrites whatever it can."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.act = nn.BatchNorm2d(4), nn.Hardtanh(-1, 1, inplace=True)
        self.head = head(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.a(x).mul_(0.7)
        b = self.norm(self.b(a).sub_(0.1))
        b += a
        return self.head(self.act(b.mul_(3)))


class Checkpointed(Looped):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(super().forward, x, use_reentrant=False)


class Attends(nn.Module):
    """Torch's own transformer, whose fast path would pass by its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Views(nn.Module):
    """Takes it for granted that channels come before space in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.again, self.linear = nn.Conv2d(1, 2, 3, stride=2), nn.LazyLinear(CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, (h, w) = len(x), x.shape[2:]
        x = self.norm(self.conv(x)).relu()
        x = self.again(x.view(-1, 1, h, w))
        return self.linear(x.view(count, -1))


def plain(zoo) -> nn.Module:
    return zoo.Plain()


def hooked(zoo) -> nn.Module:
    """Hooks of the user's own that change what modules give and get."""
    net = zoo.Plain(inplace=False)
    zoo.shake(net)
    net[0].register_forward_hook(lambda module, inputs, output: output * 0.5 + 1)
    net[3].register_forward_hook(lambda module, inputs, output: output.neg_())
    net[4].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 0.3,))
    net[6].register_forward_hook(lambda module, inputs, output: output * 2)
    return net


def compiled_part(zoo) -> nn.Module:
    net = zoo.shake(Looped())
    net.head = torch.compile(net.head, backend="eager")
    net(torch.rand(1, 3, 12, 12))
    return net


def compiled_in_place(zoo) -> nn.Module:
    net = zoo.shake(zoo.Plain())
    net.compile(backend="eager")
    net[4].compile(backend="eager")
    with torch.no_grad():
        net(torch.rand(1, 3, 20, 24))
    return net


def views(zoo) -> nn.Module:
    net = Views()
    net(torch.rand(2, 3, 20, 24))
    return net


def frozen(zoo) -> nn.Module:
    return zoo.Residual().requires_grad_(False)


NETWORKS: dict[str, Callable[[Any], nn.Module]] = {
    "plain": plain,
    "residual": lambda zoo: zoo.Residual(),
    "reused": lambda zoo: zoo.Reused(),
    "branches": lambda zoo: zoo.Branches(),
    "hands on": lambda zoo: zoo.PassThrough(),
    "looped": lambda zoo: Looped(),
    "tied": lambda zoo: Tied(),
    "decides": lambda zoo: Decides(),
    "writes into its input": lambda zoo: WritesInput(*zoo.Plain()),
    "counts": lambda zoo: Counts(*zoo.Plain()),
    "dataclasses": lambda zoo: Dataclasses(),
    "direct": lambda zoo: Direct(),
    "in place": lambda zoo: InPlace(),
    "checkpointed": lambda zoo: Checkpointed(),
    "attends": lambda zoo: Attends(),
    "views": views,
    "hooked": hooked,
    "frozen": frozen,
    "data parallel": lambda zoo: nn.DataParallel(zoo.Residual()),
    "compiled": lambda zoo: torch.compile(zoo.Plain(), backend="eager"),
    "compiled part": compiled_part,
    "compiled in place": compiled_in_place,
}
every_network = pytest.mark.parametrize("habit", NETWORKS)


def make(habit: str, zoo) -> nn.Module:
    net = NETWORKS[habit](zoo)
    if habit not in ("hooked", "compiled part"):
        zoo.shake(net)
    return net.eval()


def logits(output: Any) -> torch.Tensor:
    return getattr(output, "logits", output)


def tensor_in(output: Any, path: str) -> torch.Tensor:
    """The tensor that the engine says it looked at."""
    ways = {"": lambda o: o, ".features": lambda o: o.features, "[0]": lambda o: o[0]}
    return ways[path](output)


def put(output: Any, path: str, tensor: torch.Tensor) -> Any:
    if path == ".features":
        return replace(output, features=tensor)
    return (tensor, *output[1:]) if path else tensor


class Calls:
    """Runs a network with one call's output looked at, or replaced, by a hook; nothing else."""

    def __init__(self, net: nn.Module, tensor: torch.Tensor, layer: camanim.LayerInfo) -> None:
        self.net, self.tensor, self.layer = camanim.models.base.unwrap(net), tensor, layer
        self.module = dict(self.net.named_modules())[layer.name]
        self.path = layer.layout.split(" ")[0] if layer.layout[0] in ".[" else ""

    def run(self, change: Callable[[Any], Any] | None = None) -> tuple[torch.Tensor, Any]:
        """The logits and the layer's output."""
        outputs: list[Any] = []
        before = {n: b.clone() for n, b in self.net.named_buffers()}

        def hook(module, inputs, output):
            outputs.append(copy.deepcopy(output))
            if len(outputs) - 1 == self.layer.call and change is not None:
                return change(output)
            return None

        handle = self.module.register_forward_hook(hook)
        stance = torch.compiler.set_stance("force_eager")
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad(), stance:
            output = self.net(self.tensor.clone())
        torch.backends.mha.set_fastpath_enabled(fast)
        handle.remove()
        with torch.no_grad():
            for name, buffer in self.net.named_buffers():
                buffer.copy_(before[name])
        return logits(output)[0], outputs[self.layer.call]

    def activation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits, and what the layer gave, (C, h, w) or tokens (N, C)."""
        scores, output = self.run()
        return scores, tensor_in(output, self.path)[0]


def channels(activation: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """(C, h, w), also of tokens."""
    if activation.ndim == 3:
        return activation
    return activation.T.reshape(-1, *shape)


def ablation_by_hand(net, tensor, layer, target: int, shape) -> np.ndarray:
    """The whole network for each channel, one image at a time."""
    calls = Calls(net, tensor, layer)
    scores, activation = calls.activation()
    spatial = channels(activation, shape)
    weights = []
    for c in range(len(spatial)):
        off = activation.clone()
        off[(c,) if activation.ndim == 3 else (slice(None), c)] = 0
        without, _ = calls.run(lambda output, off=off: put(output, calls.path, off[None]))
        weights.append(float((scores[target] - without[target]) / scores[target].abs()))
    return np.einsum("c,chw->hw", weights, spatial.numpy().astype(np.float64))


def score_by_hand(net, tensor, layer, target: int, shape) -> np.ndarray:
    """Score-CAM as its paper has it: one masked image after the other."""
    calls = Calls(net, tensor, layer)
    _, activation = calls.activation()
    spatial = channels(activation, shape)
    scores = []
    for channel in spatial:
        large = functional.interpolate(channel[None, None], tensor.shape[2:], mode="bilinear")
        mask = (large - large.min()) / (large.max() - large.min() + 1e-8)
        masked = Calls(net, tensor * mask, layer)
        scores.append(masked.run()[0][target])
    weights = torch.stack(scores).softmax(0)
    return np.einsum("c,chw->hw", weights.numpy(), spatial.numpy().astype(np.float64))


def check(zoo, image, habit: str, method: str, by_hand, **settings) -> camanim.Animation:
    net = make(habit, zoo)
    before = zoo.state_of(net)
    animation = camanim.animate(net, image, method=method, target=1, **settings)
    assert zoo.state_of(net) == before
    assert len(animation) >= 2
    for layer, raw in zip(animation.layers, animation.maps, strict=True):
        expected = by_hand(net, animation.tensor, layer, 1, raw.shape)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(raw, expected, atol=2e-4 * scale + 1e-6, err_msg=layer.label)
    return animation


@every_network
def test_ablation_is_that_of_the_whole_network_in_every_layer(zoo, image, habit) -> None:
    check(zoo, image, habit, "AblationCAM", ablation_by_hand, batch_size=3)


@every_network
def test_scores_are_those_of_each_masked_image(zoo, image, habit) -> None:
    check(zoo, image, habit, "ScoreCAM", score_by_hand, batch_size=3)


@every_network
def test_gradients_are_those_of_autograd_in_every_layer(zoo, image, habit) -> None:
    """By asking the network for each layer alone, what a small step of its output changes."""
    net = make(habit, zoo)
    before = zoo.state_of(net)
    animation = camanim.animate(net, image, method="HiResCAM", target=1)
    assert zoo.state_of(net) == before
    assert len(animation) >= 2
    for layer, raw in zip(animation.layers, animation.maps, strict=True):
        calls = Calls(net, animation.tensor, layer)
        _, activation = calls.activation()
        spatial = channels(activation, raw.shape).numpy()
        gradient = channels(gradient_of(calls, activation), raw.shape).numpy()
        expected = np.einsum("chw,chw->hw", gradient, spatial)
        np.testing.assert_allclose(
            raw, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max(), err_msg=layer.label
        )


def gradient_of(calls: Calls, activation: torch.Tensor) -> torch.Tensor:
    leaf = activation[None].clone().requires_grad_()
    calls_so_far: list[int] = []

    def hook(module, inputs, output):
        calls_so_far.append(0)
        if len(calls_so_far) - 1 == calls.layer.call:
            # Not the leaf itself: the next operation may write in place.
            return put(output, calls.path, leaf.clone())
        return None

    before = {n: b.clone() for n, b in calls.net.named_buffers()}
    handle = calls.module.register_forward_hook(hook)
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.compiler.set_stance("force_eager"):
        output = calls.net(calls.tensor.clone())
    torch.backends.mha.set_fastpath_enabled(True)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits(output)[0, 1], leaf)
    with torch.no_grad():
        for name, buffer in calls.net.named_buffers():
            buffer.copy_(before[name])
    return gradient[0]


@pytest.mark.parametrize("habit", ["compiled", "compiled part", "compiled in place"])
def test_a_compiled_network_shows_all_its_layers(zoo, image, habit) -> None:
    """Also those inside, and also where it was compiled and run before anybody looked."""
    animation = camanim.animate(make(habit, zoo), image)
    kinds = {layer.kind for layer in animation.layer_calls}
    assert {"Conv2d", "ReLU", "Linear", "Flatten"} <= kinds


@pytest.mark.parametrize("method", ["GradCAM", "AblationCAM", "EigenCAM"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_networks_on_the_processor(zoo, image, method, dtype) -> None:
    net = zoo.shake(Looped())
    single = camanim.animate(net, image, method=method, target=0)
    half = camanim.animate(net.to(dtype), image, method=method, target=0)
    for a, b in zip(half.maps, single.maps, strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97
    assert half.tensor.dtype == torch.float32


class Several(nn.Module):
    """Takes more than the image: a second image, a table of tensors, a number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.head = head(4)

    def forward(self, x, other, table=None, factor=1.0):
        if table is not None:
            other.mul_(table["gain"])
        return self.head((self.a(x) + factor * self.b(other)).relu())


class Alone(nn.Module):
    """The same with its further inputs built in."""

    def __init__(self, net: Several, other: torch.Tensor, factor: float) -> None:
        super().__init__()
        self.net, self.other, self.factor = net, other, factor

    def forward(self, x):
        return self.net(x, self.other.repeat(len(x), 1, 1, 1), factor=self.factor)


@pytest.mark.parametrize("method", ["GradCAM", "AblationCAM", "ScoreCAM", "SmoothGradCAM++"])
@pytest.mark.parametrize("how", ["tuple", "dict"])
def test_further_inputs_go_along_in_every_batch_and_stay_as_they_are(
    zoo, image, method, how
) -> None:
    net = zoo.shake(Several())
    other = torch.rand(1, 3, 20, 24)
    table = {"gain": torch.full((1, 3, 20, 24), 0.5)}
    kept = other.clone()
    extra = (
        (other, table, 0.7) if how == "tuple" else {"other": other, "table": table, "factor": 0.7}
    )
    model = camanim.Model(net, extra_inputs=extra)
    ours = camanim.animate(model, image, method=method, target=1, batch_size=3)
    assert torch.equal(other, kept), "a network may write into what it gets; that is not the user's"
    alone = camanim.animate(
        Alone(net, other * 0.5, 0.7), image, method=method, target=1, batch_size=3
    )
    for a, layer in zip(ours.maps, ours.layers, strict=True):
        i = [info.name for info in alone.layers].index(f"net.{layer.name}")
        np.testing.assert_allclose(a, alone.maps[i], rtol=1e-4, atol=1e-6)
    assert model.predict(image)[0].probability > 0


def test_modes_that_differ_from_module_to_module_come_back(zoo, image) -> None:
    net = zoo.shake(Tied())
    net.left[0].train()
    net.head.train()
    before = {name: module.training for name, module in net.named_modules()}
    for method in ("GradCAM", "ScoreCAM", "AblationCAM", "RefineCAM", "Guided Grad-CAM"):
        camanim.animate(net, image, method=method, target=0)
        assert {name: module.training for name, module in net.named_modules()} == before


# --- Faster copies -----------------------------------------------------------------------------


class Elsewhere(nn.Module):
    """What a convolution gives goes into its normalisation, and at times elsewhere too."""

    def __init__(self, elsewhere: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.linear, self.elsewhere = nn.Linear(4, CLASSES), elsewhere

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        aside = self.elsewhere(y)
        return self.linear((self.norm(y).relu() + aside).mean((2, 3)))


def at_times(y: torch.Tensor) -> torch.Tensor:
    return y * 2 if y.mean() > 0.05 else torch.zeros_like(y)


ASIDE = {
    "always": lambda y: y,
    "where it is large, which it is not here": lambda y: (y - 50).relu(),
    "by a decision": at_times,
    "by a view": lambda y: y.view(-1)[:1].mul(0.0).add(1.0),
    "in place": lambda y: y.clamp_(min=-100) * 0,
}


@pytest.mark.parametrize("how", ASIDE)
def test_a_convolution_whose_output_is_used_elsewhere_is_not_folded(zoo, how) -> None:
    """Also where that does not show in the answer to the one image that both are compared on."""
    net = zoo.shake(Elsewhere(ASIDE[how]))
    forward = Forward(net)
    first = torch.rand(1, 3, 12, 14, generator=torch.Generator().manual_seed(1))
    others = torch.randn(6, 3, 12, 14, generator=torch.Generator().manual_seed(2)) * 30
    with forward.evaluating((1, 3, 12, 14)):
        fast = fast_copy(forward, first)
        for one in others:
            torch.testing.assert_close(fast(one[None]), forward(one[None]), rtol=1e-3, atol=1e-3)


def test_a_copy_that_cannot_be_had_or_fails_is_not_used(zoo) -> None:
    image = torch.rand(1, 3, 20, 24)
    net = make("views", zoo)
    forward = Forward(net)
    with forward.evaluating((1, 3, 20, 24)):
        fast = fast_copy(forward, image)
        batch = torch.rand(4, 3, 20, 24)
        torch.testing.assert_close(fast(batch), forward(batch), rtol=1e-3, atol=1e-4)
        net.lock = __import__("threading").Lock()
        assert fast_copy(forward, image) is forward


@every_network
def test_fast_copies_answer_alike_for_other_images(zoo, habit) -> None:
    net = camanim.models.base.unwrap(make(habit, zoo))
    forward = Forward(net)
    generator = torch.Generator().manual_seed(3)
    first = torch.rand(1, 3, 20, 24, generator=generator)
    with forward.evaluating((1, 3, 20, 24)):
        fast = fast_copy(forward, first)
        for scale in (0.1, 1.0, 10.0):
            one = torch.randn(1, 3, 20, 24, generator=generator) * scale
            torch.testing.assert_close(
                logits(fast(one)), logits(forward(one)), rtol=1e-3, atol=1e-3
            )
