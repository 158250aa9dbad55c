"""Asking a network again: replaced layers, faster copies, guided gradients, batches."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import camanim
from camanim import ModelError, OutOfMemory
from camanim.execution.consumer import Layer
from camanim.execution.fast_copy import fast_copy
from camanim.execution.forward import Batches, Forward
from camanim.execution.guided_gradient import guided_gradient
from camanim.execution.reevaluation import Rest
from camanim.layout import LayoutInference
from camanim.targets import ClassTarget

INPUT = torch.rand(1, 3, 12, 14, generator=torch.Generator().manual_seed(5))
TARGET = ClassTarget(1, "one")


def quiet(*args: object) -> None:
    """Report nothing."""


def calls_of(net: nn.Module) -> list[Layer]:
    """Every call whose output is channels over space."""
    layout, layers, counts = LayoutInference(tuple(INPUT.shape)), [], {}

    def see(name):
        def hook(module, inputs, output):
            call = counts.get(name, 0)
            counts[name] = call + 1
            if isinstance(output, torch.Tensor):
                arrangement = layout.infer(module, tuple(output.shape)).arrangement
                if arrangement is not None:
                    layers.append(Layer(len(layers), name, call, module, "", arrangement))

        return hook

    handles = [m.register_forward_hook(see(n)) for n, m in net.named_modules()]
    with torch.no_grad():
        net(INPUT.clone())
    for handle in handles:
        handle.remove()
    return layers


def replaced_by_hand(net: nn.Module, layer: Layer, values: torch.Tensor) -> list[float]:
    """Scores with one call's output replaced, the whole network run for each."""
    scores = []
    for value in values:
        previous = []

        def hook(module, inputs, output, value=value, previous=previous):
            previous.append(0)
            if len(previous) == layer.call + 1:
                return layer.arrangement.from_channels(value[None].clone(), output)
            return None

        handle = layer.module.register_forward_hook(hook)
        with torch.no_grad():
            scores.append(float(net(INPUT.clone())[0, TARGET.index]))
        handle.remove()
    return scores


@pytest.mark.parametrize("kind", ["Plain", "Residual", "Reused", "Branches", "PassThrough"])
def test_a_replaced_layer_gives_the_score_of_the_whole_network(zoo, kind) -> None:
    net = zoo.shake(getattr(zoo, kind)())
    before = zoo.state_of(net)
    for layer in calls_of(net):
        forward = Forward(net)
        with forward.evaluating(tuple(INPUT.shape)):
            rest = Rest(forward, INPUT, layer, Batches(3, quiet))
            count = len(rest.activation)
            values = rest.activation.repeat(count, 1, 1, 1)
            values[range(count), range(count)] = 0
            scores = rest.scores(TARGET, count, lambda a, b, v=values: v[a:b], quiet)
        expected = replaced_by_hand(net, layer, values)
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5, err_msg=layer.name)
    assert zoo.state_of(net) == before


def test_what_came_before_the_layer_does_not_run_again(zoo) -> None:
    net = zoo.shake(zoo.Plain())
    layer = next(layer for layer in calls_of(net) if layer.name == "4")
    runs: list[int] = []
    forward = Forward(net)
    with forward.evaluating(tuple(INPUT.shape)):
        rest = Rest(forward, INPUT, layer, Batches(8, quiet))
        counted = [type(net[i]).forward for i in range(6)]
        kinds = {i: net[i] for i in range(6)}
        for i, module in kinds.items():
            vars(module)["forward"] = lambda *a, i=i, m=module: (
                runs.append(i), counted[i](m, *a)
            )[1]  # fmt: skip
        rest._whole = False
        rest._score(TARGET, lambda a, b: rest.activation.repeat(b - a, 1, 1, 1), 0, 4)
        for module in kinds.values():
            del vars(module)["forward"]
    # The layer hands back what replaces it; only the ReLU behind it has to run.
    assert runs == [5]


class Counts(nn.Module):
    """Hands out something that is no batch: the network's answer depends on its very shape."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((0, 2, 3))


class NoBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.counts = nn.Conv2d(3, 4, 3), Counts()
        self.relu, self.linear = nn.ReLU(), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        per_channel = self.counts(x)
        return self.linear(self.relu(x * per_channel[:, None, None]).mean((2, 3)))


def test_where_handing_back_would_be_wrong_the_whole_network_runs(zoo) -> None:
    net = zoo.shake(NoBatch())
    layer = next(layer for layer in calls_of(net) if layer.name == "relu")
    forward = Forward(net)
    with forward.evaluating(tuple(INPUT.shape)):
        rest = Rest(forward, INPUT, layer, Batches(3, quiet))
        values = rest.activation.repeat(4, 1, 1, 1)
        values[range(4), range(4)] = 0
        scores = rest.scores(TARGET, 4, lambda a, b: values[a:b], quiet)
    np.testing.assert_allclose(scores, replaced_by_hand(net, layer, values), rtol=1e-4)


@pytest.mark.parametrize("kind", ["Plain", "Residual", "Reused", "Branches"])
def test_a_fast_copy_answers_alike_and_leaves_the_network_alone(zoo, kind) -> None:
    net = zoo.shake(getattr(zoo, kind)())
    before = zoo.state_of(net)
    forward = Forward(net)
    with forward.evaluating(tuple(INPUT.shape)):
        fast = fast_copy(forward, INPUT)
        torch.testing.assert_close(fast(INPUT), forward(INPUT), rtol=1e-4, atol=1e-5)
    assert zoo.state_of(net) == before
    normalizations = [m for m in fast.net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert fast.net is not net
    assert not normalizations


class Twice(nn.Module):
    """The convolution's own output is used beside its normalisation's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.linear((x + self.norm(x)).mean((2, 3)))


