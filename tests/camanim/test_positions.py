"""Positions that run along with one forward pass: windows, grids and heads are found exactly."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torchvision.models import get_model, swin_transformer, vision_transformer
from torchvision.models.maxvit import MaxVit

from camanim.layout import Layout, tensors_of
from camanim.layout.position_tracing import trace_positions


class Twice(nn.Module):
    """Number by number, so that what goes in is known by what comes out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def outputs(net: nn.Module, x: torch.Tensor) -> dict[tuple[str, int], object]:
    """What each call of each module gives."""
    found: dict[tuple[str, int], object] = {}
    handles = []
    for name, module in net.named_modules():

        def hook(module, inputs, output, name=name) -> None:
            found[name, sum(n == name for n, _ in found)] = output

        handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        net.eval()(x.clone())
    for handle in handles:
        handle.remove()
    return found


def traced(net: nn.Module, x: torch.Tensor, name: str):
    return trace_positions(net, x, {(name, 0)}).get((name, 0))


# --- A network whose answer is known -----------------------------------------------------------


def partition(x: torch.Tensor, window: int, kind: str) -> torch.Tensor:
    """(B, *s, C) -> (B, windows, cells, C): by neighbourhood, or spread over the grid."""
    dims = x.ndim - 2
    sizes = []
    for side in x.shape[1:-1]:
        sizes += [side // window, window] if kind == "windows" else [window, side // window]
    x = x.reshape(len(x), *sizes, x.shape[-1])
    outer = [1 + 2 * i + (kind == "grid") for i in range(dims)]
    inner = [2 + 2 * i - (kind == "grid") for i in range(dims)]
    x = x.permute(0, *outer, *inner, -1)
    return x.flatten(1 + dims, 2 * dims).flatten(1, dims)


class Windowed(nn.Module):
    """Cells in windows; what `inside` gives is twice what `stem` gave, in another order."""

    def __init__(self, dims: int, kind: str, shift: int, form: str, pad: int = 0) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.dims, self.kind, self.shift, self.form, self.pad = dims, kind, shift, form, pad
        self.stem, self.inside, self.last = conv(1, 6, 2, 2), Twice(), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).movedim(1, -1)
        x = nn.functional.pad(x, (0, 0, *[0, self.pad] * self.dims))
        x = torch.roll(x, [-self.shift] * self.dims, list(range(1, self.dims + 1)))
        x = partition(x, 4, self.kind)
        count, cells = x.shape[1:3]
        if self.form == "tokens":
            x = self.inside(x.flatten(0, 1)).unflatten(0, (-1, count))
        elif self.form == "squares":
            x = self.inside(x.flatten(0, 1).unflatten(1, [4] * self.dims))
            x = x.flatten(1, self.dims).unflatten(0, (-1, count))
        elif self.form == "channels first":
            x = self.inside(x.flatten(0, 1).unflatten(1, [4] * self.dims).movedim(-1, 1))
            x = x.movedim(1, -1).flatten(1, self.dims).unflatten(0, (-1, count))
        elif self.form == "apart":
            x = self.inside(x)
        elif self.form == "heads":
            x = self.inside(x.flatten(0, 1).unflatten(-1, (2, 3)).transpose(1, 2))
            x = x.transpose(1, 2).flatten(2).unflatten(0, (-1, count))
        elif self.form == "sequence first":
            x = self.inside(x.flatten(0, 1).transpose(0, 1)).transpose(0, 1)
            x = x.unflatten(0, (-1, count))
        elif self.form == "rows":
            x = self.inside(x.flatten(0, 2)).unflatten(0, (-1, count, cells))
        return self.last(x).mean((1, 2))


