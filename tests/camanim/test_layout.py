"""How an output becomes channels over space: there and back, by shape, and as the user says."""

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
from camanim.layout import Gathered, Layout, parse, stripes, tensors_of
from camanim.layout.arrangement import ChannelsFirst, ChannelsLast, Custom, Stripes, Tokens


class Own(nn.Module):
    """A module of no known kind."""


RELU, CONV, LINEAR = nn.ReLU(), nn.Conv2d(1, 1, 1), nn.Linear(1, 1)


def read(layout: Layout, shape, module: nn.Module = RELU) -> str | None:
    found = layout.read(module, shape)
    return None if found is None else found.name


# --- There and back --------------------------------------------------------------------------


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


def images_last_to_first(arrangement, output: torch.Tensor, count: int) -> torch.Tensor:
    """What a module gives for many copies of one image."""
    axis = 0
    if isinstance(arrangement, Gathered):
        axis = arrangement.images
    elif isinstance(arrangement, Tokens):
        axis = arrangement.axes[0]
    return torch.cat([output] * count, axis)


@given(arrangements(), st.integers(1, 4))
def test_there_and_back_again(case, count) -> None:
    arrangement, shape = case
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(shape, generator=generator)
    channels = arrangement.to_channels(output)
    assert channels.shape[0] == 1
    assert channels.shape[2:] == arrangement.space
    repeated = channels.repeat(count, *[1] * (channels.ndim - 1))
    back = arrangement.from_channels(repeated, output)
    whole = images_last_to_first(arrangement, output, count)
    assert torch.equal(back, whole)
    assert torch.equal(arrangement.to_channels(whole), repeated)


@given(arrangements(), st.integers(1, 4))
def test_back_and_there_again(case, count) -> None:
    """Other activations come back as they were, and nothing else of the output changes."""
    arrangement, shape = case
    generator = torch.Generator().manual_seed(0)
    like = torch.randn(shape, generator=generator)
    sample = arrangement.to_channels(like)
    channels = torch.randn((count, *sample.shape[1:]), generator=generator)
    output = arrangement.from_channels(channels, like)
    assert torch.equal(arrangement.to_channels(output), channels)
    rest = torch.isin(like, sample.contiguous(), invert=True)
    kept = images_last_to_first(arrangement, torch.where(rest, like, 0.0), count)
    where = images_last_to_first(arrangement, rest, count)
    assert torch.equal(output[where], kept[where])


@given(arrangements())
def test_gradients_go_through_both_ways(case) -> None:
    """And land where the numbers are: each is used once."""
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
def test_what_goes_back_has_the_precision_of_the_network(dtype) -> None:
    like = torch.zeros(1, 5, 2, dtype=dtype)
    arrangement = Tokens("", (2, 2), 1)
    assert arrangement.from_channels(torch.ones(3, 2, 2, 2), like).dtype == dtype


def test_what_can_be_a_view_is_one() -> None:
    for arrangement, shape in [
        (ChannelsFirst("", (4, 4)), (2, 3, 4, 4)),
        (ChannelsLast("", (4, 4)), (2, 4, 4, 3)),
        (Tokens("", (4, 4), 1), (2, 17, 3)),
        (Tokens("", (4, 4), 1, (1, 2, 0)), (17, 2, 3)),
    ]:
        output = torch.zeros(shape)
        assert arrangement.to_channels(output).untyped_storage().data_ptr() == output.data_ptr()


# --- By shape --------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 3])
def test_images_come_with_channels_first_or_last(images) -> None:
    layout = Layout((images, 3, 32, 48))
    assert read(layout, (images, 5, 8, 12), CONV) == "NCHW"
    assert read(layout, (images, 5, 8, 12)) == "NCHW"
    assert read(layout, (images, 8, 12, 7), LINEAR) == "NHWC"
    assert read(layout, (images, 8, 12, 7), Own()) == "NHWC"
    assert read(layout, (images, 4, 6, 7), LINEAR) == "NHWC", "patches were merged"
    assert read(layout, (images, 5, 3, 11), CONV) == "NCHW", "whatever a convolution gives"


