"""Position tracing: the arrangements of windows, grids and heads, against brute force."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torchvision.models import get_model, swin_transformer, vision_transformer
from torchvision.models.maxvit import MaxVit

from camanim.layout import LayoutInference, tensors_of
from camanim.layout.position_tracing import trace_positions


class Doubled(nn.Module):
    """An elementwise module, whose input follows from its output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def outputs(net: nn.Module, x: torch.Tensor) -> dict[tuple[str, int], object]:
    """Return the output of each call of each module."""
    recorded: dict[tuple[str, int], object] = {}
    handles = []
    for name, module in net.named_modules():

        def hook(module, inputs, output, name=name) -> None:
            recorded[name, sum(n == name for n, _ in recorded)] = output

        handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        net.eval()(x.clone())
    for handle in handles:
        handle.remove()
    return recorded


def traced(net: nn.Module, x: torch.Tensor, name: str):
    return trace_positions(net, x, {(name, 0)}).get((name, 0))


# --- Windows -----------------------------------------------------------------------------------


def partition(x: torch.Tensor, window: int, kind: str) -> torch.Tensor:
    """Partition (B, *s, C) into (B, windows, cells, C), of adjacent cells or of a grid."""
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
    """Cells in windows; the output of `inside` is twice that of `stem`, in another order."""

    def __init__(self, dims: int, kind: str, shift: int, form: str, pad: int = 0) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.dims, self.kind, self.shift, self.form, self.pad = dims, kind, shift, form, pad
        self.stem, self.inside, self.last = conv(1, 6, 2, 2), Doubled(), nn.Linear(6, 3)

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
        elif self.form == "separate":
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