FORMS = ["tokens", "squares", "channels first", "apart", "heads", "sequence first", "rows"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("kind", ["windows", "grid"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("images", [1, 3])
def test_windows_are_put_back_into_place(form, shift, kind, dims, images) -> None:
    net = Windowed(dims, kind, shift, form).eval()
    x = torch.randn(images, 1, 16, *[24] * (dims - 1))
    found = traced(net, x, "inside")
    assert found is not None
    given = outputs(net, x)
    want = 2 * given["stem", 0]
    assert torch.equal(found.to_channels(given["inside", 0]), want)
    assert found.space == tuple(want.shape[2:])
    if kind == "windows" and form != "rows":
        assert found.name == f"{'shifted ' * bool(shift)}windows {' x '.join('4' * dims)}"
    # The other way, for one image: what is put in comes out.
    one = outputs(net, x[:1])["inside", 0]
    channels = torch.randn(5, 6, *found.space)
    back = found.from_channels(channels, one)
    assert torch.equal(found.to_channels(back), channels)
    many = outputs(net, x[:1].repeat(5, *[1] * (dims + 1)))["inside", 0]
    assert back.shape == many.shape
    same = found.from_channels(want[:1].repeat(5, *[1] * (dims + 1)), one)
    assert torch.equal(same, many)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("form", ["tokens", "heads", "channels first"])
def test_padding_of_windows_is_left_out_and_put_back(form, shift) -> None:
    net = Windowed(2, "windows", shift, form, pad=2).eval()
    x = torch.randn(1, 1, 12, 20)
    found = traced(net, x, "inside")
    assert found is not None
    given = outputs(net, x)
    want = 2 * given["stem", 0]
    assert torch.equal(found.to_channels(given["inside", 0]), want)
    assert torch.equal(found.from_channels(want, given["inside", 0]), given["inside", 0])


def test_the_name_tells_windows_from_a_grid_and_shifted_ones() -> None:
    def name(kind: str, shift: int, pad: int = 0) -> str:
        found = traced(Windowed(2, kind, shift, "tokens", pad), torch.randn(1, 1, 16, 24), "inside")
        return found.name

    assert name("windows", 0) == "windows 4 x 4"
    assert name("windows", 2) == "shifted windows 4 x 4"
    assert name("grid", 0) == "grid 4 x 4"
    assert name("windows", 0, 4) == "windows 4 x 4"


def test_windows_of_different_images_between_each_other_are_not_read() -> None:
    """Nobody could tell how many images there are."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inside = nn.Conv2d(1, 6, 2, 2), Twice()

        def forward(self, x):
            x = partition(self.stem(x).movedim(1, -1), 4, "windows")
            return self.inside(x.transpose(0, 1).flatten(0, 1)).mean((0, 1))

    assert traced(Mixed(), torch.randn(1, 1, 16, 16), "inside") is None


# --- Operations ----------------------------------------------------------------------------------


class Chain(nn.Module):
    """A stem, an operation, and `inside`, which doubles what it gets."""

    def __init__(self, operation) -> None:
        super().__init__()
        self.operation = operation
        self.stem, self.inside = nn.Conv2d(3, 4, 2, 2), Twice()
        self.cls = nn.Parameter(torch.randn(1, 2, 4))

    def forward(self, x):
        return self.inside(self.operation(self, self.stem(x)))


def unfolded(net: Chain, x: torch.Tensor) -> torch.Tensor:
    """MobileViT's and MobileViTv2's: (B, C, place in patch, patch)."""
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return x.reshape(b, c, 4, h * w // 4)


def cells_of(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2).mT


def classes(net: Chain, x: torch.Tensor) -> torch.Tensor:
    return net.cls.expand(len(x), -1, -1)


MOVES = {
    "tokens": lambda net, x: cells_of(x),
    "class token": lambda net, x: torch.cat([classes(net, x), cells_of(x)], 1),
    "tokens at the end": lambda net, x: torch.cat([cells_of(x), classes(net, x)], 1),
    "without class token": lambda net, x: torch.cat([classes(net, x), cells_of(x)], 1)[:, 2:],
    "class token of others": lambda net, x: torch.cat(
        [torch.cat([classes(net, x), cells_of(x)], 1)[:, :1], cells_of(x).flip(1)], 1
    ),
    "flip": lambda net, x: x.flip(2),
    "transposed": lambda net, x: x.mT,
    "index": lambda net, x: x.flatten(2)[:, :, torch.arange(24).flip(0)],
    "index_select": lambda net, x: x.index_select(3, torch.tensor([5, 4, 3, 2, 1, 0])),
    "gather": lambda net, x: x.gather(
        2, torch.tensor([3, 1, 0, 2])[None, None, :, None].expand_as(x)
    ),
    "split and joined": lambda net, x: torch.cat(x.split([1, 3], 2)[::-1], 2),
    "unfold": lambda net, x: nn.functional.unfold(x, 1),
    "unfolded": unfolded,
    "heads": lambda net, x: cells_of(x).unflatten(2, (2, 2)).transpose(1, 2),
    "padded": lambda net, x: nn.functional.pad(x, (1, 2, 3, 0)),
    "mirrored": lambda net, x: nn.functional.pad(x, (1, 2, 3, 0), mode="reflect"),
    "another precision": lambda net, x: x.half().float().flatten(2),
    "single channel": lambda net, x: x[:, 2:3],
    "no channel": lambda net, x: x[:, 2].flip(1),
}


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("kind", MOVES)
def test_cells_are_found_wherever_they_go(kind, images) -> None:
    net = Chain(MOVES[kind])
    found = traced(net, torch.randn(images, 3, 8, 12), "inside")
    assert found.space == (4, 6)
    # What holds the numbers of the cells in place of values shows where they went.
    cells = torch.arange(24.0).view(1, 1, 4, 6).expand(images, 4, 4, 6) + 1
    read = found.to_channels(MOVES[kind](net, cells.clone()))
    assert torch.equal(read, cells[:, : read.shape[1]])


norm = nn.LayerNorm(4)
KEEPS = {
    "in place": (
        lambda net, x: x.relu_().mul_(2).flatten(2), lambda x: x.relu() * 2
    ),
    "added to a part": (lambda net, x: cells_of(x).add_(1), lambda x: x + 1),
    "activations": (
        lambda net, x: nn.functional.prelu(
            nn.functional.hardswish(nn.functional.mish(x), inplace=True), torch.tensor([0.5])
        ).permute(0, 2, 3, 1),
        lambda x: nn.functional.leaky_relu(nn.functional.hardswish(nn.functional.mish(x)), 0.5),
    ),
    "gated by its mean": (
        lambda net, x: cells_of(x) * cells_of(x).mean(1, keepdim=True).sigmoid(),
        lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    ),
    "normalised": (
        lambda net, x: norm(x.permute(0, 2, 3, 1)),
        lambda x: nn.functional.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
    ),
    "residual": (
        lambda net, x: cells_of(x) + nn.functional.avg_pool2d(x, 3, 1, 1).flatten(2).mT,
        lambda x: x + nn.functional.avg_pool2d(x, 3, 1, 1),
    ),
    "every second cell": (lambda net, x: x[:, :, ::2, 1::2].mT, lambda x: x[:, :, ::2, 1::2]),
    "stack": (
        lambda net, x: torch.stack([x[:, :, ::2], x[:, :, 1::2]], 1),
        lambda x: torch.stack([x[:, :, ::2], x[:, :, 1::2]], 1).flatten(1, 2),
    ),
    "pixels to channels": (
        lambda net, x: nn.functional.pixel_unshuffle(x, 2).permute(0, 2, 3, 1),
        lambda x: nn.functional.pixel_unshuffle(x, 2),
    ),
    "pixels to channels first": (
        lambda net, x: nn.functional.pixel_unshuffle(x, 2),
        lambda x: nn.functional.pixel_unshuffle(x, 2),
    ),
    "mean of columns": (lambda net, x: x.mean(2), lambda x: x.mean(2, keepdim=True)),
    "pooled after padding": (
        lambda net, x: nn.functional.max_pool2d(nn.functional.pad(x, (0, 1, 0, 1)), 3, 2).mT,
        lambda x: nn.functional.max_pool2d(nn.functional.pad(x, (0, 1, 0, 1)), 3, 2),
    ),
    "enlarged": (
        lambda net, x: nn.functional.interpolate(x, scale_factor=2).permute(0, 2, 3, 1),
        lambda x: nn.functional.interpolate(x, scale_factor=2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("kind", KEEPS)
def test_what_changes_numbers_leaves_them_where_they_are(kind, images) -> None:
    operation, want = KEEPS[kind]
    net, x = Chain(operation), torch.randn(images, 3, 8, 12)
    found = traced(net, x, "inside")
    given = outputs(net, x)
    with torch.no_grad():
        stem = net.stem(x)
    torch.testing.assert_close(found.to_channels(given["inside", 0]), 2 * want(stem))


def test_attention_keeps_what_the_queries_are_about() -> None:
    class Attention(nn.Module):
        def __init__(self, fused: bool) -> None:
            super().__init__()
            self.fused = fused
            self.stem, self.qkv = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 24)
            self.softmax, self.values = nn.Softmax(-1), nn.Identity()
            self.proj, self.bias = nn.Linear(8, 8), nn.Parameter(torch.randn(24, 24))

        def forward(self, x):
            x = self.stem(x).flatten(2).mT
            q, k, v = self.qkv(x).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            if self.fused:
                out = nn.functional.scaled_dot_product_attention(q, k, v)
            else:
                out = self.softmax(q @ k.mT / 2 + self.bias) @ v
            return x + self.proj(self.values(out).transpose(1, 2).flatten(2))

    x = torch.randn(1, 3, 8, 12)
    for fused in (True, False):
        net = Attention(fused)
        found = trace_positions(net, x, {(n, 0) for n, _ in net.named_modules()})
        for name in ("qkv", "values", "proj", ""):
            assert found[name, 0].name == "tokens 4 x 6", name
        assert found["values", 0].channels == (1, 3), "heads are channels, too"
    assert found["softmax", 0] is None, "cells by cells: no map"


def test_channels_by_channels_are_no_map() -> None:
    """As in XCiT: with as many channels as the image has rows, it looks like one."""

    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.softmax, self.out = nn.Conv2d(3, 4, 2, 2), nn.Softmax(-1), Twice()

        def forward(self, x):
            x = self.stem(x).flatten(2)
            return self.out(self.softmax(x @ x.mT) @ x)

    found = trace_positions(Cross(), torch.randn(1, 3, 8, 8), {("softmax", 0), ("out", 0)})
    assert found["softmax", 0] is None
    assert found["out", 0].space == (4, 4)


def test_merged_patches_are_cells_of_a_coarser_grid() -> None:
    class Merging(nn.Module):
        """Swin's way, and by unfolding."""

        def __init__(self, unfolding: bool) -> None:
            super().__init__()
            self.unfolding = unfolding
            self.stem, self.norm, self.merge = (
                nn.Conv2d(3, 4, 2, 2),
                nn.LayerNorm(16),
                nn.Linear(16, 5),
            )

        def forward(self, x):
            x = self.stem(x).permute(0, 2, 3, 1)
            if self.unfolding:
                x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3).flatten(3)
            else:
                parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
                x = torch.cat(parts, -1)
            return self.merge(self.norm(x)).flatten(1, 2)

    for unfolding in (False, True):
        net, x = Merging(unfolding), torch.randn(1, 3, 16, 24)
        found = trace_positions(net, x, {("norm", 0), ("merge", 0), ("", 0)})
        assert [found[name, 0].name for name in ("norm", "merge", "")] == [
            "NHWC", "NHWC", "tokens 4 x 6",
        ]  # fmt: skip


UNKNOWN = {
    "sorted": lambda net, x: x.flatten(2).sort(-1)[0],
    "overlapping": lambda net, x: nn.functional.unfold(x, 3, padding=1).mT,
    "a part": lambda net, x: x[:, :, 1:],
    "twice": lambda net, x: torch.cat([x, x], 2),
    "summed": lambda net, x: x.sum((2, 3)),
    "blocks of other sizes": lambda net, x: torch.cat(
        [x[:, :, :1], x[:, :, 1:].amax(2)[:, :, None]], 2
    ),
    "mixed": lambda net, x: x + x.flip(3),
    "swapped in place": lambda net, x: swapped(x),
    "written over": lambda net, x: x.clone().copy_(x.flip(2)) + x,
}


def swapped(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    whole = y.flatten(2)
    y[:, :, :2] = x[:, :, 2:]
    return whole


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_is_not_known_is_not_said(kind) -> None:
    assert traced(Chain(UNKNOWN[kind]), torch.randn(1, 3, 8, 12), "inside") is None


def test_what_does_not_come_from_the_image_is_no_map() -> None:
    """A table of positions may have an image's shape."""

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(1, 4, 4, 6))

        def forward(self):
            return self.table * 2

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.table, self.sorts = nn.Conv2d(3, 4, 2, 2), Table(), Chain(None)
            self.sorts.forward = lambda x: x.sort(2)[0]

        def forward(self, x):
            return self.sorts(self.stem(x) + self.table())

    found = trace_positions(
        Net(), torch.randn(1, 3, 8, 12), {("table", 0), ("sorts", 0), ("stem", 0)}
    )
    assert found["stem", 0].name == "NCHW"
    assert found["table", 0] is None
    assert ("sorts", 0) not in found, "that is from the image, and unknown"


# --- Networks of others ------------------------------------------------------------------------


def by_hand(x: torch.Tensor, side: int, window: int, shift: int, kind: str) -> torch.Tensor:
    """(windows, cells, C) of one image -> (1, C, side, side)."""
    count = side // window
    if kind == "windows":
        x = x.reshape(count, count, window, window, -1).permute(0, 2, 1, 3, 4)
    else:
        x = x.reshape(count, count, window, window, -1).permute(2, 0, 3, 1, 4)
    x = x.reshape(side, side, -1).roll((shift, shift), (0, 1))
    return x.permute(2, 0, 1)[None]


def test_swin_of_timm() -> None:
    timm = pytest.importorskip("timm")
    net = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, embed_dim=12, depths=(2, 2), num_heads=(2, 2)
    )
    x = torch.randn(1, 3, 56, 56)
    given = outputs(net, x)
    names = [n for n, _ in given if ".attn." in n or n.endswith(".attn")]
    found = trace_positions(net, x, {(n, 0) for n in names})
    seen = Counter()
    for name in names:
        layer, block = (int(part) for part in name.split(".")[1:4:2])
        side, shift = (14, 3 * block) if layer == 0 else (7, 0)
        if name.endswith(("softmax", "attn_drop")):
            assert found[name, 0] is None
            continue
        arrangement = found[name, 0]
        want = by_hand(given[name, 0], side, 7, shift, "windows")
        assert torch.equal(arrangement.to_channels(given[name, 0]), want), name
        seen[arrangement.name] += 1
    assert seen.keys() == {"windows 7 x 7", "shifted windows 7 x 7", "tokens 7 x 7"}


def test_maxvit_of_torchvision() -> None:
    net = MaxVit((64, 64), 8, 4, [8, 16], [1, 1], 4, 0.0)
    x = torch.randn(1, 3, 64, 64)
    given = outputs(net, x)
    for i, side in enumerate((16, 8)):
        for kind, want in (("window_attention", "windows"), ("grid_attention", "grid")):
            name = f"blocks.{i}.layers.0.layers.{kind}.attn_layer"
            found = traced(net, x, name)
            assert found.name == f"{want} 4 x 4"
            output = given[name, 0]
            if kind == "grid_attention":
                # Groups are those of the places in the windows.
                assert output.shape[1:3] == ((side // 4) ** 2, 16)
            assert torch.equal(found.to_channels(output), by_hand(output[0], side, 4, 0, want)), (
                name
            )


class Read:
    """How all calls of a network are read: by shape, and by positions where that is open."""

    def __init__(self, net: nn.Module, x: torch.Tensor) -> None:
        layout = Layout(tuple(x.shape))
        readings, paths, self.shapes = {}, {}, {}
        modules = dict(net.named_modules())
        self.given = {}
        for key, output in outputs(net, x).items():
            tensors = [(p, t) for p, t in tensors_of(output) if t.is_floating_point()]
            looked = [(p, t, layout.look(modules[key[0]], tuple(t.shape))) for p, t in tensors]
            looked.sort(key=lambda found: (found[2].arrangement is None, not found[2].open))
            if looked:
                paths[key], self.given[key], readings[key] = looked[0]
                self.shapes[key] = tuple(looked[0][1].shape)
        self.traced = trace_positions(net, x, paths)
        self.sure = {key for key, reading in readings.items() if not reading.open}
        self.found = {
            key: self.traced.get(key, reading.arrangement) if reading.open else reading.arrangement
            for key, reading in readings.items()
        }

    @property
    def names(self) -> Counter[str]:
        return Counter(found.name for found in self.found.values() if found is not None)

    @property
    def unread(self) -> Counter[tuple[int, ...]]:
        """Shapes of outputs with more than a row of numbers for the image that have no reading."""
        return Counter(
            self.shapes[key]
            for key, found in self.found.items()
            if found is None and sum(size > 1 for size in self.shapes[key][1:]) > 1
        )

    def contradictions(self) -> list[tuple[str, int]]:
        """Where shape and positions differ, though the shape was sure."""
        return [
            key
            for key in self.sure
            if key in self.traced
            and (found := self.found[key]) is not None
            and (
                self.traced[key] is None
                or not torch.equal(
                    self.traced[key].to_channels(self.given[key]),
                    found.to_channels(self.given[key]),
                )
            )
        ]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 64), ("densenet121", 64), ("convnext_tiny", 64), ("mobilenet_v3_small", 64),
        ("squeezenet1_1", 64), ("inception_v3", 96), ("googlenet", 64), ("shufflenet_v2_x0_5", 64),
        ("efficientnet_b0", 64), ("swin_t", 64), ("swin_v2_t", 64), ("vgg11", 64),
    ],
)  # fmt: skip
def test_what_is_sure_by_its_shape_is_right_by_its_positions(name, size) -> None:
    extra = {"init_weights": False} if name in {"inception_v3", "googlenet", "vgg11"} else {}
    read = Read(get_model(name, weights=None, **extra), torch.randn(1, 3, size, size))
    assert not read.contradictions()
    open_calls = set(read.found) - read.sure
    if name in {"convnext_tiny", "swin_t", "swin_v2_t"}:
        assert open_calls
    else:
        assert not open_calls, "a plain network needs no second pass"
        assert set(read.names) == {"NCHW"}
    assert read.names.total() > 0.6 * len(read.shapes)
    # All that is left are tables of relative positions.
    assert all(key in read.traced for key, found in read.found.items()
               if found is None and read.shapes[key] in read.unread)  # fmt: skip


