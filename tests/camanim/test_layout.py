"""Arrangements and their inverses, layouts inferred from shapes, and layouts that the user sets."""

from __future__ import annotations

import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from camanim import LayerError
from camanim.errors import NoMap
from camanim.layout import Gathered, LayoutInference, parse, stripes, tensors_of
from camanim.layout.arrangement import ChannelsFirst, ChannelsLast, Custom, Stripes, Tokens


class Unknown(nn.Module):
    """A module of no class of torch."""


RELU, CONV, LINEAR = nn.ReLU(), nn.Conv2d(1, 1, 1), nn.Linear(1, 1)


def infer_name(inference: LayoutInference, shape, module: nn.Module = RELU) -> str | None:
    arrangement = inference.infer(module, shape).arrangement
    return None if arrangement is None else arrangement.name


# --- Arrangements ----------------------------------------------------------------------------


@st.composite
def arrangements(draw):
    """An arrangement, and the shape of an output of one image."""
    dims = draw(st.sampled_from([2, 3]))
    space = tuple(draw(st.integers(1, 4)) for _ in range(dims))
    channels, leading = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    count = math.prod(space)
    order = torch.randperm(count + leading, generator=torch.Generator().manual_seed(count))
    kind = draw(
        st.sampled_from(["first", "last", "tokens", "sequence", "flat", "stripes", "index"])
    )
    if kind == "first":
        return ChannelsFirst("", space), (1, channels, *space)
    if kind == "last":
        return ChannelsLast("", space), (1, *space, channels)
    if kind == "tokens":
        return Tokens("", space, leading), (1, count + leading, channels)
    if kind == "sequence":
        return Tokens("", space, leading, (1, 2, 0)), (count + leading, 1, channels)
    if kind == "flat":
        return Tokens("", space, leading, (0, 1, 2)), (1, channels, count + leading)
    if kind == "stripes":
        line = (*[1] * (dims - 1), count)
        return Stripes("", line), (1, count)
    gathered = Gathered("", space, order[:count], (1, 3), 0, 2)
    if (count + leading) % 2:
        gathered = Gathered("", space, order[:count], (0, 2), 1, count + leading)
        return gathered, (2, count + leading, channels)
    return gathered, (2, 2, (count + leading) // 2, channels)


def repeat_image(arrangement, output: torch.Tensor, count: int) -> torch.Tensor:
    """Return the output of a module for several copies of one image."""
    axis = 0
    if isinstance(arrangement, Gathered):
        axis = arrangement.images
    elif isinstance(arrangement, Tokens):
        axis = arrangement.axes[0]
    return torch.cat([output] * count, axis)


@given(arrangements(), st.integers(1, 4))
def test_from_channels_inverts_to_channels(case, count) -> None:
    arrangement, shape = case
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(shape, generator=generator)
    channels = arrangement.to_channels(output)
    assert channels.shape[0] == 1
    assert channels.shape[2:] == arrangement.space
    repeated = channels.repeat(count, *[1] * (channels.ndim - 1))
    back = arrangement.from_channels(repeated, output)
    whole = repeat_image(arrangement, output, count)
    assert torch.equal(back, whole)
    assert torch.equal(arrangement.to_channels(whole), repeated)


@given(arrangements(), st.integers(1, 4))
def test_to_channels_inverts_from_channels(case, count) -> None:
    """And nothing outside the space changes."""
    arrangement, shape = case
    generator = torch.Generator().manual_seed(0)
    like = torch.randn(shape, generator=generator)
    sample = arrangement.to_channels(like)
    channels = torch.randn((count, *sample.shape[1:]), generator=generator)
    output = arrangement.from_channels(channels, like)
    assert torch.equal(arrangement.to_channels(output), channels)
    outside = torch.isin(like, sample.contiguous(), invert=True)
    expected = repeat_image(arrangement, torch.where(outside, like, 0.0), count)
    is_outside = repeat_image(arrangement, outside, count)
    assert torch.equal(output[is_outside], expected[is_outside])


@given(arrangements())
def test_both_conversions_are_differentiable(case) -> None:
    arrangement, shape = case
    output = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    channels = arrangement.to_channels(output)
    weights = torch.randn(channels.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((weights * channels).sum(), output)
    assert torch.equal(arrangement.to_channels(gradient), weights)
    leaf = channels.detach().requires_grad_()
    back = arrangement.from_channels(leaf, output.detach())
    (gradient,) = torch.autograd.grad((arrangement.to_channels(back) * weights).sum(), leaf)
    assert torch.equal(gradient, weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_from_channels_keeps_the_dtype_of_the_network(dtype) -> None:
    like = torch.zeros(1, 5, 2, dtype=dtype)
    arrangement = Tokens("", (2, 2), 1)
    assert arrangement.from_channels(torch.ones(3, 2, 2, 2), like).dtype == dtype


def test_to_channels_returns_views() -> None:
    for arrangement, shape in [
        (ChannelsFirst("", (4, 4)), (2, 3, 4, 4)),
        (ChannelsLast("", (4, 4)), (2, 4, 4, 3)),
        (Tokens("", (4, 4), 1), (2, 17, 3)),
        (Tokens("", (4, 4), 1, (1, 2, 0)), (17, 2, 3)),
    ]:
        output = torch.zeros(shape)
        assert arrangement.to_channels(output).untyped_storage().data_ptr() == output.data_ptr()


# --- Inference from shapes -------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 3])
def test_images_have_channels_first_or_last(images) -> None:
    inference = LayoutInference((images, 3, 32, 48))
    assert infer_name(inference, (images, 5, 8, 12), CONV) == "NCHW"
    assert infer_name(inference, (images, 5, 8, 12)) == "NCHW"
    assert infer_name(inference, (images, 8, 12, 7), LINEAR) == "NHWC"
    assert infer_name(inference, (images, 8, 12, 7), Unknown()) == "NHWC"
    assert infer_name(inference, (images, 4, 6, 7), LINEAR) == "NHWC", "merged patches"
    assert infer_name(inference, (images, 5, 3, 11), CONV) == "NCHW", "any output of a convolution"


@pytest.mark.parametrize("images", [1, 3])
def test_volumes_have_channels_first_or_last(images) -> None:
    inference = LayoutInference((images, 1, 16, 32, 48))
    conv = nn.Conv3d(1, 1, 1)
    assert infer_name(inference, (images, 5, 4, 8, 12), conv) == "NCDHW"
    assert infer_name(inference, (images, 4, 8, 12, 5), LINEAR) == "NDHWC"
    assert infer_name(inference, (images, 384, 5), LINEAR) == "tokens 4 x 8 x 12"
    assert infer_name(inference, (images, 386, 5), LINEAR) == "tokens 4 x 8 x 12 after 2"
    assert infer_name(inference, (images, 5, 8, 12), CONV) is None, "two spatial axes only"


@pytest.mark.parametrize("leading", range(9))
@pytest.mark.parametrize("images", [1, 3])
def test_tokens_are_the_cells_of_the_previous_output(images, leading) -> None:
    inference = LayoutInference((images, 3, 32, 48))
    assert inference.infer(CONV, (images, 5, 4, 6)).arrangement is not None
    arrangement = inference.infer(LINEAR, (images, 24 + leading, 5)).arrangement
    assert arrangement is not None
    assert arrangement.space == (4, 6)
    assert arrangement.leading == leading
    assert inference.infer(LINEAR, (images, 24 + 9, 5)).arrangement is None


def test_tokens_may_have_an_earlier_or_a_merged_size() -> None:
    inference = LayoutInference((1, 3, 64, 64))
    assert infer_name(inference, (1, 5, 16, 16), CONV) == "NCHW"
    assert infer_name(inference, (1, 256, 5), LINEAR) == "tokens 16 x 16"
    assert infer_name(inference, (1, 64, 5), LINEAR) == "tokens 8 x 8"
    assert infer_name(inference, (1, 16, 5), LINEAR) == "tokens 4 x 4"
    assert infer_name(inference, (1, 256, 5), LINEAR) == "tokens 16 x 16"


def test_the_first_tokens_are_square_patches() -> None:
    assert infer_name(LayoutInference((1, 3, 32, 48)), (1, 24, 5)) == "tokens 4 x 6"
    assert infer_name(LayoutInference((1, 3, 32, 48)), (1, 25, 5)) == "tokens 4 x 6 after 1"
    assert infer_name(LayoutInference((1, 3, 32, 48)), (1, 23, 5)) is None


def test_tokens_may_come_before_the_images() -> None:
    """As in the attention of torch with ``batch_first=False``."""
    for images in (1, 5):
        inference = LayoutInference((images, 3, 32, 32))
        assert infer_name(inference, (images, 7, 4, 4), CONV) == "NCHW"
        arrangement = inference.infer(LINEAR, (17, images, 6)).arrangement
        assert arrangement is not None
        output = torch.randn(17, images, 6)
        want = output[1:].permute(1, 2, 0).reshape(images, 6, 4, 4)
        assert torch.equal(arrangement.to_channels(output), want)
    inference = LayoutInference((4, 3, 32, 32))
    assert infer_name(inference, (4, 7, 4, 4), CONV) == "NCHW"
    assert infer_name(inference, (16, 4, 6), LINEAR) is None, (
        "four windows of four cells, in four images?"
    )


def test_flat_images_have_channels_first_if_nothing_else_fits() -> None:
    inference = LayoutInference((1, 3, 32, 32))
    assert infer_name(inference, (1, 7, 4, 4), CONV) == "NCHW"
    arrangement = inference.infer(Unknown(), (1, 7, 16)).arrangement
    assert arrangement is not None
    output = torch.randn(1, 7, 16)
    assert torch.equal(arrangement.to_channels(output), output.view(1, 7, 4, 4))
    assert infer_name(inference, (1, 16, 24), Unknown()) == "tokens 4 x 4", (
        "not 24 tokens, 8 of them leading"
    )
    assert infer_name(inference, (1, 16, 16), Unknown()) is None, (
        "tokens by tokens, or as many channels"
    )
    assert infer_name(inference, (1, 16, 16), LINEAR) == "tokens 4 x 4"
    assert infer_name(inference, (1, 16, 16), Unknown()) == "tokens 4 x 4", (
        "as the last of that shape"
    )


@pytest.mark.parametrize(
    "shape",
    [
        (1, 10), (1, 7, 1, 1), (1, 1, 1, 7), (1, 1, 7), (1, 7, 1), (1,), (), (1, 0, 4, 4), (1, 3, 0),
        (9, 49, 6), (9, 7, 7, 6), (1, 9, 49, 6), (9, 3, 49, 49), (2, 6, 4, 4), (1, 100, 4),
    ],
    ids=str,
)  # fmt: skip
def test_outputs_without_recognisable_space_have_no_arrangement(shape) -> None:
    inference = LayoutInference((1, 3, 64, 64))
    assert inference.infer(CONV, (1, 6, 16, 16)).arrangement is not None
    for module in (RELU, LINEAR, Unknown()):
        assert inference.infer(module, shape).arrangement is None


@pytest.mark.parametrize("shape", [(1, 7, 1, 1), (9, 6, 7, 7), (1, 6, 7), (1, 0, 4, 4)], ids=str)
def test_some_outputs_of_convolutions_are_no_images(shape) -> None:
    inference = LayoutInference((1, 3, 64, 64))
    assert inference.infer(CONV, (1, 6, 16, 16)).arrangement is not None
    assert inference.infer(CONV, shape).arrangement is None


@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_attention_is_no_image(side) -> None:
    """(B, heads, N, N) is square like most images, and here N is also a side of the image."""
    inference = LayoutInference((1, 3, side * side, side * side))
    assert inference.infer(CONV, (1, 6, side, side)).arrangement is not None
    assert inference.infer(LINEAR, (1, side * side, 6)).arrangement is not None
    count = side * side
    assert inference.infer(nn.Softmax(-1), (1, 3, count, count)).arrangement is None
    assert inference.infer(nn.Identity(), (1, 3, count, 5)).arrangement is None


def test_windows_and_heads_may_have_space() -> None:
    inference = LayoutInference((1, 3, 64, 64))
    assert inference.infer(CONV, (1, 6, 16, 16)).arrangement is not None
    assert inference.infer(LINEAR, (1, 257, 6)).arrangement is not None
    for shape in [(9, 49, 6), (9, 7, 7, 6), (1, 9, 49, 6), (9, 6, 7, 7), (1, 3, 257, 2), (256, 6)]:
        assert inference.may_have_space(shape), shape
    for shape in [(1, 10), (1, 7, 1, 1), (1, 1, 6), (1, 3, 257, 257), (1,), (1, 0, 5)]:
        assert not inference.may_have_space(shape), shape


def test_no_output_of_a_convolutional_network_is_ambiguous() -> None:
    """Otherwise each would need one more forward pass."""
    inference = LayoutInference((1, 3, 64, 64))
    for module, shape in [
        (CONV, (1, 8, 32, 32)), (RELU, (1, 8, 32, 32)), (nn.MaxPool2d(2), (1, 8, 16, 16)),
        (Unknown(), (1, 24, 16, 16)), (CONV, (1, 16, 16, 16)), (RELU, (1, 16, 16, 16)),
        (nn.AdaptiveAvgPool2d(1), (1, 16, 1, 1)), (nn.Flatten(), (1, 16)), (LINEAR, (1, 10)),
    ]:  # fmt: skip
        assert not inference.infer(module, shape).ambiguous
    assert inference.infer(LINEAR, (1, 256, 16)).ambiguous
    assert inference.infer(LINEAR, (1, 16, 16, 24)).ambiguous


def test_unfolded_patches_are_ambiguous() -> None:
    """MobileViTv2 applies convolutions to (patch, position)."""
    inference = LayoutInference((1, 3, 64, 64))
    assert not inference.infer(CONV, (1, 8, 8, 8)).ambiguous
    assert inference.infer(CONV, (1, 8, 4, 16)).ambiguous
    assert inference.infer(CONV, (1, 8, 8, 8)).ambiguous


# --- Layouts that the user sets --------------------------------------------------------------


def test_names_of_layouts() -> None:
    def parsed(name, shape, input_shape=(1, 3, 32, 32)):
        arrangement = parse(name, shape, LayoutInference(input_shape))
        return None if arrangement is None else (arrangement.name, arrangement.space)

    assert parsed("NHWC", (1, 5, 6, 7)) == ("NHWC", (5, 6))
    assert parsed("nchw", (1, 5, 6, 7)) == ("NCHW", (6, 7))
    assert parsed("NDHWC", (1, 4, 5, 6, 7), (1, 1, 8, 8, 8)) == ("NDHWC", (4, 5, 6))
    assert parsed("tokens", (1, 16, 7)) == ("tokens 4 x 4", (4, 4))
    assert parsed("tokens:2", (1, 18, 7)) == ("tokens 4 x 4 after 2", (4, 4))
    assert parsed("tokens:1", (17, 1, 7)) == ("tokens 4 x 4 after 1", (4, 4))
    assert parsed("1-D", (1, 5, 6, 7)) is None
    assert parsed("stripes", (1, 9)) == ("stripes", (1, 9))
    for name, shape in [("NCHW", (1, 9)), ("tokens", (1, 15, 7)), ("tokens", (1, 9))]:
        assert parsed(name, shape) is None, "the layout does not fit the shape"


def test_a_set_layout_is_used_for_later_outputs() -> None:
    inference = LayoutInference((1, 3, 32, 32))
    assert inference.infer(LINEAR, (1, 5, 10, 7)).arrangement is None
    assert parse("NHWC", (1, 5, 10, 7), inference) is not None
    assert infer_name(inference, (1, 5, 10, 7), LINEAR) == "NHWC"
    assert infer_name(inference, (1, 51, 7), LINEAR) == "tokens 5 x 10 after 1"


@pytest.mark.parametrize("name", ["", "NHCW", "tokens:x", "tokens:-1", "stripes:2", 5, None])
def test_other_names_are_refused(name) -> None:
    with pytest.raises(LayerError, match="tokens:2"):
        parse(name, (1, 16, 7), LayoutInference((1, 3, 32, 32)))


def test_a_function_like_that_of_grad_cam() -> None:
    def reshape_transform(tensor, height=4, width=4):
        result = tensor[:, 1:, :].reshape(tensor.size(0), height, width, tensor.size(2))
        return result.transpose(2, 3).transpose(1, 2)

    arrangement = parse(reshape_transform, (1, 17, 6), LayoutInference((1, 3, 32, 32)))
    assert (arrangement.name, arrangement.space) == ("reshape_transform", (4, 4))
    tokens = Tokens("", (4, 4), 1)
    output = torch.randn(2, 17, 6)
    assert torch.equal(arrangement.to_channels(output), tokens.to_channels(output))
    channels = torch.randn(3, 6, 4, 4)
    like = output[:1]
    assert torch.equal(
        arrangement.from_channels(channels, like), tokens.from_channels(channels, like)
    )


def test_a_function_that_mixes_elements_cannot_be_inverted() -> None:
    pooled = Custom("pooled", (2, 2), nn.AvgPool2d(2))
    assert pooled.to_channels(torch.ones(1, 3, 4, 4)).shape == (1, 3, 2, 2)
    for function in (nn.AvgPool2d(2), lambda x: x[:, :1].expand(-1, 3, -1, -1)):
        with pytest.raises(NoMap, match="mixed"):
            Custom("mixed", (4, 4), function).from_channels(
                torch.ones(2, 3, 4, 4), torch.ones(1, 3, 4, 4)
            )


@pytest.mark.parametrize("function", [lambda x: x.nothing, lambda x: x.flatten(), lambda x: 5])
def test_a_function_that_fails_is_named(function) -> None:
    with pytest.raises(LayerError, match="lambda"):
        parse(function, (1, 16, 7), LayoutInference((1, 3, 32, 32)))


@pytest.mark.parametrize(
    ("shape", "dims", "space"),
    [
        ((1, 9), 2, (1, 9)), ((4, 9), 3, (1, 1, 9)), ((1, 9, 1, 1), 2, (1, 9)),
        ((1, 1, 1, 9), 2, (1, 9)), ((1, 1), 2, None), ((1, 3, 3), 2, None), ((1, 0), 2, None),
        ((9,), 2, None), ((), 2, None),
    ],
)  # fmt: skip
def test_stripes(shape, dims, space) -> None:
    arrangement = stripes(shape, dims)
    assert (None if arrangement is None else arrangement.space) == space


# --- The tensors in an output ------------------------------------------------------------------


@dataclass
class Data:
    logits: torch.Tensor
    more: object


Named = namedtuple("Named", ["logits", "aux"])


def test_tensors_are_listed_with_their_paths() -> None:
    a, b, c = (torch.full((1,), float(i)) for i in range(3))
    recursive = [a]
    recursive.append(recursive)
    for output, paths in [
        (a, {"": a}),
        ((a, None, (b, "x")), {"[0]": a, "[2][0]": b}),
        ({"out": a, "aux": {1: b}}, {"['out']": a, "['aux'][1]": b}),
        (OrderedDict([("0", a), ("pool", b)]), {"['0']": a, "['pool']": b}),
        (Named(a, [b, c]), {".logits": a, ".aux[0]": b, ".aux[1]": c}),
        (Data(a, Data(b, None)), {".logits": a, ".more.logits": b}),
        ([{"boxes": a, "labels": b}, {"boxes": c}], {
            "[0]['boxes']": a, "[0]['labels']": b, "[1]['boxes']": c,
        }),
        (recursive, {"[0]": a}),
        (Data, {}), ("text", {}), (None, {}), (np.zeros(3), {}),
    ]:  # fmt: skip
        tensors = tensors_of(output)
        assert [path for path, _ in tensors] == list(paths)
        assert all(tensor is paths[path] for path, tensor in tensors)


def test_huggingface_outputs() -> None:
    modeling = pytest.importorskip("transformers.modeling_outputs")
    a, b = torch.zeros(1), torch.ones(1)
    output = modeling.BaseModelOutput(last_hidden_state=a, hidden_states=(b,))
    assert [p for p, _ in tensors_of(output)] == ["['last_hidden_state']", "['hidden_states'][0]"]