FORMS = ["tokens", "squares", "channels first", "separate", "heads", "sequence first", "rows"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("kind", ["windows", "grid"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("images", [1, 3])
def test_the_arrangement_of_windows(form, shift, kind, dims, images) -> None:
    net = Windowed(dims, kind, shift, form).eval()
    x = torch.randn(images, 1, 16, *[24] * (dims - 1))
    arrangement = traced(net, x, "inside")
    assert arrangement is not None
    recorded = outputs(net, x)
    want = 2 * recorded["stem", 0]
    assert torch.equal(arrangement.to_channels(recorded["inside", 0]), want)
    assert arrangement.space == tuple(want.shape[2:])
    if kind == "windows" and form != "rows":
        assert arrangement.name == f"{'shifted ' * bool(shift)}windows {' x '.join('4' * dims)}"
    # The inverse, for one image.
    one = outputs(net, x[:1])["inside", 0]
    channels = torch.randn(5, 6, *arrangement.space)
    back = arrangement.from_channels(channels, one)
    assert torch.equal(arrangement.to_channels(back), channels)
    many = outputs(net, x[:1].repeat(5, *[1] * (dims + 1)))["inside", 0]
    assert back.shape == many.shape
    same = arrangement.from_channels(want[:1].repeat(5, *[1] * (dims + 1)), one)
    assert torch.equal(same, many)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("form", ["tokens", "heads", "channels first"])
def test_padding_of_windows_is_dropped_and_restored(form, shift) -> None:
    net = Windowed(2, "windows", shift, form, pad=2).eval()
    x = torch.randn(1, 1, 12, 20)
    arrangement = traced(net, x, "inside")
    assert arrangement is not None
    recorded = outputs(net, x)
    want = 2 * recorded["stem", 0]
    assert torch.equal(arrangement.to_channels(recorded["inside", 0]), want)
    assert torch.equal(
        arrangement.from_channels(want, recorded["inside", 0]), recorded["inside", 0]
    )


def test_names_of_windows_and_grids() -> None:
    def name(kind: str, shift: int, pad: int = 0) -> str:
        arrangement = traced(
            Windowed(2, kind, shift, "tokens", pad), torch.randn(1, 1, 16, 24), "inside"
        )
        return arrangement.name

    assert name("windows", 0) == "windows 4 x 4"
    assert name("windows", 2) == "shifted windows 4 x 4"
    assert name("grid", 0) == "grid 4 x 4"
    assert name("windows", 0, 4) == "windows 4 x 4"


def test_windows_of_interleaved_images_have_no_arrangement() -> None:
    """No axis separates the images."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inside = nn.Conv2d(1, 6, 2, 2), Doubled()

        def forward(self, x):
            x = partition(self.stem(x).movedim(1, -1), 4, "windows")
            return self.inside(x.transpose(0, 1).flatten(0, 1)).mean((0, 1))

    assert traced(Mixed(), torch.randn(1, 1, 16, 16), "inside") is None


# --- Operations ----------------------------------------------------------------------------------


class Chain(nn.Module):
    """A stem, an operation, and `inside`, which doubles the result."""

    def __init__(self, operation) -> None:
        super().__init__()
        self.operation = operation
        self.stem, self.inside = nn.Conv2d(3, 4, 2, 2), Doubled()
        self.cls = nn.Parameter(torch.randn(1, 2, 4))

    def forward(self, x):
        return self.inside(self.operation(self, self.stem(x)))


def unfolded(net: Chain, x: torch.Tensor) -> torch.Tensor:
    """Unfold as MobileViT and MobileViTv2 do: (B, C, position in patch, patch)."""
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
def test_operations_that_move_elements(kind, images) -> None:
    net = Chain(MOVES[kind])
    arrangement = traced(net, torch.randn(images, 3, 8, 12), "inside")
    assert arrangement.space == (4, 6)
    # Apply the operation to the indices of cells in place of values.
    cells = torch.arange(24.0).view(1, 1, 4, 6).expand(images, 4, 4, 6) + 1
    channels = arrangement.to_channels(MOVES[kind](net, cells.clone()))
    assert torch.equal(channels, cells[:, : channels.shape[1]])


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
def test_operations_that_keep_or_merge_cells(kind, images) -> None:
    operation, want = KEEPS[kind]
    net, x = Chain(operation), torch.randn(images, 3, 8, 12)
    arrangement = traced(net, x, "inside")
    recorded = outputs(net, x)
    with torch.no_grad():
        stem = net.stem(x)
    torch.testing.assert_close(arrangement.to_channels(recorded["inside", 0]), 2 * want(stem))


def test_attention_has_the_cells_of_the_queries() -> None:
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
        arrangements = trace_positions(net, x, {(n, 0) for n, _ in net.named_modules()})
        for name in ("qkv", "values", "proj", ""):
            assert arrangements[name, 0].name == "tokens 4 x 6", name
        assert arrangements["values", 0].channels == (1, 3), "heads are channels"
    assert arrangements["softmax", 0] is None, "attention has no space"


def test_products_of_channels_have_no_space() -> None:
    """As in XCiT; with as many channels as rows, the product has the shape of an image."""

    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.softmax, self.out = nn.Conv2d(3, 4, 2, 2), nn.Softmax(-1), Doubled()

        def forward(self, x):
            x = self.stem(x).flatten(2)
            return self.out(self.softmax(x @ x.mT) @ x)

    arrangements = trace_positions(Cross(), torch.randn(1, 3, 8, 8), {("softmax", 0), ("out", 0)})
    assert arrangements["softmax", 0] is None
    assert arrangements["out", 0].space == (4, 4)


def test_merged_patches_are_cells_of_a_coarser_grid() -> None:
    class Merging(nn.Module):
        """Merging as in Swin, or by unfolding."""

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
        arrangements = trace_positions(net, x, {("norm", 0), ("merge", 0), ("", 0)})
        assert [arrangements[name, 0].name for name in ("norm", "merge", "")] == [
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
def test_other_operations_have_no_arrangement(kind) -> None:
    assert traced(Chain(UNKNOWN[kind]), torch.randn(1, 3, 8, 12), "inside") is None


def test_tensors_not_computed_from_the_image_have_no_space() -> None:
    """A table of relative positions may have the shape of an image."""

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

    arrangements = trace_positions(
        Net(), torch.randn(1, 3, 8, 12), {("table", 0), ("sorts", 0), ("stem", 0)}
    )
    assert arrangements["stem", 0].name == "NCHW"
    assert arrangements["table", 0] is None
    assert ("sorts", 0) not in arrangements, (
        "computed from the image, by an operation without a rule"
    )


# --- Published networks ------------------------------------------------------------------------


def reference(x: torch.Tensor, side: int, window: int, shift: int, kind: str) -> torch.Tensor:
    """Convert (windows, cells, C) of one image to (1, C, side, side)."""
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
    recorded = outputs(net, x)
    names = [n for n, _ in recorded if ".attn." in n or n.endswith(".attn")]
    arrangements = trace_positions(net, x, {(n, 0) for n in names})
    counts = Counter()
    for name in names:
        layer, block = (int(part) for part in name.split(".")[1:4:2])
        side, shift = (14, 3 * block) if layer == 0 else (7, 0)
        if name.endswith(("softmax", "attn_drop")):
            assert arrangements[name, 0] is None
            continue
        arrangement = arrangements[name, 0]
        want = reference(recorded[name, 0], side, 7, shift, "windows")
        assert torch.equal(arrangement.to_channels(recorded[name, 0]), want), name
        counts[arrangement.name] += 1
    assert counts.keys() == {"windows 7 x 7", "shifted windows 7 x 7", "tokens 7 x 7"}


def test_maxvit_of_torchvision() -> None:
    net = MaxVit((64, 64), 8, 4, [8, 16], [1, 1], 4, 0.0)
    x = torch.randn(1, 3, 64, 64)
    recorded = outputs(net, x)
    for i, side in enumerate((16, 8)):
        for kind, expected in (("window_attention", "windows"), ("grid_attention", "grid")):
            name = f"blocks.{i}.layers.0.layers.{kind}.attn_layer"
            arrangement = traced(net, x, name)
            assert arrangement.name == f"{expected} 4 x 4"
            output = recorded[name, 0]
            if kind == "grid_attention":
                # Each group holds one position of all windows.
                assert output.shape[1:3] == ((side // 4) ** 2, 16)
            assert torch.equal(
                arrangement.to_channels(output), reference(output[0], side, 4, 0, expected)
            ), name


class NetworkLayouts:
    """The arrangements of all calls of a network, from shapes and, if ambiguous, from positions."""

    def __init__(self, net: nn.Module, x: torch.Tensor) -> None:
        inference = LayoutInference(tuple(x.shape))
        inferred, paths, self.shapes = {}, {}, {}
        modules = dict(net.named_modules())
        self.recorded = {}
        for key, output in outputs(net, x).items():
            tensors = [(p, t) for p, t in tensors_of(output) if t.is_floating_point()]
            features = [
                (p, t, inference.infer(modules[key[0]], tuple(t.shape))) for p, t in tensors
            ]
            features.sort(key=lambda item: (item[2].arrangement is None, not item[2].ambiguous))
            if features:
                paths[key], self.recorded[key], inferred[key] = features[0]
                self.shapes[key] = tuple(features[0][1].shape)
        self.traced = trace_positions(net, x, paths)
        self.unambiguous = {key for key, layout in inferred.items() if not layout.ambiguous}
        self.arrangements = {
            key: self.traced.get(key, layout.arrangement)
            if layout.ambiguous
            else layout.arrangement
            for key, layout in inferred.items()
        }

    @property
    def names(self) -> Counter[str]:
        return Counter(each.name for each in self.arrangements.values() if each is not None)

    @property
    def unarranged(self) -> Counter[tuple[int, ...]]:
        """Shapes of outputs without an arrangement that have more than one axis per image."""
        return Counter(
            self.shapes[key]
            for key, arrangement in self.arrangements.items()
            if arrangement is None and sum(size > 1 for size in self.shapes[key][1:]) > 1
        )

    def contradictions(self) -> list[tuple[str, int]]:
        """Return the calls whose unambiguous arrangement differs from the traced one."""
        return [
            key
            for key in self.unambiguous
            if key in self.traced
            and (arrangement := self.arrangements[key]) is not None
            and (
                self.traced[key] is None
                or not torch.equal(
                    self.traced[key].to_channels(self.recorded[key]),
                    arrangement.to_channels(self.recorded[key]),
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
def test_unambiguous_layouts_agree_with_position_tracing(name, size) -> None:
    extra = {"init_weights": False} if name in {"inception_v3", "googlenet", "vgg11"} else {}
    layouts = NetworkLayouts(get_model(name, weights=None, **extra), torch.randn(1, 3, size, size))
    assert not layouts.contradictions()
    ambiguous = set(layouts.arrangements) - layouts.unambiguous
    if name in {"convnext_tiny", "swin_t", "swin_v2_t"}:
        assert ambiguous
    else:
        assert not ambiguous, "a convolutional network needs no second pass"
        assert set(layouts.names) == {"NCHW"}
    assert layouts.names.total() > 0.6 * len(layouts.shapes)
    # The others are tables of relative positions.
    assert all(key in layouts.traced for key, arrangement in layouts.arrangements.items()
               if arrangement is None and layouts.shapes[key] in layouts.unarranged)  # fmt: skip


def test_a_vision_transformer() -> None:
    net = vision_transformer.VisionTransformer(32, 8, 2, 2, 8, 16)
    layouts = NetworkLayouts(net, torch.randn(2, 3, 32, 32))
    assert layouts.names.keys() == {"NCHW", "tokens 4 x 4 after 1"}
    assert not layouts.unarranged
    assert layouts.names.total() == len(layouts.shapes) - 3, (
        "all but the head, its layer, and the network"
    )


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
        layouts = NetworkLayouts(Encoder(), torch.randn(images, 3, 32, 32))
        assert layouts.names == {"NCHW": 1, "tokens 4 x 4": len(layouts.shapes) - 2}
        assert not any(each is None for each in list(layouts.traced.values())[:-1])
        assert not layouts.contradictions()


def test_a_swin_transformer_of_torchvision() -> None:
    net = swin_transformer.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4])
    layouts = NetworkLayouts(net, torch.randn(1, 3, 64, 64))
    assert layouts.names.keys() == {"NCHW", "NHWC"}
    assert not layouts.unarranged


def test_registers_and_class_token_of_timm() -> None:
    timm = pytest.importorskip("timm")
    net = timm.create_model(
        "vit_small_patch14_reg4_dinov2", img_size=56, embed_dim=24, depth=2, num_heads=3
    )
    layouts = NetworkLayouts(net, torch.randn(1, 3, 56, 56))
    assert layouts.names.keys() == {"NCHW", "tokens 4 x 4", "tokens 4 x 4 after 5"}
    assert not layouts.unarranged


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("embed", ["conv", "perceptron"])
def test_a_vision_transformer_of_monai(dims, embed) -> None:
    nets = pytest.importorskip("monai.networks.nets")
    size = (32,) * dims
    net = nets.ViT(
        1, size, 8, hidden_size=24, mlp_dim=32, num_layers=2, num_heads=3, proj_type=embed,
        spatial_dims=dims, classification=True,
    )  # fmt: skip
    layouts = NetworkLayouts(net, torch.randn(1, 1, *size))
    side = " x ".join("4" * dims)
    assert {f"tokens {side}", f"tokens {side} after 1"} <= layouts.names.keys()
    count = 4**dims + 1
    assert layouts.unarranged == {(1, 3, count, count): 2}, "attention"


@pytest.mark.parametrize("dims", [2, 3])
def test_networks_of_monai_with_windows(dims) -> None:
    module = pytest.importorskip("monai.networks.nets.swin_unetr")
    net = module.SwinTransformer(
        1, 12, [2] * dims, [2] * dims, [2, 1, 1, 1], [1] * 4, spatial_dims=dims
    )
    layouts = NetworkLayouts(net, torch.randn(1, 1, *[32] * dims))
    side, cells = " x ".join("2" * dims), 2**dims
    assert {f"windows {side}", f"shifted windows {side}"} <= layouts.names.keys()
    assert all(shape[-2:] == (cells, cells) for shape in layouts.unarranged), "attention"
    assert not layouts.contradictions()


def test_a_unet_in_three_dimensions() -> None:
    nets = pytest.importorskip("monai.networks.nets")
    net = nets.UNet(3, 1, 2, (4, 8, 8), (2, 2), num_res_units=1)
    layouts = NetworkLayouts(net, torch.randn(1, 1, 16, 24, 8))
    assert layouts.names == {"NCDHW": len(layouts.shapes)}
    assert not layouts.contradictions()


def test_networks_of_huggingface() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32,
        image_size=32, patch_size=8,
    )  # fmt: skip
    layouts = NetworkLayouts(transformers.ViTModel(config), torch.randn(1, 3, 32, 32))
    assert layouts.names.keys() == {"NCHW", "tokens 4 x 4", "tokens 4 x 4 after 1"}
    assert not layouts.unarranged
    config = transformers.SwinConfig(
        image_size=64, patch_size=4, embed_dim=12, depths=[2, 2], num_heads=[2, 2], window_size=4
    )
    layouts = NetworkLayouts(transformers.SwinModel(config), torch.randn(1, 3, 64, 64))
    assert {"windows 4 x 4", "shifted windows 4 x 4"} <= layouts.names.keys()
    # The tables of relative positions have the shape of 16 x 16 images.
    assert layouts.unarranged.keys() == {(1, 2, 16, 16)}


def test_segmentation_with_a_dictionary_as_output() -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    layouts = NetworkLayouts(net, torch.randn(1, 3, 64, 96))
    assert layouts.names.keys() == {"NCHW"}
    assert layouts.arrangements["", 0].space == (64, 96)
    assert not layouts.contradictions()
    assert not layouts.unarranged


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
def test_networks_of_timm_with_ambiguous_shapes(name, size, names) -> None:
    timm = pytest.importorskip("timm")
    settings = {"img_size": size} if name.startswith(("nest", "swin")) else {}
    layouts = NetworkLayouts(timm.create_model(name, **settings), torch.randn(1, 3, size, size))
    assert names <= layouts.names.keys()
    assert not layouts.contradictions()
    # The others have no space.
    for key, arrangement in layouts.arrangements.items():
        if arrangement is None and layouts.shapes[key] in layouts.unarranged:
            assert key in layouts.traced or layouts.shapes[key][-1] == layouts.shapes[key][-2], key


# --- State, inputs and modes -------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_the_state_of_the_network_is_restored(zoo, fails) -> None:
    net = zoo.shake(zoo.Residual()).train()
    net.bn1.eval()
    before = zoo.state_of(net)
    x = torch.randn(1, 3, 12, 16)
    if fails:
        net.head[0].forward = lambda x: 1 / 0
        before = zoo.state_of(net)
    copy = x.clone()
    arrangements = trace_positions(net, x, {("stem", 0), ("relu", 1), ("head", 0)})
    assert zoo.state_of(net) == before
    assert torch.equal(x, copy)
    assert arrangements["relu", 1].space == (12, 16)
    assert ("head", 0) not in arrangements


def test_a_network_that_takes_only_one_image() -> None:
    class Single(Windowed):
        def forward(self, x):
            assert len(x) == 1
            return super().forward(x)

    net = Single(2, "windows", 2, "tokens").eval()
    x = torch.randn(1, 1, 16, 16)
    arrangement = traced(net, x, "inside")
    recorded = outputs(net, x)
    assert torch.equal(arrangement.to_channels(recorded["inside", 0]), 2 * recorded["stem", 0])


def test_further_inputs_and_a_run_function() -> None:
    class TwoInputs(Windowed):
        def forward(self, x, factor):
            return super().forward(x * factor)

    net, x = TwoInputs(2, "windows", 2, "tokens"), torch.randn(1, 1, 16, 16)
    for arrangements in (
        trace_positions(net, (x, 2.0), {("inside", 0)}),
        trace_positions(net, x, {("inside", 0)}, run=lambda batch: net(batch, 2.0)),
    ):
        assert arrangements["inside", 0].name == "shifted windows 4 x 4"


def test_the_arrangement_is_that_of_the_tensor_at_the_path() -> None:
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
    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.doubled = nn.Conv2d(1, 1, 2, 2), Doubled()

        def forward(self, x):
            x = self.doubled(self.pool(self.doubled(x)))
            return self.doubled(x.flatten(2))

    arrangements = trace_positions(
        Repeated(), torch.randn(1, 1, 8, 8), {("doubled", i) for i in range(4)}
    )
    assert [arrangements["doubled", i].space for i in range(3)] == [(8, 8), (4, 4), (4, 4)]
    assert ("doubled", 3) not in arrangements


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad, torch.no_grad])
def test_modes_and_random_state_of_the_caller_are_restored(mode) -> None:
    class Noisy(Windowed):
        def forward(self, x):
            return super().forward(x + torch.rand_like(x))

    net, x = Noisy(2, "windows", 2, "tokens"), torch.randn(1, 1, 16, 16)
    state = torch.get_rng_state()
    with mode():
        assert traced(net, x, "inside") is not None
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    assert torch.equal(torch.get_rng_state(), state)