def test_a_vision_transformer() -> None:
    net = vision_transformer.VisionTransformer(32, 8, 2, 2, 8, 16)
    read = Read(net, torch.randn(2, 3, 32, 32))
    assert read.names.keys() == {"NCHW", "tokens 4 x 4 after 1"}
    assert not read.unread
    assert read.names.total() == len(read.shapes) - 3, "the head, its layer, and the network"


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_transformer_of_torch(batch_first) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 8, 8)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)

        def forward(self, x):
            x = self.stem(x).flatten(2).permute(2, 0, 1)
            x = self.layer(x.transpose(0, 1) if batch_first else x)
            return x.mean(1 if batch_first else 0)

    for images in (1, 3):
        read = Read(Encoder(), torch.randn(images, 3, 32, 32))
        assert read.names == {"NCHW": 1, "tokens 4 x 4": len(read.shapes) - 2}
        assert not any(found is None for found in list(read.traced.values())[:-1])
        assert not read.contradictions()


def test_a_swin_transformer_of_torchvision() -> None:
    net = swin_transformer.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4])
    read = Read(net, torch.randn(1, 3, 64, 64))
    assert read.names.keys() == {"NCHW", "NHWC"}
    assert not read.unread


def test_registers_and_class_token_of_timm() -> None:
    timm = pytest.importorskip("timm")
    net = timm.create_model(
        "vit_small_patch14_reg4_dinov2", img_size=56, embed_dim=24, depth=2, num_heads=3
    )
    read = Read(net, torch.randn(1, 3, 56, 56))
    assert read.names.keys() == {"NCHW", "tokens 4 x 4", "tokens 4 x 4 after 5"}
    assert not read.unread


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("embed", ["conv", "perceptron"])
def test_a_vision_transformer_of_monai(dims, embed) -> None:
    nets = pytest.importorskip("monai.networks.nets")
    size = (32,) * dims
    net = nets.ViT(
        1, size, 8, hidden_size=24, mlp_dim=32, num_layers=2, num_heads=3, proj_type=embed,
        spatial_dims=dims, classification=True,
    )  # fmt: skip
    read = Read(net, torch.randn(1, 1, *size))
    side = " x ".join("4" * dims)
    assert {f"tokens {side}", f"tokens {side} after 1"} <= read.names.keys()
    count = 4**dims + 1
    assert read.unread == {(1, 3, count, count): 2}, "attention"