@pytest.mark.parametrize("images", [1, 3])
def test_volumes_likewise(images) -> None:
    layout = Layout((images, 1, 16, 32, 48))
    conv = nn.Conv3d(1, 1, 1)
    assert read(layout, (images, 5, 4, 8, 12), conv) == "NCDHW"
    assert read(layout, (images, 4, 8, 12, 5), LINEAR) == "NDHWC"
    assert read(layout, (images, 384, 5), LINEAR) == "tokens 4 x 8 x 12"
    assert read(layout, (images, 386, 5), LINEAR) == "tokens 4 x 8 x 12 after 2"
    assert read(layout, (images, 5, 8, 12), CONV) is None, "two axes of space only"


@pytest.mark.parametrize("leading", range(9))
@pytest.mark.parametrize("images", [1, 3])
def test_tokens_are_the_cells_of_the_output_before(images, leading) -> None:
    layout = Layout((images, 3, 32, 48))
    assert layout.read(CONV, (images, 5, 4, 6)) is not None
    found = layout.read(LINEAR, (images, 24 + leading, 5))
    assert found is not None
    assert found.space == (4, 6)
    assert found.leading == leading
    assert layout.read(LINEAR, (images, 24 + 9, 5)) is None


def test_tokens_of_an_earlier_size_and_merged_ones_are_known_too() -> None:
    layout = Layout((1, 3, 64, 64))
    assert read(layout, (1, 5, 16, 16), CONV) == "NCHW"
    assert read(layout, (1, 256, 5), LINEAR) == "tokens 16 x 16"
    assert read(layout, (1, 64, 5), LINEAR) == "tokens 8 x 8"
    assert read(layout, (1, 16, 5), LINEAR) == "tokens 4 x 4"
    assert read(layout, (1, 256, 5), LINEAR) == "tokens 16 x 16"


def test_tokens_of_which_nothing_is_known_are_square_patches() -> None:
    assert read(Layout((1, 3, 32, 48)), (1, 24, 5)) == "tokens 4 x 6"
    assert read(Layout((1, 3, 32, 48)), (1, 25, 5)) == "tokens 4 x 6 after 1"
    assert read(Layout((1, 3, 32, 48)), (1, 23, 5)) is None


def test_tokens_may_come_before_the_images() -> None:
    """As in torch's own attention where ``batch_first`` is False."""
    for images in (1, 5):
        layout = Layout((images, 3, 32, 32))
        assert read(layout, (images, 7, 4, 4), CONV) == "NCHW"
        found = layout.read(LINEAR, (17, images, 6))
        assert found is not None
        output = torch.randn(17, images, 6)
        want = output[1:].permute(1, 2, 0).reshape(images, 6, 4, 4)
        assert torch.equal(found.to_channels(output), want)
    layout = Layout((4, 3, 32, 32))
    assert read(layout, (4, 7, 4, 4), CONV) == "NCHW"
    assert read(layout, (16, 4, 6), LINEAR) is None, "four windows of four cells, in four images?"


def test_flat_images_with_channels_first_are_read_where_nothing_else_fits() -> None:
    layout = Layout((1, 3, 32, 32))
    assert read(layout, (1, 7, 4, 4), CONV) == "NCHW"
    found = layout.read(Own(), (1, 7, 16))
    assert found is not None
    output = torch.randn(1, 7, 16)
    assert torch.equal(found.to_channels(output), output.view(1, 7, 4, 4))
    assert read(layout, (1, 16, 24), Own()) == "tokens 4 x 4", "not 24 tokens, with 8 of its own"
    assert read(layout, (1, 16, 16), Own()) is None, "tokens by tokens, or channels as many?"
    assert read(layout, (1, 16, 16), LINEAR) == "tokens 4 x 4"
    assert read(layout, (1, 16, 16), Own()) == "tokens 4 x 4", "as the last of that shape"


@pytest.mark.parametrize(
    "shape",
    [
        (1, 10), (1, 7, 1, 1), (1, 1, 1, 7), (1, 1, 7), (1, 7, 1), (1,), (), (1, 0, 4, 4), (1, 3, 0),
        (9, 49, 6), (9, 7, 7, 6), (1, 9, 49, 6), (9, 3, 49, 49), (2, 6, 4, 4), (1, 100, 4),
    ],
    ids=str,
)  # fmt: skip
def test_what_has_no_space_or_hides_it_is_not_read(shape) -> None:
    layout = Layout((1, 3, 64, 64))
    assert layout.read(CONV, (1, 6, 16, 16)) is not None
    for module in (RELU, LINEAR, Own()):
        assert layout.read(module, shape) is None