def test_a_convolution_that_is_used_twice_is_not_folded(zoo) -> None:
    forward = Forward(zoo.shake(Twice()))
    with forward.evaluating(tuple(INPUT.shape)):
        fast = fast_copy(forward, INPUT)
        torch.testing.assert_close(fast(INPUT), forward(INPUT), rtol=1e-5, atol=1e-6)
    assert any(isinstance(module, nn.BatchNorm2d) for module in fast.net.modules())


def test_the_guided_gradient_is_that_of_grad_cam(zoo) -> None:
    reference = pytest.importorskip("pytorch_grad_cam")
    net = zoo.shake(zoo.Plain(inplace=False))
    ours = guided_gradient(Forward(net), INPUT, TARGET)[0].permute(1, 2, 0).numpy()
    theirs = reference.GuidedBackpropReLUModel(model=copy.deepcopy(net), device="cpu")(
        INPUT.clone(), target_category=TARGET.index
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)
    assert np.abs(theirs).max() > 0


def test_guided_backpropagation_shows_the_guided_gradient_of_each_layer(zoo, image) -> None:
    """Against a backward pass by hand, in which each ReLU's gradient is cut off before it."""
    net = zoo.shake(zoo.Plain(inplace=False))
    animation = camanim.animate(net, image, method="GuidedBackprop", target=TARGET.index)
    torch.testing.assert_close(
        animation.guided, guided_gradient(Forward(net), animation.tensor, TARGET)
    )
    outputs: list[torch.Tensor] = []

    def keep(module, inputs, output):
        if isinstance(module, nn.ReLU):
            output.register_hook(torch.relu)
        if output.ndim == 4 and output.shape[-1] > 1:
            outputs.append(output)

    handles = [m.register_forward_hook(keep) for n, m in net.named_modules() if n]
    score = net(animation.tensor)[0, TARGET.index]
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(score, outputs)
    assert len(animation) == len(gradients)
    for raw, gradient in zip(animation.maps, gradients, strict=True):
        np.testing.assert_allclose(raw, gradient[0].relu().sum(0).numpy(), rtol=1e-4, atol=1e-7)


class Functional(nn.Module):
    """The same network, with its ReLUs as modules, as functions, in place."""

    def __init__(self, relu) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.linear, self.relu = nn.Linear(5, 3), relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.a(x))
        return self.linear(self.relu(self.b(x)).mean((2, 3)))


@pytest.mark.parametrize(
    "relu",
    [nn.ReLU(inplace=True), functional.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_],
)
def test_activations_by_any_name_are_guided(zoo, relu) -> None:
    expected = guided_gradient(Forward(zoo.shake(Functional(nn.ReLU()))), INPUT, TARGET)
    net = zoo.shake(Functional(relu))
    before = zoo.state_of(net)
    torch.testing.assert_close(guided_gradient(Forward(net), INPUT, TARGET), expected)
    assert zoo.state_of(net) == before


@pytest.mark.parametrize("activation", [functional.silu, functional.gelu, functional.relu6])
def test_soft_activations_follow_the_documented_rule(zoo, activation) -> None:
    """By hand: what reaches an activation from above loses its negative part, then its derivative."""
    net = zoo.shake(Functional(activation))
    with torch.no_grad():
        first = net.a(INPUT)
        second = net.b(activation(first))
    above = (net.linear.weight[TARGET.index] / second[0, 0].numel())[:, None, None]

    def derivative(x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(activation(x).sum(), x)
        return slope

    at_second = above.clamp(min=0) * derivative(second)
    back = functional.conv_transpose2d(at_second, net.b.weight)
    at_first = back.clamp(min=0) * derivative(first)
    expected = functional.conv_transpose2d(at_first, net.a.weight)
    torch.testing.assert_close(guided_gradient(Forward(net), INPUT, TARGET), expected)


class Limited:
    """Answers batches up to a size, and runs out of memory beyond."""

    def __init__(self, limit: int) -> None:
        self.limit, self.computed_with = limit, []

    def __call__(self, start: int, stop: int) -> torch.Tensor:
        if stop - start > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.computed_with.append((start, stop))
        return torch.arange(start, stop)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_batches_shrink_until_they_fit_and_say_so(limit) -> None:
    notes: list[str] = []
    ask = Limited(limit)
    result = Batches(16, notes.append)(20, ask)
    assert result.tolist() == list(range(20))
    assert ask.computed_with[0][1] <= limit
    assert notes
    assert all("batches of" in note for note in notes)


def test_batches_give_up_where_a_single_image_does_not_fit() -> None:
    with pytest.raises((torch.OutOfMemoryError, OutOfMemory)):
        Batches(16, quiet)(20, Limited(0))


def test_a_network_that_takes_no_batches_is_named() -> None:
    with pytest.raises(ModelError, match="does not take batches"):
        Batches(4, quiet)(4, lambda start, stop: torch.zeros(1))