@pytest.mark.parametrize("dims", [2, 3])
def test_networks_of_monai_with_windows(dims) -> None:
    module = pytest.importorskip("monai.networks.nets.swin_unetr")
    net = module.SwinTransformer(
        1, 12, [2] * dims, [2] * dims, [2, 1, 1, 1], [1] * 4, spatial_dims=dims
    )
    read = Read(net, torch.randn(1, 1, *[32] * dims))
    side, cells = " x ".join("2" * dims), 2**dims
    assert {f"windows {side}", f"shifted windows {side}"} <= read.names.keys()
    assert all(shape[-2:] == (cells, cells) for shape in read.unread), "attention"
    assert not read.contradictions()


def test_a_unet_in_three_dimensions() -> None:
    nets = pytest.importorskip("monai.networks.nets")
    net = nets.UNet(3, 1, 2, (4, 8, 8), (2, 2), num_res_units=1)
    read = Read(net, torch.randn(1, 1, 16, 24, 8))
    assert read.names == {"NCDHW": len(read.shapes)}
    assert not read.contradictions()


def test_networks_of_huggingface() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32,
        image_size=32, patch_size=8,
    )  # fmt: skip
    read = Read(transformers.ViTModel(config), torch.randn(1, 3, 32, 32))
    assert read.names.keys() == {"NCHW", "tokens 4 x 4", "tokens 4 x 4 after 1"}
    assert not read.unread
    config = transformers.SwinConfig(
        image_size=64, patch_size=4, embed_dim=12, depths=[2, 2], num_heads=[2, 2], window_size=4
    )
    read = Read(transformers.SwinModel(config), torch.randn(1, 3, 64, 64))
    assert {"windows 4 x 4", "shifted windows 4 x 4"} <= read.names.keys()
    # Its tables of relative positions look like 16 x 16 images.
    assert read.unread.keys() == {(1, 2, 16, 16)}