@pytest.mark.parametrize("shape", [(1, 7, 1, 1), (9, 6, 7, 7), (1, 6, 7), (1, 0, 4, 4)], ids=str)
def test_not_all_that_a_convolution_gives_is_an_image(shape) -> None:
    layout = Layout((1, 3, 64, 64))
    assert layout.read(CONV, (1, 6, 16, 16)) is not None
    assert layout.read(CONV, shape) is None


@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_attention_is_no_image(side) -> None:
    """(B, heads, N, N) is square, as are most images; here N is one of its sides, too."""
    layout = Layout((1, 3, side * side, side * side))
    assert layout.read(CONV, (1, 6, side, side)) is not None
    assert layout.read(LINEAR, (1, side * side, 6)) is not None
    count = side * side
    assert layout.read(nn.Softmax(-1), (1, 3, count, count)) is None
    assert layout.read(nn.Identity(), (1, 3, count, 5)) is None


def test_windows_and_heads_are_left_to_their_positions() -> None:
    layout = Layout((1, 3, 64, 64))
    assert layout.read(CONV, (1, 6, 16, 16)) is not None
    assert layout.read(LINEAR, (1, 257, 6)) is not None
    for shape in [(9, 49, 6), (9, 7, 7, 6), (1, 9, 49, 6), (9, 6, 7, 7), (1, 3, 257, 2), (256, 6)]:
        assert layout.maybe_windows(shape), shape
    for shape in [(1, 10), (1, 7, 1, 1), (1, 1, 6), (1, 3, 257, 257), (1,), (1, 0, 5)]:
        assert not layout.maybe_windows(shape), shape


def test_a_plain_network_has_nothing_to_doubt() -> None:
    """Else each would pay for one more forward pass."""
    layout = Layout((1, 3, 64, 64))
    for module, shape in [
        (CONV, (1, 8, 32, 32)), (RELU, (1, 8, 32, 32)), (nn.MaxPool2d(2), (1, 8, 16, 16)),
        (Own(), (1, 24, 16, 16)), (CONV, (1, 16, 16, 16)), (RELU, (1, 16, 16, 16)),
        (nn.AdaptiveAvgPool2d(1), (1, 16, 1, 1)), (nn.Flatten(), (1, 16)), (LINEAR, (1, 10)),
    ]:  # fmt: skip
        assert not layout.look(module, shape).open
    assert layout.look(LINEAR, (1, 256, 16)).open
    assert layout.look(LINEAR, (1, 16, 16, 24)).open


def test_patches_unfolded_to_a_plane_are_doubted() -> None:
    """MobileViTv2 convolves (patch, place) as if that were an image."""
    layout = Layout((1, 3, 64, 64))
    assert not layout.look(CONV, (1, 8, 8, 8)).open
    assert layout.look(CONV, (1, 8, 4, 16)).open
    assert layout.look(CONV, (1, 8, 8, 8)).open


# --- As the user says ------------------------------------------------------------------------


def test_words() -> None:
    def said(word, shape, input_shape=(1, 3, 32, 32)):
        found = parse(word, shape, Layout(input_shape))
        return None if found is None else (found.name, found.space)

    assert said("NHWC", (1, 5, 6, 7)) == ("NHWC", (5, 6))
    assert said("nchw", (1, 5, 6, 7)) == ("NCHW", (6, 7))
    assert said("NDHWC", (1, 4, 5, 6, 7), (1, 1, 8, 8, 8)) == ("NDHWC", (4, 5, 6))
    assert said("tokens", (1, 16, 7)) == ("tokens 4 x 4", (4, 4))
    assert said("tokens:2", (1, 18, 7)) == ("tokens 4 x 4 after 2", (4, 4))
    assert said("tokens:1", (17, 1, 7)) == ("tokens 4 x 4 after 1", (4, 4))
    assert said("1-D", (1, 5, 6, 7)) is None
    assert said("stripes", (1, 9)) == ("stripes", (1, 9))
    for word, shape in [("NCHW", (1, 9)), ("tokens", (1, 15, 7)), ("tokens", (1, 9))]:
        assert said(word, shape) is None, "the word does not fit"