def test_segmentation_with_a_dictionary_for_its_output() -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    read = Read(net, torch.randn(1, 3, 64, 96))
    assert read.names.keys() == {"NCHW"}
    assert read.found["", 0].space == (64, 96)
    assert not read.contradictions()
    assert not read.unread


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "names"),
    [
        ("nest_tiny", 64, {"windows 4 x 4"}),
        ("hiera_tiny_224", 224, {"rearranged 56 x 56"}),
        ("mobilevitv2_050", 64, {"grid 4 x 4", "grid 2 x 2"}),
        ("mobilevit_xxs", 64, {"grid 4 x 4"}),
        ("maxvit_tiny_tf_224", 224, {"windows 7 x 7", "grid 7 x 7"}),
        ("swinv2_tiny_window8_256", 64, {"windows 8 x 8", "shifted windows 8 x 8"}),
        ("levit_128s", 224, {"tokens 14 x 14", "tokens 7 x 7", "tokens 4 x 4"}),
        ("efficientvit_m0", 224, {"windows 7 x 7"}),
        ("coatnet_0_rw_224", 224, set()),
        ("deit3_small_patch16_224", 224, {"tokens 14 x 14 after 1"}),
        ("pit_ti_224", 224, {"tokens 27 x 27 after 1", "tokens 7 x 7 after 1"}),
        ("crossvit_tiny_240", 240, {"tokens 20 x 20 after 1", "tokens 14 x 14 after 1"}),
    ],
)
def test_networks_of_timm_whose_shapes_deceive(name, size, names) -> None:
    timm = pytest.importorskip("timm")
    sized = {"img_size": size} if name.startswith(("nest", "swin")) else {}
    read = Read(timm.create_model(name, **sized), torch.randn(1, 3, size, size))
    assert names <= read.names.keys()
    assert not read.contradictions()
    # What is not read is known to be no map.
    for key, found in read.found.items():
        if found is None and read.shapes[key] in read.unread:
            assert key in read.traced or read.shapes[key][-1] == read.shapes[key][-2], key