def test_what_the_user_says_helps_with_what_follows() -> None:
    layout = Layout((1, 3, 32, 32))
    assert layout.read(LINEAR, (1, 5, 10, 7)) is None
    assert parse("NHWC", (1, 5, 10, 7), layout) is not None
    assert read(layout, (1, 5, 10, 7), LINEAR) == "NHWC"
    assert read(layout, (1, 51, 7), LINEAR) == "tokens 5 x 10 after 1"


@pytest.mark.parametrize("word", ["", "NHCW", "tokens:x", "tokens:-1", "stripes:2", 5, None])
def test_other_words_are_refused(word) -> None:
    with pytest.raises(LayerError, match="tokens:2"):
        parse(word, (1, 16, 7), Layout((1, 3, 32, 32)))


def test_a_function_like_that_of_grad_cam() -> None:
    def reshape_transform(tensor, height=4, width=4):
        result = tensor[:, 1:, :].reshape(tensor.size(0), height, width, tensor.size(2))
        return result.transpose(2, 3).transpose(1, 2)

    found = parse(reshape_transform, (1, 17, 6), Layout((1, 3, 32, 32)))
    assert (found.name, found.space) == ("reshape_transform", (4, 4))
    tokens = Tokens("", (4, 4), 1)
    output = torch.randn(2, 17, 6)
    assert torch.equal(found.to_channels(output), tokens.to_channels(output))
    channels = torch.randn(3, 6, 4, 4)
    like = output[:1]
    assert torch.equal(found.from_channels(channels, like), tokens.from_channels(channels, like))


def test_a_function_that_mixes_numbers_cannot_be_turned_around() -> None:
    pooled = Custom("pooled", (2, 2), nn.AvgPool2d(2))
    assert pooled.to_channels(torch.ones(1, 3, 4, 4)).shape == (1, 3, 2, 2)
    for function in (nn.AvgPool2d(2), lambda x: x[:, :1].expand(-1, 3, -1, -1)):
        with pytest.raises(NoMap, match="own cannot be turned around"):
            Custom("own", (4, 4), function).from_channels(
                torch.ones(2, 3, 4, 4), torch.ones(1, 3, 4, 4)
            )


@pytest.mark.parametrize("function", [lambda x: x.nothing, lambda x: x.flatten(), lambda x: 5])
def test_a_function_that_fails_is_named(function) -> None:
    with pytest.raises(LayerError, match="lambda"):
        parse(function, (1, 16, 7), Layout((1, 3, 32, 32)))


@pytest.mark.parametrize(
    ("shape", "dims", "space"),
    [
        ((1, 9), 2, (1, 9)), ((4, 9), 3, (1, 1, 9)), ((1, 9, 1, 1), 2, (1, 9)),
        ((1, 1, 1, 9), 2, (1, 9)), ((1, 1), 2, None), ((1, 3, 3), 2, None), ((1, 0), 2, None),
        ((9,), 2, None), ((), 2, None),
    ],
)  # fmt: skip
def test_stripes(shape, dims, space) -> None:
    found = stripes(shape, dims)
    assert (None if found is None else found.space) == space


# --- The tensors in an output ------------------------------------------------------------------


@dataclass
class Data:
    logits: torch.Tensor
    more: object


Named = namedtuple("Named", ["logits", "aux"])


def test_tensors_are_found_with_their_paths() -> None:
    a, b, c = (torch.full((1,), float(i)) for i in range(3))
    circle = [a]
    circle.append(circle)
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
        (circle, {"[0]": a}),
        (Data, {}), ("text", {}), (None, {}), (np.zeros(3), {}),
    ]:  # fmt: skip
        found = tensors_of(output)
        assert [path for path, _ in found] == list(paths)
        assert all(tensor is paths[path] for path, tensor in found)


def test_huggingface_outputs() -> None:
    modeling = pytest.importorskip("transformers.modeling_outputs")
    a, b = torch.zeros(1), torch.ones(1)
    output = modeling.BaseModelOutput(last_hidden_state=a, hidden_states=(b,))
    assert [p for p, _ in tensors_of(output)] == ["['last_hidden_state']", "['hidden_states'][0]"]