# --- The network, and whoever calls --------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_comes_back_as_it_was(zoo, fails) -> None:
    net = zoo.shake(zoo.Residual()).train()
    net.bn1.eval()
    before = zoo.state_of(net)
    x = torch.randn(1, 3, 12, 16)
    if fails:
        net.head[0].forward = lambda x: 1 / 0
        before = zoo.state_of(net)
    copy = x.clone()
    found = trace_positions(net, x, {("stem", 0), ("relu", 1), ("head", 0)})
    assert zoo.state_of(net) == before
    assert torch.equal(x, copy)
    assert found["relu", 1].space == (12, 16)
    assert (("head", 0) in found) is False


def test_a_network_that_takes_one_image_only() -> None:
    class Single(Windowed):
        def forward(self, x):
            assert len(x) == 1
            return super().forward(x)

    net = Single(2, "windows", 2, "tokens").eval()
    x = torch.randn(1, 1, 16, 16)
    found = traced(net, x, "inside")
    given = outputs(net, x)
    assert torch.equal(found.to_channels(given["inside", 0]), 2 * given["stem", 0])


def test_further_inputs_and_another_way_to_run() -> None:
    class Two(Windowed):
        def forward(self, x, factor):
            return super().forward(x * factor)

    net, x = Two(2, "windows", 2, "tokens"), torch.randn(1, 1, 16, 16)
    for found in (
        trace_positions(net, (x, 2.0), {("inside", 0)}),
        trace_positions(net, x, {("inside", 0)}, run=lambda batch: net(batch, 2.0)),
    ):
        assert found["inside", 0].name == "shifted windows 4 x 4"


def test_the_tensor_at_a_path_is_looked_at() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.pair = nn.Conv2d(3, 4, 2, 2), nn.Identity()
            self.pair.forward = lambda x: {"image": x, "tokens": x.flatten(2).mT}

        def forward(self, x):
            return self.pair(self.stem(x))["tokens"]

    x, key = torch.randn(1, 3, 8, 12), ("pair", 0)
    assert trace_positions(Both(), x, {key})[key].name == "NCHW"
    assert trace_positions(Both(), x, {key: "['tokens']"})[key].name == "tokens 4 x 6"


def test_calls_are_counted() -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.again = nn.Conv2d(1, 1, 2, 2), Twice()

        def forward(self, x):
            x = self.again(self.pool(self.again(x)))
            return self.again(x.flatten(2))

    found = trace_positions(Again(), torch.randn(1, 1, 8, 8), {("again", i) for i in range(4)})
    assert [found["again", i].space for i in range(3)] == [(8, 8), (4, 4), (4, 4)]
    assert ("again", 3) not in found


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad, torch.no_grad])
def test_the_callers_modes_and_random_numbers_are_of_no_consequence(mode) -> None:
    class Noisy(Windowed):
        def forward(self, x):
            return super().forward(x + torch.rand_like(x))

    net, x = Noisy(2, "windows", 2, "tokens"), torch.randn(1, 1, 16, 16)
    state = torch.get_rng_state()
    with mode():
        assert traced(net, x, "inside") is not None
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    assert torch.equal(torch.get_rng_state(), state)
